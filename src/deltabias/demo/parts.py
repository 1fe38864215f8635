"""The five parts of the demo: each does its work and returns plain numbers for the report."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.progress import Progress

from deltabias.demo.comparison import Comparison, mean_and_spread, step_times
from deltabias.demo.corpus import Corpus, random_windows
from deltabias.demo.emission import emit_and_test
from deltabias.demo.exact_bias import GRADIENT_LAW, exact_biases
from deltabias.demo.gradient_laws import collect
from deltabias.demo.layer_bias import layer_biases
from deltabias.demo.progress import task
from deltabias.demo.replay import Replay
from deltabias.demo.training import Contender, Maker, PairedRun, Settings, train_pair
from deltabias.demo.transformer import ByteTransformer
from deltabias.derivation import Derivation
from deltabias.rule import UpdateRule

RECORDED = 96
"""Microbatches whose gradients make the empirical laws of part five."""

PER_TENSOR = 128
HISTORY_STEPS = 100
HISTORIES = 32


def derived(derivation: Derivation) -> dict:
    """Part one: the named terms of a rule's bias."""
    return {
        "rule": str(derivation.rule),
        "domain": [str(condition) for condition in derivation.domain],
        "terms": [
            {"name": t.name, "moment": str(t.moment), "coefficient": str(t.coefficient)}
            for t in derivation.terms
        ],
    }


def emitted(rule: UpdateRule, directory: Path) -> dict:
    """Part two: the corrected update as code, and what its test says."""
    emission = emit_and_test(rule, directory)
    return {
        "files": [str(path) for path in emission.files],
        "passed": emission.passed,
        "output": emission.output,
    }


def exact(rule: UpdateRule) -> dict:
    """Part three: bias before and after against exact truth."""
    points = zip(GRADIENT_LAW.points, GRADIENT_LAW.weights, strict=True)
    return {
        "law": ", ".join(f"{x} with probability {p}" for x, p in points),
        "rows": [{**asdict(row), "ratio": row.ratio} for row in exact_biases(rule)],
    }


@dataclass
class Snapshot:
    """A copy of the first contender's model after `step` steps, taken once."""

    step: int
    model: ByteTransformer | None = None

    def take(self, step: int, pair: tuple[Contender, Contender]) -> None:
        if self.model is None and step == self.step:
            self.model = copy.deepcopy(pair[0].model)


def task_description(corpus: Corpus, settings: Settings) -> dict:
    """What is trained, on what, how."""
    model = ByteTransformer(context=settings.context, **settings.shape)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "files": corpus.files,
        "training_bytes": len(corpus.training),
        "validation_bytes": len(corpus.validation),
        **asdict(settings),
    }


def trained(
    makers: tuple[Maker, Maker],
    corpus: Corpus,
    settings: Settings,
    seeds: Sequence[int],
    snapshot: Snapshot,
    bars: Progress,
) -> dict:
    """Part four: both optimizers on every seed, compared in pairs."""
    runs = []
    for seed in seeds:
        with _one_thread(), task(bars, f"training, seed {seed}", settings.steps) as advance:

            def after_step(step: int, pair: tuple[Contender, Contender], advance=advance) -> None:
                snapshot.take(step + 1, pair)
                advance()

            runs.append(train_pair(makers, corpus, settings, seed, after_step=after_step))
    return task_description(corpus, settings) | _compared(runs)


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
        "false_alarm": comparison.false_alarm if len(runs) > 1 else None,
        "verdict": comparison.verdict,
        "step_seconds": dict(zip(("first", "second", "ratio"), times, strict=True)),
    }


def layers(
    corpus: Corpus, settings: Settings, snapshot: Snapshot, seed: int, bars: Progress
) -> dict:
    """Part five: predicted and measured bias in every layer of the model in mid-training."""
    generator = torch.Generator().manual_seed(seed)
    batches = (
        random_windows(corpus.training, settings.sequences, settings.context, generator)
        for _ in range(RECORDED)
    )
    replay = Replay(
        betas=settings.betas,
        eps=settings.eps,
        microbatches=settings.microbatches,
        steps=HISTORY_STEPS,
        replicates=HISTORIES,
        seed=seed,
    )
    with _one_thread(), task(bars, "recording gradients", RECORDED) as advance:
        laws = collect(snapshot.model, batches, per_tensor=PER_TENSOR, seed=seed, advance=advance)
    with task(bars, "replaying histories", replay.steps) as advance:
        rows = layer_biases(laws, replay, advance=advance)
    return {
        **asdict(replay),
        "recorded": RECORDED,
        "snapshot_step": snapshot.step,
        "rows": [asdict(row) for row in rows],
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and wait for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
