"""Without a correction the optimizers are torch's, to the last bit."""

import math

import pytest
import torch
from tests.optim.cases import (
    LIKE_TORCH,
    TORCH,
    Case,
    feed,
    names,
    quietly,
    same_bits,
    zoo,
    zoo_gradients,
)

from deltabias.optim import AdamW, RMSprop

STEPS = 21
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
SHARED = {
    "defaults": {},
    "maximize": {"maximize": True},
    "weight_decay": {"weight_decay": 0.3},
    "no_weight_decay": {"weight_decay": 0.0},
    "large_eps": {"eps": 1e-2},
    "no_lr": {"lr": 0.0},
    "everything": {"lr": 0.07, "maximize": True, "weight_decay": 0.1, "eps": 1e-3},
}
OWN = {
    AdamW: {
        "betas": {"betas": (0.5, 0.7)},
        "no_beta1": {"betas": (0.0, 0.95)},
        "no_beta2": {"betas": (0.9, 0.0)},
    },
    RMSprop: {"alpha": {"alpha": 0.5}, "no_alpha": {"alpha": 0.0}},
}
OFF = {kind: Case(kind, {"correction": "none"}) for kind in TORCH}
TABLE = [
    pytest.param(kind, options, id=f"{kind.__name__}-{name}")
    for kind in TORCH
    for name, options in {**SHARED, **OWN[kind]}.items()
]


def follow_schedule(optimizers, step: int) -> None:
    """A learning rate that changes in every step, up and down; tensors are filled in place."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            base = group.setdefault("initial_lr", float(group["lr"]))
            rate = base * (1 + 0.5 * math.sin(step))
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def assert_like_torch(case, dtype, ours, theirs=None, *, statistics="none", split=None) -> None:
    """Two zoos, the same gradients, `STEPS` steps: parameters and torch's own states agree."""
    mine, other = zoo(dtype), zoo(dtype)
    grouped = split or (lambda zoo: list(zoo.values()))
    optimizer = case.optimizer(grouped(mine), **ours)
    reference = TORCH[case.kind](grouped(other), **(theirs or ours))
    stats = None
    if statistics == "one microbatch":
        stats = case.statistics(list(mine.values()))
        optimizer.attach(stats)
    for step in range(STEPS):
        follow_schedule((optimizer, reference), step)
        grads = zoo_gradients(dtype, step)
        feed(mine.values(), stats, [grads])
        feed(other.values(), None, [grads])
        with quietly():
            optimizer.step()
        reference.step()
        different = [n for n, p in mine.items() if not same_bits([p], [other[n]])]
        assert not different, f"{step=}"
        for name, p in mine.items():
            state, wanted = optimizer.state.get(p, {}), reference.state.get(other[name], {})
            for key, value in wanted.items():
                equal = same_bits([state[key]], [value])
                assert equal, f"{name} {key}, {step=}"


@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "options"), TABLE)
def test_with_the_correction_off_every_bit_is_that_of_torch(kind, options, dtype, foreach):
    assert_like_torch(OFF[kind], dtype, {**options, "foreach": foreach})


@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("statistics", ["none", "one microbatch"])
@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_with_nothing_to_estimate_from_every_bit_is_that_of_torch(case, statistics, dtype, foreach):
    options = {**SHARED["everything"], "foreach": foreach}
    assert_like_torch(case, dtype, options, statistics=statistics)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_a_mean_of_squares_over_one_microbatch_is_the_square_of_the_mean(kind, dtype):
    for correction in ("none", "delta"):
        case = Case(kind, {"correction": correction, "second_moment": "mean_of_squares"})
        assert_like_torch(case, dtype, {"foreach": False}, statistics="one microbatch")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_a_learning_rate_in_a_tensor_gives_the_bits_of_torch(kind, dtype):
    for correction in ("none", "delta"):
        rates = [{"lr": torch.tensor(0.03), "foreach": False} for _ in range(2)]
        assert_like_torch(Case(kind, {"correction": correction}), dtype, *rates)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_betas_in_tensors_give_the_bits_of_torch(dtype):
    # in bf16 torch takes 1 - beta1 of a beta1 rounded to bf16; ours keeps the beta it was given
    betas = (torch.tensor(0.9), torch.tensor(0.99))
    options = [{"betas": betas, "lr": torch.tensor(0.03), "foreach": False} for _ in range(2)]
    for correction in ("none", "delta"):
        assert_like_torch(Case(AdamW, {"correction": correction}), dtype, *options)


@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_groups_with_options_of_their_own_give_the_bits_of_torch(kind, foreach):
    def split(params):
        first, *rest = params.values()
        return [
            {"params": [first], "lr": 0.1, "weight_decay": 0.0},
            {"params": rest[:3], "maximize": True, "eps": 1e-2},
            {"params": rest[3:], "weight_decay": 0.5},
        ]

    assert_like_torch(OFF[kind], torch.float32, {"foreach": foreach}, split=split)
    mixed = Case(kind)  # no statistics: the default correction is torch as well
    assert_like_torch(mixed, torch.float32, {"foreach": foreach}, split=split)


def test_named_parameters_and_generators_are_taken_as_torch_takes_them():
    model = torch.nn.Linear(3, 2)
    named = AdamW(model.named_parameters(), correction="none")
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    plain = AdamW(model.parameters(), correction="none")
    assert len(plain.state) == 2


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_the_arguments_of_torch_mean_the_same_in_the_same_order(kind):
    # positional calls and defaults carry over
    ours, theirs = kind([torch.nn.Parameter(torch.ones(2))]), TORCH[kind]([torch.ones(2)])
    shared = set(ours.defaults) & set(theirs.defaults)
    assert {"lr", "eps", "weight_decay"} <= shared
    assert {n: ours.defaults[n] for n in shared} == {n: theirs.defaults[n] for n in shared}
    arguments = [0.5, (0.8, 0.9), 1e-3, 0.2] if kind is AdamW else [0.5, 0.8, 1e-3, 0.2]
    ours, theirs = kind([torch.ones(2)], *arguments), TORCH[kind]([torch.ones(2)], *arguments)
    assert {n: ours.defaults[n] for n in shared} == {n: theirs.defaults[n] for n in shared}
