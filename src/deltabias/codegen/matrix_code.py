"""Prints a matrix expression's jet as lines of torch: the algebra of `calculus.matrix.expand`.

A *value* is [..., rows, columns]; a *first* carries the directions, [..., r, rows, columns]; a
*second* is summed over them as early as it can be, so none is ever kept per direction.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from deltabias.calculus.matrix import (
    Elementwise,
    Identity,
    Jet,
    MatrixExpr,
    Named,
    Normalized,
    Scaled,
    Spectral,
    Sum,
    expand,
)
from deltabias.codegen import eager
from deltabias.codegen.ssa import lower
from deltabias.matrix_rule import bare_symbol
from deltabias.safe_form import Definition

VALUE, FIRST, SECOND = "value", "first", "second"

OWN = ("full", "diagonal", "eigenvalue_only")
"""What is taken of a function's own second order."""


_BACK = "{{0}}{side} @ {{1}} @ {{0}}{side}.mT"


@dataclass(frozen=True)
class Code:
    """A name in the program, or an identity (``shift`` times I), and what it depends on."""

    name: str
    kind: str = VALUE
    shift: sp.Expr | None = None


@dataclass
class Line:
    """``target = text``, the operands standing as {0}, {1} …; a low level binds loosely."""

    target: str
    text: str
    operands: tuple[str, ...]
    level: int


