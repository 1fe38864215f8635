"""Monte Carlo: unbiased with and without its tricks, and right about its own error."""

import math

import numpy as np
import pytest

from deltabias.truth import (
    Estimate,
    Gamma,
    NonFiniteSample,
    Normal,
    Sampler,
    StudentT,
    TwoPoint,
    estimate,
    expectation,
    law,
)

MEAN, SD = 0.5, 1.0
NORMAL = Sampler(Normal("0.5", 1))


def curved(x):
    """E = e^{μ + σ²/2}, Var = (e^{σ²} − 1) e^{2μ + σ²} in units of a tenth."""
    return np.exp(x / 10)


EXACT = math.exp(MEAN / 10 + SD**2 / 200)

TRICKS = {
    "plain": {},
    "control": {"control": lambda x: x, "control_mean": MEAN},
    "two controls": {
        "control": lambda x: np.stack([x, x**2], axis=1),
        "control_mean": np.array([0.5, 1.25]),
    },
    "antithetic": {"antithetic": True},
    "both": {"antithetic": True, "control": np.square, "control_mean": 1.25},
}

# 400 runs of 500 replicates, seeds 0 … 399. Under nominal coverage 95 % the count is binomial
# (400, 0.95) with mean 380 and deviation 4.4; [360, 396] has probability 1 − 4e−5. Five checks.
RUNS, REPLICATES, LOW, HIGH = 400, 500, 360, 396


def covered(exact, inflate=1.0, **options):
    """How many of the runs have |mean − exact| ≤ 1.96 standard errors."""
    found = [
        estimate(curved, NORMAL, REPLICATES, seed, pilot=500, **options) for seed in range(RUNS)
    ]
    return sum(abs(e.mean - exact) <= 1.96 * inflate * e.standard_error for e in found)


@pytest.mark.parametrize("trick", TRICKS)
def test_intervals_cover_as_often_as_they_say(trick):
    assert LOW <= covered(EXACT, **TRICKS[trick]) <= HIGH


@pytest.mark.parametrize(
    ("exact", "inflate"),
    [(EXACT, 1 / math.sqrt(2)), (EXACT, math.sqrt(2)), (EXACT * 1.005, 1.0)],
    ids=["errors of the variance of one half", "errors that are too large", "a biased mean"],
)
def test_the_coverage_check_rejects_wrong_errors_and_wrong_means(exact, inflate):
    assert not LOW <= covered(exact, inflate) <= HIGH


@pytest.mark.parametrize(("trick", "factor"), [("control", 5), ("two controls", 100),
                                               ("antithetic", 3), ("both", 50)])  # fmt: skip
def test_tricks_shrink_the_error(trick, factor):
    plain = estimate(curved, NORMAL, 20_000, seed=1)
    better = estimate(curved, NORMAL, 20_000, seed=1, **TRICKS[trick])
    assert better.standard_error < plain.standard_error / factor
    assert better.replicates == plain.replicates


def test_a_control_fitted_on_its_own_replicates_would_be_biased():
    # The reason for the pilot: f = x³ − 3x is uncorrelated with x but its fitted slope is not,
    # and E[slope · x̄] is of order 1/n. With n = 10 the bias is seen; the pilot has none.
    def hermite(x):
        return x**3 - x**2

    runs, n = 4000, 10
    rng = np.random.default_rng(5)
    x = rng.standard_normal((runs, n))
    f, centered = hermite(x), x - x.mean(axis=1, keepdims=True)
    slope = (centered * f).sum(axis=1) / (centered**2).sum(axis=1)
    fitted_in_place = f.mean(axis=1) - slope * x.mean(axis=1) + 1
    z_in_place = fitted_in_place.mean() / (fitted_in_place.std() / math.sqrt(runs))
    with_pilot = np.array([
        estimate(hermite, Sampler(Normal()), n, seed, pilot=200, control=lambda x: x,
                 control_mean=0.0).mean + 1
        for seed in range(runs)
    ])  # fmt: skip
    z_with_pilot = with_pilot.mean() / (with_pilot.std() / math.sqrt(runs))
    # |z| < 5 is a false alarm of 6e−7.
    assert abs(z_with_pilot) < 5 < abs(z_in_place)


def test_common_random_numbers_judge_a_difference_by_its_own_error():
    two = estimate(
        lambda x: np.stack([curved(x), curved(x) + 0.001 * x], axis=1), NORMAL, 20_000, 4
    )
    difference = two.difference(1, 0)
    assert abs(difference.z(0.001 * MEAN)) < 5
    assert abs(difference.z(0.0)) > 5
    separate = math.hypot(*two.standard_error)
    assert difference.standard_error < separate / 50


