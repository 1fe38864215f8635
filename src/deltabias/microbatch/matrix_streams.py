"""Two ways to follow one stream of microbatch matrices: running sums, or the list itself."""

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from deltabias.microbatch.block import fitting_scale, peaks, usable
from deltabias.microbatch.layout import Layout
from deltabias.microbatch.matrix_moments import MatrixBlocks, MatrixMoments
from deltabias.microbatch.matrix_sums import Plan, Signs, Sums

Gradients = list[Tensor | None]


class Stream:
    """The microbatches of one group. Abstract: subclasses keep what they need of the gradients."""

    def __init__(self, layout: Layout, plans: dict[int, Plan], signs: Signs) -> None:
        self.layout, self.plans, self._draw_from = layout, plans, signs
        self.weights: list[float] = []
        self.signs: list[float] = []
        self.sources: set[tuple] = set()
        self.finite = torch.ones((), dtype=torch.bool, device=layout.device)

    @property
    def count(self) -> int:
        return len(self.weights)

    @property
    def weight(self) -> float:
        return math.fsum(self.weights)

    @property
    def signed(self) -> float:
        """e = Σ ε_r √w_r."""
        return math.fsum(e * math.sqrt(w) for e, w in zip(self.signs, self.weights, strict=True))

    def add(self, grads: Gradients, weight: float, divisor: float) -> None:
        """One microbatch with gradients ``grads / divisor``."""
        sign = self._draw_from.draw()
        self.sources.add(self._draw_from.source)
        share = weight / (self.weight + weight)
        signed, before = sign * math.sqrt(weight), self.signed
        for i, grad in enumerate(grads):
            plan = self.plans.get(i)
            if grad is None or not grad.numel():
                self._take(i, None, None, share, signed, before)
                continue
            x = grad.to(self.layout.dtypes[i])
            x = x if divisor == 1.0 else x / divisor
            peak = peaks([x])
            self.finite = self.finite & torch.isfinite(peak).all().to(self.finite.device)
            if plan is not None:
                self._take(i, x.reshape(plan.matrix), peak[0], share, signed, before)
        self.weights.append(weight)
        self.signs.append(sign)

    def merge(self, other: "Stream") -> None:
        """Every microbatch of `other`, which is left as it was."""
        if not other.count:
            return
        self._merge(other, other.weight / (self.weight + other.weight))
        self.finite = self.finite & other.finite.to(self.finite.device)
        self._count_in(other.weights, other.signs, other.sources)

    def all_reduce(self, group: "dist.ProcessGroup | None") -> None:
        """Merge over the ranks of `group`, in place; all ranks receive the same sums."""
        world = dist.get_world_size(group)
        mine = (self.weights, self.signs, self.sources, bool(self.finite), self._presence())
        everyone: list = [None] * world
        dist.all_gather_object(everyone, mine, group=group)
        weight, signed = self.weight, self.signed
        everything = math.fsum(w for rank in everyone for w in rank[0])
        if not everything:
            return
        self._all_reduce(group, weight / everything, signed, [rank[4] for rank in everyone])
        self.weights, self.signs, self.sources = [], [], set()
        for weights, signs, sources, finite, _ in everyone:
            self._count_in(weights, signs, sources)
            self.finite = self.finite & finite

    def _count_in(self, weights: list[float], signs: list[float], sources: set[tuple]) -> None:
        self.weights.extend(weights)
        self.signs.extend(signs)
        self.sources |= sources

    def has(self, i: int) -> bool:
        """Whether parameter `i` is a matrix and has had a gradient."""
        raise NotImplementedError

    def record(self, i: int, groups: tuple[MatrixBlocks, ...] = ()) -> MatrixBlocks:
        """The record of parameter `i`; shares memory, which is not written to any more."""
        raise NotImplementedError

    def _take(
        self, i: int, x: Tensor | None, peak: Tensor | None, share: float, signed: float,
        before: float,
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def _merge(self, other: "Stream", share: float) -> None:
        raise NotImplementedError

    def _presence(self) -> dict:
        """What other ranks must know of this one to reduce: parameters seen, and where."""
        raise NotImplementedError

    def _all_reduce(
        self, group: "dist.ProcessGroup | None", share: float, signed: float, presence: list[dict]
    ) -> None:
        raise NotImplementedError

    def _blocks(
        self, plan: Plan, mean: Tensor, groups: tuple[MatrixBlocks, ...], details: Iterator[dict],
        scale: Tensor,
    ) -> MatrixBlocks:  # fmt: skip
        records = tuple(
            MatrixMoments(
                rows=rows,
                columns=columns,
                raw_weights=tuple(self.weights),
                left=plan.left,
                right=plan.right,
                scaled_mean=mean[rows, columns],
                scale=usable(scale),
                signs=tuple(self.signs),
                groups=tuple(group.blocks[b] for group in groups),
                **detail,
            )
            for b, ((rows, columns), detail) in enumerate(zip(plan.slices, details, strict=True))
        )
        return MatrixBlocks(records, plan.shape, mean, groups)


class SketchStream(Stream):
    """Running sums; a parameter gets its tensors with its first gradient.

    The microbatches before that count as zero gradients, for which zero sums are already right.
    """

    def __init__(self, layout: Layout, plans: dict[int, Plan], signs: Signs) -> None:
        super().__init__(layout, plans, signs)
        self.sums: dict[int, Sums] = {}
        self._handed_out: set[int] = set()

    def has(self, i: int) -> bool:
        return i in self.sums

    def record(self, i: int, groups: tuple[MatrixBlocks, ...] = ()) -> MatrixBlocks:
        sums = self.sums.get(i) or Sums.empty(self.plans[i])
        self._handed_out.add(i)
        direction = sums.direction[-1]
        details = (
            {
                "scaled_left": left,
                "scaled_right": right,
                "scaled_directions": (direction[rows, columns], *squares),
            }
            for (rows, columns), (left, right), squares in zip(
                sums.plan.slices,
                sums.plan.per_block(sums.mean),
                sums.plan.per_block(sums.direction),
                strict=True,
            )
        )
        return self._blocks(sums.plan, sums.mean[-1], groups, details, sums.scale)

    def _own(self, i: int) -> Sums:
        """The sums of parameter `i`, to be written to: records handed out never change."""
        if i not in self.sums:
            self.sums[i] = Sums.empty(self.plans[i])
        elif i in self._handed_out:
            self.sums[i] = self.sums[i].copy()
        self._handed_out.discard(i)
        return self.sums[i]

    def _take(self, i, x, peak, share, signed, before) -> None:
        if x is None and i not in self.sums:
            return
        sums = self._own(i)
        if x is not None:
            sums.rescale(fitting_scale(sums.scale, peak))
        sums.add(x, share, signed, before)

    def _merge(self, other: "SketchStream", share: float) -> None:
        for i in sorted(self.sums.keys() | other.sums.keys()):
            theirs = other.sums.get(i) or Sums.empty(self.plans[i])
            self._own(i).merge(theirs, share, self.signed, other.signed)

    def _presence(self) -> dict:
        return dict.fromkeys(self.sums)

    def _all_reduce(self, group, share, signed, presence) -> None:
        def total(tensor: Tensor) -> None:
            dist.all_reduce(tensor, group=group)

        def largest(tensor: Tensor) -> None:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=group)

        for i in sorted(set().union(*presence)):
            self._own(i).all_reduce(share, signed, total, largest)


