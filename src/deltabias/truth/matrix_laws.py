r"""Laws of one microbatch's gradient matrix G (d × n), with exact moments and a sampler.

The statistics of a matrix preconditioner are the means over microbatches of G, of the left factor
G Gᵀ and of the right factor Gᵀ G. For G = M + A Z B with A² = row_cov, B² = col_cov and entries
of Z that are uncorrelated with mean 0 and variance 1,

.. math::
    E\,G G^T = M M^T + \mathrm{tr}(B^2)\,A^2, \qquad E\,G^T G = M^T M + \mathrm{tr}(A^2)\,B^2,

because :math:`E\,Z C Z^T = \mathrm{tr}(C)\,I` for every C. The law of Z does not matter, so the
normal, the heavy-tailed and the skewed law below share their moments and differ in their biases.

Source: A. K. Gupta, D. K. Nagar, *Matrix Variate Distributions*, Chapman & Hall 2000, §2.3, §4.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from .errors import MomentDoesNotExist
from .exact import Number, as_fraction
from .finite_laws import Discrete

__all__ = [
    "FiniteMatrixLaw",
    "KroneckerLaw",
    "MatrixLaw",
    "MatrixNormal",
    "MatrixSkewed",
    "MatrixStudentT",
]

Array = np.ndarray

ROUNDING = 1e-12
"""Asymmetry and negative eigenvalues below this, relative to the largest, count as rounding."""


class MatrixLaw(ABC):
    """The law of one microbatch's gradient, a random d × n matrix. Abstract.

    Attributes:
        mean: E G, float64 [d, n].
    """

    # Not an abstract property: a dataclass field of that name would take it for its default.
    mean: Array

    @property
    @abstractmethod
    def left_moment(self) -> Array:
        """E G Gᵀ, float64 [d, d]."""

    @property
    @abstractmethod
    def right_moment(self) -> Array:
        """E Gᵀ G, float64 [n, n]."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
        """Return independent draws, float64 [*shape, d, n]."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """(d, n), the rows and columns of G."""
        return self.mean.shape


@dataclass(frozen=True, eq=False)
class KroneckerLaw(MatrixLaw):
    """G = mean + row_cov^{1/2} Z col_cov^{1/2}, so Cov vec G = col_cov ⊗ row_cov. Abstract.

    A subclass supplies Z: entries uncorrelated, of mean 0 and variance 1.

    Args:
        mean: float64 [d, n].
        row_cov: float64 [d, d], symmetric and positive semidefinite; may be singular.
        col_cov: float64 [n, n], the same.

    Raises:
        ValueError: for shapes that do not fit, an empty matrix, entries that are not finite, or
            covariances that are asymmetric or indefinite beyond rounding.
    """

    mean: Array
    row_cov: Array
    col_cov: Array

    def __post_init__(self) -> None:
        mean = checked_matrix(self.mean, "mean")
        rows, columns = mean.shape
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "row_cov", checked_covariance(self.row_cov, rows, "row_cov"))
        object.__setattr__(self, "col_cov", checked_covariance(self.col_cov, columns, "col_cov"))
        roots = _symmetric_root(self.row_cov), _symmetric_root(self.col_cov)
        object.__setattr__(self, "_roots", roots)

    @abstractmethod
    def standard_noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return Z, float64 of the given shape, the last two axes being d and n."""

    @property
    def left_moment(self) -> Array:
        return self.mean @ self.mean.T + np.trace(self.col_cov) * self.row_cov

    @property
    def right_moment(self) -> Array:
        return self.mean.T @ self.mean + np.trace(self.row_cov) * self.col_cov

    def sample(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        row_root, col_root = self._roots
        return self.mean + row_root @ self.standard_noise(rng, shape + self.mean.shape) @ col_root


@dataclass(frozen=True, eq=False)
class MatrixNormal(KroneckerLaw):
    """The matrix normal law.

    With mean 0 and col_cov = I/n the left factors of m microbatches have a mean that is Wishart:
    the average of m·n outer products of N(0, row_cov) vectors.

    >>> MatrixNormal([[1.0]], [[2.0]], [[3.0]]).left_moment
    array([[7.]])
    """

    def standard_noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        return rng.standard_normal(shape)


@dataclass(frozen=True, eq=False)
class MatrixStudentT(KroneckerLaw):
    """The elliptical t law: a normal matrix over √(χ²/(dof − 2)), one χ² per microbatch.

    Scaled so that the covariance is that of the :class:`MatrixNormal` with the same fields. All
    entries of one microbatch share their scale: a bad microbatch is bad everywhere.

    Raises:
        MomentDoesNotExist: for dof ≤ 4, where G Gᵀ has no variance, so its mean over
            microbatches has no bias of order 1/m.
    """

    dof: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.dof, (int, float, Fraction)) and self.dof > 4):
            raise MomentDoesNotExist(
                f"dof={self.dof!r} gives G Gᵀ no variance; a t law needs a finite dof above 4."
            )
        if not math.isfinite(self.dof):
            raise ValueError(f"dof={self.dof!r} is not finite; take MatrixNormal for the limit.")

    def standard_noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        normal = rng.standard_normal(shape)
        chi_square = rng.chisquare(float(self.dof), (*shape[:-2], 1, 1))
        # E 1/χ² = 1/(dof − 2)
        return normal * np.sqrt((float(self.dof) - 2) / chi_square)


