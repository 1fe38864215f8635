"""AdamW in nine settings on the same gradients: what each leaves of the plain update's bias.

Thousands of independent coordinates, with four noise shares side by side, take the same steps in
every setting, with the optimizers and the statistics that users have. The plain update's bias is
known exactly at every step (`validation.moving_bias`); what a setting changes of it is the mean of
a paired difference, so that the noise of the update itself drops out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW
from validation.moving_bias import mean_update, noise_of_mean, population

BETAS = (0.9, 0.95)
SHARES = (0.1, 0.5, 0.78, 0.95)
LAWS = ("normal", "skewed", "student_t")


@dataclass(frozen=True)
class Way:
    """Options that together are one way to correct."""

    correction: str
    storage: str | None
    every: int

    @property
    def name(self) -> str:
        return f"{self.correction}, {self.storage or 'full precision'}, every={self.every}"


REFERENCE = Way("delta", None, 1)
CANDIDATE = Way("delta", "int8", 16)
WAYS = (
    REFERENCE,
    Way("delta", "int8", 1),
    CANDIDATE,
    Way("delta", "int8", 32),
    Way("delta", "bfloat16", 16),
    Way("closed_form", None, 1),
    Way("closed_form", "int8", 16),
    Way("closed_form", "int8", 32),
)


@dataclass(frozen=True)
class Scene:
    """How mean and noise of the gradients move, as factors at step t, and which steps are judged.

    Steps 1, 17, 33 … are looked at with every=16, steps 1, 33, 65 … with every=32.
    """

    mean: Callable[[int], float]
    noise: Callable[[int], float]
    phases: Mapping[str, tuple[int, ...]]

    @property
    def steps(self) -> int:
        return max(t for steps in self.phases.values() for t in steps)

    def factors(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """μ_k and τ_k of the steps' mean gradients; ``share`` is that of the noise at factors 1."""
        at = range(1, self.steps + 1)
        ratio = (share / (1 - share)) ** 0.5
        return np.array([self.mean(t) for t in at]), ratio * np.array([self.noise(t) for t in at])


JUMP = 73
"""In the middle of a cycle of 16, one step after a quarter of a cycle of 32."""

CYCLE = tuple(range(65, 97))
START = {"first cycle": tuple(range(8, 17)), "steps 49 to 64": tuple(range(49, 65))}
MOVING = {"a cycle of 32": CYCLE, "before a look": (96,)}
AFTER = {
    "until the next look": tuple(range(JUMP, 81)),
    "a cycle later": tuple(range(81, 97)),
    "two cycles later": tuple(range(97, 113)),
}


def _one(t: int) -> float:
    return 1.0


def _falls(factor: float) -> Callable[[int], float]:
    return lambda t: factor ** (-t / 100)


def _jumps(factor: float) -> Callable[[int], float]:
    return lambda t: factor if t >= JUMP else 1.0


def _flips(steps: int) -> Callable[[int], float]:
    return lambda t: -1.0 if (t - 1) // steps % 2 else 1.0


SCENES = {
    "constant": Scene(_one, _one, START | MOVING),
    "scale falls 2x": Scene(_falls(2), _falls(2), MOVING),
    "scale falls 10x": Scene(_falls(10), _falls(10), MOVING),
    "signal fades 10x": Scene(_falls(10), _one, MOVING),
    "scale jumps up 10x": Scene(_jumps(10), _jumps(10), AFTER),
    "scale jumps down 10x": Scene(_jumps(0.1), _jumps(0.1), AFTER),
    "mean flips every 8": Scene(_flips(8), _one, MOVING),
    "mean flips every step": Scene(_flips(1), _one, MOVING),
}
"""The flips keep time with the looks on purpose: each look finds the mean at the same phase."""


# -- what is known exactly ------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """Of the plain update at the steps of a scene, ``[shares, T + 1]``, NaN where not judged."""

    target: np.ndarray
    bias: np.ndarray


@cache
def truth(scene: str, law: str, microbatches: int) -> Truth:
    """u* and E u − u* at every judged step."""
    judged = sorted({t for steps in SCENES[scene].phases.values() for t in steps})
    noise = noise_of_mean(law, microbatches)
    target = np.full((len(SHARES), SCENES[scene].steps + 1), np.nan)
    bias = target.copy()
    for i, share in enumerate(SHARES):
        means, sds = SCENES[scene].factors(share)
        for t in judged:
            target[i, t] = population(means, sds, BETAS, t)
            bias[i, t] = mean_update(means, sds, noise, BETAS, t) - target[i, t]
    return Truth(target, bias)


# -- what the optimizers do -----------------------------------------------------------------------


class _Runner:
    """One optimizer with its statistics; its parameter is put back to zero before each step."""

    def __init__(self, way: Way | None, shape: tuple[int, ...]):
        self.param = Parameter(torch.zeros(shape))
        self.stats = None
        self.optimizer = AdamW(
            [self.param], lr=1.0, betas=BETAS, eps=0.0, weight_decay=0.0,
            correction=way.correction if way else "none", storage=way.storage if way else None,
        )  # fmt: skip
        if way:
            self.stats = MicrobatchStats([self.param], moments=3, every=way.every)
            self.optimizer.attach(self.stats)

    def update(self, grads: torch.Tensor, mean: torch.Tensor, seen: MicrobatchStats):
        """The step's update; ``seen`` has added the step's microbatches already."""
        if self.stats is not None:
            if self.stats.is_looking:
                self.stats.merge(seen)
            else:
                for grad in grads:
                    self.stats.add([grad])
        with torch.no_grad():
            self.param.zero_()
        self.param.grad = mean
        self.optimizer.step()
        return -self.param.detach()


