"""The one intermediate form: straight-line code, every name assigned once, or mutated by name.

`lower` turns named SymPy definitions into it through one exhaustive table; a node that is not
in the table is an error, never a guess. Values are tensors or host scalars; an operation on
scalars alone is printed as Python arithmetic.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sympy as sp

from deltabias.errors import GenerateError
from deltabias.parser import clip
from deltabias.safe_form import Definition

UNARY = {
    sp.exp: "exp",
    sp.log: "log",
    sp.tanh: "tanh",
    sp.Abs: "abs",
    sp.sign: "sign",
    sp.atan: "atan",
    sp.erf: "erf",
}
TENSOR_OPERATIONS = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "sqrt",
        "reciprocal",
        "clamp_min",
        "clamp_max",
        "maximum",
        "minimum",
        "root",
        "clone",
        "to_dtype_of",
        "copy",
        "pow",
        "log1p",
        *UNARY.values(),
    }
)


_CONSTANTS = {sp.pi: "math.pi", sp.E: "math.e"}


@dataclass(frozen=True)
class Number:
    """A literal: an exact rational, printed as a Python number or quotient, or π or e."""

    value: sp.Expr

    def __str__(self) -> str:
        if self.value in _CONSTANTS:
            return _CONSTANTS[self.value]
        p, q = self.value.p, self.value.q
        if q == 1:
            return str(p) if abs(p) < 10**6 else repr(float(p))
        dyadic = q & (q - 1) == 0
        return repr(p / q) if dyadic else f"{p} / {q}"


Operand = str | Number


@dataclass(frozen=True)
class Assign:
    """``target = operation(*operands)``."""

    target: str
    operation: str
    operands: tuple[Operand, ...]
    scalar: bool = False
    note: str = ""


@dataclass(frozen=True)
class Mutate:
    """``target.operation_(*operands, **keywords)``: an update in place of an argument."""

    target: str
    operation: str
    operands: tuple[Operand, ...]
    keyword: str = ""
    value: Operand | None = None


Statement = Assign | Mutate


@dataclass
class Program:
    """Arguments, statements and results of one function."""

    name: str
    tensors: tuple[str, ...]
    scalars: tuple[str, ...]
    statements: list[Statement] = field(default_factory=list)
    results: tuple[str, ...] = ()
    doc: str = ""

    def uses(self) -> dict[str, int]:
        """How often each name is read."""
        counts: dict[str, int] = {}
        for statement in self.statements:
            reads = list(statement.operands)
            if isinstance(statement, Mutate):
                reads += [statement.target, statement.value]
            for operand in reads:
                if isinstance(operand, str):
                    counts[operand] = counts.get(operand, 0) + 1
        for name in self.results:
            counts[name] = counts.get(name, 0) + 1
        return counts

    def unread(self) -> set[str]:
        """Tensor arguments whose old value nobody wants: the first thing done is a copy into it."""
        seen: set[str] = set()
        found: set[str] = set()
        for s in self.statements:
            reads = {*s.operands, *([s.value] if isinstance(s, Mutate) else [])}
            if isinstance(s, Mutate) and s.operation == "copy" and s.target not in seen | reads:
                found.add(s.target)
            seen |= {r for r in reads if isinstance(r, str)} | {s.target}
        return found & set(self.tensors)

    def prune(self) -> "Program":
        """Drop assignments that nothing reads."""
        while True:
            uses = self.uses()
            kept = [s for s in self.statements if isinstance(s, Mutate) or s.target in uses]
            if len(kept) == len(self.statements):
                return self
            self.statements = kept


class Lowering:
    """Appends to a program; remembers what has been computed, so nothing is computed twice."""

    def __init__(self, program: Program):
        self.program = program
        self._known: dict[tuple, str] = {}
        self._scalars = set(program.scalars)
        self._names = set(program.tensors) | set(program.scalars)

    def define(self, definitions: Iterable[Definition]) -> None:
        """Lower definitions in order; each keeps its name."""
        for definition in definitions:
            operand = self.lower(definition.expression)
            self.bind(operand, definition.name, definition.note)

    def declares(self, name: str) -> bool:
        """Whether a name has a value."""
        return name in self._names

    def scalar_argument(self, name: str) -> str:
        """Make a name an argument of the function, unless it has a value already."""
        if name not in self._names:
            self.program.scalars += (name,)
            self._scalars.add(name)
            self._names.add(name)
        return name

    def bind(self, operand: Operand, name: str, note: str = "") -> str:
        """Give a value a name.

        Raises
        ------
        GenerateError
            for a name that has a value already.
        """
        if name in self._names:
            raise GenerateError(f"{name!r} is defined twice.")
        last = self.program.statements[-1] if self.program.statements else None
        fresh = isinstance(last, Assign) and last.target == operand and operand.startswith("_")
        if fresh:
            self.program.statements[-1] = Assign(
                name, last.operation, last.operands, last.scalar, note
            )
            key = (last.operation, last.operands)
            self._known[key] = name
        else:  # the value has a name already, or is an argument
            scalar = not isinstance(operand, str) or operand in self._scalars
            self.program.statements.append(Assign(name, "copy", (operand,), scalar, note))
        self._names.add(name)
        if last.scalar if fresh else scalar:
            self._scalars.add(name)
        return name

    def emit(self, operation: str, *operands: Operand) -> str:
        """Append an operation unless it is known; returns the name of its value."""
        key = (operation, operands)
        if key in self._known:
            return self._known[key]
        scalar = all(isinstance(o, Number) or o in self._scalars for o in operands)
        name = f"_{len(self.program.statements)}"
        self.program.statements.append(Assign(name, operation, operands, scalar))
        self._known[key] = name
        if scalar:
            self._scalars.add(name)
        return name

    def mutate(self, target: str, operation: str, *operands: Operand, **keyword: Operand) -> None:
        """Append an update in place; values that were computed from the target are forgotten."""
        ((name, value),) = keyword.items() or (("", None),)
        self.program.statements.append(Mutate(target, operation, operands, name, value))
        self._known = {k: v for k, v in self._known.items() if target not in k[1]}

    # -- the table ----------------------------------------------------------------------------

    def lower(self, node: sp.Expr) -> Operand:
        """The name or number that holds the value of an expression."""
        if isinstance(node, sp.Rational) or node in _CONSTANTS:
            return Number(node)
        if isinstance(node, sp.Symbol):
            if node.name not in self._names:
                raise GenerateError(f"{node.name!r} is used before it is defined.")
            return node.name
        if isinstance(node, sp.Add):
            return self._sum(node)
        if isinstance(node, sp.Mul):
            return self._product(node)
        if isinstance(node, sp.Pow):
            return self._power(node.base, node.exp)
        if isinstance(node, sp.Max | sp.Min):
            return self._extreme(node)
        if isinstance(node, clip):
            inner, low, high = map(self.lower, node.args)
            return self.emit("clamp_max", self.emit("clamp_min", inner, low), high)
        if isinstance(node, sp.log) and node.args[0].is_Add and 1 in node.args[0].args:
            # log(1 + x) loses x below one unit in the last place of 1
            return self.emit("log1p", self.lower(node.args[0] - 1))
        if type(node) in UNARY:
            return self.emit(UNARY[type(node)], self.lower(node.args[0]))
        raise GenerateError(
            f"{node} ({type(node).__name__}) has no torch operation in the table; known are sums, "
            f"products, rational powers, min, max, clip and {', '.join(UNARY.values())}."
        )

    def _is_scalar(self, operand: Operand) -> bool:
        return isinstance(operand, Number) or operand in self._scalars

    def _sum(self, node: sp.Add) -> Operand:
        positive, negative = [], []
        for term in node.as_ordered_terms():
            sign, part = (-1, -term) if term.could_extract_minus_sign() else (1, term)
            (positive if sign > 0 else negative).append(self.lower(part))
        # tensors first: foreach has no scalar - tensor
        positive.sort(key=self._is_scalar)
        negative.sort(key=self._is_scalar)
        if positive and not (
            self._is_scalar(positive[0]) and negative and not all(map(self._is_scalar, negative))
        ):
            total, rest = positive[0], positive[1:]
        else:
            total, rest = self.emit("neg", negative.pop(0)), positive
        for operand in rest:
            total = self.emit("add", total, operand)
        for operand in negative:
            total = self.emit("sub", total, operand)
        return total

    def _product(self, node: sp.Mul) -> Operand:
        coefficient, rest = node.as_coeff_Mul()
        if not coefficient.is_Rational:
            raise GenerateError(f"{coefficient} in {node} is not an exact number.")
        top, bottom = [], []
        for factor in sp.Mul.make_args(rest):
            base, exponent = factor.as_base_exp()
            if exponent.is_number and exponent.is_negative:
                bottom.append(self._power(base, -exponent))
            else:
                top.append(self.lower(factor))
        top.sort(key=self._is_scalar)
        if coefficient != 1 and not (coefficient == -1 and top):
            top.append(Number(abs(coefficient)) if top else Number(coefficient))
        elif not top:
            top = [Number(sp.Integer(1))]
        result = self._chain("mul", top)
        if bottom:
            bottom.sort(key=self._is_scalar)
            result = self._quotient(result, self._chain("mul", bottom))
        if coefficient.is_negative and (len(top) > 1 or not isinstance(top[0], Number)):
            result = self.emit("neg", result)
        return result

    def _quotient(self, top: Operand, bottom: Operand) -> str:
        if self._is_scalar(top) and not self._is_scalar(bottom):  # foreach has no scalar / tensor
            inverse = self.emit("reciprocal", bottom)
            return inverse if top == Number(sp.Integer(1)) else self.emit("mul", inverse, top)
        return self.emit("div", top, bottom)

    def _chain(self, operation: str, operands: Sequence[Operand]) -> Operand:
        total = operands[0]
        for operand in operands[1:]:
            total = self.emit(operation, total, operand)
        return total

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> Operand:
        value = self.lower(base)
        if exponent == 1:
            return value
        if self._is_scalar(value) and self._is_scalar(power := self.lower(exponent)):
            return self.emit("pow", value, power)
        if not exponent.is_Rational:
            raise GenerateError(f"({base})**({exponent}) is not a rational power.")
        if exponent.is_negative:
            return self._quotient(Number(sp.Integer(1)), self._power(base, -exponent))
        whole, broken = divmod(exponent.p, exponent.q)
        parts = []
        if whole:
            parts.append(self._integer_power(value, whole))
        if broken:
            root = self._root(value, exponent.q)
            parts.append(self._integer_power(root, broken))
        return self._chain("mul", parts)

    def _integer_power(self, value: Operand, n: int) -> Operand:
        if n == 1:
            return value
        half = self._integer_power(value, n // 2)
        square = self.emit("mul", half, half)
        return self.emit("mul", square, value) if n % 2 else square

    def _root(self, value: Operand, degree: int) -> Operand:
        while degree % 2 == 0:
            value, degree = self.emit("sqrt", value), degree // 2
        return value if degree == 1 else self.emit("root", value, Number(sp.Integer(degree)))

    def _extreme(self, node: sp.Expr) -> Operand:
        clamp, pair = (
            ("clamp_min", "maximum") if isinstance(node, sp.Max) else ("clamp_max", "minimum")
        )
        operands = sorted((self.lower(a) for a in node.args), key=self._is_scalar)
        total = operands[0]
        for operand in operands[1:]:
            total = self.emit(clamp if self._is_scalar(operand) else pair, total, operand)
        return total


def lower(
    name: str,
    definitions: Sequence[Definition],
    tensors: Sequence[str],
    scalars: Sequence[str],
    results: Sequence[str] | None = None,
    doc: str = "",
) -> Program:
    """A pure function of tensors and scalars from named definitions; returns the last one."""
    program = Program(name, tuple(tensors), tuple(scalars), doc=doc)
    Lowering(program).define(definitions)
    program.results = tuple(results or (definitions[-1].name,))
    return program.prune()


def symbols_of(definitions: Sequence[Definition]) -> Mapping[str, sp.Symbol]:
    """Free symbols of a sequence of definitions, less what it defines itself, by name."""
    free: dict[str, sp.Symbol] = {}
    defined: set[str] = set()
    for definition in definitions:
        for symbol in sorted(definition.expression.free_symbols, key=str):
            if symbol.name not in defined:
                free[symbol.name] = symbol
        defined.add(definition.name)
    return free
