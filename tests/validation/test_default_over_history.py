"""Small versions of the default's study: shares left, errors, and what counts as held."""

import numpy as np
import pytest
from validation import default_over_history as study_module
from validation.default_over_history import (
    SQUARES,
    TORCH,
    confirm_task,
    error_row,
    leading_parts,
    plug_in_bias,
    scan_task,
    share_row,
    worst_by,
)
from validation.history import Gradients, mean_gain

LINE = {
    "rule": SQUARES, "law": "normal", "strategy": "delta", "noise": 0.5,
    "relative_plug_in_bias": 1e-6, "relative_coupling": -1e-3, "relative_inversion": 1e-3,
    "share_left": 0.3, "standard_error": 0.1,
    "share_of_parts_left": 1e-4, "standard_error_of_parts": 1e-4,
}  # fmt: skip


def test_leading_parts_add_up_to_the_plug_in_bias():
    exact = plug_in_bias(SQUARES, "normal", 2.5)
    assert sum(leading_parts(SQUARES, "normal", 2.5)) == pytest.approx(exact, rel=0.02)


def test_delta_removes_most_of_the_bias_of_normal_gradients():
    gradients = Gradients("normal", (7.5,), 16)
    at = tuple(range(80, 141, 10))
    gain, error = mean_gain(
        TORCH, "delta", gradients, at, betas=study_module.BETAS, replicates=400, seed=1
    )
    bias = plug_in_bias(TORCH, "normal", 7.5)
    assert abs(bias + gain[0]) < 0.2 * abs(bias) + 4.5 * error[0]
    assert abs(gain[0]) > 0.6 * abs(bias)


def test_a_cancelled_bias_is_judged_against_its_parts_and_says_so():
    row = share_row(LINE)
    assert row.passed
    assert "coupling and inversion cancel" in row.note
    assert row.measured == 1e-4


def test_a_bias_that_does_not_cancel_is_judged_against_itself():
    row = share_row({**LINE, "relative_plug_in_bias": 5e-4})
    assert row.passed is False
    assert row.measured == 0.3


def test_laws_without_a_limit_are_reported():
    assert share_row({**LINE, "rule": TORCH, "law": "skewed"}).passed is None


def test_the_scan_finds_a_worst_place_that_is_measured_again():
    lines = scan_task(TORCH, "constant", 4, "normal", 3, 60)
    assert len(lines) == len(study_module.START) * len(study_module.SCAN_NOISES)
    (worst,) = worst_by(lines, ("rule", "scenario"))
    again = confirm_task({**worst, "t": 5}, 4, 300)
    assert again["scanned_ratio"] == worst["ratio"] == max(x["ratio"] for x in lines)
    assert np.isfinite(again["ratio"])
    assert error_row({**again, "ratio": 1.06}).passed is False
    assert error_row({**again, "ratio": 1.04}).passed
