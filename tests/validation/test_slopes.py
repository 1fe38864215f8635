"""Slopes of known power laws, and data that have no slope."""

import mpmath
import pytest
from validation.slopes import slope

SMALL = [1 / 16, 1 / 32, 1 / 64, 1 / 128]


def test_the_slope_of_a_power_law_is_its_power():
    found = slope(SMALL, [mpmath.mpf(h) ** 2 for h in SMALL])
    assert found.last == pytest.approx(2)
    assert found.extrapolated == pytest.approx(2)


def test_extrapolation_removes_the_next_order():
    found = slope(SMALL, [mpmath.mpf(h) ** 2 * (1 - 3 * h) for h in SMALL])
    assert abs(found.last - 2) > 0.01
    assert abs(found.extrapolated - 2) < abs(found.last - 2) / 10


def test_the_sign_of_a_remainder_does_not_matter():
    found = slope(SMALL, [-(mpmath.mpf(h) ** 3) for h in SMALL])
    assert found.extrapolated == pytest.approx(3)


@pytest.mark.parametrize(
    ("small", "remainders", "text"),
    [
        ([0.5, 0.25], [1, 1], "pass 3 or more"),
        ([0.5, 0.25, 0.2], [3, 2, 1], "one constant factor"),
        ([0.25, 0.5, 1.0], [1, 2, 3], "one constant factor"),
        ([0.5, 0.25, 0.125], [1, 0, 1], "no order"),
    ],
)
def test_what_has_no_slope_is_refused(small, remainders, text):
    with pytest.raises(ValueError, match=text):
        slope(small, remainders)
