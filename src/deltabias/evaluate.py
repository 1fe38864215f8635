"""The slow, readable evaluation of a correction, on numpy arrays or mpmath numbers.

It interprets the same record that the code generator prints, with none of the printer's code:
ground truth (exact enumeration, Monte Carlo) goes through it, and generated functions are held
against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import mpmath
import numpy as np
import sympy as sp

from deltabias.calculus.weights import STEP
from deltabias.correction import Correction
from deltabias.derivation import MICROBATCHES
from deltabias.errors import StrategyError
from deltabias.rule import MEAN, State
from deltabias.safe_form import numerator_of

TINY = 2.0**-126

Array = Any
"""numpy array of floats, or of mpmath numbers; the last axis runs over microbatches."""


@dataclass(frozen=True)
class Microbatches:
    """The observations of one step's microbatches, `[..., n]`, each with a count `[n]`.

    ``values`` maps ``x`` (the gradient), ``y`` (the gradient for drawn labels), or the name of an
    opaque state, to its observations.
    """

    values: Mapping[str, Array]
    counts: Array

    @property
    def size(self) -> int:
        return int(sum(int(c) for c in self.counts))

    def mean(self, array: Array) -> Array:
        """The mean over microbatches."""
        return (array * self.counts).sum(axis=-1) / self.size

    def without(self, index: int) -> "Microbatches":
        """One microbatch of column `index` left out."""
        counts = self.counts.copy()
        counts[index] -= 1
        keep = [i for i, c in enumerate(counts) if c > 0]
        return Microbatches({k: v[..., keep] for k, v in self.values.items()}, counts[keep])

    def only(self, index: int) -> "Microbatches":
        """Just one microbatch of column `index`."""
        one = self.counts[index : index + 1] * 0 + 1
        return Microbatches({k: v[..., index : index + 1] for k, v in self.values.items()}, one)


def step_statistic(state: State, batch: Microbatches) -> Array:
    """What this step contributes to a state."""
    statistic = state.statistic
    if statistic.opaque:
        return batch.mean(batch.values[state.name])
    x = statistic.observation
    mean = batch.mean(_polynomial(statistic.sample, x, batch.values[x.name]))
    return mean if statistic.outer is None else _polynomial(statistic.outer, MEAN, mean)


def _polynomial(expression: sp.Expr, variable: sp.Symbol, value: Array) -> Array:
    result = 0 * value
    for coefficient in sp.Poly(expression, variable).all_coeffs():
        result = result * value + (0 * value + int(coefficient.p)) / int(coefficient.q)
    return result


@dataclass
class Evaluator:
    """Runs a correction step by step.

    Parameters
    ----------
    correction : Correction
    hypers : values for the rule's hyperparameters; defaults are the rule's own
    backend : "numpy" or "mpmath"
    """

    correction: Correction
    hypers: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "numpy"

    def __post_init__(self) -> None:
        rule = self.correction.rule
        self._hypers = {
            h.name: h.check(self.hypers.get(h.name, h.default)) for h in rule.all_hypers
        }
        if unknown := set(self.hypers) - set(self._hypers):
            raise StrategyError(
                f"rule {rule.name!r} has no hyperparameter {', '.join(sorted(unknown))}; it has "
                f"{', '.join(self._hypers) or 'none'}."
            )
        self._functions: dict[sp.Expr, tuple] = {}
        self.reset()

    def reset(self) -> None:
        """Forget the history."""
        self.count = 0
        self._raw: dict[Any, dict[str, Array]] = {}
        self.values: dict[str, Array] = {}

    def __call__(self, *groups: Microbatches) -> Array:
        """One step: the corrected update, for one group of microbatches or several (cross-fit)."""
        self.count += 1
        folds = self.correction.folds
        if folds is None:
            return self._delta_step("all", _joined(groups))
        if folds.kind == "jackknife":
            return self._jackknife(_joined(groups))
        if folds.kind == "leave_one_out":
            return self._leave_one_out(_joined(groups))
        if len(groups) != folds.groups:
            raise StrategyError(f"cross-fitting needs {folds.groups} groups, got {len(groups)}.")
        updates = [
            self._fold(j, group, _joined(groups[:j] + groups[j + 1 :]))
            for j, group in enumerate(groups)
        ]
        return sum(updates[1:], updates[0]) / len(groups)

    # -- one fold -----------------------------------------------------------------------------

    def _evaluate(self, expression: sp.Expr, environment: Mapping[str, Array]) -> Array:
        if expression not in self._functions:
            symbols = sorted(expression.free_symbols, key=str)
            modules = "numpy" if self.backend == "numpy" else _mpmath_modules()
            self._functions[expression] = (
                [s.name for s in symbols],
                sp.lambdify(symbols, expression, modules=modules),
            )
        names, function = self._functions[expression]
        return function(*(environment[name] for name in names))

    def _remember(self, fold: Any, batches: Mapping[str, Microbatches]) -> dict[str, Array]:
        """Update the raw states of a fold; returns the environment with the states' values."""
        environment: dict[str, Array] = {**self._hypers, STEP.name: self.count}
        old = self._raw.get(fold, {})
        new = {}
        for state in self.correction.rule.states:
            contribution = step_statistic(state, batches[state.name])
            weights = state.weights
            decay = self._evaluate(sp.sympify(weights.decay), environment)
            gain = self._evaluate(sp.sympify(weights.gain), environment)
            new[state.name] = decay * old.get(state.name, 0) + gain * contribution
            normalizer = self._evaluate(sp.sympify(weights.normalizer(self.count)), environment)
            environment[state.name] = new[state.name] / normalizer
        self._raw[fold] = {**old, **new}
        environment["_old"], environment["_new"] = old, new
        return environment

    def _delta_step(self, fold: Any, batch: Microbatches) -> Array:
        rule = self.correction.rule
        if self.correction.terms and batch.size < 2:
            raise StrategyError(
                f"microbatches={batch.size} gives no variance estimate; need at least 2, or use "
                "strategy='plug_in'."
            )
        environment = self._remember(fold, dict.fromkeys((s.name for s in rule.states), batch))
        if not self.correction.terms:
            return self._evaluate(rule.update, environment)
        self._track(fold, batch, environment)
        return self._apply(environment)

    def _apply(self, environment: dict[str, Array]) -> Array:
        for moment in self.correction.kernel.moments:
            is_coupling = moment.moment.func.__name__ == "cov"
            if ("coupling" if is_coupling else "inversion") not in self.correction.terms:
                environment[moment.name] = 0 * environment[moment.name]
        for definition in self.correction.kernel.definitions:
            environment[definition.name] = self._evaluate(definition.expression, environment)
        self.values = environment
        return environment["update"]

    def _track(self, fold: Any, batch: Microbatches, environment: dict[str, Array]) -> None:
        tracking = self.correction.tracking
        second = self._preconditioner()
        environment[MICROBATCHES.name] = batch.size
        old = environment["_old"].get(second.name, 0)
        v = environment["_new"][second.name]
        v = v + (v == 0) * TINY  # as the generated code: nothing seen yet divides nothing
        environment["ratio"] = old / v
        if any(s.statistic.opaque for s in self.correction.rule.states):
            self._opaque_moments(batch, environment, v, second)
        else:
            root = v ** self._half()
            environment["root"] = root
            x = batch.values[second.statistic.observation.name]
            mean = batch.mean(x)
            environment["step_mean"] = mean / root
            deviation = x - np.asarray(mean)[..., None]
            for order in range(2, tracking.highest + 1):
                environment[f"c{order}"] = batch.mean(deviation**order) / root**order
        for scalar in tracking.scalars:
            environment[scalar.name] = self._evaluate(scalar.expression, environment)
        kept = self._raw[fold]
        for a in tracking.accumulators:
            increment = self._evaluate(a.gain * a.increment, environment)
            if a.kept:
                shrink = self._evaluate(a.decay, environment) * environment["ratio"] ** (
                    self._half() * int(2 * a.power)
                )
                increment = shrink * kept.get(a.name, 0) + increment
            kept[a.name] = environment[a.name] = increment
        if tracking.model in ("closure", "closed_form"):
            environment["root_mean_square"] = (v / environment["unit"]) ** self._half()
        for moment in tracking.moments:
            environment[moment.name] = self._evaluate(moment.expression, environment)

    def _opaque_moments(self, batch, environment, v, second) -> None:
        """Unbiased (co)variances of the step means, relative to the preconditioner's state."""
        named = {s.symbol: s for s in self.correction.rule.states}
        for moment in self.correction.kernel.moments:
            symbols = moment.moment.args if len(moment.moment.args) == 2 else moment.moment.args * 2
            first, other = (batch.values[named[s].name] for s in symbols)
            product = batch.mean(first * other) - batch.mean(first) * batch.mean(other)
            estimate = product / (batch.size - 1)
            divisor = self._evaluate(moment.divisor, environment)
            environment[moment.name] = estimate / divisor
            kind = f"step_{moment.moment.func.__name__}"
            environment[kind] = estimate / (v if kind == "step_cov" else v**2)

    def _preconditioner(self) -> State:
        numerator = numerator_of(self.correction.derivation)
        return next(s for s in self.correction.rule.states if s.symbol != numerator)

    def _half(self) -> Any:
        return 0.5 if self.backend == "numpy" else mpmath.mpf(1) / 2

    # -- folds --------------------------------------------------------------------------------

    def _fold(self, key: Any, top: Microbatches, bottom: Microbatches) -> Array:
        """Numerator from one group, everything else from the other."""
        numerator = numerator_of(self.correction.derivation)
        rule = self.correction.rule
        batches = {s.name: top if s.symbol == numerator else bottom for s in rule.states}
        environment = self._remember(key, batches)
        if not self.correction.terms:
            return self._evaluate(rule.update, environment)
        self._group_moments(bottom, environment)
        return self._apply(environment)

    def _group_moments(self, batch: Microbatches, environment: dict[str, Array]) -> None:
        """Within the step: the variance of the newest contribution, with its weight squared."""
        second = self._preconditioner()
        observation = second.statistic.observation
        x = batch.values[second.name if observation is None else observation.name]
        if second.statistic.outer is None:
            sample = (
                x
                if second.statistic.opaque
                else _polynomial(second.statistic.sample, observation, x)
            )
            mean = batch.mean(sample)
            variance = batch.mean((sample - np.asarray(mean)[..., None]) ** 2) / (batch.size - 1)
        else:  # var(ḡ²) = 4 ḡ² ν - 2 ν² (m-1)/(m+1), unbiased for normal gradients
            mean = batch.mean(x)
            noise = batch.mean((x - np.asarray(mean)[..., None]) ** 2) / (batch.size - 1)
            m = batch.size
            variance = 4 * mean**2 * noise - 2 * noise**2 * (m - 1) / (m + 1)
        weight = self._evaluate(sp.sympify(second.weights.gain), environment) / self._evaluate(
            sp.sympify(second.weights.normalizer(self.count)), environment
        )
        for moment in self.correction.kernel.moments:
            environment[moment.name] = weight**2 * variance / environment[second.name] ** 2

    def _leave_one_out(self, batch: Microbatches) -> Array:
        total = 0
        for i, count in enumerate(batch.counts):
            rest = batch.without(i)
            total = total + count * self._fold(("one", i), batch.only(i), rest)
        return total / batch.size

    def _jackknife(self, batch: Microbatches) -> Array:
        rule, m = self.correction.rule, batch.size

        def plug_in(key: Any, part: Microbatches) -> Array:
            states = dict.fromkeys((s.name for s in rule.states), part)
            return self._evaluate(rule.update, self._remember(key, states))

        whole = plug_in("all", batch)
        left = 0
        for i, count in enumerate(batch.counts):
            left = left + count * plug_in(("without", i), batch.without(i))
        return m * whole - (m - 1) * left / m


def _joined(groups: Sequence[Microbatches]) -> Microbatches:
    if len(groups) == 1:
        return groups[0]
    values = {k: np.concatenate([g.values[k] for g in groups], axis=-1) for k in groups[0].values}
    return Microbatches(values, np.concatenate([g.counts for g in groups]))


@cache
def _mpmath_modules() -> list:
    """SymPy's function names on (arrays of) mpmath numbers."""
    unary = ("sqrt", "exp", "log", "tanh", "atan", "erf", "sign")
    table = {name: np.frompyfunc(getattr(mpmath, name), 1, 1) for name in unary}
    # python's min and max have no ufunc signature; two arguments are all that is printed here
    table["clip"] = np.frompyfunc(lambda x, low, high: max(low, min(high, x)), 3, 1)
    table |= {"Min": np.frompyfunc(min, 2, 1), "Max": np.frompyfunc(max, 2, 1), "Abs": abs}
    return [table, "mpmath"]
