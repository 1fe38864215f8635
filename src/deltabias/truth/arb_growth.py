r"""Power bounds of a map on the positive half line, proved from its parts.

A :class:`Growth` says, of a function h on v > 0,

.. math::
    c_0 v^{a_0} \le |h(v)| \le C_0 v^{b_0} \quad (v \le 1), \qquad
    c_1 v^{a_1} \le |h(v)| \le C_1 v^{b_1} \quad (v \ge 1),

the lower bounds where they are known. Sums, products, powers and a few elementary functions of
such functions are bounded again, each by an inequality that stands at its place, so a map that is
put together from them has the bound |f| ≤ C(v^{−p} + v^r) that makes an enclosure's tails
rigorous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath

__all__ = ["Growth"]

Power = tuple[Fraction, Fraction]
"""(constant, exponent): constant · v^exponent."""

DIGITS = 40


@dataclass(frozen=True)
class Growth:
    """Bounds of |h|: ``upper`` and ``lower`` are pairs of powers, for v ≤ 1 and for v ≥ 1.

    ``sign`` is that of h on the whole half line, 0 if it may change.
    """

    upper: tuple[Power, Power]
    lower: tuple[Power, Power] | None = None
    sign: int = 0

    @staticmethod
    def constant(value: Fraction) -> Growth:
        """Of a constant, its own bound on both sides."""
        bound = (abs(value), Fraction(0))
        sign = (value > 0) - (value < 0)
        return Growth((bound, bound), (bound, bound) if sign else None, sign)

    @staticmethod
    def variable() -> Growth:
        """Of v itself."""
        bound = (Fraction(1), Fraction(1))
        return Growth((bound, bound), (bound, bound), 1)

    def __mul__(self, other: Growth) -> Growth:
        lower = None
        if self.lower and other.lower:
            lower = _pairwise(self.lower, other.lower)
        return Growth(_pairwise(self.upper, other.upper), lower, self.sign * other.sign)

    @staticmethod
    def sum(terms: Sequence[Growth]) -> Growth:
        """Of a sum: |Σ hᵢ| ≤ Σ |hᵢ|, and ≥ any one term if none has another sign.

        Below 1 the smallest exponent is the largest power, above 1 the largest is.
        """
        exponents = (
            min(t.upper[0][1] for t in terms),
            max(t.upper[1][1] for t in terms),
        )
        upper = tuple(
            (sum((t.upper[i][0] for t in terms), Fraction(0)), exponents[i]) for i in (0, 1)
        )
        signs = {t.sign for t in terms}
        if len(signs) > 1 or signs == {0} or any(t.lower is None for t in terms):
            return Growth(upper)
        lower = (
            min((t.lower[0] for t in terms), key=lambda p: (p[1], -p[0])),
            max((t.lower[1] for t in terms), key=lambda p: (p[1], p[0])),
        )
        return Growth(upper, lower, signs.pop())

    def power(self, exponent: Fraction) -> Growth | None:
        """Of |h|^q; bounds change places for q < 0. None where h may vanish or go negative."""
        whole = exponent.denominator == 1
        if not whole and self.sign != 1:
            return None
        sign = self.sign if whole and exponent % 2 else abs(self.sign)
        if exponent >= 0:
            lower = _raised(self.lower, exponent, up=False) if self.lower else None
            return Growth(_raised(self.upper, exponent, up=True), lower, sign)
        if self.lower is None:
            return None
        upper = _raised(self.lower, exponent, up=True)
        return Growth(upper, _raised(self.upper, exponent, up=False), sign)

    def below_itself(self) -> Growth | None:
        """Of log(1 + h) and of tanh h for h > 0: h/(1 + h) ≤ · ≤ h for both.

        log(1 + h): its derivative 1/(1 + h) is between those of h/(1 + h), which is
        1/(1 + h)², and of h. tanh h = (e²ʰ − 1)/(e²ʰ + 1) increases in e²ʰ ≥ 1 + 2h, and its
        derivative is at most 1.
        """
        if self.sign != 1 or self.lower is None:
            return None
        share = Growth.sum([Growth.constant(Fraction(1)), self]).power(Fraction(-1)) * self
        return Growth(self.upper, share.lower, 1)

    def decaying(self) -> Growth | None:
        """Of e^h for h < 0: at most 1."""
        if self.sign != -1:
            return None
        one = (Fraction(1), Fraction(0))
        return Growth((one, one), None, 1)

    def larger(self, other: Growth) -> Growth | None:
        """Of max(h, k) for h, k > 0: at least h, at most h + k."""
        if self.sign != 1 or other.sign != 1:
            return None
        both = Growth.sum([self, other])
        return Growth(both.upper, both.lower, 1) if both.lower else None

    @property
    def bound(self) -> tuple[Fraction, Fraction, Fraction]:
        """(p, r, C) with |h| ≤ C (v^−p + v^r) for all v > 0, and r ≥ −p.

        Below 1 the first power is the bound and above 1 the second; r is raised to −p if it is
        less, so that the sum is no larger at 0 than the bound there.
        """
        (c_0, b_0), (c_1, b_1) = self.upper
        return -b_0, max(b_0, b_1), max(c_0, c_1)


def _pairwise(a: tuple[Power, Power], b: tuple[Power, Power]) -> tuple[Power, Power]:
    return tuple((c * d, e + f) for (c, e), (d, f) in zip(a, b, strict=True))


def _raised(bounds: tuple[Power, Power], q: Fraction, *, up: bool) -> tuple[Power, Power]:
    return tuple((_constant(c, q, up=up), e * q) for c, e in bounds)


def _constant(c: Fraction, q: Fraction, *, up: bool) -> Fraction:
    """c^q, exactly for an integer q, else rounded outward at 40 digits."""
    if q.denominator == 1 or c == 1:
        return c ** int(q) if q.denominator == 1 else c
    with mpmath.workdps(DIGITS):
        base, exponent = (mpmath.mpf(x.numerator) / x.denominator for x in (c, q))
        value = base**exponent
        margin = mpmath.mpf(10) ** -(DIGITS - 10)
        rounded = value * (1 + margin if up else 1 - margin)
    return Fraction(*mpmath.libmp.to_rational(rounded._mpf_))
