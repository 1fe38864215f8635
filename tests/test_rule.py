"""The vocabulary: records that are frozen and refuse to contradict themselves, in clear words."""

from dataclasses import FrozenInstanceError, fields

import pytest
import sympy as sp

from deltabias.errors import ParseError, RuleError
from deltabias.parser import FUNCTIONS
from deltabias.rule import (
    BETA1,
    BETA2,
    EPS,
    GRADIENT,
    LABEL_GRADIENT,
    MEAN,
    MEAN_GRADIENT,
    MEAN_OF_SQUARES,
    SQUARE_OF_MEAN,
    Ema,
    Fresh,
    Hyper,
    Statistic,
    Total,
    UpdateRule,
)

STATES = (Fresh("g", MEAN_GRADIENT), Ema("v", SQUARE_OF_MEAN))


def rule(update="g/(sqrt(v)+eps)", states=STATES, hypers=(EPS,), name="mine"):
    return UpdateRule(name, update, states, hypers)


RECORDS = [EPS, MEAN_GRADIENT, *STATES, Total("s", SQUARE_OF_MEAN), rule()]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_records_are_frozen_and_equal_by_value(record):
    for field in fields(record):
        with pytest.raises(FrozenInstanceError):
            setattr(record, field.name, None)
    assert record == type(record)(**{f.name: getattr(record, f.name) for f in fields(record)})
    assert isinstance(hash(record), int)


# -- statistics ---------------------------------------------------------------------------------


def test_the_statistics_say_what_one_step_contributes():
    assert (MEAN_GRADIENT.sample, MEAN_GRADIENT.outer) == (GRADIENT, None)
    assert (SQUARE_OF_MEAN.sample, SQUARE_OF_MEAN.outer) == (GRADIENT, MEAN**2)
    assert (MEAN_OF_SQUARES.sample, MEAN_OF_SQUARES.outer) == (GRADIENT**2, None)
    assert SQUARE_OF_MEAN.positive
    assert MEAN_OF_SQUARES.positive
    assert not MEAN_GRADIENT.positive


def test_a_statistic_knows_what_it_is_observed_through():
    assert SQUARE_OF_MEAN.observation == GRADIENT
    assert Statistic("h", LABEL_GRADIENT**2).observation == LABEL_GRADIENT
    assert Statistic("h").observation is None
    assert Statistic("h").opaque
    assert not SQUARE_OF_MEAN.opaque


@pytest.mark.parametrize("sample", [GRADIENT, GRADIENT**3 - 2 * GRADIENT / 3, LABEL_GRADIENT**2])
def test_a_sample_is_any_polynomial_of_one_gradient(sample):
    assert Statistic("s", sample).sample == sample


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample": sp.sqrt(GRADIENT)}, r"sample=sqrt\(x\) must be a polynomial in x or y alone"),
        ({"sample": GRADIENT * LABEL_GRADIENT}, r"sample=x\*y must be a polynomial in x or y"),
        ({"sample": 1 / GRADIENT}, "sample=1/x must be a polynomial in x or y alone"),
        ({"sample": sp.Integer(3)}, "sample=3 must be a polynomial in x or y alone"),
        ({"sample": sp.Symbol("z")}, "sample=z must be a polynomial in x or y alone"),
        ({"sample": GRADIENT, "outer": sp.Abs(MEAN)},
         r"outer=Abs\(mean\) must be a polynomial in mean alone"),
        ({"sample": GRADIENT, "outer": GRADIENT}, "outer=x must be a polynomial in mean alone"),
        ({"outer": MEAN**2}, "'s' has an outer map of an unknown sample"),
    ],
)  # fmt: skip
def test_a_statistic_that_is_no_polynomial_is_refused(arguments, message):
    with pytest.raises(RuleError, match=message):
        Statistic("s", **arguments)


# -- names and hyperparameters ------------------------------------------------------------------

