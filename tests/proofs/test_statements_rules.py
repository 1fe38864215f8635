"""The steps that theory/rules.v relates are the ones that torch.optim takes."""

import math

import pytest
import torch
from tests.proofs.coverage import evaluates

LR, B1, B2, EPS = 0.03, 0.9, 0.95, 0.01
GRADIENTS = [0.7, -1.3, 0.2, 2.1, -0.4, 0.9, -0.05, 1.1]
START = 0.5


def adam(t, state, g, lr=LR, b1=B1, b2=B2, eps=EPS):
    """``adam_step``, operation for operation."""
    p, m, v = state
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * (g * g)
    step_size = lr / (1 - b1**t)
    denom = math.sqrt(v) / math.sqrt(1 - b2**t) + eps
    return p - step_size * (m / denom), m, v


def adamw(t, state, g, decay):
    p, m, v = state
    return adam(t, (p * (1 - LR * decay), m, v), g)


def rmsprop(t, state, g):
    p, m, v = state
    v = B2 * v + (1 - B2) * (g * g)
    return p - LR * (g / (math.sqrt(v) + EPS)), m, v


def adagrad(t, state, g, eps=EPS):
    p, m, v = state
    v = v + g * g
    return p - LR * (g / (math.sqrt(v) + eps)), m, v


def shampoo_1d(t, state, g):
    p, m, v = state
    v = v + g * g
    return p - LR * (v ** (-1 / 4) * g * v ** (-1 / 4)), m, v


def rmsprop_as_adam(t, state, g):
    root = math.sqrt(1 - B2**t)
    return adam(t, state, g, LR / root, 0.0, B2, EPS / root)


def run(step, second=0.0):
    """The parameter after each gradient."""
    state, path = (START, 0.0, second), []
    for t, g in enumerate(GRADIENTS, start=1):
        state = step(t, state, g)
        path.append(state[0])
    return path


def torch_run(optimizer, **options):
    parameter = torch.nn.Parameter(torch.tensor([START], dtype=torch.float64))
    made, path = optimizer([parameter], lr=LR, **options), []
    for g in GRADIENTS:
        parameter.grad = torch.tensor([g], dtype=torch.float64)
        made.step()
        path.append(parameter.item())
    return path


PAIRS = {
    "adam": (adam, torch.optim.Adam, {"betas": (B1, B2), "eps": EPS}),
    "adamw": (
        lambda t, s, g: adamw(t, s, g, 0.1),
        torch.optim.AdamW,
        {"betas": (B1, B2), "eps": EPS, "weight_decay": 0.1},
    ),
    "rmsprop": (rmsprop, torch.optim.RMSprop, {"alpha": B2, "eps": EPS}),
    "adagrad": (adagrad, torch.optim.Adagrad, {"eps": EPS}),
}


@pytest.mark.parametrize(("step", "optimizer", "options"), PAIRS.values(), ids=PAIRS)
def test_steps_of_the_theory_are_the_steps_of_torch(step, optimizer, options):
    for foreach in (False, True):
        assert run(step) == pytest.approx(
            torch_run(optimizer, foreach=foreach, **options), rel=1e-13, abs=1e-15
        )


@evaluates(
    "rules.adamw_without_decay_is_adam",
    "rules.adamw_direction",
    "rules.adam_as_written",
    "rules.same_run",
)
def test_adamw_without_decay_is_adam():
    assert run(lambda t, s, g: adamw(t, s, g, 0.0)) == run(adam)
    options = {"betas": (B1, B2), "eps": EPS}
    assert torch_run(torch.optim.AdamW, weight_decay=0.0, **options) == torch_run(
        torch.optim.Adam, **options
    )
    state, t, g = (0.5, 0.2, 0.3), 3, -1.1
    p, m, v = adam(t, state, g)
    assert adamw(t, state, g, 0.1)[0] == pytest.approx(p - LR * 0.1 * 0.5, rel=1e-14)
    textbook = (m / (1 - B1**t)) / (math.sqrt(v / (1 - B2**t)) + EPS)
    assert p == pytest.approx(0.5 - LR * textbook, rel=1e-14)


@evaluates("rules.rmsprop_is_adam_without_momentum", "rules.rmsprop_step_is_undebiased")
def test_rmsprop_is_adam_without_momentum_once_debiasing_is_undone():
    assert run(rmsprop_as_adam) == pytest.approx(run(rmsprop), rel=1e-13)
    # undone it has to be: the bare Adam with b1 = 0 is another rule
    bare = run(lambda t, s, g: adam(t, s, g, b1=0.0))
    assert bare != pytest.approx(run(rmsprop), rel=1e-3)


@evaluates(
    "rules.shampoo_1d_direction", "rules.shampoo_1d_is_adagrad", "rules.shampoo_one_sided_1d"
)
def test_shampoo_in_one_dimension_is_adagrad_without_eps():
    expected = run(lambda t, s, g: adagrad(t, s, g, eps=0.0), second=0.1)
    assert run(shampoo_1d, second=0.1) == pytest.approx(expected, rel=1e-13)
    one_sided = 3.0 ** (-1 / 2) * 0.7
    assert one_sided == pytest.approx(0.7 / math.sqrt(3.0), rel=1e-14)


@evaluates("rules.foreach_is_single")
def test_foreach_is_single():
    operations, values = [math.sqrt, lambda x: x + EPS, lambda x: 1 / x], [0.3, 2.0, 5.0]
    listwise = values
    for operation in operations:
        listwise = [operation(x) for x in listwise]
    single = []
    for x in values:
        for operation in operations:
            x = operation(x)
        single.append(x)
    assert listwise == single
