"""Slow twin of `deltabias.microbatch`: the definitions, on lists, in several passes.

It works on anything with + − × ÷: floats, `Fraction`s (then it is exact), float64 tensors. Where
the fast code uses central moments this one sums over pairs and triples of microbatches, the form in
which a U-statistic is visibly unbiased.
"""

from collections.abc import Sequence
from itertools import combinations, permutations


def mean(g: Sequence, w: Sequence):
    """Σ w_r g_r / Σ w_r, shifted by g_1 so that floats keep the digits in which the g_r differ."""
    return g[0] + sum(wr * (gr - g[0]) for gr, wr in zip(g, w, strict=True)) / sum(w)


def central(g: Sequence, w: Sequence, k: int):
    """Σ w_r (g_r − ḡ)^k / W, in a second pass."""
    center = mean(g, w)
    return sum(wr * (gr - center) ** k for gr, wr in zip(g, w, strict=True)) / sum(w)


def cov_of_means(a: Sequence, b: Sequence, w: Sequence):
    """Σ_{r<s} w_r w_s (a_r − a_s)(b_r − b_s) / ((m−1) W²): unbiased if Cov(a_r, b_r) = C/w_r."""
    pairs = combinations(range(len(w)), 2)
    total = sum(w[r] * w[s] * (a[r] - a[s]) * (b[r] - b[s]) for r, s in pairs)
    return total / ((len(w) - 1) * sum(w) ** 2)


def var_of_mean(g: Sequence, w: Sequence):
    """Estimates Var ḡ."""
    return cov_of_means(g, g, w)


def third_cumulant_of_mean(g: Sequence, w: Sequence):
    """Estimates κ₃(ḡ): Σ w_r (g_r − ḡ)³ / (W² Σ 1/w_r − (3m − 2) W); zero for two microbatches."""
    m, total = len(w), sum(w)
    if m == 2:
        return 0 * g[0]
    return central(g, w, 3) / (total * sum(1 / wr for wr in w) - (3 * m - 2))


def third_cumulant_of_mean_by_triples(g: Sequence):
    """The same for equal weights: κ₃ = E xxx − 3 E xxy + 2 E xyz over distinct microbatches."""
    m = len(g)
    triples = list(permutations(g, 3))
    kernel = sum(x**3 - 3 * x**2 * y + 2 * x * y * z for x, y, z in triples)
    return kernel / len(triples) / m**2


def mean_of_squares(g: Sequence, w: Sequence):
    """Σ w_r g_r² / W."""
    return sum(wr * gr**2 for gr, wr in zip(g, w, strict=True)) / sum(w)


def cov_of_mean_and_mean_of_squares(g: Sequence, w: Sequence):
    """Estimates Cov(ḡ, p₂): the pair sum, its part in κ₃ reweighted to what it estimates.

    The pair sum is (c₃ + 2ḡc₂)/(m−1). Its c₃ is replaced by (m−1)(m−2) third cumulants of the mean,
    which changes nothing when the weights are equal.
    """
    m = len(w)
    pairs = cov_of_means(g, [gr * gr for gr in g], w)
    return pairs - central(g, w, 3) / (m - 1) + (m - 2) * third_cumulant_of_mean(g, w)


def var_of_mean_of_squares(g: Sequence, w: Sequence):
    """Estimates Var p₂; too large by the spread of the E g_r² if those differ."""
    squares = [gr * gr for gr in g]
    return cov_of_means(squares, squares, w)
