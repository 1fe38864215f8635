"""Matrix rules: what they say of themselves, and what they cannot say."""

import pytest

from deltabias.errors import ParseError, RuleError
from deltabias.matrix_rule import DAMPING, MatrixRule, MatrixState, MatrixStatistic
from deltabias.rule import BETA2, EPS
from deltabias.rule_file import load_rule, resolve_rule

L, M = (MatrixState(n, MatrixStatistic(n)) for n in "LM")


def test_a_typed_rule_knows_its_matrices_hypers_and_symmetry():
    rule = MatrixRule.parse(
        "inv_root(L + damping*I, 4)*M*inv_root(M*R, 2)", hypers={"damping": 0.5}
    )
    assert [s.name for s in rule.states] == ["L", "M", "R"]
    assert {h.name: h.default for h in rule.hypers} == {"damping": 0.5}
    assert rule.symmetric == ("L",)  # M R is under a function, but no symbol of its own
    assert [n.map.name for n in rule.spectral] == ["inverse_root_4", "inverse_root_2"]


def test_a_dense_map_is_a_rule_like_any_other():
    rule = MatrixRule.parse('spectral("exp(-eigenvalue*scale)", L)*M', hypers={"scale": 2.0})
    assert rule.symmetric == ("L",)
    assert rule.all_hypers[0].default == 2.0


def wrong(message, make):
    with pytest.raises((RuleError, ParseError), match=message):
        make()


def test_contradictions_are_refused_with_what_is_declared():
    wrong("uses the matrix M; declared are L", lambda: MatrixRule("r", "L*M", (L,)))
    wrong("uses the hyperparameter eps; declared are none", lambda: MatrixRule("r", "eps*L", (L,)))
    wrong("declares L more than once", lambda: MatrixRule("r", "L", (L, L)))
    wrong("declares eps more than once", lambda: MatrixRule("r", "eps*L", (L,), (EPS, EPS)))
    wrong("depends on no matrix", lambda: MatrixRule("r", "2*I", ()))
    wrong("'ratio' is used by", lambda: MatrixRule.parse("ratio*L"))
    wrong("'Bad' is not allowed", lambda: MatrixRule("Bad", "L", (L,)))
    wrong("does not occur", lambda: MatrixRule.parse("L", hypers={"eps": 1.0}))
    wrong("state name 'I' is not allowed", lambda: MatrixState("I", MatrixStatistic("I")))
    wrong("a total or an average", lambda: MatrixState("L", MatrixStatistic("L"), BETA2, True))
    wrong("it must be in G", lambda: MatrixStatistic("s", "G*L"))
    wrong("it must be in G", lambda: MatrixStatistic("s", "2*I"))


GOOD = """
name = "mine"
update = "inv_root(L + damping*I, 4)*M"
[hypers]
damping = 0.01
beta2 = 0.9
[states.L]
kind = "ema"
sample = "G*G.T"
of_mean = true
beta = "beta2"
[states.M]
kind = "fresh"
sample = "G"
"""


def test_a_file_says_the_same_as_the_objects(tmp_path):
    file = tmp_path / "rule.toml"
    file.write_text(GOOD)
    rule = load_rule(file)
    assert rule.states[0].statistic == MatrixStatistic("L", "G*G.T", of_mean=True)
    assert (rule.states[0].beta.name, rule.states[1].beta) == ("beta2", None)
    assert rule.update == MatrixRule.parse("inv_root(L + damping*I, 4)*M").update
    assert rule.hypers[0].name == DAMPING.name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('update = "inv_root(L', 'update = "inv_rot(L', "inv_rot"),
        ('sample = "G*G.T"', 'sample = "G*L"', "must be in G"),
        ('sample = "G*G.T"', 'sample = "G.__class__"', "__class__"),
        ("of_mean = true", "of_mean = 1", "true or false"),
        ("of_mean = true", "outer = 'mean**2'", "unknown key"),
        ('beta = "beta2"', 'beta = "beta3"', "must name one of"),
        ('kind = "fresh"', 'kind = "often"', "is not known"),
        ('kind = "fresh"', 'kind = "fresh"\nbeta = "beta2"', "no meaning"),
        ("[states.M]", "[states.m]", "'m' is not allowed"),
        ("[states.M]", "[states.N]", "uses the matrix M"),
        ("damping = 0.01", "damping = 0.01\nidle = 1.0", "idle occurs neither"),
        ("damping = 0.01", 'damping = "x"', "must be a number"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(tmp_path, old, new, message):
    file = tmp_path / "rule.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises((RuleError, ParseError), match=message) as caught:
        load_rule(file)
    assert "rule.toml" in str(caught.value)


def test_upper_case_makes_it_a_matrix_rule():
    assert isinstance(resolve_rule("inv_sqrt(L)*M"), MatrixRule)
    assert not isinstance(resolve_rule("g/(sqrt(v)+eps)"), MatrixRule)
    with pytest.raises(RuleError, match="Did you mean 'shampoo'"):
        resolve_rule("Shampoo")
