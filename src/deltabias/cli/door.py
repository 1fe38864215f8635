"""What every command shares: errors and exit codes, options in numbers, where output goes."""

import errno
import json
from collections.abc import Mapping, Sequence
from math import isfinite

import click

from deltabias.errors import DeltabiasError

BAD_INPUT = 2


class Door(click.Group):
    """A group whose commands answer bad input with exit code 2 and a message."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DeltabiasError as error:
            click.echo(f"deltabias: {error}", err=True)
            raise SystemExit(BAD_INPUT) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader went away; click knows what to do
                raise
            where = f" {str(error.filename)!r}" if error.filename else ""
            click.echo(f"deltabias: cannot use{where}: {error.strerror or error}.", err=True)
            raise SystemExit(BAD_INPUT) from error


class NumbersCommand(click.Command):
    """A command some of whose options take as many numbers as follow: ``--steps 1 2 5``."""

    many = ("--noise-shares", "--steps")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word in self.many:
                values = []
                while rest and _is_number(rest[0]):
                    values.append(rest.pop(0))
                if values:
                    joined.append(",".join(values))
        return super().parse_args(ctx, joined)


class Numbers(click.ParamType):
    """Numbers with commas in between."""

    name = "numbers"

    def __init__(self, kind: type = float) -> None:
        self.kind = kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None):
        if not isinstance(value, str):
            return value
        try:
            return tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            what = "integers" if self.kind is int else "numbers"
            self.fail(f"{value!r} must be {what}, such as '--steps 1 2 5' or '1,2,5'.", param, ctx)


def _is_number(word: str) -> bool:
    try:
        return [float(part) for part in word.split(",") if part] != []
    except ValueError:
        return False


DEFAULT_HYPER = 1e-8
"""Of a hyperparameter that is declared without one; that of eps."""


def parse_hypers(pairs: Sequence[str]) -> dict[str, float]:
    """``NAME`` or ``NAME=VALUE`` to a mapping; a missing value is None.

    Raises
    ------
    click.BadParameter
        for a value that is no number.
    """
    found: dict[str, float | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            found[name] = float(value) if equals else None
        except ValueError:
            raise click.BadParameter(
                f"{pair!r}: {value!r} is no number; write NAME or NAME=0.5.", param_hint="--hyper"
            ) from None
    return found


def declared(found: Mapping[str, float | None]) -> dict[str, float]:
    """Hyperparameters with a default where none was given."""
    return {n: DEFAULT_HYPER if v is None else v for n, v in found.items()}


def echo_json(record: Mapping) -> None:
    """Strict JSON on standard output: a number that is not finite is null."""
    click.echo(json.dumps(_finite(record), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


hyper_option = click.option(
    "--hyper",
    "hypers",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A hyperparameter of a typed rule, besides eps…, beta…, damping… and lr. Repeatable.",
)
