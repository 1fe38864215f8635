"""What cannot be judged is an error with its reason, or a ValueError; never a pass."""

import itertools

import numpy as np
import pytest
import torch

from deltabias.truth import Discrete, Normal, StudentT, law
from deltabias.verify.bias import check_bias

GAMMA = law("gamma", mean=1, sd="1/2")


def plug_in(x):
    return 1 / x.mean(1)


def _mutating(x):
    x.mul_(2)
    return 2 / x.mean(1)


def _random(x):
    return plug_in(x) + 1e-3 * torch.randn(len(x), dtype=torch.float64)


def _raising(x):
    raise KeyError("exp_avg")


def _only_sixteen(x):
    return x.view(-1, 16).mean(1).view(len(x), -1)[:, 0] if x.shape[1] == 16 else _raising(x)


def _over_replicates(x):
    return 1 / x.mean(1) - x.mean(1).var() / x.mean(1) ** 3


class _Stateful:
    def __init__(self):
        self.count = itertools.count(1)

    def __call__(self, x):
        return plug_in(x) * (1 + 0.5 ** next(self.count))


@pytest.mark.parametrize(
    ("update", "says"),
    [
        (_raising, "raised KeyError"),
        (_only_sixteen, "raised"),
        (lambda x: plug_in(x) * float("nan"), "infinite or NaN"),
        (lambda x: torch.where(x.mean(1) > 1.3, torch.inf, plug_in(x)), "infinite or NaN"),
        (lambda x: plug_in(x)[:, None], "returned shape"),
        (lambda x: plug_in(x).mean(), "returned shape"),
        (lambda x: 1 / x, "returned shape"),
        (lambda x: plug_in(x)[:-1], "returned shape"),
        (lambda x: "1/x", "no array of numbers"),
        (lambda x: None, "returned"),
        (_mutating, "changes the gradients"),
        (_random, "two answers for one batch"),
        (_Stateful(), "two answers for one batch"),
        (_over_replicates, "depending on the others"),
    ],
)
def test_an_update_that_cannot_be_judged_is_an_error(update, says):
    verdict = check_bias(update, 1.0, law=GAMMA, microbatches=16, claim=1)
    assert verdict.verdict == "error"
    assert not verdict.passed
    assert says in verdict.reason
    assert says in str(verdict)
    assert verdict.check().verdict == "error"


@pytest.mark.parametrize(
    ("bad_law", "says"),
    [
        (StudentT(2), "no variance"),
        (lambda rng, shape: rng.standard_cauchy(shape), "no variance"),
        (Normal(1, 0), "constant"),
        (Discrete([1], [1]), "constant"),
        (lambda rng, shape: np.ones(shape), "constant"),
        (lambda rng, shape: np.full(shape, np.nan), "infinite or NaN"),
        (lambda rng, shape: np.random.default_rng().normal(size=shape), "own randomness"),
        (lambda rng, shape: rng.normal(size=shape[::-1]), "asked for shape"),
        (lambda: 1.0, "neither with a numpy nor with a torch generator"),
    ],
)
def test_a_law_that_cannot_be_asked_is_an_error(bad_law, says):
    verdict = check_bias(plug_in, 1.0, law=bad_law, microbatches=16, claim=1)
    assert verdict.verdict == "error"
    assert says in verdict.reason


def test_moments_that_the_draws_contradict_are_an_error():
    class Lying:
        moments = (2.0, 5.0)

        def sample(self, rng, shape):
            return rng.normal(1.0, 1.0, shape)

    verdict = check_bias(plug_in, 1.0, law=Lying(), microbatches=16)
    assert verdict.verdict == "error"
    assert "standard errors away" in verdict.reason


@pytest.mark.parametrize("target", [float("nan"), torch.tensor([1.0, float("inf")])])
def test_a_target_that_is_not_finite_is_an_error(target):
    verdict = check_bias(plug_in, target, law=GAMMA, microbatches=16)
    assert verdict.verdict == "error"
    assert "finite" in verdict.reason


def test_a_target_of_another_shape_is_an_error():
    verdict = check_bias(plug_in, torch.ones(3), law=GAMMA, microbatches=16)
    assert verdict.verdict == "error"
    assert "returned shape" in verdict.reason


def test_a_rule_whose_moments_are_unknown_is_an_error():
    verdict = check_bias(
        plug_in, "1/x", law=lambda rng, s: rng.gamma(4.0, 0.25, s), microbatches=16
    )
    assert verdict.verdict == "error"
    assert "moments" in verdict.reason


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"microbatches": 1}, ValueError, "microbatches"),
        ({"microbatches": 16.0}, ValueError, "microbatches"),
        ({"claim": 0}, ValueError, "makes no sense"),
        ({"claim": 4}, ValueError, "makes no sense"),
        ({"claim": True}, ValueError, "makes no sense"),
        ({"claim": "second"}, ValueError, "makes no sense"),
        ({"false_alarm": 0.0}, ValueError, "probability"),
        ({"false_alarm": 1.0}, ValueError, "probability"),
        ({"false_alarm": float("nan")}, ValueError, "probability"),
        ({"seed": -1}, ValueError, "seed"),
        ({"samples": 0}, ValueError, "samples"),
        ({"steps": 0}, ValueError, "steps"),
        ({"law": "cauchy"}, ValueError, "unknown"),
        ({"law": 3}, TypeError, "does not sample"),
        ({"target": "1/"}, ValueError, "1/"),
        ({"target": None}, TypeError, "no population update"),
        ({"target": "1/x", "hypers": {"eps": 1.0}}, ValueError, "eps"),
        ({"target": "a/(b*c)"}, ValueError, "made of"),
        ({"update": 3.0}, TypeError, "not callable"),
    ],
)
def test_arguments_that_make_no_sense_raise(change, error, says):
    given = {"update": plug_in, "target": 1.0, "law": GAMMA, "microbatches": 16, **change}
    update, target = given.pop("update"), given.pop("target")
    with pytest.raises(error, match=says):
        check_bias(update, target, **given)
