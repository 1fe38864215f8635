"""Averaging over time: the weights of a state, and the sums of their products.

A state of an optimizer is a weighted sum over the past, age k = 0 being the newest step:

    fresh   only the newest step           weight 1 at age 0
    total   everything so far              weight 1 at every age
    ema     gain (1 - beta) beta^k,        divided by 1 - beta^t where it is debiased

The joint cumulant of several states is that of one step's statistics times
sum_k prod_i w_i(k), a finite geometric sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

STEP = sp.Symbol("t", integer=True, positive=True)


@dataclass(frozen=True)
class Weights:
    """Weights ``gain * decay**age / normalizer(t)`` of one state.

    ``decay`` 0 keeps only the newest step (0**0 is 1), ``decay`` 1 keeps everything.
    """

    decay: sp.Expr
    gain: sp.Expr = sp.S.One
    debias: bool = False

    def normalizer(self, step: sp.Expr) -> sp.Expr:
        """What the sum is divided by: ``1 - decay**t`` where debiased, else 1."""
        return 1 - self.decay**step if self.debias else sp.Integer(1)


def product_sum(weights: Sequence[Weights], step: sp.Expr = STEP) -> sp.Expr:
    """sum over ages 0 … t-1 of the product of the weights. ``step=oo`` is the steady state.

    Raises
    ------
    ValueError
        for the steady state of a sum that never forgets (Adagrad's): it has none.

    Examples
    --------
    >>> beta = sp.Symbol("beta", positive=True)
    >>> ema = Weights(beta, 1 - beta, debias=True)
    >>> sp.simplify(product_sum([ema, ema], sp.oo) - (1 - beta) / (1 + beta))
    0
    """
    if not weights:
        raise ValueError("product_sum needs at least one state's weights, got none.")
    ratio = sp.prod([w.decay for w in weights])
    gain = sp.prod([w.gain for w in weights])
    if ratio == 1 and step is sp.oo:
        raise ValueError("a running total has no steady state; ask for a finite step.")
    if ratio == 0:
        length = sp.Integer(1)
    elif ratio == 1:
        length = step
    else:
        tail = sp.Integer(0) if step is sp.oo else ratio**step
        length = (1 - tail) / (1 - ratio)
    if step is sp.oo:  # every beta is below one, so beta**t vanishes
        return gain * length
    return gain * length / sp.prod([w.normalizer(step) for w in weights])


def newest(weights: Sequence[Weights], step: sp.Expr = STEP) -> sp.Expr:
    """The product of the newest step's weights: what is random *given the history*."""
    gain = sp.prod([w.gain for w in weights])
    if step is sp.oo:
        return gain
    return gain / sp.prod([w.normalizer(step) for w in weights])
