"""The foreach steps are the single-tensor steps."""

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
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
    zoo,
    zoo_gradients,
)

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG, averaged, stepping


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_foreach_and_single_agree_to_the_last_bit(case, dtype):
    runs = []
    for foreach in (False, True):
        params = zoo(dtype)
        options = {"foreach": foreach, "weight_decay": 0.1, "lr": 0.03, "maximize": True}
        optimizer, stats = case.attached(params.values(), **options)
        for step in range(8):
            batches = [zoo_gradients(dtype, step, seed) for seed in range(1, 5)]
            feed(params.values(), stats, batches)
            with quietly():
                optimizer.step()
        runs.append(snapshot(optimizer))
    assert same_bits(*runs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_foreach_and_single_agree_for_sophia(dtype):
    runs = []
    for foreach in (False, True):
        params = list(zoo(dtype).values())
        optimizer = SophiaG(params, foreach=foreach)
        stats = MicrobatchStats(params, moments=2)
        optimizer.attach(stats)
        for step in range(6):
            feed(params, stats, [zoo_gradients(dtype, step, seed) for seed in range(1, 4)])
            optimizer.update_hessian()
            optimizer.step()
        runs.append(snapshot(optimizer))
    assert same_bits(*runs)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_in_bf16_foreach_and_single_differ_by_at_most_an_ulp_of_the_second_moment(case):
    # torch's own foreach and single-tensor steps differ in bf16 (_foreach_mul_ rounds its scalar,
    # beta2, to bf16, mul_ does not), and ours are torch's in both; so one step from a common state
    second = "exp_avg_sq" if case.kind is AdamW else "square_avg"
    params = [parameter(64, dtype=torch.bfloat16)], [parameter(64, dtype=torch.bfloat16)]
    (single, one), (foreach, two) = (
        case.attached(p, foreach=flag) for p, flag in zip(params, (False, True), strict=True)
    )
    gen = generator()
    for _ in range(10):
        with torch.no_grad():
            params[1][0].copy_(params[0][0])
        for name, value in single.state[params[0][0]].items():
            foreach.state[params[1][0]][name].copy_(value)
        grads = microbatches(params[0], 4, gen)
        feed(params[0], one, grads)
        feed(params[1], two, grads)
        single.step()
        foreach.step()
        first, other = (o.state[p[0]][second].double() for o, p in
                        zip((single, foreach), params, strict=True))  # fmt: skip
        assert ((first - other).abs() <= 2**-7 * first).all()


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_the_choice_left_open_is_the_one_of_torch(kind, monkeypatch):
    param = parameter(3)
    optimizer = Case(kind, {"correction": "none"}).optimizer([param])
    calls = []
    monkeypatch.setattr(averaged, "run_step", lambda *_, foreach, **__: calls.append(foreach))

    def choice(foreach):
        optimizer.param_groups[0]["foreach"] = foreach
        param.grad = torch.ones(3)
        optimizer.step()
        return calls.pop()

    assert [choice(flag) for flag in (None, True, False)] == [False, True, False]
    # on a device with foreach kernels the default turns
    monkeypatch.setattr(stepping, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    assert [choice(flag) for flag in (None, True, False)] == [True, True, False]


def test_a_learning_rate_in_a_tensor_turns_the_foreach_default_off(monkeypatch):
    monkeypatch.setattr(stepping, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    for correction in ("none", "delta"):
        param = parameter(3)
        optimizer = AdamW([param], lr=torch.tensor(0.1), correction=correction)
        param.grad = torch.ones(3)
        before = param.detach().clone()
        with quietly():
            optimizer.step()
        assert (param < before).all()


@pytest.mark.parametrize("tensors", [{"lr": torch.tensor(0.1)},
                                     {"betas": (torch.tensor(0.9), torch.tensor(0.99))}],
                         ids=["lr", "betas"])  # fmt: skip
def test_tensors_as_hyperparameters_are_refused_with_foreach_by_adamw(tensors):
    with pytest.raises((ValueError, RuntimeError), match="foreach"):
        torch.optim.AdamW([parameter(3)], foreach=True, **tensors)
    with pytest.raises((ValueError, RuntimeError), match="foreach"):
        AdamW([parameter(3)], foreach=True, **tensors)


def test_a_tensor_learning_rate_with_foreach_gives_rmsprop_the_bits_of_torch():
    mine, other = parameter(3), parameter(3)
    ours = RMSprop([mine], lr=torch.tensor(0.1), foreach=True, correction="none")
    theirs = torch.optim.RMSprop([other], lr=torch.tensor(0.1), foreach=True)
    for _ in range(3):
        mine.grad, other.grad = torch.ones(3), torch.ones(3)
        ours.step()
        theirs.step()
    assert same_bits([mine], [other])
