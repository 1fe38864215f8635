"""Sums of products of averaging weights, against the explicit lists of weights."""

from fractions import Fraction
from itertools import combinations_with_replacement
from math import prod

import pytest
import sympy as sp

from deltabias.calculus.weights import STEP, Weights, newest, product_sum

B1, B2 = Fraction(9, 10), Fraction(19, 20)


def rational(value):
    return sp.Rational(value.numerator, value.denominator)


def weights(decay, gain=None, debias=False):
    gain = sp.Integer(1) if gain is None else rational(gain)
    return Weights(rational(Fraction(decay)), gain, debias)


FRESH = ("fresh", weights(0), lambda age, t: Fraction(age == 0))
TOTAL = ("total", weights(1), lambda age, t: Fraction(1))
EMA = ("ema", weights(B2, 1 - B2), lambda age, t: (1 - B2) * B2**age)
DEBIASED = (
    "debiased", weights(B1, 1 - B1, True), lambda age, t: (1 - B1) * B1**age / (1 - B1**t)
)  # fmt: skip
KINDS = [FRESH, TOTAL, EMA, DEBIASED]
TUPLES = [c for size in (1, 2, 3) for c in combinations_with_replacement(KINDS, size)]


def explicit(kinds, t, ages=None):
    ages = range(t) if ages is None else ages
    return sum((prod(w(age, t) for _, _, w in kinds) for age in ages), Fraction(0))


@pytest.mark.parametrize("t", [1, 2, 7])
@pytest.mark.parametrize("kinds", TUPLES, ids=lambda kinds: "-".join(k[0] for k in kinds))
def test_product_sums_equal_the_explicit_sum_over_ages(kinds, t):
    found = product_sum([w for _, w, _ in kinds], sp.Integer(t))
    assert found == rational(explicit(kinds, t))


@pytest.mark.parametrize("t", [2, 7])
def test_an_age_too_many_or_too_few_is_seen(t):
    found = product_sum([EMA[1], EMA[1]], sp.Integer(t))
    assert found != rational(explicit([EMA, EMA], t, range(t + 1)))
    assert found != rational(explicit([EMA, EMA], t, range(1, t + 1)))
    assert found != rational(explicit([EMA, EMA], t, range(t - 1)))


@pytest.mark.parametrize("kinds", [k for k in TUPLES if any(x is not TOTAL for x in k)],
                         ids=lambda kinds: "-".join(k[0] for k in kinds))  # fmt: skip
def test_the_steady_state_is_what_the_finite_sums_go_to(kinds):
    found = product_sum([w for _, w, _ in kinds], sp.oo)
    t = 600  # 0.95**600 = 4e-14, and a debiasing factor is that close to one
    assert abs(float(found) / float(explicit(kinds, t)) - 1) < 1e-12


def test_a_debiased_average_has_weights_that_add_up_to_one():
    for t in (1, 2, 7):
        assert product_sum([DEBIASED[1]], sp.Integer(t)) == 1
        assert product_sum([EMA[1]], sp.Integer(t)) == rational(1 - B2**t)


@pytest.mark.parametrize("kinds", TUPLES, ids=lambda kinds: "-".join(k[0] for k in kinds))
def test_the_newest_weights_are_those_of_age_zero(kinds):
    found = newest([w for _, w, _ in kinds], sp.Integer(7))
    assert found == rational(explicit(kinds, 7, [0]))


def test_the_newest_step_carries_one_minus_the_product_of_the_decays():
    beta1, beta2 = sp.symbols("beta1 beta2", positive=True)
    pair = [Weights(beta1, 1 - beta1, True), Weights(beta2, 1 - beta2, True)]
    share = sp.simplify(newest(pair, sp.oo) / product_sum(pair, sp.oo))
    assert sp.expand(share - (1 - beta1 * beta2)) == 0
    assert share.subs({beta1: sp.Rational(9, 10), beta2: sp.Rational(19, 20)}) == sp.Rational(
        145, 1000
    )


def test_the_step_may_stay_a_symbol():
    found = product_sum([EMA[1], DEBIASED[1]])
    assert found.free_symbols == {STEP}
    assert sp.nsimplify(found.subs(STEP, 7)) == rational(explicit([EMA, DEBIASED], 7))


def test_a_running_total_has_no_steady_state():
    with pytest.raises(ValueError, match="no steady state; ask for a finite step"):
        product_sum([TOTAL[1], TOTAL[1]], sp.oo)


def test_no_weights_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one state's weights, got none"):
        product_sum([])
