"""The catalogue: each rule says the update it is named after, and which statistic feeds it."""

import inspect
from itertools import combinations

import pytest
import sympy as sp

from deltabias import rules
from deltabias.calculus.cumulants import KAPPA
from deltabias.derivation import MICROBATCHES, derive
from deltabias.errors import RuleError
from deltabias.rule import LABEL_GRADIENT, Ema, Total
from deltabias.rules import CATALOGUE, get_rule

MU, VARIANCE = KAPPA(1), KAPPA(2)
M = MICROBATCHES

# name: what is computed at g = 6, preconditioner 4, every hyperparameter 2
UPDATES = {
    "inverse": sp.Rational(6, 4),
    "inverse_sqrt": sp.Rational(6, 2),
    "rmsprop": sp.Rational(6, 2 + 2),
    "rmsprop_mean_of_squares": sp.Rational(6, 2 + 2),
    "adam": sp.Rational(6, 2 + 2),
    "adam_mean_of_squares": sp.Rational(6, 2 + 2),
    "adamw": sp.Rational(6, 2 + 2),
    "adamw_mean_of_squares": sp.Rational(6, 2 + 2),
    "sophia": sp.Rational(6, 8),
    "sophia_g": sp.Rational(6, 8),
    "adagrad": sp.Rational(6, 2 + 2),
}


def test_the_catalogue_is_complete_and_keyed_by_name():
    assert set(CATALOGUE) == set(UPDATES)
    assert all(name == rule.name for name, rule in CATALOGUE.items())


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_rule_computes_the_update_it_is_named_after(name):
    rule = get_rule(name)
    smooth = derive(rule).smooth
    first, second = rule.symbols
    point = {first: 6, second: 4, **{h.symbol: 2 for h in rule.hypers}}
    assert smooth.subs(point) == UPDATES[name]
    # the control: eps inside the root would be another number
    if "sqrt" in str(rule):
        inside = first / sp.sqrt(second + 2)
        assert inside.subs(point) != UPDATES[name]


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_both_conventions_are_there_and_are_different_rules(name):
    of_mean, of_squares = get_rule(name), get_rule(f"{name}_mean_of_squares")
    assert of_mean != of_squares
    assert of_mean.update == of_squares.update  # the map is the same, the statistic is not
    v = of_mean.symbols[1]
    targets = [derive(r).means(sp.oo)[v] for r in (of_mean, of_squares)]
    assert sp.expand(targets[0] - MU**2 - VARIANCE / M) == 0
    assert sp.expand(targets[1] - MU**2 - VARIANCE) == 0


def test_no_two_rules_are_equal():
    assert all(a != b for a, b in combinations(CATALOGUE.values(), 2))


def test_adam_is_debiased_and_rmsprop_and_sophia_are_not():
    assert all(s.debias for s in get_rule("adamw").states)
    assert not get_rule("rmsprop").states[1].debias
    assert not any(s.debias for s in get_rule("sophia").states)


def test_adagrad_never_forgets():
    state = get_rule("adagrad").states[1]
    assert isinstance(state, Total)
    assert not isinstance(state, Ema)


def test_the_published_sophia_estimates_curvature_from_other_labels():
    assert get_rule("sophia_g").states[1].statistic.observation == LABEL_GRADIENT
    assert get_rule("sophia").states[1].statistic.opaque


def test_defaults_are_those_of_torch_and_of_the_papers():
    def defaults(name):
        return {h.name: h.default for h in get_rule(name).all_hypers}

    assert defaults("adamw") == {"eps": 1e-8, "beta1": 0.9, "beta2": 0.999}
    assert defaults("rmsprop") == {"eps": 1e-8, "alpha": 0.99}
    assert defaults("adagrad") == {"eps": 1e-10}
    assert defaults("sophia_g") == {"rho": 0.04, "eps": 1e-15, "beta1": 0.965, "beta2": 0.99}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_rule_has_a_title_for_people(name):
    assert get_rule(name).title


# by name: pytest puts modules of its own among those of a package that has a plugin
PAGES = [
    m for _, m in inspect.getmembers(rules, inspect.ismodule) if m.__name__.startswith("deltabias.")
]


def test_every_page_is_looked_at():
    assert len(PAGES) >= 10


@pytest.mark.parametrize("module", PAGES, ids=lambda m: m.__name__)
def test_each_page_of_the_catalogue_writes_its_mathematics(module):
    assert ".. math::" in module.__doc__
    assert all(f"``{rule.name.removesuffix('_mean_of_squares')}``" in module.__doc__
               for rule in module.RULES)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamm", "no rule 'adamm'; the catalogue has inverse, .*Did you mean 'adam'?"),
        ("zzz", "no rule 'zzz'; the catalogue has .*adagrad, .*muon_polar.$"),
        ("Adam", "no rule 'Adam'"),
        ("", "no rule ''"),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_there_are(name, message):
    with pytest.raises(RuleError, match=message):
        get_rule(name)
