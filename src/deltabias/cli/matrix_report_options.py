"""Options of ``deltabias report`` that belong to matrix rules, and the report made with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from deltabias.errors import DeltabiasError

if TYPE_CHECKING:
    from deltabias.matrix_rule import MatrixRule

OF_SCALAR_RULES = ("betas", "eps", "noise_shares", "steps")
OF_MATRIX_RULES = ("dim", "columns", "condition", "damping", "of_what", "statistic")

_OPTIONS = (
    click.option("--dim", type=int, default=8, show_default=True, help="Rows of the gradient."),
    click.option("--columns", type=int, help="Columns of the gradient [default: its rows]."),
    click.option(
        "--condition",
        type=float,
        default=20.0,
        show_default=True,
        help="Condition number of the noise's covariance.",
    ),
    click.option("--damping", type=float, help="Added to every eigenvalue [default: the rule's]."),
    click.option(
        "--of",
        "of_what",
        metavar="preconditioner|update",
        help="What is reported [default: update; preconditioner for the law wishart].",
    ),
    click.option(
        "--statistic",
        default="mean_of_squares",
        show_default=True,
        help="What feeds the factors: the mean of the microbatches' products.",
    ),
)


def matrix_options(command):
    """Add the options of matrix rules to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def refuse(context: click.Context, names: tuple[str, ...], kind: str) -> None:
    """Say that an option has no meaning for this kind of rule, if one was given.

    Raises
    ------
    DeltabiasError
        naming the options.
    """
    given = [
        option.opts[-1]
        for option in context.command.params
        if option.name in names
        and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise DeltabiasError(f"{', '.join(given)} has no meaning for a {kind} rule; leave it out.")


def report_matrix_rule(
    rule: "MatrixRule",
    values: Mapping[str, float],
    *,
    damping: float | None,
    figure: Path | None,
    as_json: bool,
    **settings,
) -> None:
    """Make the report, draw it, and print it."""
    from deltabias.cli.matrix_report_table import show
    from deltabias.cli.report_table import progress_bar
    from deltabias.report.matrix_record import matrix_report

    hypers = dict(values)
    if damping is not None:
        if "damping" in hypers:
            raise DeltabiasError("--damping and --hyper damping are the same; pass one.")
        hypers["damping"] = damping
    with progress_bar() as progress:
        made = matrix_report(rule, progress=progress, **settings, **hypers)
    if figure is not None:
        made.figure(figure)
    if as_json:
        click.echo(made.to_json())
    else:
        show(made)
