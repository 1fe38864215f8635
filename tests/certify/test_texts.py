"""The text of certificates: names, printing, what is stated, and where it comes from."""

import random
from dataclasses import replace

import mpmath
import pytest
import sympy as sp
from mpmath import mpf
from tests.certify.subjects import certificate
from tests.certify.terms import Definitions, Reader

from deltabias.codegen.coq import plan as plans
from deltabias.codegen.coq.atoms import Field, parts
from deltabias.codegen.coq.certificate import Certificate, Theorem
from deltabias.codegen.coq.plan import plan
from deltabias.codegen.coq.printing import Printer, chain, coq_name
from deltabias.codegen.coq.scalar import WIDTH, certificate_from
from deltabias.codegen.ssa import Assign, Program
from deltabias.errors import CertifyError
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE

V, EPS = sp.Symbol("v", positive=True), sp.Symbol("eps", nonnegative=True)
SHOWN = (
    -3 * V / (8 * (EPS + sp.sqrt(V)) ** 2),
    V ** sp.Rational(-5, 3) - sp.Rational(7, 3) * EPS,
    (V - EPS) / (V * (1 + V) ** 2) - 1 / V,
    sp.exp(-2 * V) * sp.log(1 + V) / 3,
    -(V**2) * (1 - EPS) ** 3 + 5,
    sp.atan(V) - sp.tanh(V) / sp.sqrt(1 + V**2),
    sp.Max(EPS, V * 2) - sp.Min(V, 3),
)


@pytest.mark.parametrize("expression", SHOWN, ids=str)
def test_what_is_printed_has_the_value_of_the_expression(expression):
    rng, text = random.Random(3), Printer()(expression)
    for _ in range(5):
        values = {"v": mpf(rng.randint(1, 50)) / 7, "eps": mpf(rng.randint(0, 50)) / 9}
        truth = sp.lambdify([V, EPS], expression, "mpmath")(values["v"], values["eps"])
        found = Reader(text, Definitions(""), values).value()
        assert mpmath.almosteq(found, truth, rel_eps=mpf(10) ** -12)


def test_what_has_no_term_is_refused_by_name():
    with pytest.raises(CertifyError, match=r"erf\(v\).*no term in the certificates' table"):
        Printer()(sp.erf(V))
    odd = Program("p", ("v",), (), [Assign("update", "median", ("v",))], ("update",))
    with pytest.raises(CertifyError, match=r"'median'.*no meaning over the reals"):
        chain(odd)


@pytest.mark.parametrize("name", ["in", "f", "f_2", "lo", "t_0", "exp", "m_"])
def test_names_never_mean_something_else(name):
    assert coq_name(name) != name
    names = [coq_name(n) for n in ("in", "in_", "in__", "v", "f", "f_")]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_scalar_rule_of_the_catalogue_has_a_certificate(name):
    found = certificate(name)
    kinds = {t.kind for t in found.theorems}
    assert kinds >= {"derivative", "bound", "coefficient", "remainder", "bridge"}
    assert all(f"Theorem {t.name}" in found.text for t in found.theorems)
    assert "Admitted" not in found.text
    assert max(map(len, found.text.splitlines())) <= WIDTH + 20


def test_hyperparameters_stay_variables():
    text = certificate("adamw").text
    assert "Variable eps : R.\nHypothesis eps_range : 0 <= eps." in text
    assert "1e-08" not in text
    assert "Hypothesis rho_range : 0 < rho." in certificate("sophia").text


def test_independent_states_are_certified_as_uncorrelated():
    assert "Cov L G V = 0 ->" in certificate("sophia_g").text
    assert "coupling_coefficient" not in certificate("sophia_g").text


def test_a_certificate_lists_exactly_what_it_states():
    good = certificate("inverse")
    with pytest.raises(ValueError, match="must be the same in the same order"):
        replace(good, theorems=good.theorems[1:])
    with pytest.raises(ValueError, match="must be a sentence"):
        Theorem("one", "no stop", "bound")
    with pytest.raises(ValueError, match="allowed are derivative"):
        Theorem("one", "It is.", "guess")
    with pytest.raises(ValueError, match="no Coq identifier"):
        Theorem("1st", "It is.", "bound")
    assert Certificate("e", "", (), 2, (), ()).theorems == ()


# -- the coefficients are those of the objects that print the code --------------------------------


def test_a_changed_derivation_makes_the_certificate_fail(accepts, monkeypatch):
    true_derive = plans.derive

    def wrong(rule, order):
        found = true_derive(rule, order)
        terms = tuple(
            replace(t, coefficient=t.coefficient * 2) if t.name == "inversion" else t
            for t in found.terms
        )
        return replace(found, terms=terms)

    monkeypatch.setattr(plans, "derive", wrong)
    accepted, words = accepts(certificate_from(plan(CATALOGUE["inverse"])).text)
    assert not accepted
    assert "Error" in words


def test_a_changed_program_makes_the_certificate_fail(accepts):
    found = plan(CATALOGUE["inverse"])
    statements = [
        replace(s, operation="sub") if s.target == "numerator" else s
        for s in found.corrected.statements
    ]
    program = replace(found.corrected, statements=statements)
    accepted, words = accepts(certificate_from(replace(found, corrected=program)).text)
    assert not accepted
    assert "Error" in words


RULES = ["a/(sqrt(f)+eps)", "max(g/sqrt(v), 0)"]


def test_fourth_order_with_a_numerator_is_certified(accepts):
    accepted, words = accepts(certificate("g/v", 4).text)
    assert accepted, words


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*RULES, "g/(v**(1/3)+eps)", "g/(1+exp(2*v))"])
def test_rules_that_nobody_here_has_seen_are_certified(rule, accepts):
    accepted, words = accepts(certificate(rule).text)
    assert accepted, words


def test_parts_of_a_derivative_sum_to_it():
    place = Field(V, (EPS,))
    tower = place.tower(place.convert(1 / (V ** sp.Rational(1, 3) + EPS)), 4)
    for derivative in tower:
        total = sum(p.coefficient * p.top / p.bottom for p in parts(place, derivative))
        assert sp.simplify(total - derivative) == 0


def test_a_rule_of_three_statistics_is_refused():
    with pytest.raises(CertifyError, match="this one has g, h, v"):
        plan(UpdateRule.parse("g*h/(v+eps)"))
