r"""E f(X), X = exp(N(μ, σ²)), as a ball: an integral over a normal variable and its tails.

.. math::
    E f(X) = \int_{-\infty}^{\infty} \varphi(z)\, f(e^{\mu + \sigma z})\, dz .

With |f(v)| ≤ C(v^{−p} + v^r), what lies beyond a cut h is a normal tail: for either exponent s,

.. math::
    \int_h^\infty \varphi(z)\, e^{s(\mu + \sigma z)}\, dz
    = e^{s\mu + s^2\sigma^2/2}\; \bar\Phi(h - s\sigma),

by completing the square. Every power of X has an expectation, so nothing diverges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .arb_numbers import ball, flint_module
from .laws import LogNormal

if TYPE_CHECKING:
    from flint import acb, arb

    from .enclosures import HolomorphicMap

__all__ = ["lognormal_integral"]


def lognormal_integral(f: HolomorphicMap, law: LogNormal, digits: int) -> arb:
    """Return a ball that contains E f(X), at the current precision, wide enough for ``digits``."""
    flint = flint_module()
    mu, sigma = ball(law.mu), ball(law.sigma)
    if law.sigma == 0:
        return f.function(flint.acb(mu.exp()), False).real
    scale = 1 / (2 * flint.arb.pi()).sqrt()

    def integrand(z: acb, analytic: bool) -> acb:
        return scale * (-z * z / 2).exp() * f.function((mu + sigma * z).exp(), analytic)

    exponents = (-f.pole_order, f.growth)
    low, high = _range([float(s * law.sigma) for s in exponents], digits)
    inside = flint.acb.integral(integrand, low, high)
    tails = flint.arb(0)
    for exponent in exponents:
        s = ball(exponent)
        center = s * sigma
        weight = (s * mu + center * center / 2).exp() / 2
        # 1 − Φ(x) = erfc(x/√2)/2 on the right, and the same of the mirrored cut on the left
        for distance in (high - center, center - low):
            tails += weight * (distance / flint.arb(2).sqrt()).erfc()
    tails *= ball(f.constant)
    return inside.real + flint.arb(0, tails.abs_upper())


def _range(centers: list[float], digits: int) -> tuple[arb, arb]:
    """Return cuts beyond which the normal tails are about 10^−digits; any cuts are valid."""
    flint = flint_module()
    reach = math.sqrt(2 * math.log(10) * digits) + 1
    return flint.arb(min(*centers, 0.0) - reach), flint.arb(max(*centers, 0.0) + reach)
