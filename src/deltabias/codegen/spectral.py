"""Prints a primary matrix function's kernels: elementwise pieces from symbols, then the products.

Every function works in the eigenbasis and on batches: ``root`` is [..., d], a perturbation
[..., d, d], several side by side [..., r, d, d].
"""

import sympy as sp

from deltabias.calculus.spectral import INNER, LEFT, RIGHT, SpectralMap
from deltabias.codegen import eager
from deltabias.codegen.spectral_dense import DENSE_FORM
from deltabias.codegen.ssa import lower
from deltabias.errors import GenerateError
from deltabias.safe_form import Definition

_FORM = '''
def {p}roots(eigenvalues: Tensor) -> Tensor:
    """The variable of the formulas below, [..., d]: the eigenvalues' root of degree {degree}."""
    return {root}


{value}

{pieces}

def {p}first_order(root: Tensor, perturbation: Tensor{arguments}) -> Tensor:
    """f[λ_i, λ_j] E_ij for E of shape [..., d, d]; exact where eigenvalues meet."""
    return {h}first(root[..., :, None], root[..., None, :]{passed}) * perturbation


def {p}second_order(root: Tensor, perturbations: Tensor{arguments}) -> Tensor:
    """Sum over r of sum_k f[λ_i, λ_k, λ_j] E_ik E_kj for E of shape [..., r, d, d].

    {count} matrix product(s) of [d, r d] with [r d, d]; time r d³, memory r d².
    """
    left, right = root[..., :, None], root[..., None, :]
    scaled = perturbations / {h}step(left, right).unsqueeze(-3)
    *batch, r, d, _ = scaled.shape
    wide = scaled.movedim(-3, -2).reshape(*batch, d, r * d)
    inner = root[..., None, None, :].expand(*batch, 1, r, d).reshape(*batch, 1, r * d)
    weights = {h}weights(inner{passed})
    coefficients = {h}coefficients(left, right{passed})
    terms = (c * ((wide * w) @ wide.mT) for c, w in zip(coefficients, weights, strict=True))
    total = next(terms)
    for term in terms:
        total = total + term
    return total


def {p}diagonal(root: Tensor, squares: Tensor{arguments}) -> Tensor:
    """The diagonal of the second order, [..., d], from the sums of E_ik², [..., d, d]; time d²."""
    left, inner = root[..., :, None], root[..., None, :]
    step = {h}step(left, inner)
    coefficients = {h}coefficients(left, left{passed})
    weights = {h}weights(inner{passed})
    kernel = sum(c * w for c, w in zip(coefficients, weights, strict=True))
    return (kernel * (squares / (step * step))).sum(-1)


def {p}eigenvalue_only(root: Tensor, squares: Tensor{arguments}) -> Tensor:
    """½ f''(λ_i) of the sums of E_ii², [..., d]: the eigenvectors taken as fixed.

    Not an approximation of the second order: it leaves about (d - 1)/(d + 1) of it.
    """
    step = {h}step(root, root)
    coefficients, weights = {h}coefficients(root, root{passed}), {h}weights(root{passed})
    kernel = sum(c * w for c, w in zip(coefficients, weights, strict=True))
    return kernel * (squares / (step * step))
'''

_SAFE = '''

def {p}corrected(root: Tensor, second: Tensor{arguments}) -> Tensor:
    """P (P + X)⁻¹ P = P½ (I + P⁻½ X P⁻½)⁻¹ P½ in the eigenbasis: P - X, to the order claimed.

    Positive definite for every positive semidefinite X, where P - X need not be; X [..., d, d].
    """
    half = {p}values(root{passed}).sqrt()
    relative = second / (half[..., :, None] * half[..., None, :])
    identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    factor = torch.linalg.cholesky(identity + 0.5 * (relative + relative.mT))
    return half[..., :, None] * torch.cholesky_solve(torch.diag_embed(half), factor)


def {p}corrected_diagonal(root: Tensor, second: Tensor{arguments}) -> Tensor:
    """P²/(P + X) for a diagonal X, [..., d]."""
    plug_in = {p}values(root{passed})
    return plug_in / (1 + second / plug_in)
'''


