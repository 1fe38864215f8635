"""The same step in fewer instructions, for one pass over memory.

On a CPU a step that looks at statistics is bound by its arithmetic, and that by the longest chain
of operations that wait for each other: a core holds about one turn and a half of the loop at a
time, so a shorter chain and fewer operations both count. Each of these rewritings changes
roundings only, or values that are cut anyway:

* factors that are scalars wander along products and meet in one, worked out on the host;
* a cut at a small bound b becomes b - relu(b - x), one instruction for the relu, which passes NaN
  on where a minimum takes four; off by at most an ulp of the bound. Two cuts share a subtraction;
* the floor of a second moment, 2^-126, is added to it: beyond 2^-101 that changes nothing;
* what is divided by the second moment v or its root is multiplied by 1/v and root/v: one division,
  and none that waits for the root;
* estimates are taken relative to v + (2^-30 unit)², with the unit of the statistics: an element
  whose root is a millionth of the unit does not notice, and one whose gradients have vanished has
  estimates that are large and finite. Few are then cut at `LIMIT`, and those by x - relu(x - b),
  which is x below b, and anything up to 2 b beyond 2^24 b.
"""

import sympy as sp

from deltabias.codegen.order import in_order
from deltabias.codegen.ssa import Assign, Mutate, Number, Operand, Program, Statement
from deltabias.codegen.step import LIMIT, RATIO_LIMIT, TINY

_SMALL = 4
_SLIGHT = Number(sp.Rational(1, 2**30))
"""A root that is so small in the unit of the statistics has vanished."""

_POWERS = ("c2", "c3", "c4")
_UNITS = ("unit_of_c", "unit_over", "relative_unit")
_CLAMPS = ("clamp_min", "clamp_max")

_NOTHING = Assign("", "", ())

Factors = tuple[tuple[Operand, bool], ...]
"""Scalars, each with whether it divides."""


def lean(program: Program) -> Program:
    """A program with the same arguments that does the same work with less."""
    if _is_relative(program):
        program = _Relative(program).rewritten()
    program = _Factors(_Cuts(_averaged(program)).rewritten()).rewritten()
    return in_order(program).prune()


def _is_relative(program: Program) -> bool:
    """Whether estimates are divided by a root."""
    made = {s.target: s for s in program.statements if isinstance(s, Assign)}
    return made.get("relative_unit", _NOTHING).operands == ("unit_of_c", "root") and (
        made.get("root", _NOTHING).operation == "sqrt"
    )


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


def _averaged(program: Program) -> Program:
    """s + (x - s) w as (1 - w) s + w x: the newest x waits for two operations, not for four."""
    statements: list[Statement] = []
    for i, s in enumerate(program.statements):
        if not isinstance(s, Mutate) or s.operation != "lerp" or s.operands[0] in program.tensors:
            statements.append(s)
            continue
        x, weight = s.operands
        rest, share = f"_rest{i}", f"_share{i}"
        one = Number(sp.Integer(1))
        statements += [
            Assign(rest, "sub", (one, weight), scalar=True),
            Assign(share, "mul", (x, weight)),
            Mutate(s.target, "mul", (rest,)),
            Mutate(s.target, "add", (share,)),
        ]
    return _like(program, statements)


class _Relative:
    """One division by a second moment, for all that is relative to it or to its root."""

    def __init__(self, program: Program):
        self.program = program
        self.scalars = _scalar_names(program)
        made = {s.target: s for s in program.statements if isinstance(s, Assign)}
        self.second = made["root"].operands[0]
        self.ratio = next((s.operands[0] for s in made.values() if s.target == "ratio"), None)
        self.rooted = any(s.operands == ("ratio",) and s.operation == "sqrt" for s in made.values())
        self.multiples: dict[str, Assign] = {}
        self.powers: dict[str, int] = {}
        self.statements: list[Statement] = []

    def rewritten(self) -> Program:
        for s in self.program.statements:
            if isinstance(s, Assign) and not s.scalar:
                self._rewrite(s)
            else:
                self.statements.append(s)
        return _like(self.program, self.statements)

    def _rewrite(self, s: Assign) -> None:
        first, *rest = s.operands
        last = rest[0] if rest else None
        if "root" in (first, last) and s.operation in ("mul", "div") and last in self.scalars:
            self.multiples[s.target] = s
        if s.target == "root":
            self.statements.append(s)
            self._reciprocals()
        elif self.rooted and s.operation == "div" and s.target == self.ratio:
            self._fall(first)
        elif self.rooted and s.target == "ratio":
            self._emit("ratio", "mul", "fall", "fall")
        elif self.rooted and s.operation == "sqrt" and first == "ratio":
            self._emit(s.target, "copy", "fall")
        elif s.target == "relative_unit":
            self._emit(s.target, "mul", first, "over_root")
            self._emit("unit_over", "mul", first, "over_second")
        elif s.operation == "div" and last == "root":
            self._emit(s.target, "mul", first, "over_root", note=s.note)
        elif s.operation == "div" and last == self.second:
            self._emit(s.target, "mul", first, "over_second", note=s.note)
        elif s.operation == "div" and last in self.multiples:
            self._over_multiple(s, self.multiples[last])
        elif s.operation == "mul" and last == "relative_unit":
            self._power(s, first)
        else:
            self.statements.append(s)

    def _reciprocals(self) -> None:
        """1/v and 1/√v, of a v that the statistics' unit does not dwarf."""
        self._emit("slight", "mul", "unit_of_c", _SLIGHT)
        self._emit("slight_square", "mul", "slight", "slight")
        self._emit("lifted_second", "add", self.second, "slight_square")
        self._emit("over_second", "reciprocal", "lifted_second")
        self._emit("over_root", "mul", "root", "over_second")

    def _fall(self, old: Operand) -> None:
        """√(old/new): its root is taken of the old moment, which waits for nothing."""
        self._emit("old_root", "sqrt", old)
        self._emit("whole_fall", "mul", "old_root", "over_root")
        limit = Number(sp.Integer(sp.integer_nthroot(int(RATIO_LIMIT), 2)[0]))
        self._emit("over_limit", "sub", "whole_fall", limit)
        self._emit("over_limit_only", "relu", "over_limit")
        self._emit("fall", "sub", "whole_fall", "over_limit_only")

    def _over_multiple(self, s: Assign, multiple: Assign) -> None:
        scale = next(o for o in multiple.operands if o != "root")
        self._emit(f"{s.target}_bare", "mul", s.operands[0], "over_root")
        back = "mul" if multiple.operation == "div" else "div"
        self._emit(s.target, back, f"{s.target}_bare", scale, note=s.note)

    def _power(self, s: Assign, first: Operand) -> None:
        """c u u … as (c unit)(unit/v) u …: the first two wait for no root."""
        taken = 0 if first in _POWERS else self.powers.get(first, 2)
        factor = _UNITS[taken]
        self.powers[s.target] = min(taken + 1, 2)
        self._emit(s.target, "mul", first, factor, note=s.note)

    def _emit(self, target: str, operation: str, *operands: Operand, note: str = "") -> None:
        self.statements.append(Assign(target, operation, operands, note=note))


