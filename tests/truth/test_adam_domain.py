"""The Laplace route: its digits, its domain, and what it refuses."""

import math
from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.truth import (
    Discrete,
    DivergentExpectation,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    NotConverged,
    Shifted,
    TwoPoint,
    adam_population_update,
    adam_update_mean,
    adam_update_mean_float64,
    ema_weights,
    law,
    relative_bias_adam,
)

STATISTICS = ["square_of_mean", "mean_of_squares"]


def weights(steps):
    return [ema_weights(beta, steps) for beta in ("0.9", "0.95")]


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("tested", [Normal("0.01", 1), Normal(5, "0.1"), TwoPoint(-1, 3, "0.7")])
@pytest.mark.parametrize("options", [{}, {"eps": "1e-4"}, {"power": "1/4"}, {"power": 1}], ids=str)
def test_float64_keeps_ten_digits_of_the_precise_integral(tested, options, statistic):
    arguments = dict(statistic=statistic, microbatches=3, **options)
    precise = adam_update_mean(tested, *weights(5), digits=20, **arguments)
    fast = adam_update_mean_float64(tested, *weights(5), **arguments)
    assert abs(fast.value / float(precise) - 1) < 1e-10
    assert fast.error < 1e-10 * abs(fast.value)


def test_long_histories_keep_ten_digits():
    steps = 1000
    equal = [Fraction(1, steps)] * steps
    precise = adam_update_mean(Normal("0.5", 1), equal, equal, digits=16)
    fast = adam_update_mean_float64(Normal("0.5", 1), equal, equal)
    assert abs(fast.value / float(precise) - 1) < 1e-12


def test_asking_for_more_digits_changes_only_the_last_ones():
    short = adam_update_mean(Normal("0.5", 1), *weights(3), digits=20)
    long = adam_update_mean(Normal("0.5", 1), *weights(3), digits=45)
    with mpmath.workdps(50):
        assert 0 < abs(short - long) < mp.mpf(10) ** -19


def test_a_vanishing_mean_is_the_limit_of_small_means():
    a, b = weights(4)
    limit = relative_bias_adam(1, a, b)
    found = adam_update_mean(Normal("1e-9", 1), a, b)
    population = adam_population_update(Normal("1e-9", 1), a, b)
    assert float(found / population - 1) == pytest.approx(limit, abs=1e-12)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_noise_share_says_all_about_a_normal_law(statistic):
    # μ = 3, σ = 8, m = 4: q = 16/25 for the square of the mean, 64/73 for the mean of squares.
    share = {"square_of_mean": Fraction(16, 25), "mean_of_squares": Fraction(64, 73)}[statistic]
    scale = {"square_of_mean": 25, "mean_of_squares": 73}[statistic]
    arguments = {"statistic": statistic, "microbatches": 4}
    eps = mp.mpf("0.1")
    exact = adam_update_mean_float64(
        Normal(3, 8), *weights(9), eps=eps * mp.sqrt(scale), **arguments
    )
    target = adam_population_update(
        Normal(3, 8), *weights(9), eps=eps * mp.sqrt(scale), **arguments
    )
    found = relative_bias_adam(share, *weights(9), eps=eps, **arguments)
    assert found == pytest.approx(exact.value / float(target) - 1, abs=1e-12)


def test_the_two_rules_have_two_targets():
    one = adam_population_update(Normal(1, 4), [1], [1], microbatches=16)
    other = adam_population_update(
        Normal(1, 4), [1], [1], microbatches=16, statistic="mean_of_squares"
    )
    assert float(one) == pytest.approx(1 / math.sqrt(2))
    assert float(other) == pytest.approx(1 / math.sqrt(17))


@pytest.mark.parametrize("adam", [adam_update_mean, adam_update_mean_float64])
@pytest.mark.parametrize(
    ("tested", "a", "b", "options"),
    [
        (Normal(0, 1), [1], [1], {"power": 1}),
        (Normal(0, 1), [0, 1], [1, 0], {"power": "1/2"}),
        (Discrete([-1, 0, 2], ["1/4", "1/2", "1/4"]), [0, 1], [1, 0], {}),
    ],
)
def test_an_update_without_a_mean_is_refused(adam, tested, a, b, options):
    with pytest.raises(DivergentExpectation, match="needs a power below"):
        adam(tested, a, b, **options)
    # An epsilon bounds the map, and then the mean exists.
    adam(tested, a, b, eps_root="0.1", **options)


