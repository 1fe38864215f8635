r"""Divided differences of a scalar map, in a form that stays exact where the points meet.

.. math:: f[a, b] = \frac{f(a) - f(b)}{a - b}, \qquad
          f[a, b, c] = \frac{f[a, b] - f[b, c]}{a - c}

They are the coefficients of the first and the second order of a matrix function (Daleckii and
Krein). The quotients above are useless where points nearly meet; the rules below never subtract
function values. Sums, products, powers and compositions are taken apart, as in automatic
differentiation, with divided differences in the place of derivatives:

    (u v)[a, b]    = u(a) v[a, b] + u[a, b] v(b)
    (u v)[a, b, c] = u(a) v[a, b, c] + u[a, b] v[b, c] + u[a, b, c] v(c)
    (g∘w)[a, b]    = g[wa, wb] w[a, b]
    (g∘w)[a, b, c] = g[wa, wb, wc] w[a, c] w[a, b] + g[wb, wc] w[a, b, c]

and for a power of w = t^q the quotients t[.., ..] cancel: with F(t) = t^p, L(t) = t^q

    F/L [a, b]     = F[a, b] / L[a, b]
    F/L [a, b, c]  = (F[a, b, c] L[b, c] - F[b, c] L[a, b, c]) / (L[a, b] L[b, c] L[a, c])

Every term of it is positive when 0 > p: F[b, c] is negative and the rest is positive.

Sources: Higham, Functions of Matrices (2008), theorem 3.11 and appendix B.16; Reps and Rall,
Computational divided differencing and divided-difference arithmetics (2003).
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import sympy as sp

from deltabias.errors import NotDifferentiableError


def complete_homogeneous(degree: int, points: Sequence[sp.Expr]) -> sp.Expr:
    """h_n: the sum of all monomials of that degree; 1 for degree 0, 0 below."""
    if degree < 0:
        return sp.Integer(0)
    return sp.Add(*(sp.Mul(*c) for c in combinations_with_replacement(points, degree)))


def divided_difference(
    expression: sp.Expr, variable: sp.Symbol, points: Sequence[sp.Expr]
) -> sp.Expr:
    """The divided difference over one, two or three points.

    Raises
    ------
    NotDifferentiableError
        for a function outside sums, products, rational powers and compositions of them.

    Examples
    --------
    >>> x, a, b, c = sp.symbols("x a b c", positive=True)
    >>> divided_difference(1 / x, x, (a, b, c))
    1/(a*b*c)
    >>> divided_difference(1 / x, x, (a, a))
    -1/a**2
    """
    points = tuple(points)
    if len(points) == 1:
        return expression.subs(variable, points[0])
    if variable not in expression.free_symbols:
        return sp.Integer(0)
    if expression == variable:
        return sp.Integer(1 if len(points) == 2 else 0)
    if expression.is_Add:
        return sp.Add(*(divided_difference(t, variable, points) for t in expression.args))
    if expression.is_Mul:
        return _product(expression, variable, points)
    if expression.is_Pow and expression.exp.is_Rational:
        return _composed(expression.base, expression.exp, variable, points)
    raise NotDifferentiableError(
        f"{expression} is not an algebraic function of {variable}: divided differences are taken "
        "of sums, products and rational powers. Write the map with those."
    )


def _product(expression: sp.Mul, variable: sp.Symbol, points: tuple[sp.Expr, ...]) -> sp.Expr:
    constant, dependent = expression.as_independent(variable, as_Add=False)
    head, *rest = sp.Mul.make_args(dependent)
    if not rest:
        return constant * divided_difference(head, variable, points)
    tail = sp.Mul(*rest)
    return constant * sp.Add(
        *(
            divided_difference(head, variable, points[: i + 1])
            * divided_difference(tail, variable, points[i:])
            for i in range(len(points))
        )
    )


def _composed(
    base: sp.Expr, exponent: sp.Rational, variable: sp.Symbol, points: tuple[sp.Expr, ...]
) -> sp.Expr:
    """A power of an inner function, by the chain rule."""
    inner = [base.subs(variable, p) for p in points]
    if len(points) == 2:
        return power(exponent, inner) * divided_difference(base, variable, points)
    a, b, c = points
    return power(exponent, inner) * divided_difference(base, variable, (a, c)) * divided_difference(
        base, variable, (a, b)
    ) + power(exponent, inner[1:]) * divided_difference(base, variable, points)


def power(exponent: sp.Rational, points: Sequence[sp.Expr]) -> sp.Expr:
    """The divided difference of w^(p/q) over two or three points; one sign only for p < 0."""
    exponent = sp.Rational(exponent)
    if exponent.q == 1:
        return _integer_power(int(exponent), points)
    roots = [p ** sp.Rational(1, exponent.q) for p in points]
    top, bottom = (
        {pair: _integer_power(n, [roots[i] for i in pair]) for pair in _subsets(len(points))}
        for n in (exponent.p, exponent.q)
    )
    if len(points) == 2:
        return top[0, 1] / bottom[0, 1]
    return (top[0, 1, 2] * bottom[1, 2] - top[1, 2] * bottom[0, 1, 2]) / (
        bottom[0, 1] * bottom[1, 2] * bottom[0, 2]
    )


def _subsets(count: int) -> list[tuple[int, ...]]:
    return [(0, 1)] if count == 2 else [(0, 1), (1, 2), (0, 2), (0, 1, 2)]


def _integer_power(exponent: int, points: Sequence[sp.Expr]) -> sp.Expr:
    order = len(points) - 1
    if exponent >= 0:
        return complete_homogeneous(exponent - order, points)
    reciprocals = [1 / p for p in points]
    sign = -1 if order % 2 else 1
    return sign * complete_homogeneous(-exponent - 1, reciprocals) * sp.Mul(*reciprocals)
