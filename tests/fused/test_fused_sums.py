"""The compiled sums of a microbatch are the plain ones, for hostile tensors."""

import copy
import pickle
from unittest import mock

import pytest
import torch
from tests.fused.cases import draw, generator, needs_compiler, parameters

from deltabias.microbatch import MicrobatchStats, flat
from deltabias.optim import AdamW

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

CLOSE = 2e-6
"""Relative to the largest of a tensor's moments: some 16 roundings of fp32, for six microbatches
whose deviations are of the size of their mean."""


def both(params, moments=4, dtype=None):
    plain = MicrobatchStats(params, moments=moments, dtype=dtype)
    fused = MicrobatchStats(params, moments=moments, dtype=dtype)
    fused.fuse()
    return plain, fused


def close(first, second) -> bool:
    return all(
        (a is None and b is None)
        or (
            a.scale == b.scale
            and all(
                (x - y).abs().max() <= CLOSE * x.abs().max()
                for x, y in [
                    (a.scaled_mean, b.scaled_mean),
                    *((a.scaled_central[k], b.scaled_central[k]) for k in a.scaled_central),
                ]
                if x.numel()
            )
        )
        for a, b in zip(first, second, strict=True)
    )


def rows(params, count, factors=None):
    for r in range(count):
        grads = [draw(tuple(p.shape), generator(40 + r), torch.float32) for p in params]
        grads = [(1e-3 * g * (1 if factors is None else factors[r])).to(p.dtype)
                 for g, p in zip(grads, params, strict=True)]  # fmt: skip
        grads[1] = None if r % 2 else grads[1]
        yield grads


@needs_compiler
@pytest.mark.parametrize("moments", [2, 3, 4])
def test_fused_sums_are_the_plain_ones_for_every_shape(moments):
    params = parameters()
    plain, fused = both(params, moments)
    for weight, grads in enumerate(rows(params, 6), start=1):
        plain.add(grads, weight=weight)
        fused.add(grads, weight=weight)
    assert close(plain.result(), fused.result())
    assert fused.result().finite


@needs_compiler
def test_fused_sums_of_bf16_gradients_that_grow_change_their_unit_alike():
    params = parameters(torch.bfloat16)
    plain, fused = both(params, 3)
    for grads in rows(params, 4, [1e-12, 1.0, 1e3, 1e6]):
        plain.add(grads)
        fused.add(grads)
    assert close(plain.result(), fused.result())


@needs_compiler
def test_a_gradient_that_is_not_finite_is_seen_by_fused_sums_and_gone_in_the_next_step():
    params = parameters()
    _, fused = both(params, 2)
    grads = next(rows(params, 1))
    grads[8][3, 4] = float("inf")
    fused.add(grads)
    assert not fused.consume().finite
    fused.add(next(rows(params, 1)))
    assert fused.result().finite


@needs_compiler
def test_records_stay_as_they_were_while_fused_sums_go_on():
    params = parameters()
    _, fused = both(params, 2)
    first, second = rows(params, 2)
    fused.add(first)
    record = fused.result()[params[8]].mean.clone()
    held = fused.result()
    fused.add(second)
    assert torch.equal(held[params[8]].mean, record)


@needs_compiler
def test_an_optimizer_that_is_fused_fuses_its_statistics():
    params = parameters()
    optimizer = AdamW(params, fused=True)
    stats = MicrobatchStats(params, moments=3)
    optimizer.attach(stats)
    with mock.patch.object(flat, "take", wraps=flat.take) as take:
        for grads in rows(params, 3):
            stats.add(grads)
    assert take.call_count == 2 * len(stats._layout.buckets)  # the first one is a copy


@needs_compiler
@pytest.mark.parametrize("weight", [1e-30, 3.0, 1e30])
def test_weights_of_any_size_give_the_plain_sums(weight):
    params = parameters()
    plain, fused = both(params, 3)
    for grads in rows(params, 3):
        for p, g in zip(params, grads, strict=True):
            p.grad = None
            p.requires_grad_(g is not None)
        for stats in (plain, fused):
            with stats.microbatch(weight=weight):
                given = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
                sum((p * g).sum() * min(weight, 1.0) for p, g in given).backward()
    assert close(plain.result(), fused.result())


