"""Symmetries that a rule implies, found from its formulas, tested on the optimizer.

Units: a rule is homogeneous if degrees can be given to its states and hyperparameters so that
every sum is of one degree; then a gradient in other units, with hyperparameters in units to
match, gives the same step. Adam's eps has the gradient's unit, Adadelta's its square's. Parity,
translation and permutation are found the same way, by what each operation does to them.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product

import numpy as np
import sympy as sp

from deltabias.parser import clip
from deltabias.verify.baseline import Baseline, Unoffered
from deltabias.verify.constructor import TargetError
from deltabias.verify.distance import ULP, Distance
from deltabias.verify.drive import Refused, rounded
from deltabias.verify.histories import Group, History
from deltabias.verify.record import ERROR, FAIL, PASS, SKIPPED, Check
from deltabias.verify.step_rule import StepRule, symbol, where

FACTOR = 16.0  # its square and fourth roots are exact
SHIFT = 4.0


class _NoSymmetry(Exception):
    """The rule does not have it."""


# -- units ----------------------------------------------------------------------------------------


def degrees(rule: StepRule, grad: int, param: int) -> dict[str, Fraction] | None:
    """Every name's degree for a gradient and a parameter of given degrees; None if impossible.

    Examples
    --------
    >>> from deltabias.verify.torch_rules import STEP_RULES
    >>> degrees(STEP_RULES["adam"], grad=1, param=0)["eps"]
    Fraction(1, 1)
    >>> degrees(STEP_RULES["radam"], grad=1, param=0) is None  # its first steps are plain
    True
    """
    unknown = {n: sp.Symbol(f"degree_{n}") for n in (*rule.states, *rule.hyper_names)}
    fixed = {"t": sp.Integer(0), "grad": sp.Integer(grad), "param": sp.Integer(param)}
    analysis = _Degrees({**unknown, **fixed})
    try:
        for name, expression in rule.steps:
            analysis.names[name] = analysis.of(expression)
        for name in ("param", *rule.states):
            wanted = fixed.get(name, unknown.get(name))
            analysis.equal(analysis.names[name], wanted)
        for name, begin in rule.initial.items():
            if begin != 0:
                analysis.equal(unknown[name], _Degrees({**unknown}).of(begin))
    except _NoSymmetry:
        return None
    solved = sp.linsolve(analysis.equations, *unknown.values()) if analysis.equations else None
    if solved is sp.S.EmptySet:
        return None
    values = next(iter(solved)) if solved else [sp.Integer(0)] * len(unknown)
    free = {s: 0 for v in values for s in sp.sympify(v).free_symbols}
    found = [sp.Rational(sp.sympify(v).subs(free)) for v in values]
    return {n: Fraction(int(v.p), int(v.q)) for n, v in zip(unknown, found, strict=True)}


class _Degrees:
    def __init__(self, names: dict[str, sp.Expr]):
        self.names = names
        self.equations: list[sp.Expr] = []

    def equal(self, a: sp.Expr, b: sp.Expr) -> sp.Expr:
        difference = sp.expand(a - b)
        if difference.is_number and difference != 0:
            raise _NoSymmetry
        if difference != 0:
            self.equations.append(difference)
        return a

    def none(self, *parts: sp.Expr) -> sp.Expr:
        for part in parts:
            self.equal(self.of(part), sp.Integer(0))
        return sp.Integer(0)

    def alike(self, parts) -> sp.Expr:
        found = [self.of(p) for p in parts if p != 0]
        for other in found[1:]:
            self.equal(found[0], other)
        return found[0] if found else sp.Integer(0)

    def of(self, expression: sp.Expr) -> sp.Expr:
        """The degree of an expression."""
        match expression:
            case sp.Symbol():
                return self.names[expression.name]
            case sp.Add() | sp.Max() | sp.Min() | clip():
                return self.alike(expression.args)
            case sp.Mul():
                return sp.Add(*map(self.of, expression.args))
            case sp.Pow() if expression.exp.is_number:
                return expression.exp * self.of(expression.base)
            case sp.Abs():
                return self.of(expression.args[0])
            case where():
                self.of(expression.args[0])  # a positive factor does not change its sign
                return self.alike(expression.args[1:])
            case sp.sign():
                self.of(expression.args[0])
                return sp.Integer(0)
        return self.none(*expression.args)


# -- parity and translation -----------------------------------------------------------------------


def is_odd(rule: StepRule) -> bool:
    """Whether gradients and parameters of the other sign give parameters of the other sign.

    Examples
    --------
    >>> from deltabias.verify.torch_rules import STEP_RULES
    >>> is_odd(STEP_RULES["adamw"])
    True
    """
    return any(
        _consistent(rule, dict(zip(rule.states, signs, strict=True)))
        for signs in product((0, 1), repeat=len(rule.states))
    )


def _consistent(rule: StepRule, states: dict[str, int]) -> bool:
    if any(states[n] for n, begin in rule.initial.items() if begin != 0):
        return False
    names = {**dict.fromkeys((*rule.hyper_names, "t"), 0), **states, "param": 1, "grad": 1}
    for name, expression in rule.steps:
        names[name] = _parity(expression, names)
    return names["param"] == 1 and all(names[s] == p for s, p in states.items())


def _parity(expression: sp.Expr, names: dict[str, int | None]) -> int | None:
    """0 even, 1 odd, None neither."""

    def of(part: sp.Expr) -> int | None:
        return _parity(part, names)

    def alike(parts) -> int | None:
        found = {of(p) for p in parts if p != 0}
        return found.pop() if len(found) == 1 else None

    match expression:
        case sp.Symbol():
            return names[expression.name]
        case sp.Add():
            return alike(expression.args)
        case sp.Mul():
            found = [of(a) for a in expression.args]
            return None if None in found else sum(found) % 2
        case sp.Pow() if expression.exp.is_Integer:
            own = of(expression.base)
            return None if own is None else own * int(expression.exp) % 2
        case sp.Abs():
            return None if of(expression.args[0]) is None else 0
        case where():
            return alike(expression.args[1:]) if of(expression.args[0]) == 0 else None
        case clip() if expression.args[1] == -expression.args[2]:
            return of(expression.args[0]) if of(expression.args[1]) == 0 else None
        case sp.sign() | sp.tanh() | sp.atan() | sp.erf():
            return of(expression.args[0])
    return 0 if all(of(a) == 0 for a in expression.args) else None


def is_translation_invariant(rule: StepRule) -> bool:
    """Whether, without weight decay, the parameter only ever adds up.

    Examples
    --------
    >>> from deltabias.verify.torch_rules import STEP_RULES
    >>> is_translation_invariant(STEP_RULES["sgd"])
    True
    """
    param = symbol("param")
    for name, expression in rule.steps:
        bare = expression.subs(symbol("weight_decay"), 0)
        if name == "param":
            bare = sp.expand(bare - param) if bare != param else sp.Integer(0)
        if param in bare.free_symbols:
            return False
    return True


# -- the checks -----------------------------------------------------------------------------------


def property_checks(subject) -> Iterator[Callable[[], Check]]:
    """Every symmetry's check, not yet begun."""
    made: list[Baseline] = []

    def baseline() -> Baseline:
        if not made:
            made.append(Baseline(subject))
        return made[0]

    for name, (test, meaning) in PROPERTIES.items():
        yield lambda name=name, test=test, meaning=meaning: _check(name, test, meaning, baseline)


