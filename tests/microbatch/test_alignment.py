"""The factor between gradients and the means of their microbatches, for many tensors at once."""

import pytest
import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.alignment import fitting_units

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SHAPES = [(), (1,), (0,), (3, 4), (300, 200), (257, 513)]
"""The last two are looked at in more pieces than one."""


def records(dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    stats = MicrobatchStats(params)
    for _ in range(4):
        draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
        stats.add([(scale * (1 + x)).to(dtype) for x in draws])
    return [stats.result()[p] for p in params]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, -3.0, 1e-25])
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_the_unit_is_the_one_that_scaling_each_record_finds(dtype, factor, scale):
    made = records(dtype, scale)
    grads = [r.mean * factor for r in made]
    units, misfits = fitting_units([r.scaled_mean for r in made], [r.scale for r in made], grads)
    assert sum(map(int, misfits)) == 0
    for record, grad, unit in zip(made, grads, units, strict=True):
        scaled, aligned = record.scaled_to(grad)
        assert aligned
        torch.testing.assert_close(unit, scaled.scale, rtol=1e-5, atol=0)


@pytest.mark.parametrize("place", range(3, 6))
@pytest.mark.parametrize("bad", ["other", "nan", "inf"])
def test_a_gradient_that_is_not_the_mean_has_unit_zero_and_is_counted(place, bad):
    made = records()
    grads = [r.mean.clone() for r in made]
    if bad == "other":
        grads[place] += grads[place].abs().amax() * torch.linspace(-1, 1, grads[place].shape[-1])
    else:
        grads[place].view(-1)[-1] = float(bad)
    units, (misfits,) = fitting_units([r.scaled_mean for r in made], [r.scale for r in made], grads)
    assert misfits == 1
    assert [bool(u == 0) for u in units] == [i == place for i in range(len(made))]


def test_dtypes_are_looked_at_apart_and_answered_in_order():
    single, double = records(), records(torch.float64)
    mixed = [r for pair in zip(single, double, strict=True) for r in pair]
    units, misfits = fitting_units(
        [r.scaled_mean for r in mixed], [r.scale for r in mixed], [2 * r.mean for r in mixed]
    )
    assert [u.dtype for u in units] == [r.scaled_mean.dtype for r in mixed]
    assert all(u == pytest.approx(2 * float(r.scale)) for u, r in zip(units, mixed, strict=True)
               if r.scaled_mean.numel())  # fmt: skip
    assert len(misfits) == 2


def test_a_mean_of_zero_fits_a_gradient_of_zero_only():
    zero, one = torch.zeros(5), torch.ones(5)
    units, (misfits,) = fitting_units([zero, zero], [torch.tensor(4.0)] * 2, [zero, one])
    assert [float(u) for u in units] == [4.0, 0.0]
    assert misfits == 1
