"""Partial derivatives of an update, fast and in a readable form.

Roots are what makes derivatives of preconditioners swell. With v = s**k, k the common
denominator of v's exponents, an algebraic map becomes rational in s, d/dv = 1/(k s^(k-1)) d/ds,
and a rational function is put in factored form by cancelling alone.
"""

from collections.abc import Sequence
from functools import cached_property
from math import lcm

import sympy as sp

from deltabias.calculus.expansion import Index


def root_degree(expression: sp.Expr, symbol: sp.Symbol) -> int:
    """The common denominator of the rational exponents of `symbol` in `expression`.

    >>> v = sp.Symbol("v", positive=True)
    >>> root_degree(v ** sp.Rational(1, 3) + sp.sqrt(v), v)
    6
    """
    powers = [p for p in expression.atoms(sp.Pow) if p.base == symbol and p.exp.is_Rational]
    return lcm(1, *(p.exp.q for p in powers))


def away_from_kinks(derivative: sp.Expr) -> sp.Expr:
    """A derivative where no argument of a sign is zero: there signs are constant."""
    constant = derivative.replace(sp.DiracDelta, lambda *_: sp.Integer(0))
    return constant.replace(
        lambda e: isinstance(e, sp.Derivative) and isinstance(e.expr, sp.sign),
        lambda _: sp.Integer(0),
    )


class Derivatives:
    """All partial derivatives of one expression in some positive or real symbols, remembered.

    Parameters
    ----------
    expression : sympy.Expr
    variables : sequence of sympy.Symbol
        what is differentiated; a variable under a fractional power must be positive.
    """

    def __init__(self, expression: sp.Expr, variables: Sequence[sp.Symbol]):
        self.variables = tuple(variables)
        self.degrees = tuple(root_degree(expression, v) for v in variables)
        self._roots = tuple(
            v if k == 1 else sp.Symbol(f"root_{v.name}", positive=True)
            for v, k in zip(variables, self.degrees, strict=True)
        )
        there = {
            v: root**k for v, root, k in zip(variables, self._roots, self.degrees, strict=True)
        }
        start = expression.subs(there, simultaneous=True)
        self._known: dict[Index, sp.Expr] = {(0,) * len(self.variables): self._tidy(start)}

    @cached_property
    def _back(self) -> dict[sp.Symbol, sp.Expr]:
        triples = zip(self.variables, self._roots, self.degrees, strict=True)
        return {root: v ** sp.Rational(1, k) for v, root, k in triples if k > 1}

    @staticmethod
    def _tidy(expression: sp.Expr) -> sp.Expr:
        # `factor` cancels rational functions; anything transcendental is left as it is
        return sp.factor(expression) if expression.is_rational_function() else expression

    def _in_roots(self, index: Index) -> sp.Expr:
        if index not in self._known:
            i = next(i for i, order in enumerate(index) if order)
            lower = self._in_roots(tuple(o - (j == i) for j, o in enumerate(index)))
            root, k = self._roots[i], self.degrees[i]
            inner = sp.diff(lower, root) / (k * root ** (k - 1))
            self._known[index] = self._tidy(away_from_kinks(inner))
        return self._known[index]

    def __call__(self, index: Index) -> sp.Expr:
        """The derivative ∂^index, in the original symbols.

        >>> v, eps = sp.symbols("v eps", positive=True)
        >>> Derivatives(1 / sp.sqrt(v), [v])((2,))
        3/(4*v**(5/2))
        """
        derivative = self._in_roots(index)
        return derivative.subs(self._back) if self._back else derivative