def _check(name: str, test: Callable, meaning: str, baseline: Callable[[], Baseline]) -> Check:
    try:
        found = test(baseline())
    except (_NoSymmetry, Unoffered, Refused) as reason:
        return Check(name, SKIPPED, detail=str(reason) or "the rule does not have this symmetry")
    except TargetError as error:
        return Check(name, ERROR, detail=str(error))
    verdict = PASS if found.agrees else FAIL
    return Check(name, verdict, found.ulps, found.bound, "" if found.agrees else meaning)


def _transformed(
    base: Baseline, change: Callable[[History], History], back: Callable[[np.ndarray], np.ndarray]
) -> Distance:
    """Runs of changed histories, taken back, against the plain ones; so are the bounds."""
    found = Distance()
    for history, run in zip(base.histories, base.runs, strict=True):
        other = change(history)
        again = base.drive(other)
        truth = base.truth(other)
        got = [[back(p) for p in step] for step in again.values]
        bounds = [[np.abs(back(2 * b)) for b in step] for step in truth.bounds]
        apart = base.apart(got, run.values, bounds, history)
        found = max(found, apart, key=lambda d: d.ratio)
    return found


def _units(grad: int, param: int) -> Callable[[Baseline], Distance]:
    def test(base: Baseline) -> Distance:
        found = degrees(base.subject.rule, grad, param)
        if found is None:
            raise _NoSymmetry("the rule is not homogeneous")
        passed = base.constructor.places
        held = [h.name for h in base.subject.scope.ranges if h.low == h.high]
        fixed = [n for n, d in found.items() if d and n in base.subject.rule.hyper_names and (
            n in held or (n not in passed and base.subject.scope.fixed.get(n) != 0))]  # fmt: skip
        if fixed:
            raise Unoffered(f"{', '.join(fixed)} would have to change and cannot be passed")

        def change(history: History) -> History:
            def hypers(group: Group) -> dict:
                return {n: v * FACTOR ** float(found.get(n, 0)) for n, v in group.hypers.items()}

            return _scaled(history, FACTOR**grad, FACTOR**param, hypers)

        return _transformed(base, change, lambda p: p / FACTOR**param)

    return test


