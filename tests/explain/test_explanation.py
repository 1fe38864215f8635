"""An explanation says what the derivation, the correction and the generated code say."""

from itertools import pairwise

import pytest
import sympy as sp
import torch

from deltabias.codegen.emit import emit
from deltabias.correction import STRATEGIES, correct
from deltabias.derivation import derive
from deltabias.errors import DeltabiasError, StrategyError
from deltabias.explain import FORMS, KINDS, Explanation, Passage, explain
from deltabias.matrix_derivation import derive_matrix
from deltabias.rule import Ema, Statistic, UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, get_rule
from deltabias.safe_form import kernel

RULES = {**CATALOGUE, **MATRIX_CATALOGUE}


# -- the record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_explained_from_its_update_to_its_sources(name):
    explanation = explain(RULES[name])
    kinds = [p.kind for p in explanation.passages]
    assert {"update", "statistic", "term", "bias", "domain", "corrected", "claim", "source"} <= {
        *kinds
    }
    assert len({p.id for p in explanation.passages}) == len(explanation.passages)
    for passage in explanation.passages:
        assert passage.title
        assert passage.sentence.endswith(".")
        assert "  " not in passage.sentence
    assert [p.id for p in explanation.passages][-2:] == ["claim", "sources"]


def test_two_passages_of_one_id_are_refused():
    passage = Passage("a", "update", "A", ("a.",))
    with pytest.raises(ValueError, match="two passages are called a"):
        Explanation(get_rule("adam"), (passage, passage))


def test_a_passage_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no kind of passage; use update"):
        Passage("a", "verse", "A", ("a.",))


def test_a_passage_is_found_by_its_number_and_by_its_id():
    explanation = explain(get_rule("adamw"))
    assert explanation.find(1) is explanation.find("update") is explanation.find("1")
    part = explanation.only("corrected")
    assert part.passages == (explanation.find("corrected"),)
    assert explanation.find(part.start) is part.passages[0]


@pytest.mark.parametrize(
    ("which", "said"), [(0, "has steps 1 to 3"), ("99", "steps 1 to"), ("here", "there are update")]
)
def test_a_passage_that_is_not_there_is_told_with_those_that_are(which, said):
    with pytest.raises(DeltabiasError, match=said):
        explain(get_rule("adamw")).find(which)


# -- one object -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [*((n, 1) for n in CATALOGUE), ("inverse", 3)])
def test_the_terms_add_up_to_the_bias(name, order):
    derivation = derive(CATALOGUE[name], order)
    explanation = explain(derivation)
    total = sp.Add(*(p.expression for p in explanation.of_kind("term")))
    assert sp.simplify(total.doit() - derivation.delta_bias) == 0
    assert explanation.find("bias").expression.rhs == derivation.delta_bias
    assert len(explanation.of_kind("term")) == len(derivation.terms)


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_expansion_with_its_derivatives_put_in_is_the_bias(name):
    explanation = explain(CATALOGUE[name])
    known = {p.expression.lhs: p.expression.rhs for p in explanation.of_kind("derivative")}
    expansion = explanation.find("expansion").expression.rhs
    assert expansion.atoms(sp.Derivative) == set(known)
    difference = expansion.xreplace(known) - explanation.find("bias").expression.rhs
    assert sp.simplify(difference.doit()) == 0


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_safe_passages_put_together_are_the_kernel(name):
    explanation = explain(CATALOGUE[name])
    update = explanation.find("corrected").expression.rhs
    for passage in reversed(explanation.of_kind("safe")):
        update = update.subs(sp.Symbol(passage.expression.lhs.name, real=True),
                             passage.expression.rhs)  # fmt: skip
    assert update == kernel(derive(CATALOGUE[name])).update


def module_of(source):
    names = {}
    exec(compile(source, "generated", "exec"), names)
    return names


def doubled_inversion(monkeypatch):
    """The derivation with a wrong coefficient: what is made of it has to be wrong alike."""
    from deltabias import derivation

    right = derivation.expand

    def wrong(derivatives, symbols, power):
        for contribution, coefficient in right(derivatives, symbols, power):
            alone = sum(n > 0 for n in contribution.derivative) == 1
            yield contribution, 2 * coefficient if alone else coefficient

    monkeypatch.setattr(derivation, "expand", wrong)


def test_a_changed_coefficient_changes_explanation_page_and_code_together(monkeypatch):
    rule = get_rule("adamw_mean_of_squares")
    before, files = explain(rule), emit(rule)
    doubled_inversion(monkeypatch)
    after, changed = explain(rule), emit(rule)
    (term,) = [p.id for p in before.of_kind("term") if "inversion" in p.id]
    ratio = after.find(term).expression / before.find(term).expression
    assert sp.simplify(ratio.doit()) == 2
    assert changed.docs != files.docs
    values = [
        (code(explanation, module), explanation)
        for explanation, module in ((before, files.module), (after, changed.module))
    ]
    assert values[0][0] != values[1][0]  # code() itself checks that each agrees with its page


