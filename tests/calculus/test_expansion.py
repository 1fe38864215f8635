"""The expansion is exact for polynomial maps: every weight is held against enumeration.

A map of degree d has no derivative beyond the d-th, so its expansion stops at power d - 1 and must
then *equal* E T(mean) - T(E), for any law and any number of microbatches.
"""

from fractions import Fraction
from math import prod

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import finite_law as exact

from deltabias.calculus.expansion import contributions, expand, partitions

VARIABLES = sp.symbols("a b c")

# three dependent coordinates; any subset of them is a law too
ATOMS = [
    ((Fraction(-1), Fraction(2), Fraction(1)), Fraction(1, 2)),
    ((Fraction(3), Fraction(0), Fraction(-1)), Fraction(1, 3)),
    ((Fraction(1), Fraction(5), Fraction(2)), Fraction(1, 6)),
]
SKEWED = [
    (Fraction(-1), Fraction(1, 2)),
    (Fraction(1), Fraction(1, 3)),
    (Fraction(4), Fraction(1, 6)),
]


def fraction(value):
    return Fraction(int(value.p), int(value.q))


def differentiator(map_, variables):
    def differentiate(index):
        return sp.diff(map_, *[(v, n) for v, n in zip(variables, index, strict=True) if n])

    return differentiate


def cumulant_of_mean(law, index, m):
    coordinates = [i for i, n in enumerate(index) for _ in range(n)]
    joint = exact.joint_cumulant(law, [lambda x, i=i: x[i] for i in coordinates])
    return joint / m ** (len(coordinates) - 1)


def evaluate(polynomial, variables, point):
    terms = sp.Poly(polynomial, *variables).terms()
    return sum(
        fraction(c) * prod((x**n for x, n in zip(point, powers, strict=True)), start=Fraction(1))
        for powers, c in terms
    )


def center_of(law, variables):
    return tuple(exact.expectation(law, lambda x, i=i: x[i]) for i in range(len(variables)))


def expanded(map_, variables, law, m, powers):
    """The sum of the contributions of these powers at a law's own cumulants."""
    center = center_of(law, variables)
    total = Fraction(0)
    for power in powers:
        for term, coefficient in expand(differentiator(map_, variables), variables, power):
            value = evaluate(coefficient, variables, center)
            total += value * prod(cumulant_of_mean(law, c, m) for c in term.cumulants)
    return total


def truth(map_, variables, law, m):
    center = center_of(law, variables)
    plug_in = exact.expectation_over_samples(
        law, m, lambda xs: evaluate(map_, variables, exact.mean(xs))
    )
    return plug_in - evaluate(map_, variables, center)


@st.composite
def polynomial_maps(draw, variables, degree):
    powers = st.tuples(*[st.integers(0, degree) for _ in variables])
    terms = draw(st.lists(st.tuples(st.integers(-3, 3), powers), min_size=1, max_size=4))
    kept = [(c, p) for c, p in terms if sum(p) <= degree]
    return sum((c * prod(v**n for v, n in zip(variables, p, strict=True)) for c, p in kept),
               start=prod(variables))  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_expansion_of_a_polynomial_map_is_exact(count, m):
    variables = VARIABLES[:count]
    law = [(x[:count], p) for x, p in ATOMS]

    @given(polynomial_maps(variables, degree=4))
    def holds(map_):
        assert expanded(map_, variables, law, m, (1, 2, 3)) == truth(map_, variables, law, m)

    holds()


def test_one_power_less_is_not_enough():
    a, b = VARIABLES[:2]
    law = [(x[:2], p) for x, p in ATOMS]
    map_ = a**2 * b**2
    assert expanded(map_, (a, b), law, 2, (1, 2, 3)) == truth(map_, (a, b), law, 2)
    assert expanded(map_, (a, b), law, 2, (1, 2)) != truth(map_, (a, b), law, 2)


# -- one variable, degree six: all three kinds of third-power terms are at work -----------------

POWER_OF_MEAN = VARIABLES[0] ** 6


def sixth_power(m, *, left_out=None, factor=1):
    """E mean⁶ - μ⁶ from the contributions through power five, one of them changed by a factor."""
    a = VARIABLES[:1]
    values = exact.cumulants(SKEWED, 6)
    total = Fraction(0)
    for power in range(1, 6):
        for term, coefficient in expand(differentiator(POWER_OF_MEAN, a), a, power):
            kinds = tuple(n for (n,) in term.cumulants)
            value = evaluate(coefficient, a, (values[1],))
            value *= prod(values[n] / m ** (n - 1) for n in kinds)
            total += value * (factor if kinds == left_out else 1)
    return total


def sixth_power_truth(m):
    mu = exact.cumulants(SKEWED, 1)[1]
    return exact.expectation_over_samples(SKEWED, m, lambda xs: exact.mean(xs) ** 6) - mu**6


@pytest.mark.parametrize("m", [1, 2, 4])
def test_the_sixth_power_of_a_mean_is_expanded_exactly(m):
    assert sixth_power(m) == sixth_power_truth(m)


@pytest.mark.parametrize("kinds", [(4,), (3, 2), (2, 2, 2)])
@pytest.mark.parametrize("factor", [0, Fraction(1, 2), -1])
def test_the_third_power_needs_each_of_its_three_kinds_of_terms(kinds, factor):
    assert sixth_power(2, left_out=kinds, factor=factor) != sixth_power_truth(2)


def test_the_coefficients_of_the_first_three_powers():
    found = {
        tuple(n for (n,) in c.cumulants): c.weight
        for power in (1, 2, 3)
        for c in contributions(1, power)
    }
    assert found == {
        (2,): sp.Rational(1, 2),
        (3,): sp.Rational(1, 6),
        (2, 2): sp.Rational(1, 8),
        (4,): sp.Rational(1, 24),
        (3, 2): sp.Rational(1, 12),
        (2, 2, 2): sp.Rational(1, 48),
    }


def test_stopping_at_fourth_derivatives_loses_two_of_three_third_power_terms():
    kept = [c for c in contributions(1, 3) if sum(c.derivative) <= 4]
    assert len(contributions(1, 3)) == 3
    assert len(kept) == 1


def test_coupling_carries_no_half_because_it_is_counted_twice():
    weights = {c.derivative: c.weight for c in contributions(2, 1)}
    half = sp.Rational(1, 2)
    assert weights == {(2, 0): half, (1, 1): sp.Integer(1), (0, 2): half}


@pytest.mark.parametrize("variables", [1, 2, 3])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_every_contribution_is_there_once_and_has_its_power(variables, power):
    terms = contributions(variables, power)
    assert len({c.cumulants for c in terms}) == len(terms)
    for term in terms:
        assert sum(sum(index) - 1 for index in term.cumulants) == power
        assert all(sum(index) >= 2 for index in term.cumulants)
        assert term.derivative == tuple(map(sum, zip(*term.cumulants, strict=True)))


def test_partitions_are_counted_as_euler_did():
    assert [len(list(partitions(n))) for n in range(1, 9)] == [1, 2, 3, 5, 7, 11, 15, 22]
    assert all(sum(p) == 8 for p in partitions(8))


def test_vanishing_derivatives_are_left_out():
    a, b = VARIABLES[:2]
    found = expand(differentiator(a * b, (a, b)), (a, b), 1)
    assert [(c.derivative, value) for c, value in found] == [((1, 1), 1)]
