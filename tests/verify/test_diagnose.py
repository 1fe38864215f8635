"""Mutations of rules, and that only the one that fits is named."""

import pytest

from deltabias.verify.conformance import check_optimizer
from deltabias.verify.controls.optimizer_twins import ReadableAdamW, ReadableRMSprop
from deltabias.verify.controls.optimizers import WrongOptimizer
from deltabias.verify.mutations import mutations
from deltabias.verify.torch_rules import STEP_RULES


@pytest.mark.parametrize("name", sorted(STEP_RULES))
def test_every_rule_has_many_mutations_and_none_twice(name):
    rule = STEP_RULES[name]
    made = mutations(rule)
    assert len({m.name for m in made}) >= 15
    assert len({m.rule.steps for m in made}) == len(made)
    assert rule.steps not in {m.rule.steps for m in made}


@pytest.mark.parametrize(
    "words",
    [
        "eps inside the root", "decay coupled", "step off by one", "maximize after decay",
        "no debias of the second moment", "wrong root", "gradient squared after averaging",
        "betas swapped", "debias swapped", "lr squared", "sign of the update", "eps missing",
        "decay missing", "decay after the step", "decay not scaled by lr", "maximize ignored",
        "no debias of the first moment", "gradient not squared",
        "second moment updated after it is used", "amsgrad maximum after the debias",
    ],
)  # fmt: skip
def test_the_known_mistakes_are_among_those_of_adamw(words):
    assert words in {m.name for m in mutations(STEP_RULES["adamw"])}


def test_two_mistakes_at_once_are_both_named():
    wrong = WrongOptimizer(
        ReadableAdamW,
        "debias1, debias2 = 1 - beta1**t, 1 - beta2**t",
        "debias1, debias2 = 1 - beta1**t, 1 - beta2**t; lr = -lr; debias1 = 1.0",
    )
    report = check_optimizer(wrong.build(), "adamw", histories=8, features=False)
    assert set(report.checks[0].diagnosis.split(" and ")) == {
        "no debias of the first moment",
        "sign of the update",
    }


def test_nothing_is_named_where_nothing_fits():
    wrong = WrongOptimizer(ReadableRMSprop, "param.sub_(lr * direction)",
                           "param.sub_(lr * direction * direction.cos())")  # fmt: skip
    report = check_optimizer(
        wrong.build(), "rmsprop", histories=10, features=False,
        hypers={"momentum": 0.0, "centered": 0, "maximize": 0, "weight_decay": 0.0},
    )  # fmt: skip
    assert report.verdict == "fail"
    assert report.checks[0].diagnosis == ""
