"""``python -m validation.benchmarks [NAME ...] [--list]``: time in pairs, write results.

Exit code 0 if every claim held, 1 if one failed, 2 for a name that is no benchmark. What this
machine cannot measure is skipped by name.
"""

import argparse
import sys
from importlib import import_module

from rich.console import Console
from rich.progress import track
from rich.table import Table

from validation.benchmarks import BENCHMARKS
from validation.benchmarks.record import write


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m validation.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them if none")
    parser.add_argument("--list", action="store_true", help="the benchmarks and their claims")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    console = Console(width=None if sys.stdout.isatty() else 200)
    held = True
    for name in options.names or BENCHMARKS:
        module = import_module(f"validation.benchmarks.{name}")
        if options.list:
            console.print(f"[bold]{name}[/]  {module.CLAIM}")
            continue
        if reason := getattr(module, "missing", lambda: None)():
            console.print(f"{name}: skipped: {reason}")
            continue
        found = list(track(module.rows(), name, console=console, transient=True))
        device = getattr(module, "DEVICE", "cpu")
        path = write(name, module.CLAIM, found, device=device, packages=module.PACKAGES)
        console.print(_table(name, found), f"written: {path.name}")
        held &= all(row.get("passed") is not False for row in found)
    return 0 if held else 1


def _table(name: str, rows: list[dict]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, title=name)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    return table


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
