r"""What the microbatches of a step say about the factors of a matrix preconditioner.

For a matrix G with microbatch gradients G_r, weights w_r (Σ w_r = 1 here) and mean Ḡ = Σ w_r G_r,
the statistics S are G_r itself, G_r G_rᵀ and G_rᵀ G_r. Their *deviations*

.. math:: \delta_r = \sqrt{w_r/(m-1)}\,(S_r - \bar S), \qquad \bar S = \sum_r w_r S_r

have Σ_r δ_r ⊗ δ_r as an unbiased estimate of Cov S̄: for equal weights and independent S_r of one
mean; for other weights where Cov S_r = C/w_r, as for a mean over w_r tokens. *Proof:* then
Cov S̄ = Σ w_r² C/w_r = C, and E Σ w_r (S_r − S̄)⊗(S_r − S̄) = m C − C, which is over (m − 1).
The squares of means over unequal numbers of tokens do not have one mean, E S_r = M Mᵀ + Σ/w_r:
their estimate is too large by the spread of these, as in `Moments.var_of_mean_of_squares`.

The three statistics share r, so δL_r ⊗ δM_r estimates Cov(L̄, M̄) in the same way.

A *sketch* is one joint direction ω = Σ_r ε_r δ_r with independent signs ε_r = ±1, the same for all
statistics: E_ε ω ⊗ ω = Σ_r δ_r ⊗ δ_r exactly, as E ε_r ε_s = 0 for r ≠ s (Hutchinson, 1990). It
streams, and it is one matrix where the deviations are m.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from deltabias.microbatch.layout import Layout, local
from deltabias.microbatch.matrix_products import symmetric_product
from deltabias.microbatch.moments import Moments

Deviations = tuple[Tensor, Tensor | None, Tensor | None]


@contextmanager
def full_precision() -> Iterator[None]:
    """fp32 products in fp32: no TF32 on CUDA, no bf16 on a CPU, whatever the process has set."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    # torch 2.9 renamed the switch; the newer one exists on both kinds of device
    kinds = [b for b in backends if hasattr(b, "fp32_precision")]
    saved = [b.fp32_precision for b in kinds]
    legacy = torch.backends.cuda.matmul.allow_tf32 if not kinds else None
    try:
        for backend in kinds:
            backend.fp32_precision = "ieee"
        if not kinds:
            torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        for backend, precision in zip(kinds, saved, strict=True):
            backend.fp32_precision = precision
        if not kinds:
            torch.backends.cuda.matmul.allow_tf32 = legacy


