"""Laws by name, standardized to a mean and a standard deviation: for tables and command lines.

The mean and sd are those of *one microbatch*. Laws on the positive half line match both and
therefore want a positive mean; they are for curvatures and squared gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

import mpmath
from mpmath import mp

from .base_law import Law
from .exact import Number, as_fraction, as_mpf, sqrt_fraction
from .finite_laws import TwoPoint
from .laws import Gamma, Laplace, LogNormal, Normal, ScaledChiSquare, Shifted, StudentT

__all__ = ["LAWS", "law"]

# Irrational parameters (√2, a logarithm) are stored as rationals that are right to this many
# digits, so the moments of such a law miss their nominal values by about 10^−60.
PARAMETER_DIGITS = 60

STUDENT_DOF = 5


def _lognormal(mean: Fraction, sd: Fraction) -> Law:
    # σ² = log(1 + sd²/mean²), μ = log mean − σ²/2
    with mpmath.workdps(PARAMETER_DIGITS + 5):
        variance = mp.log1p(as_mpf(sd**2 / mean**2))
        return LogNormal(mp.log(as_mpf(mean)) - variance / 2, mp.sqrt(variance))


def _laplace(mean: Fraction, sd: Fraction) -> Law:
    return Laplace(mean, sqrt_fraction(sd**2 / 2, PARAMETER_DIGITS))


def _student_t(mean: Fraction, sd: Fraction) -> Law:
    shrink = Fraction(STUDENT_DOF - 2, STUDENT_DOF)
    return StudentT(STUDENT_DOF, mean, sqrt_fraction(sd**2 * shrink, PARAMETER_DIGITS))


def _skewed(mean: Fraction, sd: Fraction) -> Law:
    """Return the shifted exponential: skewness 2, the design's difficult gradient."""
    return Shifted(Gamma(1, sd), mean - sd)


LAWS: Mapping[str, Callable[[Fraction, Fraction], Law]] = MappingProxyType(
    {
        "normal": Normal,
        "gamma": lambda mean, sd: Gamma(mean**2 / sd**2, sd**2 / mean),
        "chi2": lambda mean, sd: ScaledChiSquare(2 * mean**2 / sd**2, sd**2 / (2 * mean)),
        "lognormal": _lognormal,
        "laplace": _laplace,
        "student_t": _student_t,
        "two_point": lambda mean, sd: TwoPoint(mean - sd, mean + sd),
        "skewed": _skewed,
    }
)
"""Name -> builder of the law with that (mean, sd); use :func:`law`, which checks."""

POSITIVE = frozenset({"gamma", "chi2", "lognormal"})


def law(name: str, *, mean: Number, sd: Number) -> Law:
    """Return the named law with that mean and standard deviation of one microbatch.

    Args:
        name: a key of :data:`LAWS`. ``student_t`` has 5 degrees of freedom, ``skewed`` is the
            shifted exponential with skewness 2, ``two_point`` is symmetric.
        mean, sd: exact numbers or their strings; ``sd`` > 0. Laplace, t and lognormal laws have
            irrational parameters and meet ``sd`` to 60 digits, the others exactly.

    Raises:
        ValueError: for an unknown name, ``sd`` ≤ 0, or a mean ≤ 0 of a positive law.

    >>> law("gamma", mean=1, sd="0.5")
    Gamma(shape=Fraction(4, 1), scale=Fraction(1, 4))
    """
    if name not in LAWS:
        raise ValueError(f"law {name!r} is unknown; choose one of {', '.join(LAWS)}.")
    mean, sd = as_fraction(mean, "mean"), as_fraction(sd, "sd")
    if sd <= 0:
        raise ValueError(f"{sd=!s} must be positive.")
    if name in POSITIVE and mean <= 0:
        raise ValueError(f"law {name!r} lives on the positive numbers; mean={mean} must be > 0.")
    return LAWS[name](mean, sd)
