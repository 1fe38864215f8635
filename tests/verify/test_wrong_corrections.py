"""Every shipped wrong correction is rejected and every right one passes, at one false alarm each.

False alarm 1e-6 per check, seed 0, the number of samples fixed by the pilot: 37 checks of which a
right subject would fail in fewer than one run of a hundred thousand.
"""

import pytest

from deltabias.verify.bias import check_bias
from deltabias.verify.controls.corrections import RIGHT, WRONG

FALSE_ALARM, SEED = 1e-6, 0


def judged(subject):
    return check_bias(
        subject.update, subject.rule, law=subject.law, microbatches=subject.microbatches, claim=2,
        false_alarm=FALSE_ALARM, seed=SEED, hypers=subject.hypers,
    )  # fmt: skip


def test_there_are_at_least_twenty_of_them_and_no_two_alike():
    assert len({c.name for c in WRONG}) == len(WRONG) >= 20


@pytest.mark.parametrize("subject", RIGHT, ids=lambda c: c.name)
def test_a_right_correction_passes(subject):
    verdict = judged(subject)
    assert verdict.passed, str(verdict)
    assert abs(verdict.removed - 1) < 0.02 + 5 * verdict.removed_error


@pytest.mark.parametrize("subject", WRONG, ids=lambda c: c.name)
def test_a_wrong_correction_fails_and_says_how_much_it_removes(subject):
    verdict = judged(subject)
    assert verdict.verdict == "fail", str(verdict)
    if subject.removed is not None:
        room = 0.02 * max(1, abs(subject.removed)) + 5 * verdict.removed_error
        assert verdict.removed == pytest.approx(subject.removed, abs=room)
    assert verdict.check().diagnosis
