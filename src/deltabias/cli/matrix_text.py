"""A matrix rule's derivation for people (text, LaTeX) and for programs (a record for JSON)."""

import sympy as sp

from deltabias.calculus.matrix import Spectral
from deltabias.matrix_derivation import MatrixDerivation, describe

GLOSSARY = (
    "dX = X - E X. first(P, E) and second(P, E) are the first and second order of P along E;",
    "in the eigenbasis E_ij f[λ_i,λ_j] and sum_k E_ik E_kj f[λ_i,λ_k,λ_j] (--steps prints both).",
)


def as_record(derivation: MatrixDerivation) -> dict:
    """Everything as strings and numbers. The delta bias is the mean of the sum of the terms."""
    rule = derivation.rule
    return {
        "rule": str(rule),
        "name": rule.name,
        "update": str(derivation.steps[0].equation.rhs),
        "order": 1,
        "statistics": [s.name for s in rule.states],
        "hypers": {h.name: h.default for h in rule.all_hypers},
        "functions": [
            {
                "name": str(symbol),
                "of": describe(node),
                "first_order": str(node.map.first()),
                "second_order": str(node.map.second()),
                "separates": node.map.separates,
                "matrix_products": len(node.map.parts) if node.map.separates else None,
                "keeps_positive_definite": node.map.keeps_positive,
            }
            for symbol, node in derivation.functions
            if isinstance(node, Spectral)
        ],
        "terms": [{"name": t.name, "value": str(t.value)} for t in derivation.terms],
        "delta_bias": str(derivation.delta_bias),
        "steps": [{"text": s.text, "equation": str(s.equation)} for s in derivation.steps],
        "sources": list(rule.sources),
    }


def as_text(derivation: MatrixDerivation, *, steps: bool) -> str:
    """The terms by name; with `steps` every line of the derivation."""
    rule = derivation.rule
    parts = [f"{rule.name}: U = {derivation.steps[0].equation.rhs}", ""]
    parts += [f"  {symbol} = {describe(node)}" for symbol, node in derivation.functions]
    if steps:
        parts.append("")
        for step in derivation.steps[1:-1]:
            parts += [f"{step.text}:", f"    {_shown(step.equation)}"]
    parts += ["", "The bias E U - U*, to leading order, is the mean of", ""]
    parts += [f"  {t.name:<10} {t.value}" for t in derivation.terms]
    if not derivation.terms:
        parts += ["  nothing: the update is linear in its matrices."]
    parts += ["", *GLOSSARY]
    for _, node in derivation.functions:
        if isinstance(node, Spectral):
            cost = (
                f"{len(node.map.parts)} matrix product(s)"
                if node.map.separates
                else "a dense kernel of d³ numbers"
            )
            kept = "; P (P + X)^-1 P keeps it positive definite" if node.map.keeps_positive else ""
            parts.append(f"{describe(node)}: second order in {cost}{kept}.")
    parts += [f"Source: {s}." for s in rule.sources]
    return "\n".join(parts)


def _shown(equation: sp.Basic) -> str:
    if isinstance(equation, sp.Equality):
        return f"{equation.lhs} = {equation.rhs}"
    return str(equation)


def as_latex(derivation: MatrixDerivation, *, steps: bool) -> str:
    """Display equations, one for each term."""
    lines = []
    for step in derivation.steps[:-1] if steps else ():
        lines += [f"% {step.text}", rf"\[ {sp.latex(step.equation)} \]"]
    for term in derivation.terms:
        lines += [f"% {term.name}", rf"\[ {sp.latex(term.value)} \]"]
    return "\n".join(lines)
