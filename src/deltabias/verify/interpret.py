"""A step rule run in 50 digits, with a bound for what rounding may do to an optimizer.

The optimizer's numbers are floats and are taken exactly. Beside each value runs a first-order
bound of the rounding error of the same operations in the optimizer's own arithmetic (unit
roundoff u for data, that of a double for scalars): the standard running error analysis (Higham,
Accuracy and Stability, section 3.3), with intervals where a derivative is no bound. `SLACK` times
it allows other orders of the same operations, such as a lerp for a weighted sum or a debias
that is folded into the learning rate. Where the bound is infinite (a difference that may have
any sign under a root, a branch that rounding may decide either way) nothing is compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mpmath
import numpy as np

from deltabias.verify.arithmetic import EXACT, FLOAT, Numbers, propagate
from deltabias.verify.histories import History
from deltabias.verify.step_rule import StepRule
from deltabias.verify.tape import Tape, compile_rule

DIGITS = 50
SLACK = {"float64": 64.0, "float32": 64.0, "bfloat16": 16.0}
SINGLE_SCALARS = "scalars in single precision"
"""What is said of an optimizer whose debias and step sizes are rounded to float32."""
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class Quirks:
    """Ways to run a rule that are no property of its formulas; all off for the truth.

    Parameters
    ----------
    hypers_from : group index whose hyperparameters all groups use, or None
    only : those hyperparameters of it; all if empty
    count : "own" steps of the parameter; "calls" of step(); "visits" of any parameter
    missing : "skip" a parameter without a gradient, take it as "zero", or only "decay" it
    schedule : whether the learning rate follows its schedule
    """

    hypers_from: int | None = None
    only: tuple[str, ...] = ()
    count: str = "own"
    missing: str = "skip"
    schedule: bool = True


@dataclass(frozen=True)
class Trajectory:
    """Each parameter after every step: values and the bound of their rounding error.

    Parameters
    ----------
    values, bounds : steps x parameters, flat float64 arrays (values rounded from 50 digits)
    """

    values: list[list[np.ndarray]]
    bounds: list[list[np.ndarray]]


@dataclass
class _Parameter:
    group: int
    param: np.ndarray
    states: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    t: int = 0


def run_rule(
    rule: StepRule,
    history: History,
    *,
    dtype: str = "float64",
    exact: bool = True,
    quirks: Quirks = Quirks(),
    single_scalars: bool = False,
) -> Trajectory:
    """The rule over a history.

    Parameters
    ----------
    dtype : "float64", "float32" or "bfloat16": whose rounding the bound is for
    exact : in 50 digits with bounds; else in float64 without
    quirks : ways of running it wrongly, for the diagnosis
    single_scalars : whether the bound lets scalars be rounded to float32

    Raises
    ------
    RuleError
        for a function that has no meaning in a step.
    """
    with mpmath.workdps(DIGITS):
        run = _Run(rule, history, dtype, exact, quirks)
        if single_scalars:
            run.units = (run.units[0], 2.0**-24)
        return run.run()


class _Run:
    def __init__(self, rule: StepRule, history: History, dtype: str, exact: bool, quirks: Quirks):
        self.rule, self.history, self.quirks = rule, history, quirks
        self.exact = exact
        self.numbers: Numbers = EXACT if exact else FLOAT
        self.tape: Tape = compile_rule(rule)
        self.units = (UNIT[dtype], 2.0**-53 if dtype == "float64" else 2.0**-24)
        self.slack = SLACK[dtype]
        self.calls = self.visits = 0

    def run(self) -> Trajectory:
        starts = zip(self.history.owners, self.history.params, strict=True)
        parameters = [self._begin(group, flat) for group, flat in starts]
        values, bounds = [], []
        for step, grads in enumerate(self.history.grads):
            self.calls += 1
            for parameter, grad in zip(parameters, grads, strict=True):
                self._advance(parameter, grad, step)
            values.append([p.param.astype(float) for p in parameters])
            bounds.append([self.slack * p.errors["param"] for p in parameters])
        return Trajectory(values, bounds)

    def _begin(self, group: int, flat: tuple[float, ...]) -> _Parameter:
        hypers = self._hypers(group, 0)
        states = {}
        for name in self.rule.states:
            begin = initial_value(self.rule, name, hypers)
            states[name] = self.numbers.array([begin] * len(flat))
        none = {name: np.zeros(len(flat)) for name in ("param", *self.rule.states)}
        return _Parameter(group, self.numbers.array(flat), states, none)

    def _hypers(self, group: int, step: int) -> dict[str, float]:
        source = self.quirks.hypers_from
        own = self._scheduled(group, step)
        if source is None:
            return own
        other = self._scheduled(source % len(self.history.groups), step)
        return {k: other[k] if not self.quirks.only or k in self.quirks.only else own[k]
                for k in own}  # fmt: skip

    def _scheduled(self, group: int, step: int) -> dict[str, float]:
        if self.quirks.schedule:
            return self.history.hypers(group, step)
        return dict(self.history.groups[group].hypers)

    def _advance(self, parameter: _Parameter, grad: tuple[float, ...] | None, step: int) -> None:
        if grad is None and self.quirks.missing != "zero":
            if self.quirks.missing == "decay":
                self._only_decay(parameter, step)
            return
        parameter.t += 1
        self.visits += 1
        count = {"own": parameter.t, "calls": self.calls, "visits": self.visits}
        given = self.numbers.array((0.0,) * len(parameter.param) if grad is None else grad)
        inputs = {**self._hypers(parameter.group, step), "t": count[self.quirks.count]}
        inputs = {k: self.numbers.number(v) for k, v in inputs.items()}
        inputs |= parameter.states | {"param": parameter.param, "grad": given}
        outputs, errors = self._step(inputs, parameter.errors)
        parameter.param = outputs.pop("param")
        parameter.states.update(outputs)
        parameter.errors.update(errors)

    def _only_decay(self, parameter: _Parameter, step: int) -> None:
        hypers = {k: self.numbers.number(v) for k, v in self._hypers(parameter.group, step).items()}
        keep = 1 - hypers["lr"] * hypers["weight_decay"]
        parameter.param = parameter.param * keep
        parameter.errors["param"] = parameter.errors["param"] + 3 * self.units[0] * np.abs(
            parameter.param.astype(float)
        )

    def _step(self, inputs: Mapping, errors: Mapping):
        length = len(inputs["param"])
        with np.errstate(all="ignore"):
            values = self.numbers.run(self.tape, inputs)
            outputs = {n: _spread(values[i], length) for n, i in self.tape.outputs.items()}
            if not self.exact:
                return outputs, {}
            floats = [np.asarray(v, dtype=object).astype(float) for v in values]
            bounds = propagate(self.tape, floats, errors, *self.units)
        return outputs, {n: _spread(bounds[i], length) for n, i in self.tape.outputs.items()}


def _spread(value, length: int) -> np.ndarray:
    array = np.asarray(value)
    return array if array.shape == (length,) else np.repeat(array.reshape(-1)[:1], length)


def initial_value(rule: StepRule, name: str, hypers: Mapping[str, float]) -> float:
    """What a state begins with."""
    expression = rule.initial.get(name)
    if expression is None:
        return 0.0
    return float(expression.subs({s: hypers[s.name] for s in expression.free_symbols}))


def make_adjust(rule: StepRule) -> Callable[[dict[str, float]], dict[str, float]]:
    """What puts a draw of hyperparameters right, by the rule's own lines."""

    def adjust(hypers: dict[str, float]) -> dict[str, float]:
        adjusted = dict(hypers)
        for name, expression in rule.adjust:
            known = {s: adjusted[s.name] for s in expression.free_symbols}
            adjusted[name] = float(expression.subs(known))
        return adjusted

    return adjust
