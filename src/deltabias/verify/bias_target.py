"""The population update, exactly, and the uncorrected update, read off a rule and a law's moments.

A scalar rule's states are averages of polynomials of one gradient, or polynomials of an average:
their expectations are finite sums of the law's moments. A matrix rule's are E G, E G Gᵀ, E Gᵀ G.
No correction and no generated code takes part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Number
from typing import Any

import numpy as np
import sympy as sp
import torch

from deltabias.errors import RuleError
from deltabias.matrix_parser import parse_matrix
from deltabias.matrix_rule import MatrixRule, MatrixState
from deltabias.parser import parse_expression
from deltabias.report.matrix_population import population_map
from deltabias.report.matrix_scenario import BY_NAME, SAMPLES
from deltabias.rule import GRADIENT, MEAN, State, UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE
from deltabias.truth.exact import cumulants_from_moments
from deltabias.verify.bias_source import Source

Array = np.ndarray


class UnusableTarget(ValueError):
    """The population update cannot be had from what was passed; the text says why."""


@dataclass(frozen=True)
class Target:
    """``value(m)`` is u* at m microbatches, float64 [*out]; ``plug_in`` maps batches to updates.

    u* depends on m only where a rule squares a mean: E ḡ² = μ² + σ²/m.
    """

    value: Callable[[int], Array]
    plug_in: Callable[[torch.Tensor], Any] | None = field(default=None, repr=False)
    name: str = ""


def read_rule(target: Any) -> UpdateRule | MatrixRule | None:
    """The rule that a ``target=`` argument names, spells or is; None for a number or a tensor."""
    if isinstance(target, UpdateRule | MatrixRule):
        return target
    if not isinstance(target, str):
        return None
    known = {**CATALOGUE, **MATRIX_CATALOGUE}
    if target in known:
        return known[target]
    # only matrices are written with capitals
    kind = MatrixRule if any(c.isupper() for c in target) else UpdateRule
    return kind.parse(target)


def read_target(
    target: Any,
    source: Source,
    *,
    steps: int | None = None,
    warm: Array | None = None,
    hypers: Mapping[str, float] | None = None,
    statistics: Mapping[str, str] | None = None,
) -> Target:
    """The population update that a ``target=`` argument stands for.

    Raises
    ------
    UnusableTarget
        if it is not finite, or the law lacks a moment that the rule asks for.
    DeltabiasError, TypeError
        for a string that is no rule, or another type.
    """
    rule = read_rule(target)
    if rule is None:
        return _of_number(target)
    values = {
        h.name: float(h.check((hypers or {}).get(h.name, h.default))) for h in rule.all_hypers
    }
    if unknown := sorted(set(hypers or {}) - set(values)):
        raise RuleError(f"rule {rule.name!r} has no hyperparameter {', '.join(unknown)}; it has "
                        f"{', '.join(values) or 'none'}.")  # fmt: skip
    if isinstance(rule, MatrixRule):
        return _of_matrix_rule(rule, source, values, steps, warm)
    observed = observed_rule(rule, statistics or {})
    found = _ScalarRule(observed, source, values, steps, warm)
    return Target(found.population, found.plug_in, rule.name)


def _of_number(target: Any) -> Target:
    if callable(target):
        return Target(lambda m: _finite(np.asarray(target(m), dtype=float)), None, "a function")
    if isinstance(target, torch.Tensor):
        target = target.detach().cpu().numpy()
    if isinstance(target, bool) or not isinstance(target, Number | np.ndarray | list | tuple):
        raise TypeError(f"target={target!r} is no population update; pass a number, a tensor, a "
                        "function of m, or a rule.")  # fmt: skip
    value = _finite(np.asarray(target, dtype=float))
    return Target(lambda m: value, None, "a number")


def _finite(value: Array) -> Array:
    if not np.all(np.isfinite(value)):
        raise UnusableTarget(f"the target is {value}: a population update must be finite.")
    return value


# -- scalar rules ---------------------------------------------------------------------------------


def observed_rule(rule: UpdateRule, statistics: Mapping[str, str]) -> UpdateRule:
    """The rule with a sample for every state.

    ``statistics`` maps a state's name to a polynomial in x, the gradient. Without one a rule of
    one state is a map of the mean gradient; of several, the state that the update is proportional
    to is the mean of x, and positive ones are means of x².

    Raises
    ------
    RuleError
        for a state of which nothing says what it is made of.
    """
    names = [s.name for s in rule.states]
    if unknown := sorted(set(statistics) - set(names)):
        raise RuleError(f"rule {rule.name!r} has no state {', '.join(unknown)}; it has "
                        f"{', '.join(names)}.")  # fmt: skip
    return replace(rule, states=tuple(_observed(rule, s, statistics) for s in rule.states))


def _observed(rule: UpdateRule, state: State, statistics: Mapping[str, str]) -> State:
    if state.name in statistics:
        sample = parse_expression(statistics[state.name], {"x": GRADIENT}.__getitem__)
        return replace(state, statistic=replace(state.statistic, sample=sample, outer=None))
    if not state.statistic.opaque:
        return state
    share = sp.simplify(rule.update / state.symbol)
    if len(rule.states) == 1 or state.symbol not in share.free_symbols:
        return replace(state, statistic=replace(state.statistic, sample=GRADIENT))
    if state.statistic.positive:
        return replace(state, statistic=replace(state.statistic, sample=GRADIENT**2))
    raise RuleError(f"rule {rule.name!r}, {rule}: nothing says what {state.name!r} is made of; "
                    f"pass statistics={{{state.name!r}: 'x**2'}} or the like.")  # fmt: skip


class _ScalarRule:
    """A rule's states over a history, in expectation or on samples, by one recursion."""

    def __init__(self, rule, source, hypers, steps, warm):
        self.rule, self.source, self.hypers = rule, source, hypers
        self.steps, self.warm = steps, warm
        self._update = sp.lambdify(
            [s.symbol for s in rule.states] + [sp.Symbol(n) for n in hypers],
            rule.update.subs({h.symbol: sp.Symbol(h.name) for h in rule.all_hypers}),
            "numpy",
        )
        observations = {s.statistic.observation for s in rule.states}
        if observations != {GRADIENT}:
            raise UnusableTarget(f"rule {rule.name!r} observes {observations}, and a law of one "
                                 "gradient x says nothing of the rest; pass the target as a "
                                 "number.")  # fmt: skip
        if source.dims:
            raise UnusableTarget(f"rule {rule.name!r} is a map of scalars; the law draws "
                                 f"{source.dims} per microbatch.")  # fmt: skip

    def population(self, microbatches: int) -> Array:
        """u* = T(E S): exact from the law's moments."""
        states = self._run(lambda state, _: self._expected(state, microbatches))
        return _finite(np.asarray(self._apply(states), dtype=float))

    def plug_in(self, batch: torch.Tensor) -> Array:
        """The rule's own update of [replicates, (steps,) microbatches]."""
        x = batch.numpy()
        history = x.swapaxes(0, 1) if self.steps else x[None]
        return np.asarray(self._apply(self._run(lambda s, step: _statistic(s, history[step]))))

    def _run(self, contribution: Callable[[State, int], Any]) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        warm = [] if self.warm is None else list(self.warm)
        for step in range(len(warm) + (self.steps or 1)):
            for state in self.rule.states:
                new = (
                    _statistic(state, np.asarray(warm[step], dtype=float))
                    if step < len(warm)
                    else contribution(state, step - len(warm))
                )
                decay, gain = self._number(state.weights.decay), self._number(state.weights.gain)
                raw[state.name] = decay * raw.get(state.name, 0.0) + gain * new
        count = len(warm) + (self.steps or 1)
        return {
            s.name: raw[s.name] / self._number(s.weights.normalizer(sp.Integer(count)))
            for s in self.rule.states
        }

    def _number(self, expression: Any) -> float:
        expression = sp.sympify(expression)
        return float(expression.subs({s: self.hypers[s.name] for s in expression.free_symbols}))

    def _apply(self, states: Mapping[str, Any]) -> Any:
        with np.errstate(all="ignore"):
            return self._update(*(states[s.name] for s in self.rule.states), *self.hypers.values())

    def _expected(self, state: State, microbatches: int) -> float:
        sample = sp.Poly(state.statistic.sample, GRADIENT)
        if state.statistic.outer is None:
            return self._polynomial(sample, self.source.raw, state)
        outer = sp.Poly(state.statistic.outer, MEAN)
        if sample.as_expr() != GRADIENT:
            raise UnusableTarget(
                f"state {state.name!r} is a polynomial of a mean of {state.statistic.sample}; pass "
                "its population update as a number."
            )
        known = self.source.raw[: outer.degree()]
        cumulants = [k / microbatches**i for i, k in enumerate(cumulants_from_moments(list(known)))]
        return self._polynomial(outer, moments_from_cumulants(cumulants), state)

    def _polynomial(self, polynomial: sp.Poly, moments: tuple[float, ...], state: State) -> float:
        if polynomial.degree() > len(moments):
            raise UnusableTarget(
                f"state {state.name!r} of rule {self.rule.name!r} needs E x^{polynomial.degree()}, "
                f"and of law {self.source.name} {len(moments)} moments are known; give the sampler "
                "moments, or pass the target as a number."
            )
        known = (1.0, *moments)
        return sum(float(c) * known[power] for (power,), c in polynomial.terms())


