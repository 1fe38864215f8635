r"""The spread of the factors' averages, tracked over the history.

With S_s the factor's statistic of step s and w_s the normalized weights of the average Â = Σ w_s
S_s, independent steps give

.. math:: \operatorname{Cov} \hat A = \sum_s w_s^2 \operatorname{Cov} S_s, \qquad
          \operatorname{Cov}(\hat M, \hat A) = \sum_s w^M_s w_s \operatorname{Cov}(G_s, S_s).

A new step with weight b multiplies every older weight by 1 − b, so the sums are recursions with
(1 − b)², b² and (1 − a)(1 − b), ab; what is tracked is their image under the second-order kernels
(the inversion, relative to the preconditioner and so independent of the gradients' size) and under
the first-order ones (coupling and cross terms, in the space of updates).
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from deltabias.optim.kronecker import BareSide, Side

Factors = dict[str, Tensor]
SIDES = ("left", "right")
TRACKS_UPDATE = ("full", "sketch")
TRACKS_DIAGONAL = ("diagonal", "eigenvalue_only")
MOST_COMPLETION = 2.0
"""Of a sum of which only the newer half was seen, as at the second step."""


@dataclass(frozen=True)
class Weights:
    """Normalized weights of a step in momentum (EMA, β₁) and factor (EMA, β₂, or a plain sum).

    ``newest_*`` are a and b; ``squares`` is Σ w_s² of the factor, ``products`` Σ w^M_s w_s.
    """

    newest_momentum: float
    newest_factor: float
    squares: float
    products: float

    @classmethod
    def at(cls, step: int, beta1: float, beta2: float, memory: str) -> "Weights":
        """The weights after `step` >= 1 steps."""
        a = (1 - beta1) / (1 - beta1**step)
        if memory == "sum":
            return cls(a, 1 / step, 1 / step, 1 / step)
        b, both = (1 - beta2) / (1 - beta2**step), beta1 * beta2
        squares = b / (1 + beta2) * (1 + beta2**step)
        return cls(a, b, squares, a * b / (1 - both) * (1 - both**step))


@dataclass(frozen=True)
class Deviations:
    """Directions δ_r with Σ_r δ_r ⊗ δ_r / divisor an estimate of the step's covariance.

    momentum [B, r, d, n]; factors: [B, r, d, d] and [B, r, n, n]. Two divisors, for pairs of
    factors and for pairs of momentum and factor. ``known`` [B]: which blocks have any, all if None.
    """

    momentum: Tensor
    factors: Factors
    same: float = 1.0
    mixed: float = 1.0
    known: Tensor | None = None


def history_deviations(
    gradient: Tensor, statistics: Factors, momentum: Tensor, averages: Factors, before: Weights
) -> Deviations:
    r"""From the step's statistics and the averages before it, for stationary gradients.

    .. math:: \delta = S_t - \hat A_{t-1}, \qquad
              E\,\delta \otimes \delta = \operatorname{Cov} S\,(1 + \textstyle\sum_s w_s^2)

    Drift of the mean is taken for spread. Measured on 4 × 6 blocks whose mean gradient turns by ω a
    step, betas (0.9, 0.95): along the bias 6-8 % of it are left for squares of means at any ω up to
    0.1; for means of squares, whose bias is four times smaller, 0, -10 % and -28 % at ω = 0, 0.05
    and 0.1, where the microbatches' own spread leaves at most 6 %.
    """
    factors = {side: (statistics[side] - averages[side]).unsqueeze(1) for side in averages}
    return Deviations(
        (gradient - momentum).unsqueeze(1), factors, 1 + before.squares, 1 + before.products
    )


@dataclass(frozen=True)
class Tracked:
    """What is kept between steps, per batch of blocks.

    inversion : K by side, [B, d, d] in the original basis, or its diagonal [B, d] in the eigenbasis
    seen : [B, 2], what the steps that contributed have of Σ w_s² and Σ w^M_s w_s
    coupling, cross : [B, d, n], or None where the mode has none
    clamped : how many blocks' newest terms were cut to size in this step, 0-d
    """

    inversion: Factors
    seen: Tensor
    coupling: Tensor | None
    cross: Tensor | None
    clamped: Tensor | int = 0

    def completion(self, weights: Weights) -> tuple[Tensor, Tensor]:
        """All of Σ w_s² and Σ w^M_s w_s over what was seen, [B] each, at most 2.

        The first step has no older average to deviate from, a step may lack statistics, a run may
        begin without any: right for a constant spread, and 1 when nothing is missing. Bounded, as
        little that was seen says little.
        """
        whole = self.seen.new_tensor([weights.squares, weights.products])
        ratio = torch.where(self.seen > 0, whole / self.seen, torch.ones_like(self.seen))
        return tuple(ratio.clamp(1.0, MOST_COMPLETION).unbind(1))


def through(sides: dict[str, Side] | dict[str, BareSide], matrix: Tensor) -> Tensor:
    """P_L X P_R, with one factor or both; X is [B, d, n] or [B, r, d, n]."""
    roots = {name: side.inverse_root for name, side in sides.items()}
    if matrix.ndim == 4:
        roots = {name: root.unsqueeze(1) for name, root in roots.items()}
    if "left" in roots:
        matrix = roots["left"] @ matrix
    return matrix @ roots["right"] if "right" in roots else matrix


def bounded(term: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """`term` with its Frobenius norm per block cut to `limit` [B], and how many were cut.

    What is not finite is cut to zero, and counted.
    """
    flat = term.flatten(1)
    norm = torch.linalg.vector_norm(flat, dim=1)
    outside = ~(norm <= limit)
    factor = torch.where(outside, limit / norm, torch.ones_like(norm))
    factor = torch.where(norm.isfinite(), factor, torch.zeros_like(factor))
    # torch.where, not a product: infinity times zero is NaN
    shape = (-1, *[1] * (term.ndim - 1))
    kept = torch.where(norm.isfinite().view(shape), term, torch.zeros_like(term))
    return kept * factor.view(shape), outside.sum()


def advance(
    tracked: Tracked,
    sides: dict[str, Side],
    deviations: Deviations | None,
    weights: Weights,
    momentum: Tensor,
    mode: str,
) -> Tracked:
    """Forget a little, and add the newest step's terms (none without deviations).

    A block whose newest deviation is out of the expansion's reach (`Side.reaches`; only with a
    stale basis) adds nothing in this step; coupling and cross terms are cut to the size of the
    update.
    """
    a, b = weights.newest_momentum, weights.newest_factor
    keep, keep_mixed = (1 - b) ** 2, (1 - a) * (1 - b)
    old = replace(
        tracked,
        inversion={side: k * keep for side, k in tracked.inversion.items()},
        seen=tracked.seen * tracked.seen.new_tensor([keep, keep_mixed]),
        coupling=None if tracked.coupling is None else tracked.coupling * keep_mixed,
        cross=None if tracked.cross is None else tracked.cross * keep,
    )
    if deviations is None:
        return old
    new = _newest(sides, deviations, weights, momentum, mode)
    return Tracked(
        {side: old.inversion[side] + new.inversion[side] for side in old.inversion},
        old.seen + new.seen,
        None if old.coupling is None else old.coupling + new.coupling,
        None if old.cross is None else old.cross + new.cross,
        new.clamped,
    )


def _newest(
    sides: dict[str, Side], deviations: Deviations, weights: Weights, momentum: Tensor, mode: str
) -> Tracked:
    """The newest step's terms with their weights; in units of b δ / √divisor."""
    scale = weights.newest_factor / math.sqrt(deviations.same)
    rotated = {n: side.rotate(deviations.factors[n] * scale) for n, side in sides.items()}
    within = torch.stack([side.reaches(rotated[n]) for n, side in sides.items()]).all(0)
    if deviations.known is not None:
        clamped, within = (deviations.known & ~within).sum(), within & deviations.known
    else:
        clamped = (~within).sum()
    # zero deviations before the kernels: what is out of reach may also overflow
    rotated = {n: _only(within, e) for n, e in rotated.items()}
    b = weights.newest_factor
    shares = momentum.new_tensor([b * b, weights.newest_momentum * b])
    seen = within.unsqueeze(1).to(momentum.dtype) * shares
    if mode in TRACKS_DIAGONAL:
        alone = mode == "eigenvalue_only"
        inversion = {
            n: side.relative_diagonal(rotated[n], eigenvalue_only=alone)
            for n, side in sides.items()
        }
        return Tracked(inversion, seen, None, None, clamped)
    inversion = {n: side.relative_inversion(rotated[n]) for n, side in sides.items()}
    slopes = {n: side.derivative(rotated[n]) for n, side in sides.items()}
    limit = torch.linalg.vector_norm(through(sides, momentum).flatten(1), dim=1)
    factor = weights.newest_momentum * math.sqrt(deviations.same) / deviations.mixed
    coupling, cut = bounded(_coupling(sides, slopes, deviations.momentum) * factor, limit)
    clamped = clamped + cut
    if len(sides) < 2:
        return Tracked(inversion, seen, coupling, None, clamped)
    cross = (slopes["left"] @ momentum.unsqueeze(1) @ slopes["right"]).sum(1)
    cross, cut = bounded(cross, limit)
    return Tracked(inversion, seen, coupling, cross, clamped + cut)


