r"""The exact mean of an Adam-type update over its whole trajectory.

The update is :math:`\hat m f(\hat v)` with
:math:`\hat m = \sum_k a_k g_k` and :math:`\hat v = \sum_k b_k g_k^2`, sums over the history of
independent g_k with weights of either EMA. If f is a Laplace transform,
:math:`f(v) = \int_0^\infty k(s) e^{-sv} ds`, then the expectation of a quotient becomes an
integral of products, and a product of functions of independent g_k factorizes:

.. math::
    E\,\hat m f(\hat v)
      = \int_0^\infty k(s) \sum_j a_j E[g_j e^{-s b_j g_j^2}] \prod_{k\ne j} E[e^{-s b_k g_k^2}]\,ds
      = \int_0^\infty k(s) \Phi(s) \sum_j a_j \frac{\psi(s b_j)}{\varphi(s b_j)}\,ds,
    \qquad \Phi(s) = \prod_k \varphi(s b_k),

with φ(a) = E e^{−ag²} and ψ(a) = E g e^{−ag²}. The exchange of E and ∫ is Fubini's: it needs
E|m̂| f(v̂) < ∞, which fails only through v̂ near 0 (:func:`.adam_rule.check_existence`). What was a
T-dimensional integral over an unbounded history is one smooth integral: every coupling, inversion
and higher term is in it, with nothing expanded.

The two statistics that v can be fed with are two rules:

* ``square_of_mean``: g_k is the mean of the m microbatches of step k, and v gets g_k²;
* ``mean_of_squares``: v gets (1/m) Σ_r g_{k,r}². The same formula then holds over the mT scalars
  with weights a_k/m and b_k/m, so φ enters to the power m.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
import numpy as np
from mpmath import mp

from .adam_rule import AdamRule, Statistic, adam_rule, check_existence
from .base_law import Law
from .density_nodes import density_nodes
from .errors import NotConverged
from .exact import Number, as_fraction, as_mpf
from .finite_laws import FiniteLaw
from .laws import Normal
from .quadrature import Quadrature, integrate_float64, integrate_mpmath
from .square_transforms import NormalSquare, PointSquare

__all__ = [
    "adam_population_update",
    "adam_update_mean",
    "adam_update_mean_float64",
    "relative_bias_adam",
]

# Largest array of one transform evaluation, in float64 numbers: 16 MB.
CHUNK = 2_000_000

# Nodes per piece of the rules for a density; two that agree end the search.
NODES = (60, 120, 240, 480)
DENSITY_TOLERANCE = 1e-10


def adam_update_mean(
    law: Law,
    a_weights: Sequence[Number],
    b_weights: Sequence[Number],
    *,
    statistic: Statistic = "square_of_mean",
    microbatches: int = 1,
    eps: Number = 0,
    eps_root: Number = 0,
    power: Number = Fraction(1, 2),
    digits: int = 30,
) -> mpmath.mpf:
    """Return E m̂ f(v̂) to ``digits`` digits, f(v) = 1/(√(v + eps_root) + eps) or (v + eps_root)⁻ᵖ.

    Args:
        law: of one microbatch's gradient: :class:`Normal`, or any law with finite support.
        a_weights, b_weights: of the T steps in m̂ and v̂, oldest first (:func:`ema_weights`);
            ``b_weights`` must not be negative.
        statistic: what v is fed with, ``"square_of_mean"`` or ``"mean_of_squares"``.
        microbatches: the number m averaged in each step.
        eps, eps_root, power: of f; ``eps`` needs ``power`` 1/2.

    Where v̂ = 0 with positive probability (a law with an atom at 0 and no epsilon), m̂ is 0 as
    well and the update counts as 0.

    Raises:
        DivergentExpectation: if the update has no mean.
        NotConverged: if the quadrature misses ``digits``.
        TypeError: for a law without transforms here; see :func:`adam_update_mean_float64`.

    Cost: a few tenths of a second per hundred steps at 30 digits for a normal law.
    """
    rule = adam_rule(
        a_weights, b_weights, statistic, microbatches, power=power, eps=eps, eps_root=eps_root
    )
    scalar = rule.scalar_law(law)
    if isinstance(scalar, Normal):
        transform, unit = NormalSquare(scalar.mean**2, scalar.sd**2), scalar.mean
    elif isinstance(scalar, FiniteLaw):
        transform, unit = PointSquare(scalar.points, scalar.weights), Fraction(1)
    else:
        raise TypeError(
            f"no transforms at {digits} digits for {law!r}; pass a Normal or a finite law, or use "
            "adam_update_mean_float64."
        )
    check_existence(rule, scalar)
    if scalar.center_of_symmetry == 0:
        return mp.mpf(0)  # the update is an odd function of the history
    with mpmath.workdps(digits + 15):
        value = as_mpf(unit) * integrate_mpmath(
            _integrand_mpmath(rule, transform), rule.center(scalar), digits
        )
    with mpmath.workdps(digits):
        return +value


def adam_update_mean_float64(
    law: Law,
    a_weights: Sequence[Number],
    b_weights: Sequence[Number],
    *,
    statistic: Statistic = "square_of_mean",
    microbatches: int = 1,
    eps: Number = 0,
    eps_root: Number = 0,
    power: Number = Fraction(1, 2),
) -> Quadrature:
    """Return (E m̂ f(v̂), error estimate) in float64, for thousands of steps and more laws.

    Same arguments as :func:`adam_update_mean`. Normal and finite laws come out to about 1e−13
    relative. Gamma, shifted gamma, χ², lognormal, Laplace and t laws are integrated over node
    rules for their densities as well, doubled until two agree to 1e−10 relative; that difference
    is part of ``error``. For laws other than the normal a mean far below the noise costs digits by
    cancellation, about log₁₀(sd/mean) of them.

    Raises:
        DivergentExpectation, TypeError: as there.
        NotConverged: if two sums or two rules still differ, or the integrand does not decay.
    """
    rule = adam_rule(
        a_weights, b_weights, statistic, microbatches, power=power, eps=eps, eps_root=eps_root
    )
    scalar = rule.scalar_law(law)
    check_existence(rule, scalar)
    if scalar.center_of_symmetry == 0:
        return Quadrature(0.0, 0.0)  # the update is an odd function of the history
    center = float(rule.center(scalar))
    if isinstance(scalar, Normal):
        found = _integrate(rule, NormalSquare(scalar.mean**2, scalar.sd**2), center)
        unit = float(scalar.mean)
        return Quadrature(unit * found.value, abs(unit) * found.error)
    if isinstance(scalar, FiniteLaw):
        return _integrate(rule, PointSquare(scalar.points, scalar.weights), center)
    return _integrate_density(rule, scalar, center)


def adam_population_update(
    law: Law,
    a_weights: Sequence[Number],
    b_weights: Sequence[Number],
    *,
    statistic: Statistic = "square_of_mean",
    microbatches: int = 1,
    eps: Number = 0,
    eps_root: Number = 0,
    power: Number = Fraction(1, 2),
) -> mpmath.mpf:
    """Return E m̂ · f(E v̂) at ``mp.dps``: the target that the bias is measured from.

    E v̂ = Σb (μ² + σ²/m) for ``square_of_mean`` and Σb (μ² + σ²) for ``mean_of_squares``: the two
    rules have two targets.
    """
    rule = adam_rule(
        a_weights, b_weights, statistic, microbatches, power=power, eps=eps, eps_root=eps_root
    )
    mean, variance = as_mpf(law.mean), as_mpf(law.variance)
    spread = variance if statistic == "mean_of_squares" else variance / microbatches
    mean_v = as_mpf(sum(rule.b_weights)) * (mean**2 + spread)
    return mean * as_mpf(sum(rule.a_weights)) * rule.kernel.map(mean_v)


def relative_bias_adam(
    noise_share: Number,
    a_weights: Sequence[Number],
    b_weights: Sequence[Number],
    *,
    statistic: Statistic = "square_of_mean",
    microbatches: int = 1,
    eps: Number = 0,
) -> float:
    """Return (E u − u*)/u* for normal gradients, to about 1e−12 absolute, in float64.

    Args:
        noise_share: q in [0, 1], the share of the noise in E v of one step: σ²/m over
            μ² + σ²/m for ``square_of_mean``, σ² over μ² + σ² for ``mean_of_squares``. q = 1 is
            the limit of a vanishing mean gradient, which is no 0/0 here.
        a_weights, b_weights: of the T steps, oldest first.
        statistic: ``"square_of_mean"`` or ``"mean_of_squares"``.
        microbatches: matters for ``mean_of_squares`` only; in the other rule q says it all.
        eps: outside the root, in units of √(E v of one step).

    >>> round(relative_bias_adam(1, [1], [1]), 4)          # √(2/π) − 1
    -0.2021
    """
    share = as_fraction(noise_share, "noise_share")
    if not 0 <= share <= 1:
        raise ValueError(f"noise_share={noise_share!r} must lie between 0 and 1.")
    rule = adam_rule(a_weights, b_weights, statistic, microbatches, eps=eps)
    total = sum(rule.a_weights)
    if total == 0:
        raise ValueError(
            "a_weights add to 0, so the population update is 0 and has no relative bias; use "
            "adam_update_mean."
        )
    mean_v = as_mpf(sum(rule.b_weights))
    # E v of one step is 1 in these units; the update is counted in units of the mean gradient.
    found = _integrate(rule, NormalSquare(1 - share, share), -float(mp.log(mean_v)))
    return found.value / float(as_mpf(total) * rule.kernel.map(mean_v)) - 1


def _integrate(rule: AdamRule, transform: NormalSquare | PointSquare, center: float) -> Quadrature:
    a = np.array([float(w) for w in rule.a_weights])
    b = np.array([float(w) for w in rule.b_weights]) / rule.repeats
    rows = max(1, CHUNK // (len(b) * _width(transform)))

    def integrand(s: np.ndarray) -> np.ndarray:
        parts = []
        for first in range(0, len(s), rows):
            log_phi, tilt = transform.float64(s[first : first + rows, None] * b)
            parts.append(np.exp(rule.repeats * log_phi.sum(axis=1)) * (tilt @ a))
        return rule.kernel.float64(s) * np.concatenate(parts)

    return integrate_float64(integrand, center)


def _integrate_density(rule: AdamRule, scalar: Law, center: float) -> Quadrature:
    """Return the integral over node rules, doubled until two of them agree."""
    coarse = None
    for count in NODES:
        points, weights = density_nodes(scalar, count)
        fine = _integrate(rule, PointSquare(tuple(points), tuple(weights)), center)
        if coarse is not None:
            change = abs(fine.value - coarse.value)
            missing = abs(1 - float(np.sum(weights)))
            if missing <= DENSITY_TOLERANCE and change <= DENSITY_TOLERANCE * abs(fine.value):
                return Quadrature(fine.value, fine.error + change)
        coarse = fine
    raise NotConverged(
        f"{fine.value:.6g} still moved by {change:.1e} at {NODES[-1]} nodes a piece; add eps "
        "or eps_root, take a finite law such as skewed_discrete, or Monte Carlo."
    )


def _width(transform: NormalSquare | PointSquare) -> int:
    return len(transform.points) if isinstance(transform, PointSquare) else 1


def _integrand_mpmath(
    rule: AdamRule, transform: NormalSquare | PointSquare
) -> Callable[[mpmath.mpf], mpmath.mpf]:
    a = [as_mpf(w) for w in rule.a_weights]
    b = [as_mpf(w) / rule.repeats for w in rule.b_weights]

    def integrand(s: mpmath.mpf) -> mpmath.mpf:
        product, tilts = transform.mpmath([s * weight for weight in b])
        return rule.kernel.mpmath(s) * product**rule.repeats * mp.fdot(a, tilts)

    return integrand
