"""What an optimizer must do besides its arithmetic, each with one that does not."""

import pytest
import torch

from deltabias.verify.conformance import check_optimizer
from deltabias.verify.controls.optimizer_twins import ReadableAdam, ReadableAdamW


def checks(make, rule="adam"):
    return {c.name: c for c in check_optimizer(make, rule, histories=6).checks}


class ForgetsTheCount(ReadableAdam):
    """Its count is not in the state."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure)

    def update(self, param, grad, state, group):
        state["step"] = self.count
        super().update(param, grad, state, group)


class ChangesTheGradient(ReadableAdam):
    def update(self, param, grad, state, group):
        super().update(param, grad, state, group)
        grad.zero_()


class IgnoresTheClosure(ReadableAdam):
    def step(self, closure=None):
        return super().step()


class DecaysWithoutGradient(ReadableAdamW):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    param.mul_(1 - group["lr"] * group["weight_decay"])
        return super().step(closure)


class HooksTheGradient(ReadableAdam):
    """Takes its second moment from the gradient as backward leaves it, before clipping."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        self.seen = {}
        for group in self.param_groups:
            for param in group["params"]:
                param.register_post_accumulate_grad_hook(self.keep)

    def keep(self, param):
        self.seen[param] = param.grad.clone()

    def update(self, param, grad, state, group):
        seen = self.seen.get(param, grad)
        super().update(param, 0.5 * (grad + seen), state, group)


def test_a_right_optimizer_has_every_feature_or_does_not_offer_it():
    found = checks(torch.optim.AdamW, "adamw")
    assert {c.verdict for c in found.values()} == {"pass", "skipped"}
    assert found["fused"].verdict == found["foreach"].verdict == "pass"
    assert all(c.detail for c in found.values() if c.verdict == "skipped")


@pytest.mark.parametrize(
    ("make", "rule", "name"),
    [
        (ForgetsTheCount, "adam", "resume"),
        (ForgetsTheCount, "adam", "late first gradient"),
        (ChangesTheGradient, "adam", "gradient unchanged"),
        (IgnoresTheClosure, "adam", "closure"),
        (DecaysWithoutGradient, "adamw", "frozen parameter"),
        (DecaysWithoutGradient, "adamw", "missing gradients"),
        (HooksTheGradient, "adam", "clipping"),
    ],
)
def test_a_missing_feature_is_found_by_name(make, rule, name):
    report = CACHE.get(make) or CACHE.setdefault(make, checks(make, rule))
    assert report["conformance"].verdict == "pass"
    assert report[name].verdict == "fail", report[name]


def test_what_decays_without_a_gradient_is_named():
    report = CACHE.get(DecaysWithoutGradient) or checks(DecaysWithoutGradient, "adamw")
    said = report["missing gradients"].diagnosis
    assert said == "a parameter without a gradient decays"


CACHE: dict = {}
