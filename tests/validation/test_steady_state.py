"""The steady-state formula, derived; its exact and simulated values at a few settings."""

import numpy as np
import pytest
from validation import steady_state
from validation.steady_state import History, rows_of, simulate, study, symbolic_rows

from deltabias.truth import ema_weights

BETAS = ("0.9", "0.95")
SIGMAS = 4.5
"""Two-sided 7e-6 a comparison, 1e-4 over this file."""


def test_the_formula_is_derived_as_an_expression():
    assert all(row.passed for row in symbolic_rows())


def test_simulation_agrees_with_the_exact_bias_and_rejects_the_leading_order():
    lines = steady_state.one_setting(BETAS, 1, 20_000, seed=5)
    for line in lines:
        assert abs(line["simulated"] - line["exact"]) < SIGMAS * line["standard_error"]
    far = [abs(x["simulated"] - x["leading"]) / x["standard_error"] for x in lines]
    assert min(far) > SIGMAS


def test_a_prediction_that_is_wrong_fails_its_row():
    (line, *_) = steady_state.one_setting(BETAS, 2, 20_000, seed=6)
    assert rows_of([line])[0].passed
    assert rows_of([{**line, "exact": line["leading"]}])[0].passed is False


def test_control_variates_have_the_means_that_are_stated():
    weights = (np.array([float(w) for w in ema_weights(b, 7)]) for b in BETAS)
    history = History(*weights)
    controls = history.controls(history(np.random.default_rng(3), 200_000))
    error = controls.std(axis=0) / len(controls) ** 0.5
    assert np.all(np.abs(controls.mean(axis=0) - history.control_means) < SIGMAS * error)


def test_path_and_score_estimate_the_same_limit():
    # both forms of d/dμ E u at μ = 0, on histories long enough for either
    weights = [np.array([float(w) for w in ema_weights(b, 20)]) for b in BETAS]
    states = History(*weights)(np.random.default_rng(8), 200_000)
    path, score = (steady_state.relative_update(states, 1.0, path=p) for p in (True, False))
    gap = path - score
    assert abs(gap.mean()) < SIGMAS * gap.std() / len(gap) ** 0.5


def test_the_small_study_holds_and_counts_what_is_within():
    findings = study(betas=(BETAS,), steps=(5, None), scale=0.02)
    assert findings.passed, findings.failures
    assert {x["t"] for x in findings.tables["relative_bias"]} == {5, "steady"}
    assert simulate(BETAS, 5, 2000, 1) == simulate(BETAS, 5, 2000, 1)


def test_steady_state_of_the_slow_betas_is_a_limit_of_long_histories():
    short = steady_state.exact("0.5", BETAS, 200)
    long = steady_state.exact("0.5", BETAS, 400)
    assert long == pytest.approx(short, rel=1e-3)
