"""Remainders over a whole trajectory, exact: the Laplace integral, or every short history.

What is small is the averaging: 1 − β at a fixed ratio (1 − β₁)/(1 − β₂) = 2 and a history of 12
memories, 1/t for a running total, and 1/m for means of squares at fixed betas. Cumulants are the
law's own: this is the order of the *expansion*, with nothing estimated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np

from deltabias.correction import correct
from deltabias.evaluate import Evaluator
from deltabias.rule import UpdateRule
from deltabias.rules import get_rule
from deltabias.truth import (
    Law,
    Normal,
    TwoPoint,
    adam_update_mean_float64,
    ema_weights,
    expectation_over_history,
    skewed_discrete,
)
from validation import within_step
from validation.expansion import Observed, Setting, as_mpf, bias_by_power, population_update
from validation.slopes import slope
from validation.within_step import line

EPS = Fraction(1, 10)
LAWS: dict[str, Law] = {
    "normal": Normal(1, "3/2"),
    "two_point": TwoPoint(Fraction(1, 2), 2, Fraction(3, 10)),
    "skewed": skewed_discrete(1, "4/5", 1),
}
MEMORIES = 12
SHRINK = (16, 32, 64, 128)
"""1/(1 − β₂), or m, or t/4 in the order of shrinking small parameter."""

CASES = (
    ("adam", "1-beta"),
    ("adam_mean_of_squares", "1-beta"),
    ("adam_mean_of_squares", "1/m"),
    ("rmsprop", "1-beta"),
    ("rmsprop_mean_of_squares", "1-beta"),
    ("rmsprop_mean_of_squares", "1/m"),
    ("adagrad", "1/t"),
)
HISTORY_RULES = ("sophia", "sophia_g")
HISTORY_SIZES = {"two_point": (12, 24, 48), "skewed": (3, 6, 12)}
ORDERS = (0, 1, 2)


@dataclass(frozen=True)
class Point:
    """A setting, the averaging weights of both states there, and the small parameter."""

    small: float
    setting: Setting
    a: tuple
    b: tuple


def points(rule: UpdateRule, parameter: str) -> Iterator[Point]:
    """The settings along which `parameter` shrinks by two."""
    of_squares = rule.states[-1].statistic.outer is None
    for number in SHRINK:
        microbatches, steps, memory = (4 if of_squares else 2), MEMORIES * number, number
        if parameter == "1/m":
            microbatches, steps, memory = number // 2, 20, 20
        elif parameter == "1/t":
            steps = 4 * number
        slow = 1 - Fraction(1, memory)
        betas = {"beta1": 1 - 2 * (1 - slow), "beta2": slow, "alpha": slow}
        hypers = {h.name: betas.get(h.name, EPS) for h in rule.all_hypers}
        weights = (state_weights(s, hypers, steps) for s in rule.states)
        small = {"1/m": microbatches, "1/t": steps}.get(parameter, memory)
        yield Point(1 / small, Setting(steps, microbatches, hypers), *weights)


def state_weights(state, hypers, steps: int) -> tuple:
    """The weights of a state over its history, oldest first, from the truth's own function."""
    if state.weights.decay == 0:
        return (*[0] * (steps - 1), 1)
    if state.weights.decay == 1:
        return (1,) * steps
    return ema_weights(hypers[state.beta.name], steps, debias=state.debias)


def integral_lines(rule_name: str, parameter: str, law_name: str) -> list[dict]:
    """Slopes of what is left after orders 0, 1 and 2, against the Laplace integral."""
    rule, law = get_rule(rule_name), LAWS[law_name]
    of_squares = rule.states[-1].statistic.outer is None
    statistic = "mean_of_squares" if of_squares else "square_of_mean"
    small, left = [], []
    for point in points(rule, parameter):
        setting, shown = point.setting, Observed(law)
        exact = adam_update_mean_float64(
            law, point.a, point.b,
            statistic=statistic, microbatches=setting.microbatches, eps=EPS,
        )  # fmt: skip
        with mpmath.workdps(30):
            target = population_update(rule, shown, setting)
            parts = bias_by_power(rule, 2, shown, setting)
            bias = mpmath.mpf(exact.value) - target
            # relative to the target, which itself falls for a running total
            left.append([(bias - sum(parts[:k])) / target for k in ORDERS])
        small.append(point.small)
    return _lines(rule_name, f"{law_name}, {parameter}", small, left)


def history_lines(rule_name: str, law_name: str, steps: int = 2) -> list[dict]:
    """The same for rules without an integral: every history of two steps, in 1/m."""
    rule, law = get_rule(rule_name), within_step.LAWS[law_name]
    hypers = within_step.hypers_of(rule)
    numbers = {k: as_mpf(v) for k, v in hypers.items()}
    shown, left = within_step.observed(rule, law), []
    evaluator = Evaluator(correct(rule, "plug_in"), numbers, "mpmath")

    def update(history):
        evaluator.reset()
        for sample in history:
            x = np.array([value for value, _ in sample], dtype=object)
            counts = np.array([count for _, count in sample])
            found = evaluator(within_step.microbatches_of(rule, shown, x, counts))
        return found

    with mpmath.workdps(within_step.DIGITS):
        for m in HISTORY_SIZES[law_name]:
            setting = Setting(steps, m, hypers)
            bias = expectation_over_history(update, law, m, steps, within_step.DIGITS)
            bias -= population_update(rule, shown, setting)
            parts = bias_by_power(rule, 2, shown, setting)
            left.append([bias - sum(parts[:k]) for k in ORDERS])
        small = [1 / m for m in HISTORY_SIZES[law_name]]
        return _lines(rule_name, f"{law_name}, 1/m, t = {steps}", small, left)


def _lines(rule_name: str, where: str, small: list, left: list[list]) -> list[dict]:
    names = ("plug_in", "expansion of order 1", "expansion of order 2")
    return [
        line(rule_name, where, names[k], k + 1, slope(small, [row[k] for row in left]))
        for k in ORDERS
    ]


def all_tasks() -> list[tuple]:
    """(function, arguments…) of every rule, parameter and law."""
    integrals = [(integral_lines, r, p, law) for r, p in CASES for law in LAWS]
    histories = [(history_lines, r, law) for r in HISTORY_RULES for law in within_step.LAWS]
    return integrals + histories


def run_task(function, *arguments) -> list[dict]:
    return function(*arguments)
