"""Enumeration over multisets, against a readable twin that visits every sequence."""

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.truth import (
    Discrete,
    Empirical,
    Normal,
    TooManySamples,
    TwoPoint,
    enumerate_samples,
    expectation,
    expectation_over_groups,
    expectation_over_history,
    multiset_count,
    skewed_discrete,
)
from deltabias.truth.exact import as_mpf

TABLE = [
    TwoPoint(-1, 2, "0.3"),
    skewed_discrete("0.5", 1, 2),
    Discrete(["0.1", "0.7", 2, 3], ["0.1", "0.2", "0.3", "0.4"]),
    Empirical([0.25, 1, 1, 4]),
]


def brute_force(function, laws_and_sizes):
    """E f by visiting every sequence of draws: f receives one list of values per group."""
    draws = [law for law, size in laws_and_sizes for _ in range(size)]
    total = mp.mpf(0)
    for row in itertools.product(*(zip(law.points, law.weights, strict=True) for law in draws)):
        probability = math.prod((as_mpf(w) for _, w in row), start=mp.mpf(1))
        values, groups = iter(as_mpf(x) for x, _ in row), []
        for _, size in laws_and_sizes:
            groups.append([next(values) for _ in range(size)])
        total += probability * function(groups)
    return total


def close(found, expected, digits=48):
    return abs(found - expected) <= mp.mpf(10) ** -digits * max(1, abs(expected))


@pytest.mark.parametrize("law", TABLE)
@pytest.mark.parametrize("microbatches", [1, 2, 3, 4])
def test_multisets_give_what_all_sequences_give(law, microbatches):
    def smooth(values):
        square = sum(x * x for x in values) / len(values)
        return sum(values) / len(values) / mp.sqrt(square + 1)

    with mpmath.workdps(60):
        slow = brute_force(lambda groups: smooth(groups[0]), [(law, microbatches)])
    fast = expectation(lambda s: s.mean / mp.sqrt(s.power_mean(2) + 1), law, microbatches)
    with mpmath.workdps(60):
        assert close(fast, slow)


@pytest.mark.parametrize("law", TABLE)
def test_the_sample_variance_is_unbiased_exactly(law):
    m = 5
    unbiased, divided_by_m = expectation(
        lambda s: (s.central_sum(2) / (m - 1), s.central_sum(2) / m), law, m
    )
    with mpmath.workdps(50):
        assert close(unbiased, as_mpf(law.variance))
        # The usual mistake is off by a factor (m − 1)/m and the same check sees it.
        assert not close(divided_by_m, as_mpf(law.variance), digits=3)


def test_groups_are_independent_and_in_order():
    law, sizes = skewed_discrete(1, 1, 3), [1, 3]
    with mpmath.workdps(60):
        slow = brute_force(
            lambda groups: groups[0][0] / (2 + sum(x * x for x in groups[1])),
            [(law, 1), (law, 3)],
        )
    fast = expectation_over_groups(lambda g: g[0].mean / (2 + 3 * g[1].power_mean(2)), law, sizes)
    swapped = expectation_over_groups(
        lambda g: g[1].mean / (2 + 3 * g[0].power_mean(2)), law, sizes
    )
    with mpmath.workdps(60):
        assert close(fast, slow)
        assert not close(swapped, slow, digits=3)


def ema_update(steps, means, squares):
    """A two-state EMA with betas (1/2, 3/4), run from the oldest step to the newest."""
    first = second = mp.mpf(0)
    for step in steps:
        first = first / 2 + means(step) / 2
        second = second * mp.mpf(3) / 4 + squares(step) / 4
    return first / (mp.sqrt(second) + mp.mpf(1) / 10)


def test_history_runs_an_ema_in_order():
    law = TwoPoint(-1, 3, "1/4")
    with mpmath.workdps(60):
        slow = brute_force(
            lambda groups: ema_update(
                groups, lambda g: sum(g) / 2, lambda g: sum(x * x for x in g) / 2
            ),
            [(law, 2)] * 3,
        )
    fast = expectation_over_history(
        lambda h: ema_update(h, lambda s: s.mean, lambda s: s.power_mean(2)), law, 2, 3
    )
    with mpmath.workdps(60):
        assert close(fast, slow)


def test_a_law_per_step_lets_the_noise_jump():
    quiet, loud = TwoPoint(-1, 1), TwoPoint(-10, 10)
    newest = expectation_over_history(lambda h: h[-1].power_mean(2), [quiet, quiet, loud], 1, 3)
    oldest = expectation_over_history(lambda h: h[0].power_mean(2), [quiet, quiet, loud], 1, 3)
    assert (oldest, newest) == (1, 100)


def test_two_points_reach_4096_microbatches_at_fifty_digits():
    law, m = TwoPoint(0, 1, "0.3"), 4096
    # κ₃ of a mean is κ₃/m²: here a sum of 4097 terms that cancels to 1e−9.
    third = expectation(lambda s: (s.mean - mp.mpf(3) / 10) ** 3, law, m)
    with mpmath.workdps(50):
        assert close(third / as_mpf(law.cumulant(3) / m**2), mp.mpf(1), digits=40)


def test_digits_are_what_was_asked_for():
    found = expectation(lambda s: 1 / s.mean, TwoPoint(1, 2), 2, digits=80)
    with mpmath.workdps(90):
        expected = mp.mpf(1) / 4 + mp.mpf(1) / 3 + mp.mpf(1) / 8
        assert abs(found - expected) < mp.mpf(10) ** -79


def test_probabilities_are_rational_and_add_to_one():
    for law in TABLE:
        pairs = list(enumerate_samples(law, 6))
        assert len(pairs) == multiset_count(len(law.points), 6)
        assert sum(probability for _, probability in pairs) == Fraction(1)


def test_sample_statistics_agree_with_their_definitions():
    law = Discrete([1, 4], ["1/2", "1/2"])
    seen = []
    expectation(lambda s: seen.append(s) or mp.mpf(0), law, 3)
    sample = seen[1]
    assert (list(sample), sample.microbatches) == ([(1, 1), (4, 2)], 3)
    assert (sample.mean, sample.power_mean(2), sample.central_sum(2)) == (3, 11, 6)


def test_too_many_samples_are_refused_with_their_count():
    with pytest.raises(TooManySamples, match=r"79208745 samples.*limit is 300000"):
        expectation(lambda s: s.mean, Empirical(range(6)), 96)
    with pytest.raises(TooManySamples, match=r"17 × 17 × 17 × 17 × 17"):
        expectation_over_history(lambda h: h[0].mean, TwoPoint(0, 1), 16, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((lambda s: 0.5, TwoPoint(0, 1), 2), TypeError, "only 16 digits"),
        ((lambda s: s.mean, Normal(0, 1), 2), TypeError, "no finite support"),
        ((lambda s: s.mean, TwoPoint(0, 1), 0), ValueError, "ints of at least 1"),
        ((lambda s: s.mean, TwoPoint(0, 1), True), ValueError, "ints of at least 1"),
    ],
)
def test_bad_questions_are_named(arguments, error, text):
    with pytest.raises(error, match=text):
        expectation(*arguments)


def test_laws_and_groups_must_match():
    with pytest.raises(ValueError, match="2 laws for 3 groups"):
        expectation_over_groups(lambda g: g[0].mean, [TwoPoint(0, 1)] * 2, [1, 1, 1])
