"""Strings to matrix expressions through a whitelist; nothing is ever evaluated.

Upper-case names are random matrices, ``I`` is the identity, lower-case names are scalars:

    inv_root(L + damping*I, 4) * M * inv_root(R + damping*I, 4)
    M * inv_sqrt(M.T*M)                        the polar factor, also polar(M)
    spectral("1/(sqrt(eigenvalue)+eps)", L) * M
    Q * elementwise("m/(sqrt(v)+eps)", m=Q.T*M, v=V)
"""

import ast
import re
from collections.abc import Callable
from math import prod

import sympy as sp

from deltabias.calculus.matrix import (
    Elementwise,
    Identity,
    MatrixExpr,
    MatrixSymbol,
    Named,
    Normalized,
    Product,
    Scaled,
    Spectral,
    Sum,
    Transpose,
)
from deltabias.calculus.spectral import EIGENVALUE, SpectralMap, inverse_root
from deltabias.errors import DeltabiasError, ParseError
from deltabias.parser import MAX_LENGTH, parse_expression

MATRIX_NAME = re.compile(r"[A-Z][A-Za-z0-9_]*\Z")
SCALAR_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
MAX_STEPS = 12
MAX_TERMS = 20_000
NEWTON_SCHULZ = (sp.Rational(34445, 10**4), sp.Rational(-4775, 10**3), sp.Rational(20315, 10**4))
"""Quintic coefficients of K. Jordan et al., Muon (2024); torch.optim.Muon's default."""

Value = MatrixExpr | sp.Expr
_HELP = (
    "Allowed: upper-case matrices, I, lower-case scalars, numbers, + - * @ /, .T, "
    "powers such as L**(-1/4), and "
)


def mentions_matrices(text: str) -> bool:
    """Whether a string is meant as a matrix rule: it has an upper-case name or a matrix function.

    >>> mentions_matrices("g/(sqrt(v)+eps)"), mentions_matrices("inv_sqrt(L)*M")
    (False, True)
    """
    return isinstance(text, str) and any(
        MATRIX_NAME.match(word) or word in FUNCTIONS for word in re.findall(r"[A-Za-z_]\w*", text)
    )


