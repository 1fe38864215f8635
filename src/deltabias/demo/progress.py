"""Progress bars for what takes longer than a second or two."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bars(console: Console, wanted: bool = True) -> Progress:
    """Bars on this console, gone when done; none where it is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (wanted and console.is_terminal),
    )


@contextmanager
def task(bars: Progress, text: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar for as long as its work takes; gives the function that advances it by one."""
    task_id = bars.add_task(text, total=total)
    try:
        yield lambda: bars.advance(task_id)
    finally:
        bars.remove_task(task_id)