# fmt: off
_LOCAL = frozenset({
    "left", "right", "inner", "root", "perturbation", "perturbations", "squares", "second",
    "scaled", "batch", "r", "d", "wide", "weights", "coefficients", "terms", "total",
    "term", "step", "kernel", "half", "relative", "identity", "factor", "eigenvalues",
    "plug_in", "gap", "ulp", "f_left", "f_right", "fine", "coarse", "rounding", "first",
    "error", "steep", "pairs", "nodes", "t", "x", "y",
})
# fmt: on
"""What the functions call their own; a hyperparameter of that name would be overwritten."""


def kernel_source(spectral: SpectralMap, prefix: str = "") -> str:
    """The functions of a map, each name with the prefix; empty for a module of the map's own.

    Raises
    ------
    GenerateError
        for a hyperparameter with a name that the functions use themselves.
    """
    hypers = tuple(sorted(s.name for s in spectral.hypers))
    if taken := sorted(set(hypers) & _LOCAL):
        raise GenerateError(
            f"hyperparameter {', '.join(taken)} of {spectral.expression} is a name that generated "
            "code uses; rename it."
        )
    fields = {
        "p": prefix,
        "h": prefix or "_",
        "value": _piece(f"{prefix}values", [spectral.value.subs(LEFT, sp.Symbol("root"))], ["root"],
                        hypers, "f(λ) from the root, [..., d]."),
        "arguments": "".join([", *", *(f", {h}: float" for h in hypers)]) if hypers else "",
        "passed": "".join(f", {h}={h}" for h in hypers),
    }  # fmt: skip
    fields |= (_separated if spectral.separates else _dense)(spectral, prefix or "_", hypers)
    form = _FORM if spectral.separates else DENSE_FORM
    return (form + (_SAFE if spectral.keeps_positive else "")).format(**fields)


def _separated(spectral: SpectralMap, helper: str, hypers: tuple[str, ...]) -> dict:
    return {
        "degree": spectral.degree,
        "root": _root(spectral.degree),
        "pieces": "\n\n".join(_pieces(spectral, helper, hypers)),
        "count": len(spectral.parts),
    }


def _dense(spectral: SpectralMap, helper: str, hypers: tuple[str, ...]) -> dict:
    at = {LEFT: sp.Symbol("root")}
    return {
        name: _piece(f"{helper}{name}", [expression.subs(at)], ["root"], hypers, doc)
        for name, expression, doc in (
            ("slope", spectral.slope, "f'(λ)."),
            ("curvature", spectral.curvature, "½ f''(λ)."),
        )
    }


def _root(degree: int) -> str:
    text = "eigenvalues"
    while degree % 2 == 0:
        text, degree = f"{text}.sqrt()", degree // 2
    return text if degree == 1 else f"_root({text}, {degree})"


def _pieces(spectral: SpectralMap, helper: str, hypers: tuple[str, ...]) -> list[str]:
    pair = [LEFT.name, RIGHT.name]
    return [
        _piece(f"{helper}step", [spectral.step], pair, (), "λ[s_i, s_j] > 0."),
        _piece(f"{helper}first", [spectral.first()], pair, hypers, "f[λ_i, λ_j]."),
        _piece(
            f"{helper}coefficients",
            [part.coefficient for part in spectral.parts],
            pair,
            hypers,
            "What each matrix product is multiplied by.",
            many=True,
        ),
        _piece(
            f"{helper}weights",
            [part.weight for part in spectral.parts],
            [INNER.name],
            hypers,
            "What stands between E and E in each matrix product.",
            many=True,
        ),
    ]


def _piece(
    name: str,
    expressions: list[sp.Expr],
    tensors: list[str],
    hypers: tuple[str, ...],
    doc: str,
    *,
    many: bool = False,
) -> str:
    results = [f"part_{i}" for i in range(len(expressions))]
    definitions = [Definition(r, e) for r, e in zip(results, expressions, strict=True)]
    used = {s.name for e in expressions for s in e.free_symbols}
    program = lower(name, definitions, tensors, hypers, results=results, doc=doc)
    if not many and not used & set(tensors):
        raise_to = f"torch.full_like({tensors[0]}, {expressions[0]})"
        return eager.render(program).replace(f"return {expressions[0]}", f"return {raise_to}")
    printed = eager.render(program, "tuple[Tensor, ...]" if many else "Tensor")
    if many and len(results) == 1:
        head, _, last = printed.rstrip().rpartition("return ")
        printed = f"{head}return ({last},)\n"
    return printed
