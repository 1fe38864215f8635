"""The pieces under `check_bias`, each against an independent truth."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from deltabias.correction import correct
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rules import get_rule
from deltabias.truth import TwoPoint, law, matrix_law
from deltabias.verify.bias_controls import Controls
from deltabias.verify.bias_ladder import Contrasts, contrast, fitted_order, ladder, t_quantile
from deltabias.verify.bias_source import read_law
from deltabias.verify.bias_target import read_rule, read_target

GAMMA = law("gamma", mean=1, sd="1/2")


@pytest.mark.parametrize("base", [16, 64])
@pytest.mark.parametrize("keep", [0, 1, 2])
def test_a_contrast_reads_one_order_off_a_series_as_large_as_it_is_at_m(keep, base):
    sizes = ladder(16, base)
    coefficients = [0.0] * keep + [3.0, -2.0, 5.0, 7.0]
    bias = np.array([sum(c * m**-p for p, c in enumerate(coefficients)) for m in sizes])
    found = Contrasts.of(sizes, keep)
    assert found.main @ bias == pytest.approx(3.0 * 16.0**-keep, rel=1e-9)


def test_a_contrast_free_of_offset_sees_no_constant():
    weights = Contrasts.of((16, 32, 64, 128), 1, free_of_offset=True)
    for each in (weights.main, weights.low, weights.high):
        assert abs(each.sum()) < 1e-9


def test_what_is_unsettled_bounds_what_is_left_of_a_geometric_series():
    # 1/(m − 2): every order is there
    sizes = ladder(16, 16)
    bias = np.array([1 / (m - 2) for m in sizes])
    found = Contrasts.of(sizes, 1)
    left = abs(found.main @ bias - 1 / 16)
    assert 0 < left < abs((found.high - found.low) @ bias)


def test_a_contrast_refuses_nothing_it_can_solve():
    assert contrast([4, 8], 1, [2]) @ [1 / 16, 1 / 64] == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("tail", [0.025, 5e-4, 5e-7, 5e-13])
@pytest.mark.parametrize("freedom", [127, 255])
def test_students_quantile_is_right(tail, freedom):
    assert t_quantile(tail, freedom) == pytest.approx(student.isf(tail, freedom), rel=2e-4)


def test_the_order_of_a_power_law_is_its_exponent():
    sizes = (16, 32, 64)
    bias = np.array([m**-1.5 for m in sizes])
    slope, error = fitted_order(sizes, bias, np.diag((0.01 * bias) ** 2))
    assert slope == pytest.approx(1.5, abs=1e-9)
    assert 0 < error < 0.05
    assert math.isnan(fitted_order(sizes, bias, np.diag(bias**2))[0])


# -- control variates ------------------------------------------------------------------------------


def every_batch(points, weights, size):
    grid = np.stack(np.meshgrid(*[points] * size, indexing="ij"), -1).reshape(-1, size)
    chance = np.stack(np.meshgrid(*[weights] * size, indexing="ij"), -1).reshape(-1, size)
    return grid, chance.prod(axis=1)


@pytest.mark.parametrize("known", [True, False])
def test_every_control_has_mean_zero_exactly(known):
    # all 3¹² … too many: two points, eight microbatches, sizes 2, 4, 8; a skewed law
    two = TwoPoint(0, 3, "1/5")
    source = read_law(two if known else lambda rng, s: two.sample(rng, s))
    controls = Controls(source, (2, 4, 8), tuple(Contrasts.of((2, 4, 8), 1).main))
    grid, chance = every_batch([0.0, 3.0], [0.8, 0.2], 8)
    mean = chance @ controls(grid)
    assert mean.size >= 3
    assert np.abs(mean).max() < 1e-10


def test_controls_of_a_history_have_mean_zero_exactly():
    two = TwoPoint(0, 3, "1/5")
    controls = Controls(read_law(two), (2, 4), (1.0, 0.0), steps=2)
    grid, chance = every_batch([0.0, 3.0], [0.8, 0.2], 8)
    mean = chance @ controls(grid.reshape(-1, 2, 4))
    assert np.abs(mean).max() < 1e-10


def test_controls_of_matrices_have_mean_zero_within_five_errors():
    source = read_law(matrix_law("skewed", 2))
    sizes = (4, 8, 16)
    for keep in (None, tuple(range(10))):
        controls = Controls(source, sizes, tuple(Contrasts.of(sizes, 1).main), keep=keep)
        values = controls(source.draw(np.random.default_rng(0), (20_000, 16)))
        z = values.mean(axis=0) / (values.std(axis=0) / math.sqrt(len(values)) + 1e-300)
        assert np.abs(z).max() < 5


# -- targets ---------------------------------------------------------------------------------------


def test_the_population_update_of_squares_of_means_depends_on_m():
    target = read_target("adam", read_law(GAMMA), hypers={"eps": 0.0})
    assert target.value(16) == pytest.approx((1 + 0.25 / 16) ** -0.5, rel=1e-14)
    assert target.value(64) == pytest.approx((1 + 0.25 / 64) ** -0.5, rel=1e-14)


@pytest.mark.parametrize("name", ["adam", "adam_mean_of_squares", "rmsprop", "adagrad"])
def test_the_uncorrected_update_is_that_of_the_slow_evaluator(name):
    rule, steps = get_rule(name), 3
    x = torch.tensor(np.random.default_rng(0).gamma(4, 0.25, (5, steps, 8)))
    evaluator = Evaluator(correct(rule, "plug_in"))
    for step in range(steps):
        batch = Microbatches({"x": x[:, step].numpy()}, np.ones(8, dtype=int))
        expected = evaluator(batch)
    found = read_target(name, read_law(GAMMA), steps=steps).plug_in(x)
    assert np.allclose(found, expected, rtol=1e-13)


def test_a_warm_history_enters_the_population_update_as_it_is():
    warm = np.full((2, 4), 2.0)
    hypers = {"beta1": 0.5, "beta2": 0.5, "eps": 0.0}
    target = read_target("adam_mean_of_squares", read_law(GAMMA), warm=warm, hypers=hypers)
    mean = (0.125 * 2 + 0.25 * 2 + 0.5 * 1) / 0.875
    square = (0.125 * 4 + 0.25 * 4 + 0.5 * 1.25) / 0.875
    assert target.value(16) == pytest.approx(mean / square**0.5, rel=1e-14)


def test_a_rule_is_read_by_name_by_spelling_and_by_record():
    assert read_rule("adam") is get_rule("adam")
    assert read_rule("1/x").states[0].name == "x"
    assert read_rule("inv_root(L, 2) * M").symmetric == ("L",)
    assert read_rule(1.0) is None
