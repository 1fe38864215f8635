"""Strategies: which applies to which rule, what it claims and costs, and what it never changes."""

from functools import cache

import numpy as np
import pytest

from deltabias.correction import STRATEGIES, correct
from deltabias.errors import DeltabiasError, StrategyError
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rule import (
    GRADIENT,
    MEAN,
    MEAN_GRADIENT,
    MEAN_OF_SQUARES,
    SQUARE_OF_MEAN,
    Ema,
    Fresh,
    Statistic,
    UpdateRule,
)
from deltabias.rules import CATALOGUE, get_rule

SQUARE_RULES = ("rmsprop", "adam", "adamw", "sophia_g", "adagrad")
NO_JACKKNIFE = {(name, "jackknife") for name in SQUARE_RULES}
NO_CLOSED_FORM = {(name, "closed_form") for name in CATALOGUE if name not in SQUARE_RULES}
REFUSED = NO_JACKKNIFE | NO_CLOSED_FORM
PAIRS = [(name, s) for name in CATALOGUE for s in STRATEGIES]
APPLIES = [pair for pair in PAIRS if pair not in REFUSED]


@cache
def correction(name, strategy):
    return correct(get_rule(name), strategy)


@pytest.mark.parametrize(("name", "strategy"), sorted(REFUSED))
def test_a_strategy_that_does_not_apply_says_why_and_what_to_use(name, strategy):
    with pytest.raises(StrategyError) as caught:
        correct(get_rule(name), strategy)
    text = str(caught.value)
    assert f"rule {name!r}" in text
    assert "Use strategy='delta'." in text
    assert ("square of a mean, whose bias does not fall like 1/m" in text) == (
        strategy == "jackknife"
    )


@pytest.mark.parametrize(("name", "strategy"), APPLIES)
def test_a_correction_never_changes_the_rule_or_its_statistic(name, strategy):
    found = correction(name, strategy)
    rule = get_rule(name)
    assert found.rule is rule
    assert found.derivation.rule is rule
    assert found.kernel.derivation.smooth == correction(name, "plug_in").derivation.smooth
    assert [s.statistic for s in found.rule.states] == [s.statistic for s in rule.states]


def steady_updates(name, strategy, microbatches):
    """Updates on microbatches without any noise: what is left is the map of the statistic."""
    rule, evaluator = get_rule(name), Evaluator(correction(name, strategy))
    updates = []
    for size in (3e-3, -1e-3, 2e-3):  # inside the clip of sophia
        values = {"x": size, "y": 2.0, "g": size, "h": 2.0, "v": 2.0, "exp_avg": size,
                  "hessian": 2.0}  # fmt: skip
        batch = Microbatches(
            {k: np.full(microbatches, v) for k, v in values.items()},
            np.ones(microbatches, dtype=int),
        )
        groups = [batch, batch] if strategy.startswith("cross_fit") else [batch]
        updates.append(float(evaluator(*groups)))
    assert len(rule.states) == 2
    return updates


@pytest.mark.parametrize(("name", "strategy"), APPLIES)
def test_without_noise_every_strategy_has_the_target_of_the_plug_in_update(name, strategy):
    found = steady_updates(name, strategy, 4)
    target = steady_updates(name, "plug_in", 4)
    assert found == pytest.approx(target, rel=1e-12)
    # the control: feeding the mean of squares over m would have another target altogether
    assert [u * 2 for u in target] != pytest.approx(found, rel=1e-3)


CLAIMS = {
    # strategy: (order of what is left, scope, passes)
    "plug_in": (1, "trajectory", 1),
    "delta": (2, "trajectory", 1),
    "inversion": (1, "trajectory", 1),
    "cross_fit": (1, "step", 1),
    "cross_fit+delta": (2, "step", 1),
    "leave_one_out": (1, "step", 2),
    "leave_one_out+delta": (2, "step", 2),
    "jackknife": (2, "step", 2),
    "closed_form": (2, "trajectory", 1),
}


def test_every_strategy_has_a_claim():
    assert set(CLAIMS) == set(STRATEGIES)


@pytest.mark.parametrize(("name", "strategy"), APPLIES)
def test_claims_and_passes_are_those_of_the_design(name, strategy):
    found = correction(name, strategy)
    assert (found.claim.order, found.claim.scope, found.cost.passes) == CLAIMS[strategy]
    assert found.claim.domain == found.derivation.domain


@pytest.mark.parametrize(
    ("name", "strategy", "terms", "folds"),
    [
        ("adamw", "plug_in", (), None),
        ("adamw", "delta", ("coupling", "inversion"), None),
        ("adamw", "inversion", ("inversion",), None),
        ("adamw", "cross_fit", (), "cross_fit"),
        ("adamw", "cross_fit+delta", ("inversion",), "cross_fit"),
        ("adamw", "leave_one_out", (), "leave_one_out"),
        ("adamw", "leave_one_out+delta", ("inversion",), "leave_one_out"),
        ("adamw_mean_of_squares", "jackknife", (), "jackknife"),
        ("adamw", "closed_form", ("coupling", "inversion"), None),
    ],
)
def test_a_strategy_says_which_terms_it_removes_and_how_it_splits(name, strategy, terms, folds):
    found = correction(name, strategy)
    assert found.terms == terms
    assert (found.folds and found.folds.kind) == folds


