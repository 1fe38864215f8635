"""The interpreter: exact values, bounds that hold, and histories that are the same again."""

import mpmath
import numpy as np
import pytest

from deltabias.verify.histories import Group, History, Scope, draw_histories, search
from deltabias.verify.interpret import Quirks, make_adjust, run_rule
from deltabias.verify.step_rule import StepRule
from deltabias.verify.tape import compile_rule
from deltabias.verify.torch_rules import STEP_RULES


def history(hypers, grads, start=(1.5,)):
    return History(
        (Group(hypers, ((1,),), (start,)),),
        tuple(((g,),) if g is not None else (None,) for g in grads),
        ((1.0,),) * len(grads),
    )


def test_two_steps_of_momentum_are_what_a_hand_computes():
    rule = StepRule("r", ["buf = momentum*buf + grad", "param = param - lr*buf"])
    run = run_rule(rule, history({"lr": 0.5, "momentum": 0.25}, [2.0, 4.0]))
    assert [step[0][0] for step in run.values] == [0.5, 0.5 - 0.5 * (0.25 * 2 + 4)]


def test_adam_agrees_with_fifty_digits_written_by_hand():
    hypers = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 0.125, "weight_decay": 0.0,
              "maximize": 0, "amsgrad": 0}  # fmt: skip
    run = run_rule(STEP_RULES["adamw"], history(hypers, [3.0, -1.0]))
    with mpmath.workdps(50):
        b1, b2, lr, m, v, p = map(mpmath.mpf, (0.9, 0.99, 0.1, 0, 0, 1.5))
        for t, g in enumerate((3, -1), start=1):
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            p -= lr * (m / (1 - b1**t)) / (mpmath.sqrt(v / (1 - b2**t)) + 0.125)
        assert run.values[-1][0][0] == float(p)


@pytest.mark.parametrize("name", sorted(STEP_RULES))
def test_float64_stays_within_the_rounding_bound(name):
    rule = STEP_RULES[name]
    scope = Scope(rule.hypers, {}, frozenset(rule.hyper_names), adjust=make_adjust(rule))
    for drawn in draw_histories(scope, 12, seed=3):
        exact, rounded = run_rule(rule, drawn), run_rule(rule, drawn, exact=False)
        for values, bounds, floats in zip(exact.values, exact.bounds, rounded.values, strict=True):
            for value, bound, got in zip(values, bounds, floats, strict=True):
                known = np.isfinite(bound) & np.isfinite(value)
                assert np.all(np.abs(value - got)[known] <= bound[known])


def test_the_bound_is_infinite_where_rounding_decides_a_branch():
    rule = StepRule("r", ["param = where(lr*grad - 1/100, param, -param)"])
    assert np.isinf(run_rule(rule, history({"lr": 0.1}, [0.1])).bounds[0][0][0])


def test_what_is_undefined_is_not_compared():
    rule = StepRule("r", ["param = param - lr/grad"])
    assert np.isinf(run_rule(rule, history({"lr": 0.1}, [0.0])).bounds[0][0][0])


def test_a_parameter_without_a_gradient_stays_and_does_not_count():
    rule = StepRule("r", ["param = param - lr*t"])
    run = run_rule(rule, history({"lr": 1.0}, [1.0, None, 1.0]))
    assert [step[0][0] for step in run.values] == [0.5, 0.5, -1.5]
    zero = run_rule(rule, history({"lr": 1.0}, [1.0, None, 1.0]), quirks=Quirks(missing="zero"))
    assert zero.values[-1][0][0] == 1.5 - 6


def test_a_state_of_scalars_is_a_scalar():
    tape = compile_rule(STEP_RULES["nadam"])
    assert not tape.ops[tape.outputs["mu_product"]].array
    assert tape.ops[tape.outputs["exp_avg"]].array


def test_the_same_seed_draws_the_same_histories():
    rule = STEP_RULES["sgd"]
    scope = Scope(rule.hypers, {}, adjust=make_adjust(rule))
    assert draw_histories(scope, 5, seed=1) == draw_histories(scope, 5, seed=1)
    assert draw_histories(scope, 5, seed=1) != draw_histories(scope, 5, seed=2)


def test_histories_span_the_magnitudes_that_are_promised():
    rule = STEP_RULES["adamw"]
    scope = Scope(rule.hypers, {}, frozenset(rule.hyper_names), missing=True)
    drawn = draw_histories(scope, 60, seed=0)
    sizes = [abs(g) for h in drawn for step in h.grads for flat in step if flat for g in flat]
    assert min(s for s in sizes if s) < 1e-7
    assert max(sizes) > 1e3
    assert 0.0 in sizes
    assert {len(h.groups) for h in drawn} == {1, 2, 3}
    assert any(None in step for h in drawn for step in h.grads)
    assert () in {shape for h in drawn for shape in h.shapes}
    assert {h.steps for h in drawn} >= {1, 3, 12}


def test_the_search_finds_a_small_counterexample():
    rule = STEP_RULES["sgd"]
    scope = Scope(rule.hypers, {}, adjust=make_adjust(rule))
    found = search(scope, 0, lambda h: h.steps >= 3, shrinks=200)
    assert found.steps == 3
    assert len(found.groups) == 1
    assert search(scope, 0, lambda h: False, examples=5) is None
