"""Exact means and covariances of a step's statistics, and of states, from a law's raw moments.

They are the known means that control variates need. They come from the moments that the law
states and from nothing of the expansion, so that a simulation can contradict a prediction.
"""

from collections.abc import Sequence
from math import comb

import numpy as np
import sympy as sp

from deltabias.rule import MEAN, State, Statistic
from deltabias.truth import Law


def moments_of_mean(law: Law, count: int, highest: int) -> list:
    """Raw moments E ḡⁿ, n = 0 … highest, of the mean of `count` draws; exact.

    Cumulants of a mean are the law's over count**(n-1); E ḡⁿ = Σ C(n-1, j-1) κ_j E ḡⁿ⁻ʲ.

    >>> from deltabias.truth import Normal
    >>> [str(m) for m in moments_of_mean(Normal(0, 1), 4, 4)]
    ['1', '0', '1/4', '0', '3/16']
    """
    cumulants = [None] + [law.cumulant(n) / count ** (n - 1) for n in range(1, highest + 1)]
    moments = [law.moment(0)]
    for n in range(1, highest + 1):
        moments.append(
            sum(comb(n - 1, j - 1) * cumulants[j] * moments[n - j] for j in range(1, n + 1))
        )
    return moments


def degree(statistic: Statistic) -> int:
    """The degree of a statistic as a polynomial of gradients."""
    sample = sp.Poly(statistic.sample).degree()
    return sample if statistic.outer is None else sample * sp.Poly(statistic.outer, MEAN).degree()


def step_mean(state: State, law: Law, microbatches: int) -> float:
    """E of what one step contributes to a state."""
    return _expectation([state.statistic], law, microbatches)


def step_covariance(first: State, second: State, law: Law, microbatches: int) -> float:
    """The covariance of what one step contributes to two states."""
    if first.statistic.observation != second.statistic.observation:
        return 0.0  # independent by construction
    pair = [first.statistic, second.statistic]
    product = _expectation(pair, law, microbatches)
    return product - _expectation(pair[:1], law, microbatches) * _expectation(
        pair[1:], law, microbatches
    )


def _expectation(statistics: Sequence[Statistic], law: Law, microbatches: int) -> float:
    """E of the product of one or two statistics of the same microbatches."""
    if all(s.sample == s.observation for s in statistics):
        polynomial = sp.prod([MEAN if s.outer is None else s.outer for s in statistics])
        moments = moments_of_mean(law, microbatches, sp.Poly(polynomial, MEAN).degree())
        return _of_polynomial(polynomial, MEAN, moments)
    x = statistics[0].observation
    means = [_raw(s.sample, x, law) for s in statistics]
    if len(means) == 1:
        return means[0]
    # E (Σ p/m)(Σ q/m) = E p E q + cov(p, q)/m
    together = _raw(sp.prod([s.sample for s in statistics]), x, law)
    return means[0] * means[1] + (together - means[0] * means[1]) / microbatches


def _raw(polynomial: sp.Expr, x: sp.Symbol, law: Law) -> float:
    highest = sp.Poly(polynomial, x).degree()
    return _of_polynomial(polynomial, x, [law.moment(n) for n in range(highest + 1)])


def _of_polynomial(polynomial: sp.Expr, x: sp.Symbol, moments: Sequence) -> float:
    return float(sum(float(c) * float(moments[n]) for (n,), c in sp.Poly(polynomial, x).terms()))


def state_means(states: Sequence[State], weights: Sequence[np.ndarray], law, microbatches) -> list:
    """E of each state."""
    return [
        float(w.sum()) * step_mean(s, law, microbatches)
        for s, w in zip(states, weights, strict=True)
    ]
