"""The simulated histories: targets, scenarios, pairing, and the mean of Student-t draws."""

from fractions import Fraction
from math import erf, sqrt

import numpy as np
import pytest
from validation.history import SCALES, Gradients, mean_gain, paired_errors
from validation.student_means import student_mean_law

from deltabias.truth import adam_population_update, ema_weights, law

BETAS = {"beta1": 0.9, "beta2": 0.95}


@pytest.mark.parametrize("rule", ["adamw", "adamw_mean_of_squares"])
def test_targets_are_the_population_update(rule):
    gradients = Gradients("normal", (0.5, 3.0), 4)
    weights = [ema_weights(str(b), 7) for b in BETAS.values()]
    statistic = "mean_of_squares" if "squares" in rule else "square_of_mean"
    for noise, found in zip((0.5, 3.0), gradients.targets(rule, BETAS, 7), strict=True):
        expected = adam_population_update(
            law("normal", mean=1, sd=noise), *weights, statistic=statistic, microbatches=4
        )
        assert found == pytest.approx(float(expected), rel=1e-12)


def test_scales_jump_by_ten_where_they_say():
    assert [SCALES["up"](t) for t in (100, 101)] == [1.0, 10.0]
    assert [SCALES["down"](t) for t in (100, 101)] == [10.0, 1.0]
    assert [SCALES["alternating"](t) for t in (1, 2, 3)] == [1.0, 10.0, 1.0]


def test_a_sparse_step_is_zero_for_all_microbatches_of_a_coordinate():
    gradients = Gradients("normal", (1.0,), 8, "sparse")
    step = gradients.step(np.random.default_rng(0), 1, 4000)[0]
    dark = (np.abs(step) < 1e-10).all(axis=1)
    assert ((np.abs(step) < 1e-10).any(axis=1) == dark).all()
    assert dark.mean() == pytest.approx(0.95, abs=0.02)


def test_paired_errors_know_the_plug_in_bias():
    # t = 1: E g/|g| of the mean of four normals, in closed form
    found = paired_errors(
        "adamw", "delta", Gradients("normal", (1.0,), 4), (1,),
        betas=BETAS, replicates=40_000, seed=2,
    )[1]  # fmt: skip
    target = 1 / sqrt(1 + 1 / 4)
    exact = erf(2 / sqrt(2)) - target
    assert found.target[0] == pytest.approx(target)
    assert found.plug_in_bias[0] == pytest.approx(exact, abs=4.5 * 0.3 / 200)
    # trust is withdrawn at t = 1, so nothing is gained and nothing lost
    assert found.gain[0] == 0
    assert found.ratio[0] == 1


def test_averaging_over_steps_has_the_error_of_independent_trajectories():
    gradients = Gradients("normal", (2.0,), 4)
    keywords = {"betas": {"beta1": 0.5, "beta2": 0.8}, "seed": 4}
    one = mean_gain("adamw", "delta", gradients, (40,), replicates=2000, **keywords)
    many = mean_gain("adamw", "delta", gradients, tuple(range(30, 61, 5)), replicates=2000,
                     **keywords)  # fmt: skip
    assert many[1][0] < 0.7 * one[1][0]
    assert abs(one[0] - many[0])[0] < 4.5 * one[1][0]


def test_the_mean_of_student_draws_has_the_moments_of_one():
    found = student_mean_law(Fraction(1), Fraction(2), 16)
    assert float(found.mean) == pytest.approx(1, abs=1e-12)
    assert float(found.variance) == pytest.approx(4 / 16, rel=1e-6)
    # κ₄ of a mean is κ₄/m³; of t with five dof κ₄ = 6 σ⁴, less the tails that are cut off
    assert float(found.cumulant(4)) == pytest.approx(6 * 16 / 16**3, rel=0.02)
