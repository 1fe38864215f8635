"""Grafting: the direction of one optimizer with the step size of another.

Per block of a matrix, U is rescaled to the Frobenius norm of what the other optimizer would do with
the same momentum: ``sgd`` M̂, ``adam`` M̂/(√v̂ + ε), ``rmsprop`` M̂/(√v + ε) with v not debiased.
The correction then acts on the direction alone; the norm's own bias is left as it is.

Source: Agarwal, Anil, Hazan, Koren & Zhang, arXiv 2002.11803; per block as in Shi et al.,
arXiv 2309.06497, §3.3.
"""

import torch
from torch import Tensor

GRAFTINGS = (None, "sgd", "adam", "rmsprop")
SQUARED = ("adam", "rmsprop")
"""Those that keep a second moment of the gradient."""


def grafted(
    update: Tensor,
    momentum: Tensor,
    square: Tensor | None,
    kind: str | None,
    *,
    debias: float,
    eps: float,
) -> Tensor:
    """`update` [B, d, n] at the other's norm; a zero update stays zero.

    square
        EMA of the squared gradient, [B, d, n], not debiased; None for ``sgd``
    debias
        1 − β₂ᵗ
    """
    if kind is None:
        return update
    step = momentum
    if kind in SQUARED:
        second = square / debias if kind == "adam" else square
        step = momentum / (second.sqrt() + eps)
    wanted, own = _norm(step), _norm(update)
    return update * torch.where(own > 0, wanted / own, torch.zeros_like(own))


def _norm(blocks: Tensor) -> Tensor:
    """The Frobenius norm of each block, [B, 1, 1]; measured in units of its largest element."""
    peak = blocks.abs().amax((-2, -1), keepdim=True)
    unit = torch.where(peak > 0, peak, torch.ones_like(peak))
    return peak * (blocks / unit).square().sum((-2, -1), keepdim=True).sqrt()
