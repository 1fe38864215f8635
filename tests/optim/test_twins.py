"""With the correction on: the optimizers against float64 twins that sum over the whole history."""

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    DEFAULTS,
    Case,
    draw,
    feed,
    generator,
    microbatches,
    names,
    parameter,
    quietly,
)
from tests.reference.sophia_twin import SophiaGTwin

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, SophiaG

STEPS = 50
# decays that forget within the test, an eps that matters, a decay that shows
OPTIONS = {"lr": 0.03, "weight_decay": 0.1, "eps": 1e-3}
OWN = {AdamW: {"betas": (0.9, 0.95)}}
TOKENS = [3.0, 1.0, 2.0, 5.0, 4.0]


def options_of(case: Case, **more) -> dict:
    return {**OPTIONS, **OWN.get(case.kind, {"alpha": 0.9}), **more}


def run_against_twin(case: Case, counts, *, dtype=torch.float64, weights=None, factor=1.0, **more):
    """Largest distance of the parameter from its twin, relative to the distance walked."""
    param = parameter(7, dtype=dtype)
    start = param.detach().double().clone()
    optimizer, stats = case.attached([param], **options_of(case, **more))
    twin = case.twin(param, **options_of(case, **more))
    gen, distance = generator(), 0.0
    for m in counts:
        grads = microbatches([param], m, gen, noise=1.5)
        tokens = [1.0] * m if weights is None else weights[:m]
        feed([param], stats, grads, tokens, factor=factor)
        with quietly():
            optimizer.step()
        twin.step([factor * g for (g,) in grads], tokens)
        distance = max(distance, (param.detach().double() - twin.param).abs().max().item())
    return distance / (twin.param - start).abs().max().item()


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_fifty_steps_are_those_of_the_twin(case):
    # foreach takes the same steps bit for bit: test_foreach
    assert run_against_twin(case, [5] * STEPS) < 1e-11


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_in_single_precision_the_twin_is_met_within_rounding(case):
    # a thousandfold less than a correction of 1 %; a fold divides by the other fold's root, which
    # in the first steps can be ten times smaller than the gradient and its rounding
    limit = 1e-4 if case.groups == 2 else 1e-5
    assert run_against_twin(case, [5] * 15, dtype=torch.float32) < limit


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_maximizing_follows_the_negative_gradient_of_the_twin(case):
    assert run_against_twin(case, [4] * 8, maximize=True) < 1e-11


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_numbers_of_microbatches_may_change_and_may_be_one(case):
    # a single microbatch in the midst: the history stays, the step is taken uncorrected
    assert run_against_twin(case, [4, 2, 8, 3, 1, 5, 2, 1, 4, 6, 1, 1, 3]) < 1e-11


LINEAR = [c for c in CORRECTED if c.options.get("second_moment") is None]


@pytest.mark.parametrize("case", LINEAR, ids=names(LINEAR))
def test_token_weights_reach_every_statistic(case):
    assert run_against_twin(case, [5] * 12, weights=TOKENS) < 1e-11
    assert run_against_twin(case, [3] * 12, weights=TOKENS) < 1e-11


@pytest.mark.parametrize("case", LINEAR, ids=names(LINEAR))
def test_two_microbatches_of_unequal_weight_say_nothing_about_skewness(case):
    # as Moments.third_cumulant_of_mean, which answers 0
    assert run_against_twin(case, [2] * 12, weights=TOKENS) < 1e-11


