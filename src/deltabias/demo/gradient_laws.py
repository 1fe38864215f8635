"""The gradients of many microbatches at a frozen model: an empirical law per coordinate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deltabias.demo.transformer import ByteTransformer

MOST_ZEROS = 0.1
"""Coordinates without a gradient in more of the batches than this are left out.

They belong to rare bytes; a law of a few rare events is not described by its first cumulants.
"""

CANDIDATES = 16
"""So many times more coordinates are watched than are kept, to find those that have gradients."""


@dataclass(frozen=True)
class GradientLaws:
    """float64 ``[coordinates, microbatches]``, and the layer of each coordinate.

    Each row, drawn from with replacement, is the law of that coordinate's microbatch gradient.
    """

    gradients: np.ndarray
    layers: np.ndarray

    @property
    def names(self) -> list[str]:
        """The layers in the order of the model."""
        return list(dict.fromkeys(self.layers.tolist()))

    def moment(self, order: int) -> np.ndarray:
        """E gᵏ of each coordinate's law."""
        return (self.gradients**order).mean(axis=1)

    def cumulants(self) -> dict[int, np.ndarray]:
        """κ₁ … κ₆ of each coordinate's law, from central moments: nothing large cancels."""
        mean = self.gradients.mean(axis=1)
        deviation = self.gradients - mean[:, None]
        c2, c3, c4, c5, c6 = ((deviation**k).mean(axis=1) for k in range(2, 7))
        return {
            1: mean,
            2: c2,
            3: c3,
            4: c4 - 3 * c2**2,
            5: c5 - 10 * c3 * c2,
            6: c6 - 15 * c4 * c2 - 10 * c3**2 + 30 * c2**3,
        }


def layer_of(parameter: str) -> str:
    """``blocks.2.up.weight`` is in ``block 2``, ``head.weight`` in ``head``."""
    first, second, *_ = parameter.split(".")
    return f"block {second}" if first == "blocks" else first


def collect(
    model: ByteTransformer,
    batches: Iterator[Tensor],
    *,
    per_tensor: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> GradientLaws:
    """The gradient of each batch at a fixed random sample of each weight tensor's coordinates.

    At most `per_tensor` of each. Left out are vectors, which are the gains and offsets of norms,
    and coordinates that hardly ever have a gradient (`MOST_ZEROS`).
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in model.named_parameters() if p.dim() >= 2}
    watched = [
        torch.randperm(p.numel(), generator=generator)[: CANDIDATES * per_tensor]
        for p in weights.values()
    ]
    columns: list[list[np.ndarray]] = [[] for _ in weights]
    for batch in batches:
        grads = torch.autograd.grad(model.loss(batch), list(weights.values()))
        for column, grad, index in zip(columns, grads, watched, strict=True):
            column.append(grad.flatten()[index].double().numpy())
        advance()
    kept = [_kept(np.stack(column, axis=1), per_tensor) for column in columns]
    layers = [np.full(len(k), layer_of(name)) for k, name in zip(kept, weights, strict=True)]
    return GradientLaws(np.concatenate(kept), np.concatenate(layers))


def _kept(gradients: np.ndarray, count: int) -> np.ndarray:
    """The first `count` coordinates that have a gradient nearly always."""
    return gradients[(gradients == 0).mean(axis=1) <= MOST_ZEROS][:count]