def _only(within: Tensor, deviations: Tensor) -> Tensor:
    """Zero for the blocks that are not within; torch.where, as NaN times zero is NaN."""
    return torch.where(within[:, None, None, None], deviations, torch.zeros_like(deviations))


def _coupling(sides: dict[str, Side], slopes: Factors, momentum: Tensor) -> Tensor:
    """Σ_r D P_L[δL_r] δM_r P_R + P_L δM_r D P_R[δR_r], [B, d, n]."""
    total = torch.zeros_like(momentum[:, 0])
    if "left" in sides:
        others = {n: side for n, side in sides.items() if n != "left"}
        total = total + through(others, slopes["left"] @ momentum).sum(1)
    if "right" in sides:
        others = {n: side for n, side in sides.items() if n != "right"}
        total = total + (through(others, momentum) @ slopes["right"]).sum(1)
    return total


def corrected_sides(
    sides: dict[str, Side], inversion: Factors, completion: Tensor, mode: str
) -> dict[str, Side]:
    """Each side with the tracked inversion divided out."""
    if mode in TRACKS_DIAGONAL:
        whole = {n: k * completion[:, None] for n, k in inversion.items()}
        return {n: side.corrected_diagonal(whole[n]) for n, side in sides.items()}
    whole = {n: k * completion[:, None, None] for n, k in inversion.items()}
    return {n: side.corrected(whole[n]) for n, side in sides.items()}


def default_power(sides: tuple[str, ...]) -> Fraction:
    """p of Shampoo: 2 for one side, 4 for two, so that the update does not scale with G."""
    return Fraction(2 * len(sides))