def test_a_gamma_density_that_piles_up_at_zero_narrows_the_domain():
    options = {"power": "3/4"}
    with pytest.raises(DivergentExpectation, match="power below 3/4"):
        adam_update_mean_float64(Gamma("1/2"), [1], [1], **options)
    # E g^{1 − 2p} = Γ(k + 1 − 2p)/Γ(k) just inside
    found = adam_update_mean_float64(Gamma("1/2"), [1], [1], power="3/5").value
    assert found == pytest.approx(float(mp.gamma("0.3") / mp.gamma("0.5")), rel=1e-9)


def test_a_power_just_below_the_limit_is_right():
    # E g |g|^{−2p} at p = 9/10: the tails decay slowly.
    found = adam_update_mean_float64(Normal(1, 1), [1], [1], power="9/10")
    integral = mp.quad(
        lambda x: x ** mp.mpf("-0.8") * (mp.npdf(x, 1) - mp.npdf(x, -1)), [0, 0.01, 1, 5, 15]
    )
    assert found.value == pytest.approx(float(integral), rel=1e-10)


def test_a_law_without_transforms_at_high_precision_is_named():
    with pytest.raises(TypeError, match="adam_update_mean_float64"):
        adam_update_mean(Laplace(), [1], [1])
    with pytest.raises(TypeError, match="mean of 4 draws"):
        adam_update_mean_float64(Laplace(), [1], [1], microbatches=4)


def test_a_power_too_small_for_the_float64_range_does_not_converge():
    with pytest.raises(NotConverged, match="does not decay"):
        adam_update_mean_float64(Normal(1, 1), [1], [1], power="1/100")


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        (([1], [1, 2]), {}, "one of each per step"),
        (([], []), {}, "one of each per step"),
        (([1], [-1]), {}, "must not be negative"),
        (([1], [0]), {}, "at least one must be positive"),
        (([1], [1]), {"statistic": "squares"}, "choose square_of_mean or mean_of_squares"),
        (([1], [1]), {"microbatches": 0}, "int of at least 1"),
        (([1], [1]), {"eps": -1}, "at least 0"),
        (([1], [1]), {"power": 0}, "must be positive"),
        (([1], [1]), {"power": 1, "eps": 1}, "needs power=1/2"),
    ],
)
def test_bad_arguments_are_named(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        adam_update_mean(Normal(1, 1), *arguments, **options)


def test_a_noise_share_lies_between_zero_and_one():
    with pytest.raises(ValueError, match="between 0 and 1"):
        relative_bias_adam("1.5", [1], [1])
    with pytest.raises(ValueError, match="has no relative bias"):
        relative_bias_adam("0.5", [1, -1], [1, 1])


@pytest.mark.parametrize("tested", [Normal(0, 1), TwoPoint(-1, 1), Laplace(0, 2)])
def test_a_symmetric_law_has_no_mean_update(tested):
    # u is an odd function of the history, and 0 is exact: nothing is integrated.
    assert adam_update_mean_float64(tested, *weights(4)) == (0.0, 0.0)
    if not isinstance(tested, Laplace):
        assert adam_update_mean(tested, *weights(4)) == 0


def test_a_skewed_law_of_mean_zero_does_move():
    found = adam_update_mean_float64(law("skewed", mean=0, sd=1), *weights(4), microbatches=16)
    assert abs(found.value) > 1e6 * found.error


@pytest.mark.parametrize("tested", [Shifted(Gamma("1/4"), 1), LogNormal(0, 1), Gamma(3)])
def test_a_law_that_keeps_away_from_zero_allows_any_power(tested):
    # One step at p = 1: E g/g² = E 1/g, finite for each of these.
    found = adam_update_mean_float64(tested, [1], [1], power=1)
    exact = {
        Gamma(3): mp.mpf(1) / 2,
        LogNormal(0, 1): mp.exp(0.5),
        Shifted(Gamma("1/4"), 1): mp.quad(
            lambda u: mp.exp(u / 4 - mp.exp(u)) / (1 + mp.exp(u)) / mp.gamma(0.25),
            [-160, -20, 0, 5],
        ),
    }[tested]
    assert found.value == pytest.approx(float(exact), rel=1e-9)
