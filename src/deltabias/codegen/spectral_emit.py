"""The files of a primary matrix function: module, test against 60 digits, documentation."""

import hashlib
import json

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, LEFT, SpectralMap
from deltabias.codegen.emit import MARK, ROOT_HELPER, Emitted, format_source
from deltabias.codegen.spectral import kernel_source
from deltabias.codegen.spectral_dense import dense_helper


def emit_map(spectral: SpectralMap, *, import_line: str | None = None) -> Emitted:
    """Every file of a map, formatted. `import_line` is how the test reaches the module."""
    line = import_line or f"from deltabias.generated import {spectral.name} as module"
    return Emitted(
        spectral.name,
        format_source(_module(spectral)),
        format_source(_test(spectral, line)),
        _docs(spectral),
        _certificate(spectral),
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


def _docs(spectral: SpectralMap) -> str:
    head = [f"# {spectral.name}", "", f"<!-- {MARK} digest {map_digest(spectral)} -->", ""]
    return "\n".join([*head, *(_parts if spectral.separates else _integrals)(spectral), ""])


def _integrals(spectral: SpectralMap) -> list[str]:
    """The page of a dense map."""
    lam = sp.Symbol("lambda")
    f, slope, half = (
        sp.latex(e.subs({EIGENVALUE: lam, LEFT: lam}))
        for e in (spectral.expression, spectral.slope, spectral.curvature)
    )
    return [
        f"$$ f(\\lambda) = {f}, \\qquad f' = {slope}, \\qquad \\tfrac12 f'' = {half} $$",
        "",
        "First order, times $E_{ij}$ in the eigenbasis, and the confluent second difference:",
        "",
        "$$ f[\\lambda_i, \\lambda_j] = "
        "\\int_0^1 f'(\\lambda_i + t(\\lambda_j - \\lambda_i))\\,dt, \\qquad "
        "f[\\lambda_i, \\lambda_j, \\lambda_j] = "
        "\\int_0^1 t f''(\\lambda_i + t(\\lambda_j - \\lambda_i))\\,dt $$",
        "",
        "each by Gauss and Legendre's rule where the points are close and by its quotient where "
        "they are apart. Second order: the sum over $k$ of $E_{ik} E_{kj}$ times, for $b$ between "
        "$a$ and $c$,",
        "",
        "$$ f[a, b, c] = \\frac{(b - a) f[a, b, b] + (c - b) f[c, b, b]}{c - a} $$",
        "",
        "The kernel does not separate: it is $d^3$ numbers, and so is its memory.",
        "",
        _what_is_kept(spectral),
    ]


def _parts(spectral: SpectralMap) -> list[str]:
    """The page of a map whose second order separates."""
    lam = sp.Symbol("lambda")
    lines = [
        f"$$ f(\\lambda) = {sp.latex(spectral.expression.subs(EIGENVALUE, lam))}, \\qquad "
        f"s = \\lambda^{{1/{spectral.degree}}} $$",
        "",
        "First order, times $E_{ij}$ in the eigenbasis:",
        "",
        f"$$ f[\\lambda_i, \\lambda_j] = {_latex(spectral.first())} $$",
        "",
        "Second order: with $B = E / h$,",
        "",
        f"$$ h_{{ij}} = {_latex(spectral.step)} $$",
        "",
        "it is the sum of",
        "",
    ]
    for part in spectral.parts:
        lines += [
            f"$$ {_latex(part.coefficient)} \\circ "
            f"[B\\,\\mathrm{{diag}}({_latex(part.weight)})\\,B^T] $$",
            "",
        ]
    lines += [
        f"At equal eigenvalues: $${_latex(sp.simplify(spectral.second(LEFT, LEFT, LEFT)))}$$",
        "",
        _what_is_kept(spectral),
    ]
    return lines


def _what_is_kept(spectral: SpectralMap) -> str:
    if spectral.keeps_positive and spectral.is_positive:
        return (
            "Every term is positive: nothing cancels, and $P (P + X_2)^{-1} P$ keeps $P$ positive "
            "definite."
        )
    if spectral.keeps_positive:
        return "$P (P + X_2)^{-1} P$ keeps $P$ positive definite."
    return "The second order may have either sign: subtract, and mind the size of the correction."


def _latex(expression: sp.Expr) -> str:
    names = {"left": "s_i", "inner": "s_k", "right": "s_j"}
    shown = {s: sp.Symbol(names.get(s.name, s.name)) for s in expression.free_symbols}
    return sp.latex(expression.subs(shown))


def _certificate(spectral: SpectralMap) -> str:
    statement = {
        "mark": MARK,
        "map": spectral.name,
        "digest": map_digest(spectral),
        "status": "not certified",
        "to_prove": [
            {"name": "first_order", "coefficient": str(spectral.first())},
            *_second_to_prove(spectral),
        ],
        "domain": ["eigenvalue > 0"],
    }
    return json.dumps(statement, indent=2, ensure_ascii=False) + "\n"


def _second_to_prove(spectral: SpectralMap) -> list[dict]:
    if not spectral.separates:
        return [
            {"name": "slope", "coefficient": str(spectral.slope)},
            {"name": "curvature", "coefficient": str(spectral.curvature)},
        ]
    return [
        {"name": "second_order", "coefficient": str(p.coefficient), "weight": str(p.weight)}
        for p in spectral.parts
    ]