class Printer:
    """Collects lines; an algebra for `expand`."""

    def __init__(self, settled: str | None = None):
        """`settled`: one of `OWN`, to put a function's own second order into its value in the
        form that keeps it positive definite; None to keep it apart."""
        self.settled = settled
        self.lines: list[Line] = []
        self.helpers: dict[str, str] = {}
        self.maps: dict[str, Spectral] = {}
        self._handles: dict[MatrixExpr, str] = {}
        self._counter = 0

    # -- lines --------------------------------------------------------------------------------

    def emit(self, kind: str, text: str, *operands: str, level: int = 9, name: str = "") -> Code:
        """Append a line, or reuse an equal one."""
        for line in self.lines:
            if (line.text, line.operands) == (text, operands) and not name:
                return Code(line.target, kind)
        self._counter += 1
        target = name or f"_x{self._counter}"
        self.lines.append(Line(target, text, operands, level))
        return Code(target, kind)

    def body(self, results: list[str], keys: list[str] | None = None) -> list[str]:
        """The lines that the results need; what is read once stands where it is read.

        The results are returned as they are, or by their keys in a dictionary.
        """
        by_name = {line.target: line for line in self.lines}
        uses: dict[str, int] = {}

        def visit(name: str) -> None:
            uses[name] = uses.get(name, 0) + 1
            if uses[name] == 1 and name in by_name:
                for operand in by_name[name].operands:
                    visit(operand)

        for result in results:
            visit(result)
        inlined = {n for n, c in uses.items() if c == 1 and n.startswith("_x")}

        def show(name: str, level: int) -> str:
            if name not in by_name or name not in inlined:
                return name
            text = self._filled(by_name[name], show)
            return f"({text})" if by_name[name].level < level else text

        kept = [
            f"{line.target} = {self._filled(line, show)}"
            for line in self.lines
            if line.target in uses and line.target not in inlined
        ]
        shown = [show(r, 0) for r in results]
        if keys is None:
            return [*kept, f"return {', '.join(shown)}"]
        entries = (f'"{k}": {v}' for k, v in zip(keys, shown, strict=True))
        return [*kept, f"return {{{', '.join(entries)}}}"]

    @staticmethod
    def _filled(line: Line, show: Callable[[str, int], str]) -> str:
        # a left operand may bind as loosely as the line itself, a right one may not
        def operand(match: re.Match) -> str:
            index = int(match[1])
            return show(line.operands[index], 9 if match[2] else line.level + (index > 0))

        return re.sub(r"\{(\d+)(!?)\}", operand, line.text)

    # -- the algebra --------------------------------------------------------------------------

    def symbol(self, name: str) -> Code:
        return Code(name)

    def deviation(self, name: str) -> Code:
        return Code(f"d{name}", FIRST)

    def identity(self) -> Code:
        return Code("", VALUE, sp.Integer(1))

    def add(self, items: list[Code]) -> Code:
        shifts = sum((i.shift for i in items if i.shift is not None), sp.Integer(0))
        rest = [i for i in items if i.shift is None]
        if not rest:
            return Code("", VALUE, shifts)
        total = rest[0]
        for item in rest[1:]:
            total = self.emit(total.kind, "{0} + {1}", total.name, item.name, level=1)
        if shifts == 0:
            return total
        return self.emit(VALUE, f"_shifted({{0}}, {scalar(shifts)})", total.name)

    def scale(self, coefficient: sp.Expr, item: Code) -> Code:
        if item.shift is not None:
            return Code("", VALUE, coefficient * item.shift)
        if coefficient == -1:
            return self.emit(item.kind, "-{0}", item.name, level=2)
        return self.emit(item.kind, f"{scalar(coefficient)} * {{0!}}", item.name, level=2)

    def multiply(self, left: Code, right: Code) -> Code:
        for identity, other in ((left, right), (right, left)):
            if identity.shift is not None:
                return self.scale(identity.shift, other) if identity.shift != 1 else other
        kinds = {left.kind, right.kind}
        if left.kind == right.kind == FIRST:
            return self.emit(SECOND, "_side_by_side({0}, {1})", left.name, right.name, level=9)
        if kinds == {VALUE, FIRST}:
            a, b = (
                c.name if c.kind == FIRST else self.emit(FIRST, "{0!}.unsqueeze(-3)", c.name).name
                for c in (left, right)
            )
            return self.emit(FIRST, "{0} @ {1}", a, b, level=2)
        kind = SECOND if SECOND in kinds else VALUE
        return self.emit(kind, "{0} @ {1}", left.name, right.name, level=2)

    def transpose(self, item: Code) -> Code:
        if item.shift is not None:
            return item
        return self.emit(item.kind, "{0!}.mT", item.name)

    # -- functions of matrices ----------------------------------------------------------------

    def spectral(self, node: Spectral, argument: Code) -> Code:
        bare = bare_symbol(node.body)
        taken = set(self._handles.values())
        handle = bare if bare and bare not in taken else str(len(taken) + 1)
        self._handles[node] = handle
        prefix = self._prefix(node)
        body, shift = argument.name, "0.0"
        if terms := _without_identity(node.body):
            shift = scalar(terms[1])
            line = next(x for x in self.lines if x.target == argument.name)
            body = line.operands[0]
        finite = ", singular=True" if node.map.finite_at_zero else ""
        self.emit(VALUE, f"_spectrum({{0}}, {shift}{finite})", body, name=f"spectrum_{handle}")
        self.emit(VALUE, f"{prefix}roots({{0}}[0])", f"spectrum_{handle}", name=f"root_{handle}")
        self.emit(VALUE, "{0}[1]", f"spectrum_{handle}", name=f"basis_{handle}")
        return self.emit(
            VALUE,
            f"({{0}} * {prefix}values({{1}}{_passed(node)}).unsqueeze(-2)) @ {{0}}.mT",
            f"basis_{handle}",
            f"root_{handle}",
            level=2,
        )

    def _prefix(self, node: Spectral) -> str:
        name = node.map.name
        while name in self.maps and self.maps[name].map != node.map:
            name += "_"
        self.maps[name] = node
        return f"_{name}_"

    def _rotated(self, node: Spectral, item: Code) -> Code:
        basis = f"basis_{self._handles[node]}"
        side = ".unsqueeze(-3)" if item.kind == FIRST else ""
        for line in self.lines:  # what was just turned back need not be turned
            turned = line.target == item.name and line.text == _BACK.format(side=side)
            if turned and line.operands[0] == basis:
                return Code(line.operands[1], item.kind)
        return self.emit(
            item.kind, f"{{0}}{side}.mT @ {{1}} @ {{0}}{side}", basis, item.name, level=2
        )

    def _back(self, node: Spectral, item: Code) -> Code:
        basis = f"basis_{self._handles[node]}"
        side = ".unsqueeze(-3)" if item.kind == FIRST else ""
        return self.emit(item.kind, _BACK.format(side=side), basis, item.name, level=2)

    def spectral_first(self, node: Spectral, item: Code) -> Code:
        inner = self._rotated(node, item)
        root = f"root_{self._handles[node]}"
        side = ".unsqueeze(-2)" if item.kind == FIRST else ""
        along = self.emit(
            item.kind,
            f"{self._prefix(node)}first_order({{0}}{side}, {{1}}{_passed(node)})",
            root,
            inner.name,
        )
        return self._back(node, along)

    def spectral_second(self, node: Spectral, first: Code) -> Code:
        inner, root = self._rotated(node, first), f"root_{self._handles[node]}"
        prefix, passed = self._prefix(node), _passed(node)
        form = {
            "full": f"{prefix}second_order({{0}}, {{1}}{passed})",
            "diagonal": f"torch.diag_embed({prefix}diagonal({{0}}, "
            f"{{1!}}.square().sum(-3){passed}))",
            "eigenvalue_only": f"torch.diag_embed({prefix}eigenvalue_only({{0}}, "
            f"{{1!}}.diagonal(dim1=-2, dim2=-1).square().sum(-2){passed}))",
        }[self.settled or "full"]
        return self._back(node, self.emit(SECOND, form, root, inner.name))

    def settle(self, node: MatrixExpr, value: Code, second: dict) -> tuple[Code, dict]:
        # the second order of an argument of its own, such as MᵀM, makes X indefinite
        safe = isinstance(node, Spectral) and node.map.keeps_positive and bare_symbol(node.body)
        if self.settled is None or not safe:
            return value, second
        total = self._rotated(node, self.add(list(second.values())))
        kept = self.emit(
            VALUE,
            f"{self._prefix(node)}corrected({{0}}, {{1}}{_passed(node)})",
            f"root_{self._handles[node]}",
            total.name,
        )
        return self._back(node, kept), {}

    def named(self, node: Named, jet: Jet) -> Jet:
        first = {None: self.add(list(jet.first.values()))} if jet.first else {}
        second = {"inversion": self.add(list(jet.second.values()))} if jet.second else {}
        return Jet(jet.value, first, second)

    # -- entry by entry -----------------------------------------------------------------------

    def elementwise(self, node: Elementwise, arguments: list[Code]) -> Code:
        handle = self._handles[node] = f"map_{len(self._handles) + 1}"
        self._arguments = {**getattr(self, "_arguments", {}), node: arguments}
        return self._entrywise(handle, node.expression, node)

    def _entrywise(self, handle: str, expression: sp.Expr, node: Elementwise) -> Code:
        names = [n for n, s in zip(node.names, node.variables, strict=True)
                 if s in expression.free_symbols]  # fmt: skip
        hypers = sorted({s.name for s in expression.free_symbols} - set(node.names))
        if not names:
            return Code("", VALUE, expression)
        result = _free("result", {*names, *hypers})
        program = lower(f"_{handle}", [Definition(result, expression)], names, hypers)
        self.helpers[handle] = eager.render(program)
        by_name = dict(zip(node.names, self._arguments[node], strict=True))
        passed = "".join(f", {h}={h}" for h in hypers)
        slots = ", ".join(f"{{{i}}}" for i in range(len(names)))
        return self.emit(VALUE, f"_{handle}({slots}{passed})", *(by_name[n].name for n in names))

    def _partial(self, node: Elementwise, *indices: int) -> Code:
        chosen = [node.variables[i] for i in indices]
        letters = "".join(node.names[i] for i in indices)
        derivative = sp.factor(sp.diff(node.expression, *chosen))
        return self._entrywise(f"{self._handles[node]}_{letters}", derivative, node)

    def elementwise_first(self, node: Elementwise, i: int, item: Code) -> Code:
        slope = self._partial(node, i)
        if slope.shift is not None:
            return self.scale(slope.shift, item)
        side = ".unsqueeze(-3)" if item.kind == FIRST else ""
        return self.emit(item.kind, f"{{0!}}{side} * {{1!}}", slope.name, item.name, level=2)

    def elementwise_second(self, node: Elementwise, i: int, j: int, a: Code, b: Code):
        variables = node.variables
        if sp.diff(node.expression, variables[i], variables[j]) == 0:
            return None
        curvature = self._partial(node, i, j)
        half = "0.5 * " if i == j else ""
        pairs = self.emit(SECOND, "({0!} * {1!}).sum(-3)", a.name, b.name)
        if curvature.shift is not None:
            return self.scale(curvature.shift * (sp.Rational(1, 2) if i == j else 1), pairs)
        return self.emit(SECOND, f"{half}{{0!}} * {{1!}}", curvature.name, pairs.name, level=2)

    # -- the Frobenius norm -------------------------------------------------------------------

    def normalized(self, node: Normalized, argument: Code) -> Code:
        handle = self._handles[node] = str(len(self._handles) + 1)
        self._arguments = {**getattr(self, "_arguments", {}), node: [argument]}
        self.emit(VALUE, "_norm({0})", argument.name, name=f"norm_{handle}")
        return self.emit(VALUE, "{0!} / {1!}", argument.name, f"norm_{handle}", level=2)

    def normalized_first(self, node: Normalized, item: Code) -> Code:
        return self._normalized("first" if item.kind == FIRST else "along", node, item)

    def normalized_second(self, node: Normalized, first: Code) -> Code:
        return self._normalized("second", node, first)

    def _normalized(self, which: str, node: Normalized, item: Code) -> Code:
        (argument,), norm = self._arguments[node], f"norm_{self._handles[node]}"
        kind = FIRST if which == "first" else SECOND
        return self.emit(
            kind, f"_normalized_{which}({{0}}, {{1}}, {{2}})", argument.name, norm, item.name
        )


