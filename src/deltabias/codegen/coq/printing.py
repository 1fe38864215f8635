"""SymPy expressions and straight-line programs as Coq terms over R.

One exhaustive table; what is not in it is a named refusal, never a guess.
"""

from collections.abc import Callable, Sequence

import sympy as sp

from deltabias.codegen.ssa import Assign, Number, Operand, Program
from deltabias.errors import CertifyError
from deltabias.parser import clip
from deltabias.safe_form import Definition

KEYWORDS = frozenset(
    [
        *("as", "at", "cofix", "else", "end", "exists", "exists2", "fix", "for", "forall", "fun"),
        *("if", "in", "let", "match", "mod", "return", "then", "using", "where", "with", "by"),
        *("struct", "root", "exp", "ln", "sqrt", "atan", "s", "f", "a", "l", "m", "k", "lo", "hi"),
        *("mean", "average", "sample", "moment", "surely", "probability", "tower", "bound", "c"),
        *("update", "smooth", "inside", "corrected", "joined", "relative_inversion", "cov", "var"),
        *("t", "x", "n", "q", "limit", "tower", "total", "central", "convex", "law", "product"),
        *("coupling_coefficient", "inversion_coefficient", "second_constant", "third_constant"),
    ]
)
"""Coq's own words and those of the certificates: a rule's names must not mean something else."""

FUNCTIONS = {sp.exp: "exp", sp.log: "ln", sp.tanh: "tanh_", sp.atan: "atan", sp.Abs: "Rabs"}
_CONSTANTS = {sp.pi: "PI", sp.E: "exp 1"}
_SUM, _PRODUCT, _INVERSE, _POWER, _APPLICATION, _ATOM = range(6)


def coq_name(name: str) -> str:
    """A rule's name as a Coq identifier: itself, or with an underscore where that is taken.

    >>> coq_name("exp_avg"), coq_name("in"), coq_name("f_2")
    ('exp_avg', 'in_', 'f_2_')
    """
    taken = (
        name in KEYWORDS or name.startswith(("f_", "t_", "atom_", "bound_")) or name.endswith("_")
    )
    return f"{name}_" if taken else name


class Printer:
    """Prints expressions; `rename` says what a symbol is called (an application is fine)."""

    def __init__(self, rename: Callable[[sp.Symbol], str] | None = None):
        self._rename = rename or (lambda symbol: coq_name(symbol.name))

    def __call__(self, expression: sp.Expr) -> str:
        """The term.

        >>> v, eps = sp.symbols("v eps", positive=True)
        >>> Printer()(-sp.Rational(3, 8) * (eps + sp.sqrt(v)) ** -2)
        '- (3 / (8 * (eps + sqrt v) ^ 2))'

        Raises
        ------
        CertifyError
            for a node that is not in the table.
        """
        return self._print(sp.sympify(expression))[0]

    def argument(self, expression: sp.Expr) -> str:
        """The term, in parentheses unless it is a name or a numeral."""
        return self._at(expression, _ATOM)

    def _at(self, expression: sp.Expr, level: int) -> str:
        text, strength = self._print(expression)
        return text if strength >= level else f"({text})"

    def _print(self, node: sp.Expr) -> tuple[str, int]:
        if isinstance(node, sp.Symbol):
            name = self._rename(node)
            return name, _APPLICATION if " " in name else _ATOM
        if node in _CONSTANTS:
            return _CONSTANTS[node], _APPLICATION if " " in _CONSTANTS[node] else _ATOM
        if isinstance(node, sp.Rational):
            return _rational(node)
        if isinstance(node, sp.Add):
            return self._sum(node), _SUM
        if isinstance(node, sp.Mul):
            return self._product(node)
        if isinstance(node, sp.Pow):
            return self._power(node.base, node.exp)
        if isinstance(node, clip):
            inner, low, high = (self._at(a, _ATOM) for a in node.args)
            return f"Rmin (Rmax {inner} {low}) {high}", _APPLICATION
        if isinstance(node, sp.Max | sp.Min):
            return self._extreme(node), _APPLICATION
        if type(node) in FUNCTIONS:
            return f"{FUNCTIONS[type(node)]} {self._at(node.args[0], _ATOM)}", _APPLICATION
        raise CertifyError(
            f"{node} ({type(node).__name__}) has no term in the certificates' table; known are "
            "sums, products, rational powers, exp, log, tanh, atan, abs, min, max and clip."
        )

    def _sum(self, node: sp.Add) -> str:
        text = ""
        for term in node.as_ordered_terms():
            minus = term.could_extract_minus_sign()
            part = self._at(-term if minus else term, _PRODUCT)
            if not text:
                text = f"- {self._at(-term, _INVERSE)}" if minus else part
            else:
                text += f" - {part}" if minus else f" + {part}"
        return text

    def _product(self, node: sp.Mul) -> tuple[str, int]:
        coefficient, rest = node.as_coeff_Mul()
        if coefficient.is_negative:
            return f"- {self._at(-node, _INVERSE)}", _SUM
        top, bottom = [], []
        for factor in rest.as_ordered_factors():
            base, exponent = factor.as_base_exp()
            if exponent.is_Rational and exponent.is_negative:
                bottom.append(base**-exponent)
            else:
                top.append(factor)
        if coefficient.p != 1:
            top.insert(0, sp.Integer(coefficient.p))
        if coefficient.q != 1:
            bottom.insert(0, sp.Integer(coefficient.q))
        above = " * ".join(self._at(t, _INVERSE) for t in top)
        if not bottom:
            return above, _PRODUCT
        below = self._at(bottom[0], _POWER)
        if len(bottom) > 1:
            below = f"({' * '.join(self._at(b, _INVERSE) for b in bottom)})"
        return (f"{above} / {below}", _PRODUCT) if top else (f"/ {below}", _INVERSE)

    def _power(self, base: sp.Expr, exponent: sp.Expr) -> tuple[str, int]:
        if not exponent.is_Rational:
            raise CertifyError(f"({base})**({exponent}) is not a rational power.")
        if exponent.is_negative:
            return f"/ {self._at(base**-exponent, _POWER)}", _INVERSE
        text, strength = self._print(base)
        if exponent.q != 1:
            inner = text if strength == _ATOM else f"({text})"
            text = f"sqrt {inner}" if exponent.q == 2 else f"root {exponent.q} {inner}"
            strength = _APPLICATION
        if exponent.p == 1:
            return text, strength
        return (text if strength > _POWER else f"({text})") + f" ^ {exponent.p}", _POWER

    def _extreme(self, node: sp.Expr) -> str:
        name = "Rmax" if isinstance(node, sp.Max) else "Rmin"
        first, *others = sorted(node.args, key=str)
        text = self._at(first, _ATOM)
        for other in others:
            text = f"({name} {text} {self._at(other, _ATOM)})"
        return text[1:-1]


