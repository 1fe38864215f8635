"""Gradients that are not finite, sparse or complex: looked at before anything is touched."""

import math

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
    same_bits,
    snapshot,
)

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG

NAN, INF = math.nan, math.inf
KINDS = [AdamW, RMSprop, SophiaG]


def two_steps(case: Case, **options):
    """Two parameters, two good steps."""
    params = [parameter(3), parameter(2, 2, seed=2)]
    optimizer, stats = case.attached(params, **options)
    gen = generator()
    for _ in range(2):
        good(optimizer, stats, params, gen)
    return optimizer, stats, params, gen


def good(optimizer, stats, params, gen) -> None:
    feed(params, stats, microbatches(params, 4, gen))
    with quietly():
        optimizer.step()
    optimizer.zero_grad()


def spoil(params, stats, gen, value: float) -> None:
    """Four microbatches, one of which has `value` in one element of the last parameter."""
    grads = microbatches(params, 4, gen)
    grads[2][1][1, 0] = value
    feed(params, stats, grads)
    assert not torch.isfinite(params[1].grad).all()


@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_a_bad_microbatch_raises_and_leaves_every_bit_where_it_was(case, value):
    optimizer, stats, params, gen = two_steps(case)
    before = snapshot(optimizer)
    spoil(params, stats, gen, value)
    with pytest.raises(FloatingPointError, match=r"shape \(2, 2\) is not finite.*nonfinite='skip'"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))
    counts = optimizer.validity()
    assert (counts.steps, counts.skipped) == (2, 0)
    optimizer.zero_grad()
    good(optimizer, stats, params, gen)  # and the next one is a step like any other
    assert optimizer.validity().steps == 3
    assert all(torch.isfinite(t).all() for t in snapshot(optimizer))


@pytest.mark.parametrize("value", [NAN, INF], ids=str)
@pytest.mark.parametrize("case", CORRECTED, ids=names(CORRECTED))
def test_skipped_steps_are_counted_said_once_and_leave_no_trace(case, value):
    optimizer, stats, params, gen = two_steps(case, nonfinite="skip")
    before = snapshot(optimizer)
    spoil(params, stats, gen, value)
    with pytest.warns(RuntimeWarning, match="non-finite gradient was skipped"):
        optimizer.step()
    spoil(params, stats, gen, value)
    optimizer.step()  # silent: warnings are errors here
    assert same_bits(before, snapshot(optimizer))
    assert optimizer.validity().skipped == 2
    assert optimizer.validity().steps == 2
    assert not stats.is_fresh  # the next step does not see half of this one
    undisturbed, other_stats, others, _ = two_steps(case, nonfinite="skip")
    next_step = microbatches(params, 4, generator(5))
    feed(params, stats, next_step)
    feed(others, other_stats, next_step)
    with quietly():
        optimizer.step()
        undisturbed.step()
    assert same_bits(snapshot(optimizer), snapshot(undisturbed))


@pytest.mark.parametrize("kind", TORCH, ids=lambda kind: kind.__name__)
def test_ignoring_does_what_torch_does(kind):
    mine, other = parameter(4), parameter(4)
    ours = kind([mine], correction="none", nonfinite="ignore")
    theirs = TORCH[kind]([other])
    for grad in ([1.0, NAN, 2.0, INF], [1.0, 1.0, 1.0, 1.0]):
        mine.grad, other.grad = torch.tensor(grad), torch.tensor(grad)
        ours.step()
        theirs.step()
    assert mine.isnan().any()
    assert same_bits([mine], [other])


@pytest.mark.parametrize("case", LIKE_TORCH, ids=names(LIKE_TORCH))
def test_statistics_that_are_not_finite_are_not_used(case):
    # a finite gradient with spoiled statistics: nan_to_num_ on .grad, a skipped scaler step
    optimizer, stats, params, gen = two_steps(case)
    grads = microbatches(params, 4, gen)
    grads[1][1][0, 0] = NAN
    feed(params, stats, grads)
    for p in params:
        p.grad.nan_to_num_(0.0)
    optimizer.step()
    assert all(torch.isfinite(t).all() for t in snapshot(optimizer))
    assert optimizer.validity().misaligned >= 1


@pytest.mark.parametrize("position", [0, 1, 17, 63, 100], ids=str)
@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16],
                         ids=str)  # fmt: skip
def test_a_bad_element_is_found_wherever_it_is(dtype, value, position):
    good, bad = parameter(5, dtype=dtype), parameter(101, dtype=dtype)
    optimizer = AdamW([good, bad], correction="none")
    good.grad = torch.ones(5, dtype=dtype)
    bad.grad = torch.ones(101, dtype=dtype)
    bad.grad[position] = value
    with pytest.raises(FloatingPointError, match=r"shape \(101,\)"):
        optimizer.step()


@pytest.mark.parametrize("size", [1e39, 1e200, 1e300], ids=str)
def test_a_large_gradient_in_double_precision_is_finite(size):
    param = parameter(3, dtype=torch.float64)
    optimizer = AdamW([param], correction="none")
    param.grad = torch.full((3,), size, dtype=torch.float64)
    optimizer.step()
    assert optimizer.validity().steps == 1


def test_every_group_has_the_policy_it_was_given():
    careless, careful = parameter(2), parameter(2, seed=2)
    groups = [
        {"params": [careless], "nonfinite": "ignore"},
        {"params": [careful], "nonfinite": "raise"},
    ]
    optimizer = AdamW(groups, correction="none")
    careless.grad, careful.grad = torch.ones(2), torch.tensor([1.0, NAN])
    before = snapshot(optimizer)
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))


def test_sophia_looks_at_both_kinds_of_gradients():
    param = parameter(3)
    optimizer = SophiaG([param])
    stats = MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    feed([param], stats, microbatches([param], 3, generator()))
    optimizer.update_hessian()
    before = snapshot(optimizer)
    feed([param], stats, [[torch.tensor([1.0, NAN, 1.0])], [torch.ones(3)]])
    for call in (optimizer.step, optimizer.update_hessian):
        with pytest.raises(FloatingPointError, match="not finite; nothing was changed"):
            call()
        assert same_bits(before, snapshot(optimizer))


def test_sophia_skips_a_bad_curvature_update_and_counts_it():
    param = parameter(3)
    optimizer = SophiaG([param], nonfinite="skip")
    stats = MicrobatchStats([param], moments=2)
    optimizer.attach(stats)
    before = snapshot(optimizer)
    feed([param], stats, [[torch.tensor([1.0, INF, 1.0])], [torch.ones(3)]])
    with pytest.warns(RuntimeWarning, match="skipped"):
        optimizer.update_hessian()
    assert same_bits(before, snapshot(optimizer))
    assert optimizer.validity().skipped == 1
    assert not stats.is_fresh


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_sparse_gradients_are_refused_by_name_before_any_change(kind):
    embedding, dense = torch.nn.Embedding(4, 2, sparse=True), parameter(3)
    optimizer = kind([dense, embedding.weight])
    (embedding(torch.tensor([1, 2])).sum() + dense.sum()).backward()
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"sparse gradient .*sparse=False"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))
    if kind is SophiaG:
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.update_hessian()
        assert same_bits(before, snapshot(optimizer))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_complex_parameters_are_refused_by_name_and_not_added(kind):
    param = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(RuntimeError, match=r"complex parameter .*view_as_real"):
        kind([param])
    optimizer = kind([parameter(2)])
    with pytest.raises(RuntimeError, match="complex"):
        optimizer.add_param_group({"params": [param]})
    assert len(optimizer.param_groups) == 1
