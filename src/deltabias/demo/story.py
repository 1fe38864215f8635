"""The order of things: a rule's bias, its code, the truth, a training run, and its layers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from deltabias.demo import parts, report
from deltabias.demo.corpus import read_corpus
from deltabias.demo.progress import progress_bars
from deltabias.demo.training import Maker, Settings, corrected, plain
from deltabias.derivation import derive
from deltabias.errors import DeltabiasError
from deltabias.rule import UpdateRule

RULE_TEXT = "g/(v**(1/3)+eps)"
SEEDS = (0, 1, 2)
STEPS = 80
"""With three seeds this fits into three minutes on two cores; training takes most of it."""

MAKERS: tuple[Maker, Maker] = (plain, corrected)
SHAPE: dict[str, int] = {}
"""What differs from `ByteTransformer`'s own shape."""


def run_demo(
    *,
    rule_text: str = RULE_TEXT,
    seeds: Sequence[int] = SEEDS,
    steps: int = STEPS,
    directory: Path = Path("build"),
    console: Console | None = None,
    progress: bool = True,
) -> dict:
    """Run the demo, print it, and return every number that was printed.

    Parameters
    ----------
    rule_text : one line of mathematics, as `UpdateRule.parse` takes it
    seeds : one pair of training runs each; fewer than three cannot tell a difference
    steps : optimizer steps of each run
    directory : where generated files go; made if it is not there
    console : where to print; standard output by default
    progress : whether to show progress bars; never where the console is not a terminal

    Returns
    -------
    dict of plain numbers, strings and lists, for ``json.dumps``: ``derivation``, ``emission``,
    ``exact``, ``training``, ``layers``, ``seconds`` of each, ``total_seconds`` and ``passed``,
    False if the emitted test failed.

    Raises
    ------
    DeltabiasError
        for a rule that cannot be read or corrected, no seeds, or too few steps.
    """
    if not seeds or steps < 2:
        raise DeltabiasError(f"{seeds=}, {steps=}: pass at least one seed and two steps.")
    console = console or Console()
    rule = UpdateRule.parse(rule_text)
    settings = Settings(steps=steps, shape=SHAPE)
    result: dict = {}
    seconds: dict[str, float] = {}

    def part(key: str, title: str, work: Callable[[], dict]) -> None:
        report.chapter(console, len(seconds) + 1, title)
        begin = time.perf_counter()
        result[key] = work()
        seconds[key] = time.perf_counter() - begin
        report.PRINTERS[key](console, result[key])

    with progress_bars(console, progress) as bars:
        part("derivation", "The bias of a rule", lambda: parts.derived(derive(rule, 1)))
        part(
            "emission",
            "Its corrected update, with a test",
            lambda: parts.emitted(rule, Path(directory)),
        )
        part("exact", "Its bias against exact truth", lambda: parts.exact(rule))
        corpus, snapshot = read_corpus(), parts.Snapshot(steps // 2)
        part(
            "training",
            "Training a small language model with and without correction",
            lambda: parts.trained(MAKERS, corpus, settings, seeds, snapshot, bars),
        )
        part(
            "layers",
            "The bias of AdamW's update, layer by layer",
            lambda: parts.layers(corpus, settings, snapshot, seeds[0], bars),
        )
    total = sum(seconds.values())
    passed = result["emission"]["passed"] is not False
    result |= {"seconds": seconds, "total_seconds": total, "passed": passed}
    report.closing(console, result)
    return result
