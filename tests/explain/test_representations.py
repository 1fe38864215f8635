"""What notebooks show of rules, derivations, corrections and verdicts."""

import re
from xml.etree import ElementTree

import pytest

from deltabias.correction import STRATEGIES, correct
from deltabias.derivation import derive
from deltabias.errors import StrategyError
from deltabias.explain import explain
from deltabias.matrix_derivation import derive_matrix
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import MEAN_GRADIENT, Fresh, UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, get_rule
from deltabias.verify.record import WORST_FIRST, Check, Report

HOSTILE = '<script>alert(1)</script> & 50% $x$ {_^} "q"'
HOSTILE_RULE = UpdateRule(
    "hostile", "1/(gradient + 2)", (Fresh("gradient", MEAN_GRADIENT),), (), HOSTILE, (HOSTILE,)
)
CHECKS = tuple(Check(f"check_{v}", v, 0.25, 1e-3, HOSTILE, HOSTILE) for v in WORST_FIRST)


def corrections():
    for strategy in STRATEGIES:
        try:
            yield correct(get_rule("adamw_mean_of_squares"), strategy)
        except StrategyError:
            continue


SUBJECTS = [
    *CATALOGUE.values(),
    *MATRIX_CATALOGUE.values(),
    *(derive(r) for r in CATALOGUE.values()),
    *(derive_matrix(r) for r in MATRIX_CATALOGUE.values()),
    *corrections(),
    HOSTILE_RULE,
    derive(HOSTILE_RULE),
    MatrixRule("hostile", "inv(L)*M", MatrixRule.parse("inv(L)*M").states, (), HOSTILE, (HOSTILE,)),
    *CHECKS,
    Report(HOSTILE, HOSTILE, CHECKS),
    explain(get_rule("adamw")),
    explain(get_rule("muon")),
]


def said(subject):
    return f"{type(subject).__name__}-{getattr(subject, 'name', '')}"


@pytest.mark.parametrize("subject", SUBJECTS, ids=said)
def test_html_is_well_formed_escaped_and_follows_the_readers_colors(subject):
    html = subject._repr_html_()
    tree = ElementTree.fromstring(html)  # tags are balanced, and & and < escaped
    tags = {node.tag for node in tree.iter()}
    assert not {"script", "style", "link", "img"} & tags
    assert not re.search(r"(?<!-)\b(color|background)[\w-]*:", html)
    assert not any(key.startswith("on") for node in tree.iter() for key in node.attrib)


@pytest.mark.parametrize("subject", SUBJECTS, ids=said)
def test_latex_is_one_formula_with_balanced_braces(subject):
    latex = subject._repr_latex_()
    assert latex.startswith("$")
    assert latex.endswith("$")
    inside = latex[1:-1]
    assert not re.search(r"(?<!\\)[$#%]", inside)
    bare = re.sub(r"\\[{}]", "", inside)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    begun, ended = (re.findall(rf"\\{w}{{(\w+)}}", inside) for w in ("begin", "end"))
    assert sorted(begun) == sorted(ended)


def test_what_people_wrote_is_still_there_to_be_read():
    text = "".join(ElementTree.fromstring(HOSTILE_RULE._repr_html_()).itertext())
    assert HOSTILE in text


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.verdict)
def test_a_verdict_is_told_by_its_word_and_not_by_its_color_alone(check):
    text = "".join(ElementTree.fromstring(check._repr_html_()).itertext())
    assert check.verdict in text
    assert rf"\text{{{check.verdict}}}" in check._repr_latex_()


def test_a_correction_shows_the_form_that_it_uses():
    rule = get_rule("adamw")
    plug_in, delta = (correct(rule, s)._repr_latex_() for s in ("plug_in", "delta"))
    assert r"u = \frac{\hat{m}}{\varepsilon + \sqrt{\hat{v}}}" in plug_in
    assert r"u = \frac{n}{d \, \left(q + 1\right)}" in delta


def test_the_bias_in_a_notebook_is_that_of_the_derivation():
    rule = get_rule("inverse")
    assert derive(rule)._repr_latex_() == (
        r"$\displaystyle \Delta = \frac{g \, \operatorname{var}{\left(h \right)}}{h^{3}} - "
        r"\frac{\operatorname{cov}{\left(g,h \right)}}{h^{2}}$"
    )


def test_ipython_displays_html_and_latex():
    formatters = pytest.importorskip("IPython.core.formatters", reason="no IPython")
    pytest.importorskip("IPython.core.interactiveshell")
    formatter = formatters.DisplayFormatter()
    for subject in (get_rule("adamw"), derive(get_rule("adamw")), Report("t", "r", CHECKS)):
        bundle, _ = formatter.format(subject)
        assert bundle["text/html"] == subject._repr_html_()
        assert bundle["text/latex"] == subject._repr_latex_()
