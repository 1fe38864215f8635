"""How time grows: with parameters, with microbatches, and with the size of a matrix.

Sizes are taken in turn within a round, so a ratio of two of them, and the exponent fitted through
all of them, is of one round; reported are the median over the rounds and the middle half.

*Parameters*: a step of 1e4 … 1e8 parameters in one tensor, one contender at a time, as at 1e8 it
holds gigabytes; a size that the free memory does not hold is left out by name. Short steps are
repeated within a clock's reading. A fit begins where calls have stopped mattering: at the first
size whose step takes ten times as long as one of 1e4.

*Microbatches*: what the statistics take for a microbatch when a step has 2 … 64 of them.

*Matrices*: the eigensolver, an inverse fourth root by it and by products alone, and the full
correction of such a root with 8 deviations, d = 64 … 1024 in fp32. Below 256 calls matter.

    python -m validation.benchmarks growth
"""

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from deltabias.generated import inverse_root_4
from deltabias.microbatch import MicrobatchStats
from deltabias.one_pass import compiler_missing
from deltabias.optim.root_iteration import iterate_root
from validation.benchmarks.cpu_step import Shared, of_ours, of_torch
from validation.benchmarks.matrix_roots import by_eigenvalues, matrix
from validation.benchmarks.pairs import Times, interleaved, middle, ratio
from validation.matrix_cost import tasks

LINEAR, CUBIC, FLAT = (0.9, 1.1), (2.5, 3.3), 1.1
CLAIM = (
    "a step's time grows with parameters, from where calls stop mattering up to 1e8, with an "
    "exponent of 0.9 to 1.1; that of matrix roots and their full correction with d from 256 to "
    "1024 with one of 2.5 to 3.3; a microbatch's statistics cost no more than 10 % more where a "
    "step has 2 … 64 of them than where it has 8"
)
PACKAGES = ()
SIZES = (10**4, 10**5, 10**6, 10**7, 10**8)
MICROBATCHES = (2, 4, 8, 16, 32, 64)
DIMENSIONS = (64, 128, 256, 512, 1024)
SMALLEST_FITTED = 256
"""The first d that takes part in a fit."""

CALLS_VANISH = 10
"""A size takes part in a fit if its step takes so many times as long as the smallest size's."""

REPEATED = 10**6
"""A clock's reading is of at least so many parameters' steps."""

BYTES_OF_ONE = 64
"""Memory that is asked for a parameter: twice what the largest contender holds when it is made."""

STATISTICS_OF, PIECE = 10**7, 10**6
"""Parameters whose statistics are timed, and how many are in one tensor."""

LIMIT = 40.0
"""Seconds after which no new round of a contender begins."""

STEPS: dict[str, Callable[[Shared], Callable[[], Any]]] = {
    "torch fused": of_torch,
    "off": lambda shared: of_ours(shared, correction="none"),
    "delta": of_ours,
    "delta int8, observing": lambda shared: of_ours(shared, storage="int8"),
    "delta int8, between": lambda shared: of_ours(shared, storage="int8", observes=False),
    "closed_form": lambda shared: of_ours(shared, correction="closed_form"),
}


def missing() -> str | None:
    """Why this cannot run here."""
    return compiler_missing() or None


def free_bytes() -> float:
    """Memory that nobody uses; infinite where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return float("inf")


def exponents(times: Times, sizes: Mapping[str, int]) -> list[float]:
    """Of each round, the slope of log time on log size, by least squares.

    Examples
    --------
    >>> exponents({"a": [1.0], "b": [8.0], "c": [64.0]}, {"a": 10, "b": 20, "c": 40})
    [3.0]
    """
    x = [log(size) for size in sizes.values()]
    rounds = zip(*(times[name] for name in sizes), strict=True)
    return [statistics.linear_regression(x, [log(t) for t in one]).slope for one in rounds]


def repeated(call: Callable[[], Any], times: int) -> Callable[[], None]:
    """The call, several times over."""

    def several() -> None:
        for _ in range(times):
            call()

    return several


def lines(
    what: str,
    size_is: str,
    times: Times,
    sizes: Mapping[str, int],
    *,
    fitted: Mapping[str, int],
    span: tuple[float, float],
) -> Iterator[dict[str, Any]]:
    """A line for each size, beside the size before it, and one for the exponent of those fitted."""
    before = None
    for name, size in sizes.items():
        row = {"what": what, size_is: size}
        row["milliseconds"] = round(1e3 * statistics.median(times[name]), 5)
        if before is not None:
            row |= {k: v for k, v in ratio(times, name, before).items() if k != "milliseconds"}
        before = name
        yield row
    if len(fitted) < 2:
        return
    found = middle(exponents(times, fitted), "exponent")
    passed = span[0] <= found["exponent"] <= span[1]
    reach = f"{min(fitted.values()):g} … {max(fitted.values()):g}"
    yield {"what": what, "fitted": reach, **found, "passed": passed}


def where_calls_vanish(times: Times, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes from the first one on whose time is `CALLS_VANISH` times the smallest one's.

    Examples
    --------
    >>> times = {"1": [1.0], "9": [4.0], "99": [31.0], "999": [310.0]}
    >>> list(where_calls_vanish(times, {"1": 1, "9": 9, "99": 99, "999": 999}))
    ['99', '999']
    """
    names = list(sizes)
    typical = {name: statistics.median(times[name]) for name in names}
    floor = CALLS_VANISH * typical[names[0]]
    first = next((i for i, name in enumerate(names) if typical[name] >= floor), len(names))
    return {name: sizes[name] for name in names[first:]}