def _statistic(state: State, x: Array) -> Array:
    """One step's contribution from [..., m]."""
    mean = _evaluated(state.statistic.sample, GRADIENT, x).mean(axis=-1)
    if state.statistic.outer is None:
        return mean
    return _evaluated(state.statistic.outer, MEAN, mean)


def _evaluated(polynomial: sp.Expr, variable: sp.Symbol, x: Array) -> Array:
    return np.polyval([float(c) for c in sp.Poly(polynomial, variable).all_coeffs()], x)


def moments_from_cumulants(cumulants: list[float]) -> tuple[float, ...]:
    """Raw moments from cumulants, the recursion of `cumulants_from_moments` run backwards.

    >>> moments_from_cumulants([1.0, 2.0])
    (1.0, 3.0)
    """
    moments = [1.0]
    for n, cumulant in enumerate(cumulants, start=1):
        lower = (sp.binomial(n - 1, k - 1) * cumulants[k - 1] * moments[n - k] for k in range(1, n))
        moments.append(float(cumulant + sum(lower)))
    return tuple(moments[1:])


# -- matrix rules ---------------------------------------------------------------------------------


def _of_matrix_rule(rule, source: Source, hypers, steps, warm) -> Target:
    if source.matrix is None:
        raise UnusableTarget(f"rule {rule.name!r} is a map of matrices; the law must be a matrix "
                             "law of deltabias.truth, or pass the target as a tensor.")  # fmt: skip
    if steps or warm is not None:
        raise UnusableTarget(f"rule {rule.name!r}: the population update of matrices over several "
                             "steps is not worked out; pass the target as a tensor.")  # fmt: skip
    used = [s for s in rule.states if s.name in rule.update.symbols]
    roles = {s.name: _role(rule, s) for s in used}
    of_mean = {roles[s.name] for s in used if s.statistic.of_mean and roles[s.name]}
    evaluate = population_map(rule.update, roles, hypers)
    law = source.matrix

    def population(microbatches: int) -> Array:
        point = [law.mean, np.asarray(law.left_moment), np.asarray(law.right_moment)]
        squares = [None, law.mean @ law.mean.T, law.mean.T @ law.mean]
        for role in of_mean:
            # E Ḡ Ḡᵀ = M Mᵀ + (E G Gᵀ − M Mᵀ)/m
            point[role] = squares[role] + (point[role] - squares[role]) / microbatches
        return _finite(evaluate(*(np.asarray(a)[None] for a in point))[0])

    def plug_in(batch: torch.Tensor) -> Array:
        g = batch.numpy()
        mean, factors = g.mean(axis=1), [None, None]
        for role in {*roles.values()} - {0}:
            of = mean if role in of_mean else g
            turned = of.swapaxes(-1, -2)
            product = of @ turned if role == 1 else turned @ of
            factors[role - 1] = product if role in of_mean else product.mean(axis=1)
        return evaluate(mean, *factors)

    return Target(population, plug_in, rule.name)


def _role(rule: MatrixRule, state: MatrixState) -> int:
    sample = state.statistic.sample
    if sample is None and state.name in BY_NAME:
        return BY_NAME[state.name]
    for text, role in SAMPLES.items():
        if sample is not None and sample == parse_matrix(text):
            return role
    raise UnusableTarget(f"rule {rule.name!r}: nothing says what matrix {state.name!r} is made of; "
                         "read are M, G, L and R.")  # fmt: skip
