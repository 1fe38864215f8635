"""Remainders of one step, exact: every sample of a finite law goes through the evaluator.

The small parameter is 1/m, not the spread of the law. Two laws, mildly skewed, so that the
leading coefficients of what is left neither vanish nor drown in the next ones: a cancellation
would show a *higher* order than is claimed. Everything runs on 50-digit numbers, except pairs of
groups (cross-fitting), whose hundred thousands of samples run in float64, and rules with a clip:
there the smallest remainders are 1e-8 and rounding 1e-16.
"""

from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np

from deltabias.correction import STRATEGIES, Correction, correct
from deltabias.errors import StrategyError
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.parser import clip
from deltabias.rule import UpdateRule
from deltabias.rules import get_rule
from deltabias.truth import (
    Discrete,
    FiniteLaw,
    Sample,
    TwoPoint,
    enumerate_samples,
    expectation,
)
from validation.expansion import Observed, Setting, as_mpf, bias_by_power, population_update
from validation.slopes import Slope, slope

DIGITS = 50
EPS = Fraction(1, 5)

LAWS: dict[str, FiniteLaw] = {
    "two_point": TwoPoint(Fraction(9, 10), Fraction(6, 5), Fraction(1, 4)),
    "skewed": Discrete([Fraction(9, 10), 1, Fraction(13, 10)], ["0.5", "0.3", "0.2"]),
}
SIZES = {"two_point": (64, 128, 256), "skewed": (12, 24, 48)}
"""Microbatches m for each law."""
GROUP_SIZES = {"two_point": (32, 64, 128), "skewed": (8, 16, 32)}
"""Microbatches in each of the two groups of cross-fitting."""

STRINGS = {
    "string g/(sqrt(v)+eps)": "g/(sqrt(v)+eps)",
    "string g*v**(-1/4)": "g*v**(-1/4)",
    "string g*v**(-1/3)": "g*v**(-1/3)",
    "string v**(-1/2)": "v**(-1/2)",
}
CATALOGUE = (
    "inverse", "inverse_sqrt", "sophia", "sophia_g", "adagrad",
    "adam", "adam_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares",
)  # fmt: skip
RULES = (*CATALOGUE, *STRINGS)
SMOOTH_SOPHIA = {"rho": 10}
"""Floor and clip are far away there; elsewhere eps takes part."""


def rule_of(name: str) -> UpdateRule:
    return UpdateRule.parse(STRINGS[name], name="custom") if name in STRINGS else get_rule(name)


def hypers_of(rule: UpdateRule) -> dict[str, Fraction | int]:
    if any(h.name == "rho" for h in rule.all_hypers):
        return SMOOTH_SOPHIA
    return {"eps": EPS} if any(h.name == "eps" for h in rule.all_hypers) else {}


def observed(rule: UpdateRule, law: FiniteLaw) -> Observed:
    """Opaque numerators are x, opaque preconditioners x²: both out of the same microbatch."""
    opaque = [s for s in rule.states if s.statistic.opaque]
    return Observed(
        law,
        {s.name: (lambda x: x * x) if s.statistic.positive else (lambda x: x) for s in opaque},
    )


def has_memory(rule: UpdateRule) -> bool:
    return any(s.weights.decay != 0 for s in rule.states)


def claimed_order(rule: UpdateRule, correction: Correction) -> int | None:
    """The order that is claimed of a *first* step; None where trust is withdrawn there.

    A tracked correction of a rule with memory starts at the plug-in update (`warm` is 0 at
    t = 1). Fresh states and strategies within the step have no such factor.
    """
    if correction.folds is None and correction.terms and has_memory(rule):
        return None
    return correction.claim.order


# -- expectations ---------------------------------------------------------------------------------


def microbatches_of(rule: UpdateRule, law: Observed, x: np.ndarray, counts: np.ndarray):
    values = {name: f(x) for name, f in law.functions.items()}
    # labels drawn from the model are independent of the gradient, and the update is linear in
    # that: it is held at its mean, and only the labels' gradient y is random
    free = {s.statistic.observation.name for s in rule.states if s.statistic.observation}
    for name in free:
        held = name == "x" and "y" in free
        values[name] = 0 * x + type(x.flat[0])(as_mpf(law.law.mean)) if held else x
    return Microbatches(values, counts)


