"""Units in the last place and seconds, for a rule or two."""

import pytest
from validation import derive_speed, precision


def test_a_generated_function_is_within_four_units_in_both_types():
    findings = precision.study(samples=4, rules=("inverse",))
    assert findings.passed, findings.failures
    assert {x["dtype"] for x in findings.tables["units_in_the_last_place"]} == {"fp32", "bf16"}


def test_the_precision_control_is_caught_and_its_threshold_can_fail():
    assert precision.control_row(samples=4).passed
    line = {"rule": "r", "function": "f", "dtype": "fp32", "ulps": 4.5, "where": {"v": 1.0}}
    (row,) = precision.rows_of([line])
    assert row.passed is False


def test_derivations_are_timed_in_a_process_of_their_own():
    ((seconds,),) = derive_speed.measure("adamw", (1,), repeats=1)
    assert 0 < seconds < 60


def test_a_failing_derivation_shows_its_own_words():
    with pytest.raises(RuntimeError, match="no rule 'nonsense'"):
        derive_speed.measure("nonsense", (1,), repeats=1)
