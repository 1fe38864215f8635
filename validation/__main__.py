"""``python -m validation [NAME ...] [--list]``: run studies, print tables, write results.

Under ``torchrun`` the ranks share the work; see `validation.ranks`.

Exit code 0 if every claim held, 1 if one failed, 2 for a name that is no study.
"""

import argparse
import os
import sys
import time

# before numpy is imported, here and in every spawned worker
os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from validation import ranks
from validation.catalogue import STUDIES
from validation.record import write
from validation.study import Findings, Study

MOST_WORKERS = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the named studies, or all of them."""
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.list:
        for study in STUDIES.values():
            console.print(f"[bold]{study.name}[/]  {study.claim}")
        return 0
    names = options.names or list(STUDIES)
    everything_held = True
    with ranks.joined():
        for name in names:
            findings, seconds = _run(STUDIES[name], options.workers, console)
            everything_held &= findings.passed
            if ranks.place()[0] == 0:
                write(STUDIES[name], findings)
                _show(STUDIES[name], findings, seconds, console, every_row=options.all_rows)
    return 0 if everything_held else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies; all of them if none")
    parser.add_argument("--list", action="store_true", help="the studies and their claims")
    parser.add_argument("--all-rows", action="store_true", help="print every row")
    parser.add_argument("--workers", type=int, default=MOST_WORKERS, choices=(1, 2))
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in STUDIES]:
        parser.error(f"no study {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    return options


def _run(study: Study, workers: int, console: Console) -> tuple[Findings, float]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    started = time.perf_counter()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(study.name, total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        findings = study.run(workers=workers, progress=progress)
    return findings, time.perf_counter() - started


MOST_ROWS = 40
_MARKS = {True: "[green]held[/]", False: "[red]FAILED[/]", None: "reported"}


def _show(
    study: Study, findings: Findings, seconds: float, console: Console, *, every_row: bool
) -> None:
    table = Table(title=f"{study.name}: {study.claim}", title_justify="left")
    for column in ("claim", "measured", "predicted", "standard error", "", "note"):
        table.add_column(column, overflow="fold")
    rows = list(findings.rows)
    if not every_row and len(rows) > MOST_ROWS:
        # what failed is never left out
        rows = [r for r in rows[:MOST_ROWS] if r.passed is not False] + findings.failures
    for row in rows:
        cells = map(_text, (row.measured, row.predicted, row.standard_error))
        # what held needs no words; results/ has them all
        note = "" if row.passed and not every_row else row.note
        table.add_row(row.claim, *cells, _MARKS[row.passed], note)
    console.print(table)
    held = sum(row.passed is True for row in findings.rows)
    hidden = len(findings.rows) - len(rows)
    more = f", {hidden} rows more in results/{study.name}.json" if hidden else ""
    console.print(
        f"{study.name}: {held} held, {len(findings.failures)} failed, "
        f"{sum(row.passed is None for row in findings.rows)} reported{more}; {seconds:.1f} s\n"
    )


def _text(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value if len(value) <= 60 else value[:57] + "..."
    return f"{float(value):.5g}"


if __name__ == "__main__":
    sys.exit(main())
