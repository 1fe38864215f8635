"""Statistics every k-th step: when they are taken, and what is left of the bias.

The check of tests/optim/test_bias.py, with shares: 20,000 coordinates, 16 microbatches, 60 steps,
normal gradients, noise share 0.78; what is left, with 4.9 standard errors, is at most 30 % of the
plain update's bias, known in closed form. Seed, n and threshold are fixed.
"""

from functools import cache

import pytest
import torch
from tests.optim.test_bias import (
    ALLOWED,
    BETAS,
    COORDINATES,
    MICROBATCHES,
    SEED,
    SHARE,
    SIGMAS,
    STEPS,
    updates,
)
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop
from deltabias.truth import ema_weights, relative_bias_adam

AVERAGES = {
    AdamW: {"betas": tuple(map(float, BETAS)), "weight_decay": 0.0},
    RMSprop: {"alpha": float(BETAS[0])},
}


def last_update(
    every: int, storage: str | None, correction: str, kind: type = AdamW
) -> torch.Tensor:
    """The last step's update of every coordinate; the gradients are those of `updates`."""
    sigma = (SHARE / (1 - SHARE) * MICROBATCHES) ** 0.5
    param = Parameter(torch.zeros(COORDINATES, dtype=torch.float64))
    optimizer = kind(
        [param], lr=1.0, eps=0.0, correction=correction, storage=storage, **AVERAGES[kind]
    )
    stats = MicrobatchStats([param], moments=3, every=every)
    optimizer.attach(stats)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(STEPS):
        grads = torch.randn(MICROBATCHES, COORDINATES, generator=generator, dtype=torch.float64)
        grads.mul_(sigma).add_(1.0)
        for grad in grads:
            stats.add([grad])
        param.grad = grads.mean(0)
        before = param.detach().clone()
        optimizer.step()
    assert optimizer.validity().misaligned == 0
    return before - param.detach()


def left(every: int, storage: str, correction: str = "delta") -> tuple[float, float]:
    """The bias that is left as a share of the plain one, and its standard error."""
    a, b = (ema_weights(beta, STEPS) for beta in BETAS)
    bias = relative_bias_adam(SHARE, a, b, statistic="square_of_mean", microbatches=MICROBATCHES)
    size = (1 + SHARE / (1 - SHARE)) ** -0.5
    apart = (last_update(every, storage, correction) - updates("none", "square_of_mean")) / size
    error = apart.std().item() / COORDINATES**0.5
    return (bias + apart.mean().item()) / bias, error / abs(bias)


@cache
def plain_rmsprop() -> torch.Tensor:
    return last_update(1, None, "none", RMSprop)


def left_by_rmsprop(every: int, storage: str, correction: str = "delta") -> tuple[float, float]:
    """As `left`: its numerator is the newest gradient, and its second moment is not debiased."""
    weights = ema_weights(BETAS[0], STEPS)
    newest = [0] * (STEPS - 1) + [1]
    bias = relative_bias_adam(
        SHARE, newest, weights, statistic="square_of_mean", microbatches=MICROBATCHES
    )
    size = ((1 + SHARE / (1 - SHARE)) * (1 - float(BETAS[0]) ** STEPS)) ** -0.5
    apart = (last_update(every, storage, correction, RMSprop) - plain_rmsprop()) / size
    error = apart.std().item() / COORDINATES**0.5
    return (bias + apart.mean().item()) / bias, error / abs(bias)


@pytest.mark.parametrize(
    ("every", "storage", "correction"),
    [
        (1, "bfloat16", "delta"),
        (4, "float32", "delta"),
        (10, "int8", "delta"),
        (10, "int8", "closed_form"),
    ],
)
def test_shares_leave_at_most_thirty_percent_of_the_bias(every, storage, correction):
    share, error = left(every, storage, correction)
    assert abs(share) + SIGMAS * error <= ALLOWED, (share, error)


@pytest.mark.parametrize(
    ("every", "storage", "correction"),
    [
        (1, "bfloat16", "delta"),
        (4, "float32", "delta"),
        (10, "int8", "delta"),
        (10, "int8", "closed_form"),
    ],
)
def test_so_do_those_of_rmsprop(every, storage, correction):
    share, error = left_by_rmsprop(every, storage, correction)
    assert abs(share) + SIGMAS * error <= ALLOWED, (share, error)


@pytest.mark.parametrize(("kind", "remaining"), [(AdamW, left), (RMSprop, left_by_rmsprop)])
def test_the_same_check_rejects_shares_without_their_coupling(monkeypatch, kind, remaining):
    whole = kind._step_scalars

    def without_coupling(self, *arguments):
        return {**whole(self, *arguments), "push": 0.0}

    monkeypatch.setattr(kind, "_step_scalars", without_coupling)
    share, error = remaining(10, "int8")
    assert abs(share) - SIGMAS * error > ALLOWED, (share, error)


