"""Both sides of the theorems about estimators and about averages over time."""

import random
from fractions import Fraction as Q

import pytest
import sympy as sp
from tests.proofs.coverage import evaluates
from tests.proofs.laws import (
    central,
    covariance,
    expectation,
    independent,
    joint,
    law,
    rational,
    weights,
)

SEEDS = range(6)


def g(outcome):
    return outcome[0]


def square(outcome):
    return outcome[0] ** 2


# ---- estimators


def scatter(shares, xs, ys):
    mean_x = sum(w * x for w, x in zip(shares, xs, strict=True))
    mean_y = sum(w * y for w, y in zip(shares, ys, strict=True))
    return sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(shares, xs, ys, strict=True))


def centered(over, means):
    """The same law moved to these two means."""
    shift = [m - expectation(over, lambda a, i=i: a[i]) for i, m in enumerate(means)]
    return [(w, tuple(x + s for x, s in zip(a, shift, strict=True))) for w, a in over]


def estimate_and_truth(shares, laws):
    outcomes = list(independent(*laws))
    xs, ys = (lambda p: [a[0] for a in p]), (lambda p: [a[1] for a in p])
    estimate = expectation(outcomes, lambda p: scatter(shares, xs(p), ys(p)))

    def weighted(values):
        return lambda p: sum(w * x for w, x in zip(shares, values(p), strict=True))

    return estimate, covariance(outcomes, weighted(xs), weighted(ys))


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("estimators.E_scatter", "estimators.Cov_of_means", "estimators.unbiased_equal_weights")
def test_scatter_is_unbiased_for_equal_weights_and_unequal_laws(seed):
    rng = random.Random(seed)
    laws = [centered(joint(rng, 3), (Q(2), Q(-1))) for _ in range(3)]
    estimate, truth = estimate_and_truth([Q(1, 3)] * 3, laws)
    assert estimate / 2 == truth
    shares = weights(rng, 3)
    covariances = [covariance(one, g, lambda a: a[1]) for one in laws]
    estimate, truth = estimate_and_truth(shares, laws)
    assert truth == sum(w**2 * c for w, c in zip(shares, covariances, strict=True))
    assert estimate == sum((w - w**2) * c for w, c in zip(shares, covariances, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("estimators.unbiased_token_weights")
def test_scatter_is_unbiased_where_covariances_fall_with_the_weight(seed):
    rng = random.Random(seed)
    base, roots = centered(joint(rng, 3), (Q(0), Q(0))), [Q(1), Q(2), Q(3)]
    # observations scaled by 1/k have the covariance of weight k²
    laws = [[(w, (1 + a[0] / k, 3 + a[1] / k)) for w, a in base] for k in roots]
    shares = [k**2 / sum(k**2 for k in roots) for k in roots]
    estimate, truth = estimate_and_truth(shares, laws)
    assert estimate / 2 == truth


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("finite_law.Cov_square", "finite_law.Var_square")
def test_cumulants_of_a_square(seed):
    over = [(w, (x, Q(0))) for w, x in law(random.Random(seed), 4, low=-5)]
    mean, variance = expectation(over, g), central(over, 2, g)
    third, fourth = central(over, 3, g), central(over, 4, g)
    assert covariance(over, g, square) == 2 * mean * variance + third
    expected = 4 * mean**2 * variance + 4 * mean * third + fourth - variance**2
    assert central(over, 2, square) == expected


# ---- averages over time


def ema_weights(beta, length):
    return [(1 - beta) * beta**k / (1 - beta**length) for k in range(length)]


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize(("b1", "b2"), [(Q(9, 10), Q(19, 20)), (Q(0), Q(1, 3)), (Q(1, 2), Q(1, 2))])
@evaluates(
    "ema.geometric_sum",
    "ema.weights_sum_to_one",
    "ema.weight_products",
    "ema.tracked_sum",
    "ema.square_of_one_average",
    "ema.newest_share",
)
def test_geometric_sums_of_averaging_weights(b1, b2, length):
    first, second = ema_weights(b1, length), ema_weights(b2, length)
    assert sum(first) == 1
    r = b1 * b2
    assert sum(r**k for k in range(length)) == (1 - r**length) / (1 - r)
    closed = (1 - b1) * (1 - b2) * (1 - r**length)
    closed /= (1 - r) * (1 - b1**length) * (1 - b2**length)
    assert sum(x * y for x, y in zip(first, second, strict=True)) == closed
    tracked = Q(0)
    for _ in range(length):
        tracked = r * tracked + (1 - b1) * (1 - b2) * Q(3, 7)
    assert tracked == (1 - b1) * (1 - b2) * Q(3, 7) * (1 - r**length) / (1 - r)
    assert (1 - b2) ** 2 / (1 - b2**2) == (1 - b2) / (1 + b2)
    steady = (1 - b1) * (1 - b2) / (1 - r)
    assert (1 - b1) * (1 - b2) / steady == 1 - r


@evaluates("ema.weight_products_steady_state")
def test_weight_products_settle():
    b1, b2, length = Q(9, 10), Q(19, 20), 300
    products = zip(ema_weights(b1, length), ema_weights(b2, length), strict=True)
    settled = (1 - b1) * (1 - b2) / (1 - b1 * b2)
    assert abs(sum(x * y for x, y in products) / settled - 1) < Q(1, 10**6)


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("ema.covariance_recursion", "ema.mean_recursion")
def test_covariances_of_states_obey_the_recursion(seed):
    rng = random.Random(seed)
    past, step = joint(rng, 3), joint(rng, 3)
    b1, b2 = Q(9, 10), rational(rng, 0, 1)
    both = list(independent(past, step))

    def m(p):
        return b1 * p[0][0] + (1 - b1) * p[1][0]

    def v(p):
        return b2 * p[0][1] + (1 - b2) * p[1][1]

    pair = g, lambda a: a[1]
    gain = (1 - b1) * (1 - b2)
    assert covariance(both, m, v) == b1 * b2 * covariance(past, *pair) + gain * covariance(
        step, *pair
    )
    assert expectation(both, m) == b1 * expectation(past, g) + (1 - b1) * expectation(step, g)


@evaluates("ema.steady_state_relative_bias", "ema.first_step_relative_bias")
def test_steady_state_bias_of_the_square_of_the_mean():
    mean, noise, coupled, inverted, v = sp.symbols("mu n A B v", positive=True)
    f, total = v ** sp.Rational(-1, 2), mean**2 + noise
    covariance_term = sp.diff(f, v) * coupled * 2 * mean * noise
    variance_term = mean * sp.diff(f, v, 2) / 2 * inverted * (4 * mean**2 * noise + 2 * noise**2)
    relative = ((covariance_term + variance_term) / (mean * f)).subs(v, total)
    q = noise / total
    closed = -coupled * q + sp.Rational(3, 2) * inverted * q - sp.Rational(3, 4) * inverted * q**2
    assert sp.simplify(relative - closed) == 0
    at_first = closed.subs({coupled: 1, inverted: 1})
    assert sp.simplify(at_first + q * (3 * q - 2) / 4) == 0