class KeptStream(Stream):
    """The gradients themselves; None where a microbatch had none."""

    def __init__(self, layout: Layout, plans: dict[int, Plan], signs: Signs) -> None:
        super().__init__(layout, plans, signs)
        self.kept: dict[int, Gradients] = {}
        self.scale: dict[int, Tensor] = {}

    def has(self, i: int) -> bool:
        return i in self.kept

    def record(self, i: int, groups: tuple[MatrixBlocks, ...] = ()) -> MatrixBlocks:
        plan = self.plans[i]
        kept = self._padded(i, self.count)
        unit = usable(self.scale.get(i, plan.unset_scale()))
        mean = plan.zeros()[-1]
        for x, w in zip(kept, self.weights, strict=True):
            if x is not None:
                mean.add_(x / unit, alpha=w / self.weight)
        details = (
            {
                "kept": tuple(None if x is None else x[rows, columns] for x in kept),
                "kept_unit": unit,
            }
            for rows, columns in plan.slices
        )
        return self._blocks(plan, mean, groups, details, unit)

    def _padded(self, i: int, count: int) -> Gradients:
        """The list with the microbatches that were nothing to it yet, or any more."""
        kept = self.kept.get(i, [])
        return kept + [None] * (count - len(kept))

    def _take(self, i, x, peak, share, signed, before) -> None:
        if x is None:
            return
        # a copy: what came in may be p.grad itself, to which the next microbatch is added
        self.kept[i] = [*self._padded(i, self.count), x.clone()]
        scale = self.scale.get(i, self.plans[i].unset_scale())
        self.scale[i] = fitting_scale(scale, peak)

    def _merge(self, other: "KeptStream", share: float) -> None:
        for i, theirs in other.kept.items():
            mine = self.scale.get(i, self.plans[i].unset_scale())
            self.kept[i] = self._padded(i, self.count) + theirs
            self.scale[i] = torch.maximum(mine, other.scale[i])

    def _presence(self) -> dict:
        seen = {i: [x is not None for x in self._padded(i, self.count)] for i in self.kept}
        return seen | {"count": self.count}

    def _all_reduce(self, group, share, signed, presence) -> None:
        me = dist.get_rank(group)
        for i in sorted(set().union(*presence) - {"count"}):
            plan, everything = self.plans[i], []
            scale = self.scale.get(i, plan.unset_scale()).clone()
            dist.all_reduce(scale, op=dist.ReduceOp.MAX, group=group)
            for rank, seen in enumerate(presence):
                source = dist.get_global_rank(group or dist.group.WORLD, rank)
                for r, there in enumerate(seen.get(i, [False] * seen["count"])):
                    x = None
                    if there:
                        x = self.kept[i][r] if rank == me else plan.zeros()[-1]
                        dist.broadcast(x, src=source, group=group)
                    everything.append(x)
            self.kept[i], self.scale[i] = everything, scale
