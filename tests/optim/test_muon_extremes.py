"""Muon with gradients, shapes and checkpoints as hostile as they come, in every mode."""

import copy
import io
import math
import pickle

import pytest
import torch
from tests.optim.cases import draw, generator, parameter, same_bits, snapshot
from tests.optim.muon_cases import MODES, SHAPES, attached, both, pair, step
from torch.nn import Parameter

from deltabias.optim import Muon
from deltabias.optim.eigen import SingularPreconditioner


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_mode_steps_every_shape(mode, shape, dtype):
    params = [Parameter(draw(shape, generator(1), dtype))]
    optimizer, stats = attached(params, mode, lr=0.1)
    gen, start = generator(), params[0].detach().clone()
    for _ in range(6):
        step(optimizer, stats, params, gen)
    assert params[0].isfinite().all()
    assert not torch.equal(params[0], start)
    assert params[0].dtype == dtype
    if "update_bias" in optimizer.state[params[0]]:
        bias = optimizer.state[params[0]]["update_bias"]
        assert bias.dtype == torch.float32
        assert bias.any() or math.prod(shape) == 1 or min(shape) == max(shape)


@pytest.mark.parametrize("mode", MODES)
def test_zero_gradients_move_nothing_and_later_ones_do(mode):
    params = [parameter(3, 4)]
    optimizer, stats = attached(params, mode, lr=0.1, weight_decay=0.0)
    start = params[0].detach().clone()
    for _ in range(3):
        params[0].grad = torch.zeros(3, 4)
        for _ in range(4 if stats is not None else 0):
            stats.add([torch.zeros(3, 4)])
        optimizer.step()
    assert torch.equal(params[0], start)
    for _ in range(3):
        step(optimizer, stats, params, generator())
    assert params[0].isfinite().all()
    assert not torch.equal(params[0], start)


@pytest.mark.parametrize("mode", MODES)
def test_empty_and_gradless_parameters_are_left_alone(mode):
    params = [parameter(3, 4), parameter(0, 4), parameter(4, 0), parameter(2, 2)]
    optimizer, stats = attached(params, mode)
    idle = params[3].detach().clone()
    gen = generator()
    for _ in range(3):
        batches = [[draw(p.shape, gen, p.dtype) for p in params[:3]] + [None] for _ in range(2)]
        for batch in batches if stats is not None else ():
            stats.add(batch)
        for p, a, b in zip(params[:3], *(batch[:3] for batch in batches), strict=True):
            p.grad = (a + b) / 2
        optimizer.step()
    assert torch.equal(params[3], idle)
    assert float(optimizer.state[params[3]]["step"]) == 0
    assert optimizer.validity().steps == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
def test_the_size_of_the_gradients_does_not_matter(mode, scale):
    found = []
    for factor in (1.0, scale):
        params = [parameter(3, 4)]
        # eps is of torch's norm, which its bf16 iteration takes in fp32
        optimizer, stats = attached(params, mode, eps=1e-37, ns_dtype=torch.float64)
        gen = generator()
        for _ in range(4):
            grads = [(0.5 + draw((3, 4), gen, torch.float32)) * factor for _ in range(4)]
            for g in grads if stats is not None else ():
                stats.add([g])
            params[0].grad = sum(g / 4 for g in grads)
            optimizer.step()
        found.append(params[0].detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_gradient_that_is_not_finite_raises_and_changes_nothing(mode, value):
    params = [parameter(3, 4)]
    optimizer, stats = attached(params, mode)
    gen = generator()
    step(optimizer, stats, params, gen)
    before = snapshot(optimizer)
    params[0].grad[1, 1] = value
    with pytest.raises(FloatingPointError, match=r"not finite.*nonfinite='skip'"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))


@pytest.mark.parametrize("mode", MODES)
def test_skipped_steps_are_counted_and_change_nothing(mode):
    params = [parameter(3, 4)]
    optimizer, stats = attached(params, mode, nonfinite="skip")
    step(optimizer, stats, params, generator())
    before = snapshot(optimizer)
    params[0].grad[0, 0] = math.nan
    with pytest.warns(RuntimeWarning, match="non-finite gradient was skipped"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))
    assert optimizer.validity().skipped == 1


def test_ignore_is_torchs_even_with_nan():
    optimizers = pair((4, 6), ours={"nonfinite": "ignore"})
    gradient = draw((4, 6), generator(), torch.float32)
    gradient[0, 0] = math.nan
    both(*optimizers, gradient)
    assert optimizers[0].isnan().all()
    assert optimizers[1].isnan().all()


