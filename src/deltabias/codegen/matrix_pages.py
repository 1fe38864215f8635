"""The pages of matrix rules and of primary matrix functions, in MyST."""

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, LEFT, SpectralMap
from deltabias.codegen.pages import (
    MEANING,
    Links,
    catalogue_links,
    code_and_certificate,
    derivation_steps,
    equation,
    measured,
    sources,
)
from deltabias.explain import explain
from deltabias.matrix_derivation import MatrixDerivation, describe
from deltabias.matrix_rule import MatrixRule, MatrixState
from deltabias.notation.names import POINTS
from deltabias.notation.printing import Names, latex


def matrix_page(derivation: MatrixDerivation, stamp: str, links: Links | None = None) -> str:
    """The page of a rule of matrices."""
    rule, names = derivation.rule, derivation.rule.notation
    links = catalogue_links(rule.name) if links is None else links
    lines = [f"# {rule.title or rule.name}", "", f"<!-- {stamp} -->", ""]
    lines += [f"The rule `{rule.name}`: one line of mathematics,", "", f"    {rule}", ""]
    lines += ["## The update", "", equation(derivation.steps[0].equation, names), ""]
    for symbol, node in derivation.functions:
        lines += [f"- ${latex(symbol, names)}$ is `{describe(node)}`"]
    lines += ["", *_states(rule), "", "## Its bias", ""]
    lines += _terms(derivation)
    lines += derivation_steps(explain(rule))
    lines += _functions(rule)
    lines += measured(rule.name, links)
    lines += code_and_certificate(rule.name, links)
    lines += sources(rule.sources)
    return "\n".join(lines)


def _states(rule: MatrixRule) -> list[str]:
    lines = ["| symbol | what it is |", "| --- | --- |"]
    names = rule.notation
    lines += [f"| ${s.name}$ | {_memory(s, names)} |" for s in rule.states]
    for hyper in rule.all_hypers:
        shown = latex(hyper.symbol, names)
        lines.append(f"| ${shown}$ | `{hyper.name}`, {hyper.default:g} by default |")
    return lines


def _memory(state: MatrixState, names: Names) -> str:
    statistic = state.statistic
    if statistic.sample is None:
        what = f"a random matrix `{statistic.name}`"
    elif statistic.of_mean:
        what = f"`{describe(statistic.sample)}` of the mean gradient"
    else:
        what = f"the mean over the microbatches of `{describe(statistic.sample)}`"
    if state.total:
        return f"running total of {what}"
    if state.beta is not None:
        return f"exponential moving average of {what}, decay ${latex(state.beta.symbol, names)}$"
    return f"{what}, of this step"


def _terms(derivation: MatrixDerivation) -> list[str]:
    lines = [
        "The mean, over the deviations $\\mathrm{d}X = X - \\mathbb{E} X$, of the terms below. "
        "$\\mathrm{D}P[E]$ is the first order of $P$ along $E$, $P^{(2)}[E]$ its second; nothing "
        "is commuted.",
        "",
    ]
    for name in dict.fromkeys(t.name for t in derivation.terms):
        lines += [f"**{name}**", ""]
        for term in derivation.named(name):
            lines += [equation(term.value, derivation.rule.notation), ""]
        lines += [MEANING.get(name, ""), ""]
    return lines


def _functions(rule: MatrixRule) -> list[str]:
    if not rule.spectral:
        return []
    lines = ["## Second order of each function", ""]
    for m in dict.fromkeys(n.map for n in rule.spectral):
        lines += [f"- [{m.name}]({m.name}.md)" if m.name != "map" else f"- `{m.expression}`"]
    return [*lines, ""]


# -- primary matrix functions -------------------------------------------------------------------


def map_page(spectral: SpectralMap, stamp: str, links: Links | None = None) -> str:
    """The page of a primary matrix function."""
    links = catalogue_links(spectral.name) if links is None else links
    head = [f"# {spectral.name}", "", f"<!-- {stamp} -->", ""]
    head += ["A function of a symmetric matrix, by its eigenvalues.", ""]
    body = _parts(spectral) if spectral.separates else _integrals(spectral)
    tail = [*measured(spectral.name, links), *code_and_certificate(spectral.name, links)]
    return "\n".join([*head, *body, "", *tail])


def _integrals(spectral: SpectralMap) -> list[str]:
    """The page of a dense map."""
    lam = sp.Symbol("lambda")
    f, slope, half = (
        latex(e.subs({EIGENVALUE: lam, LEFT: lam}))
        for e in (spectral.expression, spectral.slope, spectral.curvature)
    )
    return [
        f"$$ f(\\lambda) = {f}, \\qquad f' = {slope}, \\qquad \\tfrac12 f'' = {half} $$",
        "",
        "## First order",
        "",
        "Times $E_{ij}$ in the eigenbasis, and the confluent second difference:",
        "",
        "$$ f[\\lambda_i, \\lambda_j] = "
        "\\int_0^1 f'(\\lambda_i + t(\\lambda_j - \\lambda_i))\\,dt $$",
        "",
        "$$ f[\\lambda_i, \\lambda_j, \\lambda_j] = "
        "\\int_0^1 t f''(\\lambda_i + t(\\lambda_j - \\lambda_i))\\,dt $$",
        "",
        "each by Gauss and Legendre's rule where the points are close and by its quotient where "
        "they are apart.",
        "",
        "## Second order",
        "",
        "The sum over $k$ of $E_{ik} E_{kj}$ times, for $b$ between $a$ and $c$,",
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
    root = "\\lambda" if spectral.degree == 1 else f"\\lambda^{{1/{spectral.degree}}}"
    value = latex(spectral.expression.subs(EIGENVALUE, lam))
    lines = [
        f"$$ f(\\lambda) = {value}, \\qquad s = {root} $$",
        "",
        "## First order",
        "",
        "Times $E_{ij}$ in the eigenbasis:",
        "",
        f"$$ f[\\lambda_i, \\lambda_j] = {_entries(spectral.first())} $$",
        "",
        "## Second order",
        "",
        "With $B = E / h$, entry by entry,",
        "",
        f"$$ h_{{ij}} = {_entries(spectral.step)} $$",
        "",
        "it is the sum of",
        "",
    ]
    for part in spectral.parts:
        middle = f"\\operatorname{{diag}}\\left({_entries(part.weight)}\\right)"
        lines += [
            f"$$ {_entries(part.coefficient)} \\circ \\left[B\\,{middle}B^T\\right] $$",
            "",
        ]
    same = spectral.second(LEFT, LEFT, LEFT)
    lines += [
        "At equal eigenvalues, half of the second derivative:",
        "",
        f"$$ {_entries(sp.simplify(same))} $$",
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


def _entries(expression: sp.Expr) -> str:
    """An expression in the roots of three eigenvalues, which the code calls left, inner, right."""
    return latex(expression, POINTS)
