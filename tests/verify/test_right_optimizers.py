"""No false alarm: torch's optimizers in every implementation, and our own uncorrected ones."""

from functools import partial

import pytest
import torch

from deltabias.optim import AdamW, RMSprop
from deltabias.verify.conformance import check_optimizer
from deltabias.verify.torch_rules import STEP_RULES

TORCH = {name.lower(): getattr(torch.optim, name) for name in dir(torch.optim)}
NAMES = [name for name in STEP_RULES if name in TORCH]


@pytest.mark.parametrize("seed", [10, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_foreach_follows_the_rule(name, seed):
    report = check_optimizer(
        partial(TORCH[name], foreach=True), name, histories=10, features=False, seed=seed
    )
    assert report.passed, str(report)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adagrad"])
def test_fused_follows_the_rule(name):
    report = check_optimizer(
        partial(TORCH[name], fused=True), name, histories=10, features=False, seed=12
    )
    assert report.passed, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_check_of_a_right_optimizer_passes(name):
    report = check_optimizer(TORCH[name], name, seed=13)
    assert report.passed, str(report)


@pytest.mark.parametrize(("make", "rule"), [(AdamW, "adamw"), (RMSprop, "rmsprop")])
def test_an_uncorrected_optimizer_of_ours_follows_the_rule(make, rule):
    report = check_optimizer(
        partial(make, correction="none"), rule, histories=10, features=False, seed=14
    )
    assert report.passed, str(report)