def _without_identity(body: MatrixExpr) -> tuple[list[MatrixExpr], sp.Expr] | None:
    """The terms of X + c I, apart: the shift is better added to eigenvalues."""
    if not isinstance(body, Sum):
        return None
    shift, rest = sp.Integer(0), []
    for term in body.terms:
        if isinstance(term, Identity):
            shift += 1
        elif isinstance(term, Scaled) and isinstance(term.body, Identity):
            shift += term.coefficient
        else:
            rest.append(term)
    return (rest, shift) if shift != 0 and rest else None


def scalar(expression: sp.Expr) -> str:
    """A scalar expression as Python arithmetic, rationals as floats."""
    names = sorted(s.name for s in expression.free_symbols)
    program = lower("f", [Definition(_free("result", set(names)), expression)], (), names)
    text = eager.render(program).rstrip().rpartition("return ")[2]
    return text if text.replace("_", "").replace(".", "").isalnum() else f"({text})"


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _passed(node: Spectral) -> str:
    return "".join(f", {h}={h}" for h in sorted(s.name for s in node.map.hypers))


def jet_code(expression: MatrixExpr, settled: str | None = None) -> tuple[Printer, Jet]:
    """The printer after the walk, and the jet of names."""
    printer = Printer(settled)
    return printer, expand(expression, printer)