def of_parameters(
    sizes: Sequence[int] = SIZES, steps: Mapping[str, Callable] = STEPS, limit: float = LIMIT
) -> Iterator[dict[str, Any]]:
    """A step of every contender, one contender at a time."""
    for what, make in steps.items():
        room = [size for size in sizes if BYTES_OF_ONE * size <= free_bytes()]
        again = {size: max(1, REPEATED // size) for size in room}
        calls = {str(size): repeated(make(Shared(size)), again[size]) for size in room}
        times = interleaved(calls, rounds=15, limit=limit)
        del calls
        torch._dynamo.reset()
        each = {str(size): [t / again[size] for t in times[str(size)]] for size in room}
        named = {str(size): size for size in room}
        fitted = where_calls_vanish(each, named)
        yield from lines(what, "parameters", each, named, fitted=fitted, span=LINEAR)
        for size in sorted(set(sizes) - set(room)):
            yield {"what": what, "parameters": size, "left_out": "not enough free memory"}


def of_microbatches(
    counts: Sequence[int] = MICROBATCHES, size: int = STATISTICS_OF, limit: float = LIMIT
) -> Iterator[dict[str, Any]]:
    """The statistics that `delta` needs, for each microbatch of a step."""
    pieces = range(max(1, size // PIECE))
    params = [torch.nn.Parameter(torch.zeros(min(size, PIECE))) for _ in pieces]
    generator = torch.Generator().manual_seed(0)
    grads = [[1e-3 * torch.randn(p.shape, generator=generator) for p in params] for _ in range(2)]
    stats = MicrobatchStats(params, moments=3)
    stats.fuse()

    def take(count: int) -> None:
        stats.reset()
        for i in range(count):
            stats.add(grads[i % 2])

    calls = {str(m): lambda m=m: take(m) for m in counts}
    times = interleaved(calls, rounds=15, limit=limit)
    each = {str(m): [t / m for t in times[str(m)]] for m in counts}
    for m in counts:
        found = ratio(each, str(m), "8" if 8 in counts else str(counts[0]))
        passed = found["ratio"] <= FLAT
        yield {"what": "statistics of a microbatch", "microbatches": m, **found, "passed": passed}
    starts = starts_over_microbatches(times, {str(m): m for m in counts})
    yield {"what": "start of a step over a microbatch", **middle(starts, "ratio")}


def starts_over_microbatches(times: Times, counts: Mapping[str, int]) -> list[float]:
    """Of each round a/b, where a + b m is fitted to the time of m microbatches.

    Examples
    --------
    >>> starts_over_microbatches({"2": [7.0], "8": [19.0]}, {"2": 2, "8": 8})
    [1.5]
    """
    rounds = zip(*(times[name] for name in counts), strict=True)
    fits = [statistics.linear_regression(list(counts.values()), one) for one in rounds]
    return [fit.intercept / fit.slope for fit in fits]


def matrix_calls(dim: int, device: str) -> dict[str, Callable[[], Any]]:
    """What is timed of one dimension."""
    a, damping = matrix(dim, 1e4, torch.float32, device)
    cost = tasks(inverse_root_4, dim, torch.device(device), torch.float32)
    return {
        "eigh": cost["eigh"],
        "inverse root by eigh": lambda: by_eigenvalues(a, 4, damping),
        "inverse root by products": lambda: iterate_root(a, 4, damping=damping, tolerance=1e-3),
        "full correction": cost["full"],
    }


def of_matrices(
    dims: Sequence[int] = DIMENSIONS, limit: float = 3 * LIMIT
) -> Iterator[dict[str, Any]]:
    """Roots and the full correction; the correction beside eigh is reported, not judged."""
    made: dict[str, dict[str, Callable[[], Tensor]]] = {}
    for dim in dims:
        for what, call in matrix_calls(dim, "cpu").items():
            made.setdefault(what, {})[str(dim)] = call
    calls = {f"{what} {dim}": call for what, of in made.items() for dim, call in of.items()}
    times = interleaved(calls, rounds=15, limit=limit, warm=1)
    for what, of in made.items():
        mine = {dim: times[f"{what} {dim}"] for dim in of}
        named = {dim: int(dim) for dim in of}
        fitted = {dim: size for dim, size in named.items() if size >= SMALLEST_FITTED}
        yield from lines(what, "d", mine, named, fitted=fitted, span=CUBIC)
    largest = max(dims)
    beside = ratio(times, f"full correction {largest}", f"eigh {largest}")
    yield {"what": "full correction over eigh, 8 deviations", "d": largest, **beside}


def rows() -> Iterator[dict[str, Any]]:
    """Everything, on one thread."""
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from of_parameters()
        yield from of_microbatches()
        yield from of_matrices()
    finally:
        torch.set_num_threads(kept)
