r"""Operator convex maps: those whose second order is positive semidefinite, whatever the matrices.

.. math:: \sum_k f[\lambda_i, \lambda_k, \lambda_j]\, E_{ik} E_{kj} \succeq 0

for every spectrum and every E exactly if f is operator convex, which is more than convex: x⁻² and
exp(-x) are not. Seen here, on x > 0, from the outside in:

    monotone   constants ≥ 0, x, sums, multiples c ≥ 0, g^a for 0 < a ≤ 1, log(g) for g ≥ 1 + …
    convex     g^{-a} for g monotone and 0 < a ≤ 1, x^a for 1 ≤ a ≤ 2, sums, multiples c ≥ 0

Sources: Kraus (1936); Bhatia, Matrix Analysis (1997), theorem V.2.5, section V.4.
"""

import sympy as sp


def is_operator_monotone(expression: sp.Expr, variable: sp.Symbol) -> bool:
    """Whether a map is seen to be operator monotone and not negative on x > 0.

    >>> x = sp.Symbol("x", positive=True)
    >>> is_operator_monotone(sp.sqrt(x) + 1, x), is_operator_monotone(x**2, x)
    (True, False)
    """

    def known(e: sp.Expr) -> bool:
        if variable not in e.free_symbols:
            return bool(e.is_nonnegative)
        if e == variable:
            return True
        if e.is_Add:
            return all(map(known, e.args))
        if e.is_Mul:
            scale, rest = e.as_independent(variable, as_Add=False)
            return bool(scale.is_nonnegative) and rest != e and known(rest)
        if e.is_Pow:
            return bool(e.exp.is_Rational and 0 < e.exp <= 1) and known(e.base)
        if isinstance(e, sp.log):  # of 1 + g: not negative
            return (e.args[0] - 1).is_nonnegative is True and known(e.args[0])
        return False

    return known(expression)


def is_operator_convex(expression: sp.Expr, variable: sp.Symbol) -> bool:
    """Whether a map is seen to be operator convex and positive on x > 0.

    >>> x = sp.Symbol("x", positive=True)
    >>> is_operator_convex(x ** sp.Rational(-1, 4), x), is_operator_convex(x**-2, x)
    (True, False)
    """

    def known(e: sp.Expr) -> bool:
        if variable not in e.free_symbols:
            return bool(e.is_nonnegative)
        if e.is_Add:
            return all(map(known, e.args))
        if e.is_Mul:
            scale, rest = e.as_independent(variable, as_Add=False)
            return bool(scale.is_nonnegative) and rest != e and known(rest)
        if not e.is_Pow or not e.exp.is_Rational:
            return False
        if e.base == variable and 1 <= e.exp <= 2:
            return True
        return bool(-1 <= e.exp < 0) and is_operator_monotone(e.base, variable)

    return known(expression)
