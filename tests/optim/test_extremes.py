"""The ends of the number line: nothing overflows, nothing is poisoned, all recovers."""

import pytest
import torch
from tests.optim.cases import (
    CORRECTED,
    LIKE_TORCH,
    TORCH,
    Case,
    feed,
    generator,
    microbatches,
    names,
    parameter,
    quietly,
    snapshot,
)

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG

# decays so fast that a state falls through all of fp32's range within a test
FAST = {AdamW: [{"betas": (0.99, 0.3)}], RMSprop: [{"alpha": 0.3}]}
NO_MEMORY = {
    AdamW: [{"betas": (0.0, 0.9)}, {"betas": (0.9, 0.0)}, {"betas": (0.0, 0.0)}],
    RMSprop: [{"alpha": 0.0}],
}


def table(options):
    return [
        pytest.param(case, more, id=f"{case.name}-{next(iter(more.values()))}")
        for case in CORRECTED
        for more in options[case.kind]
    ]


def march(case: Case, scales, *, m=3, dtype=torch.float32, seed=0, **options):
    """One step per scale; every number stays finite. Returns optimizer, parameter and moves."""
    param = parameter(4, dtype=dtype)
    optimizer, stats = case.attached([param], weight_decay=0.0, **options)
    gen, moves = generator(seed), []
    for step, scale in enumerate(scales):
        before = param.detach().clone()
        grads = [[(scale * g.double()).to(dtype) for g in batch]
                 for batch in microbatches([param], m, gen)]  # fmt: skip
        feed([param], stats, grads)
        with quietly():
            optimizer.step()
        bad = [k for k, v in optimizer.state[param].items() if not torch.isfinite(v).all()]
        assert not bad, f"{bad} at {step=}"
        assert torch.isfinite(param).all(), f"parameter at {step=}"
        moves.append(param.detach() - before)
    return optimizer, param, moves


@pytest.mark.parametrize(("case", "options"), table(NO_MEMORY))
def test_averages_without_memory_stay_finite(case, options):
    # v falls from g² to 0 in a step: the ratio of old to new, and its powers, must stay finite
    march(case, [1.0] * 6 + [0.0] * 3 + [1.0] * 3 + [1e-12] * 3, **options)


@pytest.mark.parametrize(("case", "options"), table(FAST))
def test_gradients_that_stay_zero_let_everything_die_down(case, options):
    # v falls faster than beta1^t: what is kept relative to v² must not grow until it overflows
    _, _, moves = march(case, [1e15] * 3 + [0.0] * 90, **options)
    assert torch.isfinite(torch.stack(moves)).all()


@pytest.mark.parametrize("correction", ["none", "inversion", "closed_form", "delta"])
def test_a_parameter_whose_gradient_stays_zero_comes_to_rest(correction):
    # κ₃ of old gradients over the cube of a root that falls must not go on pushing
    options = {"lr": 1e-2, "alpha": 0.9}
    _, _, moves = march(Case(RMSprop, {"correction": correction}), [1.0] * 50 + [0.0] * 100,
                        m=4, **options)  # fmt: skip
    # torch's RMSprop does not move at all; one step of lr in a hundred is generous
    assert torch.stack(moves[50:]).sum(0).abs().max() < 1e-2


@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1e-6, 1e6, 1e15], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_tiny_and_huge_gradients_give_finite_steps_of_the_usual_size(case, scale):
    options = {"betas": (0.8, 0.9)} if case.kind is AdamW else {"alpha": 0.9}
    _, _, moves = march(case, [scale] * 6, lr=1e-3, **options)
    size = torch.stack(moves).abs()
    # |update| is at most about 1/√(1-beta2) for any history; a step of 1e-20 is below eps
    assert size.max() <= 1e-3 * 10
    assert (size.max() > 1e-4) == (scale > 1e-10)


@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_after_a_jump_of_the_gradient_all_is_forgotten(case):
    options = {"betas": (0.2, 0.3)} if case.kind is AdamW else {"alpha": 0.3}
    # 1e16 · 0.3^50 is 1e-10: after fifty steps the jump is nowhere left in v
    calm, jumpy = [1.0] * 55, [1.0] * 3 + [1e8] + [1.0] * 51
    _, _, undisturbed = march(case, calm, dtype=torch.float64, eps=0.0, **options)
    _, _, disturbed = march(case, jumpy, dtype=torch.float64, eps=0.0, **options)
    for a, b in zip(undisturbed[-2:], disturbed[-2:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_two_or_three_microbatches_are_enough_for_a_sane_step(case, m):
    _, _, moves = march(case, [1.0] * 12, m=m, lr=1e-3)
    plain = Case(case.kind, {**case.options, "correction": "none"})
    _, _, plainly = march(plain, [1.0] * 12, m=m, lr=1e-3)
    moves, plainly = torch.stack(moves)[5:], torch.stack(plainly)[5:]
    limit = 3.0 if case.groups == 1 else 30.0  # a fold of one microbatch divides by its square
    assert (moves.abs().max() / plainly.abs().max()) < limit


@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_microbatches_that_all_agree_leave_nothing_to_correct(case):
    param, other = parameter(4, dtype=torch.float64), parameter(4, dtype=torch.float64)
    optimizer, stats = case.attached([param], lr=0.05)
    reference = TORCH[case.kind]([other], lr=0.05, weight_decay=optimizer.defaults["weight_decay"])
    gen = generator()
    for _ in range(12):
        ((grad,),) = microbatches([param], 1, gen)
        feed([param], stats, [[grad.clone()] for _ in range(4)])
        other.grad = grad
        optimizer.step()
        reference.step()
    torch.testing.assert_close(param, other, rtol=1e-13, atol=1e-15)


def test_zero_gradients_from_the_first_step_move_nothing():
    for case in CORRECTED:
        if case.kind is AdamW or case.groups == 1:
            _, _, moves = march(case, [0.0] * 10)
            assert not torch.stack(moves).any(), case.name


@pytest.mark.parametrize("scales", [[0.0] * 8, [1e-20] * 8, [1e15] * 8, [1.0, 1e8, 1.0, 0.0] * 2],
                         ids=["zero", "tiny", "huge", "jumps"])  # fmt: skip
@pytest.mark.parametrize("betas", [(0.9, 0.9), (0.0, 0.0), (0.9, 0.0)], ids=str)
def test_sophia_stays_finite_and_within_its_clip(scales, betas):
    param = parameter(4)
    optimizer = SophiaG([param], lr=1e-2, betas=betas, weight_decay=0.0)
    stats = MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    gen = generator()
    for scale in scales:
        before = param.detach().clone()
        batch = [[scale * g for g in grads] for grads in microbatches([param], 3, gen)]
        feed([param], stats, batch)
        optimizer.update_hessian()
        optimizer.step()
        assert all(torch.isfinite(t).all() for t in snapshot(optimizer))
        assert (param - before).abs().max() <= 1.001e-2


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_microbatches_that_cancel_to_a_mean_of_exactly_zero_poison_nothing(case, scale):
    # v is then 0 while the third moment is not: a ratio of infinity meets a mean of zero
    param = parameter(3)
    optimizer, stats = case.attached([param])
    # its other entries tell in which units the statistics are
    for rows in ([[1.0] * 3, [1.0, 2.0, 1.0], [-2.0, 1.0, 1.0]], [[1.0, -1.0, 2.0]] * 3):
        feed([param], stats, [[scale * torch.tensor(row)] for row in rows])
        with quietly():
            optimizer.step()
        assert torch.isfinite(param).all()
        bad = [k for k, v in optimizer.state[param].items() if not torch.isfinite(v).all()]
        assert not bad
