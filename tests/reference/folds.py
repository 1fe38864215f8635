"""Slow twins of the strategies that split or resample a step's microbatches: lists and loops.

Each fold keeps its own history: numerators and preconditioners of past steps came from the same
places in the batch. `Fold` is (rows for the numerator, rows for the preconditioner).
"""

from collections.abc import Callable, Sequence
from math import sqrt

from tests.reference.adamw import Rule, central, corrected, dot, mean

Step = Sequence[float]


def split_update(
    tops: Sequence[Step], bottoms: Sequence[Step], rule: Rule, *, squares: bool, delta: bool
) -> float:
    """m̂ of one history over the root of v̂ of another; with `delta`, less the step's inversion."""
    w1, w2 = rule.weights(len(tops))
    m_hat = dot(w1, [mean(g) for g in reversed(tops)])
    contributions = [mean([x * x for x in g]) if squares else mean(g) ** 2 for g in bottoms]
    v_hat = dot(w2, list(reversed(contributions)))
    if not delta:
        return m_hat / (sqrt(v_hat) + rule.eps)
    variance = w2[0] ** 2 * variance_of_contribution(bottoms[-1], squares=squares)
    return corrected(m_hat, v_hat, rule.eps, 0.0, variance)


def variance_of_contribution(g: Step, *, squares: bool) -> float:
    """Of p₂: (p₄ - p₂²)/(m-1). Of ḡ²: 4 ḡ² ν - 2 ν² (m-1)/(m+1), unbiased for normal noise."""
    m = len(g)
    if squares:
        return (mean([x**4 for x in g]) - mean([x * x for x in g]) ** 2) / (m - 1)
    nu = central(g, 2) / (m - 1)
    return 4 * mean(g) ** 2 * nu - 2 * nu**2 * (m - 1) / (m + 1)


def cross_fit(history: Sequence[Step], groups: int, rule: Rule, **how) -> float:
    """Numerator from each group in turn, preconditioner from the others, averaged."""
    size = len(history[0]) // groups
    total = 0.0
    for j in range(groups):
        mine = [step[j * size : (j + 1) * size] for step in history]
        others = [[*step[: j * size], *step[(j + 1) * size :]] for step in history]
        total += split_update(mine, others, rule, **how)
    return total / groups


def leave_one_out(history: Sequence[Step], rule: Rule, **how) -> float:
    """Cross-fitting with as many groups as microbatches."""
    return cross_fit(history, len(history[0]), rule, **how)


def jackknife(history: Sequence[Step], update: Callable[[Sequence[Step]], float]) -> float:
    """m u - (m-1) mean of u without microbatch r, r left out of every step."""
    m = len(history[0])
    left_out = [update([[*step[:r], *step[r + 1 :]] for step in history]) for r in range(m)]
    return m * update(history) - (m - 1) * mean(left_out)
