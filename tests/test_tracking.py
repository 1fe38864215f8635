"""What is remembered: unbiased estimates of a step, averaged with the weights of the states."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import sympy as sp
from tests.reference import adamw as twin
from tests.reference import finite_law as exact

from deltabias.correction import correct
from deltabias.derivation import MICROBATCHES
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rule import GRADIENT, Ema, Fresh, Statistic
from deltabias.rules import CATALOGUE, get_rule
from deltabias.tracking import STEP_MEAN, central, effective, step_covariance

LAW = [
    (Fraction(-1), Fraction(1, 2)),
    (Fraction(1), Fraction(1, 3)),
    (Fraction(4), Fraction(1, 6)),
]
X = Fresh("x1", Statistic("x1", GRADIENT))
SQUARE = Fresh("x2", Statistic("x2", GRADIENT**2))
CUBE = Fresh("x3", Statistic("x3", GRADIENT**3 - GRADIENT))


def estimate(expression, xs):
    """The value of an estimator on one sample, exactly."""
    center = exact.mean(xs)
    values = {central(k): exact.mean([(x - center) ** k for x in xs]) for k in range(2, 7)}
    values |= {STEP_MEAN: center, MICROBATCHES: Fraction(len(xs))}
    there = {s: sp.Rational(v.numerator, v.denominator) for s, v in values.items()}
    found = sp.Rational(expression.subs(there))
    return Fraction(int(found.p), int(found.q))


def powers(state):
    rising = reversed(sp.Poly(state.statistic.sample, GRADIENT).all_coeffs())
    coefficients = [Fraction(int(c)) for c in rising]
    return lambda x: sum(c * x**k for k, c in enumerate(coefficients))


def covariance_of_means(first, second, m):
    return exact.joint_cumulant(LAW, [powers(first), powers(second)]) / m


PAIRS = [(X, X), (X, SQUARE), (SQUARE, X), (SQUARE, SQUARE), (X, CUBE)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0].name}-{p[1].name}")
@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_estimate_of_a_covariance_of_step_means_is_unbiased(pair, m):
    formula = step_covariance(*pair)
    found = exact.expectation_over_samples(LAW, m, lambda xs: estimate(formula, xs))
    assert found == covariance_of_means(*pair, m)
    # the control: a divisor of m instead of m - 1 is the maximum-likelihood one, and too small
    biased = formula * (MICROBATCHES - 1) / MICROBATCHES
    assert exact.expectation_over_samples(LAW, m, lambda xs: estimate(biased, xs)) != found


def test_the_estimates_are_those_of_the_design():
    xs = (Fraction(3), Fraction(-1), Fraction(2), Fraction(7))
    p = {k: exact.mean([x**k for x in xs]) for k in range(1, 5)}
    assert estimate(step_covariance(X, SQUARE), xs) == (p[3] - p[1] * p[2]) / 3
    assert estimate(step_covariance(SQUARE, SQUARE), xs) == (p[4] - p[2] ** 2) / 3


@cache
def correction_of(name, strategy="delta"):
    return correct(get_rule(name), strategy)


def accumulators(name, strategy="delta"):
    return {a.name: a for a in correction_of(name, strategy).tracking.accumulators}


@pytest.mark.parametrize("m", [3, 4])
def test_the_increments_of_the_closure_are_unbiased(m):
    values = exact.cumulants(LAW, 4)
    truth = {
        "noise": values[2] / m,
        "third": values[3] / m**2,
        # E ḡ k₃ = μ κ₃ + κ₄, of the mean
        "third_mean": values[1] * values[3] / m**2 + values[4] / m**3,
    }
    found = accumulators("adamw")
    assert set(found) == set(truth)
    for name, accumulator in found.items():
        formula = accumulator.increment
        mean = exact.expectation_over_samples(LAW, m, lambda xs, f=formula: estimate(f, xs))
        assert mean == truth[name]
        wrong = formula * (MICROBATCHES - 1) / MICROBATCHES
        assert exact.expectation_over_samples(LAW, m, lambda xs, f=wrong: estimate(f, xs)) != mean


@pytest.mark.parametrize("m", [3, 4])
def test_a_step_alone_estimates_its_covariance_without_bias(m):
    # cov(ḡ, ḡ²) = 2 μ ν + κ₃, and E ḡ ν̂ = μ ν + κ₃, so 2 ḡ ν̂ - k₃ it is for a fresh numerator
    truth = exact.joint_cumulant(exact.law_of_mean(LAW, m), [lambda x: x, lambda x: x**2])
    found = accumulators("adamw")
    nu, k3 = found["noise"].increment, found["third"].increment

    def expected(formula):
        return exact.expectation_over_samples(LAW, m, lambda xs: estimate(formula, xs))

    assert expected(2 * STEP_MEAN * nu - k3) == truth
    assert expected(2 * STEP_MEAN * nu) != truth
    assert expected(2 * STEP_MEAN * nu + k3) != truth


@pytest.mark.parametrize("m", [1, 2, 3])
def test_the_closure_has_the_exact_moments_of_a_squared_mean(m):
    law = exact.law_of_mean(LAW, m)
    _, mu, nu, k3, k4 = exact.cumulants(law, 4)
    square = exact.expectation(law, lambda x: x**2)
    q = nu / square
    truth = [exact.joint_cumulant(law, [f, lambda x: x**2]) for f in (lambda x: x, lambda x: x**2)]
    assert truth[0] == 2 * mu * nu + k3
    assert truth[1] == square**2 * (4 * q - 2 * q**2) + 4 * mu * k3 + k4
    # 3 μ κ₃ + E ḡ k₃ is the whole of the skewness part
    assert 3 * mu * k3 + (mu * k3 + k4) == 4 * mu * k3 + k4
    assert truth[1] != square**2 * (4 * q - 2 * q**2)


# -- averages over a history ----------------------------------------------------------------------

HISTORY = np.random.default_rng(7).normal(0.4, 1.0, size=(12, 6)) ** 3


@cache
def evaluator_of(name, strategy, hypers):
    return Evaluator(correction_of(name, strategy), dict(hypers))


def run(name, strategy="delta", history=HISTORY, hypers=None):
    evaluator = evaluator_of(name, strategy, tuple((hypers or {}).items()))
    evaluator.reset()
    for row in history:
        batch = Microbatches({"x": row[None, :]}, np.ones(row.size, dtype=int))
        update = evaluator(batch)
    return evaluator, update


BETAS = {"beta1": 0.8, "beta2": 0.9}


def raw_second(history, beta, *, squares):
    rows = [np.mean(r**2) if squares else np.mean(r) ** 2 for r in reversed(history)]
    return twin.dot(twin.ema_weights(beta, len(rows), debias=False), rows)


@pytest.mark.parametrize(
    ("beta1", "beta2", "decays"),
    [(0.8, 0.9, (0.72, 0.72, 0.72)), (0.99, 0.8, (0.792, 0.8**1.5, 0.64))],
)
def test_the_accumulators_of_the_closure_are_weighted_sums_of_the_history(beta1, beta2, decays):
    evaluator, _ = run("adamw", hypers={"beta1": beta1, "beta2": beta2})
    v = raw_second(HISTORY, beta2, squares=False)
    # each is remembered no longer than the power of v that it is relative to
    weights = [twin.ema_weights(d, len(HISTORY), debias=False) for d in decays]
    rows = [list(r) for r in reversed(HISTORY)]
    m = HISTORY.shape[1]
    k3 = [twin.central(r, 3) / ((m - 1) * (m - 2)) for r in rows]
    expected = {
        "noise": twin.dot(weights[0], [twin.central(r, 2) / (m - 1) for r in rows]) / v,
        "third": twin.dot(weights[1], k3) / v**1.5,
        "third_mean": twin.dot(weights[2], [twin.mean(r) for r in rows], k3) / v**2,
    }
    for name, value in expected.items():
        assert evaluator.values[name][0] == pytest.approx(value, rel=1e-12)
    # the control: one decay alone, or a history one step short, would be seen
    slower = twin.ema_weights(0.95, len(HISTORY), debias=False)
    wrong = twin.dot(slower, [twin.central(r, 2) / (m - 1) for r in rows]) / v
    assert evaluator.values["noise"][0] != pytest.approx(wrong, rel=1e-2)


def test_the_accumulators_of_means_of_squares_are_weighted_sums_of_the_history():
    evaluator, _ = run("adamw_mean_of_squares", hypers=BETAS)
    v = raw_second(HISTORY, 0.9, squares=True)
    w1, w2 = (twin.ema_weights(b, len(HISTORY), debias=False) for b in (0.8, 0.9))
    rows = [list(r) for r in reversed(HISTORY)]
    m = HISTORY.shape[1]
    p = {k: [twin.mean([x**k for x in r]) for r in rows] for k in (1, 2, 3, 4)}
    cov = [(c - a * b) / (m - 1) for a, b, c in zip(p[1], p[2], p[3], strict=True)]
    var = [(d - b * b) / (m - 1) for b, d in zip(p[2], p[4], strict=True)]
    assert evaluator.values["covariance"][0] == pytest.approx(twin.dot(w1, w2, cov) / v, rel=1e-12)
    assert evaluator.values["variance"][0] == pytest.approx(twin.dot(w2, w2, var) / v**2, rel=1e-12)
    assert evaluator.values["variance"][0] != pytest.approx(twin.dot(w2, var) / v**2, rel=1e-2)


RESCALED = [
    (name, strategy)
    for name in ("adam", "adam_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares", "adagrad")
    for strategy in ("plug_in", "delta", "inversion")
]


@pytest.mark.parametrize(("name", "strategy"), RESCALED)
@pytest.mark.parametrize("power", [-20, 3, 40])
def test_a_power_of_two_in_every_gradient_changes_no_bit_without_eps(name, strategy, power):
    _, update = run(name, strategy, hypers={"eps": 0.0})
    _, scaled = run(name, strategy, HISTORY * 2.0**power, hypers={"eps": 0.0})
    assert np.array_equal(update, scaled)
    # the control: with eps the scale does matter
    pair = [run(name, strategy, HISTORY * s, hypers={"eps": 0.1})[1] for s in (1.0, 2.0**power)]
    assert not np.array_equal(*pair)


@pytest.mark.parametrize(("name", "strategy"), RESCALED)
def test_the_update_is_odd_in_the_gradients(name, strategy):
    _, update = run(name, strategy)
    _, mirrored = run(name, strategy, -HISTORY)
    assert np.array_equal(update, -mirrored)


# -- trust ----------------------------------------------------------------------------------------


def scalar(name, which, strategy="delta", **values):
    (found,) = [d for d in correction_of(name, strategy).tracking.scalars if d.name == which]
    return found.expression.subs({s: values[s.name] for s in found.expression.free_symbols})


@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares"])
def test_nothing_is_trusted_at_the_first_step_and_all_in_the_steady_state(name):
    beta = sp.Rational(19, 20)
    values = [scalar(name, "warm", t=t, beta2=beta) for t in (1, 2, 5, 2000)]
    assert values[0] == 0
    assert values == sorted(values)
    assert abs(values[-1] - 1) < 1e-12

    # with spread = (1-β)(1+βᵗ)/((1+β)(1-βᵗ)) it is the share of it that is gone, to the eighth
    def spread(t):
        return (1 - beta) * (1 + beta**t) / ((1 + beta) * (1 - beta**t))

    for t, value in ((2, values[1]), (5, values[2])):
        gone = (1 - spread(t)) / (1 - (1 - beta) / (1 + beta))
        assert sp.simplify(value - gone**8) == 0


def test_two_microbatches_are_not_trusted_where_fourth_moments_are_needed():
    assert [scalar("adamw_mean_of_squares", "enough", microbatches=m) for m in (2, 4)] == [
        0, sp.Rational(7, 8)
    ]  # fmt: skip


def test_the_effective_share_of_a_step_is_that_of_the_design():
    beta, t = sp.Symbol("beta2", nonnegative=True), 7
    weights = Ema("v", Statistic("v")).weights
    explicit = [(1 - beta) * beta**k / (1 - beta**t) for k in range(t)]
    assert sp.simplify(effective(weights, sp.Integer(t)) - sum(w**2 for w in explicit)) == 0


def test_without_noise_there_is_nothing_to_correct():
    history = np.repeat(HISTORY[:, :1], 4, axis=1)
    for name in ("adamw", "adamw_mean_of_squares", "rmsprop", "adagrad"):
        _, corrected = run(name, "delta", history)
        _, plug_in = run(name, "plug_in", history)
        assert corrected == pytest.approx(plug_in, rel=1e-14)


def test_the_first_step_of_an_average_is_not_corrected():
    for name in ("adamw", "adamw_mean_of_squares", "rmsprop"):
        first = HISTORY[:1]
        assert run(name, "delta", first)[1] == pytest.approx(run(name, "plug_in", first)[1])
        assert run(name, "delta")[1] != pytest.approx(run(name, "plug_in")[1], rel=1e-6)


@pytest.mark.parametrize("name", CATALOGUE)
def test_only_accumulators_with_a_memory_cost_a_buffer(name):
    tracking = correction_of(name).tracking
    assert tracking.buffers == sum(a.decay != 0 for a in tracking.accumulators)
    assert tracking.sums == max(0, tracking.highest - 1)
    forgetful = replace(tracking.accumulators[0], decay=sp.Integer(0))
    assert not forgetful.kept


def test_the_model_follows_from_the_statistic():
    models = {name: correction_of(name).tracking.model for name in CATALOGUE}
    assert models == {
        "inverse": "direct",
        "inverse_sqrt": "direct",
        "rmsprop": "closure",
        "rmsprop_mean_of_squares": "direct",
        "adam": "closure",
        "adam_mean_of_squares": "direct",
        "adamw": "closure",
        "adamw_mean_of_squares": "direct",
        "sophia": "direct",
        "sophia_g": "closed_form",
        "adagrad": "closure",
    }
