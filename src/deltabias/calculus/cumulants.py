"""Joint cumulants: of polynomials of one variable, of means, of weighted sums over time.

The expansion of a mean update is an expansion in cumulants, because cumulants of independent
contributions add: the n-th joint cumulant of a mean of m microbatches is the microbatch's,
divided by m**(n-1), and that of an exponential moving average is the step's, times the sum of
the products of the weights (`deltabias.calculus.weights`).

Source: McCullagh, *Tensor Methods in Statistics* (1987), §2.2-2.3 (moments, cumulants and set
partitions), §2.4 (sums of independent variables).
"""

from collections.abc import Sequence
from functools import cache
from math import factorial

import sympy as sp
from sympy.utilities.iterables import multiset_partitions

KAPPA = sp.Function("kappa")
"""``kappa(n)``: the n-th cumulant of one observation; ``kappa(1)`` is its mean."""


@cache
def raw_moment(order: int) -> sp.Expr:
    """The raw moment E x^order in cumulants ``kappa(1) … kappa(order)``.

    >>> raw_moment(2)
    kappa(1)**2 + kappa(2)
    """
    if order == 0:
        return sp.Integer(1)
    # E x^n = sum_j C(n-1, j-1) kappa_j E x^(n-j)
    return sp.expand(
        sum(
            sp.binomial(order - 1, j - 1) * KAPPA(j) * raw_moment(order - j)
            for j in range(1, order + 1)
        )
    )


def expectation(polynomial: sp.Expr, variable: sp.Symbol) -> sp.Expr:
    """E of a polynomial of `variable`, in the variable's cumulants.

    Raises
    ------
    sympy.PolynomialError
        if the expression is not a polynomial in `variable`.
    """
    terms = sp.Poly(polynomial, variable).terms()
    return sp.expand(sum(coefficient * raw_moment(powers[0]) for powers, coefficient in terms))


def joint_cumulant(polynomials: Sequence[sp.Expr], variable: sp.Symbol) -> sp.Expr:
    """The joint cumulant of polynomials of one variable, in that variable's cumulants.

    kappa(X1, …, Xn) = sum over set partitions π of
    (-1)^(|π|-1) (|π|-1)! prod_{B in π} E prod_{i in B} X_i.

    >>> x = sp.Symbol("x")
    >>> joint_cumulant([x, x**2], x)       # Cov(x, x²) = 2 μ σ² + κ₃
    2*kappa(1)*kappa(2) + kappa(3)
    """
    indices = list(range(len(polynomials)))
    total = sp.Integer(0)
    for partition in multiset_partitions(indices):
        blocks = len(partition)
        product = sp.Integer(1)
        for block in partition:
            product *= expectation(sp.prod([polynomials[i] for i in block]), variable)
        total += (-1) ** (blocks - 1) * factorial(blocks - 1) * product
    return sp.expand(total)


def cumulants_of_mean(expression: sp.Expr, microbatches: sp.Expr) -> sp.Expr:
    """Replace a microbatch's cumulants by those of the mean of m: kappa(n) -> kappa(n)/m^(n-1)."""
    return expression.replace(KAPPA, lambda order: KAPPA(order) / microbatches ** (order - 1))


def normal(expression: sp.Expr) -> sp.Expr:
    """What is left for a normal observation: cumulants beyond the second vanish."""
    return expression.replace(KAPPA, lambda n: KAPPA(n) if n <= 2 else sp.Integer(0))
