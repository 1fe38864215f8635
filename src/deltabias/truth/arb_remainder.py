r"""The remainder of the second-order formula, as a ball with a proved sign, and its constant.

.. math::
    E f(\bar X_m) = f(\mu) + \tfrac12 f''(\mu)\,\frac{\sigma^2}{m} + R_m .

R is the difference of three enclosures. For a law on [a, b], Taylor with Lagrange's remainder gives
R = f‴(μ)κ₃/(6m²) + E f⁗(ξ)(X̄ − μ)⁴/24, and E (X̄ − μ)⁴ = (3σ⁴ + κ₄/m)/m², so

.. math::
    |R_m| \le \frac{C}{m^2}, \qquad
    C = \frac{|f'''(\mu)\,\kappa_3|}{6}
        + \frac{3\sigma^4 + \max(\kappa_4, 0)}{24} \sup_{[a, b]} |f''''| .

Derivatives are coefficients of power series in balls: of a point for f″ and f‴, of intervals that
cover [a, b] for the supremum.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from .arb_numbers import ball, flint_module
from .base_law import Law
from .enclosures import HolomorphicMap, enclose
from .errors import NotConverged, UnboundedRemainder
from .exact import as_fraction
from .finite_laws import FiniteLaw
from .laws import LogNormal

if TYPE_CHECKING:
    from flint import arb

__all__ = ["derivative_bound", "enclose_remainder", "remainder_constant"]

MOST_PIECES = 2000


def enclose_remainder(f: HolomorphicMap, law: Law, microbatches: int = 1, digits: int = 30) -> arb:
    """Return a ball that contains R_m and proves its sign: it excludes zero, or is exactly zero.

    Args:
        f: a map with ``series``.
        law: of one draw; see :func:`.enclose`.
        microbatches: m.
        digits: the ball's radius is at most 10^−digits of its midpoint.

    Raises:
        NotConverged: if the ball still contains zero with 200 more digits than asked for: R is
            zero, as for a quadratic map, or too small to tell.

    >>> from deltabias.truth import Gamma, inverse_power
    >>> remainder = enclose_remainder(inverse_power(1), Gamma(5, "1/5"))  # 5/4 - 1 - 1/5
    >>> print(remainder.str(10, radius=False))
    0.05000000000
    """
    flint = flint_module()
    for guard in (10, 60, 200):
        total = enclose(f, law, digits + guard, microbatches=microbatches)
        with flint.ctx.workdps(digits + 2 * guard):
            mean, variance = _mean_and_variance(law)
            value, _, half_second = _coefficients(f, mean, 3)
            found = total - value - half_second * variance / microbatches
            if found.is_finite() and found.rad() <= abs(found) * flint.arb(10) ** -digits:
                return found
    raise NotConverged(
        f"the remainder {found} is not told from zero to {digits} digits; it is zero, or below "
        "what its terms can show."
    )


def remainder_constant(f: HolomorphicMap, law: Law) -> arb:
    """Return a C with |R_m| ≤ C/m² for every m, for a law on finitely many points.

    Raises:
        UnboundedRemainder: if f⁗ is not bounded on the hull of the outcomes (they include the
            singular point), or the law is not finite, so that there is no such hull.

    >>> from deltabias.truth import TwoPoint, inverse_power
    >>> bound = remainder_constant(inverse_power(1), TwoPoint("1/2", "3/2"))
    >>> 6 <= bound <= 7  # σ⁴ = 1/16 and f⁗ = 24/v⁵ at 1/2: 3/16/24 · 768
    True
    """
    if not isinstance(law, FiniteLaw):
        raise UnboundedRemainder(
            f"{law!r} has no bounded support, so the fourth derivative has no bound on it; "
            "take a finite law, or enclose the remainder itself at each m."
        )
    fourth = derivative_bound(f, law.points[0], law.points[-1], order=4)
    third = _coefficients(f, ball(law.mean), 4)[3]  # f‴/6
    spread = 3 * law.variance**2 + max(law.cumulant(4), Fraction(0))
    total = abs(third * ball(law.cumulant(3))) + ball(spread) / 24 * fourth
    return flint_module().arb(total.upper())


def derivative_bound(f: HolomorphicMap, low: Fraction, high: Fraction, order: int = 4) -> arb:
    """Return a number that |f^(order)| does not exceed on [low, high], within 10 % of the least.

    The interval is covered by pieces; the one with the largest bound is cut at its geometric mean
    until that bound is within 10 % of a value that the derivative takes.

    Raises:
        UnboundedRemainder: if the interval reaches zero, or some piece stays without a bound.
    """
    if low <= 0:
        raise UnboundedRemainder(
            f"the interval [{low}, {high}] contains the singular point 0; its lower end must be "
            "positive."
        )
    attained, cover, pieces = 0.0, [], [(low, high)]
    for _ in range(MOST_PIECES):
        for a, b in pieces:
            bound, value = _on_piece(f, a, b, order)
            attained = max(attained, value)
            cover.append((bound, a, b))
        worst, a, b = max(cover)
        if worst <= 1.1 * attained or a == b:
            break
        cover.remove((worst, a, b))
        middle = as_fraction(math.sqrt(float(a)) * math.sqrt(float(b)))
        pieces = [(a, middle), (middle, b)] if a < middle < b else [(a, a), (b, b)]
    worst, a, b = max(cover)
    if not worst <= 2 * attained:
        raise UnboundedRemainder(
            f"derivative {order} has no bound on [{float(a):.17g}, {float(b):.17g}]: the map is "
            "singular or has a kink there."
        )
    return flint_module().arb(worst)


def _on_piece(f: HolomorphicMap, a: Fraction, b: Fraction, order: int) -> tuple[float, float]:
    """Return an upper bound of |f^(order)| on [a, b], and a lower bound of its maximum there."""
    factorial = math.factorial(order)
    hull = ball(a).union(ball(b))
    outside = abs(_coefficients(f, hull, order + 1)[order]) * factorial
    values = [abs(_coefficients(f, ball(x), order + 1)[order]) * factorial for x in (a, b)]
    attained = max((float(v.lower()) for v in values if v.is_finite()), default=0.0)
    if not outside.is_finite():
        return math.inf, attained
    # the next float up, so that the conversion does not lower the bound
    return math.nextafter(float(outside.upper()), math.inf), math.nextafter(attained, 0.0)


def _coefficients(f: HolomorphicMap, point: arb, count: int) -> list[arb]:
    """Return the Taylor coefficients f, f′, f″/2, … at every point of a ball."""
    if f.series is None:
        raise TypeError("a remainder needs the map's series; pass HolomorphicMap(…, series=…).")
    flint = flint_module()
    before = flint.ctx.cap
    flint.ctx.cap = count
    try:
        series = f.series(flint.arb_series([point, 1], prec=count))
        return [series[i] for i in range(count)]
    finally:
        flint.ctx.cap = before


def _mean_and_variance(law: Law) -> tuple[arb, arb]:
    """Return balls of the exact mean and variance."""
    if not isinstance(law, LogNormal):
        return ball(as_fraction(law.mean)), ball(as_fraction(law.variance))
    square = ball(law.sigma**2)
    mean = (ball(law.mu) + square / 2).exp()
    return mean, mean * mean * square.expm1()
