"""The compiled sums of a microbatch are the plain ones, for hostile tensors."""

import pytest
import torch
from tests.fused.cases import draw, generator, needs_compiler, parameters

from deltabias.microbatch import MicrobatchStats
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
def test_an_optimizer_that_is_fused_fuses_its_statistics_and_finds_the_same_factor():
    params = parameters()
    optimizer = AdamW(params, fused=True)
    stats = MicrobatchStats(params, moments=3)
    optimizer.attach(stats)
    for grads in rows(params, 3):
        stats.add(grads)
    record = stats.result()[params[8]]
    plain = record.alignment(record.mean * 7)
    fused = record.alignment(record.mean * 7, fused=True)
    assert plain[1]
    assert fused[1]
    torch.testing.assert_close(plain[0], fused[0], rtol=1e-6, atol=0)
    assert not record.alignment(record.mean.flip(0), fused=True)[1]
