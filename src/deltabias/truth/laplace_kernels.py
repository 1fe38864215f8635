r"""Completely monotone maps as Laplace transforms: :math:`f(v) = \int_0^\infty k(s)e^{-sv}ds`.

==================  =====================================================
f(v)                k(s)
==================  =====================================================
v^{−p}, p > 0       s^{p−1}/Γ(p)
1/(√v + ε)          1/√(πs) − ε e^{ε²s} erfc(ε√s)  =  H(ε√s)/√(πs)
f(v + ε₀)           e^{−ε₀s} k(s)
==================  =====================================================

The second line: the transform of 1/√(πs) is 1/√v and that of e^{ε²s} erfc(ε√s) is 1/(√v(√v+ε)),
and 1/√v − ε/(√v(√v+ε)) = 1/(√v+ε). Written like that it loses all its digits at large x = ε√s,
where H(x) = 1 − √π x e^{x²} erfc(x) ≈ 1/(2x²). Writing 1/(√v+ε) = ∫ e^{−ε t − t√v} dt and
transforming inside gives the same H as an integral of positive terms:

    H(x) = 2 ∫₀^∞ y e^{−y² − 2xy} dy.

Source: A. Erdélyi et al., *Tables of Integral Transforms* I, McGraw-Hill 1954, §5.3 and §5.6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
from mpmath import mp

from .exact import as_mpf

__all__ = ["LaplaceKernel"]


@dataclass(frozen=True)
class LaplaceKernel:
    """The kernel of (v + eps_root)^{−power}, or of 1/(√(v + eps_root) + eps).

    Raises:
        ValueError: if ``power`` ≤ 0, an epsilon is negative, or ``eps`` > 0 comes with a power
            other than 1/2, for which no kernel is known here.
    """

    power: Fraction = Fraction(1, 2)
    eps: Fraction = Fraction(0)
    eps_root: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power={self.power} must be positive.")
        if self.eps < 0 or self.eps_root < 0:
            raise ValueError(f"eps={self.eps} and eps_root={self.eps_root} must be at least 0.")
        if self.eps and self.power != Fraction(1, 2):
            raise ValueError(
                f"eps={self.eps} outside the root needs power=1/2, not {self.power}; "
                "pass eps=0, or eps_root for an epsilon inside."
            )

    @property
    def is_bounded(self) -> bool:
        """Whether f(0) is finite, so that no expectation can diverge at v = 0."""
        return self.eps > 0 or self.eps_root > 0

    def map(self, v: mpmath.mpf) -> mpmath.mpf:
        """Return f(v) itself at the current ``mp.dps``."""
        return 1 / ((v + as_mpf(self.eps_root)) ** as_mpf(self.power) + as_mpf(self.eps))

    def float64(self, s: np.ndarray) -> np.ndarray:
        """Return k(s) for an array of s > 0."""
        power = float(self.power)
        kernel = s ** (power - 1) * np.exp(-float(self.eps_root) * s) / math.gamma(power)
        return kernel * _h_float64(float(self.eps) * np.sqrt(s)) if self.eps else kernel

    def mpmath(self, s: mpmath.mpf) -> mpmath.mpf:
        """Return k(s) at the current ``mp.dps``."""
        power = as_mpf(self.power)
        kernel = s ** (power - 1) * mp.exp(-as_mpf(self.eps_root) * s) / mp.gamma(power)
        return kernel * _h_mpmath(as_mpf(self.eps) * mp.sqrt(s)) if self.eps else kernel


# y = e^{w − e^{−w}} makes both ends of the integral decay doubly exponentially.
_W = np.arange(-64, 97) / 16.0
_Y = np.exp(_W - np.exp(-_W))
_Y_WEIGHT = 2 * _Y**2 * (1 + np.exp(-_W)) / 16.0


def _h_float64(x: np.ndarray) -> np.ndarray:
    """Return H(x) to about 1e−15 relative; y is measured in units of 1/(1 + x)."""
    unit = 1 / (1 + x)[..., None]
    y = unit * _Y
    return np.sum(_Y_WEIGHT * unit**2 * np.exp(-y * y - 2 * x[..., None] * y), axis=-1)


def _h_mpmath(x: mpmath.mpf) -> mpmath.mpf:
    """Return H(x) = 1 − √π x e^{x²} erfc(x), with as many guard digits as it cancels."""
    with mpmath.extradps(5 + 2 * max(0, int(mp.log10(1 + x)) + 1)):
        return 1 - mp.sqrt(mp.pi) * x * mp.exp(x * x) * mp.erfc(x)
