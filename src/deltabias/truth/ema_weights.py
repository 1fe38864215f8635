"""Weights of an exponential moving average over its history, exact, and its steady state."""

from __future__ import annotations

import mpmath
from mpmath import mp

from .exact import Number, as_fraction, as_mpf

__all__ = ["ema_weights", "steps_to_steady_state"]


def ema_weights(beta: Number, steps: int, debias: bool = True) -> tuple[mpmath.mpf, ...]:
    """Return (1 − β)β^{t−1−k} for k = 0 … t−1, oldest first, over 1 − βᵗ if ``debias``.

    Numbers at the current ``mp.dps``. A state that starts at zero has exactly these weights.

    Raises:
        ValueError: unless 0 ≤ β < 1 and ``steps`` ≥ 1.

    >>> [float(w) for w in ema_weights("0.5", 3, debias=False)]
    [0.125, 0.25, 0.5]
    """
    beta = _checked_beta(beta)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"{steps=!r} must be an int of at least 1.")
    # The last 1 − βᵗ is what a debias divides by, so that the weights add to one.
    newest = as_mpf(1 - beta) / (1 - as_mpf(beta) ** steps if debias else 1)
    weights = [newest]
    for _ in range(steps - 1):
        weights.append(weights[-1] * as_mpf(beta))
    return tuple(reversed(weights))


def steps_to_steady_state(*betas: Number, truncation: Number = "1e-15") -> int:
    """Return the least t with βᵗ ≤ ``truncation`` for every β: a history that long is steady.

    The weights left out add to βᵗ of the whole, so an expectation that is smooth in its states
    is off by O(truncation) relative.

    >>> steps_to_steady_state("0.9", "0.95", truncation="1e-12")
    539
    """
    truncation = as_fraction(truncation, "truncation")
    if not betas or not 0 < truncation < 1:
        raise ValueError(f"pass at least one beta, and {truncation=!s} between 0 and 1.")
    slowest = max(_checked_beta(beta) for beta in betas)
    if slowest == 0:
        return 1
    return int(mp.ceil(mp.log(as_mpf(truncation)) / mp.log(as_mpf(slowest))))


def _checked_beta(beta: Number):
    exact = as_fraction(beta, "beta")
    if not 0 <= exact < 1:
        raise ValueError(f"{beta=!r} must lie in [0, 1).")
    return exact
