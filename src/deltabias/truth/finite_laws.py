"""Laws with finite support: the ones under which every expectation is a finite sum.

The support is kept sorted, without repetitions and without points of probability zero, so that
two records of one law are equal and the enumeration visits nothing twice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .base_law import Law, Shape
from .exact import Exact, Number, as_fraction, check_order

__all__ = ["Discrete", "Empirical", "FiniteLaw", "TwoPoint", "skewed_discrete"]


class FiniteLaw(Law):
    """A law on finitely many points. Abstract: a subclass supplies points and probabilities."""

    @property
    @abstractmethod
    def points(self) -> tuple[Fraction, ...]:
        """The distinct points of positive probability, ascending."""

    @property
    @abstractmethod
    def weights(self) -> tuple[Fraction, ...]:
        """Their probabilities, which add to one exactly."""

    def moment(self, n: int) -> Exact:
        check_order(n)
        return sum(w * x**n for x, w in zip(self.points, self.weights, strict=True))

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        values = np.array([float(x) for x in self.points])
        # The float weights miss one by an ulp or two; numpy tolerates that, and so do we.
        return rng.choice(values, size=shape, p=[float(w) for w in self.weights])

    @property
    def center_of_symmetry(self) -> Fraction | None:
        center = (self.points[0] + self.points[-1]) / 2
        mirrored = tuple(2 * center - x for x in reversed(self.points))
        symmetric = mirrored == self.points and self.weights == self.weights[::-1]
        return center if symmetric else None


@dataclass(frozen=True)
class Discrete(FiniteLaw):
    """The law that puts ``probabilities[i]`` on ``support[i]``.

    Points that repeat are merged and points of probability zero dropped.

    Raises:
        ValueError: if a probability is negative, the lengths differ, or the probabilities do not
            add to one *exactly*; floats such as 0.1 do not, ``Fraction(1, 10)`` and ``"0.1"`` do.

    >>> Discrete([0, 1], ["0.1", "0.9"]).variance
    Fraction(9, 100)
    """

    support: Iterable[Number]
    probabilities: Iterable[Number]

    def __post_init__(self) -> None:
        points = [as_fraction(x, "support") for x in self.support]
        weights = [as_fraction(p, "probabilities") for p in self.probabilities]
        _check_probabilities(points, weights)
        merged: Counter[Fraction] = Counter()
        for x, w in zip(points, weights, strict=True):
            merged[x] += w
        kept = sorted((x, w) for x, w in merged.items() if w > 0)
        object.__setattr__(self, "support", tuple(x for x, _ in kept))
        object.__setattr__(self, "probabilities", tuple(w for _, w in kept))

    @property
    def points(self) -> tuple[Fraction, ...]:
        return self.support

    @property
    def weights(self) -> tuple[Fraction, ...]:
        return self.probabilities


def _check_probabilities(points: list[Fraction], weights: list[Fraction]) -> None:
    if len(points) != len(weights) or not points:
        raise ValueError(
            f"{len(points)} points of support and {len(weights)} probabilities; "
            "pass equally many, and at least one."
        )
    if min(weights) < 0:
        raise ValueError(f"a probability of {float(min(weights))} is negative.")
    if sum(weights) != 1:
        raise ValueError(
            f"probabilities add to 1 {float(sum(weights) - 1):+.3g}, not to 1; "
            "pass Fractions, or decimal strings such as '0.1'."
        )


@dataclass(frozen=True)
class TwoPoint(FiniteLaw):
    """The law on two points: ``high`` with ``probability``, else ``low``.

    >>> TwoPoint(-1, 1, "1/2").variance
    Fraction(1, 1)
    """

    low: Number
    high: Number
    probability: Number = Fraction(1, 2)

    def __post_init__(self) -> None:
        for name in ("low", "high", "probability"):
            object.__setattr__(self, name, as_fraction(getattr(self, name), name))
        if not self.low < self.high:
            raise ValueError(f"low={self.low} must be less than high={self.high}.")
        if not 0 < self.probability < 1:
            raise ValueError(f"probability={self.probability} must lie strictly between 0 and 1.")

    @property
    def points(self) -> tuple[Fraction, ...]:
        return (self.low, self.high)

    @property
    def weights(self) -> tuple[Fraction, ...]:
        return (1 - self.probability, self.probability)


@dataclass(frozen=True)
class Empirical(FiniteLaw):
    """The law of a recorded sample: every entry has the same weight.

    Raises:
        ValueError: for fewer than two samples, which have no spread to speak of.
    """

    samples: Iterable[Number]

    def __post_init__(self) -> None:
        samples = tuple(sorted(as_fraction(x, "samples") for x in self.samples))
        if len(samples) < 2:
            raise ValueError(f"{len(samples)} samples give no spread; pass at least 2.")
        object.__setattr__(self, "samples", samples)

    @property
    def points(self) -> tuple[Fraction, ...]:
        return tuple(sorted(set(self.samples)))

    @property
    def weights(self) -> tuple[Fraction, ...]:
        counts = Counter(self.samples)
        return tuple(Fraction(counts[x], len(self.samples)) for x in self.points)


def skewed_discrete(mean: Number, sd: Number, skewness: Number) -> Discrete:
    """Return a law on three rational points with exactly that mean, sd and skewness γ.

    For γ ≥ 0 the standardized law puts

        1/(γ + 2) on −1,   γ/(γ + 1) on 0,   1/((γ + 1)(γ + 2)) on γ + 1.

    Its moments are 1, 0, 1, γ: Σ x²p = (1 + γ + 1)/(γ + 2) = 1 and
    Σ x³p = ((γ + 1)² − 1)/(γ + 2) = γ. At γ = 0 the middle point has weight zero and two points
    are left. A negative skewness is its mirror image. (The two-point law of that skewness has
    irrational points in general; this one has none, which is why it is used.)

    >>> law = skewed_discrete(1, 2, 3)
    >>> law.mean, law.variance, law.cumulant(3) / 2**3
    (Fraction(1, 1), Fraction(4, 1), Fraction(3, 1))
    """
    mean, sd = as_fraction(mean, "mean"), as_fraction(sd, "sd")
    skewness = as_fraction(skewness, "skewness")
    if sd <= 0:
        raise ValueError(f"{sd=!s} must be positive.")
    size, sign = abs(skewness), -1 if skewness < 0 else 1
    points = [mean + sign * sd * x for x in (-1, 0, size + 1)]
    weights = [1 / (size + 2), size / (size + 1), 1 / ((size + 1) * (size + 2))]
    return Discrete(points, weights)