@dataclass(frozen=True, eq=False)
class MatrixSkewed(KroneckerLaw):
    """Entries of Z are centered gamma variables of unit variance and skewness 2/√gamma_shape.

    ``gamma_shape`` = 1, the default, is the centered exponential: skewness 2, excess kurtosis 6.
    """

    gamma_shape: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.gamma_shape > 0 and math.isfinite(self.gamma_shape)):
            raise ValueError(f"gamma_shape={self.gamma_shape!r} must be positive and finite.")

    def standard_noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        k = float(self.gamma_shape)
        return (rng.gamma(k, 1.0, shape) - k) / math.sqrt(k)


@dataclass(frozen=True)
class FiniteMatrixLaw(MatrixLaw):
    """The law that puts ``probabilities[i]`` on the matrix ``atoms[i]``; everything is rational.

    Atoms that repeat are merged and atoms of probability zero dropped.

    Args:
        atoms: d × n matrices of ints, Fractions, decimal strings, floats or mpf.
        probabilities: as exact numbers; they must add to one exactly.

    Raises:
        ValueError: if the atoms' shapes differ, one is empty or holds a number that is not
            finite, or the probabilities are negative or do not add to one.

    >>> law = FiniteMatrixLaw([[["1/2", 0]], [[0, 1]]], ["1/4", "3/4"])
    >>> law.exact_left_moment[0, 0], law.mean
    (Fraction(13, 16), array([[0.125, 0.75 ]]))
    """

    atoms: Iterable
    probabilities: Iterable[Number]
    index_law: Discrete = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        atoms = [_exact_atom(atom) for atom in self.atoms]
        shapes = {(len(atom), len(atom[0])) for atom in atoms}
        if len(shapes) > 1:
            raise ValueError(f"atoms of shapes {sorted(shapes)}; all must have one shape.")
        # The scalar law over the atoms' places checks the probabilities and merges equal atoms.
        distinct = list(dict.fromkeys(atoms))
        places = Discrete([distinct.index(atom) for atom in atoms], self.probabilities)
        object.__setattr__(self, "atoms", tuple(distinct[int(i)] for i in places.points))
        object.__setattr__(self, "probabilities", places.weights)
        index_law = Discrete(range(len(places.points)), places.weights)
        object.__setattr__(self, "index_law", index_law)

    def _mean_of(self, product) -> Array:
        terms = (p * product(a) for a, p in zip(self.arrays, self.probabilities, strict=True))
        return sum(terms)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The atoms as object arrays [d, n] of Fractions."""
        return tuple(np.array(atom, dtype=object) for atom in self.atoms)

    @property
    def exact_mean(self) -> Array:
        """E G, an object array [d, n] of Fractions."""
        return self._mean_of(lambda g: g)

    @property
    def exact_left_moment(self) -> Array:
        """E G Gᵀ, an object array [d, d] of Fractions."""
        return self._mean_of(lambda g: g @ g.T)

    @property
    def exact_right_moment(self) -> Array:
        """E Gᵀ G, an object array [n, n] of Fractions."""
        return self._mean_of(lambda g: g.T @ g)

    @property
    def mean(self) -> Array:
        return self.exact_mean.astype(float)

    @property
    def left_moment(self) -> Array:
        return self.exact_left_moment.astype(float)

    @property
    def right_moment(self) -> Array:
        return self.exact_right_moment.astype(float)

    def sample(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
        values = np.array([atom.astype(float) for atom in self.arrays])
        return values[rng.choice(len(values), size=shape, p=[float(p) for p in self.probabilities])]


def checked_matrix(matrix, name: str) -> Array:
    """Return a read-only float64 copy [rows, columns]; raise unless it is finite and not empty."""
    array = np.array(matrix, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; pass [rows, columns], both at least 1.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds numbers that are infinite or NaN; pass finite ones.")
    array.setflags(write=False)
    return array


def checked_covariance(matrix, size: int, name: str) -> Array:
    """Return a read-only copy [size, size]; raise unless symmetric positive semidefinite."""
    array = checked_matrix(matrix, name)
    if array.shape != (size, size):
        raise ValueError(f"{name} has shape {array.shape}; the mean asks for {(size, size)}.")
    largest = np.abs(array).max()
    asymmetry = np.abs(array - array.T).max()
    if asymmetry > ROUNDING * largest:
        raise ValueError(f"{name} is not symmetric: it differs by {asymmetry:.3g} from its own "
                         "transpose; pass (C + Cᵀ)/2.")  # fmt: skip
    array = 0.5 * (array + array.T)
    lowest = np.linalg.eigvalsh(array)[0]
    if lowest < -ROUNDING * largest:
        raise ValueError(f"{name} is indefinite: it has the eigenvalue {lowest:.3g}; a covariance "
                         "has none below 0.")  # fmt: skip
    array.setflags(write=False)
    return array


def _symmetric_root(covariance: Array) -> Array:
    eigenvalues, basis = np.linalg.eigh(covariance)
    return (basis * np.sqrt(np.maximum(eigenvalues, 0.0))) @ basis.T


def _exact_atom(atom) -> tuple[tuple[Fraction, ...], ...]:
    rows = atom.tolist() if hasattr(atom, "tolist") else atom
    if not all(isinstance(row, (list, tuple)) for row in rows):
        raise ValueError(f"an atom must be a list of rows, a d × n matrix; got {atom!r}.")
    exact = tuple(tuple(as_fraction(x, "atoms") for x in row) for row in rows)
    if not exact or len({len(row) for row in exact}) != 1 or not exact[0]:
        raise ValueError(f"an atom of rows of lengths {[len(row) for row in exact]}; pass rows of "
                         "one length, at least 1.")  # fmt: skip
    return exact
