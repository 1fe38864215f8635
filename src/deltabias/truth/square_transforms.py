r"""The two transforms of a square that the Laplace route needs, law by law.

For one scalar g and a ≥ 0,

.. math::
    \varphi(a) = E\,e^{-a g^2}, \qquad \text{tilt}(a) = \frac{E\,g\,e^{-a g^2}}{c\,\varphi(a)},

the tilt being the mean of g under the law reweighted by e^{−a g²}, in units of c. For a normal
law c is its mean, so that the limit of a vanishing mean is no 0/0; for other laws c is 1.

* Normal, N(μ, τ²): completing the square gives φ = (1 + 2aτ²)^{−1/2} e^{−aμ²/(1 + 2aτ²)}, and the
  reweighted law is normal with mean μ/(1 + 2aτ²).
* Finitely many points: finite sums.
* A density: the finite sum over the nodes of a quadrature rule (float64 only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
from mpmath import mp

from .exact import as_mpf

__all__ = ["NormalSquare", "PointSquare"]


@dataclass(frozen=True)
class NormalSquare:
    """Transforms of g², g ~ N(μ, τ²), from ``mean_square`` μ² and ``variance`` τ²; c = μ."""

    mean_square: Fraction
    variance: Fraction

    def float64(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (log φ, tilt) at an array of a ≥ 0."""
        spread = 2 * a * float(self.variance)
        tilt = 1 / (1 + spread)
        return -0.5 * np.log1p(spread) - a * float(self.mean_square) * tilt, tilt

    def mpmath(self, weights: Sequence[mpmath.mpf]) -> tuple[mpmath.mpf, list[mpmath.mpf]]:
        """Return (Πₖ φ(aₖ), [tilt(aₖ)]) at the current ``mp.dps``."""
        # One product and one sum, so one root and one exponential for the whole history.
        twice, mean_square = 2 * as_mpf(self.variance), as_mpf(self.mean_square)
        tilts = [1 / (1 + a * twice) for a in weights]
        exponent = mp.fsum(a * tilt for a, tilt in zip(weights, tilts, strict=True))
        return mp.sqrt(mp.fprod(tilts)) * mp.exp(-mean_square * exponent), tilts


@dataclass(frozen=True)
class PointSquare:
    """Transforms of g² for g on finitely many ``points`` with positive ``weights``; c = 1."""

    points: tuple[Fraction | float, ...]
    weights: tuple[Fraction | float, ...]

    def float64(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (log φ, tilt) at an array of a ≥ 0."""
        points, weights = (np.array([float(x) for x in v]) for v in (self.points, self.weights))
        squares = points**2
        # Taking out the smallest square keeps one term equal to its weight: no underflow to 0/0.
        terms = weights * np.exp(-a[..., None] * (squares - squares.min()))
        sums = terms.sum(axis=-1)
        return np.log(sums) - a * squares.min(), (terms @ points) / sums

    def mpmath(self, weights: Sequence[mpmath.mpf]) -> tuple[mpmath.mpf, list[mpmath.mpf]]:
        """Return (Πₖ φ(aₖ), [tilt(aₖ)]) at the current ``mp.dps``."""
        pairs = [(as_mpf(x), as_mpf(w)) for x, w in zip(self.points, self.weights, strict=True)]
        product, tilts = mp.mpf(1), []
        for a in weights:
            terms = [(x, w * mp.exp(-a * x * x)) for x, w in pairs]
            phi = mp.fsum(term for _, term in terms)
            product *= phi
            tilts.append(mp.fsum(x * term for x, term in terms) / phi)
        return product, tilts
