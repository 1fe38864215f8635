"""The order of things: a rule's bias, its code, the truth, a training run, and its layers."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deltabias.demo import report
from deltabias.demo.comparison import Comparison, mean_and_spread, step_times
from deltabias.demo.corpus import Corpus, random_windows, read_corpus
from deltabias.demo.emission import emit_and_test
from deltabias.demo.exact_bias import GRADIENT_LAW, exact_biases
from deltabias.demo.gradient_laws import collect
from deltabias.demo.layer_bias import layer_biases
from deltabias.demo.replay import Replay
from deltabias.demo.training import (
    Contender,
    Maker,
    PairedRun,
    Settings,
    corrected,
    plain,
    train_pair,
)
from deltabias.demo.transformer import ByteTransformer
from deltabias.derivation import Derivation, derive
from deltabias.errors import DeltabiasError
from deltabias.rule import UpdateRule

# What fits into three minutes on two cores; training takes most of it.
RULE_TEXT = "g/(v**(1/3)+eps)"
SEEDS = (0, 1, 2)
STEPS = 100
MAKERS: tuple[Maker, Maker] = (plain, corrected)
SHAPE: dict[str, int] = {}
RECORDED = 96
PER_TENSOR = 128
HISTORY = 100
REPLICATES = 32


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
    seconds: dict[str, float] = {}
    result: dict = {}
    with _bars(console, progress) as bar:

        def part(key: str, title: str, work: Callable[[], dict]) -> None:
            report.chapter(console, len(seconds) + 1, title)
            begin = time.perf_counter()
            result[key] = work()
            seconds[key] = time.perf_counter() - begin
            getattr(report, _REPORTS[key])(console, result[key])

        part("derivation", "The bias of a rule", lambda: _derived(derive(rule, 1)))
        part("emission", "Its corrected update, with a test", lambda: _emitted(rule, directory))
        part("exact", "Its bias against exact truth", lambda: _exact(rule))
        snapshot = Snapshot(steps // 2)
        part(
            "training",
            "Training on the standard library's sources, with and without correction",
            lambda: _trained(console, bar, settings, seeds, snapshot),
        )
        part(
            "layers",
            "The bias of AdamW's update in each layer of that model",
            lambda: _layers(bar, settings, snapshot, seeds[0]),
        )
    result |= {
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "passed": result["emission"]["passed"] is not False,
    }
    report.closing(console, result)
    return result


_REPORTS = {
    "derivation": "terms",
    "emission": "emission",
    "exact": "exact",
    "training": "training",
    "layers": "layers",
}


class Snapshot:
    """A copy of the first run's model in mid-training, and the text it was trained on."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.model: ByteTransformer | None = None
        self.corpus: Corpus | None = None

    def take(self, step: int, pair: tuple[Contender, Contender]) -> None:
        if self.model is None and step == self.step:
            self.model = copy.deepcopy(pair[0].model)


def _bars(console: Console, progress: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (progress and console.is_terminal),
    )


@contextmanager
def _task(bar: Progress, text: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar for as long as its work takes; gives the function that advances it."""
    task = bar.add_task(text, total=total)
    try:
        yield lambda: bar.advance(task)
    finally:
        bar.remove_task(task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and wait for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _derived(derivation: Derivation) -> dict:
    return {
        "rule": str(derivation.rule),
        "domain": [str(condition) for condition in derivation.domain],
        "terms": [
            {"name": t.name, "moment": str(t.moment), "coefficient": str(t.coefficient)}
            for t in derivation.terms
        ],
    }


def _emitted(rule: UpdateRule, directory: Path) -> dict:
    emission = emit_and_test(rule, Path(directory))
    return {
        "files": [str(path) for path in emission.files],
        "passed": emission.passed,
        "output": emission.output,
    }


def _exact(rule: UpdateRule) -> dict:
    points = zip(GRADIENT_LAW.points, GRADIENT_LAW.weights, strict=True)
    return {
        "law": ", ".join(f"{x} with probability {p}" for x, p in points),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in exact_biases(rule)],
    }


def _trained(
    console: Console, bar: Progress, settings: Settings, seeds: Sequence[int], snapshot: Snapshot
) -> dict:
    corpus = snapshot.corpus = read_corpus()
    about = {
        "parameters": sum(p.numel() for p in ByteTransformer(**settings.shape).parameters()),
        "files": corpus.files,
        "training_bytes": len(corpus.training),
        "validation_bytes": len(corpus.validation),
        **asdict(settings),
    }
    report.corpus(console, about)
    runs = []
    for seed in seeds:
        with _one_thread(), _task(bar, f"training, seed {seed}", settings.steps) as advance:

            def after_step(step: int, pair: tuple[Contender, Contender], advance=advance) -> None:
                snapshot.take(step, pair)
                advance()

            runs.append(train_pair(MAKERS, corpus, settings, seed, after_step=after_step))
    return about | _compared(runs)


def _compared(runs: Sequence[PairedRun]) -> dict:
    first, second = (tuple(run.validation[i] for run in runs) for i in (0, 1))
    comparison = Comparison(first, second)
    times = step_times(*([s for run in runs for s in run.seconds[i]] for i in (0, 1)))
    return {
        "names": list(runs[0].names),
        "runs": [asdict(run) for run in runs],
        "mean_and_spread": [mean_and_spread(losses) for losses in (first, second)],
        "mean_difference": comparison.mean_difference,
        "standard_error": comparison.standard_error,
        "within_noise": comparison.within_noise,
        "verdict": comparison.verdict,
        "step_seconds": dict(zip(("first", "second", "ratio"), times, strict=True)),
    }


def _layers(bar: Progress, settings: Settings, snapshot: Snapshot, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    text = snapshot.corpus.training
    batches = (
        random_windows(text, settings.sequences, settings.context, generator)
        for _ in range(RECORDED)
    )
    replay = Replay(
        betas=settings.betas,
        eps=settings.eps,
        microbatches=settings.microbatches,
        steps=HISTORY,
        replicates=REPLICATES,
        seed=seed,
    )
    with _one_thread(), _task(bar, "recording gradients", RECORDED) as advance:
        laws = collect(
            snapshot.model, batches, per_tensor=PER_TENSOR, seed=seed, advance=advance
        )
    with _task(bar, "replaying histories", replay.steps) as advance:
        rows = layer_biases(laws, replay, advance=advance)
    return {
        **asdict(replay),
        "recorded": RECORDED,
        "snapshot_step": snapshot.step,
        "rows": [asdict(row) for row in rows],
    }