@dataclass(frozen=True, eq=False)
class MatrixMoments:
    """Statistics of one block [d, n] of a parameter's microbatch gradients G_1 … G_m.

    Everything is in the accumulation dtype (fp32, or fp64). What is stored is in units of
    ``scale`` (squares: of its square), the properties answer in units of the gradient or of what
    `relative_to` was given: in fp32 the squares of gradients of 1e-20 would all be zero.

    Attributes
    ----------
    rows, columns
        where the block lies in the parameter, flattened to [shape[0], rest]
    raw_weights
        w_r as given
    left, right
        which of the factors [d, d], [n, n] are kept
    scaled_mean, scaled_left, scaled_right
        Ḡ, and the means of the squares (None with ``keep="gradients"``, which computes them)
    scaled_directions
        Σ_r ε_r √w_r (S_r − S̄) for G, left, right; None with ``keep="gradients"``
    kept, kept_unit
        the gradients in gradient units (None for a microbatch without one), and the scale that
        their scaled form is measured in; None with ``keep="sketch"``
    signs
        ε_r of the sketch
    scale
        0-d tensor: a power of two, until `MatrixBlocks.scaled_to` has multiplied it
    groups
        one record for each group of microbatches, where there is more than one
    unit
        what `relative_to` was given
    """

    rows: slice
    columns: slice
    raw_weights: tuple[float, ...]
    left: bool
    right: bool
    scaled_mean: Tensor
    scale: Tensor
    scaled_left: Tensor | None = None
    scaled_right: Tensor | None = None
    scaled_directions: Deviations | None = None
    kept: tuple[Tensor | None, ...] | None = None
    kept_unit: Tensor | None = None
    signs: tuple[float, ...] = ()
    groups: tuple["MatrixMoments", ...] = ()
    unit: Tensor | float | None = None

    @property
    def count(self) -> int:
        """m, the number of microbatches."""
        return len(self.raw_weights)

    @property
    def weight(self) -> float:
        """Σ w_r as given."""
        return math.fsum(self.raw_weights)

    @property
    def weights(self) -> Tensor:
        """w_r / Σ w_r, shape [m]."""
        return self._vector([w / self.weight for w in self.raw_weights])

    @property
    def root_weights(self) -> Tensor:
        """√(w_r/(m−1)) with Σ w_r = 1, shape [m]; `ValueError` for one microbatch."""
        self._require_two()
        total = self.weight * (self.count - 1)
        return self._vector([math.sqrt(w / total) for w in self.raw_weights])

    @property
    def mean(self) -> Tensor:
        """Ḡ, [d, n]."""
        self._require_one()
        return self._in_units(self.scaled_mean, 1)

    @property
    def left_mean(self) -> Tensor | None:
        """Σ w_r G_r G_rᵀ, [d, d]; None if the left factor is not kept."""
        return self.square_means()[0]

    @property
    def right_mean(self) -> Tensor | None:
        """Σ w_r G_rᵀ G_r, [n, n]; None if the right factor is not kept."""
        return self.square_means()[1]

    def square_means(self) -> tuple[Tensor | None, Tensor | None]:
        """`left_mean` and `right_mean`; of kept gradients in half the products of asking twice."""
        left, right = self._scaled_squares()
        return self._in_units(left, 2), self._in_units(right, 2)

    @property
    def gradients(self) -> Tensor | None:
        """G_r, [m, d, n], stacked when asked for; None for a sketch."""
        return None if self.kept is None else self._in_units(self._stack(slice(None)), 1)

    @property
    def sketch(self) -> Deviations | None:
        """ω for the gradient [d, n], left [d, d], right [n, n]; None with kept gradients.

        Raises
        ------
        ValueError
            One microbatch only.
        """
        if self.scaled_directions is None:
            return None
        self._require_two()
        factor = 1 / math.sqrt(self.weight * (self.count - 1))
        return tuple(
            None if t is None else self._in_units(t * factor, power)
            for t, power in zip(self.scaled_directions, (1, 2, 2), strict=True)
        )

    def deviations(self) -> Deviations:
        """δM [r, d, n], δL [r, d, d], δR [r, n, n]; r = 1 for a sketch. None for a factor not kept.

        Raises
        ------
        ValueError
            One microbatch only.
        """
        (chunk,) = self.deviation_chunks(max(self.count, 1))
        return chunk

    def deviation_chunks(self, size: int) -> Iterator[Deviations]:
        """`deviations`, at most `size` of them at a time, in the order of the microbatches.

        A sketch is a single chunk. Memory: ``size (d n + d² + n²)``.

        Raises
        ------
        ValueError
            One microbatch only; `size` below 1.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{size=} is not a number of deviations; pass an integer >= 1")
        self._require_two()  # here, not at the first next()
        return self._sketch_chunk() if self.kept is None else self._kept_chunks(size)

    def relative_to(self, unit: Tensor | float) -> "MatrixMoments":
        """The same statistics of the gradients divided by the number `unit` > 0; nothing copied."""
        if isinstance(unit, Tensor) and unit.numel() != 1:
            raise ValueError(
                f"unit has shape {tuple(unit.shape)}; a matrix has one unit, pass a number"
            )
        groups = tuple(group.relative_to(unit) for group in self.groups)
        unit = unit if self.unit is None else self.unit * unit
        return replace(self, unit=unit, groups=groups)

    def _sketch_chunk(self) -> Iterator[Deviations]:
        yield tuple(None if t is None else t.unsqueeze(0) for t in self.sketch)

    def _kept_chunks(self, size: int) -> Iterator[Deviations]:
        left_mean, right_mean = self._scaled_squares()
        roots = self.root_weights.view(-1, 1, 1)
        for start in range(0, self.count, size):
            part = slice(start, start + size)
            x, root = self._stack(part), roots[part]
            left, right = self._squares(x)
            yield (
                self._in_units(root * (x - self.scaled_mean), 1),
                None if left is None else self._in_units(root * (left - left_mean), 2),
                None if right is None else self._in_units(root * (right - right_mean), 2),
            )

    def _scaled_squares(self) -> tuple[Tensor | None, Tensor | None]:
        """Means of the squares; from kept gradients by a running sum, so one [d, d] at a time."""
        self._require_one()
        if self.kept is None:
            return self.scaled_left, self.scaled_right
        totals: list[Tensor | None] = [None, None]
        for r, w in enumerate(self.raw_weights):
            x = self._stack(slice(r, r + 1))[0]
            for k, square in enumerate(self._squares(x)):
                if square is not None:
                    term = square * (w / self.weight)
                    totals[k] = term if totals[k] is None else totals[k].add_(term)
        return totals[0], totals[1]

    def _squares(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        with full_precision():
            return (
                symmetric_product(x, x) if self.left else None,
                symmetric_product(x.mT, x.mT) if self.right else None,
            )

    def _stack(self, part: slice) -> Tensor:
        zero = torch.zeros_like(self.scaled_mean)
        return torch.stack([zero if x is None else x for x in self.kept[part]]) / self.kept_unit

    def _vector(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.scaled_mean.dtype, device=self.scaled_mean.device)

    def _in_units(self, scaled: Tensor | None, power: int) -> Tensor | None:
        """``scaled · (scale/unit)^power``, a factor at a time: the power itself may overflow."""
        if scaled is None:
            return None
        factor = self.scale if self.unit is None else self.scale / self.unit
        for _ in range(power):
            scaled = scaled * factor
        return scaled

    def _require_one(self) -> None:
        if not self.count:
            raise ValueError(
                "a group has no microbatch, so no mean; add at least as many microbatches as "
                "groups, or pass a smaller groups"
            )

    def _require_two(self) -> None:
        if self.count < 2:
            raise ValueError(
                f"microbatches={self.count} gives no variance estimate; need at least 2, or pass "
                "correction='plug_in'"
            )


@dataclass(frozen=True, eq=False)
class MatrixBlocks:
    """The records of one parameter: a `MatrixMoments` for each block, rows of blocks first.

    Attributes
    ----------
    blocks
        the records, in the order of `blocks(shape, block_size)`
    shape
        the parameter's (of a sharded one, of the local shard)
    groups
        the same for each group of microbatches, where there is more than one
    """

    blocks: tuple[MatrixMoments, ...]
    shape: torch.Size
    scaled_mean: Tensor = field(repr=False)
    groups: tuple["MatrixBlocks", ...] = ()

    def __iter__(self) -> Iterator[MatrixMoments]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, i: int) -> MatrixMoments:
        return self.blocks[i]

    def scaled_to(self, grad: Tensor, *, tolerance: float = 1e-2) -> tuple["MatrixBlocks", Tensor]:
        """The statistics of ``s G_r``, with the s for which the mean comes closest to `grad`.

        As `Moments.scaled_to`, over all blocks at once: clipping, a gradient scaler or a loss that
        was divided multiply gradients by s and squares by s². `aligned`, a 0-d bool tensor, is
        False where `grad` is not s Ḡ: statistics of another step or of one rank only, clipping by
        value, not finite. Do not use the statistics then.

        Raises
        ------
        ValueError
            `grad` has not the parameter's shape.
        """
        grad = local(grad)
        if grad.shape != self.shape:
            raise ValueError(
                f"grad has shape {tuple(grad.shape)}, the statistics {tuple(self.shape)}; is it "
                "this parameter's gradient?"
            )
        first = self.blocks[0]
        whole = Moments(first.count, first.weight, 0.0, self.scaled_mean, {}, first.scale)
        scaled, aligned = whole.scaled_to(grad.reshape(self.scaled_mean.shape), tolerance=tolerance)
        return self._rescaled(scaled.scale / first.scale), aligned

    def _rescaled(self, ratio: Tensor) -> "MatrixBlocks":
        def rescaled(record: MatrixMoments) -> MatrixMoments:
            groups = tuple(map(rescaled, record.groups))
            return replace(record, scale=record.scale * ratio, groups=groups)

        return replace(
            self,
            blocks=tuple(map(rescaled, self.blocks)),
            groups=tuple(group._rescaled(ratio) for group in self.groups),
        )


@dataclass(frozen=True, eq=False)
class MatrixStep:
    """The records of all parameters for one optimizer step; ``step[param]`` looks one up.

    Attributes
    ----------
    blocks
        a `MatrixBlocks` for each parameter; None for one that is not a matrix (a vector, 0-d,
        empty) and where no microbatch had a gradient
    count, weight
        m and Σ w_r
    finite
        0-d bool tensor: whether every gradient added was finite; else the records of the tensors
        concerned hold NaN or infinities
    generation
        which step of the `MatrixStats` this is, counted from 1
    """

    layout: Layout = field(repr=False)
    blocks: tuple[MatrixBlocks | None, ...] = field(repr=False)
    count: int
    weight: float
    finite: Tensor
    generation: int
    observed: bool = True

    def __getitem__(self, param: Tensor) -> MatrixBlocks | None:
        return self.blocks[self.layout.index(param)]

    def __iter__(self) -> Iterator[MatrixBlocks | None]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(self.blocks)
