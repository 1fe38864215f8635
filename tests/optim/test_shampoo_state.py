"""Shampoo's state: complete from the start, tensors only, saved and copied without loss."""

import copy
import pickle

import pytest
import torch
from tests.optim.cases import draw, generator, parameter, quietly, same_bits, snapshot
from tests.optim.test_state import saved_and_loaded

from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Shampoo

CASES = [
    {"correction": "plug_in"},
    {"correction": "full"},
    {"correction": "full", "refresh": 3},
    {"correction": "full", "refresh": 4, "spread_every": 2},
    {"correction": "full", "sides": "right", "memory": "sum", "refresh": 2},
    {"correction": "diagonal", "refresh": 3, "grafting": "adam"},
    {"correction": "eigenvalue_only", "root": "4/3"},
    {"correction": "cross_fit", "refresh": 3, "grafting": "rmsprop"},
    {"correction": "full", "second_moment": "mean_of_squares", "spread": "microbatches"},
    {"correction": "sketch", "second_moment": "mean_of_squares", "spread": "microbatches"},
]
COMMON = {"lr": 0.02, "betas": (0.9, 0.95), "weight_decay": 0.1, "block_size": 3}


def name(options) -> str:
    return "-".join(map(str, options.values()))


def params_of(dtype=torch.float32):
    return [parameter(*shape, dtype=dtype) for shape in ((4, 5), (4,), (2, 2, 3))]


def attached(params, options):
    optimizer = Shampoo(params, **{**COMMON, **options})
    if options["correction"] != "cross_fit" and "second_moment" not in options:
        return optimizer, None
    stats = MatrixStats(
        params,
        block_size=3,
        groups=2 if options["correction"] == "cross_fit" else 1,
        keep="gradients" if options["correction"] == "full" else "sketch",
    )
    optimizer.attach(stats)
    return optimizer, stats


def take(optimizer, stats, gen, steps: int):
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        batch = [[draw(p.shape, gen, p.dtype) for p in params] for _ in range(4)]
        if stats is not None:
            for grads in batch:
                stats.add(grads)
        for i, p in enumerate(params):
            p.grad = sum(grads[i].float() for grads in batch).div(4).to(p.dtype)
        with quietly():
            optimizer.step()
        optimizer.zero_grad()


def kinds(optimizer):
    return [
        {k: (v.dtype, v.shape) for k, v in optimizer.state.get(p, {}).items()}
        for group in optimizer.param_groups
        for p in group["params"]
    ]


@pytest.mark.parametrize("options", CASES, ids=name)
def test_state_is_complete_from_construction_and_tensors_only(options):
    optimizer, stats = attached(params_of(), options)
    before = kinds(optimizer)
    assert all("step" in state for state in before)
    take(optimizer, stats, generator(), 4)
    assert kinds(optimizer) == before
    assert all(isinstance(v, torch.Tensor) for s in optimizer.state.values() for v in s.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("options", CASES, ids=name)
def test_a_resumed_run_takes_the_same_steps_bit_for_bit(options, dtype):
    # four steps with refresh=3 stop in the middle of an interval
    params = params_of(dtype)
    optimizer, stats = attached(params, options)
    gen = generator()
    take(optimizer, stats, gen, 5)
    checkpoint = saved_and_loaded(optimizer.state_dict())
    copies = [torch.nn.Parameter(p.detach().clone()) for p in params]
    resumed, resumed_stats = attached(copies, {**options})
    if stats is not None:
        resumed_stats.load_state_dict(stats.state_dict())
    resumed.load_state_dict(checkpoint)
    assert same_bits(snapshot(optimizer), snapshot(resumed))
    other = generator()
    other.set_state(gen.get_state())
    take(optimizer, stats, gen, 5)
    take(resumed, resumed_stats, other, 5)
    assert same_bits(snapshot(optimizer), snapshot(resumed))
    assert all(torch.isfinite(p).all() for p in params)


def test_factors_of_bf16_parameters_are_fp32_and_stay_so_after_loading():
    param = parameter(4, 3, dtype=torch.bfloat16)
    optimizer, _ = attached([param], CASES[2])
    take(optimizer, None, generator(), 4)
    resumed, _ = attached([parameter(4, 3, dtype=torch.bfloat16)], CASES[2])
    resumed.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    for state in (*optimizer.state.values(), *resumed.state.values()):
        assert {v.dtype for k, v in state.items() if k != "step"} == {torch.float32}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_step_like_the_original(copied):
    params = params_of()
    optimizer, _ = attached(params, CASES[2])
    take(optimizer, None, generator(), 4)
    twin = copied(optimizer)
    take(optimizer, None, generator(3), 3)
    take(twin, None, generator(3), 3)
    assert same_bits(snapshot(optimizer), snapshot(twin))
    assert twin.validity().clamped == optimizer.validity().clamped


def test_a_plug_in_checkpoint_loads_into_a_corrected_run_which_starts_with_no_correction():
    params, copies = params_of(), params_of()
    plain, _ = attached(params, CASES[0])
    take(plain, None, generator(), 4)
    corrected, _ = attached(copies, CASES[1])
    checkpoint = saved_and_loaded(plain.state_dict())
    checkpoint["param_groups"][0]["correction"] = "full"
    corrected.load_state_dict(checkpoint)
    state = corrected.state[copies[0]]
    assert not state["left_inversion.0"].any()
    assert not state["coupling.0"].any()
    take(corrected, None, generator(3), 3)
    assert all(torch.isfinite(p).all() for p in copies)
    assert corrected.validity().inversion > 0


def test_two_groups_have_options_of_their_own():
    first, second = parameter(3, 4, dtype=torch.float64), parameter(3, 4, dtype=torch.float64)
    groups = [{"params": [first], "lr": 0.0}, {"params": [second], "correction": "plug_in"}]
    optimizer = Shampoo(groups, lr=0.1)
    start = first.detach().clone()
    take(optimizer, None, generator(), 3)
    assert torch.equal(first, start)
    assert not torch.equal(second, start)
    assert "left_inversion.0" in optimizer.state[first]
    assert "left_inversion.0" not in optimizer.state[second]
