"""Predicted against measured, on laws whose cumulants are known in closed form."""

import numpy as np
import pytest

from deltabias.demo.gradient_laws import GradientLaws, collect, layer_of
from deltabias.demo.layer_bias import ALL, layer_biases, predicted_bias
from deltabias.demo.replay import Control, Replay, replayed_updates, step_moments
from deltabias.demo.transformer import build

STANDARD_ERRORS = 4
"""A false alarm in 16,000 for each of the few comparisons here; seeds are fixed."""


MEANS = np.sqrt(np.linspace(0.01, 0.2, 40))
"""In units of the noise of one microbatch; irrational, so that no sample of eight adds to zero."""


@pytest.fixture(scope="module")
def laws() -> GradientLaws:
    """Three-point laws with mean μ, variance σ² and skewness γ, in two layers: γ = 0 and γ = 1.

    The standardized law puts 1/(γ+2) on -1, γ/(γ+1) on 0 and 1/((γ+1)(γ+2)) on γ+1.
    """
    plain = np.repeat([-1.0, 1.0], 48)
    skewed = np.repeat([-1.0, 0.0, 2.0], [32, 48, 16])
    means = MEANS[:, None]
    rows = np.concatenate([means + plain, means + skewed]) * 1e-3
    return GradientLaws(rows, np.repeat(["plain", "skewed"], 40))


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay(steps=60, replicates=100, seed=3)


def test_cumulants_of_the_laws_are_the_known_ones(laws):
    kappa = laws.cumulants()
    means = MEANS * 1e-3
    np.testing.assert_allclose(kappa[1], np.tile(means, 2), rtol=1e-12)
    np.testing.assert_allclose(kappa[2], 1e-6, rtol=1e-12)
    np.testing.assert_allclose(kappa[3], np.repeat([0, 1e-9], 40), rtol=1e-12, atol=1e-24)
    # κ₄, κ₅, κ₆ of ±1: -2, 0, 16
    for order, value in ((4, -2), (5, 0), (6, 16)):
        standardized = kappa[order][:40] / 1e-3**order
        np.testing.assert_allclose(standardized, value, atol=1e-12)


def test_prediction_and_measurement_agree(laws, replay):
    for row in layer_biases(laws, replay):
        allowed = STANDARD_ERRORS * row.measured_error
        assert abs(row.measured - row.predicted_second_order) < allowed
        # the comparison can fail: half the prediction would not pass, nor its other sign
        assert abs(row.measured - row.predicted_second_order / 2) > allowed


def test_first_order_alone_is_seen_to_be_first_order_where_gradients_are_skewed(laws):
    _, skewed, _ = layer_biases(laws, Replay(steps=40, replicates=400, seed=3))
    allowed = STANDARD_ERRORS * skewed.measured_error
    assert abs(skewed.measured - skewed.predicted) > allowed
    assert abs(skewed.measured - skewed.predicted_second_order) < allowed


def test_the_control_variate_leaves_the_mean_and_takes_the_noise(laws):
    replay = Replay(steps=30, replicates=200, seed=5)
    control = Control.of(laws, replay)
    states, _ = replayed_updates(laws, replay)
    weights = control.update / (control.update**2).sum()
    plain = weights @ (states.update - control.update[:, None])
    rest = weights @ (states.update - control.polynomial(states))
    controlled = weights @ control.mean_error + rest
    error = plain.std(ddof=1) / len(plain) ** 0.5
    assert abs(plain.mean() - controlled.mean()) < STANDARD_ERRORS * error
    assert controlled.std() < 0.05 * plain.std()


def test_the_moments_of_a_step_agree_with_every_sample_visited():
    points = np.array([-0.5, 0.25, 2.0])
    laws = GradientLaws(points[None], np.array(["one"]))
    means = np.array([(a + b + c + d) / 4 for a in points for b in points for c in points
                      for d in points])  # fmt: skip
    mean, square, cov, var = (value[0] for value in step_moments(laws, 4))
    assert mean == pytest.approx(means.mean(), rel=1e-13)
    assert square == pytest.approx((means**2).mean(), rel=1e-13)
    assert cov == pytest.approx((means**3).mean() - means.mean() * (means**2).mean(), rel=1e-12)
    assert var == pytest.approx((means**4).mean() - (means**2).mean() ** 2, rel=1e-12)


def test_the_predicted_population_update_is_that_of_the_law(laws, replay):
    _, population = predicted_bias(laws, replay)
    np.testing.assert_allclose(population, Control.of(laws, replay).update, rtol=1e-12)


def test_all_layers_together_are_the_last_row(laws):
    rows = layer_biases(laws, Replay(steps=5, replicates=2))
    assert [row.layer for row in rows] == ["plain", "skewed", ALL]
    assert rows[-1].coordinates == 80


def test_gradients_are_grouped_by_layer_and_dead_coordinates_left_out():
    import torch

    model = build(0, width=16, blocks=2, heads=2, context=8)
    generator = torch.Generator().manual_seed(0)
    batches = (torch.randint(0, 9, (2, 9), generator=generator) for _ in range(6))
    laws = collect(model, batches, per_tensor=20, seed=0)
    assert laws.names == ["embedding", "position", "block 0", "block 1", "head"]
    assert laws.gradients.shape[1] == 6
    assert (laws.gradients != 0).mean() > 0.9
    # four matrices a block
    assert (laws.layers == "block 1").sum() == 80


def test_layers_are_named_after_their_place():
    assert layer_of("blocks.2.up.weight") == "block 2"
    assert layer_of("head.weight") == "head"
