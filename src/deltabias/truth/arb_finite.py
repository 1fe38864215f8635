"""E f(X) for a law on finitely many points: a finite sum of balls, exact but for rounding.

The weights are rationals, so the radius of the sum is that of the map's own balls. The mean of m
draws of a two-point law has m + 1 outcomes with binomial weights; :func:`.law_of_mean` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .arb_numbers import ball, flint_module
from .errors import DivergentExpectation
from .finite_laws import FiniteLaw

if TYPE_CHECKING:
    from flint import acb, arb

__all__ = ["finite_sum"]


def finite_sum(function: Callable[[acb, bool], acb], law: FiniteLaw) -> arb:
    """Return a ball that contains Σ wᵢ f(xᵢ), at the current precision.

    Raises:
        DivergentExpectation: if f is not finite at an outcome, or an outcome is negative.
    """
    flint = flint_module()
    total = flint.arb(0)
    for point, weight in zip(law.points, law.weights, strict=True):
        value = function(flint.acb(ball(point)), False)
        if point < 0 or not value.is_finite():
            raise DivergentExpectation(
                f"f is not finite at the outcome {point}, which has probability {weight}; the "
                "outcomes must lie where the map is defined, above its singular point."
            )
        total += ball(weight) * value.real
    return total
