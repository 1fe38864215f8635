"""A whole training step of a byte-level transformer: eight microbatches, then the optimizer.

Plain is torch's fused AdamW on accumulated gradients. Next to ours run what the same aim costs
otherwise: a leave-one-out, whose m folds need every microbatch's gradient a second time, and a
jackknife of the update, which needs the same second pass. Both are written here as plainly as
they can be; their arithmetic is a few passes over memory for each microbatch.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from deltabias.demo.transformer import ByteTransformer, build
from deltabias.microbatch import MicrobatchStats
from deltabias.one_pass import compiler_missing
from deltabias.optim import AdamW
from validation.benchmarks.pairs import interleaved, ratio

CLAIM = (
    "the default correction, delta, adds <= 5 % to a training step of 1 M and of 30 M parameters "
    "with 8 microbatches; so does delta in int8 with statistics every 16th step"
)
PACKAGES = ()
MICROBATCHES, EVERY, CONTEXT = 8, 16, 64
SHAPES = {
    "1 M": ({"width": 128, "blocks": 5, "heads": 4}, 8),
    "30 M": ({"width": 512, "blocks": 9, "heads": 8}, 4),
}
"""Widths, and sequences of 64 bytes in a microbatch."""

BETAS, EPS, LR = (0.9, 0.95), 1e-8, 1e-4
Call = Callable[[], Any]


def missing() -> str | None:
    """Why this cannot run here."""
    return compiler_missing() or None


class Run:
    """A model, its data, and one pass over the microbatches."""

    def __init__(self, shape: dict[str, int], sequences: int) -> None:
        self.model: ByteTransformer = build(0, context=CONTEXT, **shape)
        self.params = list(self.model.parameters())
        generator = torch.Generator().manual_seed(1)
        size = (MICROBATCHES, sequences, CONTEXT + 1)
        self.data = torch.randint(256, size, generator=generator)

    def backward(self, batch: Tensor) -> None:
        """Add a microbatch's share of the gradient."""
        (self.model.loss(batch) / MICROBATCHES).backward()


def plain(run: Run) -> Call:
    """torch.optim.AdamW(fused=True)."""
    optimizer = torch.optim.AdamW(run.params, lr=LR, betas=BETAS, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        for batch in run.data:
            run.backward(batch)
        optimizer.step()

    return step


def ours(run: Run, *, looks: bool = True, moments: int = 3, **options: Any) -> Call:
    """A step of ours; with shares one that looks, or one between."""
    shares = options.get("storage") is not None
    optimizer = AdamW(run.params, lr=LR, betas=BETAS, fused=True, nonfinite="ignore", **options)
    stats = MicrobatchStats(run.params, moments=moments, every=EVERY if shares else 1)
    optimizer.attach(stats)
    first = True

    def step() -> None:
        nonlocal first
        optimizer.zero_grad()
        stats.reset()
        stats._generation = 0 if looks or first else 1  # which step of the cycle comes next
        first = False
        for batch in run.data:
            with stats.microbatch():
                run.backward(batch)
        optimizer.step()

    return step


def two_passes(run: Run, *, jackknife: bool) -> Call:
    """Leave-one-out folds, or the jackknife, from a second pass over the microbatches."""
    m, (beta1, beta2) = MICROBATCHES, BETAS
    first = [torch.zeros_like(p) for p in run.params]
    second = [torch.zeros_like(p) for p in run.params]

    @torch.no_grad()
    def update(total: list[Tensor], tops: list[Tensor], bottoms: list[Tensor], share: float):
        top = torch._foreach_lerp(first, tops, 1 - beta1)
        bottom = torch._foreach_mul(second, beta2)
        torch._foreach_addcmul_(bottom, bottoms, bottoms, value=1 - beta2)
        torch._foreach_sqrt_(bottom)
        torch._foreach_add_(bottom, EPS)
        torch._foreach_addcdiv_(total, top, bottom, value=share)

    def step() -> None:
        run.model.zero_grad()
        for batch in run.data:
            run.backward(batch)
        mean = [p.grad.clone() for p in run.params]
        total = [torch.zeros_like(p) for p in run.params]
        if jackknife:
            update(total, mean, mean, float(m))
        for batch in run.data:
            run.model.zero_grad()
            run.backward(batch)
            own = [p.grad * m for p in run.params]
            with torch.no_grad():
                rest = torch._foreach_mul(
                    torch._foreach_sub(mean, [g / m for g in own]), m / (m - 1)
                )
            if jackknife:
                update(total, rest, rest, -(m - 1) / m)
            else:
                update(total, own, rest, 1 / m)
        with torch.no_grad():
            torch._foreach_lerp_(first, mean, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, mean, mean, value=1 - beta2)
            torch._foreach_add_(run.params, total, alpha=-LR)

    return step


def contenders(shape: dict[str, int], sequences: int) -> dict[str, Call]:
    """Each with a model of its own."""

    def run() -> Run:
        return Run(shape, sequences)

    return {
        "plain": plain(run()),
        "delta": ours(run()),
        "delta int8, looking": ours(run(), storage="int8"),
        "delta int8, between": ours(run(), storage="int8", looks=False),
        "leave-one-out": two_passes(run(), jackknife=False),
        "jackknife": two_passes(run(), jackknife=True),
    }


def rows(sizes: tuple[str, ...] = tuple(SHAPES)) -> Iterator[dict[str, Any]]:
    """Both models."""
    for size in sizes:
        shape, sequences = SHAPES[size]
        times = interleaved(contenders(shape, sequences), rounds=15, limit=60.0, warm=1)
        name = f"delta int8, every={EVERY}"
        pairs = zip(times["delta int8, looking"], times["delta int8, between"], strict=True)
        times[name] = [(a + (EVERY - 1) * b) / EVERY for a, b in pairs]
        parameters = sum(p.numel() for p in build(0, context=CONTEXT, **shape).parameters())
        for step in times:
            found = ratio(times, step, "plain")
            claim = (
                {"limit": 1.05, "passed": found["ratio"] <= 1.05} if step in ("delta", name) else {}
            )
            tokens = MICROBATCHES * sequences * CONTEXT
            yield {"model": size, "parameters": parameters, "tokens": tokens, "step": step} | (
                found | claim
            )
