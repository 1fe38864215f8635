"""State: complete from the start, tensors only, in checkpoints and copies without loss."""

import copy
import io
import pickle

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    LIKE_TORCH,
    TORCH,
    Case,
    draw,
    feed,
    generator,
    microbatches,
    names,
    parameter,
    quietly,
    same_bits,
    snapshot,
    zoo,
)

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG

ALL = [AdamW, RMSprop, SophiaG]
OPTIONS = {"lr": 0.02, "weight_decay": 0.1}


def take(optimizer, stats, gen, steps: int) -> None:
    """Steps with four microbatches, every fifth without statistics, every seventh with one."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    feeds = any(c["second_moment"] == "mean_of_squares" for c in optimizer.param_groups)
    for step in range(steps):
        m = 1 if step % 7 == 6 else 4
        missing = step % 5 == 3 and not feeds
        feed(params, None if missing else stats, microbatches(params, m, gen))
        with quietly():
            optimizer.step()
        optimizer.zero_grad()


def saved_and_loaded(state_dict):
    """Through a file, as a careful user reads it."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_state_is_complete_from_construction_and_keeps_its_kinds(case):
    params = zoo(torch.bfloat16)
    optimizer, stats = case.attached(params.values())
    kinds = {n: {k: (v.dtype, v.shape) for k, v in optimizer.state.get(p, {}).items()}
             for n, p in params.items()}  # fmt: skip
    assert kinds.pop("frozen") == {}
    for name, state in kinds.items():
        assert state.pop("step") == (torch.float32, ())
        own = {k: dtype for k, (dtype, _) in state.items() if k.startswith(("exp_", "square_"))}
        assert set(own.values()) == {torch.bfloat16}
        kept = {dtype for k, (dtype, _) in state.items() if k not in own}
        assert kept <= {torch.float32}, "accumulators are at least fp32"
        assert all(shape == params[name].shape for _, shape in state.values())
    feed(params.values(), stats, [_grads(params, seed) for seed in range(4)])
    with quietly():
        optimizer.step()
    for name, p in params.items():
        after = {k: (v.dtype, v.shape) for k, v in optimizer.state.get(p, {}).items()}
        after.pop("step", None)
        assert after == kinds.get(name, {})


def _grads(params, seed):
    gen = generator(seed)
    return [None if n == "frozen" else draw(p.shape, gen, p.dtype) for n, p in params.items()]


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_state_holds_tensors_and_a_checkpoint_loads_with_weights_only(case):
    param = parameter(3)
    optimizer, stats = case.attached([param])
    take(optimizer, stats, generator(), 3)
    loaded = saved_and_loaded(optimizer.state_dict())
    for state in optimizer.state.values():
        assert all(isinstance(value, torch.Tensor) for value in state.values())
    for key, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert same_bits([value], [loaded["state"][key][name]])
    flat = [v for group in loaded["param_groups"] for v in group.values()]
    assert not any(isinstance(v, MicrobatchStats) for v in flat)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_resumed_run_takes_the_same_steps_bit_for_bit(case, dtype):
    param = parameter(6, dtype=dtype)
    optimizer, stats = case.attached([param], **OPTIONS)
    gen = generator()
    take(optimizer, stats, gen, 8)
    checkpoint = saved_and_loaded(optimizer.state_dict())
    resumed_param = torch.nn.Parameter(param.detach().clone())
    resumed, resumed_stats = case.attached([resumed_param], **OPTIONS)
    resumed.load_state_dict(checkpoint)
    assert same_bits(snapshot(optimizer), snapshot(resumed))
    if dtype == torch.bfloat16:
        accumulators = optimizer._accumulators(optimizer.param_groups[0])
        kinds = {resumed.state[resumed_param][name].dtype for name in accumulators}
        assert kinds <= {torch.float32}
    other = generator()
    other.set_state(gen.get_state())
    take(optimizer, stats, gen, 10)
    take(resumed, resumed_stats, other, 10)
    assert same_bits(snapshot(optimizer), snapshot(resumed))


@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_a_checkpoint_may_be_followed_by_a_step_without_statistics(case):
    # what the run knew of its statistics must come back with the state: folds stay apart
    param = parameter(6)
    optimizer, stats = case.attached([param], **OPTIONS)
    take(optimizer, stats, generator(), 3)
    resumed_param = torch.nn.Parameter(param.detach().clone())
    resumed = case.optimizer([resumed_param], **OPTIONS)
    resumed.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    param.grad, resumed_param.grad = torch.ones(6), torch.ones(6)
    with quietly():
        optimizer.step()
        resumed.step()
    assert same_bits(snapshot(optimizer), snapshot(resumed))


def test_a_resumed_sophia_takes_the_same_steps_bit_for_bit():
    for dtype in (torch.float32, torch.bfloat16):
        param = parameter(6, dtype=dtype)
        optimizer = SophiaG([param], lr=0.1, betas=(0.9, 0.9))
        stats = MicrobatchStats([param], moments=2)
        optimizer.attach(stats)
        _sophia_steps(optimizer, stats, generator(), 5)
        resumed_param = torch.nn.Parameter(param.detach().clone())
        resumed = SophiaG([resumed_param])
        resumed.load_state_dict(saved_and_loaded(optimizer.state_dict()))
        resumed_stats = MicrobatchStats([resumed_param], moments=2)
        resumed.attach(resumed_stats)
        assert same_bits([optimizer.state[param]["noise"]], [resumed.state[resumed_param]["noise"]])
        _sophia_steps(optimizer, stats, generator(4), 10)
        _sophia_steps(resumed, resumed_stats, generator(4), 10)
        assert same_bits([param], [resumed_param])


