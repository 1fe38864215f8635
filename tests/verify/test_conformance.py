"""The check itself: what passes, what fails, and what a bad target gives."""

import json

import pytest
import torch
from torch.optim import Optimizer

from deltabias.errors import DeltabiasError, RuleError
from deltabias.verify.conformance import check_optimizer
from deltabias.verify.constructor import inspect_target
from deltabias.verify.torch_rules import STEP_RULES


class Descent(Optimizer):
    """Gradient descent whose step can be overridden."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self.move(param, param.grad, group["lr"])

    def move(self, param, grad, lr):
        param.sub_(lr * grad)


class Raises(Descent):
    def move(self, param, grad, lr):
        raise RuntimeError("boom")


class NotANumber(Descent):
    def move(self, param, grad, lr):
        param.mul_(float("nan"))


class WrongShape(Descent):
    def move(self, param, grad, lr):
        param.data = param.data.reshape(-1).repeat(2)


class Single(Descent):
    def move(self, param, grad, lr):
        param.copy_(param.float() - lr * grad.float())


class SingleScalars(Descent):
    def move(self, param, grad, lr):
        param.sub_(torch.tensor(lr, dtype=torch.float32) * grad)


class Noisy(Descent):
    def move(self, param, grad, lr):
        param.sub_(lr * grad * (1 + 1e-3 * torch.rand(())))


def check(make, rule="sgd", **options):
    return check_optimizer(make, rule, **{"histories": 12, "features": False, **options})


def test_a_right_optimizer_passes():
    assert check(Descent).passed


@pytest.mark.parametrize(
    ("make", "verdict", "text"),
    [
        (Raises, "error", "boom"),
        (WrongShape, "error", "shape"),
        (NotANumber, "fail", "not finite"),
        (Noisy, "fail", "no known mistake"),
        (3, "error", "no optimizer"),
        (lambda params: None, "error", "returned nothing"),
        (lambda params: list(params), "error", "no optimizer"),
        (lambda params, **more: 1 / 0, "error", "ZeroDivisionError"),
        (torch.nn.Linear, "error", "TypeError"),
    ],
)
def test_a_bad_target_is_never_a_pass(make, verdict, text):
    report = check(make)
    assert report.verdict == verdict
    assert text in report.checks[0].detail


def test_single_precision_is_named():
    assert check(Single).checks[0].diagnosis == "computed in single precision"


def test_scalars_in_single_precision_pass_with_a_word():
    report = check(SingleScalars)
    assert report.passed
    assert report.checks[0].diagnosis == "scalars in single precision"


def test_a_failure_comes_with_its_smallest_counterexample():
    report = check(torch.optim.Adam, "adamw")
    found = report.checks[0]
    assert found.diagnosis == "decay coupled"
    assert len(found.counterexample["grads"]) == 1
    assert len(found.counterexample["groups"]) == 1
    json.loads(report.to_json())


def test_the_same_seed_gives_the_same_report():
    one, two = (check(torch.optim.SGD, seed=4).checks for _ in range(2))
    assert one == two


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "float32"])
def test_low_precision_is_judged_by_its_own_rounding(dtype):
    assert check(torch.optim.AdamW, "adamw", dtype=dtype).passed


def test_an_unknown_dtype_is_refused():
    with pytest.raises(DeltabiasError, match="float16"):
        check(torch.optim.SGD, dtype=torch.float16)


def test_what_cannot_be_passed_is_read_from_the_groups():
    def fixed(params):
        return torch.optim.AdamW(params, lr=0.1, betas=(0.8, 0.95), eps=1e-3)

    assert check(fixed, "adamw").passed


def test_keywords_behind_a_factory_are_found():
    def factory(params, **more):
        return torch.optim.AdamW(params, foreach=True, **more)

    found = inspect_target(factory, STEP_RULES["adamw"])
    assert found.places["beta2"] == ("betas", 1)
    assert found.places["maximize"] == ("maximize", None)


def test_an_argument_that_is_refused_is_left_at_its_default():
    def no_amsgrad(params, lr=1e-3, amsgrad=False):
        if amsgrad:
            raise NotImplementedError("amsgrad")
        return torch.optim.Adam(params, lr=lr)

    assert inspect_target(no_amsgrad, STEP_RULES["adam"]).refused == ("amsgrad",)


def test_hypers_are_held_drawn_or_renamed():
    def renamed(params, step_size=0.1, mu=0.9):
        return torch.optim.SGD(params, lr=step_size, momentum=mu)

    rule = "buf = momentum*buf + grad; param = param - lr*buf"
    assert check(renamed, rule, hypers={"lr": "step_size", "momentum": "mu"}).passed
    assert check(torch.optim.SGD, rule, hypers={"momentum": (0.2, 0.3), "lr": 0.5}).passed


@pytest.mark.parametrize("hypers", [{"gamma": 1.0}, {"lr": "rate"}])
def test_a_hyperparameter_that_is_not_there_is_refused(hypers):
    with pytest.raises(RuleError, match=r"gamma|rate"):
        check(torch.optim.SGD, hypers=hypers)


def test_a_time_limit_is_inconclusive_not_a_pass():
    report = check(torch.optim.SGD, features=True, time_limit=0.0)
    assert report.verdict == "inconclusive"


@pytest.mark.parametrize("histories", [0, -1, True, 2.5])
def test_no_history_is_no_check(histories):
    with pytest.raises(RuleError, match="pass 1 or more"):
        check(torch.optim.SGD, histories=histories)


def test_a_single_history_is_enough_to_see_a_wrong_sign():
    class Uphill(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.neg_()
            return super().step(closure)

    report = check_optimizer(Uphill, "sgd", histories=1, features=False)
    assert report.verdict == "fail"


class Swallows(torch.optim.SGD):
    """Takes any keyword, and does nothing with those it does not know."""

    def __init__(self, params, lr=1e-3, momentum=0.0, **anything):
        super().__init__(params, lr=lr, momentum=momentum)


class RefusesInItsOwnWords(torch.optim.SGD):
    def __init__(self, params, lr=1e-3, momentum=0.0, **more):
        if more:
            raise TypeError(f"unknown keyword arguments: {sorted(more)}")
        super().__init__(params, lr=lr, momentum=momentum)


@pytest.mark.parametrize("make", [Swallows, RefusesInItsOwnWords])
def test_a_keyword_that_nobody_has_is_not_held_against_the_target(make):
    report = check_optimizer(make, "sgd", histories=10)
    assert report.verdict == "pass", str(report)
    assert report.named("foreach").verdict == "skipped"
