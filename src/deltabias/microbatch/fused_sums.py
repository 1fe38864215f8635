"""A microbatch taken into the running moments, and their products with a gradient, in one pass.

The arithmetic is that of `deltabias.microbatch.block`, for one element at a time: every sum is
read once and written once. Made to be compiled by `deltabias.one_pass`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deltabias.one_pass import SMALL, call_flat, compiled


def _shift(
    grad: Tensor, mean: Tensor, ratio: Tensor, inverse: Tensor, scalars: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The new mean; how far old (down) and new (up) lie from it; both shares of the weight."""
    ours, theirs, divisor = scalars.unbind()
    old = mean * ratio
    delta = grad.to(mean.dtype) / divisor * inverse - old
    return old + delta * theirs, delta * -theirs, delta * ours, ours, theirs


def take_2(mean, grad, c2, ratio, inverse, scalars) -> None:
    """One more observation for the mean and c₂.

    ``ratio`` is the old unit over the new one, ``inverse`` one over the new one; ``scalars`` are
    the shares (old, new) of the weight, and what the gradient is divided by.
    """
    center, down, up, ours, theirs = _shift(grad, mean, ratio, inverse, scalars)
    second = c2 * (ratio * ratio) + down * down
    mean.copy_(center)
    c2.copy_(second * ours + up * up * theirs)


def take_3(mean, grad, c2, c3, ratio, inverse, scalars) -> None:
    """The same with c₃."""
    center, down, up, ours, theirs = _shift(grad, mean, ratio, inverse, scalars)
    square, power = down * down, ratio * ratio
    second = c2 * power
    third = c3 * (power * ratio) + (square + 3 * second) * down
    mean.copy_(center)
    c2.copy_((second + square) * ours + up * up * theirs)
    c3.copy_(third * ours + up * up * up * theirs)


def take_4(mean, grad, c2, c3, c4, ratio, inverse, scalars) -> None:
    """The same with c₃ and c₄."""
    center, down, up, ours, theirs = _shift(grad, mean, ratio, inverse, scalars)
    square, power = down * down, ratio * ratio
    second, third = c2 * power, c3 * (power * ratio)
    fourth = c4 * (power * power) + ((square + 6 * second) * down + 4 * third) * down
    third = third + (square + 3 * second) * down
    rise = up * up
    mean.copy_(center)
    c2.copy_((second + square) * ours + rise * theirs)
    c3.copy_(third * ours + rise * up * theirs)
    c4.copy_(fourth * ours + rise * rise * theirs)


_TAKE: dict[int, Callable[..., None]] = {2: take_2, 3: take_3, 4: take_4}


def take(
    grads: Sequence[Tensor],
    mean: Sequence[Tensor],
    central: dict[int, Sequence[Tensor]],
    ratio: Tensor,
    inverse: Tensor,
    numbers: tuple[float, float, float],
) -> None:
    """One microbatch into the sums of many tensors; `ratio` and `inverse` have one entry each."""
    # the mean comes first: its dtype is that of the arithmetic, and its order in memory leads
    columns = [mean, grads, *central.values(), ratio.unbind(), inverse.unbind()]
    written = [True, False, *[True] * len(central), False, False]
    call_flat(_TAKE[max(central)], columns, numbers, lead=0, written=written)


def _products(grad: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    x = (grad.to(mean.dtype) * inverse).double()  # units first: squares of 1e-30 are 0 in fp32
    y = mean.double()
    return torch.stack([(x * y).sum(), (y * y).sum(), (x * x).sum()])


def inner_products(grad: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """<x, y>, <y, y> and <x, x> in fp64, of x = grad · inverse and y = mean.

    Both lie contiguously; small ones are not worth the call of a compiled graph.
    """
    loop = compiled(_products) if grad.numel() > SMALL else _products
    return loop(grad.view(-1), mean.view(-1), inverse)
