r"""Primary matrix functions: a scalar map, and what its second order costs.

In the eigenbasis of a symmetric A, for a symmetric perturbation E,

.. math:: f(A + E)_{ij} = f(\lambda_i)\,\delta_{ij} + f[\lambda_i, \lambda_j]\,E_{ij}
          + \sum_k f[\lambda_i, \lambda_k, \lambda_j]\,E_{ik} E_{kj} + O(E^3)

A sum over k for every pair (i, j) is d³ numbers. With s = λ^{1/q} for the root's degree q the
kernel *separates*: with h = λ[s_i, s_k] > 0 and B = E / h,

.. math:: X_2 = \sum_e c_e(s_i, s_j) \circ [B\,\mathrm{diag}(w_e(s_k))\,B^T]

which is one matrix product a term, for any number of perturbations side by side. For an inverse
root of degree q there are q terms, each positive. An analytic map that does not separate (exp, log,
tanh, a root of λ + ε) keeps its d³ numbers, see `deltabias.calculus.analytic`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from deltabias.calculus.analytic import check_analytic, derivatives, quotient
from deltabias.calculus.convexity import is_operator_convex
from deltabias.calculus.divided import complete_homogeneous, divided_difference
from deltabias.errors import NotDifferentiableError

EIGENVALUE = sp.Symbol("eigenvalue", positive=True)
"""The variable of a spectral map."""

LEFT, INNER, RIGHT = sp.symbols("left inner right", positive=True)
"""The roots s of the eigenvalues λ_i, λ_k and λ_j."""

MAX_DEGREE = 16
"""Of the root, and of the map in it: a map of a higher one is not taken apart, but dense."""


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
    expression : analytic in `EIGENVALUE`; other symbols are non-negative hyperparameters

    Raises
    ------
    NotDifferentiableError
        for a map that is not seen to be smooth for every positive eigenvalue.

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
        if not self._is_algebraic:
            check_analytic(self.expression, EIGENVALUE)

    @property
    def hypers(self) -> set[sp.Symbol]:
        """The other symbols of the map."""
        return self.expression.free_symbols - {EIGENVALUE}

    @cached_property
    def _is_algebraic(self) -> bool:
        """Whether the map is rational in a root of `EIGENVALUE`, neither of a high degree."""
        exponents = [p.exp for p in self.expression.atoms(sp.Pow) if p.base == EIGENVALUE]
        if any(not e.is_Rational or max(abs(e.p), e.q) > MAX_DEGREE for e in exponents):
            return False
        degree = _common_denominator(exponents)
        in_root = self.expression.subs({EIGENVALUE: LEFT**degree})
        if degree > MAX_DEGREE or not in_root.is_rational_function(LEFT):
            return False
        return all(
            sp.degree(side, LEFT) <= MAX_DEGREE for side in sp.fraction(sp.together(in_root))
        )

    @cached_property
    def separates(self) -> bool:
        """Whether the second order is a few matrix products; if not, its kernel is dense."""
        return self._is_algebraic

    @cached_property
    def degree(self) -> int:
        """q in s = λ^{1/q}: the least common multiple of the exponents' denominators; 1 if
        dense."""
        if not self.separates:
            return 1
        return _common_denominator(
            p.exp for p in self.expression.atoms(sp.Pow) if p.base == EIGENVALUE
        )

    def _as_power(self, root: sp.Symbol) -> Mapping[sp.Symbol, sp.Expr]:
        return {EIGENVALUE: root**self.degree}

    @cached_property
    def value(self) -> sp.Expr:
        """f as a map of `LEFT`, the eigenvalue's root."""
        value = self.expression.subs(self._as_power(LEFT))
        return sp.powsimp(value) if self.separates else value

    @cached_property
    def slope(self) -> sp.Expr:
        """f' as a map of the eigenvalue, `LEFT`; of dense maps."""
        return derivatives(self.expression, EIGENVALUE)[0].subs(EIGENVALUE, LEFT)

    @cached_property
    def curvature(self) -> sp.Expr:
        """½ f'' as a map of the eigenvalue, `LEFT`; of dense maps."""
        return derivatives(self.expression, EIGENVALUE)[1].subs(EIGENVALUE, LEFT)

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
        """f[λ_i, λ_k, λ_j] in the roots; of dense maps the quotients, and ½ f'' where all meet."""
        return self._divided((left, inner, right))

    def _divided(self, points: tuple[sp.Expr, ...]) -> sp.Expr:
        if not self.separates:
            return quotient(self.expression, EIGENVALUE, points)
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
        if not self.separates:
            raise NotDifferentiableError(
                f"the second order of {self.expression} does not separate: it is a dense kernel."
            )
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
        return (
            self.separates
            and all(
                all(c > 0 for c in sp.Poly(piece, *piece.free_symbols).coeffs())
                for part in self.parts
                for piece in sp.fraction(sp.together(part.coefficient))
                if piece.free_symbols
            )
            and all(
                sp.fraction(part.coefficient)[0].could_extract_minus_sign() is False
                for part in self.parts
            )
        )

    @cached_property
    def keeps_positive(self) -> bool:
        """Whether the second order X is positive semidefinite and f positive, for every matrix.

        Then P (P + X)⁻¹ P is a corrected function that stays positive definite. It needs an
        operator convex f; x⁻² is not one, positive as each of its coefficients is.
        """
        return is_operator_convex(self.expression, EIGENVALUE)

    @cached_property
    def finite_at_zero(self) -> bool:
        """Whether f, f' and f'' are finite at eigenvalue 0, whatever the hyperparameters."""
        if self.degree != 1:
            return False
        at_zero = dict.fromkeys(self.expression.free_symbols, 0)
        return all(
            sp.diff(self.expression, EIGENVALUE, n).subs(at_zero).is_finite is True
            for n in range(3)
        )


def _common_denominator(exponents: Iterable[sp.Rational]) -> int:
    return int(sp.ilcm(1, 1, *(e.q for e in exponents)))


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
