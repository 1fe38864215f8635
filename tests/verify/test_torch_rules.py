"""The rules of torch.optim, each against torch's own optimizer."""

import pytest
import torch

from deltabias.verify.conformance import check_optimizer
from deltabias.verify.torch_rules import STEP_RULES

TORCH = {name.lower(): getattr(torch.optim, name) for name in dir(torch.optim)}
WITH_A_RULE = [name for name in STEP_RULES if name in TORCH]


def test_every_rule_but_lion_is_one_of_torch():
    assert set(STEP_RULES) - set(WITH_A_RULE) == {"lion"}


@pytest.mark.parametrize("name", WITH_A_RULE)
def test_torch_follows_its_rule_to_a_few_ulps(name):
    report = check_optimizer(TORCH[name], name, histories=20, features=False, seed=5)
    check = report.named("conformance")
    assert check.verdict == "pass", str(report)
    # the bound allows hundreds; a rule that is written as torch computes it needs few
    assert check.measured <= 16


@pytest.mark.parametrize("name", WITH_A_RULE)
def test_the_defaults_of_the_rule_are_those_of_torch(name):
    group = TORCH[name]([torch.nn.Parameter(torch.ones(1))]).param_groups[0]
    rule = STEP_RULES[name]
    for argument in ("lr", "eps", "weight_decay", "alpha", "rho", "momentum", "lr_decay"):
        if argument in rule.hyper_names and argument in group:
            assert rule.defaults[argument] == group[argument], argument
