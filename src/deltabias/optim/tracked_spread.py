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

from deltabias.microbatch.matrix_products import conjugated, summed_product, symmetric_product
from deltabias.optim.kronecker import BareSide, Side, tidy

Factors = dict[str, Tensor]
SIDES = ("left", "right")
TRACKS_UPDATE = ("full", "sketch")
TRACKS_DIAGONAL = ("diagonal", "eigenvalue_only")
MOST_COMPLETION = 2.0
"""Of a sum of which only the newer half was seen, as at the second step."""


@dataclass(frozen=True)
class Weights:
    """Normalized weights of a step in momentum (EMA, β₁) and factor (EMA, β₂, or a plain sum).

    ``newest_*`` are a and b; ``squares`` is Σ w_s² of the factor, ``products`` Σ w^M_s w_s. The
    last four are for a spread that is measured at every k-th step: what the weights of older steps
    were multiplied by since the last measurement, squared and mixed; and what the k steps since
    then have of the sums, over b² and a b of the one that is measured. For k = 1 they are
    (1 − b)², (1 − a)(1 − b), 1 and 1.
    """

    newest_momentum: float
    newest_factor: float
    squares: float
    products: float
    keep: float
    keep_mixed: float
    stands_for: float
    stands_for_mixed: float

    @classmethod
    def at(cls, step: int, beta1: float, beta2: float, memory: str, every: int = 1) -> "Weights":
        """The weights after `step` >= 1 steps, the last measurement but one `every` steps ago."""
        a, b, squares, products = _sums(step, beta1, beta2, memory)
        if every == 1:
            kept = ((1 - b) ** 2, (1 - a) * (1 - b), 1.0, 1.0)
        elif step <= every:
            kept = (0.0, 0.0, squares / b**2, products / (a * b))
        else:
            before = _sums(step - every, beta1, beta2, memory)
            # a weight falls by 1 − a at each step, which is a debiasing over the next, times β
            momentum = beta1**every * a / before[0]
            factor = (1.0 if memory == "sum" else beta2**every) * b / before[1]
            keep, mixed = factor**2, momentum * factor
            new, new_mixed = squares - keep * before[2], products - mixed * before[3]
            kept = (keep, mixed, new / b**2, new_mixed / (a * b))
        return cls(a, b, squares, products, *kept)


def _sums(step: int, beta1: float, beta2: float, memory: str) -> tuple[float, float, float, float]:
    """a, b, Σ w_s² and Σ w^M_s w_s."""
    a = (1 - beta1) / (1 - beta1**step)
    if memory == "sum":
        return a, 1 / step, 1 / step, 1 / step
    b, both = (1 - beta2) / (1 - beta2**step), beta1 * beta2
    squares = b / (1 + beta2) * (1 + beta2**step)
    return a, b, squares, a * b / (1 - both) * (1 - both**step)


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

    def rotated(self, sides: dict[str, Side], factor: float, *, couples: bool) -> "Rotated":
        """In the eigenbases, the factors' times `factor`; the momentum's only if it `couples`."""
        momentum = turned(sides, self.momentum) if couples else None
        return momentum, {n: s.rotate(self.factors[n], factor) for n, s in sides.items()}


Rotated = tuple[Tensor | None, Factors]
"""δM [B, r, d, n] in both eigenbases, and E by side in units of its scale."""


