"""One side of a Kronecker-factored preconditioner, for a batch of equal blocks.

A side holds A + damping I = s Q diag(λ) Qᵀ with s its mean eigenvalue, so that fp32 neither over-
nor underflows, whatever the size of the gradients: f(s λ) = s^(-1/p) f(λ). The functions of the
generated kernels work on λ; this module rotates into their eigenbasis and back.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from types import ModuleType

import torch
from torch import Tensor

from deltabias.generated import (
    inverse_root_1,
    inverse_root_2,
    inverse_root_3,
    inverse_root_4,
    inverse_root_4_3,
    inverse_root_6,
    inverse_root_8,
)
from deltabias.microbatch.matrix_products import conjugated, symmetric_product
from deltabias.optim.eigen import eigendecompose
from deltabias.optim.kronecker_second import orders

KERNELS: dict[Fraction, ModuleType] = {
    Fraction(1): inverse_root_1,
    Fraction(4, 3): inverse_root_4_3,
    Fraction(2): inverse_root_2,
    Fraction(3): inverse_root_3,
    Fraction(4): inverse_root_4,
    Fraction(6): inverse_root_6,
    Fraction(8): inverse_root_8,
}
"""The generated inverse roots, A^(-1/p) by p."""

ROUNDING = 8
"""Entries of a product of d × d matrices are right to within this times √d eps of the largest."""


@dataclass(frozen=True)
class Side:
    """(A + damping I) of one side, taken apart, and its inverse root.

    Attributes
    ----------
    power
        p of A^(-1/p), a key of `KERNELS`
    basis, eigenvalues, scale, size
        Q [B, d, d], λ [B, d], s [B] and s^(-1/p) [B]
    inverse_root
        what the update multiplies with, [B, d, d]: P, or its corrected form; None while that is
        not known
    """

    power: Fraction
    basis: Tensor
    eigenvalues: Tensor
    scale: Tensor
    size: Tensor
    inverse_root: Tensor | None

    @classmethod
    def decompose(
        cls, average: Tensor, damping: float, power: Fraction, name: str, count: int = 1
    ) -> "Side":
        """Take A + damping I apart, A symmetric [B, d, d].

        The inverse root is that of `count` (A + damping I), for factors that are sums of `count`
        statistics. Raises what `eigendecompose` raises; `name` is for its texts.
        """
        return cls.from_eigen(*eigendecompose(average, damping=damping, name=name), power, count)

    @classmethod
    def from_eigen(
        cls, eigenvalues: Tensor, basis: Tensor, power: Fraction, count: int = 1
    ) -> "Side":
        """From the eigenvalues [B, d] and the basis of A + damping I, as `decompose`."""
        bare = cls.bare(eigenvalues, basis, power, count)
        return replace(bare, inverse_root=bare.plug_in())

    @classmethod
    def bare(cls, eigenvalues: Tensor, basis: Tensor, power: Fraction, count: int = 1) -> "Side":
        """As `from_eigen`, without an inverse root."""
        scale = eigenvalues.mean(-1)
        eigenvalues = eigenvalues / scale[:, None]
        return cls(power, basis, eigenvalues, scale, (count * scale) ** float(-1 / power), None)

    @property
    def kernels(self) -> ModuleType:
        """The generated functions of this root."""
        return KERNELS[self.power]

    @property
    def root(self) -> Tensor:
        """The kernels' variable, [B, d]."""
        return self.kernels.roots(self.eigenvalues)

    @property
    def values(self) -> Tensor:
        """x = f(λ), [B, d], without the scale."""
        return self.kernels.values(self.root)

    @property
    def diagonal(self) -> Tensor:
        """P = (A + damping I)^(-1/p) in the eigenbasis, [B, d], with the scale."""
        return self.values * self.size[:, None]

    def plug_in(self) -> Tensor:
        """P, [B, d, d]."""
        return symmetric_product(self.basis * self.diagonal[:, None, :], self.basis)

    def rotate(self, deviations: Tensor, factor: float = 1.0) -> Tensor:
        """E = factor Qᵀ δ Q / s, [B, r, d, d], `tidy`."""
        basis, unit = self.basis.unsqueeze(1), (self.scale / factor)[:, None, None, None]
        return tidy(conjugated(basis.mT, deviations / unit))

    def within(self, rotated: Tensor) -> Tensor:
        """Whether an expansion about this side reaches as far as E, [B]; not where E is not finite.

        A + E is positive only if |E_ij| <= √(λ_i λ_j) for i != j and E_ii >= -λ_i. The newest
        step's share of the average, b S <= Â, keeps its deviations below 2 √(λ_i λ_j) for a
        basis that has seen it; a stale basis, which has not, may be far outside.
        """
        root = self.eigenvalues.sqrt()
        limit = 2 * (root[:, :, None] * root[:, None, :]).unsqueeze(1)
        # a maximum, as comparing every entry is ten times slower on a CPU; a NaN is no <= 0
        return (rotated.abs() - limit).flatten(1).amax(1) <= 0

    def orders(self, rotated: Tensor) -> tuple[Tensor, Tensor]:
        """Both orders of P along E, in the eigenbasis.

        Returns D f(A)[δ] for every deviation, [B, r, d, d], and K = P^-½ X₂ P^-½ summed over
        them, [B, d, d]. K is symmetric, positive semidefinite and of no unit.
        """
        first, relative = orders(self.power, self.kernels, self.eigenvalues, rotated)
        return first * self.size[:, None, None, None], relative

    def relative_diagonal(self, rotated: Tensor, *, eigenvalue_only: bool) -> Tensor:
        """The diagonal of the exact term, or the published ½ f'' Var λ, in units of P, [B, d].

        In the eigenbasis: what is tracked moves with the basis.
        """
        squares = rotated.square().sum(1)
        if eigenvalue_only:
            squares = squares.diagonal(dim1=-2, dim2=-1)
            return self.kernels.eigenvalue_only(self.root, squares) / self.values
        return self.kernels.diagonal(self.root, squares) / self.values

    def corrected(self, relative: Tensor) -> "Side":
        """With P½ (I + K)⁻¹ P½ in place of P, for K [B, d, d] in the eigenbasis.

        Positive definite for every positive semidefinite K.
        """
        half = self.values.sqrt()
        second = relative * half[:, :, None] * half[:, None, :]
        function = self.kernels.corrected(self.root, second)
        inverse_root = conjugated(self.basis, function).mul_(self.size[:, None, None])
        return replace(self, inverse_root=inverse_root)

    def corrected_diagonal(self, relative: Tensor) -> "Side":
        """With P (1 + k)⁻¹ in place of P, for k [B, d] in the eigenbasis."""
        values = self.kernels.corrected_diagonal(self.root, relative * self.values)
        values = values * self.size[:, None]
        inverse_root = symmetric_product(self.basis * values[:, None, :], self.basis)
        return replace(self, inverse_root=inverse_root)


def tidy(rotated: Tensor) -> Tensor:
    """E in place, with entries below the rounding of the product that it is set to zero.

    They would otherwise count as spread in the directions in which a deficient factor has nothing
    but its damping.
    """
    size = rotated.abs()
    largest = size.amax((-2, -1), keepdim=True)
    noise = ROUNDING * rotated.shape[-1] ** 0.5 * torch.finfo(rotated.dtype).eps * largest
    # 1 above the noise and 0 below, in arithmetic: masks are ten times slower on a CPU
    return rotated.mul_(size.sub_(noise).clamp_(0, 1).ceil_())


@dataclass(frozen=True)
class BareSide:
    """A side of which only the inverse root is known: what an iteration leaves.

    Enough to precondition. Not to correct: the corrections are products of entries in the
    eigenbasis, which no iteration finds.
    """

    inverse_root: Tensor
