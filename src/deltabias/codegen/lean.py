"""The same step in fewer instructions, for one pass over memory.

On a CPU a step that looks at statistics is bound by its arithmetic: a division takes ten cycles,
and a minimum that passes NaN on takes four instructions. Three rewritings, each of which changes
roundings only, or values that are cut anyway:

* factors that are scalars wander along products and meet in one, worked out on the host;
* a cut at a small bound b becomes b - relu(b - x), one instruction for the relu, which passes NaN
  on; off by at most an ulp of the bound. The floor of a second moment is x + relu(floor - x),
  which is exact;
* where an estimate cannot be negative, the lower of the two cuts that keep it finite falls.
"""

import sympy as sp

from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program, Statement
from deltabias.codegen.step import LIMIT, TINY

_SMALL = 4
_EVEN = frozenset({"c2", "c4", "relative_c2", "relative_c4"})
"""Averages of even powers; their products with a unit, taken as often, are not negative either."""

Factors = tuple[tuple[Operand, bool], ...]
"""Scalars, each with whether it divides."""


def lean(program: Program) -> Program:
    """A program with the same arguments that does the same work with less."""
    cut = _Cuts(program).rewritten()
    return _Factors(cut).rewritten().prune()


def _like(program: Program, statements: list[Statement]) -> Program:
    return Program(
        program.name,
        program.tensors,
        program.scalars,
        statements,
        program.results,
        program.doc,
    )


def _scalar_names(program: Program) -> set[str]:
    assigned = {s.target for s in program.statements if isinstance(s, Assign) and s.scalar}
    return {*program.scalars, *assigned}


class _Cuts:
    """Cheaper cuts."""

    def __init__(self, program: Program):
        self.program = program
        self.scalars = _scalar_names(program)
        self.odd: dict[str, frozenset[str]] = dict.fromkeys(_EVEN, frozenset())
        self.statements: list[Statement] = []

    def rewritten(self) -> Program:
        for s in self.program.statements:
            if isinstance(s, Assign) and s.operation in ("clamp_min", "clamp_max"):
                self._cut(s)
            else:
                self._learn(s)
                self.statements.append(s)
        return _like(self.program, self.statements)

    def _learn(self, s: Statement) -> None:
        """By what an estimate has been multiplied an odd number of times; scalars are positive."""
        if not isinstance(s, Assign) or s.scalar or s.operation not in ("mul", "div"):
            return
        tensors = [o for o in s.operands if isinstance(o, str) and o not in self.scalars]
        known = [o for o in tensors if o in self.odd]
        if len(known) == 1:
            others = {o for o in tensors if o != known[0]}
            self.odd[s.target] = self.odd[known[0]] ^ others

    def _cut(self, s: Assign) -> None:
        x, bound = s.operands
        value = bound.value if isinstance(bound, Number) else None
        if value == -LIMIT and self.odd.get(x) == frozenset():
            self.odd[s.target] = frozenset()
            self.statements.append(Assign(s.target, "copy", (x,), note=s.note))
        elif value == TINY:
            self._emit("sub", bound, x, s, 1)
            self._emit("relu", f"{s.target}_1", None, s, 2)
            self.statements.append(Assign(s.target, "add", (x, f"{s.target}_2"), note=s.note))
        elif value == 0 and s.operation == "clamp_min":
            self.statements.append(Assign(s.target, "relu", (x,), note=s.note))
        elif value is not None and abs(value) <= _SMALL:
            below = s.operation == "clamp_max"
            self._emit("sub", *((bound, x) if below else (x, bound)), s, 1)
            self._emit("relu", f"{s.target}_1", None, s, 2)
            last = (bound, f"{s.target}_2")
            self.statements.append(Assign(s.target, "sub" if below else "add", last, note=s.note))
        else:
            self.statements.append(s)

    def _emit(self, operation: str, a: Operand, b: Operand | None, s: Assign, part: int) -> None:
        operands = (a,) if b is None else (a, b)
        self.statements.append(Assign(f"{s.target}_{part}", operation, operands))


