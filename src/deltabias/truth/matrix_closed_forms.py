r"""Wishart matrices: W = (1/n) Σ xᵢxᵢᵀ of n vectors x ~ N(0, Σ), its inverse moments and roots.

This is the mean left factor of m microbatches under ``matrix_law("wishart", …)``, n = m·columns.

* Closed forms, at any digits: E W⁻¹, E W⁻¹CW⁻¹, E log det W.
* E W^{−s} at Σ = I, d ≤ 3, and at Σ = diag(a, b): the eigenvalues λ₁ > λ₂ > … have the density

  .. math::
      \prod_i \lambda_i^{(n-d-1)/2} \prod_{i<j} (\lambda_i - \lambda_j)\; e^{-\sum \lambda_i/2}

  With λ_{i+1} = λ_i x_i the largest one integrates to a gamma function and polynomials over the
  unit cube are left; x = t^k, k = lcm(2, q), clears the fractional powers (s = p/q), so
  Gauss-Legendre converges exponentially. The error is the difference of two rules, one twice as
  fine.

Sources: R. J. Muirhead, *Aspects of Multivariate Statistical Theory*, Wiley 1982, thm 3.2.18 and
§3.2.3; D. von Rosen, "Moments for the inverted Wishart distribution", Scand. J. Statist. 15
(1988), 97-109, corollary 3.1.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import mpmath
from mpmath import mp

from .errors import DivergentExpectation, NotConverged
from .exact import Number, as_fraction, as_mpf
from .matrix_functions import GUARD_DIGITS, Matrix, exact_matrix, inverse_root

__all__ = [
    "PowerMean",
    "wishart_inverse_mean",
    "wishart_inverse_sandwich_mean",
    "wishart_log_det_mean",
    "wishart_power_mean_identity",
    "wishart_power_mean_two",
    "wishart_trace_mean",
]


FINEST_RULE = 8
"""3·2^(k−1) nodes an axis at mpmath's degree k: 12, 24, 48, 96, 192, 384."""

Integrand = Callable[[Sequence[mpmath.mpf]], tuple[mpmath.mpf, ...]]


class PowerMean(NamedTuple):
    """The diagonal of E W^{−s} in the eigenbasis of Σ, and an estimate of its absolute error.

    ``values`` has one entry per eigenvalue of Σ; off the diagonal the expectation is zero, for
    W and its reflection in any eigenvector of Σ have the same law.
    """

    values: tuple[mpmath.mpf, ...]
    error: mpmath.mpf


def wishart_trace_mean(covariance, digits: int = 50) -> mpmath.mpf:
    """Return E tr W = tr Σ: the mean of outer products is unbiased, whatever n is."""
    with mpmath.workdps(digits):
        sigma = exact_matrix(covariance, "covariance")
        return sum((sigma[i, i] for i in range(sigma.rows)), mp.mpf(0))


def wishart_log_det_mean(covariance, samples: int, digits: int = 50) -> mpmath.mpf:
    """Return E log det W = log det Σ + Σ_{i<d} ψ((n − i)/2) + d log(2/n).

    Raises:
        DivergentExpectation: for n < d samples, where W is singular.

    >>> print(mp.nstr(wishart_log_det_mean([[1]], 2), 10))  # −γ: W is exponential
    -0.5772156649
    """
    with mpmath.workdps(digits + GUARD_DIGITS):
        sigma, dim = _covariance(covariance, samples, excess=-1, what="E log det W")
        # Bartlett: det S/det Σ is a product of independent χ² with n, n − 1, … degrees of freedom
        psi = sum(mp.digamma(mp.mpf(samples - i) / 2) for i in range(dim))
        value = mp.log(mp.det(sigma)) + psi + dim * mp.log(mp.mpf(2) / samples)
    with mpmath.workdps(digits):
        return +value


