"""A derivation for people (text, LaTeX) and for programs (a record for JSON)."""

import re
import shlex
from collections.abc import Iterator

import sympy as sp
from sympy.printing.str import StrPrinter

from deltabias.correction import Correction, correct
from deltabias.derivation import Derivation, Term, derive
from deltabias.errors import StrategyError
from deltabias.parser import clip
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE
from deltabias.safe_form import kernel

GREEK = ("alpha", "beta", "eps", "rho", "gamma", "delta", "lambda", "mu", "sigma", "tau")


# -- for programs -----------------------------------------------------------------------------


class _Readable(StrPrinter):
    """Strings that ``sympy.sympify`` reads back.

    Some names mean something else to it (``sum``, ``hessian``, ``beta``): they are written
    ``Symbol('sum')``. So does ``var``: moments are names for people and are printed as they are.
    """

    def _print_Symbol(self, expr: sp.Symbol) -> str:
        return expr.name if _reads_as_symbol(expr.name) else f"Symbol({expr.name!r})"


def _reads_as_symbol(name: str) -> bool:
    # names are checked identifiers, so nothing is run by looking one up
    try:
        return isinstance(sp.sympify(name), sp.Symbol)
    except (sp.SympifyError, SyntaxError, TypeError, AttributeError):
        return False


def as_record(derivation: Derivation) -> dict:
    """Everything as strings and numbers. The delta bias is Σ coefficient × moment."""
    rule, show = derivation.rule, _Readable().doprint
    form = kernel(derive(rule, 1))
    return {
        "rule": str(rule),
        "name": rule.name,
        "update": show(rule.update),
        "order": derivation.order,
        "statistics": [s.name for s in rule.states],
        "hypers": {h.name: h.default for h in rule.all_hypers},
        "terms": [
            {
                "name": t.name,
                "coefficient": show(t.coefficient),
                "moment": str(t.moment),
                "order": t.order,
                "certificate": _certificate(rule, t),
            }
            for t in derivation.terms
        ],
        "domain": [show(c) for c in derivation.domain],
        "delta_bias": str(derivation.delta_bias),
        "safe_form": {
            "subtraction_free": form.safe,
            "definitions": [
                {"name": d.name, "expression": show(d.expression), "note": d.note}
                for d in form.definitions
            ],
            "moments": [
                {"name": m.name, "moment": str(m.moment), "divisor": show(m.divisor)}
                for m in form.moments
            ],
        },
        "correction": _correction_record(rule),
        "steps": [{"text": s.text, "equation": str(s.equation)} for s in derivation.steps],
        "sources": list(rule.sources),
    }


def _correction_record(rule: UpdateRule) -> dict:
    correction, why = _correction(rule)
    if correction is None:
        return {"strategy": None, "why": why}
    claim, cost = correction.claim, correction.cost
    return {
        "strategy": correction.strategy,
        "order": claim.order,
        "scope": claim.scope,
        "assumes": list(claim.assumes),
        "passes": cost.passes,
        "tensors": cost.buffers,
        "bytes_per_parameter": cost.bytes_per_parameter,
        "sums_within_a_step": cost.sums,
    }


def _correction(rule: UpdateRule) -> tuple[Correction | None, str]:
    """The default strategy, or why it does not apply: a linear rule, unknown moments."""
    try:
        return correct(rule), ""
    except StrategyError as error:
        return None, str(error)


def _certificate(rule: UpdateRule, term: Term) -> dict | None:
    """The file and the theorem that prove a term's coefficient; None where there is none yet."""
    if rule.name not in CATALOGUE or CATALOGUE[rule.name] != rule or term.order > 1:
        return None
    theorem = f"{term.name}_coefficient_is_derived"
    return {"file": f"proofs/certificates/{rule.name}.v", "theorem": theorem}


# -- for people -------------------------------------------------------------------------------


def as_text(derivation: Derivation, *, steps: bool) -> str:
    """Equations in Unicode, two-dimensional; with `steps` every line of the derivation."""
    parts = [f"{derivation.rule.name}: u = {derivation.rule}", ""]
    for step in derivation.steps if steps else ():
        parts += [f"{step.text}:", "", _drawn(step.equation), ""]
    parts += [f"The bias E u - u* through order {derivation.order} in the small parameter", ""]
    for term in derivation.terms:
        order = f", order {term.order}" if derivation.order > 1 else ""
        parts += [f"  {term.name}{order}:", "", _drawn(term.coefficient, term.moment, "    "), ""]
        if proof := _certificate(derivation.rule, term):
            parts += [f"    certified: {proof['theorem']} in {proof['file']}", ""]
    if not derivation.terms:
        parts += ["  none: the update is linear in its statistics.", ""]
    parts += [f"Domain: {_domain(derivation)}.", ""]
    if derivation.terms and derivation.rule.name not in CATALOGUE:
        parts += [f"Not certified yet: deltabias certify {shlex.quote(str(derivation.rule))}", ""]
    return "\n".join([*parts, *_correction_lines(derivation)])


