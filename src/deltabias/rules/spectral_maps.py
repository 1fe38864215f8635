r"""Primary matrix functions, each with a module of kernels: what preconditioners are made of.

.. math:: f(A) = Q\, \mathrm{diag}(f(\lambda_i))\, Q^T, \qquad
          f(A + E)_{ij} \approx f(\lambda_i) \delta_{ij} + f[\lambda_i, \lambda_j] E_{ij}
          + \sum_k f[\lambda_i, \lambda_k, \lambda_j] E_{ik} E_{kj}

Inverse roots λ^(-1/p): ``inverse_root_1``, ``inverse_root_2``, ``inverse_root_3``,
``inverse_root_4``, ``inverse_root_6``, ``inverse_root_8`` and ``inverse_root_4_3`` (the power
-3/4). ``inverse_sqrt_plus_eps`` is 1/(√λ + ε), Adam's map for matrices. Two have a dense kernel:
``heat_kernel``, exp(-λ), and ``shifted_root_4``, (λ + ε)^(-1/4). A new one is a line.
"""

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, SpectralMap, inverse_root

_EPS = sp.Symbol("eps", nonnegative=True)

INVERSE_ROOTS: tuple[SpectralMap, ...] = tuple(
    inverse_root(root) for root in (1, 2, 3, 4, 6, 8, sp.Rational(4, 3))
)
INVERSE_SQRT_PLUS_EPS = SpectralMap("inverse_sqrt_plus_eps", 1 / (sp.sqrt(EIGENVALUE) + _EPS))
HEAT_KERNEL = SpectralMap("heat_kernel", sp.exp(-EIGENVALUE))
SHIFTED_ROOT_4 = SpectralMap("shifted_root_4", (EIGENVALUE + _EPS) ** sp.Rational(-1, 4))
RULES: tuple[SpectralMap, ...] = (
    *INVERSE_ROOTS,
    INVERSE_SQRT_PLUS_EPS,
    HEAT_KERNEL,
    SHIFTED_ROOT_4,
)
