"""The gradients of many microbatches at a frozen model: an empirical law per coordinate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deltabias.demo.transformer import ByteTransformer


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

    Coordinates whose gradient is zero in every batch (bytes that do not occur) have no update and
    are left out. Vectors, the gains and offsets of norms, are left out too.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {n: p for n, p in model.named_parameters() if p.dim() >= 2}
    chosen = {
        name: torch.randperm(p.numel(), generator=generator)[:per_tensor]
        for name, p in weights.items()
    }
    rows = []
    for batch in batches:
        grads = torch.autograd.grad(model.loss(batch), list(weights.values()))
        sampled = [g.flatten()[chosen[name]] for name, g in zip(weights, grads, strict=True)]
        rows.append(torch.cat(sampled).double().numpy())
        advance()
    gradients = np.stack(rows, axis=1)
    layers = np.concatenate([np.full(len(index), layer_of(n)) for n, index in chosen.items()])
    alive = (gradients != 0).any(axis=1)
    return GradientLaws(gradients[alive], layers[alive])