def _scaled(history: History, grad: float, param: float, hypers: Callable) -> History:
    groups = tuple(
        Group(hypers(g), g.shapes, tuple(tuple(param * e for e in p) for p in g.params))
        for g in history.groups
    )
    grads = tuple(
        tuple(None if g is None else tuple(grad * e for e in g) for g in step)
        for step in history.grads
    )
    return History(groups, grads, history.lr_factors)


def _sign_flip(base: Baseline) -> Distance:
    if not is_odd(base.subject.rule):
        raise _NoSymmetry("the rule is not odd")
    return _transformed(base, lambda h: _scaled(h, -1, -1, lambda g: g.hypers), lambda p: -p)


def _permutation(base: Baseline) -> Distance:
    def change(history: History) -> History:
        groups = tuple(
            Group(g.hypers, g.shapes, tuple(p[::-1] for p in g.params)) for g in history.groups
        )
        grads = tuple(tuple(g if g is None else g[::-1] for g in step) for step in history.grads)
        return History(groups, grads, history.lr_factors)

    return _transformed(base, change, lambda p: p[::-1])


def _splitting(base: Baseline) -> Distance:
    """Every entry a parameter of its own."""

    def rerun(history: History):
        groups = tuple(
            Group(g.hypers, ((1,),) * sum(map(len, g.params)), tuple((e,) for p in g.params
                                                                     for e in p))
            for g in history.groups
        )  # fmt: skip
        grads = tuple(
            tuple(
                None if g is None else (g[i],)
                for g, p in zip(step, history.params, strict=True)
                for i in range(len(p))
            )
            for step in history.grads
        )
        run = base.drive(History(groups, grads, history.lr_factors))
        cuts = np.cumsum([len(p) for p in history.params])[:-1]
        run.values = [np.split(np.concatenate(step), cuts) for step in run.values]
        return run

    return base.against(rerun)


def _translation(base: Baseline) -> Distance:
    if not is_translation_invariant(base.subject.rule):
        raise _NoSymmetry("the rule is not invariant under translation")
    names = base.subject.rule.hyper_names
    held = "weight_decay" in names and "weight_decay" not in base.constructor.places
    if held and base.subject.scope.fixed.get("weight_decay"):
        raise Unoffered("weight_decay cannot be switched off")
    found = Distance()
    for history in base.histories:
        near, far = (rounded(_moved(history, shift), base.dtype) for shift in (0.0, SHIFT))
        one, two = (base.drive(h) for h in (near, far))
        truths = [base.truth(h) for h in (near, far)]
        starts = [np.subtract(b, a) for a, b in zip(near.params, far.params, strict=True)]
        got = [[p - s for p, s in zip(step, starts, strict=True)] for step in two.values]
        bounds = [
            [a + b + 4 * ULP[base.dtype] * SHIFT for a, b in zip(x, y, strict=True)]
            for x, y in zip(truths[0].bounds, truths[1].bounds, strict=True)
        ]
        apart = base.apart(got, one.values, bounds, near)
        found = max(found, apart, key=lambda d: d.ratio)
    return found


def _moved(history: History, shift: float) -> History:
    groups = tuple(
        Group(
            {**g.hypers, **({"weight_decay": 0.0} if "weight_decay" in g.hypers else {})},
            g.shapes,
            tuple(tuple(e + shift for e in p) for p in g.params),
        )
        for g in history.groups
    )
    return History(groups, history.grads, history.lr_factors)


PROPERTIES: dict[str, tuple[Callable[[Baseline], Distance], str]] = {
    "scale of the gradient": (
        _units(1, 0), "other units of the gradient change the step more than the rule says"),
    "scale of the parameter": (
        _units(0, 1), "other units of the parameter change the step more than the rule says"),
    "sign flip": (_sign_flip, "gradients and parameters of the other sign do not flip the step"),
    "permutation": (_permutation, "the order of a parameter's entries matters"),
    "splitting": (_splitting, "entries of one parameter matter to each other"),
    "translation": (_translation, "where the parameter stands matters to its step"),
}  # fmt: skip
