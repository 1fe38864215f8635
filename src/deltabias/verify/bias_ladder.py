r"""Orders in 1/m, from biases at m, 2m, 4m, …: contrasts that keep one order and cancel others.

If :math:`b(m) = \sum_p c_p m^{-p}`, weights w over the sizes :math:`m_j = 2^j m` with

.. math:: \sum_j w_j (m_j/m)^{-p} = 1, \qquad \sum_j w_j (m_j/m)^{-q} = 0 \quad (q \ne p)

turn the biases into :math:`c_p m^{-p}`, the part of order p *as large as it is at m*. With J sizes
J − 1 orders q can be cancelled. Those above p are allowed by the claim and are cancelled; those
below p break the claim as well and are left in, where they weigh more than one (at p = 1 and four
sizes a constant offset counts 15 times).

Source: L. F. Richardson, "The deferred approach to the limit", Phil. Trans. A 226 (1927).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

SIZES = 4
"""How many sizes m, 2m, … are visited."""

Array = np.ndarray


def contrast(sizes: Sequence[int], keep: int, cancel: Sequence[int]) -> Array:
    """Weights over ``sizes`` that keep order ``keep`` at 1 (at the first size), cancel others.

    ``cancel`` has one order less than there are sizes; 0 is a constant.

    >>> contrast([16, 32], keep=1, cancel=[2]).tolist()
    [-1.0, 4.0]
    """
    ratio = np.asarray(sizes, dtype=float) / sizes[0]
    system = np.array([ratio**-order for order in (keep, *cancel)])
    return np.linalg.solve(system, np.eye(len(sizes))[0])


def ladder(microbatches: int, base: int) -> tuple[int, ...]:
    """m itself, and the sizes base, 2 base, … that orders are told from."""
    sizes = tuple(base * 2**j for j in range(SIZES))
    return sizes if base == microbatches else (microbatches, *sizes)


@dataclass(frozen=True)
class Contrasts:
    """Three estimates of one order, as it is at the first size.

    ``main`` uses all sizes of the ladder; ``low`` all but the largest and ``high`` all but the
    smallest, with one order less cancelled. From ``low`` to ``high`` every size has doubled: if
    doubling at least halves what is left of higher orders, what is left of ``high`` is less than
    their difference, and of ``main`` less still.
    """

    main: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, sizes: Sequence[int], keep: int, *, free_of_offset: bool = False) -> "Contrasts":
        """The contrasts for order ``keep``.

        Used are the last `SIZES` of ``sizes``, or as many as there are. ``free_of_offset`` cancels
        a constant instead of the highest order: nothing is then asked of the target, and the noise
        that is linear in the gradients drops out, being the same at every size.
        """
        start = max(0, len(sizes) - SIZES)
        above = [keep + i for i in range(1, len(sizes))]
        cancel = [*([0] if free_of_offset and keep else []), *above]

        def weights(first: int, last: int) -> Array:
            found = np.zeros(len(sizes))
            part = contrast(sizes[first:last], keep, cancel[: last - first - 1])
            # from the part's first size to the ladder's
            found[first:last] = part * (sizes[first] / sizes[0]) ** keep
            return found

        end = len(sizes)
        return cls(weights(start, end), weights(start, end - 1), weights(start + 1, end))


def t_quantile(tail: float, freedom: int) -> float:
    """The point that Student's t exceeds with probability ``tail``; freedom of a hundred or more.

    The normal quantile with two terms of its Cornish-Fisher expansion: right to 1e-3 at
    ``tail`` = 1e-7 and freedom 255 (5.41).

    >>> round(t_quantile(0.025, 255), 4)
    1.9693
    """
    z = -NormalDist().inv_cdf(tail)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def fitted_order(sizes: Sequence[int], biases: Array, covariance: Array) -> tuple[float, float]:
    """The slope of −log|b| over log m and its standard error, by generalized least squares.

    Sizes whose bias is within three errors of zero have no logarithm worth fitting and end the
    ladder; with fewer than two left the answer is ``(nan, inf)``.
    """
    errors = np.sqrt(np.diag(covariance))
    clear = (np.abs(biases) > 3 * errors) & (biases != 0)
    count = int(np.argmin(clear)) if not clear.all() else len(sizes)
    if count < 2:
        return float("nan"), float("inf")
    b = biases[:count]
    design = np.stack([np.ones(count), -np.log(np.asarray(sizes[:count], dtype=float))], axis=1)
    spread = covariance[:count, :count] / np.outer(b, b)
    # biases without noise are weighed alike
    spread = spread + np.eye(count) * max(1e-12 * np.trace(spread), 1e-24)
    inverse = np.linalg.inv(spread)
    normal = np.linalg.inv(design.T @ inverse @ design)
    slope = normal @ design.T @ inverse @ np.log(np.abs(b))
    return float(slope[1]), float(np.sqrt(normal[1, 1])) if errors.any() else 0.0
