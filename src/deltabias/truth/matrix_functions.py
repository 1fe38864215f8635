r"""Functions of matrices to many digits, and their expansions by differences, not by formulas.

The first- and second-order terms of f(A + τE) in τ are central differences at a working
precision that is raised until neither truncation nor rounding is seen. No derivative of f is
written down anywhere in this file, so it shares nothing with the formulas that it judges: what it
needs is only f itself, from mpmath's symmetric eigensolver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mpmath
import numpy as np
from mpmath import mp

from .errors import DivergentExpectation, NotConverged
from .exact import Number, as_fraction, as_mpf

__all__ = [
    "batched_power",
    "exact_matrix",
    "first_order_along",
    "first_order_term",
    "inverse_root",
    "polar_factor",
    "second_order_along",
    "second_order_term",
    "symmetric_function",
    "to_float64",
]

Matrix = mpmath.matrix
ScalarMap = Callable[[mpmath.mpf], mpmath.mpf]
MatrixMap = Callable[..., Matrix]

GUARD_DIGITS = 30
"""Digits beside those asked for: an eigenvalue λ loses log₁₀(λ_max/λ) of them."""

STEP_DIGITS = 20
"""The step is 10^−(digits/2 + 20) of the point's size, so the truncation, of relative size
(step/λ_min)², is below 10^−digits up to a condition number of 10²⁰."""

ROUNDING = mpmath.mpf("1e-12")


def exact_matrix(matrix, name: str = "matrix") -> Matrix:
    """Return ``matrix`` as an mpmath matrix, each entry rounded at the current ``mp.dps``.

    Args:
        matrix: rows of exact numbers, a numpy array [rows, columns] (float64 or object), or an
            mpmath matrix.

    Raises:
        ValueError: unless it is finite, two-dimensional and not empty.
    """
    rows = matrix.tolist() if hasattr(matrix, "tolist") else matrix
    if not isinstance(rows, (list, tuple)) or not all(isinstance(r, (list, tuple)) for r in rows):
        raise ValueError(f"{name} must be a matrix, a list of rows; got {matrix!r}.")
    widths = {len(row) for row in rows}
    if len(widths) != 1 or 0 in widths:
        raise ValueError(f"{name} has rows of lengths {sorted(widths)}; pass one, at least 1.")
    return mp.matrix([[_number(entry, name) for entry in row] for row in rows])


def to_float64(matrix: Matrix) -> np.ndarray:
    """Return an mpmath matrix rounded to float64, [rows, columns].

    >>> to_float64(mp.matrix([[1, 2]]))
    array([[1., 2.]])
    """
    return np.array(matrix.tolist(), dtype=np.float64).reshape(matrix.rows, matrix.cols)


def symmetric_function(matrix, scalar_map: ScalarMap, digits: int | None = None) -> Matrix:
    """Return f(A) = Q diag(f(λᵢ)) Qᵀ for a symmetric A = Q diag(λᵢ) Qᵀ.

    Args:
        matrix: A [d, d], symmetric up to 1e-12 of its largest entry; (A + Aᵀ)/2 is used.
        scalar_map: f on one eigenvalue, an mpf; may raise where it is not defined.
        digits: decimal digits of the answer, relative to its largest entry and less the logarithm
            of the condition number beyond 10³⁰; None for the current ``mp.dps``.

    Raises:
        ValueError: for a matrix that is not square, not symmetric, empty or not finite.

    >>> f = symmetric_function([[2, 1], [1, 2]], lambda x: x**2)
    >>> print(mp.nstr(f[0, 0], 10), mp.nstr(f[0, 1], 10))
    5.0 4.0
    """
    digits = mp.dps if digits is None else digits
    with mpmath.workdps(digits + GUARD_DIGITS):
        symmetric = _symmetric(exact_matrix(matrix))
        eigenvalues, basis = mp.eigsy(symmetric)
        value = basis * mp.diag([scalar_map(x) for x in eigenvalues]) * basis.T
    with mpmath.workdps(digits):
        return +value


def inverse_root(
    matrix, root: Number, damping: Number = 0, digits: int | None = None
) -> mpmath.matrix:
    """Return (A + damping·I)^{−1/root} for a positive definite A + damping·I.

    Args:
        matrix: A [d, d], symmetric.
        root: p of A^{−1/p}, exact and positive: 1, 2, 4, ``Fraction(4, 3)`` …
        damping: added to every eigenvalue, exact, ≥ 0.
        digits: see :func:`symmetric_function`.

    Raises:
        ValueError: for p ≤ 0, a negative damping, or a matrix that is singular or indefinite.

    >>> print(mp.nstr(inverse_root([[16]], 4)[0, 0], 10))
    0.5
    """
    root, damping = as_fraction(root, "root"), as_fraction(damping, "damping")
    if root <= 0:
        raise ValueError(f"{root=!s} must be positive; A^(-1/root) is what is computed.")
    if damping < 0:
        raise ValueError(f"{damping=!s} must not be negative.")
    digits = mp.dps if digits is None else digits

    def power(eigenvalue: mpmath.mpf) -> mpmath.mpf:
        damped = eigenvalue + as_mpf(damping)
        # Rounding leaves ±10^−digits of the largest eigenvalue where an exact one is zero.
        if damped <= floor:
            raise ValueError(
                f"the damped matrix has the eigenvalue {mp.nstr(damped, 5)}: it is singular or "
                f"indefinite and has no inverse root; {damping=!s} must exceed that."
            )
        return damped ** as_mpf(-1 / root)

    with mpmath.workdps(digits + GUARD_DIGITS):
        floor = mp.mnorm(exact_matrix(matrix), 1) * mp.mpf(10) ** -(digits + GUARD_DIGITS // 2)
    return symmetric_function(matrix, power, digits)


def polar_factor(matrix, digits: int | None = None) -> Matrix:
    """Return G (GᵀG)^{−1/2} = (GGᵀ)^{−1/2} G, from the smaller of the two Gram matrices.

    Raises:
        ValueError: if G [d, n] has not full rank: the factor is then not unique.

    >>> print(mp.nstr(polar_factor([[3, 4]])[0, 1], 10))
    0.8
    """
    digits = mp.dps if digits is None else digits
    with mpmath.workdps(2 * digits + GUARD_DIGITS):  # the Gram matrix squares the condition
        g = exact_matrix(matrix)
        wide = g.cols >= g.rows
        value = inverse_root(g * g.T, 2) * g if wide else g * inverse_root(g.T * g, 2)
    with mpmath.workdps(digits):
        return +value


def first_order_along(
    matrix_map: MatrixMap, points: Sequence, directions: Sequence, digits: int = 60
) -> Matrix:
    """Return the τ¹ coefficient of f(A₁ + τE₁, …, A_k + τE_k); see :func:`second_order_along`."""
    return _difference(matrix_map, points, directions, digits, order=1)


def second_order_along(
    matrix_map: MatrixMap, points: Sequence, directions: Sequence, digits: int = 60
) -> Matrix:
    r"""Return the τ² coefficient of f(A₁ + τE₁, …, A_k + τE_k), *half* the second derivative.

    Central differences, :math:`(f(A+hE) - 2f(A) + f(A-hE))/2h^2`, whose error is h² times the τ⁴
    coefficient. A second quotient with ten times the step must agree.

    Args:
        matrix_map: f, from k mpmath matrices to one, computed at the current ``mp.dps`` and
            smooth near the points; :func:`inverse_root` and :func:`symmetric_function` are.
        points: A₁ … A_k, matrices of any shapes.
        directions: E₁ … E_k, of the same shapes; zero for a matrix that stays fixed.
        digits: of the answer, relative to its largest entry.

    Raises:
        ValueError: for shapes that differ, or as many directions as points are not given.
        NotConverged: if the two quotients differ: f has a kink, a singularity, or fewer correct
            digits than ``mp.dps``.

    >>> half = second_order_along(lambda a: a * a, [[[5]]], [[[3]]])
    >>> print(mp.nstr(half[0, 0], 10))
    9.0
    """
    return _difference(matrix_map, points, directions, digits, order=2)


def first_order_term(scalar_map: ScalarMap, matrix, direction, digits: int = 60) -> Matrix:
    """Return the τ¹ coefficient of f(A + τE) for a primary function f of symmetric A, E."""
    return first_order_along(_primary(scalar_map), [matrix], [direction], digits)


def second_order_term(scalar_map: ScalarMap, matrix, direction, digits: int = 60) -> Matrix:
    """Return the τ² coefficient of f(A + τE) for a primary function f of symmetric A, E.

    For f = 1/x it is A⁻¹ E A⁻¹ E A⁻¹. See :func:`second_order_along`.

    >>> print(mp.nstr(second_order_term(lambda x: 1 / x, [[2]], [[1]])[0, 0], 10))
    0.125
    """
    return second_order_along(_primary(scalar_map), [matrix], [direction], digits)


def batched_power(matrices: np.ndarray, power: Number, damping: float = 0.0) -> np.ndarray:
    """Return (A + damping·I)^power of symmetric positive float64 matrices [*, d, d].

    By numpy's eigensolver: for the estimators inside a Monte Carlo, good to float64 rounding
    times the condition number; the judge of digits is :func:`inverse_root`.

    Raises:
        DivergentExpectation: for an eigenvalue ≤ 0 under a negative power.
    """
    eigenvalues, basis = np.linalg.eigh(matrices)
    damped = eigenvalues + damping
    exponent = as_fraction(power, "power")
    if exponent < 0 and np.any(damped <= 0):
        raise DivergentExpectation(
            f"{np.count_nonzero(damped <= 0)} eigenvalues of {damped.size} are not positive, the "
            f"smallest {damped.min():.3g}; a power of {exponent} needs damping or more samples."
        )
    return (basis * damped[..., None, :] ** float(exponent)) @ np.swapaxes(basis, -1, -2)


def _primary(scalar_map: ScalarMap) -> MatrixMap:
    return lambda a: symmetric_function(a, scalar_map)


def _difference(
    matrix_map: MatrixMap, points: Sequence, directions: Sequence, digits: int, order: int
) -> Matrix:
    """Return the first or second central difference quotient, checked with a second step."""
    exponent = digits // 2 + STEP_DIGITS
    # h² cancels twice the step's digits; the rest are guards.
    with mpmath.workdps(digits + 2 * exponent + GUARD_DIGITS):
        centers = [exact_matrix(a, "a point") for a in points]
        slopes = [exact_matrix(e, "a direction") for e in directions]
        _check_shapes(centers, slopes)
        size, length = _largest(centers), _largest(slopes)
        # Along zero nothing moves; any step will do.
        unit = (size or mp.mpf(1)) / (length or mp.mpf(1))
        middle = matrix_map(*centers)
        # The floor is for maps that are linear or constant, whose term is exactly zero.
        floor = _largest([middle]) / unit**order

        def moved(step: mpmath.mpf) -> Matrix:
            return matrix_map(*(a + step * e for a, e in zip(centers, slopes, strict=True)))

        def quotient(step: mpmath.mpf) -> Matrix:
            ahead, behind = moved(step), moved(-step)
            if order == 1:
                return (ahead - behind) / (2 * step)
            return (ahead - 2 * middle + behind) / (2 * step**2)

        value, coarse = (quotient(unit * mp.mpf(10) ** -k) for k in (exponent, exponent - 1))
        scale = max(_largest([value]), floor)
        _check_precision(middle, moved(unit * mp.mpf(10) ** -exponent), moved, unit)
        error = _largest([value - coarse])
        if error > mp.mpf(10) ** -digits * scale:
            raise NotConverged(
                f"the quotient moved by {mp.nstr(error / scale, 3)} of its size between two "
                f"steps, above 10^-{digits}; is the map smooth at this point, and does it keep "
                "all digits of mp.dps?"
            )
    with mpmath.workdps(digits):
        return +value


def _check_precision(
    middle: Matrix, near: Matrix, moved: Callable[[mpmath.mpf], Matrix], unit: mpmath.mpf
) -> None:
    """Raise if entries stand still over a tiny step and move over a large one.

    A map in float64 would otherwise pass for a constant one, and its term for zero.
    """
    still = [k for k, (x, y) in enumerate(zip(middle, near, strict=True)) if x == y]
    if not still:
        return
    far, size = list(moved(unit / 1000)), _largest([middle])
    if any(abs(far[k] - list(middle)[k]) > mp.mpf(10) ** -14 * size for k in still):
        raise NotConverged(
            "the map does not see so small a step; compute it at the current mp.dps, not in "
            "floats, or is it not smooth?"
        )


def _largest(matrices: Sequence[Matrix]) -> mpmath.mpf:
    return max(abs(entry) for matrix in matrices for entry in matrix)


def _check_shapes(points: Sequence[Matrix], directions: Sequence[Matrix]) -> None:
    shapes = [[(a.rows, a.cols) for a in side] for side in (points, directions)]
    if not points or shapes[0] != shapes[1]:
        raise ValueError(
            f"points of shapes {shapes[0]} and directions of shapes {shapes[1]}; pass one "
            "direction per point, of its shape, and at least one point."
        )


def _symmetric(matrix: Matrix) -> Matrix:
    if matrix.rows != matrix.cols:
        raise ValueError(f"the matrix is {matrix.rows} × {matrix.cols}; it must be square.")
    asymmetry = _largest([matrix - matrix.T])
    if asymmetry > ROUNDING * _largest([matrix]):
        raise ValueError(
            f"the matrix is not symmetric: it differs by {mp.nstr(asymmetry, 3)} from its own "
            "transpose; pass (A + Aᵀ)/2."
        )
    return (matrix + matrix.T) / 2


def _number(entry: object, name: str) -> mpmath.mpf:
    if isinstance(entry, mpmath.mpf) and mp.isfinite(entry):
        return +entry  # the fast way for what is many digits long already
    return as_mpf(as_fraction(entry, name))
