"""It optimizes: a noisy quadratic and a small network, as well as the optimizer it replaces."""

from functools import cache

import pytest
import torch
from tests.optim.cases import CORRECTED, Case, feed, names, parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_noisy_quadratic_is_minimized(case):
    target = torch.linspace(-2, 2, 20)
    param = parameter(20)
    optimizer, stats = case.attached([param], lr=0.1, weight_decay=0.0)
    gen = torch.Generator().manual_seed(0)
    start = (param - target).square().mean().item()
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 80)
        noise = torch.randn(4, 20, generator=gen)
        feed([param], stats, [[(param.detach() - target) + z] for z in noise])
        optimizer.step()
        optimizer.zero_grad()
    assert (param - target).square().mean().item() < 0.01 * start


def test_sophia_minimizes_a_noisy_quadratic():
    # the Gauss-Newton-Bartlett gradients of ½ h (θ - target)² with unit noise: ±√h
    target, curvature = torch.linspace(-2, 2, 20), torch.linspace(0.5, 4, 20)
    param = parameter(20)
    optimizer = SophiaG([param], lr=0.05, betas=(0.9, 0.95), rho=1.0, weight_decay=0.0)
    stats = MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    gen = torch.Generator().manual_seed(0)
    start = (param - target).square().mean().item()
    for step in range(80):
        if step % 5 == 0:
            z = torch.randn(4, 20, generator=gen) * curvature.sqrt()
            feed([param], stats, [[row] for row in z])
            optimizer.update_hessian()
            optimizer.zero_grad()
        param.grad = curvature * (param.detach() - target + 0.1 * torch.randn(20, generator=gen))
        optimizer.step()
    assert (param - target).square().mean().item() < 0.01 * start


@cache
def loss_of_network(kind: type, correction: str, second_moment: str, steps: int = 50) -> float:
    """Final loss of a small regression with four microbatches a step."""
    groups = 2 if correction.startswith("cross_fit") else 1
    case = Case(kind, {"correction": correction, "second_moment": second_moment}, groups)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1)
    )
    optimizer, stats = case.attached(model.parameters(), lr=0.03)
    x = torch.randn(256, 3)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2] - x[:, 2:]
    for step in range(steps):
        batch = torch.randint(256, (4, 16), generator=torch.Generator().manual_seed(step))
        for rows in batch:
            with stats.microbatch():
                loss = (model(x[rows]) - y[rows]).square().mean()
                (loss / 4).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.validity().misaligned == 0
    return (model(x) - y).square().mean().item() / y.var().item()


@pytest.mark.parametrize(
    ("kind", "correction", "second_moment"),
    [
        (AdamW, "delta", "square_of_mean"),
        (AdamW, "cross_fit+delta", "square_of_mean"),
        (AdamW, "delta", "mean_of_squares"),
        (RMSprop, "delta", "square_of_mean"),
    ],
    ids=["AdamW", "AdamW-cross_fit+delta", "AdamW-mean_of_squares", "RMSprop"],
)
def test_a_small_network_learns_as_with_the_plain_rule(kind, correction, second_moment):
    # the share of the variance that is left; splitting makes smaller steps, so twice is allowed
    plain = loss_of_network(kind, "none", second_moment)
    assert plain < 0.3
    assert loss_of_network(kind, correction, second_moment) < 2 * plain
