"""Does the correction change a training run? Shampoo in every mode, one learning rate, real text.

A byte-level transformer on the Python standard library's sources. The learning rate is the best of
a sweep of the *plug-in* run, on a seed of its own, for each of the two statistics; every mode of
that statistic then uses it. Same weights, same batches within a seed. Nothing is claimed of the
loss but what the paired differences can carry.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from deltabias.demo.comparison import Comparison
from deltabias.demo.corpus import Corpus, even_windows, random_windows, read_corpus
from deltabias.demo.training import Contender, Settings, evaluate
from deltabias.demo.transformer import build
from deltabias.microbatch import MatrixStats
from deltabias.optim import Shampoo
from validation.figures import panels, save, styled
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

SHAPE = {"width": 32, "blocks": 2, "heads": 2}
SEEDS = (0, 1, 2, 3)
SWEEP_SEED = 1000
SWEEP = (0.03, 0.1, 0.3)
MODES: dict[str, tuple[str, ...]] = {
    "square_of_mean": ("plug_in", "eigenvalue_only", "diagonal", "full"),
    "mean_of_squares": ("plug_in", "cross_fit", "eigenvalue_only", "diagonal", "sketch", "full"),
}
"""By statistic; what the first reads off the history, the second reads off its microbatches."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    statistic: str
    mode: str
    seed: int
    lr: float
    steps: int


def train(run: Run) -> float:
    """The loss on held-out text after the run, nats per byte."""
    torch.set_num_threads(1)
    corpus = read_corpus()
    settings = Settings(
        steps=run.steps, lr=run.lr, shape=SHAPE, context=32, sequences=2, microbatches=8
    )
    contender = _contender(run, settings)
    generator = torch.Generator().manual_seed(run.seed)
    for step in range(run.steps):
        batches = [_windows(corpus, settings, generator) for _ in range(settings.microbatches)]
        contender.step(batches, settings.learning_rate(step))
    return evaluate(contender.model, even_windows(corpus.validation, 512, settings.context))


def _windows(corpus: Corpus, settings: Settings, generator: torch.Generator) -> torch.Tensor:
    return random_windows(corpus.training, settings.sequences, settings.context, generator)


def _contender(run: Run, settings: Settings) -> Contender:
    model = build(run.seed, context=settings.context, **SHAPE)
    microbatches = run.statistic == "mean_of_squares"
    optimizer = Shampoo(
        model.parameters(),
        lr=run.lr,
        betas=(0.9, 0.95),
        correction=run.mode,
        second_moment=run.statistic,
        spread="microbatches" if microbatches else "history",
    )
    if not microbatches:
        return Contender(run.mode, model, optimizer)
    stats = MatrixStats(
        model.parameters(),
        keep="sketch" if run.mode == "sketch" else "gradients",
        groups=2 if run.mode == "cross_fit" else 1,
        seed=run.seed,
    )
    optimizer.attach(stats)
    return Contender(run.mode, model, optimizer, stats.microbatch)


def study(
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    seeds: Sequence[int] = SEEDS,
    steps: int = 100,
    sweep: Sequence[float] = SWEEP,
) -> Findings:
    """Held-out losses by statistic, mode and seed; differences from the plug-in run, paired."""
    tries = [Run(s, "plug_in", SWEEP_SEED, lr, steps) for s, lr in product(MODES, sweep)]
    total = len(tries) + sum(len(m) for m in MODES.values()) * len(seeds)

    def trained(runs: list[Run], before: int) -> dict[Run, float]:
        tasks = [(run,) for run in runs]
        losses = run_tasks(
            train, tasks, workers=workers, progress=lambda n, _: progress(before + n, total)
        )
        return dict(zip(runs, losses, strict=True))

    swept = trained(tries, 0)
    best = {s: min((loss, r.lr) for r, loss in swept.items() if r.statistic == s)[1] for s in MODES}
    runs = [Run(s, m, seed, best[s], steps) for s in MODES for m in MODES[s] for seed in seeds]
    by_run = trained(runs, len(tries))
    rows, lines = [], []
    for statistic, modes in MODES.items():
        base = _losses(by_run, statistic, "plug_in")
        for mode in modes:
            found = _losses(by_run, statistic, mode)
            lines.append(
                {
                    "statistic": statistic,
                    "mode": mode,
                    "lr": best[statistic],
                    "mean_loss": mean(found),
                    "losses": found,
                }
            )
            if mode != "plug_in":
                rows.append(_row(statistic, mode, Comparison(tuple(base), tuple(found))))
    worst = max(by_run.values())
    rows.append(
        Row(
            "every run ends below the loss of guessing bytes at random",
            worst,
            math.log(256),
            passed=worst < math.log(256),
        )
    )
    sweep_lines = [
        {"statistic": r.statistic, "lr": r.lr, "loss": loss} for r, loss in swept.items()
    ]
    return Findings(
        rows,
        {"losses": lines, "sweep": sweep_lines},
        samples={"steps": steps, "microbatches": 8},
        seeds={f"run {i}": s for i, s in enumerate(seeds)} | {"sweep": SWEEP_SEED},
    )


def _losses(by_run: dict[Run, float], statistic: str, mode: str) -> list[float]:
    return [loss for r, loss in by_run.items() if (r.statistic, r.mode) == (statistic, mode)]


def _row(statistic: str, mode: str, comparison: Comparison) -> Row:
    return Row(
        f"held-out loss of {mode} less that of plug_in, {statistic}, nats/byte",
        comparison.mean_difference,
        standard_error=comparison.standard_error,
        note=comparison.verdict,
    )


@styled
def draw(findings: Findings, path: Path) -> None:
    """Paired differences from the plug-in run, a dot a seed."""
    figure, axes = panels(1, len(MODES), width=4.2)
    for axis, statistic in zip(axes[0], MODES, strict=True):
        lines = [x for x in findings.tables["losses"] if x["statistic"] == statistic]
        base = next(x for x in lines if x["mode"] == "plug_in")["losses"]
        others = [x for x in lines if x["mode"] != "plug_in"]
        for i, line in enumerate(others):
            differences = [a - b for a, b in zip(line["losses"], base, strict=True)]
            axis.plot([i] * len(differences), differences, "o", alpha=0.5)
            axis.plot([i - 0.2, i + 0.2], [mean(differences)] * 2, color="black")
        axis.axhline(0, color="gray", linewidth=0.8)
        axis.set_xticks(range(len(others)), [x["mode"] for x in others], rotation=30, ha="right")
        axis.set_title(f"{statistic}, lr {lines[0]['lr']:g}")
        axis.set_ylabel("held-out loss less plug_in's")
    save(figure, path)


STUDY = Study(
    "shampoo_training",
    "Shampoo with each correction at the plug-in run's best learning rate, over seeds, on real "
    "text: the difference in loss, and whether it is within noise",
    study,
    draw,
)
