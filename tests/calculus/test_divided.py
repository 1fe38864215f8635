"""Divided differences against their definition, exactly; and against limits where points meet."""

from itertools import permutations

import pytest
import sympy as sp

from deltabias.calculus.divided import complete_homogeneous, divided_difference, power
from deltabias.errors import NotDifferentiableError

X = sp.Symbol("x", positive=True)
A, B, C = (sp.Rational(n, d) for n, d in ((4, 9), (25, 16), (7, 3)))
SQUARES = sp.Rational(4, 9), sp.Rational(25, 16), sp.Rational(49, 36)
MAPS = [
    1 / X,
    X**3,
    X**-3,
    sp.sqrt(X),
    X ** sp.Rational(-1, 4),
    X ** sp.Rational(-4, 3),
    X ** sp.Rational(5, 2),
    1 / (sp.sqrt(X) + sp.Rational(1, 7)),
    X / (1 + X**2),
    3 * X**2 - 5 / X + 2,
    (1 + X) ** sp.Rational(1, 2) * X,
]


def by_definition(f, points):
    """Newton's recursion; equal points by the limit of a symbol that goes there."""
    if len(points) == 1:
        return f.subs(X, points[0])
    if points[0] != points[-1]:
        one, other = (by_definition(f, p) for p in (points[:-1], points[1:]))
        return (one - other) / (points[0] - points[-1])
    if len(set(points)) == 1:
        n = len(points) - 1
        return sp.diff(f, X, n).subs(X, points[0]) / sp.factorial(n)
    a, b = points[:2]  # a, b, a: symmetric
    return by_definition(f, (a, a, b))


def equal(left, right):
    return sp.N(left - right, 60) == 0 or abs(sp.N(left - right, 60)) < 1e-50


@pytest.mark.parametrize("f", MAPS, ids=str)
@pytest.mark.parametrize("points", [(A, B), (A, A), (A, B, C), (A, A, B), (A, B, A), (B, B, B)],
                         ids=["ab", "aa", "abc", "aab", "aba", "bbb"])  # fmt: skip
def test_it_is_the_quotient_and_the_limit_where_points_meet(f, points):
    found, exact = divided_difference(f, X, points), by_definition(f, points)
    assert equal(found, exact)
    assert not equal(found * (1 + sp.Rational(1, 10**40)), exact) or exact == 0


@pytest.mark.parametrize("f", MAPS, ids=str)
def test_it_is_symmetric_in_its_points(f):
    values = [divided_difference(f, X, p) for p in permutations((A, B, C))]
    assert all(equal(v, values[0]) for v in values)


def test_rational_points_give_exact_rationals():
    found = divided_difference(X ** sp.Rational(-1, 2), X, SQUARES)
    assert found.is_Rational
    assert found == by_definition(1 / sp.sqrt(X), SQUARES)


@pytest.mark.parametrize("f", [1 / X, X ** sp.Rational(-1, 4), X ** sp.Rational(-4, 3)], ids=str)
def test_a_gap_of_1e_9_loses_no_digit_in_double_precision(f):
    a, b, c = sp.symbols("a b c", positive=True)
    function = sp.lambdify((a, b, c), divided_difference(f, X, (a, b, c)))
    near = 0.3, 0.3 + 1e-9, 0.3 - 1e-9
    exact = by_definition(f, tuple(sp.Rational(p) for p in near))
    assert abs(function(*near) / float(sp.N(exact, 40)) - 1) < 1e-14
    # the control: the quotients are useless there
    plain = sp.lambdify((a, b, c), by_definition(f, (a, b, c)))
    assert abs(plain(*near) / float(sp.N(exact, 40)) - 1) > 1e-3


@pytest.mark.parametrize("exponent", [-1, -3, sp.Rational(-1, 4), sp.Rational(-4, 3)])
def test_a_negative_power_has_terms_of_one_sign(exponent):
    points = sp.symbols("a b c", positive=True)
    top, bottom = sp.fraction(sp.cancel(power(exponent, points)))
    in_roots = {p: p**12 for p in points}
    for piece in (top, bottom):
        poly = sp.Poly(sp.powdenest(piece.subs(in_roots), force=True), *points)
        assert len({c > 0 for c in poly.coeffs()}) == 1


def test_complete_homogeneous_sums_are_those_of_the_generating_function():
    t = sp.Symbol("t")
    series = sp.series(1 / ((1 - 2 * t) * (1 - 3 * t) * (1 - 5 * t)), t, 0, 6).removeO()
    for n in range(6):
        assert complete_homogeneous(n, (2, 3, 5)) == series.coeff(t, n)
    assert complete_homogeneous(-1, (2, 3)) == 0


def test_what_is_not_algebraic_is_refused_by_name():
    with pytest.raises(NotDifferentiableError, match=r"exp\(-x\) is not an algebraic function"):
        divided_difference(sp.exp(-X), X, (A, B))


def test_a_constant_has_no_difference():
    assert divided_difference(sp.Integer(3) + X - X, X, (A, B)) == 0
