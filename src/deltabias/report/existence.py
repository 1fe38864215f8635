"""Where the update has moments: how it blows up when the preconditioner comes near zero.

With n squares of gradients in v, v = r² where r is a radius in n dimensions, and the density of r
is like r^{n-1} at zero. An update n̂ v^{-p} is like r^{1-2p} if its numerator is made of the same
gradients and like r^{-2p} if not, so its k-th absolute moment is finite for n > k (2p - 1) and
n > 2kp. A stabilizer rounds the pole off; one that is small leaves a mean that no simulation finds.
"""

from math import isfinite

import numpy as np

from deltabias.report.scenario import Scenario

SMALL = 1e-6
"""Where, in units of E v, the pole at v = 0 is looked for: a smaller eps does not count."""

MARGIN = 1e-3
"""The pole is found numerically; at equality the moment is infinite."""

UNBOUNDED = 10**9


def count_squares(scene: Scenario, steps: int) -> int:
    """How many squares the preconditioner adds up in so many steps.

    A mean of squares has one for each microbatch, a square of a mean one for each step.
    """
    return min(
        (
            int(np.count_nonzero(scene.weights(state, steps)))
            * (scene.microbatches if state.statistic.outer is None else 1)
            for state in scene.rule.states
            if state.statistic.positive
        ),
        default=UNBOUNDED,
    )


def pole_at_zero(scene: Scenario) -> float:
    """The power p of v^{-p} that the update behaves like at small v; never negative.

    >>> from deltabias.report.scenario import scenario
    >>> from deltabias.rules import get_rule
    >>> round(pole_at_zero(scenario(get_rule("adamw"))), 3)
    0.5
    """
    states = scene.rule.states
    if not any(s.statistic.positive for s in states):
        return 0.0
    near = np.array([SMALL, SMALL / 2])
    values = scene.update(*(near if s.statistic.positive else 1.0 for s in states))
    with np.errstate(all="ignore"):
        first, second = np.log(np.abs(np.broadcast_to(values, 2)))
    slope = float((second - first) / np.log(2))
    return max(0.0, slope) if isfinite(slope) else 0.0


def has_moment(scene: Scenario, steps: int, order: int) -> bool:
    """Whether E |u|^order is finite, as far as the pole at v = 0 decides it."""
    coupled = len({s.statistic.observation for s in scene.rule.states}) == 1
    growth = 2 * pole_at_zero(scene) - (1 if coupled else 0)
    return count_squares(scene, steps) > order * growth + MARGIN
