"""Inverse roots by products alone against the eigensolver: time, and the error that is proven.

Matrices as Shampoo has them: a spectrum that reaches zero, and damping, which sets the condition
number. One thread; on a CUDA device instead where there is one. An iteration that cannot prove
the error asks the eigensolver as well, and has lost.

And everything that ``correction="full"`` adds to a refresh of both sides' roots, with the spread of
eight microbatches, beside the eigensolver's two calls: its flops over d³, and its time. On a GPU it
must take at most half of theirs at d = 1024.

    python -m validation.benchmarks matrix_roots
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deltabias.optim.eigen import eigendecompose
from deltabias.optim.kronecker import Side
from deltabias.optim.root_iteration import METHODS, iterate_root
from deltabias.optim.tracked_spread import (
    GradientDeviations,
    Tracked,
    Weights,
    advance,
    corrected_sides,
    moved,
    turned,
)
from validation.benchmarks.pairs import interleaved, ratio

CLAIM = "time of a certified iteration over that of the eigensolver, and the error it proves"
CLAIM += "; and of all that full adds to a refresh, on a GPU at most half at d = 1024"
PACKAGES = ()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (32, 64, 128, 256, 512, 1024)
POWERS = (2, 4)
CONDITIONS = (1e2, 1e4, 1e6)
KINDS = (("fp32", torch.float32), ("fp64", torch.float64), ("bf16", torch.float32))
ROOT_ERROR = 1e-3
MOST_CASES, FEW_CASES = 64, 256
MICROBATCHES, CORRECTED, CLAIMED = 8, (256, 512, 1024), 1024
MOST_OF_EIGH = 0.5
"""What full may cost on a GPU, at d = `CLAIMED`."""
LIMIT = 1.0
"""Seconds after which no new round begins."""


def matrix(size: int, condition: float, dtype: torch.dtype, device: str) -> tuple[Tensor, float]:
    """A positive matrix of norm about 1 with a spectrum down to zero, and its damping."""
    generator = torch.Generator().manual_seed(size)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(0, -2 * torch.log10(torch.tensor(condition)).item(), size)
    a = (basis * values.double()) @ basis.mT
    return ((a + a.mT) / 2).to(device, dtype), 1 / condition


def by_eigenvalues(a: Tensor, power: int, damping: float) -> Tensor:
    """What ``solver="eigh"`` computes."""
    values, basis = eigendecompose(a, damping=damping)
    return (basis * values[None] ** (-1 / power)) @ basis.mT


def rows(sizes: tuple[int, ...] = SIZES, limit: float = LIMIT) -> Iterator[dict[str, Any]]:
    """One line for each size, root, condition and precision."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for size in sizes:
            for power, condition, (precision, dtype) in _cases(size):
                yield row(size, power, condition, precision, dtype, limit)
        for size in CORRECTED:
            if size in sizes:
                yield correction_row(size, limit)
    finally:
        torch.set_num_threads(threads)


def _cases(size: int) -> Iterator[tuple]:
    """Everything for small matrices; of larger ones, which take seconds on a CPU, the middle."""
    if size <= MOST_CASES or DEVICE == "cuda":
        yield from product(POWERS, CONDITIONS, KINDS)
    elif size <= FEW_CASES:
        yield from product(POWERS, CONDITIONS[1:2], KINDS[:2])
    else:
        yield POWERS[0], CONDITIONS[1], KINDS[1]


def row(
    size: int, power: int, condition: float, precision: str, dtype: torch.dtype, limit: float
) -> dict[str, Any]:
    """One measurement."""
    a, damping = matrix(size, condition, dtype, DEVICE)

    def iteration() -> Any:
        return iterate_root(a, power, damping=damping, tolerance=ROOT_ERROR, precision=precision)

    found = iteration()
    calls = {"iteration": iteration, "eigh": lambda: by_eigenvalues(a, power, damping)}
    times = interleaved(calls, rounds=15, limit=limit, warm=1)
    return {
        "d": size,
        "root": power,
        "condition": condition,
        "matrix": str(dtype).removeprefix("torch."),
        "precision": precision,
        "came_from": METHODS[found.method],
        "steps": sum(found.steps.values()),
        "proven_error": float(found.error),
        "proven": not bool(found.missed),
        **ratio(times, "iteration", "eigh"),
    }


def full_correction(size: int, device: str) -> tuple[Any, list[Tensor]]:
    """What ``full`` adds to a refresh at every step, for a block [size, size], and its factors."""
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(1, MICROBATCHES, size, size, generator=generator).to(device)
    factors = {"left": (x @ x.mT).mean(1), "right": (x.mT @ x).mean(1)}
    sides = {
        name: Side.bare(*eigendecompose(a, damping=1e-6, name=name), Fraction(4))
        for name, a in factors.items()
    }
    each = x.new_full((1, MICROBATCHES), 1 / MICROBATCHES)
    deviations = GradientDeviations(x, each, (each / (MICROBATCHES - 1)).sqrt())
    zeros = [torch.zeros_like(x[:, 0]) for _ in range(4)]
    state = Tracked(dict(zip(sides, zeros, strict=False)), x.new_zeros(1, 2), *zeros[2:])
    into = {name: side.basis.mT for name, side in sides.items()}
    out = {name: side.basis for name, side in sides.items()}
    weights = Weights.at(5, 0.9, 0.95, "ema")

    def full() -> Any:
        momentum = turned(sides, x.mean(1))
        old = moved(state, into, terms=False)
        tracked = advance(old, sides, deviations, weights, momentum, "full", held=False)
        whole, _ = tracked.completion(weights)
        corrected_sides(sides, tracked.inversion, whole, "full")
        return moved(tracked, out, terms=False)

    return full, list(factors.values())


def correction_row(size: int, limit: float) -> dict[str, Any]:
    """Both sides' corrections over both sides' eigendecompositions."""
    full, factors = full_correction(size, DEVICE)
    with FlopCounterMode(display=False) as counter:
        full()
    calls = {"full": full, "eigh": lambda: [torch.linalg.eigh(a) for a in factors]}
    found = ratio(interleaved(calls, rounds=15, limit=limit, warm=1), "full", "eigh")
    row = {
        "d": size,
        "work": f"full, both sides, m = {MICROBATCHES}",
        "flops_over_d3": round(counter.get_total_flops() / size**3, 2),
        **found,
    }
    if DEVICE == "cuda" and size == CLAIMED:
        row["passed"] = found["ratio"] <= MOST_OF_EIGH
    return row
