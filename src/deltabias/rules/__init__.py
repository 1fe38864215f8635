"""The catalogue: one rule per file, a page of mathematics each."""

from difflib import get_close_matches

from deltabias.calculus.spectral import SpectralMap
from deltabias.errors import RuleError
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule
from deltabias.rules import (
    adagrad,
    adam,
    inverse,
    inverse_sqrt,
    muon,
    rmsprop,
    shampoo,
    soap,
    sophia,
    spectral_maps,
)

CATALOGUE: dict[str, UpdateRule] = {
    rule.name: rule
    for module in (inverse, inverse_sqrt, rmsprop, adam, sophia, adagrad)
    for rule in module.RULES
}
MATRIX_CATALOGUE: dict[str, MatrixRule] = {
    rule.name: rule for module in (shampoo, soap, muon) for rule in module.RULES
}
SPECTRAL_MAPS: dict[str, SpectralMap] = {m.name: m for m in spectral_maps.RULES}

SUBJECTS: tuple[UpdateRule | MatrixRule | SpectralMap, ...] = (
    *CATALOGUE.values(),
    *SPECTRAL_MAPS.values(),
    *MATRIX_CATALOGUE.values(),
)
"""Everything that has a generated module, a test, a page and a certificate of its own."""


def get_rule(name: str) -> UpdateRule | MatrixRule:
    """The catalogue's rule of that name.

    Raises
    ------
    RuleError
        with the names there are.
    """
    known = {**CATALOGUE, **MATRIX_CATALOGUE}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RuleError(f"no rule {name!r}; the catalogue has {', '.join(known)}.{hint}")
    return known[name]


__all__ = ["CATALOGUE", "MATRIX_CATALOGUE", "SPECTRAL_MAPS", "SUBJECTS", "get_rule"]
