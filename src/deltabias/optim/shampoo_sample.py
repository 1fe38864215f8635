"""What a step brings to a stack of blocks: gradients, statistics of the factors, deviations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch.matrix_moments import MatrixMoments, MatrixStep
from deltabias.microbatch.matrix_products import symmetric_product
from deltabias.microbatch.matrix_stats import matrix_shape
from deltabias.optim.base import accumulator_dtype
from deltabias.optim.block_stacks import as_matrix, cut, layout_of, positions_of
from deltabias.optim.kronecker_states import Options
from deltabias.optim.kronecker_step import Sample
from deltabias.optim.tracked_spread import Deviations, Factors, GradientDeviations

Members = Sequence[tuple[Tensor, int]]


def gather(
    members: Members, group: Mapping[str, Any], options: Options, moments: MatrixStep | None
) -> tuple[Sample, Tensor | int]:
    """The sample of a stack, and how many members' statistics do not belong to their gradient.

    Those are used as if there were none: the gradient itself is the only microbatch.
    """
    parts = [_part(param, k, group, options, moments) for param, k in members]
    statistics = {
        side: torch.cat([part.statistics[side] for part in parts]) for side in options.powers
    }
    deviations = None
    if moments is not None and moments.count > 1 and options.spread == "microbatches":
        deviations = partial(_deviations, parts, options)
    gradient = torch.cat([part.gradient for part in parts])
    misaligned = sum(
        (~part.aligned).long()
        for part, (_, k) in zip(parts, members, strict=True)
        if moments is not None and k == 0  # once for each parameter
    )
    return Sample(gradient, statistics, deviations), misaligned


def squares(gradient: Tensor, sides: Sequence[str]) -> Factors:
    """G Gᵀ and Gᵀ G of [B, d, n], for the sides that there are."""
    turned = {"left": gradient, "right": gradient.mT}
    return {side: symmetric_product(turned[side], turned[side]) for side in sides}


@dataclass(frozen=True)
class _Part:
    """One member's sample; its blocks' records, None without statistics; ±1 with maximize."""

    gradient: Tensor
    statistics: Factors
    blocks: list[MatrixMoments] | None
    aligned: Tensor
    sign: float


def _part(
    param: Tensor, k: int, group: Mapping[str, Any], options: Options, moments: MatrixStep | None
) -> _Part:
    shape, sign = matrix_shape(param.shape), -1.0 if group["maximize"] else 1.0
    matrix = as_matrix(param.grad).to(accumulator_dtype(param)) * sign
    gradient = cut(matrix, layout_of(shape, group["block_size"])[k])
    sides = tuple(options.powers)
    # without statistics both folds are alike
    plain = gradient.repeat_interleave(options.folds, dim=0)
    own = squares(plain, sides)
    record = None if moments is None else moments[param]
    if record is None:
        return _Part(plain, own, None, torch.zeros((), dtype=torch.bool, device=plain.device), sign)
    record, aligned = record.scaled_to(param.grad)
    blocks = [record[i] for i in positions_of(shape, group["block_size"])[k]]
    measured = _measured(plain, own, blocks, sign, group["second_moment"], options)
    if measured is None:
        return _Part(plain, own, blocks, aligned, sign)
    # torch.where, not a product: NaN times zero is NaN
    chosen = {n: torch.where(aligned, s, own[n]) for n, s in measured[1].items()}
    return _Part(torch.where(aligned, measured[0], plain), chosen, blocks, aligned, sign)


def _measured(
    plain: Tensor,
    own: Factors,
    blocks: list[MatrixMoments],
    sign: float,
    second_moment: str,
    options: Options,
) -> tuple[Tensor, Factors] | None:
    """Gradients and statistics of the factors from the records; None where a fold is empty."""
    sides, from_mean = tuple(options.powers), second_moment == "square_of_mean"
    if options.folds == 1:
        return plain, own if from_mean else _mean_squares(blocks, sides, plain.dtype)
    counts = [group.count for block in blocks for group in block.groups]
    if len(counts) != 2 * len(blocks) or not all(counts):
        return None
    crossed = [g for block in blocks for g in block.groups[::-1]]
    means = torch.stack([g.mean for block in blocks for g in block.groups]).to(plain.dtype)
    if from_mean:
        return means * sign, squares(means.unflatten(0, (-1, 2)).flip(1).flatten(0, 1), sides)
    return means * sign, _mean_squares(crossed, sides, plain.dtype)


def _mean_squares(
    blocks: list[MatrixMoments], sides: tuple[str, ...], dtype: torch.dtype
) -> Factors:
    left, right = zip(*(block.square_means() for block in blocks), strict=True)
    means = {"left": left, "right": right}
    return {side: torch.stack(means[side]).to(dtype) for side in sides}


def _deviations(parts: Sequence[_Part], options: Options) -> Deviations | GradientDeviations:
    """Those of the microbatches, [B, r, ...]; unknown for members without statistics."""
    known = torch.cat([part.aligned.expand(len(part.gradient)) for part in parts])
    records = [block for part in parts if part.blocks is not None for block in part.blocks]
    if records and records[0].kept is not None:
        return _of_gradients(parts, records[0], known)
    momentum, factors = [], {side: [] for side in options.powers}
    for part in parts:
        read = _read(part)
        momentum.append(read[0])
        for side, index in (("left", 1), ("right", 2)):
            if side in factors:
                factors[side].append(read[index])
    return Deviations(
        torch.cat(momentum),
        {side: torch.cat(values) for side, values in factors.items()},
        known=known,
    )


def _of_gradients(
    parts: Sequence[_Part], record: MatrixMoments, known: Tensor
) -> GradientDeviations:
    """From the gradients themselves, which share their weights; zeros without statistics."""
    gradients = [
        part.gradient.new_zeros(len(part.gradient), record.count, *part.gradient.shape[1:])
        if part.blocks is None
        else torch.stack([b.gradients for b in part.blocks]).to(part.gradient.dtype) * part.sign
        for part in parts
    ]
    joined = torch.cat(gradients)
    weights, roots = (
        w.to(joined.dtype).expand(len(joined), -1) for w in (record.weights, record.root_weights)
    )
    return GradientDeviations(joined, weights, roots, known)


def _read(part: _Part) -> tuple[Tensor | None, ...]:
    """δM, δL, δR of a member's blocks, a sketch each; zeros without statistics."""
    blocks, rows, columns = part.gradient.shape
    if part.blocks is None:
        sizes = ((rows, columns), (rows, rows), (columns, columns))
        return tuple(part.gradient.new_zeros(blocks, 1, *size) for size in sizes)
    read = zip(*(block.deviations() for block in part.blocks), strict=True)
    momentum, left, right = (
        None if values[0] is None else torch.stack(values).to(part.gradient.dtype)
        for values in read
    )
    return momentum * part.sign, left, right