@dataclass(frozen=True)
class GradientDeviations:
    """The deviations of m microbatches' gradients and squares, which are formed in the eigenbasis.

    Qᵀ (G Gᵀ) Q is (Qᵀ G)(Qᵀ G)ᵀ, so it is enough to turn the gradients: 4 products a microbatch
    for everything, where turning δM and both δ of the factors takes 6 besides the squares.

    gradients [B, m, d, n]; weights [B, m] of sum 1; roots [B, m], √(w_r/(m−1)). ``known`` as above.
    """

    gradients: Tensor
    weights: Tensor
    roots: Tensor
    known: Tensor | None = None
    same: float = 1.0
    mixed: float = 1.0

    def rotated(self, sides: dict[str, Side], factor: float, *, couples: bool) -> Rotated:
        """As `Deviations.rotated`."""
        x, factors = turned(sides, self.gradients), {}
        for name, side in sides.items():
            y = (x if name == "left" else x.mT) / (side.scale / factor).sqrt()[:, None, None, None]
            factors[name] = tidy(self._centered(symmetric_product(y, y)))
        return (self._centered(x) if couples else None), factors

    def _centered(self, values: Tensor) -> Tensor:
        """√(w_r/(m−1)) (x_r − Σ w_s x_s)."""
        shape = (*self.weights.shape, 1, 1)
        mean = (values * self.weights.view(shape)).sum(1, keepdim=True)
        return (values - mean).mul_(self.roots.view(shape))


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

    inversion : K by side, [B, d, d], or its diagonal [B, d], in the eigenbasis
    seen : [B, 2], what the steps that contributed have of Σ w_s² and Σ w^M_s w_s
    coupling, cross : [B, d, n], or None where the mode has none; in the eigenbases, or not
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


def turned(sides: dict[str, Side], matrix: Tensor) -> Tensor:
    """Q_Lᵀ X Q_R, into the eigenbases of the sides that there are; X [B, d, n] or [B, r, d, n]."""
    return _between(matrix, {n: side.basis.mT for n, side in sides.items()})


def turned_back(sides: dict[str, Side], matrix: Tensor) -> Tensor:
    """Q_L X Q_Rᵀ, out of the eigenbases."""
    return _between(matrix, {n: side.basis for n, side in sides.items()})


def _between(matrix: Tensor, by: Factors) -> Tensor:
    """T_L X T_Rᵀ."""
    if matrix.ndim == 4:
        by = {n: t.unsqueeze(1) for n, t in by.items()}
    if "left" in by:
        matrix = by["left"] @ matrix
    return matrix @ by["right"].mT if "right" in by else matrix


def scaled(sides: dict[str, Side], matrix: Tensor) -> Tensor:
    """P_L X P_R of X in the eigenbases, where P is diagonal; no product of matrices."""
    for name, side in sides.items():
        p = side.diagonal[:, :, None] if name == "left" else side.diagonal[:, None, :]
        matrix = matrix * (p.unsqueeze(1) if matrix.ndim == 4 else p)
    return matrix


def moved(tracked: Tracked, changes: Factors, *, terms: bool) -> Tracked:
    """In another basis: T K Tᵀ, and T_L X T_Rᵀ for coupling and cross if `terms`."""
    inversion = {n: conjugated(changes[n], k) for n, k in tracked.inversion.items()}
    if not terms:
        return replace(tracked, inversion=inversion)
    coupling, cross = (
        None if x is None else _between(x, changes) for x in (tracked.coupling, tracked.cross)
    )
    return replace(tracked, inversion=inversion, coupling=coupling, cross=cross)


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
    deviations: Deviations | GradientDeviations | None,
    weights: Weights,
    momentum: Tensor | None,
    mode: str,
    *,
    held: bool,
) -> Tracked:
    """Forget a little, and add the newest step's terms (none without deviations).

    A block whose newest deviation is out of the expansion's reach (`Side.within`; only with a
    stale basis) adds nothing in this step; coupling and cross terms are cut to the size of the
    update.

    momentum
        M̂ in the eigenbases; not needed by the diagonal modes
    held
        whether coupling and cross are tracked in the eigenbases, which are then held, or not
    """
    keep, keep_mixed = weights.keep, weights.keep_mixed
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
    terms = [
        None if x is None else y.add_(x if held else turned_back(sides, x))
        for x, y in ((new.coupling, old.coupling), (new.cross, old.cross))
    ]
    inversion = {side: k.add_(new.inversion[side]) for side, k in old.inversion.items()}
    return Tracked(inversion, old.seen + new.seen, *terms, new.clamped)


