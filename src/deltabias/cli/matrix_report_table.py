"""A matrix report as a table."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from deltabias.report.matrix_record import MatrixReport, Removed


def show(report: "MatrixReport") -> None:
    """Print settings, one table, and what was read into the rule."""
    console, at = Console(), report.settings

    def say(text: str, **style) -> None:
        console.print(escape(text), highlight=False, **style)

    hypers = "".join(f", {name}={value:g}" for name, value in at["hypers"].items())
    say(f"{report.name}, {report.of}: {report.expression}")
    say(
        f"{at['dim']} × {at['columns']}, {at['microbatches']} microbatches, {at['law']} gradients, "
        f"condition {at['condition']:g}{hypers}; statistic {at['statistic']}; "
        f"{at['replicates']} replicates, seed {at['seed']}"
    )
    bias = report.bias
    say(
        f"Bias of the plug-in, relative to the {report.of}: {100 * bias.removed:.4g} ± "
        f"{100 * bias.standard_error:.1g} %. Share of it removed, in percent:",
        style="bold",
    )
    console.print(_table(report))
    terms = "; ".join(f"{name} {_percent(share)}" for name, share in report.terms.items())
    say(f"Share of the bias that each term predicts, in percent: {terms}")
    say(
        f"worst entry: of the {report.carrying} entries (of {report.entries}) with more than 1 % "
        "of the largest entry's bias"
    )
    for mode, reason in report.not_applicable.items():
        say(f"{mode}: {reason}")
    for note in report.notes:
        say(note)


def _table(report: "MatrixReport") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("mode", "removed", "worst entry"):
        table.add_column(name, justify="left" if name == "mode" else "right")
    for mode, share in report.modes.items():
        table.add_row(mode, _percent(share), _percent(report.worst[mode]))
    return table


def _percent(share: "Removed") -> str:
    return f"{100 * share.removed:.4g} ± {100 * share.standard_error:.1g}"
