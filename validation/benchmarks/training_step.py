"""A whole training step of a byte-level transformer: eight microbatches, then the optimizer.

Plain is torch's fused AdamW on accumulated gradients. Next to ours run what the same aim costs
otherwise: a leave-one-out, whose m folds need every microbatch's gradient a second time, and a
jackknife of the update, which needs the same second pass. Both are written here as plainly as
they can be; their arithmetic is a few passes over memory for each microbatch. They are timed at
one size of microbatch only.

What a correction adds does not depend on the tokens, what forward and backward take does: 256 to
4096 tokens a microbatch, in sequences of 64 bytes. What would take longer than its budget for
five rounds, judged by one plain step, is left out by name.

    python -m validation.benchmarks training_step
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltabias.demo.transformer import ByteTransformer, build
from deltabias.microbatch import MicrobatchStats
from deltabias.one_pass import compiler_missing
from deltabias.optim import AdamW
from validation.benchmarks.pairs import FEWEST, interleaved, ratio, seconds

CLAIM = (
    "the default correction, delta, adds <= 5 % to a training step of 1 M and of 30 M parameters "
    "with 8 microbatches; so does delta in int8 with statistics every 16th step"
)
PACKAGES = ()
MICROBATCHES, EVERY, CONTEXT = 8, 16, 64
SHAPES = {
    "1 M": {"width": 128, "blocks": 5, "heads": 4},
    "30 M": {"width": 512, "blocks": 9, "heads": 8},
}
TOKENS = {"1 M": (256, 512, 1024, 4096), "30 M": (256, 1024, 4096)}
"""In a microbatch."""

WITH_SECOND_PASSES = {"1 M": 512, "30 M": 256}
"""Tokens at which what needs a second pass is timed too."""

MOST_ADDED = 1.05
BUDGET = 450.0
"""Seconds for a model and a number of tokens."""

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


MAKES: dict[str, Callable[[Run], Call]] = {
    "plain": plain,
    "delta": ours,
    "delta int8, looking": partial(ours, storage="int8"),
    "delta int8, between": partial(ours, storage="int8", looks=False),
    "leave-one-out": partial(two_passes, jackknife=False),
    "jackknife": partial(two_passes, jackknife=True),
}
SECOND_PASSES = ("leave-one-out", "jackknife")


def contenders(shape: dict[str, int], sequences: int, names: Iterable[str]) -> dict[str, Call]:
    """Each with a model of its own."""
    return {name: MAKES[name](Run(shape, sequences)) for name in names}


def names_at(model: str, tokens: int) -> list[str]:
    """Those that are timed with so many tokens in a microbatch."""
    whole = tokens == WITH_SECOND_PASSES[model]
    return [name for name in MAKES if whole or name not in SECOND_PASSES]


def about_seconds(model: str, sequences: int) -> float:
    """Of a plain step, from one with few tokens: these take most of the time, each alike."""
    few = TOKENS[model][0] // CONTEXT
    step = plain(Run(SHAPES[model], few))
    step()
    return seconds(step) * sequences / few


def rows(
    models: tuple[str, ...] = tuple(SHAPES), budget: float = BUDGET, most_rounds: int = 7
) -> Iterator[dict[str, Any]]:
    """Every model at every number of tokens, smallest first."""
    for model in models:
        for tokens in TOKENS[model]:
            yield from at(model, tokens, budget, most_rounds)


def at(model: str, tokens: int, budget: float, most_rounds: int) -> Iterator[dict[str, Any]]:
    """One model, one number of tokens in a microbatch."""
    about = {"model": model, "tokens_a_microbatch": tokens}
    names, sequences = names_at(model, tokens), tokens // CONTEXT
    a_round = len(names) * about_seconds(model, sequences)
    needed = (FEWEST + 1) * a_round
    if needed > budget:
        yield about | {"left_out": f"about {needed:.0f} s, more than the {budget:.0f} s for a row"}
        return
    about["parameters"] = sum(p.numel() for p in Run(SHAPES[model], 1).params)
    calls = contenders(SHAPES[model], sequences, names)
    times = interleaved(calls, rounds=most_rounds, limit=budget - 2 * a_round, warm=1)
    cycle = f"delta int8, every={EVERY}"
    pairs = zip(times["delta int8, looking"], times["delta int8, between"], strict=True)
    times[cycle] = [(a + (EVERY - 1) * b) / EVERY for a, b in pairs]
    for step in times:
        found = ratio(times, step, "plain")
        claim = {"limit": MOST_ADDED, "passed": found["ratio"] <= MOST_ADDED}
        yield about | {"step": step} | found | (claim if step in ("delta", cycle) else {})
