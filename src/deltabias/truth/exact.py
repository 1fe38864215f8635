"""Exact numbers: parameters come in as int, Fraction, str, float or mpf and stay exact.

Every finite number of these types is a rational, so a law stores its parameters as
:class:`fractions.Fraction` and nothing is lost on the way in: ``"0.1"`` is one tenth, while the
float ``0.1`` is the binary number that it really is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Rational, Real

import mpmath
from mpmath import mp

__all__ = [
    "Exact",
    "Number",
    "as_fraction",
    "as_mpf",
    "check_order",
    "cumulants_from_moments",
    "sqrt_fraction",
]

Number = int | Fraction | str | float | mpmath.mpf
"""What a parameter may be given as."""

Exact = int | Fraction | mpmath.mpf
"""What a moment comes back as: a rational where it is one, else an mpf at ``mp.dps``."""


def as_fraction(number: Number, name: str = "number") -> Fraction:
    """Return ``number`` as the rational that it is, without rounding.

    Raises:
        ValueError: for NaN, an infinity, or a string that is no number.
        TypeError: for any other type, booleans included.

    >>> as_fraction("0.1"), as_fraction(0.5), as_fraction("2/3")
    (Fraction(1, 10), Fraction(1, 2), Fraction(2, 3))
    """
    if isinstance(number, bool):
        raise TypeError(f"{name}={number!r} is a boolean; pass a number.")
    if isinstance(number, mpmath.mpf) and mp.isfinite(number):
        return Fraction(*mpmath.libmp.to_rational(number._mpf_))
    if isinstance(number, Integral):
        return Fraction(int(number))
    if isinstance(number, Rational):
        return Fraction(number)
    if isinstance(number, str):
        try:
            return Fraction(number)
        except (ValueError, ZeroDivisionError):
            raise ValueError(
                f"{name}={number!r} is no number; write '0.1', '1e-3' or '2/3'."
            ) from None
    if isinstance(number, Real) and math.isfinite(number):
        return Fraction(float(number))
    if isinstance(number, (Real, mpmath.mpf)):
        raise ValueError(f"{name}={number!r} is not finite; pass a finite number.")
    raise TypeError(f"{name}={number!r} must be an int, Fraction, str, float or mpf.")


def as_mpf(number: Number) -> mpmath.mpf:
    """Return ``number`` rounded once or twice at the current ``mp.dps``.

    >>> with mpmath.workdps(30):
    ...     print(as_mpf(Fraction(1, 3)))
    0.333333333333333333333333333333
    """
    if isinstance(number, mpmath.mpf):
        return +number
    exact = as_fraction(number)
    return mp.mpf(exact.numerator) / exact.denominator


def check_order(n: int, lowest: int = 0) -> None:
    """Raise ``ValueError`` unless ``n`` is an int of at least ``lowest``."""
    if isinstance(n, bool) or not isinstance(n, int) or n < lowest:
        raise ValueError(f"order {n!r} must be an int of at least {lowest}.")


def sqrt_fraction(square: Fraction, digits: int) -> Fraction:
    """Return the square root: exact if it is rational, else right to ``digits`` digits.

    >>> sqrt_fraction(Fraction(9, 4), 60)
    Fraction(3, 2)
    """
    root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
    if root * root == square:
        return root
    with mpmath.workdps(digits + 5):
        return as_fraction(mp.sqrt(as_mpf(square)))


def cumulants_from_moments(moments: Sequence[Exact]) -> list[Exact]:
    """Return cumulants κ₁ … κₙ from raw moments m₁ … mₙ; exact for rationals.

    The recursion κₙ = mₙ − Σ_{k=1}^{n−1} C(n−1, k−1) κₖ mₙ₋ₖ is the logarithm of the moment
    generating function, coefficient by coefficient.

    Source: M. G. Kendall, A. Stuart, *The Advanced Theory of Statistics* I, §3.12.

    >>> cumulants_from_moments([0, 1, 0, 3])
    [0, 1, 0, 0]
    """
    cumulants: list[Exact] = []
    for n, moment in enumerate(moments, start=1):
        lower = (
            math.comb(n - 1, k - 1) * cumulants[k - 1] * moments[n - k - 1] for k in range(1, n)
        )
        cumulants.append(moment - sum(lower))
    return cumulants