def wishart_inverse_mean(covariance, samples: int, digits: int = 50) -> Matrix:
    """Return E W⁻¹ = Σ⁻¹ n/(n − d − 1), mpmath [d, d].

    Args:
        covariance: Σ [d, d], symmetric positive definite.
        samples: n, the number of vectors averaged (m microbatches of c columns: n = m·c).

    Raises:
        DivergentExpectation: for n ≤ d + 1.

    >>> print(mp.nstr(wishart_inverse_mean([[2]], 4)[0, 0], 10))
    1.0
    """
    with mpmath.workdps(digits + GUARD_DIGITS):
        sigma, dim = _covariance(covariance, samples, excess=1, what="E W⁻¹")
        value = inverse_root(sigma, 1) * (mp.mpf(samples) / (samples - dim - 1))
    with mpmath.workdps(digits):
        return +value


def wishart_inverse_sandwich_mean(covariance, samples: int, middle, digits: int = 50) -> Matrix:
    r"""Return E W⁻¹CW⁻¹, mpmath [d, d]; with C = I it is E W⁻².

    For S = nW and Ω = Σ⁻¹, with c = 1/((n−d)(n−d−1)(n−d−3)),

    .. math::
        E\,S^{-1} C S^{-1} = c\,\bigl[(n-d-2)\,\Omega C\Omega
            + \Omega C^T \Omega + \mathrm{tr}(C\Omega)\,\Omega\bigr].

    Raises:
        DivergentExpectation: for n ≤ d + 3.
    """
    with mpmath.workdps(digits + GUARD_DIGITS):
        sigma, dim = _covariance(covariance, samples, excess=3, what="E W⁻¹CW⁻¹")
        omega, inner = inverse_root(sigma, 1), exact_matrix(middle, "middle")
        if (inner.rows, inner.cols) != (dim, dim):
            raise ValueError(f"middle is {inner.rows} × {inner.cols}; it must be {dim} × {dim}.")
        gap = samples - dim
        product = inner * omega
        trace = sum(product[i, i] for i in range(dim))
        bracket = (gap - 2) * omega * product + omega * inner.T * omega + trace * omega
        value = bracket * (mp.mpf(samples) ** 2 / (gap * (gap - 1) * (gap - 3)))
    with mpmath.workdps(digits):
        return +value


def wishart_power_mean_identity(
    dim: int, samples: int, power: Number, digits: int = 20
) -> PowerMean:
    """Return E W^{−power} at Σ = I: a multiple of I, closed for d = 1, quadrature for 2 and 3.

    Args:
        dim: d, 1 to 3.
        samples: n ≥ d.
        power: s > 0, a rational: 1/2, 1/4, 1 …
        digits: relative accuracy that is asked of the quadrature.

    Raises:
        DivergentExpectation: if s ≥ (n − d + 1)/2, or n < d.
        NotConverged: if the finest rule does not reach ``digits``.

    >>> found = wishart_power_mean_identity(2, 8, 1)  # n/(n − d − 1)
    >>> print(mp.nstr(found.values[0], 12))
    1.6
    """
    power = _power(dim, samples, power)
    if dim > 3:
        raise ValueError(f"{dim=} is beyond the quadrature, which knows 1, 2 and 3; use the "
                         "enumeration of a finite law or Monte Carlo.")  # fmt: skip
    with mpmath.workdps(digits + GUARD_DIGITS):
        order = _half(samples * dim)
        gammas = mp.gammaprod([order - as_mpf(power)], [order]) * mp.mpf(samples) ** as_mpf(power)
        value, error = _ratio(_radial_terms(dim, samples, power), dim - 1, digits)
        with mpmath.workdps(digits + 5):
            return PowerMean((value[0] * gammas,) * dim, error * gammas)


