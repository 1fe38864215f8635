"""The files of a matrix rule: module, test and documentation."""

import hashlib
from dataclasses import fields

from deltabias.calculus.matrix import MatrixExpr
from deltabias.codegen.emit import MARK, ROOT_HELPER, Emitted, format_source, words
from deltabias.codegen.matrix_code import OWN, Printer, jet_code
from deltabias.codegen.matrix_pages import matrix_page
from deltabias.codegen.pages import own_links
from deltabias.codegen.spectral import kernel_source
from deltabias.codegen.spectral_dense import dense_helper
from deltabias.errors import GenerateError
from deltabias.matrix_derivation import MatrixDerivation, derive_matrix, describe
from deltabias.matrix_rule import MatrixRule, MatrixState

_SPECTRUM = '''
def _spectrum(
    matrix: Tensor, shift: float, *, singular: bool = False
) -> tuple[Tensor, Tensor]:
    """Eigenvalues of matrix + shift I, and eigenvectors; matrix is positive semidefinite, and the
    sum positive definite unless `singular` is allowed."""
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"a matrix of shape {tuple(matrix.shape)} is not square.")
    size = matrix.shape[-1] * torch.finfo(matrix.dtype).eps
    if matrix.numel():
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError("a matrix has an entry that is NaN or infinite.")
        if bool((matrix - matrix.mT).abs().max() > 100 * size * matrix.abs().max()):
            raise ValueError("a matrix is not symmetric; pass 0.5 * (A + A.mT) if it should be.")
    eigenvalues, basis = torch.linalg.eigh(0.5 * (matrix + matrix.mT))
    if eigenvalues.numel():
        floor = size * eigenvalues.abs().amax(-1, keepdim=True)
        if bool((eigenvalues < -floor).any()):
            raise ValueError(f"an eigenvalue is {float(eigenvalues.min()):.3g}: indefinite.")
        eigenvalues = eigenvalues.clamp_min(0) + shift
        if not singular and bool((eigenvalues <= (0 if shift else floor)).any()):
            raise ValueError("a singular matrix has no inverse root; pass damping > 0.")
    return eigenvalues, basis
'''
_SHIFTED = '''
def _shifted(matrix: Tensor, shift: float) -> Tensor:
    """matrix + shift I."""
    return matrix + shift * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
'''
_SIDE_BY_SIDE = '''
def _side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """The sum over r of left_r @ right_r, as one product."""
    *batch, r, d, k = left.shape
    wide = left.movedim(-3, -2).reshape(*batch, d, r * k)
    return wide @ right.reshape(*batch, r * k, right.shape[-1])
'''
_NORM = '''
def _norm(matrix: Tensor) -> Tensor:
    """The Frobenius norm, [..., 1, 1]; a zero matrix is divided by 1e-7."""
    return torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(1e-7)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum((-2, -1), keepdim=True)


def _normalized_along(matrix: Tensor, norm: Tensor, change: Tensor) -> Tensor:
    """First order of X/‖X‖ along one change."""
    return (change - matrix * (_inner(matrix, change) / norm**2)) / norm


def _normalized_first(matrix: Tensor, norm: Tensor, changes: Tensor) -> Tensor:
    """First order of X/‖X‖ along [..., r, rows, columns]."""
    return _normalized_along(matrix.unsqueeze(-3), norm.unsqueeze(-3), changes)


def _normalized_second(matrix: Tensor, norm: Tensor, changes: Tensor) -> Tensor:
    """Second order of X/‖X‖ (the coefficient of τ²), summed over the changes."""
    x, n = matrix.unsqueeze(-3), norm.unsqueeze(-3)
    a, b = _inner(x, changes) / n**2, _inner(changes, changes) / n**2
    return ((x * (1.5 * a * a - 0.5 * b) - changes * a) / n).sum(-3)
'''
_HELPERS = {
    "_spectrum(": _SPECTRUM,
    "_shifted(": _SHIFTED,
    "_side_by_side(": _SIDE_BY_SIDE,
    "_norm(": _NORM,
    "_root(": ROOT_HELPER,
    "_three_points(": dense_helper(),
}
_DEVIATIONS = """
    d… are deviations of shape [..., r, rows, columns] with a common r, scaled so that the sums
    over r of their products are the covariances of the matrices: for the mean of m microbatches
    (sample - mean) / sqrt(m (m - 1)), or one signed sum of these, a sketch.
"""