def _newest(
    sides: dict[str, Side],
    deviations: Deviations | GradientDeviations,
    weights: Weights,
    momentum: Tensor | None,
    mode: str,
) -> Tracked:
    """The newest step's terms with their weights; in units of b δ / √divisor."""
    a, b = weights.newest_momentum, weights.newest_factor
    around, rotated = deviations.rotated(
        sides, b / math.sqrt(deviations.same), couples=mode in TRACKS_UPDATE
    )
    within = torch.stack([side.within(rotated[n]) for n, side in sides.items()]).all(0)
    known = within if deviations.known is None else deviations.known
    clamped, within = (known & ~within).sum(), known & within
    # zero deviations before the kernels: what is out of reach may also overflow
    rotated = {n: _only(within, e) for n, e in rotated.items()}
    same, mixed = weights.stands_for, weights.stands_for_mixed
    shares = next(iter(rotated.values())).new_tensor([b * b * same, a * b * mixed])
    seen = within.unsqueeze(1) * shares
    if mode in TRACKS_DIAGONAL:
        alone = mode == "eigenvalue_only"
        inversion = {
            n: side.relative_diagonal(rotated[n], eigenvalue_only=alone) * same
            for n, side in sides.items()
        }
        return Tracked(inversion, seen, None, None, clamped)
    orders = {n: side.orders(rotated[n]) for n, side in sides.items()}
    slopes = {n: slope for n, (slope, _) in orders.items()}
    inversion = {n: k if same == 1 else k * same for n, (_, k) in orders.items()}
    limit = torch.linalg.vector_norm(scaled(sides, momentum).flatten(1), dim=1)
    factor = a * math.sqrt(deviations.same) / deviations.mixed * mixed
    coupling, cut = bounded(_coupling(sides, slopes, around).mul_(factor), limit)
    clamped = clamped + cut
    if len(sides) < 2:
        return Tracked(inversion, seen, coupling, None, clamped)
    cross = summed_product(slopes["left"] @ momentum.unsqueeze(1), slopes["right"])
    cross, cut = bounded(cross if same == 1 else cross.mul_(same), limit)
    return Tracked(inversion, seen, coupling, cross, clamped + cut)


def _only(within: Tensor, deviations: Tensor) -> Tensor:
    """Zero for the blocks that are not within, also what is not finite, in place."""
    return deviations.nan_to_num_(0.0, 0.0, 0.0).mul_(within[:, None, None, None])


def _coupling(sides: dict[str, Side], slopes: Factors, momentum: Tensor) -> Tensor:
    """Σ_r D P_L[δL_r] δM_r P_R + P_L δM_r D P_R[δR_r] in the eigenbases, [B, d, n]."""
    terms = []
    if "left" in sides:
        others = {n: side for n, side in sides.items() if n != "left"}
        terms.append(summed_product(slopes["left"], scaled(others, momentum)))
    if "right" in sides:
        others = {n: side for n, side in sides.items() if n != "right"}
        terms.append(summed_product(scaled(others, momentum), slopes["right"]))
    return sum(terms[1:], terms[0])


def corrected_sides(
    sides: dict[str, Side], inversion: Factors, completion: Tensor, mode: str
) -> dict[str, Side]:
    """Each side with the tracked inversion, in the eigenbasis, divided out."""
    if mode in TRACKS_DIAGONAL:
        whole = {n: k * completion[:, None] for n, k in inversion.items()}
        return {n: side.corrected_diagonal(whole[n]) for n, side in sides.items()}
    whole = {n: k * completion[:, None, None] for n, k in inversion.items()}
    return {n: side.corrected(whole[n]) for n, side in sides.items()}


def default_power(sides: tuple[str, ...]) -> Fraction:
    """p of Shampoo: 2 for one side, 4 for two, so that the update does not scale with G."""
    return Fraction(2 * len(sides))