def _sophia_steps(optimizer, stats, gen, steps):
    params = optimizer.param_groups[0]["params"]
    for _ in range(steps):
        feed(params, stats, microbatches(params, 3, gen))
        optimizer.update_hessian()
        optimizer.step()
        optimizer.zero_grad()


def test_sophia_counts_its_curvature_updates_exactly_after_loading():
    # torch casts every state but "step" to the parameter's dtype, and bf16 counts to 256
    param = parameter(2, dtype=torch.bfloat16)
    optimizer = SophiaG([param])
    optimizer.state[param]["hessian_step"].fill_(301)
    optimizer.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    param.grad = torch.ones(2, dtype=torch.bfloat16)
    with quietly():
        optimizer.update_hessian()
    assert optimizer.state[param]["hessian_step"].item() == 302


@pytest.mark.parametrize("steps", [0, 6])
@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_a_checkpoint_of_torch_loads_and_missing_accumulators_start_at_zero(case, steps):
    param, other = parameter(4), parameter(4)
    optimizer, stats = case.attached([param])
    reference = TORCH[case.kind]([other], lr=0.05)
    gen = generator()
    for _ in range(steps):
        ((other.grad,),) = microbatches([other], 1, gen)
        reference.step()
    with torch.no_grad():
        param.copy_(other)
    optimizer.load_state_dict(saved_and_loaded(reference.state_dict()))
    state = optimizer.state[param]
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert optimizer.param_groups[0]["correction"] == case.options["correction"]
    for name in optimizer._accumulators(optimizer.param_groups[0]):
        assert state[name].dtype == torch.float32
        assert not state[name].any()
    for _ in range(3):  # without statistics it goes on as torch
        ((param.grad,),) = microbatches([param], 1, gen)
        other.grad = param.grad.clone()
        reference.step()
        with quietly():
            optimizer.step()
        assert same_bits([param], [other])
    feed([param], stats, microbatches([param], 4, gen))
    optimizer.step()
    assert torch.isfinite(param).all()
    assert optimizer.validity().corrected == 1


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_a_checkpoint_of_ours_without_correction_loads_into_torch(kind):
    param, other = parameter(4), parameter(4)
    optimizer, reference = kind([param], correction="none"), TORCH[kind]([other])
    for _ in range(3):
        param.grad = torch.ones(4)
        optimizer.step()
    reference.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    with torch.no_grad():
        other.copy_(param)
    param.grad, other.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    reference.step()
    assert same_bits([param], [other])


def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing():
    optimizer = AdamW([parameter(3)])
    before = snapshot(optimizer)
    other = AdamW([parameter(3), parameter(2)])
    with pytest.raises(ValueError, match="parameter group"):
        optimizer.load_state_dict(other.state_dict())
    assert same_bits(before, snapshot(optimizer))


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_copy_takes_the_same_steps_on_its_own_parameters(case, how):
    param = parameter(5)
    optimizer, stats = case.attached([param], **OPTIONS)
    take(optimizer, stats, generator(), 3)
    twin = copy.deepcopy(optimizer) if how == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    ((own,),) = [group["params"] for group in twin.param_groups]
    assert own is not param
    assert same_bits(snapshot(optimizer), snapshot(twin))
    own_stats = case.statistics([own])
    twin.attach(own_stats)  # statistics belong to a run: a copy is given its own
    take(optimizer, stats, generator(3), 5)
    take(twin, own_stats, generator(3), 5)
    assert same_bits(snapshot(optimizer), snapshot(twin))


def test_a_copy_says_that_it_has_no_statistics():
    param = parameter(5)
    optimizer, stats = Case(AdamW).attached([param])
    feed([param], stats, microbatches([param], 4, generator()))
    twin = copy.deepcopy(optimizer)
    twin.param_groups[0]["params"][0].grad = torch.ones(5)
    with pytest.warns(RuntimeWarning, match="no MicrobatchStats is attached"):
        twin.step()
    optimizer.step()
    assert optimizer.validity().corrected == 1


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_group_added_later_counts_its_own_steps(case):
    first, second = parameter(3), parameter(2, seed=2)
    stats = case.statistics([first, second])
    optimizer = case.optimizer([first], **OPTIONS)
    optimizer.attach(stats)
    gen = generator()
    feed([first, second], stats, microbatches([first, second], 4, gen))
    optimizer.step()
    optimizer.add_param_group({"params": [second], "lr": 0.5})
    assert set(optimizer.state[second]) == set(optimizer.state[first])
    feed([first, second], stats, microbatches([first, second], 4, gen))
    optimizer.step()
    assert [optimizer.state[p]["step"].item() for p in (first, second)] == [2, 1]
    alone, alone_stats = case.attached([parameter(2, seed=2)], **{**OPTIONS, "lr": 0.5})
    gen = generator()
    microbatches([first, second], 4, gen)
    grads = [[g] for _, g in microbatches([first, second], 4, gen)]
    feed(alone.param_groups[0]["params"], alone_stats, grads)
    alone.step()
    assert same_bits([second], alone.param_groups[0]["params"])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_groups_may_be_corrected_differently(kind):
    corrections = ["none", "delta"]
    params = [parameter(3, seed=i) for i in range(2)]
    groups = [{"params": [p], "correction": c} for p, c in zip(params, corrections, strict=True)]
    optimizer = kind(groups)
    assert "noise" not in optimizer.state[params[0]]
    assert "noise" in optimizer.state[params[1]]
    optimizer.attach(MicrobatchStats(params))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_no_gradient_anywhere_is_a_step_that_moves_nothing(kind):
    param = parameter(3)
    optimizer = kind([param])
    before = snapshot(optimizer)
    with quietly():
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))
