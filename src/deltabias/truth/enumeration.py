r"""Exact expectations under finite laws, by visiting every sample.

A statistic that does not depend on the order of the microbatches depends on how often each point
was drawn, so for a law on k points the expectation over m microbatches is the finite sum

.. math::
    E\,f = \sum_{c_1 + \dots + c_k = m} \frac{m!}{\prod_i c_i!} \prod_i p_i^{c_i}\, f(c)

over :math:`\binom{m+k-1}{k-1}` multisets instead of :math:`k^m` sequences. Nothing is sampled
and nothing truncated: what is left is rounding at the working precision.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath
from mpmath import mp

from .errors import TooManySamples
from .exact import as_mpf
from .finite_laws import FiniteLaw

__all__ = [
    "MOST_SAMPLES",
    "Sample",
    "enumerate_samples",
    "expectation",
    "expectation_over_groups",
    "expectation_over_history",
    "multiset_count",
]

MOST_SAMPLES = 300_000
"""More calls of the function than this are refused: some minutes at 50 digits."""

GUARD_DIGITS = 15

Value = mpmath.mpf | tuple[mpmath.mpf, ...]


@dataclass(frozen=True)
class Sample:
    """An unordered sample of m microbatches: pairs (value, count), counts adding to m."""

    pairs: tuple[tuple[mpmath.mpf, int], ...]

    def __iter__(self) -> Iterator[tuple[mpmath.mpf, int]]:
        return iter(self.pairs)

    @property
    def microbatches(self) -> int:
        """The size m of the sample."""
        return sum(count for _, count in self.pairs)

    @property
    def mean(self) -> mpmath.mpf:
        """(1/m) Σ x."""
        return self.power_mean(1)

    def power_mean(self, k: int) -> mpmath.mpf:
        """(1/m) Σ xᵏ: the running sums p₁, p₂, … of a one-pass statistic."""
        return sum(count * value**k for value, count in self.pairs) / self.microbatches

    def central_sum(self, k: int) -> mpmath.mpf:
        """Σ (x − mean)ᵏ; with k = 2 over m − 1 it is the unbiased sample variance."""
        mean = self.mean
        return sum((count * (value - mean) ** k for value, count in self.pairs), mp.mpf(0))


def multiset_count(points: int, microbatches: int) -> int:
    """Return how many unordered samples there are: C(m + k − 1, k − 1).

    >>> multiset_count(2, 4096), multiset_count(4, 16)
    (4097, 969)
    """
    return math.comb(microbatches + points - 1, points - 1)


def expectation(
    function: Callable[[Sample], Value], law: FiniteLaw, microbatches: int, digits: int = 50
) -> Value:
    """Return E f over ``microbatches`` independent draws, exact up to rounding.

    Args:
        function: maps a :class:`Sample` to an mpf, or to a tuple of them (several expectations
            from one enumeration). It must not depend on the order of the draws.
        law: any law with finite support; two points reach m = 4096 and beyond, four points 100.
        microbatches: the number m of draws.
        digits: decimal digits of the answer; the work is done with 15 more.

    Raises:
        TooManySamples: if there are more than :data:`MOST_SAMPLES` multisets.
        TypeError: for a law without finite support, or a function that returns floats: they
            would spoil the digits without a word.

    >>> from deltabias.truth import TwoPoint
    >>> print(expectation(lambda s: s.mean**2, TwoPoint(-1, 1), 4))
    0.25
    """
    return expectation_over_groups(lambda groups: function(groups[0]), law, [microbatches], digits)


def expectation_over_history(
    function: Callable[[tuple[Sample, ...]], Value],
    law: FiniteLaw | Sequence[FiniteLaw],
    microbatches: int,
    steps: int,
    digits: int = 50,
) -> Value:
    """Return E f over ``steps`` independent steps of ``microbatches`` draws, in order.

    ``function`` receives one :class:`Sample` per step, the oldest first, so an EMA can be run
    through them. ``law`` may be a list of one law per step (a noise level that jumps). For the
    rest see :func:`expectation`.
    """
    return expectation_over_groups(function, law, [microbatches] * steps, digits)


def expectation_over_groups(
    function: Callable[[tuple[Sample, ...]], Value],
    law: FiniteLaw | Sequence[FiniteLaw],
    sizes: Sequence[int],
    digits: int = 50,
) -> Value:
    """Return E f over independent groups (folds) of the given sizes.

    ``function`` receives a tuple of :class:`Sample`, one per group, in the order of ``sizes``.
    ``law`` is one law for all, or one per group. For the rest see :func:`expectation`.
    """
    laws = _one_law_per_group(law, len(sizes))
    _check_sizes(laws, sizes)
    with mpmath.workdps(digits + GUARD_DIGITS):
        tables = [_weighted_samples(law, size) for law, size in zip(laws, sizes, strict=True)]
        totals, is_tuple = None, False
        for row in itertools.product(*tables):
            probability = math.prod((weight for weight, _ in row), start=mp.mpf(1))
            value = function(tuple(sample for _, sample in row))
            is_tuple = isinstance(value, tuple)
            parts = [_checked(part) for part in (value if is_tuple else (value,))]
            totals = totals or [mp.mpf(0)] * len(parts)
            totals = [t + probability * part for t, part in zip(totals, parts, strict=True)]
    with mpmath.workdps(digits):
        rounded = tuple(+total for total in totals)
    return rounded if is_tuple else rounded[0]


def enumerate_samples(
    law: FiniteLaw, microbatches: int
) -> Iterator[tuple[tuple[int, ...], Fraction]]:
    """Yield every multiset as its counts over ``law.points``, with its rational probability.

    >>> from deltabias.truth import TwoPoint
    >>> list(enumerate_samples(TwoPoint(0, 1), 1))
    [((0, 1), Fraction(1, 2)), ((1, 0), Fraction(1, 2))]
    """
    _check_sizes([law], [microbatches])
    for counts in _compositions(microbatches, len(law.points)):
        orders = math.factorial(microbatches) // math.prod(map(math.factorial, counts))
        powers = (w**c for w, c in zip(law.weights, counts, strict=True))
        yield counts, math.prod(powers, start=Fraction(orders))


def _weighted_samples(law: FiniteLaw, microbatches: int) -> list[tuple[mpmath.mpf, Sample]]:
    """Return every multiset of ``microbatches`` points with its multinomial probability."""
    values = [as_mpf(x) for x in law.points]
    # m! Π pᵢ^cᵢ/cᵢ! from tables of rounded terms. Exact factorials of 4096 would take seconds;
    # rounding m products costs log₁₀ m of the fifteen digits in hand.
    terms = [_powers_over_factorials(as_mpf(w), microbatches) for w in law.weights]
    orders = 1 / _powers_over_factorials(mp.mpf(1), microbatches)[-1]
    table = []
    for counts in _compositions(microbatches, len(values)):
        weight = math.prod((terms[i][c] for i, c in enumerate(counts)), start=orders)
        pairs = tuple((x, c) for x, c in zip(values, counts, strict=True) if c)
        table.append((weight, Sample(pairs)))
    return table


def _powers_over_factorials(base: mpmath.mpf, highest: int) -> list[mpmath.mpf]:
    """Return baseᶜ/c! for c = 0 … highest."""
    ratios = (base / c for c in range(1, highest + 1))
    return list(itertools.accumulate(ratios, operator.mul, initial=mp.mpf(1)))


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Yield every way to write ``total`` as an ordered sum of ``parts`` counts."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def _one_law_per_group(law: FiniteLaw | Sequence[FiniteLaw], groups: int) -> list[FiniteLaw]:
    laws = [law] * groups if not isinstance(law, Sequence) else list(law)
    if len(laws) != groups:
        raise ValueError(f"{len(laws)} laws for {groups} groups; pass one law, or one per group.")
    for each in laws:
        if not isinstance(each, FiniteLaw):
            raise TypeError(
                f"{each!r} has no finite support to enumerate; pass a Discrete, TwoPoint or "
                "Empirical law, or use a closed form or Monte Carlo."
            )
    return laws


def _check_sizes(laws: Sequence[FiniteLaw], sizes: Sequence[int]) -> None:
    if not sizes or any(isinstance(m, bool) or not isinstance(m, int) or m < 1 for m in sizes):
        raise ValueError(f"group sizes {list(sizes)!r} must be ints of at least 1, and some.")
    counts = [multiset_count(len(law.points), m) for law, m in zip(laws, sizes, strict=True)]
    count = math.prod(counts)
    if count > MOST_SAMPLES:
        raise TooManySamples(
            f"{count} samples to visit ({' × '.join(map(str, counts))}); the limit is "
            f"{MOST_SAMPLES}. Take fewer points, microbatches or steps, or use Monte Carlo."
        )


def _checked(part: object) -> mpmath.mpf:
    if isinstance(part, (mpmath.mpf, int, Fraction)):
        return as_mpf(part)
    raise TypeError(
        f"the function returned a {type(part).__name__}; return mpf numbers (a float has only "
        "16 digits), or a tuple of them."
    )
