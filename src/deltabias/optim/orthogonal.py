r"""Orthogonalizing a matrix, M ↦ M (MᵀM)^-½, and the bias that noise in M gives it.

Two maps: Newton-Schulz as in `torch.optim.Muon`, bit for bit, which is smooth everywhere, and the
exact polar factor, which is not where M is rank-deficient. Both do not depend on the scale of M,
so that their second-order term along deviations δ_r of M,

.. math:: T_2(M)[\delta] = \tfrac12 \sum_r D^2 T(M)[\delta_r, \delta_r],

is of degree −2 in M and 2 in δ. All functions are batched over leading dimensions.
"""

import math
from functools import partial

import torch
from torch import Tensor

from deltabias.generated import inverse_root_2, muon, muon_polar
from deltabias.microbatch.matrix_moments import full_precision
from deltabias.optim.eigen import SingularPreconditioner

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_STEPS = 5
CHUNK = 8
"""Deviations whose second order is worked out at once; each needs a dozen matrices of M's size."""


def newton_schulz(
    matrix: Tensor,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
    dtype: torch.dtype,
) -> Tensor:
    """``steps`` of X ← a X + (b XXᵀ + c (XXᵀ)²) X from M / max(‖M‖, eps); in `dtype`, [d, n].

    Every operation is that of `torch.optim.Muon` (K. Jordan et al., 2024), which has bfloat16.
    """
    a, b, c = coefficients
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.to(dtype)
    x = x.T if tall else x
    # out of place: torch's in-place division overwrites a bf16 momentum buffer without nesterov
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def adjusted_lr(lr: float | Tensor, kind: str | None, shape: torch.Size) -> float | Tensor:
    """The learning rate for a matrix of this shape, as `torch.optim.Muon` adjusts it."""
    rows, columns = shape
    if kind == "match_rms_adamw":
        return lr * (0.2 * math.sqrt(max(rows, columns)))
    return lr * math.sqrt(max(1, rows / columns))


def refuse_deficient(matrix: Tensor) -> None:
    """Raise unless [d, n] has rank min(d, n) to within rounding, or is zero. Waits for the device.

    Rounding M to fp32 (the momentum is no better) moves singular values by up to eps or so of the
    largest, and eigenvalues of MᵀM in fp64 are known to min(d, n) times their own.

    Raises
    ------
    SingularPreconditioner
        a singular value below these, relative to the largest.
    """
    values = torch.linalg.svdvals(matrix.double()).tolist()
    rounding = (2.25 * min(matrix.shape) * torch.finfo(torch.float64).eps) ** 0.5
    if values[0] > 0 and values[-1] <= max(torch.finfo(torch.float32).eps, rounding) * values[0]:
        raise SingularPreconditioner(
            f"the averaged gradient of shape {tuple(matrix.shape)} is rank-deficient: singular "
            f"values from {values[0]:.3g} to {values[-1]:.3g}, so its polar factor is not defined; "
            "nothing was changed. Use polar='newton_schulz', which is smooth there, or average "
            "over more samples."
        )


def polar_factor(matrix: Tensor) -> Tensor:
    """M (MᵀM)^-½ on the short side of [..., d, n], which has full rank; in fp64 inside."""
    wide = _wide(matrix)
    return _turned(muon_polar.plug_in_update(_turned(matrix, wide).double()), wide).to(matrix.dtype)


def crossed_polar_factor(first: Tensor, second: Tensor) -> Tensor:
    """The mean of A (BᵀB)^-½ and B (AᵀA)^-½, [..., d, n]: each one's numerator, the other's root.

    Not bounded: where a singular value of one is small and the other's is not, it is large.
    """
    wide = _wide(first)
    a, b = (_turned(m, wide).double() for m in (first, second))
    return _turned((a @ _inverse_root(b) + b @ _inverse_root(a)) / 2, wide).to(first.dtype)


def update_bias(matrix: Tensor, deviations: Tensor, polar: str, mode: str) -> Tensor:
    """T₂(M)[δ] summed over δ [..., r, d, n]; of the shape, dtype and in no unit of M [..., d, n].

    `mode` "full" is all of it. "diagonal" and "eigenvalue_only", for the exact polar factor, have
    the inversion alone, with the diagonal of its second-order part in the eigenbasis of MᵀM, or
    ½ f'' of the sums of E_ii²; neither has the coupling of M with its own root.

    Zero where M is zero. In units of M's largest entry: fp32 neither over- nor underflows.
    """
    peak = matrix.abs().amax((-2, -1), keepdim=True)
    unit = torch.where(peak > 0, peak, torch.ones_like(peak))
    matrix, deviations = matrix / unit, deviations / unit.unsqueeze(-3)
    exact = polar == "exact"
    turn = _wide(matrix) if exact else matrix.shape[-2] > matrix.shape[-1]
    work = torch.float64 if exact else matrix.dtype
    function = _INVERSION[mode] if mode in _INVERSION else _second_order(polar)
    total = torch.zeros_like(matrix)
    if not bool((peak > 0).all()) and exact:  # no eigenbasis; the exact polar factor waits anyway
        return total
    with full_precision():
        for part in deviations.split(CHUNK, dim=-3):
            term = function(_turned(matrix, turn).to(work), _turned(part, turn).to(work))
            total = total + _turned(term, turn).to(matrix.dtype)
    return torch.where(peak > 0, total, torch.zeros_like(total))


def _second_order(polar: str):
    module = muon_polar if polar == "exact" else muon
    return lambda matrix, deviations: sum(module.second_order(matrix, deviations).values())


def _wide(matrix: Tensor) -> bool:
    """Whether to transpose so that MᵀM is on the short side."""
    return matrix.shape[-2] < matrix.shape[-1]


def _turned(matrix: Tensor, turn: bool) -> Tensor:
    return matrix.mT if turn else matrix


def _inverse_root(matrix: Tensor) -> Tensor:
    """(MᵀM)^-½ for columns no more than rows."""
    eigenvalues, basis = torch.linalg.eigh(matrix.mT @ matrix)
    values = inverse_root_2.values(inverse_root_2.roots(eigenvalues))
    return (basis * values.unsqueeze(-2)) @ basis.mT


def _inversion(matrix: Tensor, deviations: Tensor, *, eigenvalue_only: bool) -> Tensor:
    """M X₂ with X₂ the second order of (MᵀM)^-½ along E = MᵀδM + δMᵀM and δMᵀδM."""
    eigenvalues, basis = torch.linalg.eigh(matrix.mT @ matrix)
    root, wide_basis = inverse_root_2.roots(eigenvalues), basis.unsqueeze(-3)
    half = wide_basis.mT @ (matrix.mT.unsqueeze(-3) @ deviations) @ wide_basis
    first = half + half.mT
    if eigenvalue_only:
        squares = first.diagonal(dim1=-2, dim2=-1).square().sum(-2)
        second = inverse_root_2.eigenvalue_only(root, squares)
    else:
        second = inverse_root_2.diagonal(root, first.square().sum(-3))
    square = basis.mT @ (deviations.mT @ deviations).sum(-3) @ basis
    total = torch.diag_embed(second) + inverse_root_2.first_order(root, square)
    return matrix @ basis @ total @ basis.mT


_INVERSION = {
    "diagonal": partial(_inversion, eigenvalue_only=False),
    "eigenvalue_only": partial(_inversion, eigenvalue_only=True),
}