def wishart_power_mean_two(
    variances: tuple[Number, Number], samples: int, power: Number, digits: int = 12
) -> PowerMean:
    """Return the diagonal of E W^{−power} at Σ = diag(a, b), by quadrature.

    S = R_θ diag(λ₁, λ₂) R_θᵀ has the density (λ₁λ₂)^{(n−3)/2} (λ₁ − λ₂) e^{−tr Σ⁻¹S/2}; the
    angle is summed by the trapezoid rule, which converges exponentially for a periodic function.

    Args:
        variances: (a, b), both positive. Far apart, with many samples, it takes its time: some
            ten seconds at a/b = 20, n = 64.
        samples, power, digits: as in :func:`wishart_power_mean_identity`.

    Raises:
        DivergentExpectation, NotConverged: as there.
    """
    if len(variances) != 2:
        raise ValueError(f"{len(variances)} variances; pass two, the diagonal of Σ.")
    a, b = (as_fraction(v, "variances") for v in variances)
    if min(a, b) <= 0:
        raise ValueError(f"variances {a} and {b} must be positive.")
    power = _power(2, samples, power)
    with mpmath.workdps(digits + GUARD_DIGITS):
        precisions, exponent = (1 / as_mpf(a), 1 / as_mpf(b)), as_mpf(power)
        gammas = mp.gammaprod([samples - exponent], [samples]) * mp.mpf(samples) ** exponent

        def at(angles: int) -> tuple[list[mpmath.mpf], mpmath.mpf]:
            return _ratio(_angular_terms(precisions, samples, power, angles), 1, digits)

        angles = 32
        last, _ = at(angles)
        while angles < 1024:
            angles *= 2
            value, error = at(angles)
            moved = max(abs(x - y) for x, y in zip(value, last, strict=True))
            if moved <= mp.mpf(10) ** -digits * max(value):
                with mpmath.workdps(digits + 5):
                    return PowerMean(tuple(v * gammas for v in value), (error + moved) * gammas)
            last = value
    raise NotConverged(f"{angles} angles still moved E W^-{power} by {mp.nstr(moved, 3)}; take "
                       "fewer digits or variances that are closer.")  # fmt: skip


def _radial_terms(dim: int, samples: int, power: Fraction) -> Integrand:
    """Return, at λ₁ = 1 and in t, the density and that times tr S^{−s}/d."""
    order, s = _half(samples * dim), as_mpf(power)
    k = math.lcm(2, power.denominator)

    def terms(ratios: Sequence[mpmath.mpf]) -> tuple[mpmath.mpf, ...]:
        steps = [t**k for t in ratios]
        eigenvalues = list(itertools.accumulate(steps, operator.mul, initial=mp.mpf(1)))
        # dλ_{i+1} = λ_i dx_i = λ_i k t^{k−1} dt
        jacobian = math.prod(eigenvalues[:-1]) * math.prod(k * t ** (k - 1) for t in ratios)
        gaps = math.prod(a - b for a, b in itertools.combinations(eigenvalues, 2))
        density = math.prod(eigenvalues) ** _half(samples - dim - 1) * gaps * jacobian
        # ∫ λ₁^{nd/2 − 1 − s} e^{−λ₁ T/2} = Γ(nd/2 − s) (2/T)^{nd/2 − s}
        scale = 2 / sum(eigenvalues)
        density *= scale**order
        return density, density * scale**-s * sum(x**-s for x in eigenvalues) / dim

    return terms


def _angular_terms(
    precisions: tuple[mpmath.mpf, mpmath.mpf], samples: int, power: Fraction, angles: int
) -> Integrand:
    """Return, summed over θ, the density and that times each diagonal entry of S^{−s}."""
    squares = _squared_cosines(angles)
    k = math.lcm(2, power.denominator)

    def terms(ratios: Sequence[mpmath.mpf]) -> tuple[mpmath.mpf, ...]:
        (t,) = ratios
        x = t**k
        x_to_minus_s = x ** -as_mpf(power)
        density = x ** _half(samples - 3) * (1 - x) * k * t ** (k - 1)
        totals = [mp.mpf(0)] * 3
        for first, second in squares:
            rate = precisions[0] * (first + x * second) + precisions[1] * (second + x * first)
            # ∫ λ₁^{n − 1 − s} e^{−λ₁ rate/2} = Γ(n − s) (2/rate)^{n − s}
            weight = density * (2 / rate) ** samples
            powered = weight * mp.root(rate / 2, power.denominator) ** power.numerator
            totals[0] += weight
            totals[1] += powered * (first + second * x_to_minus_s)
            totals[2] += powered * (second + first * x_to_minus_s)
        return tuple(total / angles for total in totals)

    return terms


