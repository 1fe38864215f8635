r"""The generated functions of a matrix rule as estimators on batches, one for each mode.

From every value is subtracted the same second-order control. With δ_r = S_r − E S the deviations of
one microbatch's statistics, δ̄ their mean, and Q the second order of the update at the population,

.. math:: C = Q[\bar\delta] - \frac{1}{m^2}\sum_r Q[\delta_r]
            = \frac{1}{m^2}\sum_{r \ne s} B(\delta_r, \delta_s),
              \qquad Q[\delta] = B(\delta, \delta)

has mean exactly zero for *every* quadratic form Q, because different microbatches are independent:
the form comes from the code under judgment, and an error in it costs variance, never a bias. That
it is quadratic is checked. Beside it stands the linear control of `deltabias.truth`; together they
leave noise of the third order, so that shares of a bias of a part in a thousand come out to a
percent. Both are weighted by numbers fitted on a pilot of its own stream: one each for a smooth
rule, next to zero where an expansion at the population says little of the noise, as for Muon.
"""

import importlib
from collections.abc import Callable
from functools import lru_cache, partial
from math import sqrt
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from deltabias.codegen.matrix_emit import module_source
from deltabias.errors import DeltabiasError
from deltabias.matrix_derivation import derive_matrix
from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_scenario import LEFT, RIGHT, MatrixScenario
from deltabias.rules import MATRIX_CATALOGUE
from deltabias.truth import LinearControl

MODES = ("plug_in", "cross_fit", "eigenvalue_only", "diagonal", "sketch", "full")
WITHOUT = "plug_in less "
"""Prefix of the estimators that subtract one term by name, without a safe form."""

QUADRATIC = 1e-9
"""What a quadratic form may miss the parallelogram law by, relative to its own size."""

PILOT = 128
"""Batches that the controls' two weights are fitted on."""

Estimator = Callable[[np.ndarray], np.ndarray]


@lru_cache(maxsize=64)
def generated_module(rule: MatrixRule) -> ModuleType:
    """The committed module of a catalogue rule, or one printed now from the rule's own tree."""
    if MATRIX_CATALOGUE.get(rule.name) == rule:
        return importlib.import_module(f"deltabias.generated.{rule.name}")
    module = ModuleType(f"generated_{rule.name}")
    source = module_source(rule, derive_matrix(rule))
    exec(compile(source, f"<generated {rule.name}>", "exec"), module.__dict__)
    return module


class ModeFailed(DeltabiasError):
    """A mode gave no value for some batch; which one, and why."""

    def __init__(self, mode: str, text: str) -> None:
        super().__init__(text)
        self.mode = mode


