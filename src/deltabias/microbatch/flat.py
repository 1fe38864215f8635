"""Sums side by side: the tensors of a bucket in one flat buffer, and one compiled call for all.

A call of a compiled graph costs as much as the work on 10⁵ elements, and most parameters of most
models are smaller. So the sums of a bucket live in one buffer per moment from the start, and are
never gathered; only each microbatch's gradients are, into a buffer that stays in the cache. A
bucket of one large tensor is not gathered either.

For tensors on a CPU, where a number may be read without waiting for anybody.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch.accumulator import Accumulator, Gradients
from deltabias.microbatch.block import LIMIT, fitting_scale, peaks
from deltabias.microbatch.fused_sums import take
from deltabias.microbatch.layout import Layout, local
from deltabias.microbatch.recycled import Recycled
from deltabias.one_pass import lie_alike


class Gathering:
    """The buffer that every bucket's gradients are copied into, one bucket after the other.

    And the memory of sums, kept for the next step unless `recycle` is False.
    """

    def __init__(self, layout: Layout, *, recycle: bool = True) -> None:
        self._layout, self._recycle = layout, recycle
        sums = sum(
            layout.elements(b) * layout.dtypes[positions[0]].itemsize
            for b, positions in enumerate(layout.buckets)
        )
        self.memory = Recycled(most=8 * sums if recycle else 0)
        self._views: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._buffers: dict[torch.dtype, Tensor] = {}

    def __reduce__(self) -> tuple:
        return partial(Gathering, recycle=self._recycle), (self._layout,)  # without the buffers

    def views(self, bucket: int) -> tuple[Tensor, list[Tensor]]:
        """The flat buffer and a view of it for each parameter of the bucket."""
        if bucket not in self._views:
            positions = self._layout.buckets[bucket]
            size, dtype = self._layout.elements(bucket), self._layout.dtypes[positions[0]]
            buffer = self._buffers.get(dtype)
            if buffer is None or len(buffer) < size:
                buffer = self._buffers[dtype] = torch.empty(size, dtype=dtype)
                self._views.clear()  # of the smaller buffer
            whole = buffer[:size]
            self._views[bucket] = whole, parts_of(whole, self._layout, positions)
        return self._views[bucket]

    def gather(self, bucket: int, grads: Gradients, factors: list[float]) -> tuple[Tensor, float]:
        """The gradients of a bucket, flat, and what they are yet to be multiplied by."""
        whole, parts = self.views(bucket)
        given = [k for k, grad in enumerate(grads) if grad is not None]
        if len(given) < len(grads):
            whole.zero_()
            if not given:
                return whole, 1.0
            parts, grads, factors = ([x[k] for k in given] for x in (parts, grads, factors))
        torch._foreach_copy_(parts, grads)
        if len(set(factors)) == 1:  # powers of two, often the same one
            return whole, factors[0]
        torch._foreach_mul_(parts, factors)
        return whole, 1.0


def parts_of(whole: Tensor, layout: Layout, positions: Sequence[int]) -> list[Tensor]:
    """Views of a flat tensor, with the parameters' shapes and the strides of `Layout.zeros`."""
    params = [local(layout.params[i]) for i in positions]
    pieces = whole.split([param.numel() for param in params])
    return [
        piece.view(p.shape)
        if p.is_contiguous()
        else piece.as_strided(p.shape, torch.empty_like(p, device="meta").stride())
        for piece, p in zip(pieces, params, strict=True)
    ]


def _flattened(tensor: Tensor, like: Tensor) -> Tensor:
    """1-D, in the order in which `like` lies in memory: a view where `tensor` lies alike."""
    if not lie_alike(like, tensor):
        tensor = torch.empty_like(like).copy_(tensor)
    return tensor.as_strided((tensor.numel(),), (1,))


