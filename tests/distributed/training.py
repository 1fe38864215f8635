"""One small training run, on one process and on many: the same microbatches, the same truth.

fp64 throughout, so that what differs is the order of sums and nothing else.
"""

from contextlib import nullcontext

import torch
from torch import nn

from deltabias.microbatch import MicrobatchStats, RankGradients
from deltabias.optim import AdamW

MICROBATCHES = 4
TOKENS = [2, 5, 3, 4]
STEPS = 3
ROUNDING = 1e-13
"""Relative to the largest entry of a tensor. Measured: 5e-15, sums in another order."""


def model() -> nn.Module:
    """Five and three rows, which neither two nor four ranks divide evenly."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def loss(net: nn.Module, step: int, index: int) -> torch.Tensor:
    """Of microbatch `index`, the mean over its tokens."""
    generator = torch.Generator().manual_seed(100 * step + index)
    x = torch.randn(TOKENS[index], 3, generator=generator, dtype=torch.float64)
    return (net(x) - x.sin()).square().mean()


def share(index: int) -> float:
    """What of the step's tokens a microbatch has."""
    return TOKENS[index] / sum(TOKENS)


def optimizer_of(net: nn.Module, **options) -> AdamW:
    return AdamW(net.parameters(), **{"lr": 0.05, "betas": (0.8, 0.9), **options})


def one_process(steps: range = range(STEPS), groups: int = 1, **options) -> dict:
    """The truth: all microbatches in one process, in their order."""
    net = model()
    optimizer, stats = (
        optimizer_of(net, **options),
        MicrobatchStats(net.parameters(), groups=groups),
    )
    optimizer.attach(stats)
    for step in steps:
        for index in range(MICROBATCHES):
            with stats.microbatch(weight=TOKENS[index]):
                (loss(net, step, index) * share(index)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return snapshot(net, optimizer)


def replicated_step(
    wrapped, stats, optimizer, step: int, rank: int, ranks: int, group=None, *, from_grad: bool
) -> None:
    """A step under DistributedDataParallel, accumulating without communication."""
    mine = range(rank, MICROBATCHES, ranks)
    for index in mine:
        sync = nullcontext() if index == mine[-1] else wrapped.no_sync()
        with sync, stats.microbatch(weight=TOKENS[index]):
            (loss(wrapped, step, index) * share(index) * ranks).backward()  # DDP averages
    stats.all_reduce(group, from_grad=from_grad)
    optimizer.step()
    optimizer.zero_grad()


def sharded_step(net, watched: RankGradients, optimizer, step: int, rank: int, ranks: int) -> None:
    """A step under FSDP2."""
    for index in range(rank, MICROBATCHES, ranks):
        with watched.microbatch(weight=TOKENS[index]):
            (loss(net, step, index) * share(index) * ranks).backward()  # FSDP2 averages
    optimizer.step()
    optimizer.zero_grad()


def snapshot(net: nn.Module, optimizer) -> dict:
    """Parameters and states, whole, by name."""
    out = {}
    for name, param in net.named_parameters():
        name = name.removeprefix("module.")
        out[name] = whole(param)
        for key, value in optimizer.state[param].items():
            out[f"{name}.{key}"] = whole(value)
    return out


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A DTensor's full tensor; a collective."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def worst(got: dict, want: dict) -> tuple[float, str]:
    """The largest difference, relative to each tensor's largest entry, and where it is."""
    assert got.keys() == want.keys(), set(got) ^ set(want)
    differences = [
        (float((got[k] - v).abs().max() / v.abs().max().clamp_min(1e-300)), k)
        for k, v in want.items()
    ]
    return max(differences)
