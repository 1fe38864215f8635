"""The delta expansion of E T(S) about T(E S), grouped by power of the small parameter.

With X = S - E S and cumulants of order n of size O(small^(n-1)), as for means,

    E T(S) = exp( sum_{|α|>=2} κ_α ∂^α / α! ) T (E S),

so a product of cumulants κ_α1 … κ_αk carries the power sum_i (|α_i| - 1). All products of one
power are kept together: truncating by the order of derivative instead loses, at power 3, two
of the three kinds of terms.

Source: the exponential formula for cumulants, McCullagh (1987) §2.3 and exercise 2.5; that the
expansion is one of *moments* with remainder O(small^(power+1)) for maps with bounded
derivatives: Oehlert, "A note on the delta method", The American Statistician 46 (1992) 27-29.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import factorial

import sympy as sp

Index = tuple[int, ...]
"""A multi-index: how often each variable is differentiated."""


@dataclass(frozen=True)
class Contribution:
    """One term: ``weight * ∂^derivative T * prod(cumulants)``, of power ``power``."""

    power: int
    weight: sp.Rational
    derivative: Index
    cumulants: tuple[Index, ...]


def partitions(number: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """The partitions of an integer, parts in falling order.

    >>> list(partitions(3))
    [(3,), (2, 1), (1, 1, 1)]
    """
    if number == 0:
        yield ()
        return
    for part in range(min(number, largest or number), 0, -1):
        for rest in partitions(number - part, part):
            yield (part, *rest)


def _multi_indices(variables: int, order: int) -> list[Index]:
    picks = combinations_with_replacement(range(variables), order)
    return [tuple(pick.count(i) for i in range(variables)) for pick in picks]


def contributions(variables: int, power: int) -> list[Contribution]:
    """Every term of one power of the small parameter, for a map of `variables` arguments.

    >>> [c.weight for c in contributions(1, 1)], [c.weight for c in contributions(1, 2)]
    ([1/2], [1/6, 1/8])
    """
    found: dict[tuple[Index, ...], None] = {}  # a set that keeps its order
    for parts in partitions(power):
        choices: list[tuple[Index, ...]] = [()]
        for part in parts:  # a part p is a cumulant of order p + 1
            choices = [
                (*chosen, index)
                for chosen in choices
                for index in _multi_indices(variables, part + 1)
            ]
        for chosen in choices:
            found[tuple(sorted(chosen, reverse=True))] = None
    terms = []
    for cumulants in found:
        weight = sp.Rational(1)
        for index, repeats in Counter(cumulants).items():
            weight /= sp.prod([factorial(k) for k in index]) ** repeats * factorial(repeats)
        derivative = tuple(map(sum, zip(*cumulants, strict=True)))
        terms.append(Contribution(power, weight, derivative, cumulants))
    return terms


def expand(
    differentiate: Callable[[Index], sp.Expr], variables: Sequence[sp.Symbol], power: int
) -> list[tuple[Contribution, sp.Expr]]:
    """The non-vanishing contributions of one power with their coefficients ``weight * ∂T``."""
    result = []
    for contribution in contributions(len(variables), power):
        derivative = differentiate(contribution.derivative)
        if derivative != 0:
            result.append((contribution, contribution.weight * derivative))
    return result