def test_a_held_step_of_rmsprop_couples_with_its_own_gradient():
    # the averages are kept, the coupling is not: the step turns with the sign of its gradient
    optimizers = []
    for sign in (1.0, -1.0):
        param = Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = RMSprop([param], alpha=0.5, storage="float32")
        stats = MicrobatchStats([param], every=2)
        optimizer.attach(stats)
        for factor in (1.0, 1.0, 1.0, sign):
            for value in (0.2, 1.8):  # no skewness
                stats.add([torch.tensor([value * factor], dtype=torch.float64)])
            param.grad = torch.tensor([factor], dtype=torch.float64)
            before = param.detach().clone()
            optimizer.step()
        optimizers.append((param.detach() - before, optimizer.state[param]))
    (first, state), (second, other) = optimizers
    assert torch.equal(first, -second)
    assert "skewness_kept" not in state
    assert float(state["noise_share_kept"]) == float(other["noise_share_kept"]) > 0
    # more than the plain step: the coupling pulls back more than the inversion pushes here
    plain = 0.01 / float(state["square_avg"].sqrt() + 1e-8)
    assert abs(float(first)) > 1.01 * plain


def test_the_noise_couples_with_the_average_of_now_not_with_that_of_the_last_look():
    # microbatches lie evenly about their mean: no skewness, so both corrections say the same
    updates = {}
    for correction in ("delta", "closed_form"):
        param = Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = AdamW(
            [param], lr=1.0, betas=(0.5, 0.9), eps=0.0, weight_decay=0.0,
            correction=correction, storage="float32",
        )  # fmt: skip
        stats = MicrobatchStats([param], moments=3, every=16)
        optimizer.attach(stats)
        for t in range(30):
            mean = 1.0 if t <= 16 else -1.0  # the looks are at t = 0 and 16
            for deviation in (-2.0, -1.0, 1.0, 2.0):
                stats.add([torch.full_like(param, mean + deviation)])
            param.grad = torch.full_like(param, mean)
            before = param.item()
            optimizer.step()
        updates[correction] = before - param.item()
    assert updates["delta"] == pytest.approx(updates["closed_form"], rel=0.01)


@pytest.mark.parametrize("kind", [AdamW, RMSprop])
def test_a_gradient_that_cancels_exactly_leaves_finite_shares(kind):
    # v = 0 and yet the microbatches differ: the relative cumulants have no bound there
    param = Parameter(torch.ones(3))
    optimizer = kind([param], storage="float32")
    stats = MicrobatchStats([param])
    optimizer.attach(stats)
    for _ in range(3):
        for value in (2.0, -1.0, -1.0):
            stats.add([torch.full((3,), value)])
        param.grad = torch.zeros(3)
        optimizer.step()
    assert torch.isfinite(param).all()
    assert all(torch.isfinite(t).all() for t in optimizer.state[param].values())


def test_every_third_step_is_looked_at_the_first_included():
    param = Parameter(torch.zeros(3))
    stats = MicrobatchStats([param], every=3)
    looked = []
    for _ in range(7):
        for _ in range(2):
            with stats.microbatch():
                param.sum().backward()
        taken = stats.consume()
        looked.append(taken.observed)
        assert taken.count == 2
        assert (taken[param] is not None) == taken.observed
    assert looked == [True, False, False, True, False, False, True]
    assert float(param.grad[0]) == 14.0  # the gradient itself is accumulated in every step


def test_in_between_nothing_is_set_aside_and_no_sum_is_kept():
    param = Parameter(torch.zeros(3))
    stats = MicrobatchStats([param], every=2)
    stats.add([torch.ones(3)])
    stats.consume()
    stats.add([torch.ones(3)])
    assert stats.count == 1
    assert all(mean is None for group in stats._groups for mean in group.mean)


def test_a_reset_step_is_counted_as_a_step():
    param = Parameter(torch.zeros(3))
    stats = MicrobatchStats([param], every=2)
    stats.add([torch.ones(3)])
    stats.reset()
    assert not stats.is_looking


@pytest.mark.parametrize("every", [0, -1, 2.0, True])
def test_a_number_of_steps_that_is_none_is_refused(every):
    with pytest.raises(ValueError, match="is not a number of steps; pass an integer >= 1"):
        MicrobatchStats([Parameter(torch.zeros(2))], every=every)


def test_merged_statistics_of_a_step_in_between_stay_in_between():
    param, other = Parameter(torch.zeros(2)), Parameter(torch.zeros(2))
    mine, theirs = (MicrobatchStats([p], every=2) for p in (param, other))
    for stats in (mine, theirs):
        stats.add([torch.ones(2)])
        stats.consume()
        stats.add([torch.ones(2)])
    mine.merge(theirs)
    taken = mine.consume()
    assert (taken.count, taken.observed) == (2, False)


def test_the_meter_of_shares_counts_the_skewness_s_part_of_the_coupling():
    # the mean is small beside the noise, so that skewness makes most of the coupling
    found = []
    for storage in (None, "float32"):
        param = Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = AdamW([param], lr=1e-3, betas=(0.5, 0.9), eps=0.0, storage=storage)
        stats = MicrobatchStats([param], moments=3)
        optimizer.attach(stats)
        for _ in range(60):
            for deviation in (3.0, -1.0, -1.0, -1.0):
                stats.add([torch.full_like(param, 0.3 + deviation)])
            param.grad = torch.full_like(param, 0.3)
            optimizer.step()
        found.append(optimizer.validity().coupling)
    assert found[1] == pytest.approx(found[0], rel=0.01)
