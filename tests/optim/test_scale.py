"""Whatever scales the gradient scales its statistics: units, clipping, loss scaling, weights."""

import math

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    DEFAULTS,
    LIKE_TORCH,
    TORCH,
    Case,
    feed,
    generator,
    microbatches,
    names,
    parameter,
    quietly,
    same_bits,
    snapshot,
)

from deltabias.optim import AdamW, RMSprop


def steps(case: Case, scales, *, dtype=torch.float32, m=4, prepare=None, **options):
    """Parameters after one step per scale, each on m microbatches multiplied by it."""
    params = [parameter(5, dtype=dtype), parameter(2, 3, dtype=dtype, seed=2)]
    optimizer, stats = case.attached(params, **options)
    gen = generator()
    for scale in scales:
        grads = [[scale * g for g in batch] for batch in microbatches(params, m, gen)]
        feed(params, stats, grads)
        if prepare is not None:
            prepare(params)
        with quietly():
            optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("exponent", [-30, -7, 30])
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_gradients_in_other_units_of_a_power_of_two_give_the_same_bits(case, exponent):
    # 2^±30 is 1e±9: nothing of order g² or g⁴ may leave the range of fp32
    options = {"eps": 0.0, "lr": 0.01}
    _, plain = steps(case, [1.0] * 5, **options)
    _, scaled = steps(case, [2.0**exponent] * 5, **options)
    assert same_bits(plain, scaled)