def parse_matrix(text: str) -> MatrixExpr:
    """Read one matrix expression.

    Raises
    ------
    ParseError
        for anything that is not in the language, with the piece that was not understood.

    Examples
    --------
    >>> parse_matrix("inv_root(L + damping*I, 4) * M").symbols
    ('L', 'M')
    """
    if not isinstance(text, str):
        raise ParseError(f"expected a string such as 'inv_root(L, 4)*M', got {text!r}.")
    if not text.strip() or len(text) > MAX_LENGTH or "#" in text:
        raise ParseError(
            f"a rule has 1 to {MAX_LENGTH} characters and no comment; got {text[:60]!r}."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ParseError(f"{text!r} is not an expression ({error}).") from error
    value = _Reader(text.strip()).read(tree.body, 0)
    if not isinstance(value, MatrixExpr):
        raise ParseError(f"{text!r} is a scalar, {value}; a matrix rule gives a matrix.")
    _check_size(value, text)
    return value


def _check_size(value: MatrixExpr, text: str) -> None:
    """Refuse what multiplies out to more than can be read or derived: ((A + B)**12)**12.

    Counted are the monomials of each node, their degree, and the pairs of factors that two
    deviations may stand in.
    """
    sizes: dict[MatrixExpr, tuple[int, int]] = {}
    for node in value.walk():
        inner = [sizes[c] for c in node.children]
        match node:
            case Sum():
                size = sum(n for n, _ in inner), max(d for _, d in inner)
            case Product():
                size = prod(n for n, _ in inner), sum(d for _, d in inner)
            case Scaled() | Transpose():
                size = inner[0]
            case _:
                size = 1, 1
        if size[0] * size[1] ** 2 > MAX_TERMS:
            raise ParseError(
                f"{text[:60]!r} multiplies out to {size[0]} products of up to {size[1]} factors: "
                f"more than {MAX_TERMS} second-order terms. Write it shorter."
            )
        sizes[node] = size


class _Reader:
    def __init__(self, text: str):
        self.text = text

    def piece(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.text, node) or type(node).__name__

    def read(self, node: ast.AST, depth: int) -> Value:
        if depth > 60:
            raise ParseError(f"{self.text[:40]!r}… is nested deeper than 60 levels.")

        def inner(child: ast.AST) -> Value:
            return self.read(child, depth + 1)

        match node:
            case ast.Constant(value=bool()) | ast.Constant(value=str()):
                raise ParseError(f"{self.piece(node)} is neither a matrix nor a number.")
            case ast.Constant():
                return parse_expression(self.piece(node), sp.Symbol)
            case ast.Name(id=name):
                return self.name(name)
            case ast.Attribute(value=body, attr="T"):
                return self.transposed(inner(body), node)
            case ast.UnaryOp(op=ast.USub(), operand=body):
                return _scaled(sp.Integer(-1), inner(body))
            case ast.UnaryOp(op=ast.UAdd(), operand=body):
                return inner(body)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self.power(inner(left), inner(right), node)
            case ast.BinOp(left=left, op=operator, right=right):
                return self.binary(operator, inner(left), inner(right), node)
            case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
                return self.call(name, node, inner)
        raise ParseError(
            f"{self.piece(node)!r} is not accepted in a matrix rule. {_HELP}{', '.join(FUNCTIONS)}."
        )

    def name(self, name: str) -> Value:
        if name == "I":
            return Identity()
        if name in FUNCTIONS:
            raise ParseError(f"{name!r} is a function; write {name}(…).")
        if MATRIX_NAME.match(name):
            return MatrixSymbol(name)
        return _scalar(name)

    def transposed(self, body: Value, node: ast.AST) -> MatrixExpr:
        if not isinstance(body, MatrixExpr):
            raise ParseError(f"{self.piece(node)!r}: {body} is a scalar and has no transpose.")
        return body.body if isinstance(body, Transpose) else Transpose(body)

    def binary(self, operator: ast.operator, left: Value, right: Value, node: ast.AST) -> Value:
        matrices = [isinstance(v, MatrixExpr) for v in (left, right)]
        match operator:
            case ast.Add() | ast.Sub():
                if matrices[0] != matrices[1]:
                    raise ParseError(
                        f"{self.piece(node)!r} adds a scalar and a matrix; write the scalar times "
                        "I, as in L + damping*I."
                    )
                if isinstance(operator, ast.Sub):
                    right = _scaled(sp.Integer(-1), right)
                return _sum(left, right)
            case ast.Mult() | ast.MatMult():
                return _product(left, right)
            case ast.Div() if not matrices[1]:
                if right.is_zero:
                    raise ParseError(f"{self.piece(node)!r} divides by zero.")
                return _scaled(1 / right, left)
            case ast.Div():
                raise ParseError(
                    f"{self.piece(node)!r} divides by a matrix; write inv(…) on the side you mean."
                )
        raise ParseError(f"{self.piece(node)!r} is not accepted. {_HELP}{', '.join(FUNCTIONS)}.")

    def power(self, base: Value, exponent: Value, node: ast.AST) -> Value:
        if not isinstance(exponent, sp.Rational):
            raise ParseError(f"the exponent in {self.piece(node)!r} is not a rational number.")
        if not isinstance(base, MatrixExpr):  # the scalar parser bounds exponents and digits
            return parse_expression(self.piece(node), self.name)
        if exponent.is_negative:
            return Spectral(_checked(lambda: inverse_root(-1 / exponent)), base)
        if exponent.is_Integer and 1 <= exponent <= MAX_STEPS:
            return base if exponent == 1 else Product((base,) * int(exponent))
        if exponent.is_Integer:
            raise ParseError(
                f"{self.piece(node)!r}: integer powers of matrices go from 1 to {MAX_STEPS}."
            )
        name = f"power_{exponent.p}_{exponent.q}"
        return Spectral(_checked(lambda: SpectralMap(name, EIGENVALUE**exponent)), base)

    def call(self, name: str, node: ast.Call, inner: Callable[[ast.AST], Value]) -> Value:
        if name == "elementwise":
            return self.elementwise(node, inner)
        low, high, build = FUNCTIONS[name]
        if node.keywords or not low <= len(node.args) <= high:
            raise ParseError(
                f"{self.piece(node)!r}: {name} takes {low if low == high else f'{low} to {high}'} "
                f"argument(s), got {len(node.args) + len(node.keywords)}."
            )
        values = [
            a.value if isinstance(a, ast.Constant) and isinstance(a.value, str) else inner(a)
            for a in node.args
        ]
        return _checked(lambda: build(*values))

    def elementwise(self, node: ast.Call, inner: Callable[[ast.AST], Value]) -> MatrixExpr:
        if (
            len(node.args) != 1
            or not isinstance(node.args[0], ast.Constant)
            or not isinstance(node.args[0].value, str)
            or not node.keywords
            or any(k.arg is None for k in node.keywords)
        ):
            raise ParseError(
                f'{self.piece(node)!r}: write elementwise("m/(sqrt(v)+eps)", m=…, v=…).'
            )
        names = tuple(k.arg for k in node.keywords)
        arguments = tuple(inner(k.value) for k in node.keywords)
        if bad := [n for n, a in zip(names, arguments, strict=True) if isinstance(a, sp.Expr)]:
            raise ParseError(f"{self.piece(node)!r}: {bad[0]} is a scalar, not a matrix.")
        if bad := [n for n in names if names.count(n) > 1 or not _is_variable(n)]:
            raise ParseError(
                f"{self.piece(node)!r}: the argument {bad[0]!r} is given twice, or is no "
                "lower-case name."
            )
        expression = parse_expression(
            node.args[0].value, lambda n: sp.Symbol(n, real=True) if n in names else _scalar(n)
        )
        if missing := set(names) - {s.name for s in expression.free_symbols}:
            raise ParseError(f"{', '.join(sorted(missing))} does not occur in {expression}.")
        return Elementwise(expression, names, arguments)


def _is_variable(name: str) -> bool:
    return bool(SCALAR_NAME.match(name)) and name not in ("torch", "math")


def _scalar(name: str) -> sp.Symbol:
    if not _is_variable(name):
        raise ParseError(
            f"{name!r} is neither a matrix (upper-case first letter) nor a scalar (lower-case)."
        )
    return sp.Symbol(name, nonnegative=True)


def _checked(build: Callable[[], MatrixExpr]) -> MatrixExpr:
    try:
        return build()
    except ParseError:
        raise
    except DeltabiasError as error:
        raise ParseError(str(error)) from error


def _scaled(coefficient: sp.Expr, body: Value) -> Value:
    if isinstance(body, sp.Expr):
        return coefficient * body
    if isinstance(body, Scaled):
        coefficient, body = coefficient * body.coefficient, body.body
    return body if coefficient == 1 else Scaled(coefficient, body)


def _sum(left: Value, right: Value) -> Value:
    if isinstance(left, sp.Expr):
        return left + right
    terms = [t for v in (left, right) for t in (v.terms if isinstance(v, Sum) else (v,))]
    return Sum(tuple(terms))


def _product(left: Value, right: Value) -> Value:
    if isinstance(left, sp.Expr) and isinstance(right, sp.Expr):
        return left * right
    if isinstance(left, sp.Expr):
        return _scaled(left, right)
    if isinstance(right, sp.Expr):
        return _scaled(right, left)
    factors = [f for v in (left, right) for f in (v.factors if isinstance(v, Product) else (v,))]
    return Product(tuple(factors))


# -- functions ----------------------------------------------------------------------------------


def _matrix(value: object, name: str) -> MatrixExpr:
    if not isinstance(value, MatrixExpr):
        raise ParseError(f"{name} takes a matrix, got {value!r}.")
    return value


def _inv_root(body: object, root: object) -> MatrixExpr:
    if not isinstance(root, sp.Rational):
        raise ParseError(f"inv_root(X, p) needs a number p such as 4 or 4/3, got {root!r}.")
    return Spectral(inverse_root(root), _matrix(body, "inv_root"))


def _spectral(text: object, body: object) -> MatrixExpr:
    if not isinstance(text, str):
        raise ParseError(f'spectral("1/(sqrt(eigenvalue)+eps)", X) takes a string, got {text!r}.')
    expression = parse_expression(
        text, lambda n: EIGENVALUE if n == EIGENVALUE.name else _scalar(n)
    )
    return Spectral(SpectralMap("map", expression), _matrix(body, "spectral"))


def _polar(body: object) -> MatrixExpr:
    x = _matrix(body, "polar")
    return Product((x, Spectral(inverse_root(2), Product((Transpose(x), x)))))


def _newton_schulz(body: object, steps: object = sp.Integer(5)) -> MatrixExpr:
    if not isinstance(steps, sp.Integer) or not 1 <= steps <= MAX_STEPS:
        raise ParseError(f"newton_schulz(X, steps): steps={steps!r} must be 1 to {MAX_STEPS}.")
    a, b, c = NEWTON_SCHULZ
    x: MatrixExpr = Normalized(_matrix(body, "newton_schulz"))
    for k in range(1, int(steps) + 1):
        gram = Named(f"A_{k}", Product((x, Transpose(x))))
        polynomial = Sum((Scaled(b, gram), Scaled(c, Product((gram, gram)))))
        x = Named(f"X_{k}", Sum((Scaled(a, x), Product((polynomial, x)))))
    return x


FUNCTIONS: dict[str, tuple[int, int, Callable[..., MatrixExpr]]] = {
    "inv_root": (2, 2, _inv_root),
    "inv": (1, 1, lambda x: Spectral(inverse_root(1), _matrix(x, "inv"))),
    "inv_sqrt": (1, 1, lambda x: Spectral(inverse_root(2), _matrix(x, "inv_sqrt"))),
    "polar": (1, 1, _polar),
    "newton_schulz": (1, 2, _newton_schulz),
    "normalize": (1, 1, lambda x: Normalized(_matrix(x, "normalize"))),
    "transpose": (1, 1, lambda x: Transpose(_matrix(x, "transpose"))),
    "spectral": (2, 2, _spectral),
    "elementwise": (2, 9, None),
}
