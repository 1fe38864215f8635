"""A step rule as a flat list of elementary operations, each value made once.

The interpreter runs it in 50 digits, the rounding analysis runs along, and the diagnosis runs
it in float64: one list, three number systems.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import sympy as sp

from deltabias.errors import RuleError
from deltabias.parser import clip
from deltabias.verify.step_rule import StepRule, where

UNARY = {
    sp.exp: "exp",
    sp.log: "log",
    sp.tanh: "tanh",
    sp.atan: "atan",
    sp.erf: "erf",
    sp.Abs: "abs",
    sp.sign: "sign",
}


@dataclass(frozen=True)
class Op:
    """One operation; `arguments` are places of earlier ones.

    `array` is whether the value depends on the data (parameter, gradient, a state fed by them);
    the others are scalars of hyperparameters and of t, which optimizers keep in double.
    """

    kind: str
    arguments: tuple[int, ...]
    payload: object = None
    array: bool = False


@dataclass(frozen=True)
class Tape:
    """Operations in order, and where the new parameter and the new states stand."""

    ops: tuple[Op, ...]
    outputs: Mapping[str, int]

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(op.payload for op in self.ops if op.kind == "input")


@cache
def _compiled(steps: tuple, states: tuple[str, ...]) -> Tape:
    data: set[str] = {"param", "grad"}
    while True:  # a state is a scalar as long as nothing that feeds it is data
        builder = _Builder(data)
        for name, expression in steps:
            builder.names[name] = builder.add(expression)
        fed = {s for s in states if s in builder.names and builder.ops[builder.names[s]].array}
        if fed <= data:
            break
        data |= fed
    kept = {n: builder.names[n] for n in ("param", *states) if n in builder.names}
    return Tape(tuple(builder.ops), kept)


def compile_rule(rule: StepRule) -> Tape:
    """The rule's operations.

    Raises
    ------
    RuleError
        for a function that has no meaning here.
    """
    return _compiled(rule.steps, rule.states)


class _Builder:
    def __init__(self, data: set[str]):
        self.ops: list[Op] = []
        self.names: dict[str, int] = {}
        self.data = data
        self._known: dict[tuple, int] = {}

    def emit(self, kind: str, *arguments: int, payload: object = None, array: bool = False) -> int:
        key = (kind, arguments, payload)
        if key not in self._known:
            array = array or any(self.ops[a].array for a in arguments)
            self._known[key] = len(self.ops)
            self.ops.append(Op(kind, arguments, payload, array))
        return self._known[key]

    def number(self, value: sp.Rational) -> int:
        return self.emit("number", payload=Fraction(int(value.p), int(value.q)))

    def add(self, expression: sp.Expr) -> int:
        """The place of an expression's value."""
        match expression:
            case sp.Symbol():
                return self._named(expression.name)
            case sp.Rational():
                return self.number(expression)
            case sp.Add():
                return self._sum(expression)
            case sp.Mul():
                return self._product(expression)
            case sp.Pow():
                return self._power(expression.base, expression.exp)
            case sp.Max() | sp.Min():
                kind = "max" if isinstance(expression, sp.Max) else "min"
                return self._chain(kind, sorted(expression.args, key=str))
            case where():
                return self.emit("where", *map(self.add, expression.args))
            case clip():
                return self.emit("clip", *map(self.add, expression.args))
            case sp.Mod():
                return self.emit("mod", *map(self.add, expression.args))
        if type(expression) in UNARY:
            return self.emit(UNARY[type(expression)], self.add(expression.args[0]))
        if expression.is_number and expression.is_finite:  # exp(1), sqrt(2) and their kin
            value = sp.Rational(str(sp.N(expression, 60)))
            return self.number(value)
        raise RuleError(f"{expression} has no meaning in a step rule.")

    def _named(self, name: str) -> int:
        if name not in self.names:
            return self.emit("input", payload=name, array=name in self.data)
        return self.names[name]

    def _chain(self, kind: str, parts) -> int:
        places = [self.add(p) for p in parts]
        total = places[0]
        for place in places[1:]:
            total = self.emit(kind, total, place)
        return total

    def _sum(self, expression: sp.Add) -> int:
        # a positive term first, so that no negation is needed where it can be helped
        parts = sorted(expression.args, key=lambda a: a.could_extract_minus_sign())
        total = self.add(parts[0])
        for part in parts[1:]:
            if part.could_extract_minus_sign():
                total = self.emit("sub", total, self.add(-part))
            else:
                total = self.emit("add", total, self.add(part))
        return total

    def _product(self, expression: sp.Mul) -> int:
        above, below = [], []
        for factor in expression.args:
            power = isinstance(factor, sp.Pow) and factor.exp.could_extract_minus_sign()
            if isinstance(factor, sp.Rational) and factor.q != 1:
                below.append(sp.Integer(factor.q))
                factor, power = sp.Integer(factor.p), False
                if factor == 1:
                    continue
            (below if power else above).append(1 / factor if power else factor)
        result = self._chain("mul", above) if above else self.number(sp.Integer(1))
        if below:
            result = self.emit("div", result, self._chain("mul", below))
        return result

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> int:
        if exponent.is_number and exponent < 0:
            return self.emit("div", self.number(sp.Integer(1)), self._power(base, -exponent))
        if exponent == 1:
            return self.add(base)
        if exponent == sp.Rational(1, 2):
            return self.emit("sqrt", self.add(base))
        if exponent.is_Integer:
            return self.emit("powi", self.add(base), payload=int(exponent))
        return self.emit("pow", self.add(base), self.add(exponent))
