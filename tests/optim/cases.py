"""The table that drives the suite, optimizer × option, and how a step is fed."""

import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from tests.reference.optimizer_twins import AdamWTwin, RMSpropTwin
from torch import Tensor
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop

TORCH = {AdamW: torch.optim.AdamW, RMSprop: torch.optim.RMSprop}
TWINS = {AdamW: AdamWTwin, RMSprop: RMSpropTwin}


@dataclass(frozen=True)
class Case:
    """One way to correct: an optimizer class and what it needs of the statistics."""

    kind: type
    options: dict[str, Any] = field(default_factory=dict)
    groups: int = 1

    @property
    def name(self) -> str:
        return "-".join([self.kind.__name__, *map(str, self.options.values())])

    def optimizer(self, params, **more):
        return self.kind(params, **{**self.options, **more})

    def statistics(self, params) -> MicrobatchStats:
        return MicrobatchStats(params, groups=self.groups)

    def attached(self, params, **more):
        """(optimizer, statistics), attached."""
        params = list(params)
        optimizer = self.optimizer(params, **more)
        stats = self.statistics(params)
        optimizer.attach(stats)
        return optimizer, stats

    def twin(self, param: Tensor, **more):
        return TWINS[self.kind](param, **{**self.options, **more})


def _cases(kind: type, corrections: Sequence[str], **more) -> list[Case]:
    return [
        Case(kind, {"correction": c, **more}, groups=2 if c.startswith("cross_fit") else 1)
        for c in corrections
    ]


TRACKED = ["delta", "inversion", "closed_form"]
CROSSED = ["cross_fit", "cross_fit+delta"]
# rules with torch's statistic: without an estimate each must be torch's, bit for bit
LIKE_TORCH = [*_cases(AdamW, [*TRACKED, *CROSSED]), *_cases(RMSprop, TRACKED)]
# fed with means of squares; "none" is a rule of its own
MEAN_OF_SQUARES = [
    *_cases(AdamW, ["delta", "inversion", "none"], second_moment="mean_of_squares"),
    *_cases(RMSprop, ["delta", "inversion", "none"], second_moment="mean_of_squares"),
]
CORRECTED = [*LIKE_TORCH, *MEAN_OF_SQUARES]
DEFAULTS = [Case(AdamW), Case(RMSprop)]


def names(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(shape, gen: torch.Generator, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=gen, dtype=torch.float64).to(dtype)


def parameter(*shape: int, dtype=torch.float32, seed: int = 1) -> Parameter:
    return Parameter(draw(shape, generator(seed), dtype))


def zoo(dtype=torch.float32, seed: int = 1) -> dict[str, Parameter]:
    """Parameters of every kind that torch's optimizers accept."""
    gen = generator(seed)
    images = draw((2, 3, 2, 2), gen, dtype).to(memory_format=torch.channels_last)
    frozen = Parameter(draw((2,), gen, dtype), requires_grad=False)
    return {
        "matrix": Parameter(draw((4, 3), gen, dtype)),
        "transposed": Parameter(draw((3, 4), gen, dtype).t()),
        "channels_last": Parameter(images),
        "scalar": Parameter(draw((), gen, dtype)),
        "empty": Parameter(draw((0, 3), gen, dtype)),
        "sometimes": Parameter(draw((3,), gen, dtype)),
        "never": Parameter(draw((2,), gen, dtype)),
        "frozen": frozen,
    }


@cache
def zoo_gradients(dtype, step: int, seed: int = 0) -> list[Tensor | None]:
    """One microbatch for a zoo: some parameters have no gradient in this step, or ever."""
    gen = generator(1000 * seed + step)
    absent = {"never", "frozen"} | ({"sometimes"} if step % 2 else set())
    return [
        None if name in absent else (0.3 + draw(p.shape, gen)).to(dtype)
        for name, p in zoo(dtype).items()
    ]


def feed(params, stats: MicrobatchStats | None, batches, weights=None, factor: float = 1.0):
    """Add microbatches to the statistics and leave ``factor`` times their mean in ``.grad``."""
    weights = [1.0] * len(batches) if weights is None else weights
    if stats is not None:
        for grads, weight in zip(batches, weights, strict=True):
            stats.add(grads, weight)
    for i, param in enumerate(params):
        if batches[0][i] is None or (len(batches) == 1 and factor == 1.0):
            param.grad = batches[0][i]
            continue
        terms = zip((grads[i].double() for grads in batches), weights, strict=True)
        mean = sum(w * g for g, w in terms) / sum(weights)
        param.grad = (factor * mean).to(param.dtype)


def microbatches(params, m: int, gen: torch.Generator, noise: float = 1.0, mean: float = 0.3):
    """m skewed microbatch gradients for each parameter."""

    def gradient(p):
        z = draw(p.shape, gen)
        return (mean + noise * (z + 0.3 * (z * z - 1))).to(p.dtype)

    return [[gradient(p) for p in params] for _ in range(m)]


def snapshot(optimizer, params=None) -> list[Tensor]:
    """Every number that a step may change, copied."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    tensors = [p.detach().clone() for p in params]
    for p in params:
        state = optimizer.state.get(p, {})
        tensors += [state[name].clone() for name in sorted(state)]
    return tensors


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Equal shapes, dtypes and values, one for one; NaN equals NaN."""

    def same(a: Tensor, b: Tensor) -> bool:
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)

    return len(first) == len(second) and all(map(same, first, second))


@contextmanager
def quietly():
    """Where a warning is not the subject: uncorrected steps warn once, see test_statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