BAD_NAMES = ["", "G", "1g", "g v", "g-v", "_g", "é", "g.x", "g;import os", None, 3]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("statistic", Statistic),
        ("state", lambda name: Fresh(name, MEAN_GRADIENT)),
        ("state", lambda name: Ema(name, MEAN_GRADIENT)),
        ("hyperparameter", lambda name: Hyper(name, 0.5)),
        ("rule", lambda name: rule(name=name)),
    ],
    ids=["statistic", "fresh", "ema", "hyper", "rule"],
)
def test_a_name_that_is_no_lower_case_identifier_is_refused(kind, make, name):
    with pytest.raises(RuleError, match=f"{kind} name .* is not allowed; use lower-case letters"):
        make(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_names_of_functions_are_taken(name):
    with pytest.raises(RuleError, match=f"'{name}' is a function of the rule language; rename it"):
        Fresh(name, MEAN_GRADIENT)


@pytest.mark.parametrize("name", ["share", "t", "torch", "lambda", "microbatches", "old"])
def test_names_that_corrected_forms_and_python_use_are_taken(name):
    for make in (lambda: Fresh(name, MEAN_GRADIENT), lambda: Hyper(name, 0.5)):
        with pytest.raises(RuleError, match=f"'{name}' is used by corrected forms or by Python"):
            make()


@pytest.mark.parametrize(
    ("hyper", "value", "message"),
    [
        (EPS, -1e-8, r"eps=-1e-08 is outside \[0, inf\)"),
        (BETA1, 1.0, r"beta1=1.0 is outside \[0, 1\)"),
        (BETA2, -0.1, r"beta2=-0.1 is outside \[0, 1\)"),
        (BETA2, float("nan"), r"beta2=nan is outside \[0, 1\)"),
        (EPS, float("inf"), r"eps=inf is outside \[0, inf\)"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_with_the_range(hyper, value, message):
    with pytest.raises(RuleError, match=message):
        hyper.check(value)
    with pytest.raises(RuleError, match=message):  # a default is held to the same range
        Hyper(hyper.name, value, hyper.low, hyper.high)


def test_the_ends_of_a_range_are_low_included_and_high_excluded():
    assert BETA1.check(0.0) == 0.0
    assert BETA1.check(0.999999) == 0.999999
    assert EPS.check(0) == 0


# -- rules --------------------------------------------------------------------------------------


def test_a_rule_reads_its_string_with_the_assumptions_of_its_states():
    mine = rule()
    g, v, eps = sp.Symbol("g", real=True), sp.Symbol("v", positive=True), EPS.symbol
    assert mine.update == g / (sp.sqrt(v) + eps)
    assert mine.symbols == (g, v)
    assert str(mine) == "g/(sqrt(v)+eps)"


def test_a_rule_may_be_given_as_an_expression():
    expression = STATES[0].symbol / (sp.sqrt(STATES[1].symbol) + EPS.symbol)
    assert rule(expression) == rule()
    assert str(rule(expression)) == str(expression)


def test_hyperparameters_of_states_are_found_and_counted_once():
    states = (Ema("g", MEAN_GRADIENT, BETA1), Ema("v", SQUARE_OF_MEAN, BETA1))
    assert rule(states=states).all_hypers == (EPS, BETA1)
    assert rule().all_hypers == (EPS, BETA2)


def test_states_average_with_their_own_weights():
    beta = BETA2.symbol
    assert Fresh("a", MEAN_GRADIENT).weights.decay == 0
    assert Total("a", MEAN_GRADIENT).weights.decay == 1
    ema = Ema("a", MEAN_GRADIENT).weights
    assert (ema.decay, ema.gain, ema.debias) == (beta, 1 - beta, True)
    assert not Ema("a", MEAN_GRADIENT, debias=False).weights.debias


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"update": "g/(sqrt(w)+eps)"}, ParseError,
         "unknown symbol 'w' in rule 'mine'; known are g, v, eps"),
        ({"update": sp.Symbol("w") * STATES[0].symbol}, RuleError,
         r"uses w, which is neither a state \(g, v\) nor a hyperparameter \(eps\)"),
        ({"update": sp.Symbol("w") * STATES[0].symbol, "hypers": ()}, RuleError,
         r"nor a hyperparameter \(none\)"),
        ({"update": "eps"}, RuleError, "depends on no statistic: there is nothing random in it"),
        ({"update": "g - g + eps"}, RuleError, "depends on no statistic"),
        ({"states": (STATES[0], STATES[0], STATES[1])}, RuleError,
         "declares g more than once"),
        ({"hypers": (EPS, Hyper("g", 1.0))}, RuleError, "declares g more than once"),
    ],
)  # fmt: skip
def test_a_rule_that_contradicts_itself_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        rule(**arguments)


