"""One stream of microbatches: its counts, and a lazily allocated accumulator per parameter."""

import torch
from torch import Tensor

from deltabias.microbatch.block import Block, fitting_scale, peaks, usable
from deltabias.microbatch.layout import Layout
from deltabias.microbatch.moments import Moments

Gradients = list[Tensor | None]


class Accumulator:
    """Weighted mean and central moments of every microbatch added so far.

    A parameter gets its tensors with its first gradient. The microbatches before that count as
    zero gradients, for which zero accumulators are already right.
    """

    def __init__(self, layout: Layout, orders: range) -> None:
        self.layout = layout
        self.count = 0
        self.weight = 0.0
        self.inverse_weight = 0.0
        self.finite = torch.ones((), dtype=torch.bool, device=layout.device)
        self.mean: Gradients = [None] * len(layout)
        self.scale: Gradients = [None] * len(layout)
        self.central: dict[int, Gradients] = {k: [None] * len(layout) for k in orders}
        self._handed_out = False

    def count_in(self, count: int, weight: float, inverse_weight: float) -> tuple[float, float]:
        """Book microbatches; returns the shares (old, new) of the total weight."""
        before = self.weight
        self.count += count
        self.weight += weight
        self.inverse_weight += inverse_weight
        return before / self.weight, weight / self.weight

    def add(self, grads: Gradients, weight: float, divisor: float) -> None:
        """One microbatch with gradients ``grads / divisor``."""
        ours, theirs = self.count_in(1, weight, 1 / weight)
        self.make_own()
        self.require([i for i, grad in enumerate(grads) if grad is not None])
        self.absorb(grads, ours, theirs, divisor)

    def absorb(self, grads: Gradients, ours: float, theirs: float, divisor: float) -> None:
        """The arithmetic of `add`."""
        for positions in self.live_buckets():
            block = self.block(positions)
            x = [
                torch.zeros_like(mean) if grads[i] is None else grads[i].to(mean.dtype)
                for i, mean in zip(positions, block.mean, strict=True)
            ]
            if divisor != 1.0:
                x = torch._foreach_div(x, divisor)
            peak = peaks(x)
            # On the device, like the choice of the scale: nobody waits for the answer.
            self.finite = self.finite & torch.isfinite(peak).all().to(self.finite.device)
            block.rescale(fitting_scale(block.scale, peak))
            for piece, part in block.pieces(x):
                piece.add(part, ours, theirs)
            self.keep_scale(positions, block)

    def merge(self, other: "Accumulator") -> None:
        """Every microbatch of `other`, which is left as it was."""
        if not other.count:
            return
        ours, theirs = self.count_in(other.count, other.weight, other.inverse_weight)
        self.make_own()
        self.finite = self.finite & other.finite.to(self.finite.device)
        self.require([i for i, mean in enumerate(other.mean) if mean is not None])
        for positions in self.live_buckets():
            block = self.block(positions)
            block.merge(other.block(positions, copy=True), ours, theirs)
            self.keep_scale(positions, block)

    def require(self, positions: list[int]) -> None:
        """Allocate what is missing at `positions`."""
        for i in positions:
            if self.mean[i] is None:
                self.mean[i], self.scale[i] = self.layout.zeros(i), self.layout.unset_scale(i)
                for moments in self.central.values():
                    moments[i] = self.layout.zeros(i)

    def make_own(self) -> None:
        """Copy the tensors if a `Moments` record holds them: records never change."""
        if not self._handed_out:
            return
        for tensors in (self.mean, *self.central.values()):
            tensors[:] = [None if t is None else t.clone() for t in tensors]
        self._handed_out = False

    def live_buckets(self) -> list[list[int]]:
        """The layout's buckets, without the parameters that have had no gradient."""
        live = [[i for i in b if self.mean[i] is not None] for b in self.layout.buckets]
        return [positions for positions in live if positions]

    def block(self, positions: list[int], *, copy: bool = False) -> Block:
        """The accumulators at `positions`, to be updated in place, or copies of them.

        Only a copy may have positions without a gradient; they read as zeros.
        """

        def read(tensors: Gradients) -> list[Tensor]:
            if not copy:
                return [tensors[i] for i in positions]
            return [self.layout.zeros(i) if tensors[i] is None else tensors[i].clone()
                    for i in positions]  # fmt: skip

        scale = [
            self.layout.unset_scale(i) if self.scale[i] is None else self.scale[i]
            for i in positions
        ]
        central = {k: read(tensors) for k, tensors in self.central.items()}
        return Block(read(self.mean), central, torch.stack(scale))

    def keep_scale(self, positions: list[int], block: Block) -> None:
        """Write back the units after `block` was updated."""
        for i, scale in zip(positions, block.scale.unbind(), strict=True):
            self.scale[i] = scale

    def moments(self, i: int, groups: tuple[Moments, ...] = ()) -> Moments:
        """The record of parameter `i`; shares memory, see `make_own`."""
        self.require([i])
        self._handed_out = True
        return Moments(
            count=self.count,
            weight=self.weight,
            inverse_weight=self.inverse_weight,
            scaled_mean=self.mean[i],
            scaled_central={k: tensors[i] for k, tensors in self.central.items()},
            scale=usable(self.scale[i]),
            groups=groups,
        )
