"""The table of strategies, small; its summaries."""

import pytest
from validation.strategies import (
    LAWS,
    ONE_STEP,
    TRAJECTORY,
    harmful_noises,
    one_step_lines,
    strategy_rows,
    trajectory_lines,
)


@pytest.fixture(scope="module")
def one_step():
    return one_step_lines("normal", "2.7", 8000, seed=1)


def by_strategy(lines):
    return {x["strategy"]: x for x in lines}


def test_one_term_alone_makes_the_bias_larger(one_step):
    found = by_strategy(one_step)
    plain = abs(found["plug_in"]["relative_bias"])
    assert abs(found["delta"]["relative_bias"]) < 0.5 * plain
    assert abs(found["inversion"]["relative_bias"]) > 2 * plain
    assert abs(found["cross_fit"]["relative_bias"]) > 2 * plain


def test_cross_fitting_costs_variance_and_passes_are_counted(one_step):
    found = by_strategy(one_step)
    assert found["cross_fit"]["squared_error_ratio"] > 1.1
    assert found["leave_one_out"]["passes"] == found["jackknife"]["passes"] == 2
    assert found["plug_in"]["squared_error_ratio"] == 1
    assert "closed_form" not in found  # it is for squares of a mean


def test_groups_of_a_square_of_a_mean_have_another_target():
    lines = [x for x in trajectory_lines("two_point", 100, seed=2) if x["noise"] == 2.7]
    found = by_strategy(lines)
    assert found["cross_fit"]["change_of_target"] == pytest.approx(
        ((1 + 2.7**2 / 8) / (1 + 2.7**2 / 16)) ** -0.5 - 1
    )
    assert found["delta"]["change_of_target"] == 0
    assert all(x["setting"] == TRAJECTORY for x in lines)


def line(noise, strategy, bias, squares=1.0):
    return {
        "setting": ONE_STEP, "law": LAWS[0], "noise": noise, "strategy": strategy,
        "relative_bias": bias, "standard_error": 0.01, "squared_error_ratio": squares,
        "squared_error_ratio_error": 0.01, "passes": 1, "bytes_per_parameter": 0,
    }  # fmt: skip


def test_a_strategy_stops_helping_where_it_leaves_more():
    lines = [line(0.1, "plug_in", 0.1), line(0.1, "delta", 0.05)]
    lines += [line(0.2, "plug_in", 0.1), line(0.2, "delta", -0.2, squares=1.2)]
    assert harmful_noises(lines, "delta") == [0.2]
    summary, safe = strategy_rows(lines, ONE_STEP, LAWS[0])
    assert summary.measured == "0.1"
    assert safe.passed is False
    assert safe.measured == 1.2
