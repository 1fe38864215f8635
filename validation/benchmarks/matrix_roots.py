"""Inverse roots by products alone against the eigensolver: time, and the error that is proven.

Matrices as Shampoo has them: a spectrum that reaches zero, and damping, which sets the condition
number. One thread; on a CUDA device instead where there is one. An iteration that cannot prove
the error asks the eigensolver as well, and has lost.

    python -m validation.benchmarks matrix_roots
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from deltabias.optim.eigen import eigendecompose
from deltabias.optim.root_iteration import METHODS, iterate_root
from validation.benchmarks.pairs import interleaved, ratio

CLAIM = "time of a certified iteration over that of the eigensolver, and the error it proves"
PACKAGES = ()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = (32, 64, 128, 256, 512, 1024)
POWERS = (2, 4)
CONDITIONS = (1e2, 1e4, 1e6)
KINDS = (("fp32", torch.float32), ("fp64", torch.float64), ("bf16", torch.float32))
ROOT_ERROR = 1e-3
MOST_CASES, FEW_CASES = 64, 256
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
