"""The rule whose mean is taken: m̂ f(v̂) with its exact weights, its statistic, its domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import mpmath
from mpmath import mp

from .base_law import Law
from .closed_forms import law_of_mean
from .errors import DivergentExpectation
from .exact import Number, as_fraction, as_mpf
from .finite_laws import FiniteLaw
from .laplace_kernels import LaplaceKernel
from .laws import Gamma, LogNormal, Normal, ScaledChiSquare, Shifted

__all__ = ["AdamRule", "Statistic", "adam_rule", "check_existence"]

Statistic = Literal["square_of_mean", "mean_of_squares"]
STATISTICS = ("square_of_mean", "mean_of_squares")


@dataclass(frozen=True)
class AdamRule:
    """m̂ f(v̂) with exact arguments; it checks itself.

    Raises:
        ValueError: for weights that do not match or are negative, an unknown statistic, or a
            number of microbatches that is no positive int.
    """

    a_weights: tuple[Fraction, ...]
    b_weights: tuple[Fraction, ...]
    kernel: LaplaceKernel
    statistic: Statistic
    microbatches: int

    def __post_init__(self) -> None:
        a, b, m = self.a_weights, self.b_weights, self.microbatches
        if len(a) != len(b) or not a:
            raise ValueError(f"{len(a)} a_weights, {len(b)} b_weights; pass one of each per step.")
        if min(b) < 0 or max(b) == 0:
            raise ValueError("b_weights must not be negative, and at least one must be positive.")
        if self.statistic not in STATISTICS:
            raise ValueError(
                f"statistic={self.statistic!r} is unknown; choose {' or '.join(STATISTICS)}."
            )
        if isinstance(m, bool) or not isinstance(m, int) or m < 1:
            raise ValueError(f"microbatches={m!r} must be an int of at least 1.")

    @property
    def repeats(self) -> int:
        """How many independent scalars one step has: m for a mean of squares, else 1."""
        return self.microbatches if self.statistic == "mean_of_squares" else 1

    def scalar_law(self, law: Law) -> Law:
        """Return the law of the scalars that are squared."""
        return law if self.statistic == "mean_of_squares" else law_of_mean(law, self.microbatches)

    def center(self, scalar: Law) -> mpmath.mpf:
        """Return log 1/(E v̂ + eps_root): about where the integrand over s turns over."""
        mean_v = as_mpf(sum(self.b_weights)) * as_mpf(scalar.moment(2))
        return -mp.log(mean_v + as_mpf(self.kernel.eps_root))


def adam_rule(
    a_weights: Sequence[Number],
    b_weights: Sequence[Number],
    statistic: Statistic,
    microbatches: int,
    *,
    power: Number = Fraction(1, 2),
    eps: Number = 0,
    eps_root: Number = 0,
) -> AdamRule:
    """Return the rule with every number made exact."""
    kernel = LaplaceKernel(
        as_fraction(power, "power"), as_fraction(eps, "eps"), as_fraction(eps_root, "eps_root")
    )
    a = tuple(as_fraction(w, "a_weights") for w in a_weights)
    b = tuple(as_fraction(w, "b_weights") for w in b_weights)
    return AdamRule(a, b, kernel, statistic, microbatches)


def check_existence(rule: AdamRule, scalar: Law) -> None:
    """Raise ``DivergentExpectation`` unless E|m̂| f(v̂) is finite.

    Let n independent scalars enter v̂, each with a density like |g|^{d − 1} at 0. Near the origin
    |m̂| v̂⁻ᵖ behaves like r^{1 − 2p} (r^{−2p} if m̂ has a part that is not in v̂) against
    r^{nd − 1} dr, which is integrable for p < (nd + 1)/2 (nd/2). An atom at 0 is d = 0.
    """
    if rule.kernel.is_bounded:
        return
    stray = any(a != 0 and b == 0 for a, b in zip(rule.a_weights, rule.b_weights, strict=True))
    dimension = _dimension_at_zero(scalar)
    if dimension is None or (isinstance(scalar, FiniteLaw) and not stray):
        # v̂ keeps away from 0, or m̂ is 0 whenever v̂ is.
        return
    scalars = rule.repeats * sum(b > 0 for b in rule.b_weights)
    limit = (scalars * dimension + (0 if stray else 1)) / 2
    if rule.kernel.power >= limit:
        raise DivergentExpectation(
            f"E |update| is infinite: v^-{rule.kernel.power} with {scalars} squares in v needs a "
            f"power below {limit}; add eps or eps_root, or take more steps."
        )


def _dimension_at_zero(law: Law) -> Fraction | None:
    """Return d of a density like |x|^{d − 1} at 0, or None if 0 is out of reach."""
    inner, offset = (law.law, law.offset) if isinstance(law, Shifted) else (law, Fraction(0))
    if isinstance(inner, FiniteLaw):
        return Fraction(0) if -offset in inner.points else None
    if isinstance(inner, Normal) and inner.sd == 0:
        return Fraction(0) if inner.mean == -offset else None
    if isinstance(inner, (Gamma, ScaledChiSquare, LogNormal)) and offset > 0:
        return None
    if offset == 0 and isinstance(inner, ScaledChiSquare):
        return inner.as_gamma.shape
    if offset == 0 and isinstance(inner, Gamma):
        return inner.shape
    if offset == 0 and isinstance(inner, LogNormal):
        return None
    return Fraction(1)
