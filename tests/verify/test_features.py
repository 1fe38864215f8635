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


class SingleInside(ReadableAdamW):
    """Its states and its arithmetic are float32, whatever the parameters are."""

    def buffer(self, state, name, param, value=0.0):
        if name not in state:
            state[name] = torch.full_like(param, value, dtype=torch.float32)
        return state[name]

    def update(self, param, grad, state, group):
        inside = param.detach().float()
        super().update(inside, grad.float(), state, group)
        param.copy_(inside)


class SingleStepSize(ReadableAdam):
    """Its debias is a float32 tensor; everything else is in the parameter's dtype."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr=lr, betas=betas, eps=eps)

    def update(self, param, grad, state, group):
        beta1, beta2 = group["betas"]
        t = torch.tensor(float(state["step"]), dtype=torch.float32)
        m, v = self.buffer(state, "exp_avg", param), self.buffer(state, "exp_avg_sq", param)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (v / (1 - beta2**t).double()).sqrt() + group["eps"]
        param.sub_(group["lr"] / (1 - beta1**t).double() * m / denominator)


def test_what_computes_in_float32_passes_every_check_that_is_asked_for_in_float32():
    report = check_optimizer(SingleInside, "adamw", histories=6, dtype="float32")
    assert report.passed, str(report)
    assert {c.verdict for c in report.checks} == {"pass", "skipped"}
    in_double = check_optimizer(SingleInside, "adamw", histories=6, features=False)
    assert in_double.checks[0].diagnosis == "scalars in single precision"  # seen, and said


def test_scalars_in_single_precision_are_allowed_in_every_check_or_in_none():
    report = check_optimizer(SingleStepSize, "adam", histories=6)
    assert report.passed, str(report)
    assert report.checks[0].diagnosis == "scalars in single precision"


def test_a_missing_feature_is_found_in_float32_too():
    found = check_optimizer(ForgetsTheCount, "adam", histories=6, dtype="float32").checks
    assert next(c for c in found if c.name == "resume").verdict == "fail"