@pytest.mark.parametrize("clip", [0.5, 1e-3], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_clipping_by_norm_after_accumulation_reaches_every_statistic(case, clip):
    options = {"eps": 1e-3, "lr": 0.01, "dtype": torch.float64}
    coefficients = []

    def clip_norm(params):
        total = torch.nn.utils.clip_grad_norm_(params, clip)
        coefficients.append(min(1.0, clip / (float(total) + 1e-6)))

    clipped, params = steps(case, [1.0] * 5, prepare=clip_norm, **options)
    assert max(coefficients) < 1  # every step was clipped
    _, scaled = steps(case, coefficients, **options)
    for a, b in zip(params, scaled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    assert clipped.validity().misaligned == 0


@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_clipping_by_value_is_noticed_and_the_step_uses_no_estimate(case):
    def clip_value(params):
        torch.nn.utils.clip_grad_value_(params, 0.1)

    options = {"lr": 0.01}
    optimizer, params = steps(case, [1.0], prepare=clip_value, **options)
    plain, others = steps(Case(case.kind, {"correction": "none"}), [1.0], prepare=clip_value,
                          **options)  # fmt: skip
    for a, b in zip(params, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    for p in params:
        for name in ("noise", "third", "third_mean"):
            assert not optimizer.state[p].get(name, torch.zeros(1)).any()
    assert optimizer.validity().misaligned == 2  # two parameters, one step
    assert plain.validity().misaligned == 0


@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
def test_a_misfit_fades_like_a_step_without_noise(case):
    # eight good steps, then one clipped by value: the accumulators only decay
    optimizer, (first, second) = steps(case, [1.0] * 8, lr=0.01)
    name = "exp_avg_sq" if case.kind is AdamW else "square_avg"
    before = {k: v.clone() for k, v in optimizer.state[first].items()}
    stats = optimizer._stats
    feed([first, second], stats, microbatches([first, second], 4, generator(9)))
    torch.nn.utils.clip_grad_value_([first, second], 0.1)
    optimizer.step()
    after = optimizer.state[first]
    ratio = before[name] / after[name]
    kept = 0.9 * 0.999 if case.kind is AdamW else 0.99
    torch.testing.assert_close(after["noise"], kept * ratio * before["noise"], rtol=1e-5, atol=0)
    assert torch.isfinite(first).all()


def losses(params, m, gen):
    """m closures, each a linear loss with a random gradient."""
    return [
        lambda grads=grads: sum((g * p).sum() for g, p in zip(grads, params, strict=True))
        for grads in microbatches(params, m, gen)
    ]


def trained(case, *, m=4, divide=True, scaler=None, steps=6, seed=0, weights=None, **options):
    """A loop as users write it: backward in microbatches, step, zero_grad."""
    params = [parameter(5), parameter(2, 3, seed=2)]
    optimizer, stats = case.attached(params, **options)
    gen = generator(seed)
    for _ in range(steps):
        for r, loss in enumerate(losses(params, m, gen)):
            with stats.microbatch(weight=1.0 if weights is None else weights[r]):
                share = 1.0 if weights is None else weights[r]
                value = share * loss() / (m if divide else 1)
                (value if scaler is None else scaler.scale(value)).backward()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
    return optimizer, params


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_an_undivided_loss_gives_the_update_of_gradients_m_times_as_large(case):
    with quietly():
        _, divided = trained(case, eps=0.0)
        _, summed = trained(case, divide=False, eps=0.0)  # four is a power of two
    assert same_bits(divided, summed)


@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
@pytest.mark.parametrize("divide", [True, False], ids=["mean", "sum"])
def test_a_loop_with_backward_gives_the_statistics_of_its_microbatches(case, divide):
    optimizer, (first, _) = trained(case, m=3, divide=divide, eps=1e-2, lr=0.01)
    twin = case.twin(parameter(5), eps=1e-2, lr=0.01)
    gen = generator()
    for _ in range(6):
        grads = [g for g, _ in microbatches([parameter(5), parameter(2, 3, seed=2)], 3, gen)]
        factor = 1 if divide else 3
        twin.step([factor * g.double() for g in grads], [1.0] * 3)
    torch.testing.assert_close(first.detach().double(), twin.param, rtol=1e-5, atol=1e-6)
    assert optimizer.validity().misaligned == 0
    assert optimizer.validity().corrected == 6


def test_token_counts_weigh_the_microbatches_of_a_loop():
    tokens = [100.0, 300.0, 200.0]
    case = Case(AdamW)
    _, (first, _) = trained(case, m=3, weights=tokens, divide=False, eps=0.0, lr=0.01)
    twin = case.twin(parameter(5), eps=0.0, lr=0.01)
    gen = generator()
    for _ in range(6):
        grads = [g for g, _ in microbatches([parameter(5), parameter(2, 3, seed=2)], 3, gen)]
        twin.step(grads, tokens)
    torch.testing.assert_close(first.detach().double(), twin.param, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_gradient_scaler_changes_no_bit(case):
    with quietly():
        _, plain = trained(case)
        _, scaled = trained(case, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert same_bits(plain, scaled)


def overflow(stats, scaler, params):
    """A step whose second microbatch overflows under the scaler."""
    gen = generator(7)
    for r, loss in enumerate(losses(params, 4, gen)):
        with stats.microbatch():
            scaler.scale(loss() * (math.inf if r == 1 else 1.0) / 4).backward()


@pytest.mark.parametrize("clear", ["optimizer.zero_grad", "grad = None"])
@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_a_step_that_the_scaler_skips_leaves_no_trace(case, clear):
    # with "grad = None" the statistics keep the skipped step; the optimizer must notice
    params = [parameter(5), parameter(2, 3, seed=2)]
    optimizer, stats = case.attached(params)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    gen = generator()

    def good_step():
        for loss in losses(params, 4, gen):
            with stats.microbatch():
                scaler.scale(loss() / 4).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    for _ in range(3):
        good_step()
    before = snapshot(optimizer)
    overflow(stats, scaler, params)
    scaler.step(optimizer)
    scaler.update()
    assert same_bits(before, snapshot(optimizer))
    assert scaler.get_scale() < 2.0**12
    if clear == "optimizer.zero_grad":
        optimizer.zero_grad()
        assert not stats.is_fresh
    else:
        for p in params:
            p.grad = None
    good_step()
    assert all(torch.isfinite(t).all() for t in snapshot(optimizer))
    if clear == "grad = None":
        assert optimizer.validity().misaligned > 0  # the mixture was not used
        return
    _, undisturbed = trained(case, steps=4)
    assert same_bits(params, undisturbed)


def test_the_scalers_default_path_is_the_one_that_is_taken():
    # fused optimizers unscale by themselves; ours let the scaler do it
    for kind in (AdamW, RMSprop):
        assert not hasattr(kind([parameter(2)]), "_step_supports_amp_scaling")
    assert set(TORCH) == {AdamW, RMSprop}