def test_token_weights_reach_the_mean_of_squares_and_its_covariance():
    case = Case(AdamW, {"second_moment": "mean_of_squares"})
    param = parameter(7, dtype=torch.float64)
    twin = case.twin(param, **options_of(case))
    optimizer, stats = case.attached([param], **options_of(case))
    gen = generator()
    for _ in range(10):
        grads = microbatches([param], 5, gen)
        feed([param], stats, grads, TOKENS)
        optimizer.step()
        twin.step([g for (g,) in grads], TOKENS)
    state, beta1, beta2 = optimizer.state[param], 0.9, 0.95
    squares, covariance = torch.zeros(7).double(), torch.zeros(7).double()
    for seen in twin.history:
        squares = beta2 * squares + (1 - beta2) * seen.square
        covariance = beta1 * beta2 * covariance + (1 - beta1) * (1 - beta2) * seen.covariance
    torch.testing.assert_close(state["exp_avg_sq"], squares, rtol=1e-12, atol=0)
    torch.testing.assert_close(state["covariance"], covariance / squares, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
def test_the_twin_is_not_met_by_the_wrong_correction(case):
    # the negative control of this file: the tolerance tells all strategies apart
    for other in ("none", "inversion", "closed_form"):
        param = parameter(7, dtype=torch.float64)
        twin = Case(case.kind, {"correction": other}).twin(param, **options_of(case))
        optimizer, stats = case.attached([param], **options_of(case))
        gen = generator()
        for _ in range(20):
            grads = microbatches([param], 5, gen, noise=1.5)
            feed([param], stats, grads)
            optimizer.step()
            twin.step([g for (g,) in grads], [1.0] * 5)
        assert (param - twin.param).abs().max() > 1e-5


SOPHIA = {"lr": 0.03, "betas": (0.9, 0.8), "rho": 0.5, "batch_size": 3, "weight_decay": 0.1}


def run_sophia(correction, dtype=torch.float64, *, steps=40, every=4, **more):
    param = parameter(9, dtype=dtype)
    start = param.detach().double().clone()
    options = {**SOPHIA, "correction": correction, **more}
    optimizer, stats = SophiaG([param], **options), MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    options.pop("foreach", None)
    twin = SophiaGTwin(param, **options)
    gen, distance = generator(), 0.0
    for step in range(steps):
        param.grad = (0.3 + draw((9,), gen)).to(dtype)
        optimizer.step()
        twin.step(param.grad)
        optimizer.zero_grad()
        if step % every == 0:
            grads = microbatches([param], 4, gen, noise=1.0)
            feed([param], stats, grads)
            optimizer.update_hessian()
            twin.update_hessian([g for (g,) in grads], [1.0] * 4)
            optimizer.zero_grad()
        distance = max(distance, (param.detach().double() - twin.param).abs().max().item())
    return distance / (twin.param - start).abs().max().item()


@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
@pytest.mark.parametrize(
    "more",
    [{}, {"maximize": True}, {"weight_decay": 0.0}, {"eps": 0.7}],
    ids=["defaults", "maximize", "no_decay", "eps_rules"],
)
@pytest.mark.parametrize("correction", ["none", "delta"])
def test_sophia_is_the_published_algorithm_with_and_without_its_correction(
    correction, more, foreach
):
    assert run_sophia(correction, foreach=foreach, **more) < 1e-11


@pytest.mark.parametrize("correction", ["none", "delta"])
def test_sophia_in_low_precision_follows_its_twin(correction):
    assert run_sophia(correction, torch.float32) < 1e-5
    # bf16 rounds a parameter of at most 2 by at most 2^-8 in each of 40 steps; walked is about 1
    assert run_sophia(correction, torch.bfloat16) < 40 * 2**-8


def test_the_correction_of_sophia_shows_in_its_steps():
    param, other = parameter(9, dtype=torch.float64), parameter(9, dtype=torch.float64)
    corrected = SophiaG([param], **{**SOPHIA, "rho": 1.0})
    stats = MicrobatchStats([param], moments=2)
    corrected.attach(stats)
    plain = SophiaG([other], **{**SOPHIA, "rho": 1.0}, correction="none")
    gen = generator()
    for _ in range(5):
        feed([param], stats, microbatches([param], 4, gen))
        other.grad = param.grad.clone()
        corrected.update_hessian()
        plain.update_hessian()
    param.grad, other.grad = torch.full((9,), 0.1).double(), torch.full((9,), 0.1).double()
    before = param.detach().clone()
    corrected.step()
    plain.step()
    moved, plainly = before - param, before - other
    free = plainly.abs() < SOPHIA["lr"]  # not clipped
    assert free.any()
    # 1/h is too large on average, so the corrected step is the shorter one
    decay = SOPHIA["lr"] * SOPHIA["weight_decay"] * before
    assert ((moved - decay)[free] < (plainly - decay)[free]).all()
