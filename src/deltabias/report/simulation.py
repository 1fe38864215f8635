r"""The relative bias (E u - u*)/u* by simulation, sharp enough to judge an expansion.

A replicate is a history of steps with m microbatches each. It is short work, because a state is
its weights times what the steps contributed. Four things make it sharp; none moves the mean.

* **Antithetic pairs.** For a symmetric law the gradients are reflected about their mean, and the
  pair is averaged: everything odd in the noise is gone.
* **Control variates.** Monomials of first and second degree in the states' deviations from their
  means, with exactly known means, are regressed out (coefficients from a pilot). That removes the
  second-order Taylor polynomial of the update, whose mean is the leading bias; only its
  *exact* mean is put back, so a wrong expansion still shows.
* **The limit q → 1.** At mean zero u* = 0 and the relative bias is a derivative,
  lim E u/u* = (d/dμ) E u / (d/dμ) u*. With many squares in v the *pathwise* derivative serves: a
  symmetric difference at noise share 1 - 10⁻⁶, which antithetic pairs make, for u is odd. It
  behaves like r^{-2p} near v = r² = 0 for a preconditioner v^{-p}; with few squares it has no
  variance (at t = 1, u = sign g and it is zero almost surely, which is wrong). There the *score*
  serves: (d/dμ) E u = E[u Σ s(x)], s = -(log density)′, over all gradients of the history.
* **The steady state** is a history so long that its oldest weight is 10⁻⁶ of the newest, all of
  it simulated. The finite length moves the bias by about that share of itself.

Source: Glasserman, *Monte Carlo Methods in Financial Engineering* (2003), §4.1-4.2 (controls,
antithetic pairs), §7.2-7.3 (pathwise and score-function derivatives).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import isfinite

import numpy as np

from deltabias.errors import DeltabiasError
from deltabias.report.existence import count_squares, has_moment, pole_at_zero
from deltabias.report.scenario import Scenario
from deltabias.report.step_moments import degree, state_means, step_covariance
from deltabias.rule import MEAN, State
from deltabias.truth import (
    Estimate,
    Laplace,
    Law,
    MomentDoesNotExist,
    NonFiniteSample,
    Normal,
    Shifted,
    StudentT,
    TooManySamples,
    estimate,
    law_of_mean,
)

DRAWS = 1e7
"""Random numbers drawn for one row, unless the caller says how many replicates."""

MOST_REPLICATES, FEWEST_REPLICATES = 400_000, 200
PILOT = 1_000
CHUNK_ELEMENTS = 1_000_000
LONGEST_HISTORY = 10_000_000
"""Random numbers of one history, 80 MB."""

FEW_SQUARES = 4
ROUNDING = 1e-14
NEARLY_ALL_NOISE = 1 - 1e-6


@dataclass(frozen=True)
class Simulated:
    """A relative bias with its standard error; both None where there is none, and why in `note`."""

    value: float | None = None
    standard_error: float | None = None
    replicates: int = 0
    note: str = ""


def simulate(
    scene: Scenario, noise_share: float, steps: int, *, replicates: int | None = None, seed: int = 0
) -> Simulated:
    """The relative bias of the update after `steps` steps.

    The number of replicates is fixed beforehand: by the caller, or by `DRAWS`.

    Examples
    --------
    >>> from deltabias.report.scenario import scenario
    >>> from deltabias.rules import get_rule
    >>> found = simulate(scenario(get_rule("adamw")), 1.0, 1, replicates=20_000)
    >>> abs(found.value - ((2 / 3.141592653589793) ** 0.5 - 1)) < 4 * found.standard_error
    True
    """
    squares, pole = count_squares(scene, steps), pole_at_zero(scene)
    smooth = scene.law_name in SCORES
    at_limit = noise_share >= NEARLY_ALL_NOISE and scene.is_odd
    # u' is like r^{-2p}, and its fourth moment, for a trusted standard error, needs 8p squares;
    # a law with atoms needs enough of them that v is never zero
    by_score = at_limit and squares <= (8 if smooth else 32) * pole
    if by_score and not smooth:
        return Simulated(note=f"a {scene.law_name} law has no derivative in its mean here")
    if not has_moment(scene, steps, 2):
        return Simulated(note=f"no finite variance: v^-{pole:.2g} with {squares} squares in v")
    share = 1.0 if by_score else min(noise_share, NEARLY_ALL_NOISE)
    histories = Histories(scene, scene.gradient_law(share), steps, by_score)
    count = replicates or _affordable(histories.draws)
    try:
        found = _estimate(scene, histories, count, seed)
    except NonFiniteSample:
        return Simulated(note="the update of a simulated history is not finite")
    # With few squares u is nearly a sign. A flip too rare to be seen moves the mean by 2/count.
    unseen = 2 / count if squares <= FEW_SQUARES else ROUNDING
    return Simulated(float(found.mean), float(np.hypot(found.standard_error, unseen)), count)


def check_size(scene: Scenario, steps: int) -> None:
    """Refuse a history that does not fit, before any work.

    Raises
    ------
    DeltabiasError
        with the sizes and what to make smaller.
    """
    histories = Histories(scene, scene.gradient_law(0.5), steps, by_score=False)
    if histories.length * histories.width > LONGEST_HISTORY:
        raise DeltabiasError(
            f"{histories.length} steps of {histories.width} microbatches are more than the "
            f"{LONGEST_HISTORY} numbers that a simulated history may have; use fewer steps, "
            "fewer microbatches or smaller betas."
        )


def _affordable(draws: int) -> int:
    return 2 * int(np.clip(DRAWS / draws, FEWEST_REPLICATES, MOST_REPLICATES) // 2)


def _estimate(scene: Scenario, histories: "Histories", count: int, seed: int) -> Estimate:
    means = np.array(
        state_means(scene.rule.states, histories.weights, histories.law, scene.microbatches)
    )
    target = _target(scene, histories, means)
    controls = Controls(scene, histories, means)

    def relative(sample: np.ndarray) -> np.ndarray:
        states, score = sample[:, :, : len(means)], sample[:, :, len(means) :]
        updates = scene.update(*np.moveaxis(states, -1, 0)) * np.ones(states.shape[:2])
        if histories.by_score:
            updates = updates * score[:, :, 0]
        return updates.mean(axis=1) / target - 1

    return estimate(
        relative,
        histories,
        count // histories.sides,
        seed,
        control=controls if controls.monomials else None,
        control_mean=controls.means if controls.monomials else None,
        pilot=max(10 * len(controls.monomials) + 10, min(PILOT, count // 8)),
    )


def _target(scene: Scenario, histories: "Histories", means: np.ndarray) -> float:
    """u*, or its derivative in the mean gradient at mean zero."""
    if not histories.by_score:
        return float(scene.update(*means))
    step = 1e-4  # in the mean gradient; u* is odd in it, so this is exact to second order
    moved = state_means(
        scene.rule.states, histories.weights, Shifted(histories.law, step), scene.microbatches
    )
    return float(scene.update(*moved)) / step


class Histories:
    """Draws states: ``[n, sides, states]``, with a column of scores where a derivative needs it.

    ``sides`` is 2 for a symmetric law (a history and its reflection), else 1.
    """

    def __init__(self, scene: Scenario, law: Law, steps: int, by_score: bool) -> None:
        self.scene, self.law, self.by_score = scene, law, by_score
        self.weights = _newest_first_trimmed([scene.weights(s, steps) for s in scene.rule.states])
        self.length = len(self.weights[0])
        self.center = None if law.center_of_symmetry is None else float(law.center_of_symmetry)
        self.sides = 1 if self.center is None else 2
        self.width, self.drawn = _what_is_drawn(scene, law, by_score)

    @property
    def draws(self) -> float:
        """Random numbers for one replicate; a pair is two replicates from one draw."""
        observed = len({s.statistic.observation for s in self.scene.rule.states})
        return self.length * self.width * observed / self.sides

    def __call__(self, rng: np.random.Generator, n: int) -> np.ndarray:
        rows = max(1, int(CHUNK_ELEMENTS / (self.length * self.width)))
        parts = [self._draw(rng, min(rows, n - first)) for first in range(0, n, rows)]
        return np.concatenate(parts)

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        states = self.scene.rule.states
        seen = sorted({s.statistic.observation.name for s in states})
        shape = (n, self.length, self.width)
        gradients = {name: self.drawn.sample(rng, shape) for name in seen}
        sides = [self._states(gradients)]
        if self.sides == 2:
            reflected = {k: 2 * self.center - x for k, x in gradients.items()}
            sides.append(self._states(reflected))
        return np.stack(sides, axis=1)

    def _states(self, gradients: dict[str, np.ndarray]) -> np.ndarray:
        columns = [
            contribution(s, gradients[s.statistic.observation.name]) @ w
            for s, w in zip(self.scene.rule.states, self.weights, strict=True)
        ]
        if self.by_score:  # the label gradients have their own, zero, mean
            score = SCORES[self.scene.law_name]
            columns.append(score(gradients["x"], self.drawn).sum(axis=(1, 2)))
        return np.stack(columns, axis=-1)


def _newest_first_trimmed(weights: list[np.ndarray]) -> list[np.ndarray]:
    """Without the oldest steps that no state remembers."""
    known = np.nonzero(np.any(np.array(weights) != 0, axis=0))[0]
    return [w[known[0] :] for w in weights]


def _what_is_drawn(scene: Scenario, law: Law, by_score: bool) -> tuple[int, Law]:
    """How many numbers a step takes, and their law: one mean where all depends on it alone."""
    of_the_mean = all(s.statistic.sample == s.statistic.observation for s in scene.rule.states)
    if of_the_mean and (isinstance(law, Normal) or not by_score):
        try:
            return 1, law_of_mean(law, scene.microbatches)
        except (TypeError, TooManySamples):  # not closed under averaging
            pass
    return scene.microbatches, law


def contribution(state: State, gradients: np.ndarray) -> np.ndarray:
    """What each step contributes to a state, ``[n, steps]`` from ``[n, steps, microbatches]``."""
    statistic = state.statistic
    values = _polynomial(statistic.sample, statistic.observation, gradients)
    mean = values[..., 0] if values.shape[-1] == 1 else values.mean(axis=-1)
    return mean if statistic.outer is None else _polynomial(statistic.outer, MEAN, mean)


def _polynomial(expression, variable, value: np.ndarray) -> np.ndarray:
    if expression == variable:
        return value
    if expression == variable**2:
        return value * value
    coefficients = [float(c) for c in expression.as_poly(variable).all_coeffs()]
    return np.polyval(coefficients, value)


class Controls:
    """Monomials of degree one and two in the states' deviations, and their exact means.

    A monomial is left out if the law has no moment that its variance needs.
    """

    def __init__(self, scene: Scenario, histories: Histories, means: np.ndarray) -> None:
        states, law = scene.rule.states, histories.law
        self.centers = means
        self.monomials: list[tuple[int, ...]] = []
        expected = []
        for order in (1, 2):
            for chosen in combinations_with_replacement(range(len(states)), order):
                if not _law_has_moment(law, 2 * sum(degree(states[i].statistic) for i in chosen)):
                    continue
                self.monomials.append(chosen)
                expected.append(self._mean(chosen, scene, histories))
        self.means = np.array(expected)

    def _mean(self, chosen: tuple[int, ...], scene: Scenario, histories: Histories) -> float:
        if len(chosen) == 1:
            return 0.0
        i, j = chosen
        states = scene.rule.states
        overlap = float(histories.weights[i] @ histories.weights[j])
        return overlap * step_covariance(states[i], states[j], histories.law, scene.microbatches)

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        deviations = sample[:, :, : len(self.centers)] - self.centers
        columns = [np.prod(deviations[:, :, list(c)], axis=-1) for c in self.monomials]
        return np.stack(columns, axis=-1).mean(axis=1)


def _law_has_moment(law: Law, order: int) -> bool:
    try:
        return isfinite(float(law.moment(order)))
    except MomentDoesNotExist:
        return False


# -- the derivative at mean zero ------------------------------------------------------------------


def _normal_score(x: np.ndarray, law: Normal) -> np.ndarray:
    return (x - float(law.mean)) / float(law.sd) ** 2


def _laplace_score(x: np.ndarray, law: Laplace) -> np.ndarray:
    return np.sign(x - float(law.loc)) / float(law.scale)


def _student_score(x: np.ndarray, law: StudentT) -> np.ndarray:
    y, dof = x - float(law.loc), float(law.dof)
    return (dof + 1) * y / (dof * float(law.scale) ** 2 + y * y)


SCORES: dict[str, Callable] = {
    "normal": _normal_score,
    "laplace": _laplace_score,
    "student_t": _student_score,
}
"""-(log density)′ in the location, by law."""
