"""Whole trajectories through the reference evaluator, corrected and plug-in on the same draws.

A standardized draw z is shared by all noise levels: gradients are 1 + noise · scale(t) · z, so
levels sit side by side on the first axis and differences between them are sharp as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from deltabias.correction import correct
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rules import get_rule

JUMP = 100
TINY = 1e-14
"""Stands for an exact zero: far below eps, while the evaluator still has something to divide by."""

SCALES: Mapping[str, Callable[[int], float]] = {
    "constant": lambda t: 1.0,
    "up": lambda t: 1.0 if t <= JUMP else 10.0,
    "down": lambda t: 10.0 if t <= JUMP else 1.0,
    "alternating": lambda t: 1.0 if t % 2 else 10.0,
    "sparse": lambda t: 1.0,
}
"""How the standard deviation moves over the steps."""

DENSITY = {"sparse": 0.05}
"""Share of the steps at which a coordinate has a gradient at all; 1 where not named."""

DRAWS: Mapping[str, Callable[[np.random.Generator, tuple], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1,
    "student_t": lambda rng, shape: rng.standard_t(5, shape) * (3 / 5) ** 0.5,
}
"""Mean 0 and variance 1; skewness 2 of ``skewed``, five degrees of freedom of ``student_t``."""


@dataclass(frozen=True)
class Gradients:
    """The microbatches' gradients of one coordinate with mean 1."""

    law: str
    noises: tuple[float, ...]
    microbatches: int
    scenario: str = "constant"

    def step(self, rng: np.random.Generator, t: int, n: int) -> np.ndarray:
        """Step t of n replicates, ``[noises, n, m]``."""
        z = DRAWS[self.law](rng, (n, self.microbatches))
        noise = SCALES[self.scenario](t) * np.array(self.noises)[:, None, None]
        gradients = 1 + noise * z
        density = DENSITY.get(self.scenario, 1.0)
        if density < 1:
            # one draw for the whole step of a coordinate: all its microbatches are zero or none
            zero = rng.random((n, 1)) >= density
            gradients = np.where(zero, TINY * z, gradients)
        return gradients

    def targets(self, rule_name: str, betas: Mapping[str, float], t: int) -> np.ndarray:
        """The population update T(E S) at step t, ``[noises]``, without eps."""
        of_squares = get_rule(rule_name).states[-1].statistic.outer is None
        density = DENSITY.get(self.scenario, 1.0)
        mean = spread = 0.0
        noise = np.array(self.noises)
        for k in range(1, t + 1):
            variance = (SCALES[self.scenario](k) * noise) ** 2
            square = 1 + (variance if of_squares else variance / self.microbatches)
            mean = betas["beta1"] * mean + (1 - betas["beta1"]) * density
            spread = betas["beta2"] * spread + (1 - betas["beta2"]) * density * square
        m_hat = mean / (1 - betas["beta1"] ** t)
        return m_hat / np.sqrt(spread / (1 - betas["beta2"] ** t))


@dataclass(frozen=True)
class Paired:
    """Corrected and plug-in updates at one step, ``[noises]`` each.

    ``gain`` is the mean of corrected − plug-in, with its standard error; ``ratio`` the corrected
    root mean square error over the plug-in's, with its own; ``variance_ratio`` without the bias.
    """

    target: np.ndarray
    gain: np.ndarray
    gain_error: np.ndarray
    ratio: np.ndarray
    ratio_error: np.ndarray
    variance_ratio: np.ndarray
    plug_in_bias: np.ndarray
    replicates: int


@cache
def _correction(rule_name: str, strategy: str):
    return correct(get_rule(rule_name), strategy)


