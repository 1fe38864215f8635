"""Each U-statistic has exactly the expectation it claims, by enumeration in rational numbers.

A law with finite support and a few microbatches is a finite sum: the truths Var, κ₃ and Cov below
are computed from their definitions over the same enumeration, with no formula of the estimators.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from math import prod

import pytest
import torch
from tests.reference import microbatch_statistics as twin

from deltabias.microbatch import MicrobatchStats

Law = tuple[tuple[Fraction, Fraction], ...]  # (value, probability)

SKEWED: Law = ((Fraction(3), Fraction(1, 5)), (Fraction(-1, 2), Fraction(4, 5)))
THREE_POINTS: Law = (
    (Fraction(2), Fraction(1, 2)),
    (Fraction(-1), Fraction(1, 3)),
    (Fraction(5), Fraction(1, 6)),
)
# Laws with the mean 1/5 of SKEWED but other variances and skewnesses.
SYMMETRIC: Law = ((Fraction(6, 5), Fraction(1, 2)), (Fraction(-4, 5), Fraction(1, 2)))
WIDE: Law = ((Fraction(11, 5), Fraction(2, 3)), (Fraction(-19, 5), Fraction(1, 3)))


def independent(laws: list[Law]) -> Iterator[tuple[Fraction, list[Fraction]]]:
    """(probability, values): every outcome of independent draws."""
    for outcome in product(*laws):
        yield prod(p for _, p in outcome), [x for x, _ in outcome]


def token_means(law: Law, weights: list[int]) -> Iterator[tuple[Fraction, list[Fraction]]]:
    """(probability, microbatch gradients): microbatch r is the mean of w_r independent tokens."""
    for p, tokens in independent([law] * sum(weights)):
        source = iter(tokens)
        yield p, [sum(next(source) for _ in range(w)) / Fraction(w) for w in weights]


def expectation(outcomes: list, f: Callable) -> Fraction:
    return sum(p * f(g) for p, g in outcomes)


def truth(name: str, outcomes: list, weights: list[int]) -> Fraction:
    """The cumulant that the estimator claims, by definition."""
    total = sum(weights)

    def average(values):
        return sum(w * v for w, v in zip(weights, values, strict=True)) / Fraction(total)

    mean = expectation(outcomes, average)
    mean_of_squares = expectation(outcomes, lambda g: average([x * x for x in g]))

    def dg(g):
        return average(g) - mean

    def dq(g):
        return average([x * x for x in g]) - mean_of_squares

    definitions = {
        "var_of_mean": lambda g: dg(g) ** 2,
        "third_cumulant_of_mean": lambda g: dg(g) ** 3,
        "cov_of_mean_and_mean_of_squares": lambda g: dg(g) * dq(g),
        "var_of_mean_of_squares": lambda g: dq(g) ** 2,
    }
    return expectation(outcomes, definitions[name])


def assert_unbiased(name: str, outcomes: Iterator, weights: list[int], estimator=None) -> None:
    outcomes = list(outcomes)
    estimator = estimator or getattr(twin, name)
    fractions = [Fraction(w) for w in weights]
    expected = expectation(outcomes, lambda g: estimator(g, fractions))
    assert expected == truth(name, outcomes, weights)


ALL = [
    "var_of_mean",
    "third_cumulant_of_mean",
    "cov_of_mean_and_mean_of_squares",
    "var_of_mean_of_squares",
]


# Two microbatches say nothing on skewness: answered by zero, see below.
CLAIMS = [(name, m) for name in ALL for m in (2, 3, 4) if (name, m) != (ALL[1], 2)]
WEIGHTS = [[1, 2], [3, 1], [1, 1, 2], [1, 2, 3], [1, 2, 1, 2]]
WEIGHTED_CLAIMS = [(name, w) for name in ALL[:3] for w in WEIGHTS if (name, len(w)) != (ALL[1], 2)]


@pytest.mark.parametrize("law", [SKEWED, THREE_POINTS], ids=["skewed", "three_points"])
@pytest.mark.parametrize(("name", "m"), CLAIMS)
def test_every_statistic_is_unbiased_for_identical_microbatches(name, m, law):
    assert_unbiased(name, independent([law] * m), [1] * m)


@pytest.mark.parametrize(("name", "weights"), WEIGHTED_CLAIMS, ids=str)
def test_token_weights_keep_the_statistics_of_the_mean_unbiased(name, weights):
    assert_unbiased(name, token_means(SKEWED, weights), weights)


@pytest.mark.parametrize("name", ALL[:3])
def test_equal_weights_need_a_common_mean_only(name):
    assert_unbiased(name, independent([SKEWED, SYMMETRIC, WIDE]), [1, 1, 1])


def test_the_laws_of_unequal_variance_do_share_their_mean():
    means = [sum(x * p for x, p in law) for law in (SKEWED, SYMMETRIC, WIDE)]
    assert means == [Fraction(1, 5)] * 3


@pytest.mark.parametrize(
    ("outcomes", "weights"),
    [
        (independent([SKEWED, SYMMETRIC, WIDE]), [1, 1, 1]),
        (token_means(SKEWED, [1, 2, 1]), [1, 2, 1]),
    ],
    ids=["unequal_laws", "token_weights"],
)
def test_variance_of_the_mean_of_squares_errs_by_the_spread_of_the_expected_squares(
    outcomes, weights
):
    outcomes, w = list(outcomes), [Fraction(x) for x in weights]
    expected = expectation(outcomes, lambda g: twin.var_of_mean_of_squares(g, w))
    squares = [expectation(outcomes, lambda g, r=r: g[r] ** 2) for r in range(3)]
    spread = sum(w) * twin.central(squares, w, 2) / (2 * sum(w))
    excess = expected - truth("var_of_mean_of_squares", outcomes, weights)
    if len(set(weights)) == 1:
        assert excess == spread > 0
    else:  # with weights the law of squares is not that of tokens; still cautious here
        assert excess > 0


@pytest.mark.parametrize("m", [3, 4])
def test_third_cumulant_is_the_k_statistic_over_m_squared_for_equal_weights(m):
    for _, g in independent([THREE_POINTS] * m):
        triples = twin.third_cumulant_of_mean_by_triples(g)
        assert twin.third_cumulant_of_mean(g, [Fraction(7)] * m) == triples


def test_cubed_deviations_of_two_equal_weights_cancel_whatever_the_law():
    for _, g in independent([THREE_POINTS] * 2):
        assert twin.central(g, [Fraction(1)] * 2, 3) == 0


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_check_rejects_the_divisor_m(m):
    def with_divisor_m(g, w):
        return twin.var_of_mean(g, w) * Fraction(m - 1, m)

    with pytest.raises(AssertionError):
        assert_unbiased("var_of_mean", independent([SKEWED] * m), [1] * m, with_divisor_m)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        # the variance of one microbatch instead of that of the mean
        ("var_of_mean", lambda g, w: len(g) * twin.var_of_mean(g, w)),
        # the third central moment of the sample, without the k-statistic's factor
        ("third_cumulant_of_mean", lambda g, w: twin.central(g, w, 3) / len(g) ** 2),
        # skewness forgotten: 2 ḡ Var ḡ
        ("cov_of_mean_and_mean_of_squares",
         lambda g, w: 2 * twin.mean(g, w) * twin.var_of_mean(g, w)),
        # the variance of ḡ² (delta method) in place of that of the mean of squares
        ("var_of_mean_of_squares",
         lambda g, w: 4 * twin.mean(g, w) ** 2 * twin.var_of_mean(g, w)),
    ],
    ids=["sample_variance", "no_k_statistic", "no_skewness", "square_of_mean"],
)  # fmt: skip
def test_the_check_rejects_the_wrong_statistic(name, estimator):
    with pytest.raises(AssertionError):
        assert_unbiased(name, independent([SKEWED] * 3), [1] * 3, estimator)


def test_the_check_rejects_the_unweighted_form_under_token_weights():
    def pair_sum(g, w):  # (c₃ + 2ḡc₂)/(m−1) as it stands
        return twin.cov_of_means(g, [x * x for x in g], w)

    with pytest.raises(AssertionError):
        assert_unbiased(
            "cov_of_mean_and_mean_of_squares", token_means(SKEWED, [1, 1, 2]), [1, 1, 2], pair_sum
        )


@pytest.mark.parametrize("weights", [[1, 1], [1, 2, 3], [1, 2, 1, 2]], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_the_tensors_agree_with_the_rational_numbers_on_every_outcome(name, weights):
    """All outcomes at once: element i of the parameter is outcome i of the enumeration."""
    outcomes = [g for _, g in independent([THREE_POINTS] * len(weights))]
    param = torch.zeros(len(outcomes), dtype=torch.float64)
    stats = MicrobatchStats([param])
    for r, weight in enumerate(weights):
        stats.add([torch.tensor([float(g[r]) for g in outcomes], dtype=torch.float64)], weight)
    got = getattr(stats.result()[param], name)()
    want = [getattr(twin, name)(g, [Fraction(w) for w in weights]) for g in outcomes]
    # values up to 5 have fourth powers up to 625: 1e-12 is a few of their units in the last place
    torch.testing.assert_close(
        got, torch.tensor([float(x) for x in want], dtype=torch.float64), rtol=0, atol=1e-12
    )
