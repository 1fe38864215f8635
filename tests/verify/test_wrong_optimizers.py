"""Every wrong optimizer is rejected, and what is wrong is said."""

import pytest

from deltabias.verify.conformance import check_optimizer
from deltabias.verify.controls.optimizer_twins import TWINS
from deltabias.verify.controls.optimizers import WRONG_OPTIMIZERS

# the whole list takes minutes; one in nine is always run
SOME = [w if i % 9 == 2 else pytest.param(w, marks=pytest.mark.slow)
        for i, w in enumerate(WRONG_OPTIMIZERS)]  # fmt: skip


def test_there_are_at_least_thirty_and_none_twice():
    assert len({w.name for w in WRONG_OPTIMIZERS}) == len(WRONG_OPTIMIZERS) >= 30


@pytest.mark.parametrize("wrong", WRONG_OPTIMIZERS, ids=lambda w: w.name)
def test_each_differs_from_its_twin_in_the_line_that_it_names(wrong):
    assert wrong.line != wrong.wrong
    assert wrong.build().__name__ == wrong.twin.__name__


@pytest.mark.parametrize("wrong", SOME, ids=lambda w: w.name)
def test_a_wrong_optimizer_is_rejected_with_its_diagnosis(wrong):
    report = check_optimizer(wrong.build(), wrong.rule, histories=25, features=False, seed=1)
    found = report.named(wrong.check)
    assert found.verdict == "fail"
    assert found.counterexample is not None
    assert found.diagnosis == wrong.diagnosis


@pytest.mark.parametrize("twin", TWINS, ids=lambda t: t.__name__)
def test_a_right_twin_passes(twin):
    report = check_optimizer(twin, TWINS[twin], histories=12, features=False, seed=2)
    assert report.passed, str(report)
