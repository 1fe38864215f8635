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


class Scaled(nn.Module):
    """Its input times a parameter without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def model(*, scalar: bool = False) -> nn.Module:
    """Five and three rows, which neither two nor four ranks divide evenly."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers, *[Scaled()] * scalar).double()


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Normal numbers, the same ones on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def loss(net: nn.Module, step: int, index: int) -> torch.Tensor:
    """Of microbatch `index`, the mean over its tokens."""
    x = draw((TOKENS[index], 3), seed=100 * step + index)
    return (net(x) - x.sin()).square().mean()


def share(index: int) -> float:
    """What of the step's tokens a microbatch has."""
    return TOKENS[index] / sum(TOKENS)


def optimizer_of(net: nn.Module, **options) -> AdamW:
    return AdamW(net.parameters(), **{"lr": 0.05, "betas": (0.8, 0.9), **options})


def one_process(
    steps: range = range(STEPS), *, net: nn.Module | None = None, groups: int = 1, every: int = 1,
    without: tuple[int, int] | None = None, **options,
) -> dict:  # fmt: skip
    """The truth: all microbatches in one process, in their order; `without` (step, index)."""
    net = model() if net is None else net
    optimizer = optimizer_of(net, **options)
    stats = MicrobatchStats(net.parameters(), groups=groups, every=every)
    optimizer.attach(stats)
    alone(net, stats, optimizer, steps, without)
    return snapshot(net, optimizer)


def alone(
    net: nn.Module, stats: MicrobatchStats, optimizer, steps: range,
    without: tuple[int, int] | None = None,
) -> None:  # fmt: skip
    """Steps of a single process."""
    for step in steps:
        for index in range(MICROBATCHES):
            if (step, index) == without:
                continue
            with stats.microbatch(weight=TOKENS[index]):
                (loss(net, step, index) * share(index)).backward()
        optimizer.step()
        optimizer.zero_grad()


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
    differences = [(distance(got[k], v), k) for k, v in want.items()]
    return max(differences)


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry that is wanted."""
    got, want = got.double(), want.double()  # differences of unsigned codes are not what they seem
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-300))
