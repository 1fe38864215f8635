"""Whether gradients are the means of their microbatches up to a factor, and which factor.

For many tensors at once: a step looks at every parameter, and most of them are small.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from deltabias.microbatch.fused_sums import inner_products
from deltabias.microbatch.layout import local
from deltabias.one_pass import compiler_missing

_CPU_PIECE = 2**16
_PIECE = 2**24


@torch.no_grad()
def fitting_units(
    means: Sequence[Tensor],
    scales: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    tolerance: float = 1e-2,
) -> tuple[list[Tensor], list[Tensor]]:
    """The units in which `means` come closest to `grads`, 0 where they do not come close.

    The test of `Moments.scaled_to` by inner products, |x - s y|² = <x,x> - <x,y>²/<y,y>, taken in
    pieces that fit a cache and summed in fp64: no tensor of the gradient's size is made. Each
    piece's products are good to some 1e-5 of the whole, a tenth of the squared tolerance. Large
    tensors on a CPU take one compiled loop, a third of the time. Nothing waits for the device.

    Parameters
    ----------
    means, scales
        ``scaled_mean`` and ``scale`` of each record
    grads
        what is compared with each, of any dtype

    Returns
    -------
    units, misfits
        for each record a 0-d tensor on its device, in the mean's dtype; for each device and dtype
        how many records do not fit, 0-d int64
    """
    kinds: dict[tuple, list[int]] = {}
    for i, mean in enumerate(means):
        kinds.setdefault((mean.device, mean.dtype), []).append(i)
    units, misfits = [torch.empty(())] * len(means), []
    for chosen in kinds.values():
        scale = torch.stack([scales[i] for i in chosen])
        columns = [grads[i] for i in chosen], [means[i] for i in chosen]
        products = _products(*columns, 1 / scale, compile_it=not compiler_missing())
        slope, aligned = _judged(products, tolerance)
        fitting = torch.where(aligned, (slope * scale).to(scale.dtype), 0.0)
        for i, unit in zip(chosen, fitting.unbind(), strict=True):
            units[i] = unit
        misfits.append((~aligned).sum())
    return units, misfits


@torch.no_grad()
def alignment(
    mean: Tensor, scale: Tensor, grad: Tensor, *, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The unit and whether it fits, of one record."""
    slope, aligned = _judged(_products([grad], [mean], 1 / scale.view(1)), tolerance)
    return (slope[0] * scale).to(scale.dtype), aligned[0]


def _judged(products: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The factor s, 1 where the mean is zero, and whether s y is close to x."""
    mixed, square, whole = products.unbind(1)
    slope = mixed / torch.where(square > 0, square, 1.0)
    aligned = whole - slope * mixed <= tolerance**2 * whole  # False for NaN
    return torch.where(square > 0, slope, 1.0), aligned


def _products(
    grads: Sequence[Tensor],
    means: Sequence[Tensor],
    inverse: Tensor,
    *,
    compile_it: bool = False,
) -> Tensor:
    """<x, y>, <y, y> and <x, x> of each x = grad · inverse and y = mean, as fp64."""
    pairs = [_flat(local(g).detach(), y) for g, y in zip(grads, means, strict=True)]
    on_cpu = means[0].device.type == "cpu"
    size = _CPU_PIECE if on_cpu else _PIECE
    large = {i for i, (_, y) in enumerate(pairs) if compile_it and on_cpu and len(y) > size}
    factors = inverse.unbind()
    rest = [i for i in range(len(pairs)) if i not in large]
    rows = dict(zip(rest, _in_pieces([(*pairs[i], factors[i]) for i in rest], size), strict=True))
    rows |= {i: inner_products(*pairs[i], factors[i]) for i in large}
    return torch.stack([rows[i] for i in range(len(pairs))])


def _in_pieces(rows: Sequence[tuple[Tensor, Tensor, Tensor]], size: int) -> list[Tensor]:
    """The products of each row, from pieces that fit fp32 and, on a CPU, a cache."""
    sums, counts = [], []
    for grad, mean, factor in rows:
        whole = len(mean) <= size
        pieces = [(grad, mean)] if whole else zip(grad.split(size), mean.split(size), strict=True)
        before = len(sums)
        for piece, y in pieces:
            x = piece.to(y.dtype) * factor
            sums += [torch.dot(x, y), torch.dot(y, y), torch.dot(x, x)]
        counts.append((len(sums) - before) // 3)
    if not rows:
        return []
    parts = torch.stack(sums).double().view(-1, 3).split(counts)
    return [part[0] if len(part) == 1 else part.sum(0) for part in parts]


def _flat(grad: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one order."""
    if grad.stride() != mean.stride() or not mean.is_contiguous():
        grad, mean = grad.contiguous(), mean.contiguous()
    return grad.view(-1), mean.view(-1)
