"""Inside what people wrap around an optimizer: schedulers, closures, loops, forwarding classes."""

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    DEFAULTS,
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
from torch.optim import lr_scheduler

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG


class Forwarding:
    """Knows torch.optim's methods and nothing else, like the wrappers of training libraries."""

    def __init__(self, optimizer):
        self._inner = optimizer

    state = property(lambda self: self._inner.state)
    param_groups = property(lambda self: self._inner.param_groups)
    defaults = property(lambda self: self._inner.defaults)

    def step(self, closure=None):
        return self._inner.step(closure)

    def zero_grad(self, set_to_none=True):
        self._inner.zero_grad(set_to_none)

    def state_dict(self):
        return self._inner.state_dict()

    def load_state_dict(self, state_dict):
        self._inner.load_state_dict(state_dict)

    def add_param_group(self, group):
        self._inner.add_param_group(group)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_wrapper_that_forwards_torchs_methods_is_no_hindrance(case):
    runs = []
    for wrap in (lambda optimizer: optimizer, Forwarding):
        params = [parameter(4)]
        inner, stats = case.attached(params, lr=0.05)
        optimizer, gen = wrap(inner), generator()
        for _ in range(4):
            feed(params, stats, microbatches(params, 4, gen))
            optimizer.step()
            optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
        feed(params, stats, microbatches(params, 4, gen))
        optimizer.step()
        runs.append(params)
        assert inner.validity().corrected == 5
    assert same_bits(*runs)


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=2, gamma=0.5),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=8),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=0.1, total_steps=12, cycle_momentum="betas" in o.defaults
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("case", DEFAULTS, ids=names(DEFAULTS))
def test_a_scheduler_sets_the_learning_rate_and_the_betas_that_a_step_uses(case, schedule):
    params, others = [parameter(4)], [parameter(4)]
    optimizer, stats = case.attached(params, lr=0.05)
    by_hand, other_stats = case.attached(others, lr=0.05)
    scheduler = schedule(optimizer)
    rates, gen = set(), generator()
    for _ in range(8):
        batch = microbatches(params, 4, gen)
        feed(params, stats, batch)
        feed(others, other_stats, batch)
        names_set = ("lr", "betas") if "betas" in optimizer.defaults else ("lr",)
        for name in names_set:
            by_hand.param_groups[0][name] = optimizer.param_groups[0][name]
        rates.add(optimizer.param_groups[0]["lr"])
        optimizer.step()
        by_hand.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
    assert len(rates) > 1
    assert same_bits(params, others)


def test_a_cycle_of_momentum_keeps_the_correction_finite():
    param = parameter(4)
    optimizer, stats = Case(AdamW).attached([param], lr=0.05, betas=(0.95, 0.99))
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=30)
    gen, seen = generator(), set()
    for _ in range(29):
        feed([param], stats, microbatches([param], 4, gen))
        optimizer.step()
        scheduler.step()
        seen.add(optimizer.param_groups[0]["betas"])
    assert len(seen) > 10
    assert all(torch.isfinite(t).all() for t in snapshot(optimizer))
    assert 0 < optimizer.validity().inversion < 0.3


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG], ids=lambda kind: kind.__name__)
def test_a_closure_is_called_once_with_gradients_on_and_its_loss_returned(kind):
    weight = parameter(3)
    optimizer = kind([weight], lr=0.1)
    stats = MicrobatchStats([weight])
    optimizer.attach(stats)
    calls = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = torch.zeros(())
        for target in (0.0, 1.0, 2.0):
            with stats.microbatch():
                part = ((weight - target) ** 2).sum() / 3
                part.backward()
            loss = loss + part.detach()
        calls.append(loss.item())
        return loss

    before = weight.detach().clone()
    with quietly():
        loss = optimizer.step(closure)
    assert [loss.item()] == calls
    assert not torch.equal(before, weight)
    if kind is not SophiaG:
        assert optimizer.validity().corrected == 1


def test_hooks_of_torch_run_around_the_step():
    param = parameter(3)
    optimizer = AdamW([param], correction="none")
    order = []
    optimizer.register_step_pre_hook(lambda *_: order.append("before"))
    optimizer.register_step_post_hook(lambda *_: order.append("after"))
    param.grad = torch.ones(3)
    optimizer.step()
    assert order == ["before", "after"]


def test_two_optimizers_may_share_a_model_and_each_its_statistics():
    first, second = parameter(3), parameter(2, seed=2)
    one, its = Case(AdamW).attached([first])
    other, others = Case(RMSprop).attached([second])
    gen = generator()
    for _ in range(3):
        feed([first], its, microbatches([first], 3, gen))
        feed([second], others, microbatches([second], 3, gen))
        one.step()
        other.step()
    assert one.validity().corrected == other.validity().corrected == 3


def test_tied_weights_and_reused_modules_are_one_parameter():
    torch.manual_seed(0)
    shared = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(shared, torch.nn.Tanh(), shared)
    optimizer = AdamW(model.parameters(), lr=0.01)
    stats = MicrobatchStats(model.parameters())
    optimizer.attach(stats)
    for _ in range(3):
        for _ in range(4):
            with stats.microbatch():
                (model(torch.randn(5, 4)).square().mean() / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
    counts = optimizer.validity()
    assert (counts.corrected, counts.misaligned) == (3, 0)
