"""Both sides of the expansion theorems, in exact rationals, on random finite laws.

Nothing here reads the Coq files or the package: a statement that compiles and says the wrong
thing would differ from these sums.
"""

import random
from fractions import Fraction as Q
from math import factorial

import pytest
import sympy as sp
from tests.proofs.coverage import evaluates
from tests.proofs.laws import (
    average,
    central,
    covariance,
    expectation,
    independent,
    joint,
    law,
    rational,
    sample,
)

SEEDS = range(6)


def reciprocal(order: int, x: Q) -> Q:
    """The derivatives of 1/x."""
    return Q((-1) ** order * factorial(order)) / x ** (order + 1)


def cubic_reciprocal(order: int, x: Q) -> Q:
    """The derivatives of x^-3."""
    return Q((-1) ** order * factorial(order + 2), 2) / x ** (order + 3)


MAPS = {"inverse": reciprocal, "inverse_cube": cubic_reciprocal}


def taylor(f, order: int, center: Q, x: Q) -> Q:
    return sum(f(k, center) / factorial(k) * (x - center) ** k for k in range(order + 1))


@pytest.mark.parametrize("f", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("seed", SEEDS)
@evaluates("taylor.taylor_lagrange", "taylor.taylor_remainder_bound")
def test_taylor_remainder_is_the_next_derivative_in_between_on_either_side(f, seed):
    rng = random.Random(seed)
    for order in range(6):
        center, x = rational(rng, 1, 5), rational(rng, 1, 5)
        remainder = f(0, x) - taylor(f, order, center, x)
        # the derivatives of these maps are monotone: their values in between lie between the ends
        ends = sorted(f(order + 1, t) * (x - center) ** (order + 1) for t in (center, x))
        assert ends[0] <= remainder * factorial(order + 1) <= ends[1]
        bound = abs(f(order + 1, Q(1))) / factorial(order + 1)
        assert abs(remainder) <= bound * abs(x - center) ** (order + 1)


@pytest.mark.parametrize("f", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("seed", SEEDS)
@evaluates("delta.delta_theorem", "delta.delta_second_order", "delta.delta_fourth_order")
def test_delta_theorem_bounds_what_is_left_at_any_order(f, seed):
    over = law(random.Random(seed), 4)
    mean = expectation(over)
    exact = expectation(over, lambda x: f(0, x))
    for order in range(6):
        series = sum(f(k, mean) / factorial(k) * central(over, k) for k in range(order + 1))
        largest = abs(f(order + 1, min(x for _, x in over))) / factorial(order + 1)
        moment = expectation(over, lambda x, p=order + 1: abs(x - mean) ** p)
        assert abs(exact - series) <= largest * moment
    second = f(0, mean) + f(2, mean) / 2 * central(over, 2)
    fourth = second + f(3, mean) / 6 * central(over, 3) + f(4, mean) / 24 * central(over, 4)
    lowest = min(x for _, x in over)
    for value, order, constant in ((second, 3, 6), (fourth, 5, 120)):
        moment = expectation(over, lambda x, p=order: abs(x - mean) ** p)
        assert abs(exact - value) <= abs(f(order, lowest)) / constant * moment


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("delta.delta_theorem_ratio", "delta.coupling_and_inversion")
def test_ratio_theorem_holds_coupling_and_inversion(seed):
    over = joint(random.Random(seed))
    g, v = (lambda a: a[0]), (lambda a: a[1])
    numerator, mean, f = expectation(over, g), expectation(over, v), reciprocal
    exact = expectation(over, lambda a: a[0] * f(0, a[1]))
    lowest = min(a[1] for _, a in over)
    for order in range(5):
        series = sum(
            f(k, mean) / factorial(k) * expectation(over, lambda a, k=k: a[0] * (a[1] - mean) ** k)
            for k in range(order + 1)
        )
        moment = expectation(over, lambda a, p=order + 1: abs(a[0]) * abs(a[1] - mean) ** p)
        assert abs(exact - series) <= abs(f(order + 1, lowest)) / factorial(order + 1) * moment
    mixed = expectation(over, lambda a: (a[0] - numerator) * (a[1] - mean) ** 2)
    terms = (
        numerator * f(0, mean)
        + f(1, mean) * covariance(over, g, v)
        + numerator * f(2, mean) / 2 * central(over, 2, v)
        + f(2, mean) / 2 * mixed
    )
    moment = expectation(over, lambda a: abs(a[0]) * abs(a[1] - mean) ** 3)
    assert abs(exact - terms) <= abs(f(3, lowest)) / 6 * moment


def quotient(i: int, j: int, x: Q, y: Q) -> Q:
    """The partial derivatives of x² / y."""
    return [x**2, 2 * x, Q(2), Q(0)][min(i, 3)] * reciprocal(j, y)


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("joint_delta.joint_delta_theorem", "joint_delta.joint_second_order")
def test_joint_theorem_bounds_what_is_left(seed):
    over = joint(random.Random(seed))
    x, y = (lambda a: a[0]), (lambda a: a[1])
    mx, my = expectation(over, x), expectation(over, y)
    exact = expectation(over, lambda a: quotient(0, 0, *a))
    reach, lowest = max(abs(a[0]) for _, a in over), min(a[1] for _, a in over)
    for order in range(1, 5):
        series = Q(0)
        for k in range(order + 1):
            for i in range(k + 1):
                moment = expectation(
                    over, lambda a, i=i, j=k - i: (a[0] - mx) ** i * (a[1] - my) ** j
                )
                series += quotient(i, k - i, mx, my) * moment / (factorial(i) * factorial(k - i))
        top = order + 1
        largest = max(abs(quotient(i, top - i, reach, lowest)) for i in range(top + 1))
        moment = expectation(over, lambda a, p=top: (abs(a[0] - mx) + abs(a[1] - my)) ** p)
        assert abs(exact - series) <= largest / factorial(top) * moment
        if order == 2:
            terms = (
                quotient(0, 0, mx, my)
                + quotient(1, 1, mx, my) * covariance(over, x, y)
                + quotient(2, 0, mx, my) / 2 * central(over, 2, x)
                + quotient(0, 2, mx, my) / 2 * central(over, 2, y)
            )
            assert terms == series


@evaluates("joint_delta.joint_tower_proportional")
def test_an_update_proportional_to_its_numerator_has_these_partial_derivatives():
    x, y = sp.symbols("x y", positive=True)
    f = 1 / (sp.sqrt(y) + 2)
    for i in range(4):
        for j in range(3):
            expected = [x, 1, 0, 0][i] * sp.diff(f, y, j)
            assert sp.simplify(sp.diff(x * f, x, i, y, j) - expected) == 0


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("inverse.E_inverse", "inverse.E_inverse_any_order", "inverse.E_inverse_gap")
def test_reciprocal_identities_are_exact(seed):
    rng = random.Random(seed)
    over = law(rng, 4, low=-5, high=5)
    over = [(w, x or Q(1, 2)) for w, x in over]
    mean = expectation(over)
    if mean == 0:
        over, mean = [(w, abs(x)) for w, x in over], expectation([(w, abs(x)) for w, x in over])
    exact = expectation(over, lambda x: 1 / x)
    assert exact - 1 / mean - central(over, 2) / mean**3 == -expectation(
        over, lambda x: (x - mean) ** 3 / (mean**3 * x)
    )
    for order in range(6):
        series = sum((-1) ** k * central(over, k) / mean ** (k + 1) for k in range(order + 1))
        left = expectation(over, lambda x, p=order + 1: (x - mean) ** p / x) / mean ** (order + 1)
        assert exact == series + (-1) ** (order + 1) * left
    positive = law(rng)
    assert 1 / expectation(positive) <= expectation(positive, lambda x: 1 / x)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(2))
@evaluates(
    "mean_law.Var_of_mean",
    "mean_law.central_3_of_mean",
    "mean_law.central_4_of_mean",
    "mean_law.central_5_of_mean",
    "mean_law.central_6_of_mean",
)
def test_central_moments_of_a_mean(size, seed):
    over, m = law(random.Random(seed)), Q(size)
    c = {k: central(over, k) for k in range(7)}
    v, means = c[2], sample(over, size)
    assert central(means, 2, average) == v / m
    assert central(means, 3, average) == c[3] / m**2
    assert central(means, 4, average) == (c[4] + 3 * (m - 1) * v**2) / m**3
    assert central(means, 5, average) == (c[5] + 10 * (m - 1) * c[3] * v) / m**4
    sixth = c[6] + 15 * (m - 1) * c[4] * v + 10 * (m - 1) * c[3] ** 2
    assert central(means, 6, average) == (sixth + 15 * (m - 1) * (m - 2) * v**3) / m**5


def expansion_of_mean(f, over):
    """f(μ), the coefficients of 1/m and 1/m², and the constant of the rest."""
    mean = expectation(over)
    c = {k: central(over, k) for k in range(7)}
    v, lowest = c[2], min(x for _, x in over)
    constant = (
        abs(f(4, mean)) / 24 * abs(c[4] - 3 * v**2)
        + abs(f(5, mean)) / 120 * (abs(c[5]) + 10 * abs(c[3]) * v)
        + abs(f(6, lowest)) / 720 * (c[6] + 15 * c[4] * v + 10 * c[3] ** 2 + 15 * v**3)
    )
    second = f(3, mean) / 6 * c[3] + f(4, mean) / 8 * v**2
    return f(0, mean), f(2, mean) / 2 * v, second, constant


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
@evaluates("mean_delta.delta_of_mean")
def test_expansion_in_one_over_m_leaves_a_third_order(size, seed):
    over = law(random.Random(seed), 3)
    value, first, second, constant = expansion_of_mean(reciprocal, over)
    exact = expectation(sample(over, size), lambda xs: 1 / average(xs))
    assert abs(exact - (value + first / size + second / size**2)) <= constant / Q(size) ** 3


def mixed(over, power, g, v) -> Q:
    top, mean = expectation(over, g), expectation(over, v)
    return expectation(over, lambda a: (g(a) - top) * (v(a) - mean) ** power)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", SEEDS)
@evaluates("coupled_mean.mixed_moments_of_means", "coupled_mean.both_biases_of_a_batch")
def test_coupling_and_inversion_of_a_batch_leave_a_second_order(size, seed):
    over, f, m = joint(random.Random(seed), 3), reciprocal, Q(size)
    g, v = (lambda a: a[0]), (lambda a: a[1])
    batch = sample(over, size)
    top, bottom = (lambda xs: average([a[0] for a in xs])), lambda xs: average([a[1] for a in xs])
    numerator, mean = expectation(over, g), expectation(over, v)
    cov, var = covariance(over, g, v), central(over, 2, v)
    assert mixed(batch, 1, top, bottom) == cov / m
    assert mixed(batch, 2, top, bottom) == mixed(over, 2, g, v) / m**2
    third = mixed(over, 3, g, v) + 3 * (m - 1) * cov * var
    assert mixed(batch, 3, top, bottom) == third / m**3
    exact = expectation(batch, lambda xs: top(xs) * f(0, bottom(xs)))
    biases = f(1, mean) * cov + f(2, mean) / 2 * numerator * var
    largest = abs(f(4, min(a[1] for _, a in over)))
    constant = (
        abs(f(2, mean)) / 2 * abs(mixed(over, 2, g, v))
        + abs(f(3, mean))
        / 6
        * (abs(numerator * central(over, 3, v)) + abs(mixed(over, 3, g, v)) + 3 * abs(cov) * var)
        + largest / 24 * max(abs(a[0]) for _, a in over) * (central(over, 4, v) + 3 * var**2)
    )
    assert abs(exact - (numerator * f(0, mean) + biases / m)) <= constant / m**2


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "mean_delta.jackknife_of_mean",
    "estimators.jackknife_order",
    "exchange.E_jackknife",
    "exchange.E_without",
    "exchange.sample_insert",
)
def test_jackknife_removes_the_first_order(size, seed):
    over, n = law(random.Random(seed), 3), Q(size)
    value, _, second, constant = expansion_of_mean(reciprocal, over)

    def jackknife(xs):
        left_out = [1 / average(xs[:r] + xs[r + 1 :]) for r in range(size)]
        return n / average(xs) - (n - 1) * average(left_out)

    exact = expectation(sample(over, size), jackknife)
    two_sizes = [expectation(sample(over, k), lambda xs: 1 / average(xs)) for k in (size, size - 1)]
    assert exact == n * two_sizes[0] - (n - 1) * two_sizes[1]
    rest = exact - value + second / (n * (n - 1))
    assert abs(rest) <= constant / n**2 + constant / (n - 1) ** 2