# -- rules from strings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "states", "hypers"),
    [
        ("g/(sqrt(v)+eps)", ["g", "v"], ["eps"]),
        ("g/h", ["g", "h"], []),
        ("eps_root*g/(sqrt(v+eps_root)+eps)", ["g", "v"], ["eps_root", "eps"]),
        ("beta*g + (1-beta)*h", ["g", "h"], ["beta"]),
        ("lr*g/(v+damping2)", ["g", "v"], ["lr", "damping2"]),
        ("epsilon*lr2*curl", ["lr2", "curl"], ["epsilon"]),
    ],
)
def test_lower_case_symbols_are_statistics_unless_they_are_named_like_hyperparameters(
    text, states, hypers
):
    found = UpdateRule.parse(text)
    assert [s.name for s in found.states] == states
    assert [h.name for h in found.hypers] == hypers
    assert all(s.statistic.opaque for s in found.states)


def test_declared_hyperparameters_keep_their_value_and_are_no_statistics():
    found = UpdateRule.parse("g/max(rho*h, eps)", hypers={"rho": 0.04})
    assert [s.name for s in found.states] == ["g", "h"]
    assert {h.name: h.default for h in found.hypers} == {"rho": 0.04, "eps": 1e-8}


def test_hyperparameters_of_a_string_have_sensible_ranges():
    ranges = {h.name: (h.default, h.high) for h in UpdateRule.parse("g*lr/(v+eps)**beta").hypers}
    assert ranges == {"lr": (1e-3, sp.oo), "eps": (1e-8, sp.oo), "beta": (0.9, 1.0)}


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("g/(sqrt(v)+eps)", {"v"}),
        ("g*v**(-1/3)", {"v"}),
        ("g*log(v)", {"v"}),
        ("g/(v+eps)", {"v"}),
        ("g/sqrt(v+w)", {"v", "w"}),
        ("g/v", set()),
        ("g*v**2", set()),
        ("g/(v+w)", set()),
        ("(g+eps)*v", set()),
    ],
)
def test_what_stands_under_a_root_a_logarithm_or_over_a_stabilizer_is_positive(text, positive):
    found = UpdateRule.parse(text)
    assert {s.name for s in found.states if s.statistic.positive} == positive
    assert {s.name for s in found.symbols if s.is_positive} == positive


@pytest.mark.parametrize(
    ("text", "hypers", "error", "message"),
    [
        ("G/sqrt(V)", {}, ParseError, "unknown symbol 'G': .* lower-case names such as g, v"),
        ("eps", {}, RuleError, "depends on no statistic"),
        ("3", {}, RuleError, "depends on no statistic"),
        ("g/h", {"rho": 1.0}, RuleError, "hyperparameter rho does not occur in 'g/h'"),
        ("g/(h+eps)", {"eps": -1.0}, RuleError, r"eps=-1.0 is outside \[0, inf\)"),
        ("g*beta", {"beta": 1.0}, RuleError, r"beta=1.0 is outside \[0, 1\)"),
        ("g/", {}, ParseError, "is not an expression"),
    ],
)
def test_a_string_that_is_no_rule_is_refused(text, hypers, error, message):
    with pytest.raises(error, match=message):
        UpdateRule.parse(text, hypers=hypers)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hyper("eps", "a"),
        lambda: Statistic("s", "x**2"),
        lambda: rule(5),
    ],
    ids=["hyper", "statistic", "update"],
)
def test_a_part_of_the_wrong_type_is_refused_in_the_same_words(make):
    with pytest.raises(RuleError):
        make()
