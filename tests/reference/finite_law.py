"""Slow truth for laws with finite support: every outcome is visited, in exact fractions.

A law is a list of (value, probability); a value is a `Fraction`, or a tuple of them for a vector.
Cumulants are written from their definitions (log of the moment generating function; centered
products), not from the set-partition formula that the package uses.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import product
from math import factorial, prod

Law = Sequence[tuple]


def expectation(law: Law, function: Callable) -> Fraction:
    """Σ p f(x)."""
    return sum((p * function(x) for x, p in law), Fraction(0))


def samples(law: Law, m: int) -> Iterator[tuple[tuple, Fraction]]:
    """Every sample of m independent observations with its probability."""
    for outcome in product(law, repeat=m):
        yield tuple(x for x, _ in outcome), prod((p for _, p in outcome), start=Fraction(1))


def expectation_over_samples(law: Law, m: int, function: Callable) -> Fraction:
    """E f(x₁, …, x_m) over independent observations."""
    return sum((p * function(xs) for xs, p in samples(law, m)), Fraction(0))


def mean(xs: Sequence) -> Fraction | tuple:
    """The mean of scalars, or of vectors coordinate by coordinate."""
    if isinstance(xs[0], tuple):
        return tuple(Fraction(sum(column), len(xs)) for column in zip(*xs, strict=True))
    return Fraction(sum(xs), len(xs))


def law_of_mean(law: Law, m: int) -> list[tuple]:
    """The law of the mean of m independent observations."""
    return [(mean(xs), p) for xs, p in samples(law, m)]


def cumulants(law: Law, order: int) -> list[Fraction]:
    """κ_0 = 0, κ_1, …: the coefficients of log E exp(s x), times n!.

    With M(s) = Σ m_n sⁿ/n!, (log M)′ = M′/M is one division of power series.
    """
    series = [expectation(law, lambda x, n=n: x**n) / factorial(n) for n in range(order + 1)]
    logarithmic: list[Fraction] = []  # of (log M)′
    for n in range(order):
        value = (n + 1) * series[n + 1]
        value -= sum(logarithmic[k] * series[n - k] for k in range(n))
        logarithmic.append(value)
    return [Fraction(0)] + [logarithmic[n - 1] * factorial(n - 1) for n in range(1, order + 1)]


def joint_cumulant(law: Law, functions: Sequence[Callable]) -> Fraction:
    """The joint cumulant of up to four functions of one observation, from centered products."""
    centers = [expectation(law, f) for f in functions]

    def moment(*which: int) -> Fraction:
        return expectation(
            law, lambda x: prod((functions[i](x) - centers[i] for i in which), start=Fraction(1))
        )

    match len(functions):
        case 1:
            return centers[0]
        case 2 | 3:
            return moment(*range(len(functions)))
        case 4:
            pairs = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
            return moment(0, 1, 2, 3) - sum(moment(*a) * moment(*b) for a, b in pairs)
    raise ValueError(f"{len(functions)=} is not written out; 1 to 4 are.")
