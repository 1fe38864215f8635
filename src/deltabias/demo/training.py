"""Two optimizers on the same model, batches and schedule, stepped in pairs and timed."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deltabias.demo.corpus import Corpus, even_windows, random_windows
from deltabias.demo.transformer import ByteTransformer, build


@dataclass(frozen=True)
class Settings:
    """Everything that both runs share. ``steps`` also sets the length of the cosine schedule.

    ``sequences`` of ``context`` bytes make one microbatch; ``shape`` goes to the model.
    """

    steps: int
    lr: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    warmup: int = 20
    final_lr: float = 0.1
    microbatches: int = 8
    sequences: int = 2
    context: int = 64
    validation_windows: int = 512
    shape: dict[str, int] = field(default_factory=dict)

    def learning_rate(self, step: int) -> float:
        """Linear warmup, then a cosine down to ``final_lr`` of the peak; steps count from 0."""
        warmup = min(self.warmup, self.steps // 4)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)


@dataclass
class Contender:
    """A model with its optimizer; ``microbatch()`` surrounds each microbatch's backward pass."""

    name: str
    model: ByteTransformer
    optimizer: torch.optim.Optimizer
    microbatch: Callable[[], AbstractContextManager] = nullcontext

    def step(self, batches: Sequence[Tensor], lr: float) -> float:
        """One optimizer step over the microbatches; returns their mean loss, nats per byte."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        total = 0.0
        for batch in batches:
            with self.microbatch():
                loss = self.model.loss(batch)
                (loss / len(batches)).backward()
            total += loss.item() / len(batches)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


Maker = Callable[[ByteTransformer, Settings], Contender]


def plain(model: ByteTransformer, settings: Settings) -> Contender:
    """torch's AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), **_hypers(settings))
    return Contender("torch AdamW", model, optimizer)


def corrected(model: ByteTransformer, settings: Settings) -> Contender:
    """Ours, fed with the statistics of the microbatches."""
    from deltabias.microbatch import MicrobatchStats
    from deltabias.optim import AdamW

    stats = MicrobatchStats(model.parameters(), moments=3)
    optimizer = AdamW(model.parameters(), **_hypers(settings), correction="delta")
    optimizer.attach(stats)
    return Contender("corrected AdamW", model, optimizer, stats.microbatch)


def _hypers(settings: Settings) -> dict:
    return {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }


@dataclass(frozen=True)
class PairedRun:
    """One seed: per contender its losses, nats per byte, and the seconds of each step."""

    seed: int
    names: tuple[str, str]
    training: tuple[list[float], list[float]]
    seconds: tuple[list[float], list[float]]
    validation: tuple[float, float]


def train_pair(
    makers: tuple[Maker, Maker],
    corpus: Corpus,
    settings: Settings,
    seed: int,
    *,
    after_step: Callable[[int, tuple[Contender, Contender]], None] = lambda step, pair: None,
) -> PairedRun:
    """Train both from the same weights on the same batches, in turns, step by step.

    The turns alternate in order, so that neither always finds the other's cache. The clock covers
    the whole step: forward, backward, statistics, optimizer.
    """
    pair = tuple(
        maker(build(seed, context=settings.context, **settings.shape), settings) for maker in makers
    )
    generator = torch.Generator().manual_seed(seed)
    training: tuple[list, list] = ([], [])
    seconds: tuple[list, list] = ([], [])
    for step in range(settings.steps):
        batches = [
            random_windows(corpus.training, settings.sequences, settings.context, generator)
            for _ in range(settings.microbatches)
        ]
        for which in (0, 1) if step % 2 == 0 else (1, 0):
            begin = time.perf_counter()
            training[which].append(pair[which].step(batches, settings.learning_rate(step)))
            seconds[which].append(time.perf_counter() - begin)
        after_step(step, pair)
    held_out = even_windows(corpus.validation, settings.validation_windows, settings.context)
    validation = tuple(evaluate(contender.model, held_out) for contender in pair)
    return PairedRun(seed, (pair[0].name, pair[1].name), training, seconds, validation)


@torch.no_grad()
def evaluate(model: ByteTransformer, held_out: Tensor, chunk: int = 64) -> float:
    """Mean loss over the windows, nats per byte."""
    losses = [model.loss(part).item() * len(part) for part in held_out.split(chunk)]
    return sum(losses) / len(held_out)
