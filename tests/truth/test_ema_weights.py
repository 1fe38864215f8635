"""Weights of an EMA against its recursion, and the length of a steady history."""

from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.truth import ema_weights, relative_bias_adam, steps_to_steady_state
from deltabias.truth.exact import as_mpf

BETAS = ("0.9", "0.95")


def weights(steps):
    return [ema_weights(beta, steps) for beta in BETAS]


@pytest.mark.parametrize("debias", [True, False])
def test_ema_weights_are_what_the_recursion_gives(debias):
    beta, steps = Fraction(9, 10), 6
    for position in range(steps):
        state = Fraction(0)
        for k in range(steps):
            state = beta * state + (1 - beta) * (k == position)
        expected = state / (1 - beta**steps if debias else 1)
        found = ema_weights(beta, steps, debias=debias)[position]
        assert abs(found - as_mpf(expected)) < 1e-15


def test_debiased_weights_add_to_one_and_the_newest_is_last():
    with mpmath.workdps(40):
        found = ema_weights("0.95", 200)
        assert abs(mp.fsum(found) - 1) < mp.mpf(10) ** -38
        assert found[-1] == max(found)


def test_a_history_beyond_the_stated_truncation_changes_nothing():
    truncation = 1e-9
    steps = steps_to_steady_state(*BETAS, truncation=truncation)
    assert 0.95**steps <= truncation < 0.95 ** (steps - 1)
    short = relative_bias_adam("0.9", *weights(steps))
    assert abs(short - relative_bias_adam("0.9", *weights(2 * steps))) < truncation
    # A history of half that length is visibly not steady.
    assert abs(short - relative_bias_adam("0.9", *weights(steps // 2))) > truncation


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ema_weights(1, 3), "must lie in"),
        (lambda: ema_weights("0.9", 0), "at least 1"),
        (lambda: steps_to_steady_state(), "at least one beta"),
        (lambda: steps_to_steady_state("0.9", truncation=1), "between 0 and 1"),
    ],
)
def test_bad_ema_arguments_are_named(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_no_memory_is_steady_at_once():
    assert steps_to_steady_state(0) == 1
