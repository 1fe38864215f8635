"""How the report simulates: its controls, its derivative at zero mean, where there are moments."""

from math import pi, sqrt

import numpy as np
import pytest

from deltabias.report.existence import count_squares, has_moment, pole_at_zero
from deltabias.report.prediction import Predictor
from deltabias.report.scenario import scenario
from deltabias.report.simulation import Controls, Histories, contribution, simulate
from deltabias.report.step_moments import state_means
from deltabias.rule import GRADIENT, MEAN, Ema, Statistic
from deltabias.rules import get_rule

ADAMW = get_rule("adamw")


@pytest.mark.parametrize(
    ("name", "law_name", "q"),
    [("adamw", "normal", 0.5), ("adamw", "skewed", 0.5), ("adam_mean_of_squares", "laplace", 0.9)],
)
def test_controls_have_the_means_that_are_claimed(name, law_name, q):
    scene = scenario(get_rule(name), law_name=law_name, microbatches=4)
    histories = Histories(scene, scene.gradient_law(q), 6, by_score=False)
    means = np.array(
        state_means(scene.rule.states, histories.weights, histories.law, scene.microbatches)
    )
    controls = Controls(scene, histories, means)
    assert len(controls.monomials) == 5
    values = controls(histories(np.random.default_rng(0), 40_000))
    error = values.std(axis=0) / sqrt(len(values))
    # five checks at 4.5 standard errors: a false alarm in 29 000 runs; the means are not zero
    assert np.all(np.abs(values.mean(axis=0) - controls.means) < 4.5 * error + 1e-12)
    assert np.count_nonzero(np.abs(controls.means) > 10 * error) >= 2


def test_a_heavy_tail_leaves_only_the_controls_that_have_a_variance():
    scene = scenario(ADAMW, law_name="student_t")
    histories = Histories(scene, scene.gradient_law(0.5), 3, by_score=False)
    chosen = Controls(scene, histories, np.ones(2)).monomials
    assert chosen == [(0,), (1,), (0, 0)]  # moments of t(5) exist below order five


def test_the_derivative_at_zero_mean_is_right_by_both_methods():
    scene = scenario(ADAMW, betas=(0.9, 0.95), hypers={"eps": 0.0})
    for steps in (4, 5):  # the score up to four squares, the pathwise derivative from there on
        exact = Predictor(scene)(1.0, steps).exact
        found = simulate(scene, 1.0, steps, replicates=100_000, seed=0)
        assert abs(found.value - exact) < 4 * found.standard_error
        assert found.standard_error < 0.05 * abs(exact)
    noted = simulate(scenario(ADAMW, law_name="two_point"), 1.0, 1)
    assert noted.value is None
    assert "no derivative" in noted.note


@pytest.mark.parametrize("law_name", ["laplace", "student_t"])
def test_the_score_serves_other_smooth_laws(law_name):
    # one microbatch's sign: (d/dμ) E sign x = 2 p(0), u* = μ/σ
    scene = scenario(get_rule("adagrad"), microbatches=2, law_name=law_name, hypers={"eps": 0.0})
    found = simulate(scene, 1.0, 1, replicates=200_000, seed=0)
    # density at zero of the mean of two with variance 1, by p₂(0) = 2 ∫ p(x)² dx
    density = {"laplace": 0.5, "student_t": _density_of_mean_of_two_t5()}[law_name]
    assert abs(found.value - (2 * density - 1)) < 4 * found.standard_error


def _density_of_mean_of_two_t5() -> float:
    """2 ∫ p(x)² dx for p of variance 2: a t(5) times √(2·3/5)."""
    scale = sqrt(6 / 5)
    x = np.linspace(-400, 400, 4_000_001)
    p = 8 / (3 * pi * sqrt(5)) * (1 + (x / scale) ** 2 / 5) ** -3 / scale
    return float(2 * np.sum(p**2) * (x[1] - x[0]))


def test_contributions_tell_the_square_of_a_mean_from_a_mean_of_squares():
    gradients = np.array([[[1.0, 3.0]]])
    square = Ema("v", Statistic("s", GRADIENT, MEAN**2, positive=True))
    squares = Ema("v", Statistic("s", GRADIENT**2, positive=True))
    assert contribution(square, gradients) == [[4.0]]
    assert contribution(squares, gradients) == [[5.0]]
    cubes = Ema("v", Statistic("s", GRADIENT**3 + 1))
    assert contribution(cubes, gradients) == [[15.0]]


def test_where_an_update_has_moments():
    scene = scenario(ADAMW)
    assert pole_at_zero(scene) == pytest.approx(0.5, abs=1e-3)
    assert count_squares(scene, 3) == 3
    assert count_squares(scenario(get_rule("adam_mean_of_squares")), 3) == 48
    assert has_moment(scene, 1, 4)
    newton = scenario(get_rule("sophia_g"))
    assert not has_moment(newton, 2, 1)
    assert has_moment(newton, 3, 1)
    assert not has_moment(newton, 4, 2)
    assert pole_at_zero(scenario(ADAMW, hypers={"eps": 1.0})) < 0.01
