r"""Rigorous enclosures of E f(X), X ~ Gamma(k, θ), by ball arithmetic.

.. math::
    E f(X) = \frac{1}{\Gamma(k)}\int_0^\infty t^{k-1} e^{-t} f(\theta t)\,dt
           = \frac{1}{\Gamma(k)}\int_{-\infty}^{\infty} e^{ky - e^y} f(\theta e^y)\,dy .

The integrator encloses integrals of *holomorphic* functions, and t^{k−1} f(θt) has a branch point
or a pole at 0. The substitution t = e^y moves it to −∞: e^{ky − e^y} is entire, and f(θe^y) is
holomorphic near the real line for every f that is so near the positive half line. The range is
cut at [y₀, y₁], and what is cut off is bounded with |f(v)| ≤ C(v^{−p} + v^r) and the tangents of
a concave exponent. The answer is a ball that contains E f(X), as a
theorem about the arithmetic, not as an estimate of its error.

Needs python-flint (Arb). Source: F. Johansson, "Numerical integration in arbitrary-precision ball
arithmetic", ICMS 2018, LNCS 10931.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from .errors import DivergentExpectation, MissingDependency, NotConverged
from .exact import Number, as_fraction
from .laws import Gamma, ScaledChiSquare

if TYPE_CHECKING:
    from flint import acb, arb

__all__ = ["HolomorphicMap", "enclose", "inverse_power", "inverse_root_plus_eps"]


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
    """

    function: Callable[[acb, bool], acb]
    pole_order: Number = 0
    growth: Number = 0
    constant: Number = 1

    def __post_init__(self) -> None:
        for name in ("pole_order", "growth", "constant"):
            object.__setattr__(self, name, as_fraction(getattr(self, name), name))
        if self.constant < 0:
            raise ValueError(f"constant={self.constant} must not be negative.")


def inverse_power(power: Number) -> HolomorphicMap:
    """Return v^{−power}; |f| ≤ v^{−p}, so p = ``power`` and r = −p bound it."""
    power = as_fraction(power, "power")

    def function(v: acb, analytic: bool) -> acb:
        return v.pow(_ball(-power), analytic=analytic)

    return HolomorphicMap(function, pole_order=power, growth=-power)


def inverse_root_plus_eps(eps: Number) -> HolomorphicMap:
    """Return 1/(√v + eps), eps ≥ 0: below 1/eps, and below v^{−1/2} (used when eps is 0)."""
    eps = as_fraction(eps, "eps")
    if eps < 0:
        raise ValueError(f"{eps=!s} must not be negative.")

    def function(v: acb, analytic: bool) -> acb:
        return 1 / (v.sqrt(analytic=analytic) + _ball(eps))

    if eps == 0:
        return HolomorphicMap(function, pole_order="1/2", growth="-1/2")
    return HolomorphicMap(function, constant=1 / eps)


def enclose(f: HolomorphicMap, law: Gamma | ScaledChiSquare, digits: int = 30) -> arb:
    """Return a ball (``flint.arb``) that contains E f(X); its radius is ``.rad()``.

    Args:
        f: :func:`inverse_power`, :func:`inverse_root_plus_eps`, or your own map with its bound.
        law: a gamma law or a scaled χ².
        digits: the ball's radius is at most 10^−digits of its midpoint.

    Raises:
        DivergentExpectation: if k ≤ p or k + r ≤ 0: the bound then promises no expectation.
        NotConverged: if the ball stays wider than asked for.
        MissingDependency: without python-flint.

    >>> from deltabias.truth import Gamma
    >>> print(enclose(inverse_power(1), Gamma(5, "1/5")).str(20, radius=False))
    1.2500000000000000000
    """
    flint = _flint()
    law = law.as_gamma if isinstance(law, ScaledChiSquare) else law
    if not isinstance(law, Gamma):
        raise TypeError(f"{law!r} is not a gamma law; enclosures are for Gamma, ScaledChiSquare.")
    exponents = (law.shape - f.pole_order, law.shape + f.growth)
    if min(exponents) <= 0:
        raise DivergentExpectation(
            f"E f is not finite: the shape {law.shape} must exceed the order of the pole, "
            f"{max(f.pole_order, -f.growth)}."
        )
    # Arb loses a few digits in each of some hundred evaluations; the retry has ample room.
    for guard in (15, digits + 40):
        with flint.ctx.workdps(digits + guard):
            ball = _enclose(f, law, exponents, digits + guard)
            if ball.is_finite() and ball.rad() <= abs(ball) * flint.arb(10) ** -digits:
                return ball
    raise NotConverged(f"the enclosure {ball} is wider than 10^-{digits} relative.")


def _enclose(
    f: HolomorphicMap, law: Gamma, exponents: tuple[Fraction, Fraction], digits: int
) -> arb:
    """Return the ball at the current flint precision: an integral, and a radius for its tails."""
    flint = _flint()
    shape, scale = _ball(law.shape), _ball(law.scale)
    low, high = _range(exponents, digits)

    # Dividing by Γ(k) inside keeps the integrand near 1, where the integrator aims its tolerance.
    log_gamma = shape.lgamma()

    def integrand(y: acb, analytic: bool) -> acb:
        t = y.exp()
        return (shape * y - t - log_gamma).exp() * f.function(scale * t, analytic)

    inside = flint.acb.integral(integrand, low, high)
    tails = _tail(f, law, low, high, log_gamma)
    # A ball around zero of the tails' size: both signs, since only |f| is bounded.
    return inside.real + flint.arb(0, tails.abs_upper())


def _tail(f: HolomorphicMap, law: Gamma, low: arb, high: arb, log_gamma: arb) -> arb:
    """Bound what lies outside (low, high) of ∫ e^{ky − e^y} |f(θe^y)| dy / Γ(k).

    With |f(v)| ≤ C(v^{−p} + v^r) both powers give ∫ e^{g(y)} dy, g = sy − e^y, s = k − p or k + r.
    As g is concave it stays below its tangents, so the piece left of ``low`` is at most
    e^{g(low)}/g′(low), and the piece right of ``high`` at most e^{g(high)}/(−g′(high)).
    """
    total = _ball(Fraction(0))
    for power in (-f.pole_order, f.growth):
        s, factor = _ball(law.shape + power), _ball(law.scale) ** _ball(power)
        for y, sign in ((low, 1), (high, -1)):
            slope = sign * (s - y.exp())
            if not slope > 0:
                raise NotConverged(f"the cut {y} is on the wrong side of the mode of {law!r}.")
            total += factor * (s * y - y.exp() - log_gamma).exp() / slope
    return _ball(f.constant) * total


def _range(exponents: tuple[Fraction, Fraction], digits: int) -> tuple[arb, arb]:
    """Return cuts (y₀, y₁) that leave out about 10^−digits of Γ(s), s in ``exponents``.

    Float arithmetic will do: *any* cuts are valid, these only make the tails small.
    """
    flint = _flint()
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


def _ball(number: Fraction) -> arb:
    """Return the ball of a rational at the current precision."""
    flint = _flint()
    return flint.arb(flint.fmpq(number.numerator, number.denominator))


def _flint():
    try:
        import flint
    except ImportError as error:
        raise MissingDependency(
            "rigorous enclosures need python-flint; install it with 'pip install python-flint'."
        ) from error
    return flint
