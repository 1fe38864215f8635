r"""Rigorous enclosures of E f(X) for gamma, lognormal and finite laws, by ball arithmetic.

For X ~ Gamma(k, θ),

.. math::
    E f(X) = \frac{1}{\Gamma(k)}\int_0^\infty t^{k-1} e^{-t} f(\theta t)\,dt
           = \frac{1}{\Gamma(k)}\int_{-\infty}^{\infty} e^{ky - e^y} f(\theta e^y)\,dy .

The integrator encloses integrals of *holomorphic* functions, and t^{k−1} f(θt) has a branch point
or a pole at 0. The substitution t = e^y moves it to −∞: e^{ky − e^y} is entire, and f(θe^y) is
holomorphic near the real line for every f that is so near the positive half line. The range is
cut at [y₀, y₁], and what is cut off is bounded with |f(v)| ≤ C(v^{−p} + v^r) and the tangents of
a concave exponent. The answer is a ball that contains E f(X), as a
theorem about the arithmetic, not as an estimate of its error. Lognormal and finite laws are in
:mod:`.arb_lognormal` and :mod:`.arb_finite`; means of independent draws are enclosed where their
law is known (gamma laws, finite laws).

Needs python-flint (Arb). Source: F. Johansson, "Numerical integration in arbitrary-precision ball
arithmetic", ICMS 2018, LNCS 10931.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .arb_finite import finite_sum
from .arb_lognormal import lognormal_integral
from .arb_numbers import ball, flint_module
from .base_law import Law
from .closed_forms import law_of_mean
from .errors import DivergentExpectation, NotConverged
from .exact import Number, as_fraction
from .finite_laws import FiniteLaw
from .laws import Gamma, LogNormal, ScaledChiSquare

if TYPE_CHECKING:
    from flint import acb, arb, arb_series

__all__ = ["HolomorphicMap", "enclose", "inverse_power", "inverse_root_plus_eps"]

# beyond this y = log t the integrand falls too slowly to be integrated piece by piece
FAR = -500


@dataclass(frozen=True)
class HolomorphicMap:
    """A map for :func:`enclose`, with the bound that makes its tails rigorous.

    Args:
        function: called as ``function(v, analytic)`` on balls v around points of the right half
            plane; it must be holomorphic near the positive half line and, when ``analytic`` is
            true, return a non-finite ball where it is not, which ``acb.sqrt``, ``acb.pow`` and
            ``acb.log`` do if they are passed ``analytic=analytic``.
        pole_order, growth, constant: p, r and C ≥ 0 with |f(v)| ≤ C (v^{−p} + v^r) for all v > 0.
            The enclosure is rigorous *given* this bound, which is the caller's to prove.
        series: the same map on power series in balls, for its derivatives; remainders need it.
        near_zero: (c, K, q) with |f(v) v^p − c| ≤ K v^q for all v > 0, q > 0; it is needed only
            where a gamma law's shape is so little above p that the mass near 0 decides.
    """

    function: Callable[[acb, bool], acb]
    pole_order: Number = 0
    growth: Number = 0
    constant: Number = 1
    series: Callable[[arb_series], arb_series] | None = None
    near_zero: tuple[Number, Number, Number] | None = None

    def __post_init__(self) -> None:
        for name in ("pole_order", "growth", "constant"):
            object.__setattr__(self, name, as_fraction(getattr(self, name), name))
        if self.constant < 0:
            raise ValueError(f"constant={self.constant} must not be negative.")


def inverse_power(power: Number) -> HolomorphicMap:
    """Return v^{−power}; |f| ≤ v^{−p}, so p = ``power`` and r = −p bound it."""
    power = as_fraction(power, "power")

    def function(v: acb, analytic: bool) -> acb:
        return v.pow(ball(-power), analytic=analytic)

    def series(s: arb_series) -> arb_series:
        return s ** ball(-power)

    return HolomorphicMap(
        function, pole_order=power, growth=-power, series=series, near_zero=(1, 0, 1)
    )


def inverse_root_plus_eps(eps: Number) -> HolomorphicMap:
    """Return 1/(√v + eps), eps ≥ 0: below 1/eps, and below v^{−1/2} (used when eps is 0)."""
    eps = as_fraction(eps, "eps")
    if eps < 0:
        raise ValueError(f"{eps=!s} must not be negative.")

    def function(v: acb, analytic: bool) -> acb:
        return 1 / (v.sqrt(analytic=analytic) + ball(eps))

    def series(s: arb_series) -> arb_series:
        return 1 / (s.sqrt() + ball(eps))

    if eps == 0:
        return HolomorphicMap(
            function, pole_order="1/2", growth="-1/2", series=series, near_zero=(1, 0, 1)
        )
    # 1/eps − 1/(√v + eps) = √v/(eps (√v + eps)) ≤ √v/eps²
    near_zero = (1 / eps, 1 / eps**2, "1/2")
    return HolomorphicMap(function, constant=1 / eps, series=series, near_zero=near_zero)


def enclose(f: HolomorphicMap, law: Law, digits: int = 30, *, microbatches: int = 1) -> arb:
    """Return a ball (``flint.arb``) that contains E f(X̄); its radius is ``.rad()``.

    Args:
        f: :func:`inverse_power`, :func:`inverse_root_plus_eps`, or your own map with its bound.
        law: of one draw: a gamma law, a scaled χ², a lognormal law, or a finite law.
        digits: the ball's radius is at most 10^−digits of its midpoint.
        microbatches: X̄ is the mean of this many independent draws; 1 for a lognormal law, whose
            means have no known law.

    Raises:
        DivergentExpectation: for a gamma law if k ≤ p or k + r ≤ 0, where the bound promises no
            expectation; for a finite law with an outcome at which f is not finite.
        NotConverged: if the ball stays wider than asked for.
        MissingDependency: without python-flint.

    >>> from deltabias.truth import Gamma
    >>> print(enclose(inverse_power(1), Gamma(5, "1/5")).str(20, radius=False))
    1.2500000000000000000
    """
    flint = flint_module()
    if not isinstance(law, (Gamma, ScaledChiSquare, LogNormal, FiniteLaw)):
        raise TypeError(
            f"{law!r} is not a gamma law, ScaledChiSquare, LogNormal or finite law; only those "
            "are enclosed."
        )
    law = law_of_mean(law, microbatches)
    law = law.as_gamma if isinstance(law, ScaledChiSquare) else law
    # Arb loses a few digits in each of some hundred evaluations; the retries have ample room.
    for guard in (15, digits + 40, 4 * digits + 100):
        with flint.ctx.workdps(digits + guard):
            found = _enclosed(f, law, digits + guard)
            if found.is_finite() and found.rad() <= abs(found) * flint.arb(10) ** -digits:
                return found
    raise NotConverged(f"the enclosure {found} is wider than 10^-{digits} relative.")


def _enclosed(f: HolomorphicMap, law: Gamma | LogNormal | FiniteLaw, digits: int) -> arb:
    """Return the ball at the current flint precision, by the law's own route."""
    if isinstance(law, FiniteLaw):
        return finite_sum(f.function, law)
    if isinstance(law, LogNormal):
        return lognormal_integral(f, law, digits)
    exponents = (law.shape - f.pole_order, law.shape + f.growth)
    if min(exponents) <= 0:
        raise DivergentExpectation(
            f"E f is not finite: the shape {law.shape} must exceed the order of the pole, "
            f"{max(f.pole_order, -f.growth)}."
        )
    return _gamma_integral(f, law, exponents, digits)


