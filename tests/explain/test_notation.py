"""Names and formulas look right in LaTeX, Unicode and MathML, everywhere the same."""

import re
from xml.etree import ElementTree

import pytest
import sympy as sp

from deltabias.derivation import derive
from deltabias.explain import explain
from deltabias.notation.markup import fold, table, text_in_math
from deltabias.notation.names import Name, name_of, state_names
from deltabias.notation.printing import columns, display, latex, mathml, plain, pretty
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, get_rule

RULES = {**CATALOGUE, **MATRIX_CATALOGUE}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("eps", r"\varepsilon"), ("eps_root", r"\varepsilon_{\mathrm{root}}"),
        ("beta1", r"\beta_{1}"), ("lr", r"\eta"), ("g", "g"), ("s_i", "s_{i}"), ("x2", "x_{2}"),
        ("dL", r"\mathrm{d}L"), ("ddX_5", r"\mathrm{d}^{2}X_{5}"), ("P_L", "P_{L}"),
        ("betas", r"\mathrm{betas}"), ("noise_share", r"\mathrm{noise\_share}"),
    ],
)  # fmt: skip
def test_a_name_is_a_letter_where_it_is_one_and_a_word_otherwise(name, shown):
    assert name_of(name).latex == shown


def test_the_hat_says_that_an_average_is_debiased():
    assert get_rule("adamw").notation["exp_avg"].latex == r"\hat{m}"
    assert get_rule("sophia").notation["exp_avg"].latex == "m"
    assert get_rule("rmsprop").notation["square_avg"].latex == "v"


def test_two_symbols_of_a_rule_never_share_a_name():
    names = state_names([("exp_avg_sq", False), ("v", False), ("square_avg", False)])
    shown = [names[n].latex for n in ("exp_avg_sq", "v", "square_avg")]
    assert len(set(shown)) == 3, shown
    for rule in RULES.values():
        own = [rule.notation[s.name].latex for s in (*rule.states, *rule.all_hypers)]
        assert len(set(own)) == len(own), rule.name


def test_the_letters_of_a_safe_form_give_way_to_those_of_the_rule():
    rule = UpdateRule.parse("n/(sqrt(d)+eps)")
    shown = [display(p.expression, rule.notation) for p in explain(rule).of_kind("safe")]
    assert shown[0] == r"\mathrm{denominator} = \sqrt{d} + \varepsilon"
    assert any(s.startswith(r"\mathrm{numerator} = n + ") for s in shown)


@pytest.mark.parametrize("name", RULES)
def test_no_name_is_taken_apart_at_its_underscores(name):
    for passage in explain(RULES[name]).passages:
        if passage.expression is not None:
            shown = display(passage.expression, RULES[name].notation)
            assert not re.search(r"exp_\{avg|_\{avg sq", shown), shown
    assert "exp_{avg" in sp.latex(get_rule("adamw").update)  # the control


def test_words_side_by_side_do_not_read_as_one():
    a, b = sp.symbols("noise share_of_it")
    assert latex(a * b) == r"\mathrm{noise} \, \mathrm{share\_of\_it}"


def test_the_square_of_a_deviation_has_parentheses():
    d = sp.Symbol("dA_1", commutative=False)
    assert latex(d**2) == r"\left(\mathrm{d}A_{1}\right)^{2}"


@pytest.mark.parametrize("order", [1, 3])
def test_what_is_wider_than_a_line_is_broken_at_the_terms_of_its_sum(order):
    rule = get_rule("adamw")
    equation = derive(rule, order).steps[-1].equation
    broken = display(equation, rule.notation, 30)
    assert columns(equation, rule.notation) > 30
    assert broken.startswith(r"\begin{aligned} \Delta ={}& ")
    terms = len(equation.rhs.args)
    assert broken.count(r" \\ &") == terms - 1
    # nothing is lost: each term is there, with its sign
    for term in equation.rhs.args:
        negative = term.as_coeff_Mul()[0].is_negative
        positive = latex(-term if negative else term, rule.notation)
        assert positive in broken or r"\begin{array}" in broken


def test_a_wide_numerator_is_put_in_rows():
    equation = explain(get_rule("shampoo")).find("function-P_L-i-k-j").expression
    assert r"\frac{\begin{array}{l}" in display(equation, {}, 50)
    assert r"\begin{array}" not in display(equation, {}, 500)


@pytest.mark.parametrize("name", RULES)
def test_every_formula_is_well_formed_mathml_without_script(name):
    explanation = explain(RULES[name])
    for passage in explanation.passages:
        for expression in (passage.expression, *passage.words):
            if isinstance(expression, sp.Basic):
                text = mathml(expression, explanation.names)
                assert ElementTree.fromstring(text).tag.endswith("math")
                assert "script" not in text


def test_mathml_of_a_derivative_counts_its_variable_and_not_its_sign():
    v = sp.Symbol("v")
    text = mathml(sp.Derivative(sp.Function("T")(v), (v, 2)))
    assert "<mo>∂</mo><msup><mi>v</mi><mn>2</mn></msup>" in text


def test_text_keeps_the_names_of_the_code_and_greek_letters():
    expression = sp.Symbol("exp_avg_sq") * sp.Symbol("beta2") + sp.Symbol("damping")
    assert plain(expression) == "β₂*exp_avg_sq + damping"
    assert "exp_avg_sq" in pretty(sp.sqrt(sp.Symbol("exp_avg_sq")))
    assert "max(" in pretty(sp.Max(1, sp.Symbol("a") * sp.Symbol("b")))


HOSTILE = '<script>alert("1")</script> & $x$ \\end{array} #%{}_^~'


def test_markup_escapes_what_people_write():
    for text in (table([HOSTILE], [[HOSTILE]]), fold(HOSTILE, "", anchor=HOSTILE)):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    assert r"\end{array}" not in text_in_math(HOSTILE)
    assert text_in_math(HOSTILE).count("$") == text_in_math(HOSTILE).count(r"\$") == 2


def test_a_name_has_the_same_index_in_every_script():
    name = Name("β", index=("2",))
    assert (name.latex, name.unicode) == (r"\beta_{2}", "β₂")
    assert "<msub><mi>β</mi><mrow><mi>2</mi></mrow></msub>" in mathml(sp.Symbol("beta2"))
