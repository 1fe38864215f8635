"""What draws the microbatch gradients: a law of the ground truth, a name, or anything that samples.

A `Source` draws float64 arrays from a numpy generator and knows as many exact moments as there
are to know: the more it knows, the fewer samples a check needs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deltabias.truth import (
    LAWS,
    MATRIX_LAWS,
    FiniteLaw,
    FiniteMatrixLaw,
    Law,
    MatrixLaw,
    MomentDoesNotExist,
    law,
    matrix_law,
)

HIGHEST_MOMENT = 12
HEAVY_TAIL = 5.5
"""A tail index below which a sampler is taken to have no sixth moment."""
PROBE = 1 << 17
"""Draws by which a sampler without moments is looked at."""

Array = np.ndarray


class UnusableLaw(ValueError):
    """The law cannot be asked for a bias; the text says why."""


@dataclass(frozen=True)
class Source:
    """Draws of one microbatch's gradient.

    Attributes
    ----------
    draw : ``draw(rng, shape)`` -> float64 [*shape, *dims]
    dims : of one microbatch's gradient; () for a scalar
    raw : E x, E x², … of a scalar as far as they are known and finite, else ()
    matrix : the matrix law, of which E G, E G Gᵀ and E Gᵀ G are known
    finite : the law again if it has finite support: it can be enumerated
    center, scale : about which and in which units features are taken; exact where ``raw`` is
    heavy : whether there seems to be no sixth moment
    center_error : standard error of ``center``; 0 where it is exact
    """

    name: str
    draw: Callable[[np.random.Generator, tuple[int, ...]], Array] = field(repr=False)
    dims: tuple[int, ...]
    center: Any
    scale: float
    raw: tuple[float, ...] = ()
    matrix: MatrixLaw | None = None
    finite: FiniteLaw | FiniteMatrixLaw | None = None
    heavy: bool = False
    center_error: float = 0.0

    @property
    def standardized(self) -> tuple[float, ...]:
        """1, E z, E z², … for z = (x − center)/scale, as far as known; () if the mean is not."""
        if not self.raw:
            return ()
        raw = (1.0, *self.raw)
        return tuple(
            sum(math.comb(n, k) * (-self.center) ** (n - k) * raw[k] for k in range(n + 1))
            / self.scale**n
            for n in range(len(raw))
        )


def read_law(given: Any, *, matrix: bool = False) -> Source:
    """The source that a ``law=`` argument stands for.

    ``given`` is a scalar or matrix law of `deltabias.truth`; one of their names (with mean 1 and
    standard deviation 1/2, or 3 × 3 matrices where ``matrix``); or a sampler: a callable
    ``(generator, shape)`` or an object with such a ``sample``, for a numpy or a torch generator.
    A sampler may bring ``mean`` and ``moment(n)`` or ``moments`` (E x, E x², …), all exact.

    Raises
    ------
    UnusableLaw
        without a variance, without spread, not finite, or drawing differently for one seed.
    ValueError, TypeError
        for an unknown name, or nothing that samples.
    """
    if isinstance(given, str):
        given = _named(given, matrix)
    if isinstance(given, MatrixLaw):
        return _of_matrices(given)
    if isinstance(given, Law):
        return _of_scalars(given)
    return _of_sampler(given)


def _named(name: str, matrix: bool) -> Law | MatrixLaw:
    if name in MATRIX_LAWS and (matrix or name not in LAWS):
        return matrix_law(name, 3)
    if name not in LAWS:
        raise ValueError(f"law {name!r} is unknown; choose one of {', '.join((*LAWS, 'wishart'))}, "
                         "a law of deltabias.truth, or a sampler.")  # fmt: skip
    return law(name, mean=1, sd="1/2")


def _of_scalars(given: Law) -> Source:
    try:
        variance = float(given.variance)
    except MomentDoesNotExist as error:
        raise UnusableLaw(f"law {given!r} has no variance ({error}), so a mean of microbatches "
                          "has no bias of order 1/m.") from error  # fmt: skip
    if not variance > 0:
        raise UnusableLaw(f"law {given!r} is a constant: there is nothing random to have a bias.")
    moments = _known_moments(given.moment)
    return Source(
        repr(given), lambda rng, shape: given.sample(rng, shape), (), float(given.mean),
        math.sqrt(variance), moments, finite=given if isinstance(given, FiniteLaw) else None,
        heavy=len(moments) < 6,
    )  # fmt: skip


def _known_moments(moment: Callable[[int], Any]) -> tuple[float, ...]:
    known: list[float] = []
    for order in range(1, HIGHEST_MOMENT + 1):
        try:
            value = float(moment(order))
        except (MomentDoesNotExist, OverflowError, IndexError, KeyError):
            break
        if not math.isfinite(value):
            break
        known.append(value)
    return tuple(known)


def _of_matrices(given: MatrixLaw) -> Source:
    spread = np.trace(np.asarray(given.left_moment) - given.mean @ given.mean.T)
    if not np.isfinite(spread):
        raise UnusableLaw(f"matrix law {type(given).__name__} has no finite second moment.")
    if spread <= 0:
        raise UnusableLaw("the matrix law is a constant: there is nothing random to have a bias.")
    scale = math.sqrt(spread / given.mean.size)
    return Source(
        type(given).__name__, lambda rng, shape: given.sample(rng, shape), given.mean.shape,
        np.asarray(given.mean, dtype=float), scale, matrix=given,
        finite=given if isinstance(given, FiniteMatrixLaw) else None,
        heavy=getattr(given, "dof", math.inf) < 6,
    )  # fmt: skip


# -- samplers -------------------------------------------------------------------------------------


def _of_sampler(given: Any) -> Source:
    function = getattr(given, "sample", given)
    if not callable(function):
        raise TypeError(f"law={given!r} does not sample; pass a law of deltabias.truth, a name, or "
                        "a callable (generator, shape) -> array.")  # fmt: skip
    draw = _drawing(function)
    dims = _checked_dims(draw)
    probe = draw(np.random.default_rng(1), (PROBE,))
    flat = probe.reshape(PROBE, -1)
    if not np.all(np.isfinite(flat)):
        raise UnusableLaw("the law draws numbers that are infinite or NaN.")
    scale = float(np.sqrt(np.mean(np.var(flat, axis=0))))
    if not scale > 0:
        raise UnusableLaw("the law draws one constant: there is nothing random to have a bias.")
    heavy = _tail_index(flat) < HEAVY_TAIL
    moments = _moments_of(given) if not dims else ()
    if moments:
        # exact in the moments that were given
        mean, variance = moments[0], moments[1] - moments[0] ** 2
        _check_moments(flat[:, 0], mean, variance)
        return Source(_name(given), draw, dims, mean, math.sqrt(variance), moments,
                      heavy=heavy)  # fmt: skip
    return Source(_name(given), draw, dims, probe.mean(axis=0), scale, heavy=heavy,
                  center_error=scale / math.sqrt(PROBE))  # fmt: skip


def _name(given: Any) -> str:
    return getattr(given, "__name__", type(given).__name__)


def _drawing(function: Callable) -> Callable[[np.random.Generator, tuple[int, ...]], Array]:
    """The sampler with a numpy generator, or with a torch one seeded from it."""

    def with_numpy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return np.asarray(function(rng, shape), dtype=np.float64)

    def with_torch(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        return np.asarray(function(generator, shape), dtype=np.float64)

    problems = []
    for attempt in (with_numpy, with_torch):
        try:
            attempt(np.random.default_rng(0), (2, 3))
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
        else:
            return attempt
    raise UnusableLaw("the law can be called neither with a numpy nor with a torch generator and "
                      f"a shape: {problems[0]} / {problems[1]}")  # fmt: skip


def _checked_dims(draw: Callable) -> tuple[int, ...]:
    first, again = (draw(np.random.default_rng(0), (5, 3)) for _ in range(2))
    if first.shape[:2] != (5, 3):
        raise UnusableLaw(f"asked for shape (5, 3), the law drew {first.shape}; it must draw "
                          "[*shape, *dims].")  # fmt: skip
    if not np.array_equal(first, again, equal_nan=True):
        raise UnusableLaw("the law uses its own randomness: one seed drew two different samples; "
                          "draw everything from the generator that is passed.")  # fmt: skip
    return first.shape[2:]


def _moments_of(given: Any) -> tuple[float, ...]:
    if callable(getattr(given, "moment", None)):
        found = _known_moments(given.moment)
    elif getattr(given, "moments", None) is not None:
        found = _known_moments(lambda n: _nth(given.moments, n))
    else:
        return ()
    return found if len(found) >= 2 else ()


def _nth(moments: Sequence | Callable, n: int) -> Any:
    return moments(n) if callable(moments) else moments[n - 1]


def _check_moments(draws: Array, mean: float, variance: float) -> None:
    """Moments that the draws contradict are worse than none."""
    if not variance > 0:
        raise UnusableLaw(f"the law says its variance is {variance:.4g}; it must be positive.")
    away = abs(draws.mean() - mean) / math.sqrt(variance / len(draws))
    if away > 7:
        raise UnusableLaw(
            f"the law says its mean is {mean:.6g}, {len(draws)} draws of it have the mean "
            f"{draws.mean():.6g}: {away:.0f} standard errors away."
        )


def _tail_index(draws: Array) -> float:
    """Hill's tail index of a sampler, from the largest thousandth of the deviations.

    Clearly below two, by its own error 1/√k, it is refused: there is no variance.
    Source: B. M. Hill, "A simple general approach to inference about the tail of a distribution",
    Ann. Statist. 3 (1975).
    """
    count, least = len(draws) // 1000, math.inf
    for column in draws.T:
        largest = np.sort(np.abs(column - np.median(column)))[-count - 1 :]
        if not 0 < largest[0] < largest[-1]:
            continue
        least = min(least, 1 / float(np.mean(np.log(largest[1:] / largest[0]))))
    if least * (1 + 4 / math.sqrt(count)) < 2:
        raise UnusableLaw(
            f"the law has no variance as far as {len(draws)} draws can tell: their tail index is "
            f"{least:.2f}, a variance needs 2."
        )
    return least