def expected_update(rule: UpdateRule, correction: Correction, law: FiniteLaw, m: int):
    """E of the corrected first step over m microbatches, exact to 50 digits or to rounding."""
    if correction.folds is not None and correction.folds.kind == "cross_fit":
        return _in_float64(rule, correction, law, m // 2, groups=2)
    if rule.update.has(clip):  # the evaluator has no clip on mpmath numbers
        return _in_float64(rule, correction, law, m, groups=1)
    hypers = {k: as_mpf(v) for k, v in hypers_of(rule).items()}
    evaluator = Evaluator(correction, hypers, "mpmath")
    shown = observed(rule, law)

    def update(sample: Sample) -> mpmath.mpf:
        x = np.array([value for value, _ in sample], dtype=object)
        counts = np.array([count for _, count in sample])
        evaluator.reset()
        return evaluator(microbatches_of(rule, shown, x, counts))

    return expectation(update, law, m, DIGITS)


CHUNK = 50_000


def _in_float64(
    rule: UpdateRule, correction: Correction, law: FiniteLaw, size: int, *, groups: int
) -> mpmath.mpf:
    """The same over every sample, or every pair of samples, a row of an array each."""
    hypers = {k: float(v) for k, v in hypers_of(rule).items()}
    evaluator = Evaluator(correction, hypers)
    shown = observed(rule, law)
    pairs = list(enumerate_samples(law, size))
    points = np.array([float(x) for x in law.points])
    samples = np.array([np.repeat(points, counts) for counts, _ in pairs])
    weights = np.array([float(w) for _, w in pairs])
    others, other_weights = (samples, weights) if groups == 2 else (None, np.ones(1))
    ones, total = np.ones(size), 0.0
    rows = max(1, CHUNK // len(other_weights))
    for first in range(0, len(weights), rows):
        chosen = slice(first, first + rows)
        parts = [np.repeat(samples[chosen], len(other_weights), axis=0)]
        if groups == 2:
            parts.append(np.tile(others, (len(weights[chosen]), 1)))
        evaluator.reset()
        update = evaluator(*(microbatches_of(rule, shown, x, ones) for x in parts))
        total += weights[chosen] @ update.reshape(-1, len(other_weights)) @ other_weights
    return mpmath.mpf(float(total))


def preconditioner_size(correction: Correction, m: int) -> int:
    """Microbatches behind the preconditioner: a square of their mean has its own target."""
    if correction.folds is None or correction.folds.kind == "jackknife":
        return m
    return m - 1 if correction.folds.kind == "leave_one_out" else m // 2


# -- slopes ---------------------------------------------------------------------------------------


def strategy_slope(rule_name: str, law_name: str, strategy: str) -> dict | None:
    """One line: the slope of what a strategy leaves; None where it does not apply."""
    rule, law = rule_of(rule_name), LAWS[law_name]
    try:
        correction = correct(rule, strategy)
    except StrategyError:
        return None
    cross = correction.folds is not None and correction.folds.kind == "cross_fit"
    sizes = [2 * g for g in GROUP_SIZES[law_name]] if cross else SIZES[law_name]
    remainders = []
    with mpmath.workdps(DIGITS):
        for m in sizes:
            expected = expected_update(rule, correction, law, m)
            setting = Setting(1, preconditioner_size(correction, m), hypers_of(rule))
            remainders.append(expected - population_update(rule, observed(rule, law), setting))
        found = slope([1 / m for m in sizes], remainders)
    return line(rule_name, law_name, strategy, claimed_order(rule, correction), found)


def expansion_slopes(
    rule_name: str, law_name: str, *, plant: Callable[[list], list] = list
) -> list[dict]:
    """Two lines: what is left of the plug-in bias after order 1, and after order 2.

    Exact cumulants of the law, nothing estimated. `plant` may spoil the contributions.
    """
    rule, law = rule_of(rule_name), LAWS[law_name]
    correction, shown = correct(rule, "plug_in"), observed(rule, law)
    left: list[list] = [[], []]
    with mpmath.workdps(DIGITS):
        for m in SIZES[law_name]:
            setting = Setting(1, m, hypers_of(rule))
            bias = expected_update(rule, correction, law, m)
            bias -= population_update(rule, shown, setting)
            parts = plant(bias_by_power(rule, 2, shown, setting))
            left[0].append(bias - parts[0])
            left[1].append(bias - parts[0] - parts[1])
        slopes = [slope([1 / m for m in SIZES[law_name]], values) for values in left]
    return [
        line(rule_name, law_name, f"expansion of order {k}", k + 1, found)
        for k, found in enumerate(slopes, start=1)
    ]


def line(rule: str, law: str, what: str, claimed: int | None, found: Slope) -> dict:
    """A slope as a line of a table."""
    return {
        "rule": rule,
        "law": law,
        "strategy": what,
        "claimed": claimed,
        "slope": found.extrapolated,
        "last_local_slope": found.last,
        "small": list(found.small),
        "remainders": [float(r) for r in found.remainders],
    }


def all_tasks() -> list[tuple[str, str, str]]:
    """Every rule, law and strategy, the expansion included."""
    return [
        (rule, law, what) for rule in RULES for law in LAWS for what in (*STRATEGIES, "expansion")
    ]


def run_task(rule: str, law: str, what: str) -> list[dict]:
    """The lines of one task."""
    if what == "expansion":
        return expansion_slopes(rule, law)
    found = strategy_slope(rule, law, what)
    return [] if found is None else [found]
