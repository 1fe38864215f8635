"""The arithmetic of a matrix sketch: signs, how a parameter is cut and squared, running sums."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltabias.microbatch.block import usable
from deltabias.microbatch.matrix_moments import full_precision
from deltabias.microbatch.matrix_products import symmetric_product

Reduce = Callable[[Tensor], None]


class Signs:
    """Independent fair signs from a generator of their own, on the CPU: nothing waits."""

    def __init__(self) -> None:
        self._generator = torch.Generator()
        self.source: tuple = ()

    def start(self, seed: int, source: tuple) -> None:
        """Begin a step; `source` tells equal signs from independent ones."""
        self._generator.manual_seed(seed)
        self.source = source

    def draw(self) -> float:
        """+1 or −1."""
        return 1.0 - 2.0 * torch.randint(2, (), generator=self._generator).item()


@dataclass(frozen=True)
class Plan:
    """How one parameter is flattened, cut and squared."""

    shape: torch.Size
    matrix: tuple[int, int]
    slices: tuple[tuple[slice, slice], ...]
    left: bool
    right: bool
    dtype: torch.dtype
    device: torch.device

    @property
    def powers(self) -> list[int]:
        """Of the gradient, in each of `statistics`."""
        return [2] * (len(self.slices) * (self.left + self.right)) + [1]

    def statistics(self, x: Tensor) -> Iterator[Tensor]:
        """Per block x xᵀ and xᵀ x as far as they are kept, then x itself; one at a time."""
        for rows, columns in self.slices:
            block = x[rows, columns]
            with full_precision():
                left = symmetric_product(block, block) if self.left else None
            if left is not None:
                yield left
            del left
            if self.right:
                with full_precision():
                    right = symmetric_product(block.mT, block.mT)
                yield right
        yield x

    def zeros(self) -> list[Tensor]:
        """One tensor for each of `statistics`."""
        sizes = [(rows.stop - rows.start, cols.stop - cols.start) for rows, cols in self.slices]
        shapes = [(k, k) for d, n in sizes for k in [d] * self.left + [n] * self.right]
        return [
            torch.zeros(shape, dtype=self.dtype, device=self.device)
            for shape in (*shapes, self.matrix)
        ]

    def unset_scale(self) -> Tensor:
        """0: no gradient other than zero has been seen."""
        return torch.zeros((), dtype=self.dtype, device=self.device)

    def per_block(self, tensors: list[Tensor]) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """The squares (left, right) of each block, out of a list like `statistics`."""
        left_over = iter(tensors)
        for _ in self.slices:
            yield (
                next(left_over) if self.left else None,
                next(left_over) if self.right else None,
            )


@dataclass
class Sums:
    """Running means S̄ of a parameter's statistics, and D = Σ ε_r √w_r (S_r − S̄), both in units.

    D is kept about the running mean, so that nothing cancels at the end. With the older data's
    e = Σ ε_r √w_r, a mean that moves by c changes D by −e c.
    """

    plan: Plan
    mean: list[Tensor]
    direction: list[Tensor]
    scale: Tensor

    @classmethod
    def empty(cls, plan: Plan) -> "Sums":
        return cls(plan, plan.zeros(), plan.zeros(), plan.unset_scale())

    def rescale(self, scale: Tensor) -> None:
        """Measure in other units; exact, as units are powers of two."""
        ratio = self.scale / usable(scale)
        for tensors in (self.mean, self.direction):
            for tensor, power in zip(tensors, self.plan.powers, strict=True):
                for _ in range(power):
                    tensor.mul_(ratio)
        self.scale = scale

    def add(self, x: Tensor | None, share: float, signed: float, before: float) -> None:
        """One more gradient x with its `share` of the weight, ε √w = `signed`, e = `before`."""
        factor = signed * (1 - share) - before * share
        if x is None:
            statistics: Iterator[Tensor] = iter([torch.zeros_like(t) for t in self.mean])
        else:
            statistics = self.plan.statistics(x / usable(self.scale))
        for mean, direction, new in zip(self.mean, self.direction, statistics, strict=True):
            delta = new.sub_(mean)
            mean.add_(delta, alpha=share)
            direction.add_(delta, alpha=factor)

    def merge(self, other: "Sums", share: float, before: float, theirs: float) -> None:
        """Other data with this `share` of the weight and e = `theirs`; `other` is left alone."""
        scale = torch.maximum(self.scale, other.scale)
        self.rescale(scale)
        other = other.copy()
        other.rescale(scale)
        factor = theirs * (1 - share) - before * share
        for k, mean in enumerate(self.mean):
            delta = other.mean[k].sub_(mean)
            mean.add_(delta, alpha=share)
            self.direction[k].add_(other.direction[k]).add_(delta, alpha=factor)

    def copy(self) -> "Sums":
        """With tensors of its own."""
        clones = ([t.clone() for t in tensors] for tensors in (self.mean, self.direction))
        return Sums(self.plan, *clones, self.scale)

    def all_reduce(self, share: float, before: float, total: Reduce, largest: Reduce) -> None:
        """This rank's data have this `share` of the weight and e = `before`."""
        scale = self.scale.clone()
        largest(scale)
        self.rescale(scale)
        for k, mean in enumerate(self.mean):
            common = mean * share
            total(common)
            self.direction[k].add_(common - mean, alpha=-before)
            total(self.direction[k])
            self.mean[k] = common
