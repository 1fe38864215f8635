"""Symmetries are found from the rule and tested on the optimizer."""

from fractions import Fraction

import pytest
import torch

from deltabias.verify.conformance import make_subject
from deltabias.verify.controls.optimizer_twins import ReadableAdam
from deltabias.verify.properties import (
    degrees,
    is_odd,
    is_translation_invariant,
    property_checks,
)
from deltabias.verify.step_rule import StepRule
from deltabias.verify.torch_rules import STEP_RULES


def test_eps_has_the_unit_of_what_it_is_added_to():
    assert degrees(STEP_RULES["adam"], 1, 0)["eps"] == Fraction(1)
    assert degrees(STEP_RULES["adadelta"], 1, 0)["eps"] == Fraction(2)
    assert degrees(STEP_RULES["sgd"], 1, 0)["lr"] == Fraction(-1)


def test_a_rule_of_mixed_units_has_no_scale():
    rule = StepRule("r", ["param = param - lr*(grad + 1)"])
    assert degrees(rule, 1, 0) is None


def test_parity_is_found_from_the_operations():
    assert is_odd(STEP_RULES["rmsprop"])
    assert not is_odd(StepRule("r", ["param = param - lr*grad**2"]))
    assert not is_odd(StepRule("r", ["param = param - lr*exp(grad)"]))


def test_translation_is_found_with_the_decay_switched_off():
    assert is_translation_invariant(STEP_RULES["adamw"])
    assert not is_translation_invariant(StepRule("r", ["param = param - lr*grad*abs(param)"]))


def verdicts(make, rule):
    subject = make_subject(make, STEP_RULES[rule], None, 0)
    return {c.name: c.verdict for c in (check() for check in property_checks(subject))}


def test_torch_has_the_symmetries_of_its_rule():
    assert set(verdicts(torch.optim.AdamW, "adamw").values()) == {"pass"}


class SharedSecondMoment(ReadableAdam):
    """One second moment for the whole tensor."""

    def update(self, param, grad, state, group):
        if grad.numel():
            weight = torch.linspace(1.0, 2.0, grad.numel(), dtype=grad.dtype).reshape(grad.shape)
            grad = grad * (weight * grad.abs()).mean()
        super().update(param, grad, state, group)


@pytest.mark.parametrize("name", ["permutation", "splitting", "scale of the gradient"])
def test_an_optimizer_without_a_symmetry_is_found(name):
    found = CACHE.setdefault("shared", {}) or CACHE["shared"]
    found.update(found or verdicts(SharedSecondMoment, "adam"))
    assert found[name] == "fail"


CACHE: dict = {}
