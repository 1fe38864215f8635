"""What a step rule is, where it comes from, and what is refused."""

import pytest
import sympy as sp

from deltabias.errors import ParseError, RuleError
from deltabias.rules import get_rule
from deltabias.verify.hyper_range import usual_range
from deltabias.verify.step_rule import StepRule, parse_step_expression, where
from deltabias.verify.step_rule_file import (
    from_update_rule,
    load_step_rule,
    resolve_step_rule,
)
from deltabias.verify.torch_rules import STEP_RULES

HEAVY_BALL = ["buf = momentum*buf + grad", "param = param - lr*buf"]


def test_a_name_read_before_it_is_assigned_is_a_state():
    rule = StepRule("r", ["a = grad**2", "b = b + a", "param = param - lr*b"])
    assert rule.states == ("b",)


def test_everything_else_that_is_read_is_a_hyperparameter():
    assert StepRule("heavy_ball", HEAVY_BALL).hyper_names == ("momentum", "lr")


def test_where_takes_its_first_branch_above_zero():
    x = sp.Symbol("x", real=True)
    expression = parse_step_expression("where(x - 5, x, where(x, 2, 3))")
    assert expression == where(x - 5, x, where(x, 2, 3))
    assert [expression.subs(x, v) for v in (6, 5, 0)] == [6, 2, 3]


@pytest.mark.parametrize(
    ("steps", "error", "text"),
    [
        (["a = grad"], RuleError, "never assigns 'param'"),
        (["param = param - foo*grad"], RuleError, "unknown name 'foo'"),
        (["param - lr*grad"], ParseError, "not an assignment"),
        (["param = __import__('os')"], ParseError, "not accepted"),
        (["param = where(grad, 1)"], ParseError, "3 arguments"),
        (["t = 1", "param = param - lr*grad"], RuleError, "cannot"),
        (["lr = 1", "param = param"], RuleError, "hyperparameter|cannot|never"),
        ([], RuleError, "1 to 40"),
        (3, RuleError, "1 to 40"),
    ],
)
def test_a_bad_rule_says_what_is_wrong(steps, error, text):
    with pytest.raises(error, match=text):
        StepRule("r", steps, {"lr": 0.1} if "lr = 1" in str(steps) else ())


def test_initial_values_are_for_states_alone():
    with pytest.raises(RuleError, match="no state"):
        StepRule("r", HEAVY_BALL, initial={"velocity": 1})


def test_an_unread_hyperparameter_is_refused():
    with pytest.raises(RuleError, match="never reads"):
        StepRule("r", HEAVY_BALL, {"eps": 1e-8})


def test_a_rule_comes_from_a_toml_file(tmp_path):
    path = tmp_path / "rule.toml"
    path.write_text(
        'name = "mine"\nsteps = ["buf = kappa*buf + grad", "param = param - lr*buf"]\n'
        '[hypers]\nkappa = {default = 0.9, low = 0.2, high = 0.8, argument = "momentum"}\n'
        '[initial]\nbuf = "1/2"\n'
    )
    rule = load_step_rule(path)
    assert rule.hyper("kappa").names == ("momentum", "kappa")
    assert rule.initial == {"buf": sp.Rational(1, 2)}
    assert resolve_step_rule(str(path)) == rule


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("steps = 3", "1 to 40"),
        ("nonsense", "not a TOML"),
        ('name = "x"', "no 'steps'"),
        ('steps = ["param = param"]\nstep = 1', "unknown key"),
        ('steps = ["param = param - k*grad"]\n[hypers]\nk = "a"', "must be a number"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, text):
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises((RuleError, ParseError), match=text) as caught:
        load_step_rule(path)
    assert str(path) in str(caught.value)


def test_a_string_is_read_as_assignments():
    assert resolve_step_rule("; ".join(HEAVY_BALL)).states == ("buf",)


def test_a_catalogue_rule_becomes_a_step():
    rule = from_update_rule(get_rule("adamw"), weight_decay="decoupled")
    expected = STEP_RULES["adamw"]
    assert dict(rule.steps)["exp_avg_sq"] == dict(expected.steps)["exp_avg_sq"]
    assert "weight_decay" in rule.hyper_names


@pytest.mark.parametrize("name", ["sophia", "sophia_g", "inverse"])
def test_a_statistic_that_is_no_function_of_the_gradient_is_refused(name):
    with pytest.raises(RuleError, match="no function of the gradient"):
        resolve_step_rule(name)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("adamv", "Did you mean 'adamw'|Did you mean 'adam"),
        ("g/(sqrt(v)+eps)", "how its states are fed"),
        (3, "no rule"),
        (None, "no rule"),
    ],
)
def test_what_is_no_step_rule_is_refused(rule, text):
    with pytest.raises(RuleError, match=text):
        resolve_step_rule(rule)


def test_a_fraction_stays_one_when_it_is_drawn():
    assert usual_range("kappa", 0.5).high < 1
