import pytest

from deltabias.demo.exact_bias import ExactBias, exact_biases
from deltabias.errors import DeltabiasError
from deltabias.rule import UpdateRule
from deltabias.truth import Discrete, TwoPoint


def test_nothing_is_left_of_a_bias_that_is_not_there():
    assert ExactBias(4, plug_in=0.0, corrected=0.0).ratio is None
    assert ExactBias(4, plug_in=-0.2, corrected=0.1).ratio == 0.5


def test_a_statistic_without_spread_has_no_bias():
    # g = ±1: its square is always 1
    (row,) = exact_biases(UpdateRule.parse("1/(v+eps)"), TwoPoint(-1, 1, "3/4"), (2,))
    assert row.plug_in == 0
    assert row.corrected == 0


def test_the_plug_in_bias_agrees_with_a_sum_by_hand():
    # v = 1 or 4 with probability ½; mean of two: 1, 5/2, 4 with ¼, ½, ¼
    law = Discrete([1, 2], ["0.5", "0.5"])
    rule = UpdateRule.parse("1/(v+eps)", hypers={"eps": 0.0})
    (row,) = exact_biases(rule, law, (2,))
    expectation = 0.25 * 1 + 0.5 * 2 / 5 + 0.25 / 4
    assert row.plug_in == pytest.approx(expectation * 2.5 - 1, rel=1e-12)


def test_the_corrected_bias_falls_faster_than_the_plug_in_one():
    four, eight, sixteen = exact_biases(UpdateRule.parse("g/(v**(1/3)+eps)"))
    assert [row.microbatches for row in (four, eight, sixteen)] == [4, 8, 16]
    # 1/m halves, 1/m² quarters; between m = 8 and 16 the ratio must at least be close to halved
    assert sixteen.plug_in / eight.plug_in == pytest.approx(1 / 2, abs=0.05)
    assert sixteen.corrected / eight.corrected == pytest.approx(1 / 4, abs=0.08)
    assert sixteen.ratio < 0.1


def test_a_rule_that_vanishes_at_the_mean_is_refused():
    law = TwoPoint(-1, 1)
    with pytest.raises(DeltabiasError, match="no relative bias there"):
        list(exact_biases(UpdateRule.parse("g/(v+eps)"), law, (2,)))