def _draws(law: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Variance 1; skewness 2 of ``skewed``, five degrees of freedom of ``student_t``."""
    if law == "skewed":
        return rng.standard_exponential(shape, dtype=np.float32) - 1
    z = rng.standard_normal(shape, dtype=np.float32)
    if law == "student_t":
        # t = z √(5/χ²₅), χ²₅ = 2 Γ(5/2), and √(3/5) makes the variance one
        z *= np.sqrt(1.5 / rng.standard_gamma(2.5, shape, dtype=np.float32))
    return z


@dataclass(frozen=True)
class Task:
    """One simulation: every way, every share, in one scene."""

    scene: str
    law: str
    microbatches: int
    coordinates: int
    seed: int
    ways: tuple[Way, ...] = WAYS


def updates(task: Task):
    """Yield (t, plain update, [update of each way]), ``[shares, coordinates]`` each."""
    scene, shape = SCENES[task.scene], (len(SHARES), task.coordinates)
    rng = np.random.default_rng(task.seed)
    plain, ways = _Runner(None, shape), [_Runner(way, shape) for way in task.ways]
    source = MicrobatchStats([Parameter(torch.zeros(shape))], moments=3)
    factors = [scene.factors(share) for share in SHARES]
    for t in range(1, scene.steps + 1):
        z = torch.from_numpy(_draws(task.law, rng, (task.microbatches, 1, task.coordinates)))
        means, sds = (
            torch.tensor([pair[k][t - 1] for pair in factors], dtype=torch.float32)[:, None]
            for k in (0, 1)
        )
        grads = means + sds * task.microbatches**0.5 * z
        mean = grads.mean(0)
        if any(way.stats.is_looking for way in ways):
            source.reset()
            for grad in grads:
                source.add([grad])
        yield t, plain.update(grads, mean, source), [w.update(grads, mean, source) for w in ways]


# -- both together --------------------------------------------------------------------------------


class _Phase:
    """Per coordinate: the paired difference along the plain bias, and squared errors."""

    def __init__(self, steps: tuple[int, ...], known: Truth, count: int):
        self.steps = frozenset(steps)
        at = list(steps)
        self.size = np.sqrt((known.target[:, at] ** 2).mean(axis=1))
        self.plain = np.abs(known.bias[:, at]).mean(axis=1)
        self.along = np.sign(known.bias) / (len(at) * self.plain[:, None])
        self.moved = [0.0] * count
        self.squares = [0.0] * (count + 1)

    def add(self, t: int, target: torch.Tensor, plain: torch.Tensor, found: list) -> None:
        if t not in self.steps:
            return
        along = torch.from_numpy(self.along[:, t : t + 1])
        self.squares[-1] = self.squares[-1] + (plain - target).square()
        for i, update in enumerate(found):
            self.moved[i] = self.moved[i] + (update - plain) * along
            self.squares[i] = self.squares[i] + (update - target).square()

    def lines(self, task: Task, phase: str) -> list[dict]:
        """One line for each way and share."""
        lines = []
        left = [1 + moved for moved in self.moved]
        reference = left[task.ways.index(REFERENCE)] if REFERENCE in task.ways else None
        for way, mine, squares in zip(task.ways, left, self.squares, strict=False):
            for i, share in enumerate(SHARES):
                part, ratio = _estimate(mine[i]), _ratio(squares[i], self.squares[-1][i])
                lost = (None, None)
                if reference is not None:
                    lost = _lost(mine[i], reference[i])
                lines.append(
                    {
                        "way": way.name, "scene": task.scene, "law": task.law,
                        "microbatches": task.microbatches, "noise_share": share, "phase": phase,
                        "plain_bias_of_update": self.plain[i] / self.size[i],
                        "left": part[0], "standard_error": part[1],
                        "lost_to_reference": lost[0], "standard_error_of_lost": lost[1],
                        "error_ratio": ratio[0], "standard_error_of_ratio": ratio[1],
                    }
                )  # fmt: skip
        return lines


def _estimate(values: torch.Tensor) -> tuple[float, float]:
    """(mean, standard error)."""
    return values.mean().item(), values.std().item() / len(values) ** 0.5


def _lost(mine: torch.Tensor, reference: torch.Tensor) -> tuple[float, float]:
    """|left| less the reference's |left|; the error is that of the paired difference."""
    signs = mine.mean().sign(), reference.mean().sign()
    return _estimate(mine * signs[0] - reference * signs[1])


def _ratio(corrected: torch.Tensor, plain: torch.Tensor) -> tuple[float, float]:
    """Root mean square error over the plain update's, and its standard error."""
    square = (corrected.mean() / plain.mean()).item()
    error = (corrected - square * plain).std().item() / len(plain) ** 0.5 / plain.mean().item()
    return square**0.5, error / (2 * square**0.5)


def run(task: Task) -> list[dict]:
    """Lines of every phase, way and share of one simulation."""
    torch.set_num_threads(1)
    known = truth(task.scene, task.law, task.microbatches)
    phases = {
        name: _Phase(steps, known, len(task.ways))
        for name, steps in SCENES[task.scene].phases.items()
    }
    for t, plain, found in updates(task):
        target = torch.from_numpy(known.target[:, t : t + 1])
        for phase in phases.values():
            phase.add(t, target, plain, found)
    return [line for name, phase in phases.items() for line in phase.lines(task, name)]
