r"""Trapezoid sums for :math:`\int_0^\infty f(s)\,ds` when f changes over many decades of s.

With s = exp(c + w − e^{−w}) the integrand s f(s) (1 + e^{−w}) decays doubly exponentially to the
left (f is integrable at 0) and at least exponentially to the right, and it is analytic in a strip
around the real axis; the trapezoid rule then converges exponentially in 1/step. The step is
halved until two sums agree, and that difference, which is about the square root of the error that
is left, is reported as the error.

Source: L. N. Trefethen, J. A. C. Weideman, "The exponentially convergent trapezoidal rule",
SIAM Review 56 (2014), §5 and §14.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import mpmath
import numpy as np
from mpmath import mp

from .errors import NotConverged

__all__ = ["Quadrature", "integrate_float64", "integrate_mpmath"]


class Quadrature(NamedTuple):
    """A value and an estimate of its absolute error, which is pessimistic by construction."""

    value: float
    error: float


NEAREST, FURTHEST = -6.4, 460.0
"""How far from the center to look, in w: s = 1e−261 to 1e200, which float64 still holds."""

FLOAT_ROUNDOFF = 1e-14


def integrate_float64(
    integrand: Callable[[np.ndarray], np.ndarray], center: float, tolerance: float = 1e-12
) -> Quadrature:
    """Return ∫₀^∞ integrand(s) ds for a vectorized float64 integrand.

    Args:
        integrand: maps an array of s > 0 to an array of the same shape.
        center: log of the s at which the integrand turns over.
        tolerance: largest accepted difference of the last two sums, relative to the sum.

    Raises:
        NotConverged: if the integrand does not decay, or six halvings do not reach it.
    """

    def terms(w: np.ndarray) -> np.ndarray:
        s = np.exp(center + w - np.exp(-w))
        return integrand(s) * s * (1 + np.exp(-w))

    low, high = _support(terms)
    step, intervals = 0.5, int(2 * (high - low))
    total = step * float(np.sum(terms(low + step * np.arange(intervals + 1))))
    for _ in range(6):
        middle = low + step * (np.arange(intervals) + 0.5)
        finer = 0.5 * total + 0.5 * step * float(np.sum(terms(middle)))
        error, total, step, intervals = abs(finer - total), finer, step / 2, 2 * intervals
        if error <= tolerance * abs(total):
            return Quadrature(total, max(error, FLOAT_ROUNDOFF * abs(total)))
    raise NotConverged(f"integral {total:.6g} still moved by {error:.1e} at step {step}.")


def _support(terms: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Return the interval outside which the terms are below 1e−20 of the largest."""
    w = np.arange(NEAREST, FURTHEST, 1.0)
    size = np.abs(terms(w))
    if not np.all(np.isfinite(size)):
        raise NotConverged("the integrand is not finite; is the second moment finite?")
    if not np.any(size):
        return -1.0, 1.0
    kept = np.nonzero(size > 1e-20 * size.max())[0]
    if kept[0] == 0 or kept[-1] >= len(w) - 2:
        raise NotConverged("the integrand does not decay; does the expectation exist?")
    return float(w[kept[0]]) - 1.0, float(w[kept[-1]]) + 2.0


def integrate_mpmath(
    integrand: Callable[[mpmath.mpf], mpmath.mpf], center: mpmath.mpf, digits: int
) -> mpmath.mpf:
    """Return ∫₀^∞ integrand(s) ds to ``digits`` digits; the slow, high-precision counterpart.

    Raises:
        NotConverged: if four halvings do not bring two sums within 10^−digits relative.
    """
    with mpmath.workdps(digits + 10):
        negligible = mp.mpf(10) ** -(digits + 8)

        def term(w: mpmath.mpf) -> mpmath.mpf:
            inward = mp.exp(-w)
            s = mp.exp(center + w - inward)
            return integrand(s) * s * (1 + inward)

        step = mp.mpf(4) / digits
        total = step * _sum_outward(term, mp.mpf(0), step, negligible)
        for _ in range(4):
            finer = total / 2 + step / 2 * _sum_outward(term, step / 2, step, negligible)
            error, total, step = abs(finer - total), finer, step / 2
            if error <= mp.mpf(10) ** -digits * abs(total):
                return +total
    raise NotConverged(f"integral {mp.nstr(total, 10)} still moved by {mp.nstr(error, 2)}.")


def _sum_outward(
    term: Callable[[mpmath.mpf], mpmath.mpf],
    start: mpmath.mpf,
    step: mpmath.mpf,
    negligible: mpmath.mpf,
) -> mpmath.mpf:
    """Sum term(start + j step) over all integers j, outward until terms stay negligible.

    A single small term may be a change of sign, so a stretch of two units of log s must be small.
    """
    total, largest = mp.mpf(0), mp.mpf(0)
    patience = int(2 / step) + 1
    for direction in (1, -1):
        w, quiet = start if direction == 1 else start - step, 0
        while quiet < patience:
            value = term(w)
            total += value
            largest = max(largest, abs(value))
            quiet = quiet + 1 if abs(value) <= negligible * largest else 0
            w += direction * step
            if abs(w - start) > 4 * FURTHEST:
                raise NotConverged("the integrand does not decay; does the expectation exist?")
    return total