class _Cuts:
    """Cheaper cuts."""

    def __init__(self, program: Program):
        self.program = program
        self.scalars = _scalar_names(program)
        self.bounded = any(
            isinstance(s, Assign) and s.target == "lifted_second" for s in program.statements
        )
        self.powers: dict[Operand, tuple[int, bool]] = {c: (int(c[1]), True) for c in _POWERS}
        self.above: dict[Operand, tuple[sp.Expr, str]] = {}
        self.statements: list[Statement] = []

    def rewritten(self) -> Program:
        for s in self.program.statements:
            if isinstance(s, Assign) and not s.scalar:
                self._learn(s)
            if isinstance(s, Assign) and s.operation in ("clamp_min", "clamp_max"):
                self._cut(s)
            else:
                self.statements.append(s)
        return _like(self.program, self.statements)

    def _learn(self, s: Assign) -> None:
        """Which power a value is an estimate of, and whether it is that estimate itself."""
        known = [o for o in s.operands if o in self.powers]
        rest = [o for o in s.operands if o not in (*known, *_UNITS)]
        plain = all(isinstance(o, Number) or o in self.scalars for o in rest)
        if len(known) == 1 and plain and s.operation in ("mul", "div", "copy", *_CLAMPS):
            power, bare = self.powers[known[0]]
            self.powers[s.target] = (power, bare and (not rest or s.operation in _CLAMPS))

    def _is_small_enough(self, x: Operand) -> bool:
        """Whether a cut at `LIMIT` or beyond does nothing that a later cut does not do."""
        power, bare = self.powers.get(x, (0, False))
        return self.bounded and (bare or power == 2)

    def _cut(self, s: Assign) -> None:
        x, bound = s.operands
        value = bound.value if isinstance(bound, Number) else None
        if value is not None and abs(value) >= LIMIT and self._is_small_enough(x):
            self.statements.append(Assign(s.target, "copy", (x,), note=s.note))
        elif value is not None and abs(value) >= LIMIT and self.bounded:
            self._far(s, x, bound)
        elif value == TINY:
            self.statements.append(Assign(s.target, "add", (x, bound), note=s.note))
        elif value == 0 and s.operation == "clamp_min":
            self.statements.append(Assign(s.target, "relu", (x,), note=s.note))
        elif value is not None and abs(value) <= _SMALL:
            self._small(s, x, bound)
        else:
            self.statements.append(s)

    def _far(self, s: Assign, x: Operand, bound: Number) -> None:
        """x - relu(x - b): x itself below b, about b above it, for an x that is finite."""
        below = s.operation == "clamp_max"
        self._emit("sub", *((x, bound) if below else (bound, x)), s, 1)
        self._emit("relu", f"{s.target}_1", None, s, 2)
        last = (x, f"{s.target}_2")
        self.statements.append(Assign(s.target, "sub" if below else "add", last, note=s.note))

    def _small(self, s: Assign, x: Operand, bound: Number) -> None:
        below = s.operation == "clamp_max"
        start = (bound, x) if below else (x, bound)
        if not below and x in self.above:  # high - relu(high - x) - low, in one subtraction
            high, left = self.above[x]
            start = (Number(high - bound.value), left)
        self._emit("sub", *start, s, 1)
        self._emit("relu", f"{s.target}_1", None, s, 2)
        if below:
            self.above[s.target] = (bound.value, f"{s.target}_2")
        last = (bound, f"{s.target}_2")
        self.statements.append(Assign(s.target, "sub" if below else "add", last, note=s.note))

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
