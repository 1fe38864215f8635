"""``deltabias verify``: does this optimizer compute its rule, is this update as claimed?"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from deltabias.cli.door import echo_json

if TYPE_CHECKING:
    from deltabias.verify.target import Outcome

OF_OPTIMIZERS = ("dtype", "no_features", "compiled")
OF_UPDATES = ("law", "mean", "sd", "statistics", "microbatches", "claim", "false_alarm")
DTYPES = ("float64", "float32", "bfloat16")
CLAIMS = ("1", "2", "3", "unbiased")
MIB = 1 << 20


@click.command()
@click.argument("target")
@click.option("--rule", required=True, help="A name, a .toml file or mathematics (see below).")
@click.option(
    "--hyper", "hypers", multiple=True, metavar="NAME=VALUE",
    help="Hold a hyperparameter at a number, draw it from LOW..HIGH, or name the constructor's "
    "argument that it is: lr=0.1, lr=1e-4..1e-2, beta1=betas[0]. Repeatable.",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float64", show_default=True,
    help="Of the parameters; float64 with its features checks the others too.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--no-features", is_flag=True, help="Only the conformance to the rule.")
@click.option("--compiled", is_flag=True, help="Also the step under torch.compile; takes long.")
@click.option("--bias", is_flag=True, help="TARGET is a function; measure its bias.")
@click.option("--law", default="normal", show_default=True, help="Of a microbatch's gradient.")
@click.option("--mean", help="Of that law, a number [default: 1].")
@click.option("--sd", help="Its standard deviation [default: 1/2].")
@click.option(
    "--statistic", "statistics", multiple=True, metavar="NAME=EXPRESSION",
    help="What a typed rule's statistic is of the gradient x: 'v=x**2'. Repeatable.",
)  # fmt: skip
@click.option("--microbatches", type=click.IntRange(min=2), default=16, show_default=True)
@click.option(
    "--claim",
    type=click.Choice(CLAIMS),
    default="2",
    show_default=True,
    help="The power of 1/m that is left: 1 uncorrected, 2 and 3 corrected.",
)
@click.option("--false-alarm", type=float, default=1e-6, show_default=True)
@click.option(
    "--time-limit", type=float, default=120.0, show_default=True, metavar="SECONDS",
    help="After which the target's process and its children are killed.",
)  # fmt: skip
@click.option(
    "--memory-limit", type=click.IntRange(min=256), metavar="MIB",
    help="Of the target's data [default: half of the machine's memory, 8192 at most].",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on standard output.")
@click.option("--junit-xml", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("-v", "--verbose", is_flag=True, help="Show what the target printed in any case.")
@click.pass_context
def verify(
    context: click.Context,
    target: str,
    rule: str,
    hypers: tuple[str, ...],
    seed: int,
    bias: bool,
    time_limit: float,
    memory_limit: int | None,
    as_json: bool,
    junit_xml: Path | None,
    verbose: bool,
    **options,
) -> None:
    """Check TARGET against RULE, in a process of its own.

    TARGET is module:Name or path/to/file.py:Name: an optimizer's class, or a function
    make(params, **arguments) that returns one. RULE is a step rule's name such as adamw, a .toml
    file, or assignments: "param = param - lr*grad".

    With --bias TARGET is a function from a float64 tensor [replicates, microbatches] to one update
    for each replicate, and RULE is the population update: a number, a name, a .toml file, or
    mathematics such as "g/(sqrt(v)+eps)".

    Exit codes: 0 pass; 1 fail or inconclusive; 2 error, no verdict was possible.
    """
    from deltabias.verify.target import BIAS, OPTIMIZER, verify_target

    _refuse(context, OF_OPTIMIZERS if bias else OF_UPDATES, bias)
    _refuse_limits(time_limit, options["false_alarm"])
    if junit_xml is not None:
        _refuse_folder(junit_xml)
    values = parse_values(hypers)
    outcome = verify_target(
        target,
        rule,
        kind=BIAS if bias else OPTIMIZER,
        time_limit=time_limit,
        memory_limit=None if memory_limit is None else memory_limit * MIB,
        seed=seed,
        options=_of_update(options, values) if bias else _of_optimizer(options, values),
    )
    _show(outcome, as_json=as_json, verbose=verbose)
    if junit_xml is not None:
        write_whole(junit_xml, outcome.report.to_junit())
    context.exit(outcome.report.exit_code)


def _of_optimizer(options: Mapping, hypers: Mapping) -> dict:
    if options["compiled"] and options["no_features"]:
        raise click.UsageError("--compiled and --no-features exclude each other.")
    features = ["compiled"] if options["compiled"] else not options["no_features"]
    return {"hypers": hypers, "dtype": options["dtype"], "features": features}


def _of_update(options: Mapping, hypers: Mapping) -> dict:
    if ranges := [name for name, value in hypers.items() if not isinstance(value, float)]:
        raise click.BadParameter(f"{ranges[0]} must be a number with --bias.", param_hint="--hyper")
    claim = options["claim"]
    return {
        **{name: options[name] for name in OF_UPDATES},
        "claim": claim if claim == "unbiased" else int(claim),
        "statistics": _pairs(options["statistics"], "--statistic", "v=x**2"),
        "hypers": hypers,
    }


def _pairs(words: tuple[str, ...], option: str, like: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if not (equals and value and name.isidentifier()):
            raise click.BadParameter(f"{word!r}: write NAME=…, as in {like}.", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name} is given twice.", param_hint=option)
        found[name] = value
    return found


def parse_values(words: tuple[str, ...]) -> dict[str, float | list[float] | str]:
    """``NAME=0.1`` to a number, ``NAME=0.1..0.5`` to a range, ``NAME=betas[0]`` to an argument.

    Raises
    ------
    click.BadParameter
        for anything else.
    """
    found = _pairs(words, "--hyper", "lr=0.1")
    return {name: _value(name, value) for name, value in found.items()}


def _value(name: str, text: str) -> float | list[float] | str:
    if re.fullmatch(r"[A-Za-z_]\w*(\[\d\])?", text) and text.lower() not in (
        "nan",
        "inf",
        "infinity",
    ):
        return text
    low, dots, high = text.partition("..")
    try:
        numbers = [float(part) for part in ((low, high) if dots else (low,))]
    except ValueError:
        numbers = []
    if not numbers or not all(map(isfinite, numbers)):
        raise click.BadParameter(
            f"{name}={text}: write a finite number, LOW..HIGH, or the name of an argument.",
            param_hint="--hyper",
        )
    return numbers if dots else numbers[0]


def _refuse(context: click.Context, names: tuple[str, ...], bias: bool) -> None:
    """An option that would be ignored is an error."""
    for option in context.command.params:
        given = context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
        if option.name in names and given:
            where = "with" if bias else "without"
            raise click.UsageError(f"{option.opts[-1]} has no meaning {where} --bias.")


def _refuse_limits(time_limit: float, false_alarm: float) -> None:
    if not (isfinite(time_limit) and time_limit > 0):
        raise click.BadParameter(f"{time_limit} must be > 0.", param_hint="--time-limit")
    if not 0 < false_alarm < 0.5:
        raise click.BadParameter(f"{false_alarm} must be in (0, 0.5).", param_hint="--false-alarm")


def _refuse_folder(path: Path) -> None:
    """Before the work, not after it."""
    if not path.parent.is_dir():
        raise click.BadParameter(
            f"the folder {str(path.parent)!r} is not there.", param_hint="--junit-xml"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file, or leave what was there: never half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)  # mkstemp's file is for its owner only; a report is like any other
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _show(outcome: "Outcome", *, as_json: bool, verbose: bool) -> None:
    report = outcome.report
    if as_json:
        echo_json(json.loads(report.to_json()))
    else:
        click.echo(str(report))
    if outcome.printed and (verbose or not report.passed):
        click.echo(f"-- printed by {report.target}:\n{outcome.printed.rstrip()}", err=True)
