"""Matrix functions and matrix rules by eigenvalues and products in many digits: nothing derived."""

import mpmath
import sympy as sp
from mpmath import mp, mpf

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
from deltabias.calculus.spectral import EIGENVALUE

DIGITS = 40
STEP = mpf(10) ** -9
"""Of central differences; they are then right to 18 digits, and 22 are left of 40."""


def scalar_function(expression, *symbols):
    return sp.lambdify(symbols, expression, "mpmath")


def function_of(matrix, scalar):
    """f(A) of a symmetric A."""
    values, basis = mp.eigsy(matrix)
    return basis * mpmath.diag([scalar(x) for x in values]) * basis.T


def random_matrix(rng, rows, columns):
    return mpmath.matrix(
        [[mpf(rng.randint(-40, 40)) / 16 for _ in range(columns)] for _ in range(rows)]
    )


def random_positive(rng, size):
    root = random_matrix(rng, size, size)
    return root * root.T + mpmath.eye(size)


def random_symmetric(rng, size):
    some = random_matrix(rng, size, size)
    return some + some.T


def evaluate(node: MatrixExpr, at: dict, hypers: dict):
    """The value of a rule's expression at these matrices; equal subexpressions once."""
    values: dict[MatrixExpr, mpmath.matrix] = {}
    for inner in node.walk():
        if not isinstance(inner, Identity):
            body_is_identity = isinstance(inner, Scaled) and isinstance(inner.body, Identity)
            values[inner] = None if body_is_identity else _value(inner, values, at, hypers)
    return values[node]


def _value(node: MatrixExpr, values: dict, at: dict, hypers: dict):
    def inner(x):
        return values[x]

    def number(e):
        return mpf(1) * sp.lambdify(list(map(sp.Symbol, hypers)), e, "mpmath")(*hypers.values())

    match node:
        case MatrixSymbol(name):
            return at[name]
        case Scaled(c, body):
            return number(c.subs({s: sp.Symbol(s.name) for s in c.free_symbols})) * inner(body)
        case Sum(terms):
            shifts = [x for x in terms if isinstance(x, Scaled) and isinstance(x.body, Identity)]
            first, *rest = (x for x in terms if x not in shifts)
            total = inner(first)
            for term in rest:
                total = total + inner(term)
            for term in shifts:
                total = total + number(term.coefficient) * mpmath.eye(total.rows)
            return total
        case Product(factors):
            total = inner(factors[0])
            for factor in factors[1:]:
                total = total * inner(factor)
            return total
        case Transpose(body):
            return inner(body).T
        case Named(_, body):
            return inner(body)
        case Spectral(f, body):
            return function_of(inner(body), scalar_function(f.expression, EIGENVALUE))
        case Normalized(body):
            value = inner(body)
            return value / mp.sqrt(sum(x * x for x in value))
        case Elementwise(e, _, arguments):
            values = [inner(a) for a in arguments]
            names = [*node.variables, *sorted(node.scalars, key=str)]
            f = sp.lambdify(names, e, "mpmath")
            extra = [hypers[s.name] for s in names[len(values) :]]
            result = values[0].copy()
            for i in range(result.rows):
                for j in range(result.cols):
                    result[i, j] = f(*(v[i, j] for v in values), *extra)
            return result
    raise TypeError(node)


def along(node, means, directions, hypers, t):
    moved = {k: means[k] + t * directions[k] for k in means}
    return evaluate(node, moved, hypers)


def second_order(node, means, directions, hypers):
    """The coefficient of t² along a line, by a central difference."""
    up, down = (along(node, means, directions, hypers, s * STEP) for s in (1, -1))
    return (up + down - 2 * evaluate(node, means, hypers)) / (2 * STEP**2)


def norm(matrix):
    return mp.sqrt(sum(x * x for x in matrix))
