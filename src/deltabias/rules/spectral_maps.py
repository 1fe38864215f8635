"""The catalogue's primary matrix functions: inverse roots, and one with a stabilizer outside.

A new one is a line: a name and an algebraic map of the eigenvalue.
"""

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, SpectralMap, inverse_root

_EPS = sp.Symbol("eps", nonnegative=True)

INVERSE_ROOTS: tuple[SpectralMap, ...] = tuple(
    inverse_root(root) for root in (1, 2, 3, 4, 6, 8, sp.Rational(4, 3))
)
INVERSE_SQRT_PLUS_EPS = SpectralMap("inverse_sqrt_plus_eps", 1 / (sp.sqrt(EIGENVALUE) + _EPS))

SPECTRAL_MAPS: dict[str, SpectralMap] = {m.name: m for m in (*INVERSE_ROOTS, INVERSE_SQRT_PLUS_EPS)}