class FlatAccumulator(Accumulator):
    """An `Accumulator` whose tensors are views of a flat buffer for each bucket and moment."""

    def __init__(self, layout: Layout, orders: range, gathering: Gathering) -> None:
        super().__init__(layout, orders)
        self._gathering = gathering
        self._sums: dict[int, list[Tensor]] = {}
        self._inverse: dict[int, list[float]] = {}  # one over the unit, where all have one

    def __getstate__(self) -> dict[str, Any]:
        # a view would take the whole buffer along
        own = {k: [None if t is None else t.clone() for t in c] for k, c in self.central.items()}
        mean = [None if t is None else t.clone() for t in self.mean]
        return self.__dict__ | {"_sums": {}, "mean": mean, "central": own}

    def require(self, positions: list[int]) -> None:
        """A place in the buffers for what has none yet."""
        new: dict[int | None, set[int]] = {}
        for i in positions:
            if self.mean[i] is None:
                new.setdefault(self.layout.bucket_of(i), set()).add(i)
                self.scale[i] = self.layout.unset_scale(i)
        empty = new.pop(None, set())  # in no bucket
        for bucket, places in new.items():
            self._place(bucket, places)
        super().require(sorted(empty))

    def make_own(self) -> None:
        """As `Accumulator.make_own`: the records keep the buffers."""
        if self._handed_out:
            self._sums.clear()
        super().make_own()

    def keep_scale(self, positions: list[int], block: Any) -> None:
        """Write back the units after `block` was updated."""
        super().keep_scale(positions, block)
        self._inverse.clear()

    def absorb(self, grads: Gradients, ours: float, theirs: float, divisor: float) -> None:
        """One microbatch by one compiled pass over each bucket."""
        for bucket, positions in enumerate(self.layout.buckets):
            if any(self.mean[i] is not None for i in positions):
                self._absorb(bucket, [grads[i] for i in positions], (ours, theirs), divisor)

    def _absorb(
        self, bucket: int, grads: Gradients, shares: tuple[float, float], divisor: float
    ) -> None:
        mean, *central = self._sums.get(bucket) or self._place(bucket)
        x, factor = self._measured(bucket, grads, divisor)
        if self.count == 1:  # the sums are zero: the mean is the gradient, nothing deviates
            mean.copy_(x)
            if factor != 1.0:
                mean.mul_(factor)
            return
        take(mean, x, central, (*shares, factor))

    def _place(self, bucket: int, new: set[int] = frozenset()) -> list[Tensor]:
        """The buffers of a bucket; what is there already, and what is `new`, become their views."""
        positions = self.layout.buckets[bucket]
        columns = (self.mean, *self.central.values())
        known = bucket in self._sums
        if not known:
            size, dtype = self.layout.elements(bucket), self.layout.dtypes[positions[0]]
            zeros = self._gathering.memory.zeros
            self._sums[bucket] = [zeros(size, dtype) for _ in columns]
        for whole, column in zip(self._sums[bucket], columns, strict=True):
            for i, part in zip(positions, parts_of(whole, self.layout, positions), strict=True):
                if column[i] is not None and not known:
                    part.copy_(column[i])
                    column[i] = part
                elif i in new:
                    column[i] = part
        self._inverse.pop(bucket, None)
        return self._sums[bucket]

    def _measured(self, bucket: int, grads: Gradients, divisor: float) -> tuple[Tensor, float]:
        """The gradients in units, flat, and what they are yet to be multiplied by."""
        if bucket in self._inverse:
            x, factor = self._in_units(bucket, grads, divisor)
            low, high = x.aminmax()
            if max(-float(low), float(high)) * factor <= LIMIT:  # False for NaN
                return x, factor
        self._refit(bucket, grads, divisor)
        return self._in_units(bucket, grads, divisor)

    def _in_units(self, bucket: int, grads: Gradients, divisor: float) -> tuple[Tensor, float]:
        first = self.layout.buckets[bucket][0]
        inverse, dtype = self._units(bucket), self.layout.dtypes[first]
        factors, tiny = [value / divisor for value in inverse], torch.finfo(dtype).tiny
        if divisor != 1.0 and not tiny <= min(factors) <= max(factors) <= 1 / tiny:
            # the product is out of range, its parts are not
            grads = [None if g is None else g.to(dtype) / divisor for g in grads]
            factors = inverse
        if len(grads) > 1:
            return self._gathering.gather(bucket, grads, factors)
        mean = self.mean[first]
        grad = torch.zeros_like(mean) if grads[0] is None else grads[0]
        return _flattened(grad, mean), factors[0]

    def _units(self, bucket: int) -> list[float]:
        """One over the unit of each parameter; kept once all have one."""
        if bucket in self._inverse:
            return self._inverse[bucket]
        scale = [self.scale[i] for i in self.layout.buckets[bucket]]
        known = [1.0 if s is None else float(s) for s in scale]  # None: no gradient so far
        inverse = [1 / s if s > 0 else 1.0 for s in known]
        if all(known):
            self._inverse[bucket] = inverse
        return inverse

    def _refit(self, bucket: int, grads: Gradients, divisor: float) -> None:
        """Choose units by the largest element of each gradient, and look for infinities."""
        places = enumerate(self.layout.buckets[bucket])
        live = {i: grads[k] for k, i in places if grads[k] is not None}
        if not live:
            return
        block = self.block(list(live))
        peak = peaks(list(live.values())).to(block.scale.dtype) / divisor
        self.finite = self.finite & torch.isfinite(peak).all()
        scale = fitting_scale(block.scale, peak)
        if self.count == 1:
            block.scale = scale
        elif not torch.equal(scale, block.scale):
            block.rescale(scale)
        super().keep_scale(list(live), block)
        self._inverse.pop(bucket, None)