class _Factors:
    """Scalars that multiply, collected."""

    def __init__(self, program: Program):
        self.program = program
        self.scalars = _scalar_names(program)
        self.uses = program.uses()
        self.mutated = {
            s.target: i for i, s in enumerate(program.statements) if isinstance(s, Mutate)
        }
        products = {
            o
            for s in program.statements
            if isinstance(s, Assign) and not s.scalar and s.operation in ("mul", "div", "neg")
            for o in s.operands
            if isinstance(o, str)
        }
        self.single = {name for name in products if self.uses[name] == 1}
        self.waiting: dict[str, tuple[str, Factors]] = {}
        self.named: dict[Factors, Operand] = {}
        self.made = 0
        self.statements: list[Statement] = []

    def rewritten(self) -> Program:
        for i, s in enumerate(self.program.statements):
            product = isinstance(s, Assign) and s.operation in ("mul", "div", "neg")
            if product and not s.scalar:
                self._product(i, s)
            else:
                self.statements.append(s)
        return _like(self.program, self.statements)

    def _product(self, i: int, s: Assign) -> None:
        bases: list[tuple[str, bool]] = []
        factors: Factors = ((Number(sp.Integer(-1)), False),) if s.operation == "neg" else ()
        for place, operand in enumerate(s.operands):
            over = s.operation == "div" and place == 1
            if isinstance(operand, Number) or operand in self.scalars:
                factors += ((operand, over),)
                continue
            base, own = self.waiting.pop(operand, (operand, ()))
            bases.append((base, over))
            factors += tuple((f, inverse != over) for f, inverse in own)
        if len(bases) == 1 and not bases[0][1]:
            self._scaled(i, s, bases[0][0], factors)
        else:
            self._joined(s, bases, factors)

    def _scaled(self, i: int, s: Assign, base: str, factors: Factors) -> None:
        if s.target in self.single and not s.note and self.mutated.get(base, -1) < i:
            self.waiting[s.target] = (base, factors)
            return
        self.statements.append(Assign(s.target, "mul", (base, self._name(factors)), note=s.note))

    def _joined(self, s: Assign, bases: list[tuple[str, bool]], factors: Factors) -> None:
        if len(bases) == 1:  # a number over a tensor
            top, bottom = self._name(factors), bases[0][0]
            self.statements.append(Assign(s.target, "div", (top, bottom), note=s.note))
            return
        operation = "div" if bases[1][1] else "mul"
        operands = (bases[0][0], bases[1][0])
        if not factors:
            self.statements.append(Assign(s.target, operation, operands, note=s.note))
        elif s.target in self.single and not s.note:
            self.statements.append(Assign(s.target, operation, operands))
            self.waiting[s.target] = (s.target, factors)
        else:
            self.statements.append(Assign(f"{s.target}_bare", operation, operands))
            both = (f"{s.target}_bare", self._name(factors))
            self.statements.append(Assign(s.target, "mul", both, note=s.note))

    def _name(self, factors: Factors) -> Operand:
        """One scalar, assigned on the host where it is first needed."""
        number, names = sp.Integer(1), []
        for factor, over in factors:
            if isinstance(factor, Number):
                number = number / factor.value if over else number * factor.value
            elif (factor, not over) in names:
                names.remove((factor, not over))
            else:
                names.append((factor, over))
        key = (Number(number), *sorted(names))
        if key not in self.named:
            self.named[key] = self._assigned(*key)
        return self.named[key]

    def _assigned(self, number: Number, *names: tuple[str, bool]) -> Operand:
        if not names:
            return number
        # products first: the first name is no divisor where there is a choice
        names = sorted(names, key=lambda pair: pair[1])
        value: Operand = number
        if number.value == 1 and not names[0][1]:
            value, names = names[0][0], names[1:]
        for name, over in names:
            self.made += 1
            target = f"_by{self.made}"
            operation = "div" if over else "mul"
            self.statements.append(Assign(target, operation, (value, name), scalar=True))
            value = target
        return value
