"""Cumulants of polynomials and of means, against exact enumeration of laws with finite support."""

from fractions import Fraction

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import finite_law as exact

from deltabias.calculus.cumulants import (
    KAPPA,
    cumulants_of_mean,
    expectation,
    joint_cumulant,
    normal,
    raw_moment,
)

X, M = sp.Symbol("x"), sp.Symbol("m", positive=True)

SKEWED = [
    (Fraction(-1), Fraction(1, 2)),
    (Fraction(1), Fraction(1, 3)),
    (Fraction(4), Fraction(1, 6)),
]
POLYNOMIALS = [X, X**2, 2 * X**3 - X + 1, X**2 - 3 * X]


def at_law(expression, law, order=12):
    """The value of an expression in kappa(1), kappa(2), … for a law's own cumulants."""
    values = exact.cumulants(law, order)
    found = expression.replace(KAPPA, lambda n: sp.Rational(values[int(n)]))
    return Fraction(int(found.p), int(found.q))


def as_function(polynomial):
    coefficients = [Fraction(int(c)) for c in sp.Poly(polynomial, X).all_coeffs()]

    def evaluate(x):
        total = Fraction(0)
        for c in coefficients:
            total = total * x + c
        return total

    return evaluate


@st.composite
def laws(draw):
    values = draw(st.lists(st.integers(-5, 5), min_size=2, max_size=4, unique=True))
    weights = [draw(st.integers(1, 5)) for _ in values]
    return [(Fraction(v), Fraction(w, sum(weights))) for v, w in zip(values, weights, strict=True)]


@given(laws(), st.integers(0, 8))
def test_raw_moments_of_a_finite_law_come_out_of_its_cumulants(law, order):
    assert at_law(raw_moment(order), law, 8) == exact.expectation(law, lambda x: x**order)


@given(laws(), st.lists(st.sampled_from(POLYNOMIALS), min_size=1, max_size=4))
def test_joint_cumulants_through_fourth_order_equal_enumeration(law, polynomials):
    found = at_law(joint_cumulant(polynomials, X), law)
    assert found == exact.joint_cumulant(law, [as_function(p) for p in polynomials])


def test_joint_cumulants_do_not_depend_on_the_order_of_their_arguments():
    assert joint_cumulant([X, X**2, X**3], X) == joint_cumulant([X**3, X, X**2], X)


@given(laws(), st.integers(1, 4))
def test_a_cumulant_of_a_mean_is_divided_by_a_power_of_the_size(law, m):
    cumulants = exact.cumulants(exact.law_of_mean(law, m), 4)
    for n in range(1, 5):
        assert at_law(cumulants_of_mean(KAPPA(n), sp.Integer(m)), law) == cumulants[n]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_cumulants_of_the_square_of_a_mean_equal_enumeration(m):
    law = exact.law_of_mean(SKEWED, m)
    for polynomials in ([X, X**2], [X**2, X**2], [X, X, X**2], [X**2, X**2, X**2]):
        formula = cumulants_of_mean(joint_cumulant(polynomials, X), sp.Integer(m))
        truth = exact.joint_cumulant(law, [as_function(p) for p in polynomials])
        assert at_law(formula, SKEWED) == truth


def test_a_planted_wrong_cumulant_is_seen():
    truth = exact.joint_cumulant(SKEWED, [lambda x: x, lambda x: x**2])
    without_skewness = joint_cumulant([X, X**2], X) - KAPPA(3)
    assert at_law(joint_cumulant([X, X**2], X), SKEWED) == truth
    assert at_law(without_skewness, SKEWED) != truth
    third = exact.cumulants(exact.law_of_mean(SKEWED, 3), 3)[3]
    assert at_law(KAPPA(3) / 3, SKEWED) != third  # one power of m short


def test_a_normal_observation_has_two_cumulants():
    mu, variance = KAPPA(1), KAPPA(2)
    assert normal(raw_moment(4) - 6 * mu**2 * variance - mu**4) == 3 * variance**2
    # Var(ḡ²) = 4 μ² σ²/m + 2 σ⁴/m², as in the design
    spread = normal(cumulants_of_mean(joint_cumulant([X**2, X**2], X), M))
    assert sp.expand(spread - 4 * mu**2 * variance / M - 2 * variance**2 / M**2) == 0


def test_the_two_conventions_differ_in_variance_by_up_to_the_number_of_microbatches():
    of_squares = normal(joint_cumulant([X**2, X**2], X)) / M
    of_mean = normal(cumulants_of_mean(joint_cumulant([X**2, X**2], X), M))
    without_mean = {KAPPA(1): 0}
    assert sp.simplify(of_squares.subs(without_mean) / of_mean.subs(without_mean)) == M


def test_the_expectation_of_something_else_than_a_polynomial_is_refused():
    with pytest.raises(sp.PolynomialError):
        expectation(sp.sqrt(X), X)