def code(explanation, module):
    """The generated update at a point, which the explanation's formulas give as well."""
    corrected = module_of(module)["corrected_update"]
    point = {"exp_avg": 0.7, "exp_avg_sq": 1.3, "relative_cov_exp_avg_exp_avg_sq": 0.05,
             "relative_var_exp_avg_sq": 0.2}  # fmt: skip
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in point.items()}
    value = float(corrected(**tensors, eps=0.01))
    known = {**point, "eps": 0.01}
    for passage in (*explanation.of_kind("safe"), explanation.find("corrected")):
        names = {s: known[s.name] for s in passage.expression.rhs.free_symbols}
        known[passage.expression.lhs.name] = float(passage.expression.rhs.subs(names))
    assert value == pytest.approx(known["corrected_update"], rel=1e-14)
    return value


def test_a_state_is_the_average_that_the_optimizer_keeps():
    equation = explain(get_rule("adamw")).find("state-exp_avg_sq").expression
    gradients, beta = [sp.Rational(n, 7) for n in (3, -1, 5)], sp.Rational(19, 20)
    kept = sp.Integer(0)
    for gradient in gradients:
        kept = beta * kept + (1 - beta) * gradient**2
    step, age = sp.Symbol("t", integer=True, positive=True), sp.Symbol("tau")
    (total,) = equation.rhs.atoms(sp.Sum)
    (_, first, last), body = total.limits[0], total.function
    (index,) = [s for s in body.free_symbols if s.name == age.name]
    assert (first, last) == (0, step - 1)
    (beta2,) = [s for s in body.free_symbols if s.name == "beta2"]
    value = sp.Integer(0)
    for k in range(3):
        mean = gradients[2 - k]  # t - τ counts from one
        one = body.subs({index: k, step: 3}).replace(
            lambda e: isinstance(e, sp.Function), lambda e, mean=mean: mean
        )
        value += one
    value = equation.rhs.subs(total, value).subs({step: 3, beta2: beta}).subs(beta2, beta)
    assert sp.simplify(value - kept / (1 - beta**3)) == 0


# -- strategies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares"])
def test_every_strategy_that_applies_is_explained_with_its_claim_and_cost(name, strategy):
    rule = get_rule(name)
    try:
        correction = correct(rule, strategy)
    except StrategyError as error:
        with pytest.raises(StrategyError, match="^" + str(error)[:30]):
            explain(rule, strategy=strategy)
        return
    explanation = explain(correction)
    claim = explanation.find("claim").sentence
    assert explanation.strategy == strategy
    assert f"order {correction.claim.order}" in claim
    assert all(a in claim for a in correction.claim.assumes)
    assert f"tensors kept: {correction.cost.buffers}" in claim
    assert bool(explanation.of_kind("corrected")) == bool(correction.terms)
    assert (correction.folds is not None) == ("folds" in {p.id for p in explanation.passages})


def test_a_linear_rule_has_nothing_to_correct():
    explanation = explain(UpdateRule.parse("3*g"))
    assert not explanation.of_kind("term", "corrected", "safe")
    assert "linear" in explanation.find("bias").sentence
    assert "nothing to correct" in explanation.find("claim").sentence


def test_a_rule_whose_moments_nobody_estimates_is_explained_all_the_same():
    states = tuple(Ema(n, Statistic(n, positive=True)) for n in "abc")
    rule = UpdateRule("three", "a/(b*c)", states)
    with pytest.raises(StrategyError):
        correct(rule)
    explanation = explain(rule)
    assert explanation.strategy is None
    assert explanation.of_kind("term")
    assert "No strategy: " in explanation.find("claim").sentence


def test_kinks_are_told_from_the_branch_that_is_expanded():
    explanation = explain(get_rule("sophia"))
    whole, smooth = explanation.find("update").expression, explanation.find("branch").expression
    assert whole.rhs == get_rule("sophia").update != smooth.rhs
    assert len(explanation.find("domain").expression) == 4


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: explain(get_rule("shampoo"), order=2), "derived to order 1"),
        (lambda: explain(get_rule("shampoo"), strategy="delta"), "full, diagonal"),
        (lambda: explain(derive(get_rule("adamw")), order=2), "explain the rule"),
        (lambda: explain(correct(get_rule("adamw")), strategy="delta"), "explain the rule"),
        (lambda: explain(get_rule("adamw"), strategy="magic"), "use one of plug_in"),
        (lambda: explain(get_rule("adamw"), order=4), "use 1 to 3"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_words(make, said):
    with pytest.raises(DeltabiasError, match=said):
        make()


def test_kinds_come_in_their_order():
    for name in ("adamw", "shampoo", "muon"):
        order = [KINDS.index(p.kind) for p in explain(RULES[name]).passages]
        # a function and its derivatives go together, and so do estimates and moments
        assert sum(a > b for a, b in pairwise(order)) <= 1, name


def test_the_forms_of_a_matrix_rule_are_those_that_are_generated():
    from deltabias.codegen.matrix_code import OWN

    assert tuple(FORMS) == OWN


@pytest.mark.parametrize("name", MATRIX_CATALOGUE)
def test_a_matrix_rule_shows_every_step_of_its_derivation_once(name):
    derivation = derive_matrix(MATRIX_CATALOGUE[name])
    shown = [p.expression for p in explain(derivation).passages]
    for step in derivation.steps:
        assert shown.count(step.equation) == 1, step.text
