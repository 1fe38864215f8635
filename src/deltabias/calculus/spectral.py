r"""Primary matrix functions: a scalar map, and what its second order costs.

In the eigenbasis of a symmetric A, for a symmetric perturbation E,

.. math:: f(A + E)_{ij} = f(\lambda_i)\,\delta_{ij} + f[\lambda_i, \lambda_j]\,E_{ij}
          + \sum_k f[\lambda_i, \lambda_k, \lambda_j]\,E_{ik} E_{kj} + O(E^3)

A sum over k for every pair (i, j) is d³ numbers. With s = λ^{1/q} for the root's degree q the
kernel *separates*: with h = λ[s_i, s_k] > 0 and B = E / h,

.. math:: X_2 = \sum_e c_e(s_i, s_j) \circ [B\,\mathrm{diag}(w_e(s_k))\,B^T]

which is one matrix product a term, for any number of perturbations side by side. For an inverse
root of degree q there are q terms, each positive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from deltabias.calculus.divided import complete_homogeneous, divided_difference
from deltabias.errors import NotDifferentiableError

EIGENVALUE = sp.Symbol("eigenvalue", positive=True)
"""The variable of a spectral map."""

LEFT, INNER, RIGHT = sp.symbols("left inner right", positive=True)
"""The roots s of the eigenvalues λ_i, λ_k and λ_j."""

MAX_DEGREE = 64


@dataclass(frozen=True)
class Part:
    """One matrix product of the second order: ``coefficient(i, j) * [B diag(weight) Bᵀ]``."""

    coefficient: sp.Expr
    weight: sp.Expr


@dataclass(frozen=True)
class SpectralMap:
    """A primary matrix function, given by its scalar map of `EIGENVALUE`.

    Parameters
    ----------
    name : an identifier
    expression : algebraic in `EIGENVALUE`; other symbols are non-negative hyperparameters

    Raises
    ------
    NotDifferentiableError
        for maps that are not algebraic.

    Examples
    --------
    >>> len(inverse_root(4).parts), inverse_root(2).second(LEFT, LEFT, LEFT)
    (4, 3/(8*left**5))
    """

    name: str
    expression: sp.Expr

    def __post_init__(self) -> None:
        if EIGENVALUE not in self.expression.free_symbols:
            raise NotDifferentiableError(f"{self.expression} does not depend on {EIGENVALUE}.")
        if not self.expression.subs(self._as_power(LEFT)).is_rational_function(LEFT):
            raise NotDifferentiableError(
                f"{self.expression} is not an algebraic function of {EIGENVALUE} whose only roots "
                f"are those of {EIGENVALUE} itself. Write it with sums, products and rational "
                "powers of it."
            )
        if self.degree > MAX_DEGREE:
            raise NotDifferentiableError(f"a root of degree {self.degree} is over {MAX_DEGREE}.")

    @property
    def hypers(self) -> set[sp.Symbol]:
        """The other symbols of the map."""
        return self.expression.free_symbols - {EIGENVALUE}

    @cached_property
    def degree(self) -> int:
        """q in s = λ^{1/q}: the least common multiple of the exponents' denominators."""
        exponents = [
            p.exp
            for p in self.expression.atoms(sp.Pow)
            if p.base == EIGENVALUE and p.exp.is_Rational
        ]
        return int(sp.ilcm(1, 1, *(e.q for e in exponents)))

    def _as_power(self, root: sp.Symbol) -> Mapping[sp.Symbol, sp.Expr]:
        return {EIGENVALUE: root**self.degree}

    @cached_property
    def value(self) -> sp.Expr:
        """f as a map of `LEFT`, the eigenvalue's root."""
        return sp.powsimp(self.expression.subs(self._as_power(LEFT)))

    @property
    def step(self) -> sp.Expr:
        """λ[s_i, s_j] = h_{q-1}(`LEFT`, `RIGHT`), by which perturbations are divided."""
        return complete_homogeneous(self.degree - 1, (LEFT, RIGHT))

    def first(self, left: sp.Expr = LEFT, right: sp.Expr = RIGHT) -> sp.Expr:
        """f[λ_i, λ_j] in the roots."""
        return self._divided((left, right))

    def second(
        self, left: sp.Expr = LEFT, inner: sp.Expr = INNER, right: sp.Expr = RIGHT
    ) -> sp.Expr:
        """f[λ_i, λ_k, λ_j] in the roots."""
        return self._divided((left, inner, right))

    def _divided(self, points: tuple[sp.Expr, ...]) -> sp.Expr:
        names = (LEFT, INNER, RIGHT)[: len(points)] if len(points) == 3 else (LEFT, RIGHT)
        over = [n**self.degree for n in names]
        found = (
            self._second
            if len(points) == 3
            else _tidy(divided_difference(self.expression, EIGENVALUE, over))
        )
        return found.subs(dict(zip(names, points, strict=True)), simultaneous=True)

    @cached_property
    def _second(self) -> sp.Expr:
        over = [n**self.degree for n in (LEFT, INNER, RIGHT)]
        return _tidy(divided_difference(self.expression, EIGENVALUE, over))

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The second order as matrix products, after E_ik has been divided by `step`.

        Raises
        ------
        NotDifferentiableError
            if the kernel does not separate; its sum over k has to be taken as it is.
        """
        divided_by = self.step.subs(RIGHT, INNER) * self.step.subs(LEFT, INNER)
        top, bottom = sp.fraction(sp.cancel(self._second * divided_by))
        inner_factor, outer_factor = _separated(bottom)
        poly = sp.Poly(top, INNER)
        return tuple(
            Part(_tidy(c / outer_factor), INNER**e / inner_factor)
            for (e,), c in sorted(poly.terms(), key=lambda term: -term[0][0])
        )

    @cached_property
    def is_positive(self) -> bool:
        """Whether every coefficient of the second order is seen to be positive.

        Then nothing cancels in it, and a perturbation's second order is computed to rounding.
        """
        return all(
            all(c > 0 for c in sp.Poly(piece, *piece.free_symbols).coeffs())
            for part in self.parts
            for piece in sp.fraction(sp.together(part.coefficient))
            if piece.free_symbols
        ) and all(
            sp.fraction(part.coefficient)[0].could_extract_minus_sign() is False
            for part in self.parts
        )


def inverse_root(root: int | sp.Rational) -> SpectralMap:
    """λ^{-1/root}, for a positive integer or rational root (4/3 is the power -3/4)."""
    root = sp.Rational(root)
    if root <= 0:
        raise NotDifferentiableError(f"{root=} is not positive.")
    name = f"inverse_root_{root.p}" + (f"_{root.q}" if root.q != 1 else "")
    return SpectralMap(name, EIGENVALUE ** (-1 / root))


def _tidy(expression: sp.Expr) -> sp.Expr:
    """Over one denominator, numerator expanded: sums of positive terms stay such sums."""
    top, bottom = sp.fraction(sp.cancel(sp.together(expression)))
    return sp.expand(top) / sp.factor(bottom)


def _separated(expression: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """A denominator's factors in `INNER` alone, and those without it."""
    constant, factors = sp.factor_list(expression)
    inner, outer = sp.Integer(1), constant
    for factor, exponent in factors:
        if INNER not in factor.free_symbols:
            outer *= factor**exponent
        elif not factor.free_symbols & {LEFT, RIGHT}:
            inner *= factor**exponent
        else:
            raise NotDifferentiableError(
                f"the second order does not separate: {factor} mixes eigenvalues."
            )
    return inner, outer