class _Sums:
    """Sums over replicates of the corrected and plug-in errors and their products."""

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0

    def add(self, corrected: np.ndarray, plug_in: np.ndarray, target: np.ndarray) -> None:
        e, p = corrected - target[:, None], plug_in - target[:, None]
        gain, e2, p2 = e - p, e * e, p * p
        columns = (e, p, gain, gain * gain, e2, p2, e2 * e2, e2 * p2, p2 * p2)
        self.total = self.total + np.stack([c.sum(axis=1) for c in columns])
        self.count += plug_in.shape[1]

    def result(self, target: np.ndarray) -> Paired:
        n = self.count
        e, p, gain, gain2, e2, p2, e4, e2p2, p4 = self.total / n
        square = e2 / p2
        # of a ratio of means: the spread of x − R y over the mean of y
        spread = np.maximum(e4 - 2 * square * e2p2 + square**2 * p4, 0)
        square_error = np.sqrt(spread / n) / p2
        return Paired(
            target=target,
            gain=gain,
            gain_error=np.sqrt(np.maximum(gain2 - gain**2, 0) / n),
            ratio=np.sqrt(square),
            ratio_error=square_error / (2 * np.sqrt(square)),
            variance_ratio=(e2 - e**2) / (p2 - p**2),
            plug_in_bias=p,
            replicates=n,
        )


def _trajectories(rule_name, strategy, gradients, steps, *, betas, replicates, seed, eps, chunk):
    """Yield (chunk's number, t, corrected, plug-in) for every step, chunk after chunk."""
    rng = np.random.default_rng(seed)
    ones = np.ones(gradients.microbatches)
    first, second = (s.name for s in get_rule(rule_name).states)
    # one evaluator for all chunks: what it compiles, it compiles once
    evaluator = Evaluator(_correction(rule_name, strategy), {**betas, "eps": eps})
    for number, begin in enumerate(range(0, replicates, chunk)):
        evaluator.reset()
        n = min(chunk, replicates - begin)
        for t in range(1, steps + 1):
            corrected = evaluator(Microbatches({"x": gradients.step(rng, t, n)}, ones))
            states = evaluator.values
            yield number, t, corrected, states[first] / (np.sqrt(states[second]) + eps)


def paired_errors(
    rule_name: str,
    strategy: str,
    gradients: Gradients,
    at: tuple[int, ...],
    *,
    betas: Mapping[str, float],
    replicates: int,
    seed: int,
    eps: float = 0.0,
    chunk: int = 4000,
) -> dict[int, Paired]:
    """Corrected against plug-in at the steps ``at``; all numbers fixed beforehand."""
    targets = {t: gradients.targets(rule_name, betas, t) for t in at}
    sums = {t: _Sums() for t in at}
    draws = _trajectories(
        rule_name, strategy, gradients, max(at),
        betas=betas, replicates=replicates, seed=seed, eps=eps, chunk=chunk,
    )  # fmt: skip
    for _, t, corrected, plug_in in draws:
        if t in sums:
            sums[t].add(corrected, plug_in, targets[t])
    return {t: sums[t].result(targets[t]) for t in at}


def mean_gain(
    rule_name: str,
    strategy: str,
    gradients: Gradients,
    at: tuple[int, ...],
    *,
    betas: Mapping[str, float],
    replicates: int,
    seed: int,
    chunk: int = 2000,
) -> tuple[np.ndarray, np.ndarray]:
    """E(corrected − plug-in) and its standard error, ``[noises]``, averaged over the steps ``at``.

    In the steady state every step has the same mean, so one trajectory gives many of them. They
    are correlated: the error comes from the spread of the trajectories' averages.
    """
    wanted, parts = set(at), []
    draws = _trajectories(
        rule_name, strategy, gradients, max(at),
        betas=betas, replicates=replicates, seed=seed, eps=0.0, chunk=chunk,
    )  # fmt: skip
    for number, t, corrected, plug_in in draws:
        if number == len(parts):
            parts.append(0.0)
        if t in wanted:
            parts[number] = parts[number] + (corrected - plug_in) / len(at)
    averages = np.concatenate(parts, axis=-1)
    error = averages.std(axis=-1, ddof=1) / np.sqrt(averages.shape[-1])
    return averages.mean(axis=-1), error
