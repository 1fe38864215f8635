import pytest

from deltabias.demo.comparison import Comparison, mean_and_spread, step_times


def test_a_difference_below_two_standard_errors_is_within_noise():
    comparison = Comparison((2.0, 2.1, 2.2), (2.01, 2.08, 2.2))
    assert abs(comparison.mean_difference) < 2 * comparison.standard_error
    assert comparison.within_noise
    assert "within noise (less than two standard errors over 3 seeds)" in comparison.verdict


def test_two_seeds_cannot_tell_however_large_the_difference():
    comparison = Comparison((2.0, 2.0), (1.0, 1.0))
    assert comparison.within_noise
    assert "within noise (2 seeds cannot tell)" in comparison.verdict


def test_one_seed_has_no_standard_error():
    comparison = Comparison((2.0,), (1.0,))
    assert comparison.standard_error is None
    assert "within noise (1 seed cannot tell)" in comparison.verdict


@pytest.mark.parametrize(("shift", "word"), [(-0.1, "lower"), (0.1, "higher")])
def test_a_clear_difference_is_said_in_its_direction(shift, word):
    first = (2.0, 2.1, 2.2)
    second = tuple(x + shift + noise for x, noise in zip(first, (0, 0.001, -0.001), strict=True))
    comparison = Comparison(first, second)
    assert not comparison.within_noise
    assert "within noise" not in comparison.verdict
    assert word in comparison.verdict


def test_the_standard_error_is_that_of_the_paired_differences():
    # differences 1, 2, 3: standard deviation 1, over √3
    comparison = Comparison((0.0, 10.0, 20.0), (1.0, 12.0, 23.0))
    assert comparison.mean_difference == pytest.approx(2)
    assert comparison.standard_error == pytest.approx(3**-0.5)


def test_three_seeds_raise_a_false_alarm_every_fifth_time():
    # Student's t with two degrees of freedom: P(|t| > 2) = 1 - 2/√6
    false_alarm = Comparison((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)).false_alarm
    assert false_alarm == pytest.approx(1 - 2 / 6**0.5)


def test_runs_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="2 and 1 losses cannot be paired"):
        Comparison((1.0, 2.0), (1.0,))


def test_the_spread_is_the_sample_standard_deviation():
    assert mean_and_spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_spread([1.0]) == (1.0, None)


def test_slow_moments_and_the_first_steps_do_not_count():
    first = [9.0, 9.0, 9.0, 1.0, 1.0, 50.0]
    second = [1.0, 1.0, 1.0, 2.0, 2.0, 100.0]
    assert step_times(first, second) == (1.0, 2.0, 2.0)