def _gamma_integral(
    f: HolomorphicMap, law: Gamma, exponents: tuple[Fraction, Fraction], digits: int
) -> arb:
    """Return the ball at the current flint precision: an integral, and a radius for its tails."""
    flint = flint_module()
    shape, scale = ball(law.shape), ball(law.scale)
    low, high = _range(exponents, digits)
    heavy = low < FAR
    if heavy:
        low = _cut_near_zero(f, law, digits)

    # Dividing by Γ(k) inside keeps the integrand near 1, where the integrator aims its tolerance.
    log_gamma = shape.lgamma()

    def integrand(y: acb, analytic: bool) -> acb:
        t = y.exp()
        return (shape * y - t - log_gamma).exp() * f.function(scale * t, analytic)

    inside = flint.acb.integral(integrand, low, high)
    # A ball around zero of a tail's size: both signs, since only |f| is bounded.
    right = flint.arb(0, _tail(f, law, high, log_gamma, -1).abs_upper())
    if heavy:
        left = _mass_near_zero(f, law, low, log_gamma)
    else:
        left = flint.arb(0, _tail(f, law, low, log_gamma, 1).abs_upper())
    return inside.real + left + right


def _tail(f: HolomorphicMap, law: Gamma, cut: arb, log_gamma: arb, side: int) -> arb:
    """Bound ∫ e^{ky − e^y} |f(θe^y)| dy / Γ(k) left of a cut (side 1) or right of it (side −1).

    With |f(v)| ≤ C(v^{−p} + v^r) both powers give ∫ e^{g(y)} dy, g = sy − e^y, s = k − p or k + r.
    As g is concave it stays below its tangents, so the piece beyond a cut is at most
    e^{g(cut)}/|g′(cut)|, if g falls away from the cut.
    """
    total = ball(Fraction(0))
    for power in (-f.pole_order, f.growth):
        s, factor = ball(law.shape + power), ball(law.scale) ** ball(power)
        slope = side * (s - cut.exp())
        if not slope > 0:
            raise NotConverged(f"the cut {cut} is on the wrong side of the mode of {law!r}.")
        total += factor * (s * cut - cut.exp() - log_gamma).exp() / slope
    return ball(f.constant) * total


