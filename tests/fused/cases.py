"""Optimizers with and without ``fused``, fed alike; what needs a compiler is skipped by name."""

import pytest
import torch
from tests.optim.cases import draw, feed, generator, microbatches, parameter, quietly, zoo
from torch import Tensor
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.one_pass import compiler_missing
from deltabias.optim import AdamW, RMSprop

needs_compiler = pytest.mark.skipif(bool(compiler_missing()), reason="no C++ compiler")

FORMS = {
    "delta": (AdamW, {}),
    "closed_form": (AdamW, {"correction": "closed_form"}),
    "means": (AdamW, {"second_moment": "mean_of_squares"}),
    "shares": (AdamW, {"storage": "int8", "every": 3}),
    "factor": (AdamW, {"storage": "bfloat16", "every": 3, "correction": "closed_form"}),
    "rmsprop_shares": (RMSprop, {"storage": "int8", "every": 3}),
    "rmsprop": (RMSprop, {"alpha": 0.95, "weight_decay": 0.1}),
}


def parameters(dtype=torch.float32, *, large: bool = True) -> list[Parameter]:
    """Small, transposed, 0-d, empty, without a gradient, and two that are too large to gather.

    The same numbers in every dtype but for its rounding; fp64 has those of fp32. They are small,
    so that a step is not lost in the rounding of the parameter.
    """
    kinds = list(zoo(torch.float32).values())
    wide = draw((300, 200), generator(5), torch.float32)
    kinds += [wide, wide.t()] if large else [wide[:30]]
    return [
        Parameter((0.01 * p.detach()).to(dtype), requires_grad=getattr(p, "requires_grad", True))
        for p in kinds[:8]
    ] + [Parameter((0.01 * p).to(dtype)) for p in kinds[8:]]


def build(kind, params, *, every=1, fused=True, **options):
    optimizer = kind(params, lr=1e-2, fused=fused, **options)
    stats = MicrobatchStats(params, every=every)
    optimizer.attach(stats)
    return optimizer, stats


def take_steps(optimizer, stats, params, steps: int, *, first: int = 0, m: int = 4) -> None:
    """Steps with gradients that depend on their number alone; a learning rate that moves."""
    for step in range(first, first + steps):
        narrow = [torch.empty_like(p, dtype=torch.float32) for p in params]
        batch = microbatches(narrow, m, generator(100 + step))
        batch = [[g.to(p.dtype) for g, p in zip(row, params, strict=True)] for row in batch]
        for grads in batch:
            for i, param in enumerate(params):
                if not param.requires_grad or i == 6:  # frozen, and never used
                    grads[i] = None
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + 0.1 * step)
        feed(params, stats, batch)
        optimizer.step()


def apart(first, second) -> Tensor:
    """The differences of all elements, sorted, in 2^-24 of what a parameter has moved (1e-2)."""
    gaps = [
        (a.detach().double() - b.detach().double()).abs().flatten()
        for a, b in zip(first, second, strict=True)
    ]
    return torch.cat(gaps).sort().values * 2**24 / 1e-2


def typical_and_worst(gaps: Tensor) -> tuple[float, float]:
    """The 99.9 % quantile and the maximum."""
    return float(gaps[int(0.999 * len(gaps))]), float(gaps[-1])


__all__ = [
    "FORMS",
    "apart",
    "build",
    "needs_compiler",
    "parameter",
    "parameters",
    "quietly",
    "typical_and_worst",
]