@pytest.mark.parametrize(
    ("name", "strategy", "buffers"),
    [
        ("adamw", "plug_in", 0),
        ("adamw", "delta", 3),
        ("adamw", "closed_form", 1),
        ("adamw_mean_of_squares", "delta", 2),
        ("rmsprop_mean_of_squares", "delta", 1),  # a fresh gradient's covariance has no memory
        ("inverse", "delta", 0),
        ("adamw", "cross_fit", 2),
        ("adamw_mean_of_squares", "jackknife", 0),
    ],
)
def test_costs_count_the_tensors_kept_in_fp32(name, strategy, buffers):
    cost = correction(name, strategy).cost
    assert cost.buffers == buffers
    assert cost.bytes_per_parameter == 4 * buffers
    assert cost.peak_bytes_per_parameter == 4 * (buffers + cost.sums)


def test_assumptions_are_said():
    assert correction("adamw", "closed_form").claim.assumes == (
        "gradients stationary over the memory of the averages",
        "gradient noise is normal",
    )
    assert "independent and identically" in correction("inverse", "delta").claim.assumes[0]
    assert correction("adamw", "plug_in").claim.assumes == ()


def test_an_inversion_alone_is_complete_where_there_is_no_numerator():
    rule = UpdateRule.parse("1/v")
    assert correct(rule, "inversion").claim.order == 2
    assert correction("inverse", "inversion").claim.order == 1


def test_the_definitions_of_a_correction_can_be_evaluated_in_their_order():
    found = correction("adamw", "delta")
    known = {s.name for s in found.rule.symbols} | {h.name for h in found.rule.all_hypers}
    known |= {d.name for d in found.tracking.scalars} | {"root_mean_square"}
    known |= {a.name for a in found.tracking.accumulators}
    for d in found.definitions:
        assert {s.name for s in d.expression.free_symbols} <= known, d.name
        known.add(d.name)
    assert found.definitions[-1].name == "update"


@pytest.mark.parametrize("strategy", ["", "adam", "Delta", "crossfit", None])
def test_an_unknown_strategy_is_refused_with_the_ones_there_are(strategy):
    with pytest.raises(StrategyError) as caught:
        correct(get_rule("adam"), strategy)
    assert f"{strategy=} is not known; use one of {', '.join(STRATEGIES)}." in str(caught.value)


@pytest.mark.parametrize("groups", [1, 0, -2])
def test_fewer_than_two_groups_cannot_be_cross_fitted(groups):
    with pytest.raises(StrategyError, match=f"groups={groups} cannot be cross-fitted; need at"):
        correct(get_rule("adam"), "cross_fit", groups=groups)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if "cross" in s or "leave" in s])
def test_a_rule_without_a_numerator_cannot_be_split(strategy):
    with pytest.raises(StrategyError, match="needs a numerator and a preconditioner to separate"):
        correct(UpdateRule.parse("1/v"), strategy)


# -- rules of a user's own: corrected rightly, or refused in words --------------------------------

QUARTIC = Statistic("quartic", GRADIENT**4, positive=True)
GRAD, SQUARES, SQUARED = (
    Ema("g", MEAN_GRADIENT), Ema("v", MEAN_OF_SQUARES), Ema("v", SQUARE_OF_MEAN)
)  # fmt: skip


def two(first, second, update="g/sqrt(v)"):
    return UpdateRule("own", update, (first, second))


# nothing estimates the moments of these: a claim of order 2 would be about another statistic
UNSUPPORTED = {
    "fourth power of a mean": (
        two(GRAD, Ema("v", Statistic("p", GRADIENT, outer=MEAN**4, positive=True))), "delta"
    ),
    "square of a mean of squares": (
        two(GRAD, Ema("v", Statistic("p", GRADIENT**2, outer=MEAN**2, positive=True))), "delta"
    ),
    "square of a mean on top": (
        two(Ema("g", Statistic("p", GRADIENT, outer=MEAN**2)), SQUARES), "delta"
    ),
    "opaque under a gradient": (
        two(GRAD, Ema("v", Statistic("v", positive=True))), "delta"
    ),
    "means of squares under something opaque": (
        two(Fresh("g", Statistic("g")), SQUARES), "delta"
    ),
    "three states that remember": (
        UpdateRule("own", "g/(sqrt(v)+sqrt(w))", (GRAD, SQUARED, Ema("w", SQUARE_OF_MEAN))),
        "delta",
    ),
    "three states of one step": (
        UpdateRule("own", "g/(sqrt(v)+w**(1/4))",
                   (Fresh("g", MEAN_GRADIENT), Fresh("v", MEAN_OF_SQUARES), Fresh("w", QUARTIC))),
        "delta",
    ),
    "two preconditioners, cross-fitted": (
        UpdateRule.parse("g/(sqrt(v)+sqrt(w))"), "cross_fit+delta"
    ),
    "a third power below": (
        two(GRAD, Ema("v", Statistic("p", GRADIENT**3)), "g/(1+v**2)"), "delta"
    ),
    "a square on top": (two(GRAD, SQUARES, "g**2/v"), "delta"),
    "nothing to correct": (UpdateRule.parse("2*g"), "delta"),
}  # fmt: skip


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_be_corrected_rightly_is_refused(what):
    rule, strategy = UNSUPPORTED[what]
    with pytest.raises(DeltabiasError):
        correct(rule, strategy)