@needs_compiler
def test_a_parameter_that_comes_late_or_was_zero_so_far_gets_a_unit_of_its_own():
    params = parameters()
    plain, fused = both(params, 3)
    late, flat_so_far = 0, 8
    for r, grads in enumerate(rows(params, 5)):
        grads[late] = None if r < 2 else grads[late]
        grads[flat_so_far] = grads[flat_so_far] * (r > 2)
        plain.add(grads)
        fused.add(grads)
    assert close(plain.result(), fused.result())
    assert fused.result()[params[flat_so_far]].scale != 1


@needs_compiler
@pytest.mark.parametrize("absent", [(0, 1), (2,), (0, 1, 2)])
def test_a_bucket_without_any_gradient_in_a_microbatch_had_the_gradient_zero(absent):
    params = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3,), (4, 5), (600, 700))]
    plain, fused = both(params, 3)
    assert [len(bucket) for bucket in fused._layout.buckets] == [2, 1]
    for r in range(4):
        grads = [draw(tuple(p.shape), generator(r), torch.float32) for p in params]
        grads = [None if r in (0, 2) and i in absent else g for i, g in enumerate(grads)]
        plain.add(grads)
        fused.add(grads)
    assert close(plain.result(), fused.result())


@needs_compiler
def test_sums_of_fp64_parameters_and_of_two_dtypes_together_are_the_plain_ones():
    params = [*parameters(torch.float64, large=False), *parameters(torch.bfloat16, large=False)]
    plain, fused = both(params, 4)
    for grads in rows(params, 4):
        plain.add(grads)
        fused.add(grads)
    assert close(plain.result(), fused.result())
    assert fused.result()[params[0]].scaled_mean.dtype == torch.float64


@needs_compiler
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_made_within_a_step_goes_on_like_the_original(duplicate):
    params = parameters()
    _, fused = both(params, 2)
    *first, last = rows(params, 3)
    for grads in first:
        fused.add(grads)
    other = duplicate(fused)
    fused.add(last)
    other.add(last)
    pairs = zip(fused.result(), other.result(), strict=True)
    assert all(a is b is None or torch.equal(a.central[2], b.central[2]) for a, b in pairs)


@needs_compiler
def test_merging_fused_statistics_is_adding_their_microbatches():
    params = parameters()
    _, fused = both(params, 2)
    _, other = both(params, 2)
    plain, _ = both(params, 2)
    for r, grads in enumerate(rows(params, 5)):
        (fused if r < 3 else other).add(grads)
        plain.add(grads)
    fused.merge(other)
    fused.add(grads)
    plain.add(grads)
    assert close(plain.result(), fused.result())


@needs_compiler
def test_the_sums_of_a_step_use_the_memory_of_the_last_one_unless_a_record_is_held():
    params = parameters()
    _, fused = both(params, 2)

    def place(held: list) -> int:
        fused.add(next(rows(params, 1)))
        step = fused.consume()
        held.append(step[params[8]].scaled_mean[3:])
        return step[params[8]].scaled_mean.data_ptr()

    held: list[torch.Tensor] = []
    first, second = place(held), place(held)
    assert first != second
    before = held[0].clone()
    held.pop()
    assert place([]) != first
    assert torch.equal(held[0], before)
    held.clear()
    assert {place([]), place([]), place([])} & {first, second}


@needs_compiler
def test_a_microbatch_costs_the_same_passes_however_many_came_before():
    params = parameters()
    _, fused = both(params, 3)
    grads = next(rows(params, 1))
    fused.add(grads)
    calls = []
    for _ in range(20):
        with (
            mock.patch.object(flat, "take", wraps=flat.take) as take,
            mock.patch.object(flat, "peaks", wraps=flat.peaks) as looks,
        ):
            fused.add(grads)
        calls.append((take.call_count, looks.call_count))
    assert set(calls) == {(len(fused._layout.buckets), 0)}
