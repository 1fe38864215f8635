"""Errors of a matrix function's kernels against 60 digits, on spectra that are hard."""

from collections.abc import Mapping
from functools import cache
from types import ModuleType

import mpmath
import numpy as np
import sympy as sp
import torch
from torch import Tensor

from deltabias.parser import parse_expression
from deltabias.truth.matrix_functions import second_order_term, to_float64

ALLOWED = {torch.float64: 1e-14, torch.float32: 2e-6}
"""Of an entry's terms: sum over k of |f[i,k,j] E_ik E_kj|."""

SPECTRA: dict[str, tuple[float, ...]] = {
    "separated": (1.0, 0.5, 0.2, 0.03),
    "gap_1e-9": (1.0, 1.0 - 1e-9, 0.3, 0.3 + 1e-9),
    "repeated": (1.0, 1.0, 0.2, 0.2),
    "condition_1e12": (1.0, 1e-4, 1e-8, 1e-12),
    "deficient_damped": (1.0 + 1e-6, 0.3 + 1e-6, 1e-6, 1e-6),
    "one": (0.7,),
}


def worst_error(
    module: ModuleType,
    expression: str,
    spectrum: str,
    dtype: torch.dtype,
    scalars: Mapping[str, float],
    *,
    scale: float = 1.0,
) -> float:
    """The largest error of `second_order`, relative to the terms of its entry.

    Parameters
    ----------
    module : with ``roots`` and ``second_order``
    expression : f of ``eigenvalue``, in the language of rules
    spectrum : a name of `SPECTRA`
    scale : multiplies what the module gives; not 1 to see that the check can fail
    """
    eigenvalues = torch.tensor(SPECTRA[spectrum], dtype=dtype)
    perturbation = _perturbation(eigenvalues)
    found = module.second_order(module.roots(eigenvalues), perturbation.unsqueeze(-3), **scalars)
    exact, size = _reference(
        expression,
        tuple(eigenvalues.tolist()),
        tuple(map(tuple, perturbation.tolist())),
        tuple(sorted(scalars.items())),
    )
    return float(np.max(np.abs(found.double().numpy() * scale - exact) / size))


def _perturbation(eigenvalues: Tensor) -> Tensor:
    """A symmetric one whose entries have the size of the geometric means of the eigenvalues."""
    d = len(eigenvalues)
    noise = torch.randn(d, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    half = eigenvalues.double().sqrt()
    symmetric = ((noise + noise.mT) * half[:, None] * half[None, :]).to(eigenvalues.dtype)
    return 0.5 * (symmetric + symmetric.mT)


@cache
def _reference(expression, eigenvalues, perturbation, scalars) -> tuple[np.ndarray, np.ndarray]:
    """The second order, and that of the entries' absolute values, from differences."""
    parsed = parse_expression(expression, lambda name: sp.Symbol(name, positive=True))
    parsed = parsed.subs({sp.Symbol(n, positive=True): sp.Rational(v) for n, v in scalars})
    scalar_map = sp.lambdify(sp.Symbol("eigenvalue", positive=True), parsed, mpmath)
    matrix = [
        [mpmath.mpf(x) if i == j else mpmath.mpf(0) for j in range(len(eigenvalues))]
        for i, x in enumerate(eigenvalues)
    ]
    absolute = [[abs(e) for e in row] for row in perturbation]
    exact, size = (second_order_term(scalar_map, matrix, e) for e in (perturbation, absolute))
    return to_float64(exact), np.abs(to_float64(size))


def assert_parts_agree(
    module: ModuleType, spectrum: str, scalars: Mapping[str, float], tolerance: float = 1e-13
) -> None:
    """The diagonal and the published shortcut are what the second order says they are."""
    eigenvalues = torch.tensor(SPECTRA[spectrum], dtype=torch.float64)
    root = module.roots(eigenvalues)
    several = torch.stack([_perturbation(eigenvalues), 0.3 * _perturbation(eigenvalues).flip(-1)])
    several = 0.5 * (several + several.mT)
    full = module.second_order(root, several, **scalars).diagonal()
    cheap = module.diagonal(root, several.square().sum(0), **scalars)
    torch.testing.assert_close(cheap, full, rtol=tolerance, atol=0)
    alone = torch.diag_embed(several.diagonal(dim1=-2, dim2=-1))
    shortcut = module.eigenvalue_only(root, alone.square().sum(0).diagonal(), **scalars)
    fixed_basis = module.second_order(root, alone, **scalars).diagonal()
    torch.testing.assert_close(shortcut, fixed_basis, rtol=tolerance, atol=0)


def assert_batches_agree(module: ModuleType, scalars: Mapping[str, float]) -> None:
    """A batch is its members, perturbations side by side are summed, and d = 0 is no error."""
    spectra = torch.tensor([SPECTRA["separated"], SPECTRA["repeated"]], dtype=torch.float64)
    several = torch.stack([torch.stack([_perturbation(x)] * 3) for x in spectra])
    batched = module.second_order(module.roots(spectra), several, **scalars)
    for eigenvalues, perturbations, found in zip(spectra, several, batched, strict=True):
        root = module.roots(eigenvalues)
        single = module.second_order(root, perturbations[:1], **scalars)
        torch.testing.assert_close(found, 3 * single, rtol=1e-13, atol=0)
    empty = torch.zeros(0, dtype=torch.float64)
    nothing = module.second_order(module.roots(empty), empty.reshape(2, 0, 0), **scalars)
    assert nothing.shape == (0, 0)