def emit_matrix_rule(rule: MatrixRule, *, import_line: str | None = None) -> Emitted:
    """Every file of a matrix rule, formatted."""
    line = import_line or f"from deltabias.generated import {rule.name} as module"
    derivation = derive_matrix(rule)
    return Emitted(
        rule.name,
        format_source(module_source(rule, derivation)),
        format_source(_test(rule, line)),
        matrix_page(
            derivation,
            f"{MARK} digest {matrix_digest(derivation.rule)}",
            own_links(rule.name) if import_line else None,
        ),
    )


def matrix_digest(rule: MatrixRule) -> str:
    """What the rule says, in twelve characters."""
    said = repr((_said(rule.update), rule.hypers, [_state(s) for s in rule.states]))
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def _state(state: MatrixState) -> tuple:
    sample = state.statistic.sample
    return (
        state.name,
        state.statistic.name,
        _said(sample) if sample is not None else None,
        state.statistic.of_mean,
        state.beta,
        state.total,
    )


def _said(expression: MatrixExpr) -> list[tuple]:
    """Its nodes, each once, children by their number: trees that share subtrees stay small."""
    numbers: dict[MatrixExpr, int] = {}
    lines = []
    for node in expression.walk():
        own = [v for f in fields(node) if _is_own(v := getattr(node, f.name))]
        lines.append((type(node).__name__, str(own), [numbers[c] for c in node.children]))
        numbers[node] = len(numbers)
    return lines


def _is_own(value: object) -> bool:
    """Whether a field's value is the node's own, and not a child or children."""
    if isinstance(value, tuple):
        return not any(isinstance(v, MatrixExpr) for v in value)
    return not isinstance(value, MatrixExpr)


# -- the module ---------------------------------------------------------------------------------


def module_source(rule: MatrixRule, derivation: MatrixDerivation) -> str:
    """The module's text: plain torch, importing nothing of ours."""
    functions, printers = [], []
    for printer, source in _functions(rule):
        printers.append(printer)
        functions.append(source)
    maps = {name: node.map for p in printers for name, node in p.maps.items()}
    maps_source = [kernel_source(m, f"_{name}_") for name, m in maps.items()]
    entrywise = list(dict.fromkeys(h for p in printers for h in p.helpers.values()))
    body = "\n\n".join([*entrywise, *maps_source, *functions])
    helpers = "\n".join(text for call, text in _HELPERS.items() if call in body)
    terms = "\n".join(f"    {t.name:<10} {t.value}" for t in _short(derivation))
    return f'''"""{words(rule.title or rule.name)}: {words(str(rule))}

{MARK} Rule {rule.name}, digest {matrix_digest(rule)}.

Leading bias of the update, the mean over deviations dX of

{terms}
"""

{"import math" if "math." in body else ""}
{"import torch" if "torch." in helpers + body else ""}
from torch import Tensor

{helpers}

{body}'''


def _short(derivation: MatrixDerivation):
    return derivation.terms[:12]


def _functions(rule: MatrixRule) -> list[tuple[Printer, str]]:
    printer, jet = jet_code(rule.update)
    plug_in = _function(
        rule, "plug_in_update", printer.body([jet.value.name]), "The update as it is.", False
    )
    _check_names(rule, printer)
    names = list(jet.second)
    body = printer.body([jet.second[n].name for n in names], names)
    second = _function(
        rule,
        "second_order",
        body,
        "The bias by name: what the update's mean exceeds its value at the means by.\n"
        + _DEVIATIONS,
        True,
        "dict[str, Tensor]",
    )
    found = [(printer, plug_in), (printer, second)]
    for own in OWN if rule.spectral else OWN[:1]:
        found.append(_corrected(rule, own))
    return found


