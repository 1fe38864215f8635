"""The look for gradients that are not finite: cheap first, and never wrong."""

import math
from unittest import mock

import pytest
import torch

from deltabias.optim import AdamW, checks

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def gradients(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = [(), (3,), (0,), (40, 50), (7, 2)]
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [*made, torch.randn(6, 5, generator=generator).to(dtype).t()]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("place", [0, 1, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_bad_element_anywhere_is_seen(dtype, place, value):
    grads = gradients(dtype)
    assert checks.all_finite(grads)
    grads[place][(-1,) * grads[place].dim()] = value
    assert not checks.all_finite(grads)


def test_infinities_of_both_signs_do_not_cancel():
    assert not checks.all_finite([torch.tensor([math.inf, 1.0, -math.inf])])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finite_gradients_whose_norm_overflows_are_looked_at_again_and_pass(dtype):
    grads = [torch.full((50, 50), torch.finfo(dtype).max, dtype=dtype), torch.ones(3, dtype=dtype)]
    assert not checks._surely_finite(grads)
    assert checks.all_finite(grads)


def test_dtypes_together_are_looked_at_together():
    grads = [g for dtype in DTYPES for g in gradients(dtype)]
    assert checks.all_finite(grads)
    grads[-1][0, 0] = math.nan
    assert not checks.all_finite(grads)


def test_no_gradient_is_finite():
    assert checks.all_finite([])
    assert checks.all_finite([torch.zeros(0)])


def test_a_good_step_looks_at_each_gradient_once():
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    optimizer = AdamW(params, correction="none")
    for param in params:
        param.grad = torch.ones(4)
    with (
        mock.patch.object(torch.Tensor, "aminmax", side_effect=AssertionError),
        mock.patch.object(torch, "_foreach_norm", wraps=torch._foreach_norm) as looks,
    ):
        optimizer.step()
    assert looks.call_count == 1