def test_the_covariance_is_that_of_the_means():
    n = 50_000
    two = estimate(lambda x: np.stack([x, x**2], axis=1), Sampler(Normal(1, 2)), n, seed=2)
    # Var X = 4, Cov(X, X²) = 2μσ² = 8, Var X² = 4μ²σ² + 2σ⁴ = 48
    assert n * two.covariance == pytest.approx(np.array([[4, 8], [8, 48]]), rel=0.05)
    assert two.standard_error == pytest.approx(np.sqrt(np.diag(two.covariance)))


def test_simulation_agrees_with_enumeration():
    tested = TwoPoint(-1, 2, "0.4")
    exact = float(expectation(lambda s: 1 / (1 + s.power_mean(2)), tested, 6))
    found = estimate(lambda x: 1 / (1 + (x**2).mean(axis=1)), Sampler(tested, (6,)), 50_000, seed=8)
    assert abs(found.z(exact)) < 5
    assert abs(found.z(exact * 1.01)) > 5


@pytest.mark.parametrize("sampler", [NORMAL, Sampler(law("skewed", mean=0, sd=1), (2, 3)),
                                     Sampler(StudentT(5), (4,))])  # fmt: skip
def test_chunks_change_nothing_but_rounding(sampler):
    def function(x):
        return np.tanh(x).reshape(len(x), -1).sum(axis=1)

    whole = estimate(function, sampler, 1000, seed=3)
    pieces = estimate(function, sampler, 1000, seed=3, chunk=77)
    assert pieces.mean == pytest.approx(whole.mean, rel=1e-12)
    assert pieces.standard_error == pytest.approx(whole.standard_error, rel=1e-12)


def test_a_seed_fixes_the_estimate_and_another_moves_it():
    first, again, other = (estimate(curved, NORMAL, 100, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert (first.replicates, first.seed) == (100, 1)


def test_the_standard_error_survives_a_large_offset():
    # A one-pass variance of 1e8 ± 1 would have no digits left.
    found = estimate(lambda x: 1e8 + x, NORMAL, 10_000, seed=1, chunk=100)
    assert found.standard_error == pytest.approx(0.01, rel=0.05)


def test_progress_reports_every_chunk():
    seen = []
    estimate(
        curved, NORMAL, 100, 1, chunk=20, antithetic=True, progress=lambda *at: seen.append(at)
    )
    assert seen == [(40, 100), (80, 100), (100, 100)]


def test_reflection_uses_the_center_of_the_law():
    # x and 2c − x average to c exactly, so the mean of x has no error at all.
    found = estimate(lambda x: x, NORMAL, 100, seed=1, antithetic=True)
    assert found.mean == pytest.approx(0.5, abs=1e-15)
    assert found.standard_error < 1e-15
    explicit = estimate(curved, lambda rng, n: 0.5 + rng.normal(size=n), 100, 1, antithetic=True,
                        center=0.5)  # fmt: skip
    assert explicit.mean == pytest.approx(estimate(curved, NORMAL, 100, 1, antithetic=True).mean)


def test_two_equal_controls_are_no_harm():
    doubled = {"control": lambda x: np.stack([x, x], axis=1), "control_mean": [0.5, 0.5]}
    once = estimate(curved, NORMAL, 1000, 1, control=lambda x: x, control_mean=0.5)
    assert estimate(curved, NORMAL, 1000, 1, **doubled).mean == pytest.approx(once.mean, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"replicates": 3}, "replicates=3 must be an int of at least 4"),
        ({"replicates": 1e6}, "replicates=1000000.0 must be an int"),
        ({"seed": -1}, "seed=-1"),
        ({"chunk": 0}, "chunk=0"),
        ({"replicates": 101, "antithetic": True}, "must be even"),
        ({"center": 0.0}, "without antithetic=True"),
        ({"sampler": Sampler(Gamma(2)), "antithetic": True}, "need a symmetric law"),
        ({"control": np.square}, "go together"),
        ({"control_mean": 1.0}, "go together"),
        ({"control": np.square, "control_mean": [1.0, 2.0]}, "1 controls but 2 control means"),
        ({"control": np.square, "control_mean": 1.0, "pilot": 10}, "pilot=10 is too small"),
        ({"function": lambda x: x.mean()}, r"returned shape \(\)"),
        ({"function": lambda x: x[:5]}, r"returned shape \(5,\) for 100 replicates"),
    ],
)
def test_bad_arguments_are_named(options, text):
    arguments = {"function": curved, "sampler": NORMAL, "replicates": 100, "seed": 1} | options
    with pytest.raises(ValueError, match=text):
        estimate(**arguments)


def test_a_replicate_that_is_not_finite_is_an_error():
    with pytest.raises(NonFiniteSample, match="returned 100 values"):
        estimate(lambda x: np.full(len(x), np.inf), NORMAL, 100, 1)


def test_a_difference_needs_two_values():
    with pytest.raises(ValueError, match="at least two"):
        Estimate(1.0, 0.1, 100, 1).difference(0, 1)