@pytest.mark.parametrize("mode", [m for m, (options, _) in MODES.items() if "polar" in options])
def test_a_deficient_average_has_no_polar_factor_and_nothing_is_changed(mode):
    params = [parameter(3, 4), parameter(3, 4, seed=2)]
    optimizer, stats = attached(params, mode)
    params[0].grad = draw((3, 4), generator(), torch.float32)
    params[1].grad = torch.outer(torch.arange(1.0, 4.0), torch.arange(4.0) - 1.3)
    for _ in range(4 if stats is not None else 0):
        stats.add([p.grad for p in params])
    before = snapshot(optimizer)
    with pytest.raises(SingularPreconditioner, match=r"\(3, 4\) is rank-def.*newton_schulz"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))
    assert stats is None or stats.is_fresh
    assert optimizer.validity().steps == 0


def test_newton_schulz_takes_a_deficient_average():
    params = [parameter(3, 4)]
    optimizer, _ = attached(params, "full")
    for _ in range(4):
        params[0].grad = torch.outer(torch.arange(1.0, 4.0), torch.ones(4))
        optimizer.step()
    assert params[0].isfinite().all()


def test_statistics_of_another_gradient_are_not_used_and_counted():
    params = [parameter(3, 4)]
    optimizer, stats = attached(params, "full-microbatches")
    gen = generator()
    for _ in range(4):
        stats.add([draw((3, 4), gen, torch.float32)])
    params[0].grad = draw((3, 4), gen, torch.float32)
    optimizer.step()
    assert optimizer.validity().misaligned == 1
    assert not optimizer.state[params[0]]["update_bias"].any()


def test_clipping_scales_the_statistics_with_the_gradient():
    found = []
    for factor in (1.0, 0.125):
        params = [parameter(3, 4)]
        optimizer, stats = attached(params, "full-microbatches")
        gen = generator()
        grads = [draw((3, 4), gen, torch.float32) for _ in range(4)]
        for g in grads:
            stats.add([g])
        params[0].grad = factor * sum(grads) / 4
        optimizer.step()
        found.append(optimizer.state[params[0]]["update_bias"])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


# -- state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_resumed_run_is_the_run_bit_for_bit(mode, dtype):
    def start():
        params = [parameter(3, 4, dtype=dtype), parameter(5, 2, dtype=dtype, seed=2)]
        return params, *attached(params, mode)

    params, optimizer, stats = start()
    gen = generator()
    for _ in range(3):
        step(optimizer, stats, params, gen)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again, resumed, other = start()
    for p, q in zip(again, params, strict=True):
        p.data.copy_(q.data)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    if stats is not None:
        other.load_state_dict(stats.state_dict())
    seed = gen.get_state()
    for _ in range(3):
        step(optimizer, stats, params, gen)
    gen.set_state(seed)
    for _ in range(3):
        step(resumed, other, again, gen)
    assert same_bits(snapshot(optimizer), snapshot(resumed))


@pytest.mark.parametrize("mode", ["plug_in", "full", "exact-full"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_continue_alike(mode, copied):
    params = [parameter(3, 4)]
    optimizer, stats = attached(params, mode)
    step(optimizer, stats, params, generator())
    twin = copied(optimizer)
    step(optimizer, None, params, generator(7))
    step(twin, None, twin.param_groups[0]["params"], generator(7))
    assert same_bits(snapshot(optimizer), snapshot(twin))
    assert twin.validity().clamped == optimizer.validity().clamped


def test_state_is_complete_from_construction_on():
    params = [parameter(3, 4)]
    optimizer, _ = attached(params, "cross_fit")
    names = {"step", "momentum_buffer", "momentum_buffer_second"}
    assert set(optimizer.state[params[0]]) == names
    optimizer, _ = attached(params, "full")
    assert set(optimizer.state[params[0]]) == {"step", "momentum_buffer", "update_bias"}


def test_groups_have_their_own_options():
    params = [parameter(3, 4), parameter(3, 4)]
    optimizer = Muon(
        [{"params": [params[0]], "correction": "full"}, {"params": [params[1]], "lr": 0.5}]
    )
    step(optimizer, None, params, generator())
    assert "update_bias" in optimizer.state[params[0]]
    assert "update_bias" not in optimizer.state[params[1]]
    assert (params[1] - parameter(3, 4)).norm() > 100 * (params[0] - parameter(3, 4)).norm()


def test_a_schedule_and_a_closure_work_as_with_torch():
    mine, theirs, ours, reference = pair((3, 4))
    for param, optimizer in ((mine, ours), (theirs, reference)):
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)

        def closure(param=param, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (param - 1).square().sum()
            loss.backward()
            return loss

        losses = []
        for _ in range(5):
            losses.append(optimizer.step(closure).item())
            schedule.step()
        assert losses[-1] < losses[0]
    assert torch.equal(mine, theirs)
