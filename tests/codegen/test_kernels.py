"""Which programs a rule has, and what they take."""

from functools import cache

import pytest

from deltabias.codegen.kernels import (
    STEP_STRATEGIES,
    filling,
    has_step,
    rule_programs,
    update_program,
)
from deltabias.codegen.ssa import Mutate
from deltabias.derivation import derive
from deltabias.rule import BETA1, BETA2, EPS, MEAN_GRADIENT, MEAN_OF_SQUARES, Ema, UpdateRule
from deltabias.rules import CATALOGUE, get_rule
from deltabias.safe_form import kernel


@cache
def programs_of(name):
    return rule_programs(get_rule(name))


@pytest.mark.parametrize(
    ("name", "step"),
    [("adamw", True), ("rmsprop", True), ("sophia_g", True), ("adamw_mean_of_squares", True),
     ("inverse", False), ("inverse_sqrt", False), ("sophia", False), ("adagrad", False)],
)  # fmt: skip
def test_a_step_needs_known_statistics_and_an_average(name, step):
    assert has_step(get_rule(name)) == step
    assert bool(programs_of(name).steps) == step


@pytest.mark.parametrize(
    ("update", "step"),
    [("m/(v**(1/3)+eps)", True), ("m/(log(1+v)+eps)", False), ("m*tanh(1/v)", False)],
)
def test_a_step_needs_a_corrected_form_that_is_a_quotient(update, step):
    states = (Ema("m", MEAN_GRADIENT, BETA1), Ema("v", MEAN_OF_SQUARES, BETA2))
    rule = UpdateRule("own", update, states, (EPS,) if "eps" in update else ())
    assert has_step(rule) == step
    programs = rule_programs(rule)
    assert bool(programs.steps) == step
    assert len(programs.updates) == 2


def test_a_filling_function_writes_its_result_and_nothing_else():
    pure = programs_of("adamw").updates[1]
    filled = filling(pure)
    assert filled.tensors == ("update", *pure.tensors)
    assert [s.target for s in filled.statements if isinstance(s, Mutate)] == ["update"]
    assert filled.unread() == {"update"}
    assert not filled.results


@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares"])
def test_there_is_a_step_and_its_scalars_for_each_strategy_that_applies(name):
    programs = programs_of(name)
    wanted = [s for s in STEP_STRATEGIES if s != "closed_form" or name == "adamw"]
    assert [p.name for p in programs.steps] == [f"step_{s}" for s in wanted]
    assert [p.name for p in programs.scalars] == [f"scalars_{s}" for s in wanted]


def test_statistics_that_come_at_another_time_have_a_function_of_their_own():
    names = [p.name for p in programs_of("sophia_g").steps]
    assert [n for n in names if n.endswith("delta")] == ["step_observe_delta", "step_apply_delta"]


@pytest.mark.parametrize("name", CATALOGUE)
def test_updates_are_pure_and_take_states_moments_and_hyperparameters(name):
    rule = get_rule(name)
    plug_in, corrected = programs_of(name).updates
    states = tuple(s.name for s in rule.states)
    assert (plug_in.name, plug_in.tensors) == ("plug_in_update", states)
    moments = tuple(m.name for m in kernel(derive(rule)).moments)
    assert (corrected.name, corrected.tensors) == ("corrected_update", states + moments)
    for program in (plug_in, corrected):
        assert not any(isinstance(s, Mutate) for s in program.statements)
        assert set(program.scalars) <= {h.name for h in rule.hypers}
        assert program.doc


def test_steps_update_in_place_and_return_nothing():
    for program in programs_of("adamw").steps:
        changed = {s.target for s in program.statements if isinstance(s, Mutate)}
        assert changed <= set(program.tensors)
        assert {"param", "exp_avg", "exp_avg_sq"} <= changed
        assert not {"grad", "c2", "c3", "unit_of_c"} & changed
        assert program.results == ()


def test_a_plug_in_step_keeps_nothing_more_than_torch_does():
    (plug_in, *_) = programs_of("adamw").steps
    assert plug_in.tensors == ("param", "grad", "exp_avg", "exp_avg_sq")


def test_hyperparameters_that_the_update_does_not_read_are_no_arguments():
    rule = UpdateRule.parse("g/(v+eps)")
    program = update_program(rule, kernel(derive(rule)), corrected=False)
    assert program.scalars == ("eps",)
    assert update_program(get_rule("inverse"), kernel(derive(get_rule("inverse")))).scalars == ()
