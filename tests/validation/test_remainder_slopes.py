"""A small part of every kind of slope; the planted mistakes."""

import numpy as np
import pytest
from validation import remainder_slopes, trajectories, within_step
from validation.remainder_slopes import PLANTS, slope_row, tracked_rows
from validation.within_step import RULES, expansion_slopes, rule_of, strategy_slope

from deltabias.correction import correct
from deltabias.evaluate import Evaluator
from deltabias.rules import get_rule
from deltabias.truth import expectation_over_groups


@pytest.mark.parametrize(
    "strategy", ["plug_in", "delta", "cross_fit", "cross_fit+delta", "jackknife"]
)
def test_a_string_rule_keeps_its_claims_within_a_step(strategy):
    row = slope_row(strategy_slope("string g/(sqrt(v)+eps)", "two_point", strategy))
    assert row.passed, row


@pytest.mark.parametrize("rule", ["inverse", "sophia", "rmsprop_mean_of_squares", "adagrad"])
def test_the_expansion_leaves_second_and_third_order(rule):
    rows = [slope_row(line) for line in expansion_slopes(rule, "skewed")]
    assert [row.predicted for row in rows] == [2.0, 3.0]
    assert all(row.passed for row in rows), rows


def test_nothing_is_claimed_of_a_tracked_correction_at_its_first_step():
    line = strategy_slope("adam", "two_point", "delta")
    assert line["claimed"] is None
    assert slope_row(line).passed is None
    assert line["slope"] == pytest.approx(1, abs=0.05)


def test_every_rule_of_the_study_can_be_made():
    assert {rule_of(name).name for name in RULES} >= {"inverse", "sophia_g", "custom"}


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_coefficient_shows_slope_one(name):
    assert remainder_slopes.planted_strategy_slope(PLANTS[name]) == pytest.approx(1, abs=0.1)
    assert remainder_slopes.planted_expansion_slope(PLANTS[name]) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("rule", "parameter"), trajectories.CASES)
def test_the_expansion_over_a_trajectory_leaves_the_next_order(rule, parameter):
    rows = [slope_row(x) for x in trajectories.integral_lines(rule, parameter, "normal")]
    assert [row.predicted for row in rows] == [1.0, 2.0, 3.0]
    assert all(row.passed for row in rows), rows


def test_pairs_in_float64_agree_with_fifty_digits():
    rule, law = get_rule("inverse_sqrt"), within_step.LAWS["skewed"]
    correction = correct(rule, "cross_fit+delta")
    evaluator = Evaluator(correction, {}, "mpmath")
    shown = within_step.observed(rule, law)

    def update(groups):
        evaluator.reset()
        return evaluator(
            *(
                within_step.microbatches_of(
                    rule,
                    shown,
                    np.array([x for x, _ in sample], dtype=object),
                    np.array([n for _, n in sample]),
                )
                for sample in groups
            )
        )

    exact = expectation_over_groups(update, law, [4, 4], 30)
    fast = within_step.expected_update(rule, correction, law, 8)
    assert float(fast) == pytest.approx(float(exact), rel=1e-14)


def test_tracked_moments_are_unbiased():
    rows = tracked_rows()
    assert len(rows) == 26
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