class Modes:
    """Values of every mode on batches of gradients [N, m, d, n], the control already subtracted.

    Each call of `estimators` works on the same batch in turn, so its statistics are kept.
    """

    def __init__(self, scene: MatrixScenario, *, seed: int = 0, control: bool = True) -> None:
        self.scene, self.module = scene, generated_module(scene.rule)
        self.signs = torch.Generator().manual_seed(seed)
        self.roles = [scene.roles[name] for name in scene.names]
        self.population = [torch.tensor(scene.population[r]) for r in self.roles]
        self.control = control
        self.weights: tuple[float, float] | None = None
        self._gradients: np.ndarray | None = None
        self._kept: dict[str, object] = {}
        if control:
            self._check_quadratic()
            self.linear = LinearControl.of(scene.population_map, scene.law)
            self._fit(seed)

    @property
    def estimators(self) -> dict[str, Estimator]:
        """By mode, those that the rule has; see `missing` for the others."""
        functions: dict[str, Callable[[], Tensor]] = {
            "plug_in": self._plug_in,
            "cross_fit": self._cross_fit,
            "sketch": self._sketch,
            "full": partial(self._corrected, "corrected_update"),
        }
        for mode in ("eigenvalue_only", "diagonal"):
            if mode not in self.missing:
                functions[mode] = partial(self._corrected, f"corrected_update_{mode}")
        return {m: partial(self._guarded, m, functions[m]) for m in MODES if m in functions}

    @property
    def missing(self) -> dict[str, str]:
        """Modes that this rule does not have, and why."""
        return {
            mode: "the rule has no function of a symmetric matrix, so no eigenvalues"
            for mode in ("eigenvalue_only", "diagonal")
            if not hasattr(self.module, f"corrected_update_{mode}")
        }

    @property
    def term_estimators(self) -> dict[str, Estimator]:
        """The plug-in less one estimated term, by the term's name; nothing kept positive."""
        point = [a.unsqueeze(0) for a in self.population]
        none = [torch.zeros_like(a).unsqueeze(1) for a in point]
        names = self.module.second_order(*point, *none, **self.scene.hypers)
        return {f"{WITHOUT}{n}": partial(self._value, partial(self._less, n)) for n in names}

    # -- the statistics of a batch ----------------------------------------------------------------

    def _of(self, role: int, gradients: Tensor) -> Tensor:
        if role == LEFT:
            return gradients @ gradients.mT
        return gradients.mT @ gradients if role == RIGHT else gradients

    def _load(self, gradients: np.ndarray) -> None:
        if self._gradients is gradients:
            return
        m, tensor = gradients.shape[1], torch.from_numpy(gradients)
        samples = [self._of(role, tensor) for role in self.roles]
        means = [s.mean(1) for s in samples]
        scale = 1 / sqrt(m * (m - 1))
        deviations = [scale * (s - x.unsqueeze(1)) for s, x in zip(samples, means, strict=True)]
        self._gradients = gradients
        self._kept = {"samples": samples, "means": means, "deviations": deviations}
        if self.control:
            linear = torch.from_numpy(self.linear(gradients))
            controls = linear, self._second_order_control(samples, means)
            self._kept["controls"] = controls
            if self.weights is not None:
                a, b = self.weights
                self._kept["control"] = a * controls[0] + b * controls[1]

    def _fit(self, seed: int) -> None:
        """The controls' weights, by least squares on a pilot that no estimate sees."""
        rng = np.random.default_rng(np.random.SeedSequence([seed, PILOT]))
        self._load(self.scene.law.sample(rng, (PILOT, self.scene.microbatches)))
        error = self._plug_in() - torch.from_numpy(self.scene.target)
        columns = torch.stack([c.flatten() for c in self._kept["controls"]], dim=1)
        found = torch.linalg.lstsq(columns, error.flatten().unsqueeze(1), driver="gelsd")
        self.weights = tuple(found.solution.flatten().tolist())
        self._gradients = None

    def _second_order_control(self, samples: list[Tensor], means: list[Tensor]) -> Tensor:
        m = samples[0].shape[1]
        pairs = list(zip(samples, means, self.population, strict=True))
        together = self._quadratic([(x - p).unsqueeze(1) for _, x, p in pairs])
        return together - self._quadratic([(s - p) / m for s, _, p in pairs])

    def _quadratic(self, deviations: list[Tensor]) -> Tensor:
        terms = self.module.second_order(*self.population, *deviations, **self.scene.hypers)
        return sum(terms.values())

    def _check_quadratic(self) -> None:
        """Q[a + b] + Q[a − b] = 2 Q[a] + 2 Q[b] at random a, b: the control's mean rests on it."""
        rng, pairs = np.random.default_rng(0), []
        gradients = torch.from_numpy(self.scene.law.sample(rng, (2, 1)))
        for role, point in zip(self.roles, self.population, strict=True):
            pairs.append(self._of(role, gradients) - point)
        a, b = ([x[i : i + 1] for x in pairs] for i in (0, 1))
        signed = [[x + s * y for x, y in zip(a, b, strict=True)] for s in (1, -1)]
        left = self._quadratic(signed[0]) + self._quadratic(signed[1])
        right = 2 * (self._quadratic(a) + self._quadratic(b))
        if not float((left - right).abs().max()) <= QUADRATIC * float(right.abs().max()):
            raise RuntimeError(
                f"second_order of {self.scene.rule.name!r} is not quadratic in the deviations."
            )

    # -- the modes --------------------------------------------------------------------------------

    def _guarded(self, mode: str, function: Callable[[], Tensor], gradients: np.ndarray):
        try:
            return self._value(function, gradients)
        except torch.linalg.LinAlgError as error:
            raise ModeFailed(mode, f"failed in a batch: {error}") from error

    def _value(self, function: Callable[[], Tensor], gradients: np.ndarray) -> np.ndarray:
        self._load(gradients)
        return (function() - self._kept.get("control", 0.0)).numpy()

    def _plug_in(self) -> Tensor:
        return self.module.plug_in_update(*self._kept["means"], **self.scene.hypers)

    def _corrected(self, name: str) -> Tensor:
        function = getattr(self.module, name)
        return function(*self._kept["means"], *self._kept["deviations"], **self.scene.hypers)

    def _sketch(self) -> Tensor:
        """One joint direction: the same random signs for every matrix."""
        return self.module.corrected_update(
            *self._kept["means"], *self.sketched(), **self.scene.hypers
        )

    def sketched(self) -> list[Tensor]:
        """Signed sums of the kept batch's deviations, [N, 1, …], with signs drawn anew."""
        deviations = self._kept["deviations"]
        shape = deviations[0].shape[:2]
        signs = 2.0 * torch.randint(2, shape, generator=self.signs).double() - 1.0
        weights = signs[..., None, None]
        return [(weights * d).sum(1, keepdim=True) for d in deviations]

    def estimated_bias(self, *, sketch: bool = False) -> Tensor:
        """The sum of the estimated terms on the kept batch, [N, …], of one sketch or in full."""
        deviations = self.sketched() if sketch else self._kept["deviations"]
        terms = self.module.second_order(*self._kept["means"], *deviations, **self.scene.hypers)
        return sum(terms.values())

    def _cross_fit(self) -> Tensor:
        """The gradient from one half, the factors from the other, both folds averaged."""
        half = self._kept["samples"][0].shape[1] // 2
        folds = []
        for side in (slice(half), slice(half, None)):
            other = slice(half, None) if side == slice(half) else slice(half)
            means = [
                s[:, other if role in (LEFT, RIGHT) else side].mean(1)
                for role, s in zip(self.roles, self._kept["samples"], strict=True)
            ]
            folds.append(self.module.plug_in_update(*means, **self.scene.hypers))
        return 0.5 * (folds[0] + folds[1])

    def _less(self, name: str) -> Tensor:
        if "terms" not in self._kept:
            self._kept["terms"] = self.module.second_order(
                *self._kept["means"], *self._kept["deviations"], **self.scene.hypers
            )
        return self._plug_in() - self._kept["terms"][name]