def _drawn(expression: sp.Basic, factor: sp.Basic | None = None, indent: str = "  ") -> str:
    shown = sp.pretty(expression, use_unicode=True, wrap_line=False)
    if factor is not None:
        # two blocks side by side: SymPy would reorder the factors of a product
        shown = _beside(shown, f" · {sp.pretty(factor, use_unicode=True, wrap_line=False)}")
    return "\n".join((indent + line).rstrip() for line in shown.splitlines())


def _beside(left: str, right: str) -> str:
    rows = left.splitlines()
    width, middle = max(map(len, rows)), _baseline(rows)
    if "\n" in right:
        return f"{left}\n{right}"
    return "\n".join(row.ljust(width) + right if i == middle else row for i, row in enumerate(rows))


def _baseline(rows: list[str]) -> int:
    """The row of the outermost fraction bar, the longest; the middle one without any."""
    bars = [(len(m.group()), i) for i, row in enumerate(rows) for m in re.finditer("─+", row)]
    return max(bars)[1] if bars else len(rows) // 2


def _domain(derivation: Derivation) -> str:
    return ", ".join(map(str, derivation.domain)) or "everywhere"


def _correction_lines(derivation: Derivation) -> Iterator[str]:
    if not derivation.terms:
        yield "There is nothing to correct."
        return
    form = kernel(derive(derivation.rule, 1))
    kind = "a ratio without subtraction" if form.safe else "a subtraction, which can overshoot"
    yield f"Corrected update, {kind}:"
    yield ""
    for moment in form.moments:
        yield f"  {moment.name} = {moment.moment}/({moment.divisor})"
    for definition in form.definitions:
        note = f"    ({definition.note})" if definition.note else ""
        yield f"  {definition.name} = {definition.expression}{note}"
    yield ""
    yield from _claim_lines(derivation.rule)
    for source in derivation.rule.sources:
        yield f"Source: {source}."


def _claim_lines(rule: UpdateRule) -> Iterator[str]:
    correction, why = _correction(rule)
    if correction is None:
        yield f"No strategy by default: {why}"
        return
    claim, cost = correction.claim, correction.cost
    yield (
        f"Strategy {correction.strategy!r}: leaves a bias of order {claim.order} over the "
        f"{claim.scope}; passes: {cost.passes}, tensors kept: {cost.buffers} "
        f"({cost.bytes_per_parameter} bytes a parameter), sums within a step: {cost.sums}."
    )
    for assumption in claim.assumes:
        yield f"It assumes {assumption}."


def as_latex(derivation: Derivation, *, steps: bool) -> str:
    """Display equations, one for each term, then the safe form."""
    lines = []
    for step in derivation.steps if steps else ():
        lines += [f"% {step.text}", rf"\[ {_latex(step.equation)} \]"]
    for term in derivation.terms:
        lines += [
            f"% {term.name}, order {term.order}",
            rf"\[ {_latex(term.coefficient)} \; {_latex(term.moment)} \]",
        ]
    domain = r",\; ".join(_latex(c) for c in derivation.domain) or r"\text{everywhere}"
    lines += ["% domain", rf"\[ {domain} \]"]
    for d in kernel(derive(derivation.rule, 1)).definitions if derivation.terms else ():
        lines += [f"% {d.name}", rf"\[ {_latex(d.symbol)} = {_latex(d.expression)} \]"]
    lines += [f"% {line}" for line in _claim_lines(derivation.rule)]
    return "\n".join(lines)


def _latex(expression: sp.Basic) -> str:
    names = {s: _latex_name(s.name) for s in expression.free_symbols}
    expression = expression.replace(clip, sp.Function("clip"))
    return sp.latex(expression, symbol_names=names)


def _latex_name(name: str) -> str:
    r"""``eps`` as \epsilon, ``beta1`` as \beta_{1}, a single letter as it is, words upright."""
    letters = name.rstrip("0123456789")
    index = name[len(letters) :]
    if letters in GREEK:
        shown = r"\epsilon" if letters == "eps" else f"\\{letters}"
    elif len(letters) == 1:
        shown = letters
    else:
        shown = r"\mathrm{" + letters.replace("_", r"\_") + "}"
    return f"{shown}_{{{index}}}" if index else shown
