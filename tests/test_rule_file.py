"""Rules from files and from what is typed: data, checked, and clear about what is wrong."""

from pathlib import Path

import pytest
import sympy as sp

from deltabias.derivation import derive
from deltabias.errors import DeltabiasError, ParseError, RuleError
from deltabias.rule import MEAN, Ema, Fresh, Total
from deltabias.rule_file import load_rule, resolve_rule
from deltabias.rules import CATALOGUE, get_rule

ADAM = """
name = "my_adam"
update = "exp_avg/(sqrt(exp_avg_sq) + eps)"
title = "Adam, from a file"
sources = ["Kingma & Ba", "torch"]

[hypers]
beta1 = 0.9
beta2 = 0.999
eps = 1e-8

[states.exp_avg]
kind = "ema"
sample = "x"
beta = "beta1"

[states.exp_avg_sq]
kind = "ema"
sample = "x"
outer = "mean**2"
beta = "beta2"
"""


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "rule.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_says_the_same_as_the_catalogue(file):
    rule, ours = load_rule(file(ADAM)), get_rule("adam")
    assert rule.update == ours.update
    assert [s.weights for s in rule.states] == [s.weights for s in ours.states]
    assert [h.default for h in rule.all_hypers] == [h.default for h in ours.all_hypers]
    assert (rule.title, rule.sources) == ("Adam, from a file", ("Kingma & Ba", "torch"))
    assert sp.simplify(derive(rule).at(7) - derive(ours).at(7)) == 0


def test_kinds_debias_and_opaque_statistics_are_read(file):
    rule = load_rule(
        file(
            'name = "mix"\nupdate = "g*c/(sqrt(s) + sqrt(v))"\n[hypers]\nalpha = 0.99\nc = 2\n'
            '[states.g]\nkind = "fresh"\n[states.s]\nkind = "total"\nsample = "x**2"\n'
            '[states.v]\nkind = "ema"\npositive = true\nbeta = "alpha"\ndebias = false\n'
        )
    )
    g, s, v = rule.states
    assert type(g) is Fresh
    assert g.statistic.opaque
    assert type(s) is Total
    assert s.statistic.positive, "a square is seen to be positive"
    assert type(v) is Ema
    assert not v.debias
    assert v.beta.high == 1, "the factor of an average is below one, whatever its name"
    assert v.statistic.positive
    assert [h.name for h in rule.hypers] == ["c"]


def test_a_square_of_a_mean_is_seen_to_be_positive(file):
    second = load_rule(file(ADAM)).states[1].statistic
    assert second.outer == MEAN**2
    assert second.positive


BAD_FILES = [
    (
        ADAM.replace('kind = "ema"', 'kind = "moving"', 1),
        r"\[states.exp_avg\] kind='moving' is not",
    ),
    (ADAM.replace('sample = "x"', 'samples = "x"', 1), r"\[states.exp_avg\] samples: unknown key"),
    (ADAM.replace('sample = "x"', 'sample = "x + z"', 1), r"sample='x \+ z': unknown symbol 'z'"),
    (ADAM.replace('sample = "x"', 'sample = "sqrt(x)"', 1), r"must be a polynomial"),
    (ADAM.replace('"mean**2"', "\"__import__('os')\""), r"outer=.* is not accepted in a rule"),
    (ADAM.replace('beta = "beta1"', 'beta = "gamma"'), r"beta='gamma' must name one of \[hypers\]"),
    (ADAM.replace("beta1 = 0.9", "beta1 = 1.5"), r"\[hypers\] beta1: beta1=1.5 is outside"),
    (ADAM.replace("eps = 1e-8", "eps = nan"), r"\[hypers\] eps: eps=nan is outside"),
    (ADAM.replace("eps = 1e-8", "eps = true"), r"\[hypers\] eps=True must be a number"),
    (ADAM.replace("eps = 1e-8", "eps = 1e-8\nrho = 1"), r"\[hypers\] rho occurs neither"),
    (ADAM.replace("+ eps)", "+ delta)"), r"update: unknown symbol 'delta'"),
    (ADAM.replace('name = "my_adam"', 'name = "My Adam"'), r"rule name 'My Adam' is not allowed"),
    (ADAM.replace('update = "', 'upadte = "'), r"upadte: unknown key"),
    ('name = "x"\n', r"has no 'update'"),
    (ADAM.replace('name = "my_adam"', "name = 3"), r"name=3 must be a string"),
    (ADAM.replace('["Kingma & Ba", "torch"]', "[1]"), r"sources=\[1\] must be a list of strings"),
    (ADAM + 'debias = "no"\n', r"debias='no' must be true or false"),
    (ADAM.replace('kind = "ema"', 'kind = "fresh"', 1), r"beta has no meaning for kind='fresh'"),
    ("name = ", r"is not a TOML file"),
    ("# " + "x" * 70_000, r"up to 65536"),
    ('name="a"\nupdate="v"\nstates={v=1}\n', r"\[states.v\] must be a table"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_an_error_names_the_file_and_what_is_wrong_in_it(file, text, message):
    with pytest.raises(DeltabiasError, match=message) as caught:
        load_rule(file(text))
    assert "rule.toml: " in str(caught.value)
    assert isinstance(caught.value, RuleError | ParseError)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    with pytest.raises(RuleError, match=r"none.toml: cannot be read: No such file"):
        resolve_rule(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RuleError, match=r"binary.toml: is not a TOML file"):
        load_rule(tmp_path / "binary.toml")


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_catalogue_name_is_that_rule(name):
    assert resolve_rule(name) is CATALOGUE[name]


def test_a_path_and_mathematics_are_told_apart(file):
    assert resolve_rule(str(file(ADAM))).name == "my_adam"
    typed = resolve_rule("g/(sqrt(v)+c)", {"c": 0.5}, name="mine")
    assert typed.name == "mine"
    assert [(h.name, h.default) for h in typed.hypers] == [("c", 0.5)]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("adamx", "Did you mean 'adam'?"),
        ("AdamW", "Did you mean 'adamw'?"),
        ("adam-mean-of-squares", "Did you mean 'adam_mean_of_squares'?"),
        ("quantum", "the catalogue has inverse"),
    ],
)
def test_a_word_that_is_no_rule_gets_the_nearest_that_is(word, hint):
    with pytest.raises(RuleError) as caught:
        resolve_rule(word)
    assert hint in str(caught.value)


def test_hyperparameters_cannot_be_declared_for_a_finished_rule():
    with pytest.raises(RuleError, match="only a rule typed as a string"):
        resolve_rule("adamw", {"rho": 1.0})
    with pytest.raises(ParseError, match="expected a rule such as 'adamw'"):
        resolve_rule(None)