def _squared_cosines(angles: int) -> list[tuple[mpmath.mpf, mpmath.mpf]]:
    """Return cos²θ, sin²θ at the midpoints of a period; they see cos 2θ only, so half a turn."""
    thetas = ((i + mp.mpf(1) / 2) * mp.pi / (2 * angles) for i in range(angles))
    squares = (mp.cos(theta) ** 2 for theta in thetas)
    return [(square, 1 - square) for square in squares]


def _ratio(terms: Integrand, axes: int, digits: int) -> tuple[list[mpmath.mpf], mpmath.mpf]:
    """Return ∫ terms[k]/∫ terms[0] over the unit cube, k = 1 …, with the largest error."""
    rules = mpmath.calculus.quadrature.GaussLegendre(mp)
    last, error = None, mp.mpf(0)
    for degree in range(3, FINEST_RULE + 1):
        nodes = rules.get_nodes(mp.mpf(0), mp.mpf(1), degree, mp.prec)
        totals = None
        for point in itertools.product(nodes, repeat=axes):
            weight = math.prod((w for _, w in point), start=mp.mpf(1))
            values = [weight * v for v in terms([t for t, _ in point])]
            totals = (
                values if totals is None else [x + y for x, y in zip(totals, values, strict=True)]
            )
        value = [total / totals[0] for total in totals[1:]]
        if axes == 0:
            return value, mp.mpf(10) ** -(digits + 5) * max(value)
        if last is not None:
            error = max(abs(x - y) for x, y in zip(value, last, strict=True))
            if error <= mp.mpf(10) ** -digits * max(value):
                return value, error
        last = value
    raise NotConverged(
        f"{len(nodes)} nodes still moved the integral by {mp.nstr(error / max(value), 3)} of it, "
        f"above 10^-{digits}; take fewer digits."
    )


def _half(twice: int) -> mpmath.mpf:
    return mp.mpf(twice) / 2


def _power(dim: int, samples: int, power: Number) -> Fraction:
    for name, number in (("dim", dim), ("samples", samples)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name}={number!r} must be an int of at least 1.")
    power = as_fraction(power, "power")
    if power <= 0:
        raise ValueError(f"{power=!s} must be positive; E W^-power is what is computed.")
    # The smallest eigenvalue has a density of order λ^{(n−d−1)/2} at zero.
    if samples < dim or 2 * power >= samples - dim + 1:
        raise DivergentExpectation(
            f"E W^-{power} is infinite for d={dim} and n={samples} samples; n must exceed "
            f"d − 1 + 2·power = {dim - 1 + 2 * power}."
        )
    return power


def _covariance(covariance, samples: int, *, excess: int, what: str) -> tuple[Matrix, int]:
    """Return Σ and d; raise unless Σ is positive definite and n > d + excess."""
    sigma = exact_matrix(covariance, "covariance")
    inverse_root(sigma, 1)  # refuses what is not square, not symmetric or not definite
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise ValueError(f"{samples=!r} must be an int of at least 1.")
    if samples <= sigma.rows + excess:
        raise DivergentExpectation(
            f"{what} is infinite for d={sigma.rows} and n={samples} samples; n must be at least "
            f"{sigma.rows + excess + 1}."
        )
    return sigma, sigma.rows
