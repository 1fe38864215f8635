r"""Exact expectations of matrix maps under finite laws, by visiting every batch.

The scalar machinery of :mod:`.enumeration` runs over the *places* of the atoms; here each multiset
of places becomes a batch of gradient matrices. Two forms:

* :func:`matrix_expectation`: many digits; the map sees a :class:`MatrixSample`.
* :func:`every_batch`: all batches at once as float64 arrays with their probabilities, so that any
  vectorized estimator, the judged one included, gets its exact expectation as one weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np

from .enumeration import GUARD_DIGITS, enumerate_samples
from .exact import as_mpf
from .matrix_functions import Matrix, exact_matrix
from .matrix_laws import FiniteMatrixLaw

__all__ = ["MatrixSample", "every_batch", "matrix_expectation"]

Value = Matrix | mpmath.mpf


@dataclass(frozen=True)
class MatrixSample:
    """An unordered batch of m microbatches: pairs (G, count), counts adding to m.

    ``G`` are mpmath matrices [d, n] at the working precision of the enumeration.
    """

    pairs: tuple[tuple[Matrix, int], ...]

    @property
    def microbatches(self) -> int:
        """The size m of the batch."""
        return sum(count for _, count in self.pairs)

    @property
    def gradients(self) -> list[Matrix]:
        """G₁ … G_m, equal ones next to each other."""
        return [g for g, count in self.pairs for _ in range(count)]

    @property
    def mean(self) -> Matrix:
        """(1/m) Σ G, [d, n]."""
        return self._average(lambda g: g)

    @property
    def left(self) -> Matrix:
        """(1/m) Σ G Gᵀ, [d, d]."""
        return self._average(lambda g: g * g.T)

    @property
    def right(self) -> Matrix:
        """(1/m) Σ Gᵀ G, [n, n]."""
        return self._average(lambda g: g.T * g)

    def _average(self, statistic: Callable[[Matrix], Matrix]) -> Matrix:
        first, *rest = (count * statistic(g) for g, count in self.pairs)
        return sum(rest, first) / self.microbatches


def matrix_expectation(
    function: Callable[[MatrixSample], Value | tuple[Value, ...]],
    law: FiniteMatrixLaw,
    microbatches: int,
    digits: int = 50,
) -> Value | tuple[Value, ...]:
    """Return E f over ``microbatches`` independent gradients, exact up to rounding.

    Args:
        function: maps a :class:`MatrixSample` to an mpmath matrix, an object array [a, b] of
            exact numbers or an mpf, or to a tuple of these; it must not depend on the order.
        law: the finite law of one microbatch's gradient.
        microbatches: the number m of draws.
        digits: of the answer; the work is done with 15 more, the current ``mp.dps`` of the map.

    Raises:
        TooManySamples: for more than 300 000 multisets; three atoms reach m = 700.
        TypeError: for another kind of law, or a map that returns floats, which would spoil the
            digits without a word; :func:`every_batch` is for those.

    >>> law = FiniteMatrixLaw([[[1, 0]], [[0, 2]]], ["1/2", "1/2"])
    >>> print(matrix_expectation(lambda s: s.left, law, 3)[0, 0])
    2.5
    """
    _check_law(law)
    with mpmath.workdps(digits + GUARD_DIGITS):
        atoms = [exact_matrix(atom, "atoms") for atom in law.arrays]
        totals, is_tuple = None, False
        for counts, weight in enumerate_samples(law.index_law, microbatches):
            pairs = tuple((g, c) for g, c in zip(atoms, counts, strict=True) if c)
            value = function(MatrixSample(pairs))
            is_tuple = isinstance(value, tuple)
            terms = [_exact(part) * as_mpf(weight) for part in (value if is_tuple else (value,))]
            totals = [t + term for t, term in zip(totals, terms, strict=True)] if totals else terms
    with mpmath.workdps(digits):
        rounded = tuple(+total for total in totals)
    return rounded if is_tuple else rounded[0]


def every_batch(law: FiniteMatrixLaw, microbatches: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities [N], gradients [N, m, d, n]), float64, of all N multisets.

    ``np.tensordot(probabilities, f(gradients), 1)`` is E f to float64 rounding, for an f that
    does not depend on the order of the microbatches.

    Raises:
        TooManySamples, TypeError: as in :func:`matrix_expectation`.

    >>> law = FiniteMatrixLaw([[[1]], [[3]]], ["1/4", "3/4"])
    >>> weights, gradients = every_batch(law, 2)
    >>> weights.tolist(), gradients.shape
    ([0.5625, 0.375, 0.0625], (3, 2, 1, 1))
    """
    _check_law(law)
    table = list(enumerate_samples(law.index_law, microbatches))
    weights = np.array([float(weight) for _, weight in table])
    places = np.array([np.repeat(np.arange(len(counts)), counts) for counts, _ in table])
    values = np.array([atom.astype(float) for atom in law.arrays])
    return weights, values[places]


def _check_law(law: object) -> None:
    if not isinstance(law, FiniteMatrixLaw):
        raise TypeError(f"{law!r} has no finite support to enumerate; pass a FiniteMatrixLaw, or "
                        "use a closed form or Monte Carlo.")  # fmt: skip


def _exact(part: object) -> Value:
    if isinstance(part, (mpmath.matrix, mpmath.mpf)):
        return part
    if isinstance(part, np.ndarray) and part.dtype == object:
        return exact_matrix(part, "the function's value")
    raise TypeError(
        f"the function returned a {type(part).__name__}; return mpmath matrices, object arrays "
        "or mpf (a float has only 16 digits), or use every_batch for float64 maps."
    )