@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "exchange.leave_one_out_factors",
    "exchange.leave_one_out_average",
    "estimators.cross_fit_factors",
    "estimators.cross_fit_bias",
    "estimators.cross_fit_two_folds",
    "finite_law.E_independent",
    "finite_law.Cov_independent",
)
def test_folds_are_independent_so_coupling_vanishes(seed):
    rng = random.Random(seed)
    one, other = joint(rng, 3), joint(rng, 3)
    f = lambda v: 1 / (v + 1)  # noqa: E731
    g, inner = (lambda a: a[0]), (lambda a: f(a[1]))
    both = list(independent(one, other))
    assert expectation(both, lambda p: g(p[0]) * inner(p[1])) == expectation(one, g) * expectation(
        other, inner
    )
    assert covariance(both, lambda p: g(p[0]), lambda p: inner(p[1])) == 0
    # the second fold's numerator is shifted to the first one's mean
    shift = expectation(one, g) - expectation(other, g)
    shifted = [(w, (a[0] + shift, a[1])) for w, a in other]
    averaged = expectation(
        independent(one, shifted), lambda p: (g(p[0]) * inner(p[1]) + g(p[1]) * inner(p[0])) / 2
    )
    assert (
        averaged
        == expectation(one, g) * (expectation(one, inner) + expectation(shifted, inner)) / 2
    )
    size = 3

    def fold(xs, r):
        return g(xs[r]) * f(average([x[1] for i, x in enumerate(xs) if i != r]))

    draws = sample(one, size)
    expected = expectation(one, g) * expectation(
        sample(one, size - 1), lambda xs: f(average([x[1] for x in xs]))
    )
    assert all(expectation(draws, lambda xs, r=r: fold(xs, r)) == expected for r in range(size))
    assert expectation(draws, lambda xs: average([fold(xs, r) for r in range(size)])) == expected
