r"""Analytic scalar maps whose divided differences have no algebraic form: exp, log, tanh, shifted
roots.

What is needed of such an f are f, f' and ½ f'' alone. By Hermite and Genocchi

.. math:: f[p, q] = \int_0^1 f'(p + t (q - p))\,dt, \qquad
          f[p, q, q] = \int_0^1 t\, f''(p + t (q - p))\,dt

and for three points, b between a and c, the confluent differences are enough:

.. math:: f[a, b, c] = \frac{(b - a)\, f[a, b, b] + (c - b)\, f[c, b, b]}{c - a}

a weighted mean, so nothing cancels that does not cancel in f'' itself, and only d² integrals are
taken for d³ values.

Sources: Higham, Functions of Matrices (2008), appendix B.16; de Boor, Divided differences, Surveys
in Approximation Theory 1 (2005), sections 9 and 10.
"""

from collections.abc import Sequence

import sympy as sp

from deltabias.errors import NotDifferentiableError

ANALYTIC = {sp.exp: "exp", sp.log: "log", sp.tanh: "tanh", sp.atan: "atan", sp.erf: "erf"}
"""Functions that an analytic map may be made of, besides sums, products and rational powers."""

MAX_EXPONENT = 64


def check_analytic(expression: sp.Expr, variable: sp.Symbol) -> None:
    """Nothing if the map is seen to be analytic wherever the variable is positive.

    Raises
    ------
    NotDifferentiableError
        naming the first piece that is not, or is not seen to be.
    """
    for node in sp.preorder_traversal(expression):
        if variable not in node.free_symbols:
            continue
        if isinstance(node, sp.Pow):
            _check_power(node, variable)
        elif not isinstance(node, sp.Add | sp.Mul | sp.Symbol) and type(node) not in ANALYTIC:
            raise NotDifferentiableError(
                f"{node} is not a smooth function of {variable}: {type(node).__name__} is not "
                f"among sums, products, rational powers, {', '.join(ANALYTIC.values())}. "
                "Write the branch you mean."
            )
        elif isinstance(node, sp.log) and not node.args[0].is_positive:
            raise NotDifferentiableError(_unseen(node, node.args[0], variable))


def _check_power(node: sp.Pow, variable: sp.Symbol) -> None:
    base, exponent = node.args
    if not exponent.is_Rational:
        raise NotDifferentiableError(
            f"the exponent of {node} is not a rational number; write a power of {variable} as "
            f"{variable}**(-1/4), and others with exp and log."
        )
    if abs(exponent.p) > MAX_EXPONENT or exponent.q > MAX_EXPONENT:
        raise NotDifferentiableError(
            f"the exponent {exponent} is out of range: numerator and denominator go up to "
            f"{MAX_EXPONENT}."
        )
    whole = exponent.is_Integer
    if not (base.is_positive or (whole and (exponent.is_positive or base.is_nonzero))):
        raise NotDifferentiableError(_unseen(node, base, variable))


def _unseen(node: sp.Expr, base: sp.Expr, variable: sp.Symbol) -> str:
    return (
        f"{node} is not seen to be smooth for every {variable} > 0: {base} may be zero or negative "
        "there. Write it with terms that are positive (hyperparameters are not negative)."
    )


class _Tanh(sp.Function):
    """tanh, whose slope keeps its digits: sech² is not written as 1 - tanh²."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return _Sech2(self.args[0])


class _Sech2(sp.Function):
    nargs = 1

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return -2 * _Tanh(self.args[0]) * _Sech2(self.args[0])


def _sech2(argument: sp.Expr) -> sp.Expr:
    """By exponentials of a negative argument, which do not overflow."""
    small = sp.exp(2 * argument if argument.could_extract_minus_sign() else -2 * argument)
    return 4 * small / (1 + small) ** 2


def derivatives(expression: sp.Expr, variable: sp.Symbol) -> tuple[sp.Expr, sp.Expr]:
    """f' and ½ f'', in a form to be computed with.

    >>> derivatives(sp.exp(-sp.Symbol("x")), sp.Symbol("x"))
    (-exp(-x), exp(-x)/2)
    """
    inner = expression.replace(sp.tanh, _Tanh)
    slope = sp.diff(inner, variable)
    return tuple(
        e.replace(_Tanh, sp.tanh).replace(_Sech2, _sech2)
        for e in (slope, sp.diff(slope, variable) / 2)
    )


def quotient(expression: sp.Expr, variable: sp.Symbol, points: Sequence[sp.Expr]) -> sp.Expr:
    """The divided difference by its definition; derivatives where all points are equal.

    Exact, and not to be computed with where points nearly meet.

    >>> x, a, b = sp.symbols("x a b")
    >>> quotient(sp.exp(x), x, (a, b)), quotient(sp.exp(x), x, (a, a, a))
    ((exp(a) - exp(b))/(a - b), exp(a)/2)
    """
    points = tuple(points)
    if len(set(points)) == 1:
        order = len(points) - 1
        return (sp.diff(expression, variable, order) / sp.factorial(order)).subs(
            variable, points[0]
        )
    # symmetric in the points, so any two that differ may stand at the ends
    first = points[0]
    last = next(p for p in points if p != first)
    rest = list(points[1:])
    rest.remove(last)
    one, other = (quotient(expression, variable, (*rest, end)) for end in (first, last))
    return (one - other) / (first - last)
