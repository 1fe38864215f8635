"""Matrix laws by name, with a given condition number in a random rotation: for tables and tests.

Never only diagonal covariances: a wrong root or an unaligned basis is invisible in one.
"""

from __future__ import annotations

import numpy as np

from .matrix_laws import KroneckerLaw, MatrixNormal, MatrixSkewed, MatrixStudentT

__all__ = ["MATRIX_LAWS", "matrix_law", "orthogonal", "spectrum"]

Array = np.ndarray

STUDENT_DOF = 6

MATRIX_LAWS = ("wishart", "normal", "student_t", "skewed")
"""The names that :func:`matrix_law` knows."""


def spectrum(dim: int, condition: float) -> Array:
    """Return ``dim`` eigenvalues, log-spaced and ascending, of sum ``dim``; float64 [dim].

    Raises:
        ValueError: for ``dim`` < 1 or a condition number that is not finite and at least 1.

    >>> spectrum(3, 1).tolist()
    [1.0, 1.0, 1.0]
    """
    _check_dimension(dim, "dim")
    if not (np.isfinite(condition) and condition >= 1):
        raise ValueError(f"{condition=!r} must be finite and at least 1.")
    # One eigenvalue has condition 1, whatever was asked for.
    eigenvalues = np.geomspace(1.0, condition, dim) if dim > 1 else np.ones(1)
    return eigenvalues * (dim / eigenvalues.sum())


def orthogonal(rng: np.random.Generator, dim: int) -> Array:
    """Return a random rotation or reflection, uniform (Haar), float64 [dim, dim].

    Source: F. Mezzadri, "How to generate random matrices from the classical compact groups",
    Notices of the AMS 54 (2007): Q of a Gaussian's QR, with the signs of R's diagonal.
    """
    _check_dimension(dim, "dim")
    basis, upper = np.linalg.qr(rng.standard_normal((dim, dim)))
    return basis * np.where(np.diag(upper) < 0, -1.0, 1.0)


def matrix_law(
    name: str,
    dim: int,
    columns: int | None = None,
    *,
    condition: float = 20.0,
    column_condition: float = 1.0,
    mean_scale: float | None = None,
    seed: int = 0,
) -> KroneckerLaw:
    """Return the named law of one microbatch's gradient, in a random rotation.

    The noise has E (G − M)(G − M)ᵀ = row_cov with eigenvalues ``spectrum(dim, condition)``, and
    col_cov = a rotation of ``spectrum(columns, column_condition)`` divided by ``columns``.

    Args:
        name: ``wishart`` (normal, zero mean: with ``column_condition`` 1 the mean left factor of
            m microbatches is the mean of m·columns Wishart outer products), ``normal`` (nonzero
            mean), ``student_t`` (elliptical, 6 degrees of freedom) or ``skewed`` (centered
            exponential entries).
        dim, columns: d and n; ``columns`` is ``dim`` if not given.
        condition, column_condition: of the noise's covariances. A mean adds M Mᵀ to E G Gᵀ and
            moves its condition number.
        mean_scale: root mean square of the mean over that of the noise, ‖M‖_F = mean_scale √dim;
            1 if not given, 0 for ``wishart``.
        seed: of the rotations and the direction of the mean; not of the samples.

    Raises:
        ValueError: for an unknown name, an empty dimension, a condition below 1, a negative
            ``mean_scale``, or a ``wishart`` with a mean.

    >>> law = matrix_law("wishart", 4, condition=100)
    >>> float(round(np.linalg.cond(law.left_moment), 6)), law.dimensions
    (100.0, (4, 4))
    """
    if name not in MATRIX_LAWS:
        raise ValueError(f"matrix law {name!r} is unknown; choose one of {', '.join(MATRIX_LAWS)}.")
    columns = dim if columns is None else columns
    _check_dimension(dim, "dim")
    _check_dimension(columns, "columns")
    rng = np.random.default_rng(seed)
    row_cov = _rotated(rng, spectrum(dim, condition))
    col_cov = _rotated(rng, spectrum(columns, column_condition)) / columns
    direction = rng.standard_normal((dim, columns))
    scale = _mean_scale(name, mean_scale)
    mean = direction * (scale * np.sqrt(dim) / np.linalg.norm(direction))
    if name == "student_t":
        return MatrixStudentT(mean, row_cov, col_cov, STUDENT_DOF)
    if name == "skewed":
        return MatrixSkewed(mean, row_cov, col_cov)
    return MatrixNormal(mean, row_cov, col_cov)


def _mean_scale(name: str, mean_scale: float | None) -> float:
    if mean_scale is None:
        return 0.0 if name == "wishart" else 1.0
    if not (np.isfinite(mean_scale) and mean_scale >= 0):
        raise ValueError(f"{mean_scale=!r} must be finite and not negative.")
    if name == "wishart" and mean_scale != 0:
        raise ValueError(f"law 'wishart' has zero mean; {mean_scale=!r} asks for 'normal'.")
    return float(mean_scale)


def _rotated(rng: np.random.Generator, eigenvalues: Array) -> Array:
    basis = orthogonal(rng, len(eigenvalues))
    rotated = (basis * eigenvalues) @ basis.T
    return 0.5 * (rotated + rotated.T)


def _check_dimension(dimension: int, name: str) -> None:
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise ValueError(f"{name}={dimension!r} must be an int of at least 1.")
