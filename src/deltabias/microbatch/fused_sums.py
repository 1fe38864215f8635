"""A microbatch taken into the running moments, and their products with a gradient, in one pass.

The arithmetic is that of `deltabias.microbatch.block`, for one element at a time: every sum is
read once and written once. Made to be compiled by `deltabias.one_pass`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deltabias.one_pass import compiled


def _shift(mean: Tensor, grad: Tensor, scalars: Tensor) -> tuple[Tensor, ...]:
    """The new mean; how far old (down) and new (up) lie from it; both shares of the weight."""
    ours, theirs, factor = scalars.unbind()
    delta = grad.to(mean.dtype) * factor - mean
    return mean + delta * theirs, delta * -theirs, delta * ours, ours, theirs


def take_2(mean, grad, c2, scalars) -> None:
    """One more observation for the mean and c₂.

    ``scalars`` are the shares (old, new) of the weight, and what the gradient is multiplied by to
    be in the units of the sums.
    """
    center, down, up, ours, theirs = _shift(mean, grad, scalars)
    second = c2 + down * down
    mean.copy_(center)
    c2.copy_(second * ours + up * up * theirs)


def take_3(mean, grad, c2, c3, scalars) -> None:
    """The same with c₃."""
    center, down, up, ours, theirs = _shift(mean, grad, scalars)
    square = down * down
    third = c3 + (square + 3 * c2) * down
    mean.copy_(center)
    c2.copy_((c2 + square) * ours + up * up * theirs)
    c3.copy_(third * ours + up * up * up * theirs)


def take_4(mean, grad, c2, c3, c4, scalars) -> None:
    """The same with c₃ and c₄."""
    center, down, up, ours, theirs = _shift(mean, grad, scalars)
    square = down * down
    fourth = c4 + ((square + 6 * c2) * down + 4 * c3) * down
    third = c3 + (square + 3 * c2) * down
    rise = up * up
    mean.copy_(center)
    c2.copy_((c2 + square) * ours + rise * theirs)
    c3.copy_(third * ours + rise * up * theirs)
    c4.copy_(fourth * ours + rise * rise * theirs)


_TAKE: dict[int, Callable[..., None]] = {1: take_2, 2: take_3, 3: take_4}


def take(
    mean: Tensor, grad: Tensor, central: Sequence[Tensor], numbers: tuple[float, float, float]
) -> None:
    """One microbatch into the sums: flat tensors of one size; `numbers` as in `take_2`."""
    function = _TAKE[len(central)]
    scalars = torch.tensor(numbers, dtype=mean.dtype)
    # a size of 1 would be a graph of its own
    loop = compiled(function) if mean.numel() > 1 else function
    loop(mean, grad, *central, scalars)


def _products(grad: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    x = (grad.to(mean.dtype) * inverse).double()  # units first: squares of 1e-30 are 0 in fp32
    y = mean.double()
    return torch.stack([(x * y).sum(), (y * y).sum(), (x * x).sum()])


def inner_products(grad: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """<x, y>, <y, y> and <x, x> in fp64, of x = grad · inverse and y = mean; both flat."""
    return compiled(_products)(grad, mean, inverse)
