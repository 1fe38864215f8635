"""Certificates of matrix functions and matrix rules: complete, accepted, and able to fail."""

import dataclasses
import doctest
import importlib
import pkgutil

import pytest
import sympy as sp
from tests.certify_matrix.mutants import MUTANTS
from tests.certify_matrix.subjects import SUBJECTS, certificate
from tests.proofs.test_mutants import NOT_MATHEMATICS

from deltabias.calculus.spectral import EIGENVALUE, Part, SpectralMap
from deltabias.codegen import coq as texts
from deltabias.codegen.coq import matrix, spectral_bridge_text
from deltabias.codegen.coq.matrix import certificate_of_matrix_rule
from deltabias.codegen.coq.spectral import certificate_of_map
from deltabias.errors import CertifyError
from deltabias.matrix_derivation import MatrixTerm, derive_matrix
from deltabias.matrix_rule import MatrixRule
from deltabias.rules import MATRIX_CATALOGUE, SPECTRAL_MAPS

QUICK = ("inverse_sqrt_plus_eps", "heat_kernel", "shampoo_one_sided", "soap")
"""Compiled in every run; the others are marked slow."""


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_map_and_matrix_rule_has_a_certificate(name):
    found = certificate(name)
    assert (found.subject, found.order) == (name, 2)
    assert {t.kind for t in found.theorems} >= {"coefficient"}
    assert found.domain
    assert found.not_certified
    assert found.text.isascii()
    assert all(f"Theorem {t.name} " in found.text for t in found.theorems)


def test_what_is_certified_of_each_kind():
    separated = {t.name for t in certificate("inverse_root_4").theorems}
    assert separated >= {
        "kernels_are_divided_differences",
        "first_at_equal_eigenvalues",
        "second_at_equal_eigenvalues",
        "products_are_the_second_order",
        "matrix_equation",
        "expansion_is_unique",
        "program_of_coefficients",
    }
    dense = {t.name for t in certificate("heat_kernel").theorems}
    assert dense >= {"integrals_are_divided_differences", "dense_kernels_are_divided_differences"}
    rule = {t.name for t in certificate("shampoo").theorems}
    assert rule == {"second_order_of_the_update", "bias_of_the_update"}
    assert "second_order_of_X_5" in {t.name for t in certificate("muon").theorems}


@pytest.mark.parametrize("name", ["inverse_root_3", "soap"])
def test_a_certificate_is_the_same_text_each_time(name):
    first = certificate(name).text
    certificate.cache_clear()
    assert certificate(name).text == first


def accepted(name, accepts):
    good, words = accepts(certificate(name).text)
    assert good, words


@pytest.mark.parametrize("name", QUICK)
def test_certificate_is_accepted(name, accepts):
    accepted(name, accepts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SUBJECTS if n not in QUICK])
def test_every_certificate_is_accepted(name, accepts):
    accepted(name, accepts)


# ---- what is false is rejected


def rejected(text, why, accepts):
    good, words = accepts(text)
    assert not good, f"Coq accepts a false statement: {why}"
    assert "Error" in words
    assert not any(complaint in words for complaint in NOT_MATHEMATICS), words


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_changes_one_place(mutant):
    assert certificate(mutant.subject).text.count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_there_are_twenty_mutants_of_eight_subjects():
    assert len(MUTANTS) >= 20
    assert len({m.subject for m in MUTANTS}) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_false_certificate_is_rejected(mutant, accepts):
    text = certificate(mutant.subject).text.replace(mutant.old, mutant.new)
    rejected(text, mutant.why, accepts)


def test_a_changed_coefficient_of_the_derivation_is_rejected(accepts):
    changed = SpectralMap("changed", SPECTRAL_MAPS["inverse_root_2"].expression)
    head, *rest = changed.parts
    changed.__dict__["parts"] = (Part(2 * head.coefficient, head.weight), *rest)
    rejected(certificate_of_map(changed).text, "a part of the second order doubled", accepts)


def test_a_changed_term_of_the_derivation_is_rejected(accepts, monkeypatch):
    def derive(rule):
        found = derive_matrix(rule)
        first, *rest = found.terms
        half = MatrixTerm(first.name, first.value / 2)
        return dataclasses.replace(found, terms=(half, *rest))

    monkeypatch.setattr(matrix, "derive_matrix", derive)
    text = certificate_of_matrix_rule(MATRIX_CATALOGUE["shampoo_one_sided"]).text
    rejected(text, "half of the coupling", accepts)


def test_a_changed_line_of_generated_code_is_rejected(accepts, monkeypatch):
    source = spectral_bridge_text.kernel_source

    def changed(spectral):
        printed = source(spectral)
        assert printed.count("part_0 = inner / _x0") == 1
        return printed.replace("part_0 = inner / _x0", "part_0 = inner * _x0")

    monkeypatch.setattr(spectral_bridge_text, "kernel_source", changed)
    text = certificate_of_map(SPECTRAL_MAPS["inverse_sqrt_plus_eps"]).text
    rejected(text, "a weight times what it is divided by", accepts)


# ---- maps and rules that nobody here has seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "expression",
    [
        EIGENVALUE ** sp.Rational(-2, 3),
        1 / (EIGENVALUE + sp.Symbol("eps", nonnegative=True)),
        EIGENVALUE ** sp.Rational(1, 2),
        sp.exp(-2 * EIGENVALUE),
        sp.log(EIGENVALUE),
    ],
    ids=str,
)
def test_an_unseen_map_is_certified(expression, accepts):
    good, words = accepts(certificate_of_map(SpectralMap("unseen", expression)).text)
    assert good, words


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "inv_root(L + damping*I, 2) * M * inv_root(R + damping*I, 4)",
        "L * M + M * R",
        "normalize(M)",
        'elementwise("m/(sqrt(v) + eps)", m=Q*M, v=V)',
    ],
)
def test_an_unseen_rule_is_certified(text, accepts):
    good, words = accepts(certificate_of_matrix_rule(MatrixRule.parse(text)).text)
    assert good, words


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (sp.tanh(EIGENVALUE), r"tanh in .* has no derivative in the theory"),
        (
            (EIGENVALUE + 1) ** sp.Rational(-1, 2) + sp.sqrt(EIGENVALUE),
            r"one such sum in a map",
        ),
    ],
    ids=str,
)
def test_a_map_outside_the_theory_is_refused_by_name(expression, message):
    with pytest.raises(CertifyError, match=message):
        certificate_of_map(SpectralMap("outside", expression))


def test_an_entry_map_outside_the_theory_is_refused_by_name():
    rule = MatrixRule.parse('elementwise("exp(-v)", v=V) * M')
    with pytest.raises(CertifyError, match=r"has no expansion in the theory; certified are sums"):
        certificate_of_matrix_rule(rule)


def test_examples_in_docstrings_run():
    names = [m.name for m in pkgutil.iter_modules(texts.__path__)]
    own = [n for n in names if n.startswith(("matrix", "spectral"))]
    results = [doctest.testmod(importlib.import_module(f"deltabias.codegen.coq.{n}")) for n in own]
    assert sum(r.attempted for r in results) > 0
    assert sum(r.failed for r in results) == 0