def _rational(value: sp.Rational) -> tuple[str, int]:
    if value < 0:
        text, strength = _rational(-value)
        return (f"- {text}" if strength == _ATOM else f"- ({text})"), _SUM
    return (str(value.p), _ATOM) if value.q == 1 else (f"{value.p} / {value.q}", _PRODUCT)


# -- programs -----------------------------------------------------------------------------------

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
PREFIX = {
    "neg": "- {}",
    "reciprocal": "/ {}",
    "sqrt": "sqrt {}",
    "exp": "exp {}",
    "log": "ln {}",
    "log1p": "ln (1 + {})",
    "tanh": "tanh_ {}",
    "atan": "atan {}",
    "abs": "Rabs {}",
    "copy": "{}",
}
CALLS = {"clamp_min": "Rmax", "clamp_max": "Rmin", "maximum": "Rmax", "minimum": "Rmin"}


def chain(program: Program) -> str:
    """A program of one result as nested ``let``, one for each operation it prints.

    Raises
    ------
    CertifyError
        for an operation without a meaning over R.
    """
    lines = [f"  let {coq_local(s.target)} := {_operation(s)} in" for s in program.statements]
    (result,) = program.results
    return "\n".join([*lines, f"  {coq_local(result)}"])


def coq_local(name: str) -> str:
    return f"t{name}" if name.startswith("_") else coq_name(name)


def _operand(operand: Operand) -> str:
    if isinstance(operand, Number):
        return Printer().argument(operand.value)
    return coq_local(operand)


def _operation(statement: Assign) -> str:
    operands: Sequence[str] = [_operand(o) for o in statement.operands]
    operation = statement.operation
    if operation in BINARY:
        return f"{operands[0]} {BINARY[operation]} {operands[1]}"
    if operation in PREFIX:
        return PREFIX[operation].format(operands[0])
    if operation in CALLS:
        return f"{CALLS[operation]} {operands[0]} {operands[1]}"
    power = statement.operands[-1]
    if operation == "pow" and isinstance(power, Number) and power.value.is_Integer:
        return f"{operands[0]} ^ {power.value}" if power.value >= 0 else _refuse(operation)
    if operation == "root":
        return f"root {operands[1]} {operands[0]}"
    return _refuse(operation)


def _refuse(operation: str) -> str:
    raise CertifyError(
        f"operation {operation!r} of the printed program has no meaning over the reals in the "
        f"certificates' table; known are {', '.join([*BINARY, *PREFIX, *CALLS, 'root'])}."
    )


def definition_chain(definitions: Sequence[Definition]) -> str:
    """Named definitions of mathematics as nested ``let``; the last one is the value."""
    show = Printer()
    lines = [f"  let {coq_name(d.name)} := {show(d.expression)} in" for d in definitions[:-1]]
    return "\n".join([*lines, f"  {show(definitions[-1].expression)}"])
