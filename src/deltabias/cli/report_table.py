"""A report as a table, and a progress bar while it is made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from deltabias.report import Report, Row


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where that is a terminal; gives ``progress(done, total)``."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def show(report: "Report") -> None:
    """Print settings, one table and the verdict."""
    console = Console()
    settings = report.settings
    hypers = ", ".join(f"{name}={value:g}" for name, value in settings["hypers"].items())
    console.print(f"{settings['rule_name']}: u = {escape(report.rule)}", highlight=False)
    console.print(
        f"{hypers or 'no hyperparameters'}; {settings['microbatches']} microbatches a step, "
        f"{settings['law']} gradients. Relative bias (E u - u*)/u*, in percent:",
        highlight=False,
    )
    console.print(_table(report))
    console.print(f"noise share: {settings['noise_share']}; {settings['unit']}", highlight=False)
    for sentence in [*settings["assumptions"], *_notes(report)]:
        console.print(escape(sentence), highlight=False)
    console.print()
    console.print(escape(report.verdict), highlight=False, style="bold")


def _table(report: "Report") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("step", "noise share", "predicted", "simulated", "leading order", "method"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for row in [*report.steady_state, *report.by_step]:
        table.add_row(
            "steady" if row.step is None else str(row.step),
            f"{row.noise_share:g}",
            _percent(row.predicted),
            _plus_minus(row),
            _percent(row.leading_order),
            escape(row.method),
        )
    return table


def _notes(report: "Report") -> Iterator[str]:
    for row in [*report.steady_state, *report.by_step]:
        if row.note:
            where = "the steady state" if row.step is None else f"step {row.step}"
            yield f"{where}, noise share {row.noise_share:g}: {row.note}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.4g}"


def _plus_minus(row: "Row") -> str:
    if row.simulated is None:
        return "–"
    return f"{100 * row.simulated:+.4g} ± {100 * row.standard_error:.1g}"