def _check_names(rule: MatrixRule, printer: Printer) -> None:
    """The arguments are not what the functions call something else."""
    own = {"dict", "torch"} | {line.target for line in printer.lines}
    if taken := sorted(own & set(rule.update.hypers)):
        raise GenerateError(
            f"rule {rule.name!r}: hyperparameter {', '.join(taken)} is a name that generated code "
            "uses; rename it."
        )


def _corrected(rule: MatrixRule, own: str) -> tuple[Printer, str]:
    printer, jet = jet_code(rule.update, own)
    value = jet.value
    # cheap forms leave coupling and cross terms, and subtract what could not be made a ratio
    left = [v for k, v in jet.second.items() if own == "full" or k == "inversion"]
    if left:
        total = printer.add(left)
        value = printer.emit("value", "{0} - {1}", value.name, total.name, level=1)
    said = {
        "full": "The update less its leading bias"
        + (
            "; functions of matrices stay positive definite."
            if rule.spectral and all(n.map.keeps_positive for n in rule.spectral)
            else "."
        ),
        "diagonal": "Corrected by the diagonals, in the eigenbases, of the inversion alone.",
        "eigenvalue_only": "Corrected by ½ f''(λ) Var λ in fixed eigenbases: as published, to "
        "compare.",
    }[own]
    name = "corrected_update" if own == "full" else f"corrected_update_{own}"
    source = _function(rule, name, printer.body([value.name]), said + "\n" + _DEVIATIONS, True)
    return printer, source


def _function(
    rule: MatrixRule,
    name: str,
    body: list[str],
    doc: str,
    deviations: bool,
    returns: str = "Tensor",
) -> str:
    symbols = [s.name for s in rule.states if s.name in rule.update.symbols]
    tensors = [*symbols, *(f"d{s}" for s in symbols)] if deviations else symbols
    arguments = ", ".join(f"{t}: Tensor" for t in tensors)
    if rule.update.hypers:
        arguments += ", *, " + ", ".join(f"{h}: float" for h in rule.update.hypers)
    lines = "\n".join(f"    {line}" for line in body)
    closing = '"""' if "\n" not in doc else '    """'
    return f'def {name}({arguments}) -> {returns}:\n    """{doc}{closing}\n{lines}\n'


# -- test -----------------------------------------------------------


def _test(rule: MatrixRule, import_line: str) -> str:
    text = rule.text or describe(rule.update)
    own = [
        "from deltabias.codegen import matrix_check as check",
        "from deltabias.matrix_rule import MatrixRule",
    ]
    # one line sorts among the others; what loads a file of the user's comes after them
    imports = "\n".join([*own, import_line] if "\n" in import_line else sorted([*own, import_line]))
    return f'''"""Values of the generated functions of {rule.name} against 60 digits and nested jvp.

{MARK} Rule {rule.name}, digest {matrix_digest(rule)}.
"""

import pytest

{imports}

RULE = MatrixRule.parse({text!r})
SCALARS = {{{", ".join(f'"{h}": 0.01' for h in rule.update.hypers)}}}


@pytest.mark.parametrize("case", check.CASES, ids=list(check.CASES))
def test_second_order_is_that_of_sixty_digits(case):
    assert check.error_against_digits(module, RULE, case, SCALARS) < check.ALLOWED


@pytest.mark.parametrize("case", check.CASES, ids=list(check.CASES))
def test_second_order_is_that_of_nested_jvp(case):
    assert check.error_against_jvp(module, RULE, case, SCALARS) < check.ALLOWED


def test_a_wrong_value_is_seen():
    assert check.error_against_digits(module, RULE, "generic", SCALARS, scale=1.001) > 1e-4
    assert check.error_against_jvp(module, RULE, "generic", SCALARS, scale=1.001) > 1e-4


def test_corrected_update_subtracts_the_second_order():
    assert check.remainder_slope(module, RULE, SCALARS) > 3.5
'''