def _cut_near_zero(f: HolomorphicMap, law: Gamma, digits: int) -> arb:
    """Return log of a t below which f(θt) is c (θt)^−p to ``digits`` digits; any cut is valid."""
    if f.near_zero is None:
        raise NotConverged(
            f"the shape {law.shape} is so little above the order {f.pole_order} of the pole that "
            "the mass near 0 decides; give the map's behavior there, near_zero=(c, K, q)."
        )
    c, error, q = (as_fraction(x, "near_zero") for x in f.near_zero)
    fall = math.log(10) * digits if error else 5.0
    sharp = math.log(error / abs(c)) if error and c else 0.0
    return flint_module().arb(-(fall + sharp) / float(q) - math.log(law.scale))


def _mass_near_zero(f: HolomorphicMap, law: Gamma, cut: arb, log_gamma: arb) -> arb:
    """Return ∫_{−∞}^{cut} e^{ky − e^y} f(θe^y) dy / Γ(k), from |f(v) v^p − c| ≤ K v^q.

    Each power is an incomplete gamma function: c θ^−p γ(k − p, t)/Γ(k), and the same of q − p.
    """
    flint = flint_module()
    c, error, q = (as_fraction(x, "near_zero") for x in f.near_zero)
    t, parts = cut.exp(), []
    for power in (-f.pole_order, q - f.pole_order):
        mass = t.gamma_lower(ball(law.shape + power))
        parts.append(ball(law.scale) ** ball(power) * mass / log_gamma.exp())
    return ball(c) * parts[0] + flint.arb(0, (ball(error) * parts[1]).abs_upper())


def _range(exponents: tuple[Fraction, Fraction], digits: int) -> tuple[arb, arb]:
    """Return cuts (y₀, y₁) that leave out about 10^−digits of Γ(s), s in ``exponents``.

    Float arithmetic will do: *any* cuts are valid, these only make the tails small.
    """
    flint = flint_module()
    fall = math.log(10) * digits
    lows = [math.log(s) - _distance(float(s), fall, -1) for s in exponents]
    highs = [math.log(s) + _distance(float(s), fall, 1) for s in exponents]
    return flint.arb(min(lows)), flint.arb(max(highs))


def _distance(s: float, fall: float, sign: int) -> float:
    """Return a distance from the mode log s at which g(y) = sy − e^y has fallen by ``fall``."""
    distance = 1e-3
    while s * (math.expm1(sign * distance) - sign * distance) < fall:
        distance *= 1.1
    return distance
