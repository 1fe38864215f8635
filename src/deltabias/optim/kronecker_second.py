r"""The first and second order of an inverse root, by the fewest products of matrices.

`deltabias.generated.inverse_root_p` takes p products for A^(-1/p). A p that is a power of two is a
chain of square roots and one inverse, and the second order of a chain needs one product a link:
with A + E = V², V's part of first order is V₁ = E_ij / (v_i + v_j), and from V V₂ + V₂ V + V₁² = 0

.. math:: -V_2 = \frac{V_1 V_1}{v_i + v_j}, \qquad
          -W_2 = \frac{-V_2 + W_1 W_1}{w_i + w_j} \quad\text{for } W = V^{1/2},\qquad
          X_2 = x_i x_j\,\bigl(-W_2 + W_1\,\mathrm{diag}(x)\,W_1\bigr)
          \quad\text{for } X = W^{-1}

with x = 1/w. That is 1 + log₂ p products, three for p = 4, and every one symmetric. Nothing is
subtracted: what is carried is minus the second order of the roots, which are operator concave, and
the inverse changes its sign. So each sum is one of positive coefficients, exact at equal
eigenvalues, as those of the generated kernels, which remain the reference (and are what is used
for p = 4/3, 3 and 6); tests prove the two equal as rational functions.
"""

from fractions import Fraction
from types import ModuleType

from torch import Tensor

from deltabias.microbatch.matrix_products import symmetric_product

CHAINS = {Fraction(1): 0, Fraction(2): 1, Fraction(4): 2, Fraction(8): 3}
"""Square roots that make up the root p."""


def orders(
    power: Fraction, kernels: ModuleType, eigenvalues: Tensor, rotated: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Both orders of A^(-1/p) along perturbations, all in the eigenbasis of A.

    Parameters
    ----------
    power, kernels
        p, and the generated functions of this root
    eigenvalues
        λ [B, d], positive
    rotated
        E [B, r, d, d], symmetric

    Returns
    -------
    first, relative
        f[λ_i, λ_j] E_ij, [B, r, d, d], and Σ_r P^-½ X₂ P^-½, [B, d, d], symmetric and positive
        semidefinite
    """
    if power in CHAINS:
        return _by_chain(CHAINS[power], eigenvalues, rotated)
    root = kernels.roots(eigenvalues)
    half = kernels.values(root).sqrt()
    second = kernels.second_order(root, rotated)
    first = kernels.first_order(root.unsqueeze(1), rotated)
    return first, second / (half[:, :, None] * half[:, None, :])


def _by_chain(links: int, eigenvalues: Tensor, rotated: Tensor) -> tuple[Tensor, Tensor]:
    along, curved, value = rotated, None, eigenvalues
    for _ in range(links):
        value = value.sqrt()
        sums = value[:, :, None] + value[:, None, :]
        along = along / sums.unsqueeze(1)
        square = _square(along)
        curved = (square if curved is None else square.add_(curved)).div_(sums)
    inverse = value.reciprocal()
    # P = diag(x), so P^-½ X₂ P^-½ has √(x_i x_j) where X₂ has x_i x_j
    half = inverse.sqrt()
    last = _square(along, half)
    total = last if curved is None else last.add_(curved)
    relative = total.mul_(half[:, :, None]).mul_(half[:, None, :])
    return along * (-inverse[:, None, :, None]) * inverse[:, None, None, :], relative


def _square(along: Tensor, weight: Tensor | None = None) -> Tensor:
    """Σ_r V_r diag(weight)² V_r of symmetric V_r [B, r, d, d]."""
    if weight is not None:
        along = along * weight[:, None, None, :]
    blocks, r, size, _ = along.shape
    wide = along[:, 0] if r == 1 else along.movedim(1, 2).reshape(blocks, size, r * size)
    return symmetric_product(wide, wide)
