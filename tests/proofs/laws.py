"""Random finite laws with rational weights, and exact sums over them: no symbol, no rounding."""

import random
from collections.abc import Callable, Iterator
from fractions import Fraction as Q
from itertools import product

Law = list[tuple[Q, Q]]


def rational(rng: random.Random, low: int, high: int) -> Q:
    """A number in [low, high] with a small denominator."""
    bottom = rng.randint(1, 7)
    return Q(rng.randint(low * bottom, high * bottom), bottom)


def weights(rng: random.Random, count: int) -> list[Q]:
    parts = [Q(rng.randint(1, 9)) for _ in range(count)]
    return [p / sum(parts) for p in parts]


def law(rng: random.Random, count: int = 3, low: int = 1, high: int = 5) -> Law:
    """Outcomes of one variable, positive where `low` is."""
    return [(w, rational(rng, low, high)) for w in weights(rng, count)]


def joint(rng: random.Random, count: int = 4, low: int = 1) -> list[tuple[Q, tuple[Q, Q]]]:
    """Outcomes (g, v) that depend on each other; g of any sign."""
    return [(w, (rational(rng, -4, 4), rational(rng, low, 5))) for w in weights(rng, count)]


def expectation(over, function: Callable = lambda x: x) -> Q:
    return sum((w * function(a) for w, a in over), Q(0))


def central(over, order: int, function: Callable = lambda x: x) -> Q:
    mean = expectation(over, function)
    return expectation(over, lambda a: (function(a) - mean) ** order)


def covariance(over, first: Callable, second: Callable) -> Q:
    one, other = expectation(over, first), expectation(over, second)
    return expectation(over, lambda a: (first(a) - one) * (second(a) - other))


def independent(*laws) -> Iterator[tuple[Q, tuple]]:
    """All outcomes of independent laws side by side, with their weights."""
    for outcome in product(*laws):
        weight = Q(1)
        for w, _ in outcome:
            weight *= w
        yield weight, tuple(a for _, a in outcome)


def sample(over: Law, size: int) -> list[tuple[Q, tuple]]:
    return list(independent(*[over] * size))


def average(values) -> Q:
    return sum(values, Q(0)) / len(values)
