r"""Histories of AdamW replayed from an empirical law: a truth that no derivation went into.

Histories of microbatches are drawn from the law with replacement and the plug-in update is written
out in three lines. Noise is removed by a control variate: with P the second-order Taylor polynomial
of the update u(M, V) about the means of its states M and V,

.. math:: E u = E P + E (u - P), \qquad
    E P = u^* + u_{MV}\, cov(M, V) + \tfrac12 u_{VV}\, var(V),

where cov and var are exact sums over the empirical law and only the third-order rest, u - P, is
left to sampling. This holds for any coefficients of P: a wrong one costs noise, never truth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deltabias.correction import correct
from deltabias.demo.gradient_laws import GradientLaws
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rules import get_rule


@dataclass(frozen=True)
class Replay:
    """What is replayed: AdamW's settings, the length of a history and how many are drawn."""

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    microbatches: int = 8
    steps: int = 100
    replicates: int = 32
    seed: int = 0

    @property
    def hypers(self) -> dict[str, float]:
        """By the names that the rule gives them."""
        return {"beta1": self.betas[0], "beta2": self.betas[1], "eps": self.eps}


@dataclass(frozen=True)
class States:
    """AdamW's debiased averages and its update, ``[coordinates, replicates]``."""

    first: np.ndarray
    second: np.ndarray
    update: np.ndarray


def replayed_updates(
    laws: GradientLaws, replay: Replay, *, advance: Callable[[], None] = lambda: None
) -> tuple[States, np.ndarray]:
    """The last states of plug-in AdamW, and the last corrected update, on the same histories.

    A coordinate's mean update depends on its own law alone, so each coordinate has its microbatches
    shuffled: coordinates are then nearly independent, and a layer's sum has less noise.

    Memory: a few arrays of coordinates × replicates × microbatches doubles.
    """
    rng = np.random.default_rng(replay.seed)
    shuffled = rng.permuted(laws.gradients, axis=1)
    (beta1, beta2), m = replay.betas, replay.microbatches
    evaluator = Evaluator(correct(get_rule("adamw"), "delta"), replay.hypers)
    first = second = 0.0
    for _ in range(replay.steps):
        drawn = rng.integers(shuffled.shape[1], size=(replay.replicates, m))
        gradients = shuffled[:, drawn]
        mean = gradients.mean(axis=-1)
        first = beta1 * first + (1 - beta1) * mean
        second = beta2 * second + (1 - beta2) * mean**2
        corrected = evaluator(Microbatches({"x": gradients}, np.ones(m, dtype=int)))
        advance()
    first = first / (1 - beta1**replay.steps)
    second = second / (1 - beta2**replay.steps)
    return States(first, second, first / (np.sqrt(second) + replay.eps)), corrected


@dataclass(frozen=True)
class Control:
    """The Taylor polynomial of the update about its states' means, and its exact mean.

    Arrays over coordinates. ``update`` is u*, ``mean_error`` E P - u*.
    """

    mean: np.ndarray
    mean_square: np.ndarray
    update: np.ndarray
    slopes: dict[str, np.ndarray]
    mean_error: np.ndarray
    noise_share: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, laws: GradientLaws, replay: Replay) -> "Control":
        """From the raw moments of the law and the explicit weights of both averages."""
        mean, square, cov, var = step_moments(laws, replay.microbatches)
        weights = [_weights(beta, replay.steps) for beta in replay.betas]
        cov_states = (weights[0] * weights[1]).sum() * cov
        var_states = (weights[1] ** 2).sum() * var
        root = np.sqrt(square)
        below = root + replay.eps
        slope_second = -1 / (2 * root * below**2)  # of 1/(√v + eps)
        bend_second = (below + 2 * root) / (4 * root**3 * below**3)
        slopes = {
            "first": 1 / below,
            "second": mean * slope_second,
            "both": slope_second,
            "second_twice": mean * bend_second / 2,
        }
        return cls(
            mean=mean,
            mean_square=square,
            update=mean / below,
            slopes=slopes,
            mean_error=slopes["both"] * cov_states + slopes["second_twice"] * var_states,
            noise_share=1 - mean**2 / square,
            spread=var_states / square**2,
        )

    def polynomial(self, states: States) -> np.ndarray:
        """P - u* + u* at the states, ``[coordinates, replicates]``."""
        slope = {name: value[:, None] for name, value in self.slopes.items()}
        first = states.first - self.mean[:, None]
        second = states.second - self.mean_square[:, None]
        return (
            self.update[:, None]
            + slope["first"] * first
            + slope["second"] * second
            + slope["both"] * first * second
            + slope["second_twice"] * second**2
        )


def _weights(beta: float, steps: int) -> np.ndarray:
    """The weights of a debiased exponential moving average, newest first; they add to one."""
    return (1 - beta) * beta ** np.arange(steps) / (1 - beta**steps)


def step_moments(
    laws: GradientLaws, m: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Exact E ḡ, E ḡ², cov(ḡ, ḡ²), var(ḡ²) of a mean of m independent draws from each law.

    By counting which of the m draws coincide in (Σ gᵣ)^k; no cumulants, so that it is no copy of
    what it helps to judge.
    """
    # in units of the root mean square, so that fourth powers of tiny gradients stay accurate
    scale = np.sqrt(laws.moment(2))
    one, two, three, four = (laws.moment(k) / scale**k for k in (1, 2, 3, 4))
    pairs, triples = m * (m - 1), m * (m - 1) * (m - 2)
    quadruples = triples * (m - 3)
    square = (m * two + pairs * one**2) / m**2
    cube = (m * three + 3 * pairs * one * two + triples * one**3) / m**3
    fourth = (
        m * four
        + pairs * (4 * one * three + 3 * two**2)
        + 6 * triples * one**2 * two
        + quadruples * one**4
    ) / m**4
    cov, var = cube - one * square, fourth - square**2
    return one * scale, square * scale**2, cov * scale**3, var * scale**4
