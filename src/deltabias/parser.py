"""Strings to SymPy expressions through a whitelist; nothing is ever evaluated.

Python's own grammar is used to *read* the string (`ast.parse` runs no code); every node that
is not in the tables below is an error that names it.
"""

import ast
import re
from collections.abc import Callable, Mapping

import sympy as sp

from deltabias.errors import ParseError

MAX_LENGTH = 2000
MAX_EXPONENT = 64
MAX_DEPTH = 100
MAX_BITS = 4096
DECIMAL = r"(\d{1,60}(\.\d{0,60})?|\.\d{1,60})([eE][+-]?\d{1,3})?"


class clip(sp.Function):
    """``clip(x, low, high)``: x where low < x < high, else the bound. Smooth only inside."""

    nargs = 3

    @classmethod
    def eval(cls, x: sp.Expr, low: sp.Expr, high: sp.Expr) -> sp.Expr | None:
        """Numbers are clipped at once."""
        if all(a.is_Rational for a in (x, low, high)):
            return max(low, min(high, x))
        return None


def _cbrt(x: sp.Expr) -> sp.Expr:
    return x ** sp.Rational(1, 3)


def _rsqrt(x: sp.Expr) -> sp.Expr:
    return 1 / sp.sqrt(x)


FUNCTIONS: Mapping[str, Callable[..., sp.Expr]] = {
    "sqrt": sp.sqrt,
    "rsqrt": _rsqrt,
    "cbrt": _cbrt,
    "exp": sp.exp,
    "log": sp.log,
    "tanh": sp.tanh,
    "atan": sp.atan,
    "erf": sp.erf,
    "abs": sp.Abs,
    "sign": sp.sign,
    "max": sp.Max,
    "min": sp.Min,
    "clip": clip,
}
ARITY = {"max": (2, 8), "min": (2, 8), "clip": (3, 3)}

_BINARY = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def parse_expression(text: str, symbol: Callable[[str], sp.Expr]) -> sp.Expr:
    """Read one expression; `symbol` turns each name into a SymPy symbol (and may refuse it).

    Decimal numbers are read exactly (``0.1`` is 1/10). Accepted: numbers, names, ``+ - * / **``,
    parentheses and the functions of `FUNCTIONS`.

    Raises
    ------
    ParseError
        for anything else, with the piece that was not understood.

    Examples
    --------
    >>> parse_expression("g*v**(-1/3)", sp.Symbol)
    g/v**(1/3)
    """
    if not isinstance(text, str):
        raise ParseError(f"expected a string such as 'g/(sqrt(v)+eps)', got {text!r}.")
    if not text.strip() or len(text) > MAX_LENGTH:
        raise ParseError(
            f"a rule has 1 to {MAX_LENGTH} characters, this one has {len(text.strip())}."
        )
    if "#" in text:
        raise ParseError(f"{text!r} contains a comment; a rule is mathematics alone.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ParseError(
            f"{text!r} is not an expression ({error.__class__.__name__}: {error}). "
            "Write one line of mathematics such as 'g/(sqrt(v)+eps)'."
        ) from error
    expression = _convert(tree.body, symbol, text, depth=0)
    if expression.has(sp.zoo, sp.nan, sp.oo, sp.I) or any(
        map(_complex_root, expression.atoms(sp.Pow))
    ):
        raise ParseError(f"{text!r} is not a finite real expression; it reads as {expression}.")
    return expression


def _complex_root(power: sp.Pow) -> bool:
    return bool(power.base.is_Rational and power.base < 0 and not power.exp.is_integer)


def _convert(node: ast.AST, symbol: Callable[[str], sp.Expr], text: str, depth: int) -> sp.Expr:
    if depth > MAX_DEPTH:
        raise ParseError(f"{text[:40]!r}… is nested deeper than {MAX_DEPTH} levels.")

    def inner(child: ast.AST) -> sp.Expr:
        return _convert(child, symbol, text, depth + 1)

    match node:
        case ast.Constant(value=bool()):
            raise ParseError(f"{node.value} is not a number.")
        case ast.Constant(value=int() | float()):
            return _number(ast.get_source_segment(text.strip(), node))
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise ParseError(f"{name!r} is a function; write {name}(…).")
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -inner(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return inner(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(inner(left), inner(right), text)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            return _divide_checked(operator, inner(left), inner(right), text)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            low, high = ARITY.get(name, (1, 1))
            if not low <= len(arguments) <= high:
                raise ParseError(
                    f"{name} takes {low if low == high else f'{low} to {high}'} argument(s), "
                    f"got {len(arguments)} in {text!r}."
                )
            return _checked_roots(FUNCTIONS[name](*map(inner, arguments)), text)
    raise ParseError(
        f"{(ast.get_source_segment(text.strip(), node) or type(node).__name__)!r} is not accepted "
        f"in a rule. Allowed: numbers, symbols, + - * / **, and {', '.join(sorted(FUNCTIONS))}."
    )


def _number(source: str) -> sp.Rational:
    # the source text, not the float: 0.1 is 1/10
    source = source.replace("_", "")
    if not re.fullmatch(DECIMAL, source):
        raise ParseError(f"{source[:40]!r} is not a decimal number of at most 60 digits.")
    return sp.Rational(source)


def _divide_checked(operator: ast.operator, left: sp.Expr, right: sp.Expr, text: str) -> sp.Expr:
    if isinstance(operator, ast.Div) and right.is_zero:
        raise ParseError(f"{text!r} divides by zero.")
    return _BINARY[type(operator)](left, right)


def _power(base: sp.Expr, exponent: sp.Expr, text: str) -> sp.Expr:
    if exponent.is_number and not exponent.is_Rational:
        raise ParseError(f"the exponent {exponent} in {text!r} is not a rational number.")
    if base.is_Rational and exponent.is_Rational:
        bits = max(base.p.bit_length(), base.q.bit_length()) * abs(exponent)
        if bits > MAX_BITS:
            raise ParseError(f"a number in {text[:60]!r} is out of range: over {MAX_BITS} bits.")
        _check_exponent(exponent, text)
    elif exponent.is_number:
        _check_exponent(exponent, text)
    if base.is_zero and exponent.is_number and exponent <= 0:
        raise ParseError(f"{text!r} divides by zero.")
    power = base**exponent
    for inner in power.atoms(sp.Pow):  # powers of powers add up
        if inner.exp.is_Rational:
            _check_exponent(inner.exp, text)
    return power


def _checked_roots(value: sp.Expr, text: str) -> sp.Expr:
    """A function's value; roots of roots stay within the range of exponents."""
    if isinstance(value, sp.Pow) and value.exp.is_Rational:
        _check_exponent(value.exp, text)
    return value


def _check_exponent(exponent: sp.Rational, text: str) -> None:
    if abs(exponent.p) > MAX_EXPONENT or exponent.q > MAX_EXPONENT:
        raise ParseError(
            f"the exponent {exponent} in {text[:60]!r} is out of range: numerator and denominator "
            f"go up to {MAX_EXPONENT}."
        )
