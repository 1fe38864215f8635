r"""Expectations known in closed form, and the one-step expectation under a normal mean.

For X ~ Gamma(k, θ) and k > p,

.. math::
    E\,X^{-p} = \theta^{-p}\,\frac{\Gamma(k-p)}{\Gamma(k)},

because x⁻ᵖ only lowers the exponent of the density; for X = exp(N(μ, σ²)) it is the normal
moment generating function at −p. The mean of m independent gammas is Gamma(mk, θ/m), so a batch
of m microbatches needs no new formula: Gamma(k, 1/k) has E 1/X = k/(k−1) = 1 + z + z² + …,
z = 1/k, which is the series every delta method has to reproduce.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
from mpmath import mp

from .base_law import Law
from .enumeration import enumerate_samples
from .errors import DivergentExpectation, NotConverged
from .exact import Number, as_fraction, as_mpf, sqrt_fraction
from .finite_laws import Discrete, FiniteLaw
from .laws import Gamma, LogNormal, Normal, ScaledChiSquare, Shifted

__all__ = ["expectation_of_mean_normal", "inverse_moment", "law_of_mean"]

# A standard deviation divided by √m is irrational; it is stored as a rational right to this.
ROOT_DIGITS = 60


def inverse_moment(law: Law, power: Number, digits: int = 50) -> mpmath.mpf:
    """Return E X^{−power} in closed form, for gamma, χ² and lognormal laws; ``power`` is real.

    Raises:
        DivergentExpectation: for a gamma law whose shape is not above ``power``.
        TypeError: for a law without a closed form here.

    >>> print(inverse_moment(Gamma(5, "1/5"), 1))
    1.25
    """
    power = as_fraction(power, "power")
    if isinstance(law, ScaledChiSquare):
        law = law.as_gamma
    with mpmath.workdps(digits + 10):
        if isinstance(law, Gamma):
            if law.shape <= power:
                raise DivergentExpectation(
                    f"E X^-{power} is infinite under a gamma law of shape {law.shape}; "
                    f"the shape must exceed {power}."
                )
            ratio = mp.gammaprod([as_mpf(law.shape - power)], [as_mpf(law.shape)])
            value = as_mpf(law.scale) ** as_mpf(-power) * ratio
        elif isinstance(law, LogNormal):
            value = mp.exp(as_mpf(-power * law.mu + power**2 * law.sigma**2 / 2))
        else:
            raise TypeError(f"no closed form of E X^-p for {law!r}; use enumeration or Arb.")
    with mpmath.workdps(digits):
        return +value


def law_of_mean(law: Law, microbatches: int) -> Law:
    """Return the law of the mean of ``microbatches`` independent draws of ``law``.

    Exact for gamma, χ², shifted gamma and finite laws; a normal law's sd/√m is stored to 60
    digits where it is irrational.

    Raises:
        TypeError: for a law that is not closed under averaging (Laplace, t, lognormal).
        TooManySamples: for a finite law with too many multisets.

    >>> law_of_mean(Gamma(3, 2), 4)
    Gamma(shape=Fraction(12, 1), scale=Fraction(1, 2))
    """
    if isinstance(microbatches, bool) or not isinstance(microbatches, int) or microbatches < 1:
        raise ValueError(f"{microbatches=!r} must be an int of at least 1.")
    if microbatches == 1:
        return law
    if isinstance(law, Normal):
        return Normal(law.mean, sqrt_fraction(law.sd**2 / microbatches, ROOT_DIGITS))
    if isinstance(law, ScaledChiSquare):
        law = law.as_gamma
    if isinstance(law, Gamma):
        return Gamma(microbatches * law.shape, law.scale / microbatches)
    if isinstance(law, Shifted):
        return Shifted(law_of_mean(law.law, microbatches), law.offset)
    if isinstance(law, FiniteLaw):
        return _finite_law_of_mean(law, microbatches)
    raise TypeError(
        f"the mean of {microbatches} draws of {law!r} has no closed form; take microbatches=1, a "
        "normal, gamma or finite law, or Monte Carlo."
    )


def _finite_law_of_mean(law: FiniteLaw, microbatches: int) -> Discrete:
    counted = list(enumerate_samples(law, microbatches))
    means = [
        sum((x * c for x, c in zip(law.points, counts, strict=True)), Fraction(0)) / microbatches
        for counts, _ in counted
    ]
    return Discrete(means, [probability for _, probability in counted])


def expectation_of_mean_normal(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    mean: Number,
    var_of_mean: Number,
    digits: int = 30,
    breakpoints: Sequence[Number] = (),
) -> mpmath.mpf:
    """Return E f(X), X ~ N(mean, var_of_mean), by tanh-sinh quadrature.

    Args:
        function: smooth between the breakpoints and of at most exponential growth.
        mean, var_of_mean: of the batch's mean, *not* of one microbatch; variance > 0.
        digits: decimal digits of the answer.
        breakpoints: where ``function`` has a kink or an integrable singularity (0 for |x|).

    Raises:
        NotConverged: if quadratures at two working precisions differ by more than 10^−digits
            relative, which is how a divergent expectation or a missing breakpoint shows.

    >>> print(mpmath.nstr(expectation_of_mean_normal(lambda x: x**4, 0, 1), 25))
    3.0
    """
    mean, variance = as_fraction(mean, "mean"), as_fraction(var_of_mean, "var_of_mean")
    if variance <= 0:
        raise ValueError(f"{var_of_mean=!s} must be positive.")
    cuts = [as_fraction(b, "breakpoints") for b in breakpoints]
    # Tanh-sinh stops at a distance from each end that depends on the precision. What diverges
    # there looks converged at one precision and moves between two.
    rough, value = (
        _normal_quadrature(function, mean, variance, cuts, digits + guard) for guard in (15, 30)
    )
    error = abs(value - rough)
    tolerance = mp.mpf(10) ** -digits * max(abs(value), mp.mpf(10) ** -digits)
    if not mp.isfinite(value) or error > tolerance:
        raise NotConverged(
            f"E f = {mp.nstr(value, 10)} moved by {mp.nstr(error, 2)}, above 10^-{digits}; does "
            "the expectation exist, and are kinks of f named in breakpoints?"
        )
    with mpmath.workdps(digits):
        return +value


def _normal_quadrature(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    mean: Fraction,
    variance: Fraction,
    breakpoints: Sequence[Fraction],
    digits: int,
) -> mpmath.mpf:
    """Return ∫ f(μ + σz) φ(z) dz at a working precision of ``digits``."""
    with mpmath.workdps(digits):
        center, sd = as_mpf(mean), mp.sqrt(as_mpf(variance))
        # Beyond `reach` the weight e^{−z²/2} is below the working precision.
        reach = mp.sqrt(2 * mp.log(10) * (digits + 15)) + 5
        inner = sorted((as_mpf(b) - center) / sd for b in breakpoints)
        nodes = [-reach, *(z for z in inner if abs(z) < reach), reach]
        if len(nodes) == 2:
            nodes.insert(1, mp.mpf(0))
        return mp.quad(lambda z: function(center + sd * z) * mp.npdf(z), nodes, maxdegree=10)
