"""The files of a primary matrix function: module, test against 60 digits, documentation."""

import hashlib

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, SpectralMap
from deltabias.codegen.emit import MARK, ROOT_HELPER, Emitted, format_source
from deltabias.codegen.matrix_pages import map_page
from deltabias.codegen.pages import own_links
from deltabias.codegen.spectral import kernel_source
from deltabias.codegen.spectral_dense import dense_helper


def emit_map(spectral: SpectralMap, *, import_line: str | None = None) -> Emitted:
    """Every file of a map, formatted. `import_line` is how the test reaches the module."""
    line = import_line or f"from deltabias.generated import {spectral.name} as module"
    return Emitted(
        spectral.name,
        format_source(_module(spectral)),
        format_source(_test(spectral, line)),
        map_page(
            spectral,
            f"{MARK} digest {map_digest(spectral)}",
            own_links(spectral.name) if import_line else None,
        ),
    )


def map_digest(spectral: SpectralMap) -> str:
    """What the map says, in twelve characters."""
    return hashlib.sha256(sp.srepr(spectral.expression).encode()).hexdigest()[:12]


def _module(spectral: SpectralMap) -> str:
    source = kernel_source(spectral)
    helper = ROOT_HELPER if "_root(" in source else ""
    helper += "" if spectral.separates else dense_helper()
    formula = spectral.expression.subs(EIGENVALUE, sp.Symbol("λ"))
    exact = (
        "Divided differences\nwithout a subtraction: exact where eigenvalues are equal, nearly "
        "equal, or far apart."
        if spectral.separates
        else "Divided differences by\nintegrals where eigenvalues are equal or nearly so, by "
        "quotients where they are far apart."
    )
    return f'''"""f(A) for symmetric A, f(λ) = {formula}.

{MARK} Map {spectral.name}, digest {map_digest(spectral)}.

f(A + E) = f(A) + first_order + second_order + O(E³), in the eigenbasis of A. {exact}
"""

{"import math" if "math." in source else ""}
import torch
from torch import Tensor
{helper}

{source}'''


def _test(spectral: SpectralMap, import_line: str) -> str:
    hypers = sorted(s.name for s in spectral.expression.free_symbols - {EIGENVALUE})
    scalars = dict.fromkeys(hypers, 0.01)
    return f'''"""The kernels of {spectral.name} against 60 digits.

{MARK} Map {spectral.name}, digest {map_digest(spectral)}.
"""

import pytest
import torch

from deltabias.codegen import spectral_check as check
{import_line}

MAP = "{spectral.expression}"
SCALARS = {scalars!r}


@pytest.mark.parametrize("spectrum", check.SPECTRA, ids=list(check.SPECTRA))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
def test_second_order_is_right_to_rounding(spectrum, dtype):
    error = check.worst_error(module, MAP, spectrum, dtype, SCALARS)
    assert error <= check.ALLOWED[dtype]


def test_a_wrong_value_is_seen():
    error = check.worst_error(module, MAP, "repeated", torch.float64, SCALARS, scale=1 + 2**-44)
    assert error > check.ALLOWED[torch.float64]


@pytest.mark.parametrize("spectrum", check.SPECTRA, ids=list(check.SPECTRA))
def test_cheap_forms_are_parts_of_the_second_order(spectrum):
    check.assert_parts_agree(module, spectrum, SCALARS)


def test_batches_and_empty_matrices_go_through():
    check.assert_batches_agree(module, SCALARS)
'''
