"""Every spectral map and matrix rule of the catalogue, and their certificates, each made once."""

from functools import cache

from deltabias.codegen.coq.certificate import Certificate
from deltabias.codegen.coq.matrix import certificate_of_matrix_rule
from deltabias.codegen.coq.spectral import certificate_of_map
from deltabias.rules import MATRIX_CATALOGUE, SPECTRAL_MAPS

SUBJECTS = (*SPECTRAL_MAPS, *MATRIX_CATALOGUE)


@cache
def certificate(name: str) -> Certificate:
    """Of a map or a rule by its name."""
    if name in SPECTRAL_MAPS:
        return certificate_of_map(SPECTRAL_MAPS[name])
    return certificate_of_matrix_rule(MATRIX_CATALOGUE[name])
