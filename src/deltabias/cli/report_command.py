"""``deltabias report``: is a rule worth correcting, at these betas and microbatches?"""

from inspect import signature
from pathlib import Path

import click

from deltabias.cli.door import Numbers, NumbersCommand, hyper_option, parse_hypers
from deltabias.cli.matrix_report_options import (
    OF_MATRIX_RULES,
    OF_SCALAR_RULES,
    matrix_options,
    refuse,
    report_matrix_rule,
)
from deltabias.errors import DeltabiasError


@click.command(cls=NumbersCommand)
@click.argument("rule")
@click.option("--betas", nargs=2, type=float, metavar="B1 B2", help="beta1 and beta2.")
@click.option("--eps", type=float, help="In units of the mean gradient's root mean square.")
@hyper_option
@click.option("--microbatches", type=int, default=16, show_default=True, help="In each step.")
@click.option(
    "--law",
    default="normal",
    show_default=True,
    help="Of one microbatch's gradient: normal, skewed, student_t, laplace, gamma, …; for a "
    "matrix rule wishart (zero mean), normal, student_t, skewed.",
)
@matrix_options
@click.option(
    "--noise-shares",
    type=Numbers(),
    metavar="Q …",
    help="var(mean gradient)/E(mean gradient²), in (0, 1] [default: 0.1 0.5 1].",
)
@click.option(
    "--steps", type=Numbers(int), metavar="T …", help="Steps to look at [default: 1 2 5 20 100]."
)
@click.option("--replicates", type=int, help="Simulated histories a row [default: what is quick].")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE.svg")
@click.option("--json", "as_json", is_flag=True)
@click.pass_context
def report(
    context: click.Context,
    rule: str,
    betas: tuple[float, float] | None,
    eps: float | None,
    hypers: tuple[str, ...],
    microbatches: int,
    law: str,
    noise_shares: tuple[float, ...] | None,
    steps: tuple[int, ...] | None,
    dim: int,
    columns: int | None,
    condition: float,
    damping: float | None,
    of_what: str | None,
    statistic: str,
    replicates: int | None,
    seed: int,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Report how large the bias of RULE is.

    Predicted and simulated, by step and noise share; for a matrix rule such as shampoo or
    "inv_root(L + damping*I, 2)*M" the share of the bias that each mode removes, in one step.
    """
    from deltabias.cli.report_table import progress_bar, show
    from deltabias.matrix_rule import MatrixRule
    from deltabias.report import NOISE_SHARES, STEPS
    from deltabias.report import report as make_report
    from deltabias.rule_file import resolve_rule

    values, typed = _values(rule, parse_hypers(hypers))
    resolved = resolve_rule(rule, typed)
    if figure is not None and figure.suffix != ".svg":  # before the work, not after it
        raise DeltabiasError(f"figure {str(figure)!r} must end in .svg, the only format written.")
    if isinstance(resolved, MatrixRule):
        refuse(context, OF_SCALAR_RULES, "matrix")
        report_matrix_rule(
            resolved, values, damping=damping, figure=figure, as_json=as_json, dim=dim,
            columns=columns, condition=condition, of=of_what, statistic=statistic,
            microbatches=microbatches, law=law, replicates=replicates, seed=seed,
        )  # fmt: skip
        return
    refuse(context, OF_MATRIX_RULES, "scalar")
    if eps is not None:
        values["eps"] = eps
    with progress_bar() as progress:
        made = make_report(
            resolved,
            betas=betas,
            microbatches=microbatches,
            noise_shares=NOISE_SHARES if noise_shares is None else noise_shares,
            steps=STEPS if steps is None else steps,
            law=law,
            replicates=replicates,
            seed=seed,
            progress=progress,
            **values,
        )
    if figure is not None:
        made.figure(figure)
    if as_json:
        click.echo(made.to_json())
    else:
        show(made)


def _values(rule: str, found: dict[str, float | None]) -> tuple[dict[str, float], dict[str, float]]:
    """Values to report at, and hyperparameters to declare for a typed rule."""
    from deltabias.report import report as make_report
    from deltabias.report.matrix_record import matrix_report
    from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE

    options = {*signature(make_report).parameters, *signature(matrix_report).parameters}
    if taken := sorted(set(found) & options):
        raise DeltabiasError(f"--hyper {taken[0]} is the name of an option; rename it in the rule.")
    if without := [name for name, value in found.items() if value is None]:
        raise DeltabiasError(f"--hyper {without[0]} needs a value here: --hyper {without[0]}=0.5.")
    is_typed = rule not in {*CATALOGUE, *MATRIX_CATALOGUE} and not rule.endswith(".toml")
    return dict(found), dict(found) if is_typed else {}
