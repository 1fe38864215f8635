"""Matrix laws: moments that the samples have, rationals that stay rational, refusals by name."""

from fractions import Fraction

import numpy as np
import pytest

from deltabias.truth import (
    MATRIX_LAWS,
    FiniteMatrixLaw,
    MatrixNormal,
    MatrixSkewed,
    MatrixStudentT,
    MomentDoesNotExist,
    matrix_law,
    orthogonal,
    spectrum,
)

EYE = np.eye(2)
FINITE = FiniteMatrixLaw([[[1, 2, 0], [0, 1, -1]], [["1/2", 0, 0], [3, 0, 1]]], ["1/3", "2/3"])
LAWS = {
    **{name: matrix_law(name, 3, 2, column_condition=5, seed=4) for name in MATRIX_LAWS},
    "repeated eigenvalues": matrix_law("normal", 3, 2, condition=1),
    "condition 1e12": matrix_law("normal", 3, 2, condition=1e12, mean_scale=0),
    "singular": MatrixNormal(np.zeros((2, 2)), [[1, 1], [1, 1]], EYE),
    "dimension 1": MatrixSkewed([[2.0]], [[3.0]], [[0.5]]),
    "finite": FINITE,
}

# 9 laws × 3 moments, at most 9 entries: 200 z-values. |z| < 5.5 fails with probability 8e−6 in
# all of them together (heavy tails: dof 6 has three moments of G Gᵀ, enough for n = 20 000).
REPLICATES, THRESHOLD = 20_000, 5.5


def largest_z(samples, mean):
    error = samples.std(axis=0) / np.sqrt(len(samples))
    # An entry that never varies must be exact to rounding.
    floor = 1e-13 * np.abs(samples).max()
    return float(np.max(np.abs(samples.mean(axis=0) - mean) / (error + floor)))


def statistics(samples):
    transposed = np.swapaxes(samples, -1, -2)
    return samples, samples @ transposed, transposed @ samples


@pytest.mark.parametrize("name", LAWS)
def test_samples_have_the_stated_moments(name):
    law = LAWS[name]
    samples = law.sample(np.random.default_rng(11), REPLICATES)
    assert samples.shape == (REPLICATES, *law.dimensions)
    assert samples.dtype == np.float64
    moments = (law.mean, law.left_moment, law.right_moment)
    for values, moment in zip(statistics(samples), moments, strict=True):
        assert largest_z(values, moment) < THRESHOLD


@pytest.mark.parametrize("name", ["normal", "student_t", "skewed"])
def test_the_moment_check_rejects_a_swapped_trace(name):
    law = LAWS[name]
    wrong = law.mean @ law.mean.T + np.trace(law.row_cov) * law.row_cov
    samples = law.sample(np.random.default_rng(11), REPLICATES)
    assert largest_z(samples @ np.swapaxes(samples, -1, -2), wrong) > 2 * THRESHOLD


def test_noise_has_the_tails_it_is_named_for():
    rng, shape = np.random.default_rng(3), (40_000,)
    zero = {"row_cov": EYE, "col_cov": EYE, "mean": np.zeros((2, 2))}
    skewed = MatrixSkewed(**zero).sample(rng, shape)
    heavy = MatrixStudentT(**zero, dof=6).sample(rng, shape)
    assert abs(np.mean(skewed**3) - 2) < 0.15
    assert abs(np.mean(heavy**3)) < 0.3
    # Entries of one microbatch share their scale: E g²h² = (dof − 2)/(dof − 4) = 2 for dof 6.
    assert abs(np.mean(heavy[:, 0, 0] ** 2 * heavy[:, 1, 1] ** 2) - 2) < 0.3
    assert abs(np.mean(skewed[:, 0, 0] ** 2 * skewed[:, 1, 1] ** 2) - 1) < 0.15


def test_shapes_and_seeds_are_honored():
    law = LAWS["student_t"]
    first, again = (law.sample(np.random.default_rng(5), (4, 7)) for _ in range(2))
    assert first.shape == (4, 7, 3, 2)
    assert np.array_equal(first, again)
    assert FINITE.sample(np.random.default_rng(5), (4, 7)).shape == (4, 7, 2, 3)


def test_finite_moments_are_rational_and_exact():
    assert FINITE.exact_mean[0, 0] == Fraction(2, 3)
    assert FINITE.exact_left_moment[0, 0] == Fraction(5, 3) + Fraction(2, 3) / 4
    assert FINITE.exact_right_moment[0, 2] == Fraction(2)
    assert FINITE.exact_left_moment.trace() == FINITE.exact_right_moment.trace()


def test_equal_atoms_are_merged_and_impossible_ones_dropped():
    law = FiniteMatrixLaw([[[1]], [[2]], [[1]], [[9]]], ["1/4", "1/2", "1/4", 0])
    assert law == FiniteMatrixLaw([[[1]], [[2]]], ["1/2", "1/2"])
    assert len(law.index_law.points) == 2


def test_moments_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        LAWS["normal"].mean[0, 0] = 1.0


def test_spectrum_has_the_condition_and_the_trace():
    for dim, condition in ((2, 1e12), (8, 20), (32, 1)):
        eigenvalues = spectrum(dim, condition)
        assert eigenvalues.sum() == pytest.approx(dim, rel=1e-14)
        assert eigenvalues[-1] / eigenvalues[0] == pytest.approx(condition, rel=1e-12)
    assert spectrum(1, 100).tolist() == [1.0]


def test_rotations_are_orthogonal_and_not_diagonal():
    basis = orthogonal(np.random.default_rng(0), 6)
    assert np.abs(basis @ basis.T - np.eye(6)).max() < 1e-14
    assert np.abs(basis - np.diag(np.diag(basis))).max() > 0.3


def test_the_catalogue_makes_what_it_says():
    wishart = matrix_law("wishart", 8)
    assert np.linalg.cond(wishart.left_moment) == pytest.approx(20, rel=1e-10)
    assert np.allclose(wishart.right_moment, np.eye(8), atol=1e-14)
    assert not wishart.mean.any()
    normal = matrix_law("normal", 4, 6, mean_scale=0.5, column_condition=7)
    assert normal.dimensions == (4, 6)
    assert np.linalg.norm(normal.mean) == pytest.approx(1.0)
    assert np.linalg.cond(normal.col_cov) == pytest.approx(7, rel=1e-10)
    assert not np.array_equal(matrix_law("normal", 4, seed=1).row_cov, normal.row_cov)


NAN = float("nan")
BAD = {
    "a covariance that is not square": (
        lambda: MatrixNormal(EYE, np.ones((2, 3)), EYE),
        r"row_cov has shape \(2, 3\); the mean asks for \(2, 2\)",
    ),
    "a covariance of the wrong size": (lambda: MatrixNormal(EYE, EYE, np.eye(3)), "col_cov"),
    "an asymmetric covariance": (
        lambda: MatrixNormal(EYE, [[1, 0.1], [0, 1]], EYE),
        "row_cov is not symmetric: it differs by 0.1",
    ),
    "an indefinite covariance": (
        lambda: MatrixNormal(EYE, EYE, [[1, 2], [2, 1]]),
        "col_cov is indefinite: it has the eigenvalue -1",
    ),
    "NaN": (lambda: MatrixNormal([[NAN]], [[1]], [[1]]), "mean holds numbers"),
    "an infinity": (lambda: MatrixSkewed([[0]], [[float("inf")]], [[1]]), "row_cov holds numbers"),
    "an empty mean": (lambda: MatrixNormal(np.zeros((0, 2)), EYE, EYE), r"shape \(0, 2\)"),
    "a vector": (lambda: MatrixNormal([1.0, 2.0], EYE, EYE), r"shape \(2,\)"),
    "an infinite dof": (lambda: MatrixStudentT(EYE, EYE, EYE, float("inf")), "MatrixNormal"),
    "a gamma shape of zero": (lambda: MatrixSkewed(EYE, EYE, EYE, 0), "gamma_shape=0"),
    "a negative probability": (lambda: FiniteMatrixLaw([[[1]], [[2]]], [2, -1]), "negative"),
    "probabilities of 0.9": (lambda: FiniteMatrixLaw([[[1]]], ["0.9"]), "not to 1"),
    "atoms of two shapes": (lambda: FiniteMatrixLaw([[[1]], [[1, 2]]], [0, 1]), "one shape"),
    "a ragged atom": (lambda: FiniteMatrixLaw([[[1, 2], [3]]], [1]), "one length"),
    "an empty atom": (lambda: FiniteMatrixLaw([[]], [1]), "at least 1"),
    "a flat atom": (lambda: FiniteMatrixLaw([[1, 2]], [1]), "list of rows"),
    "no atoms": (lambda: FiniteMatrixLaw([], []), "0 points"),
    "a NaN atom": (lambda: FiniteMatrixLaw([[[NAN]]], [1]), "not finite"),
    "an unknown name": (
        lambda: matrix_law("cauchy", 2),
        "'cauchy' is unknown; choose one of wishart, normal, student_t, skewed",
    ),
    "dimension 0": (lambda: matrix_law("normal", 0), "dim=0 must be an int of at least 1"),
    "columns 0": (lambda: matrix_law("normal", 2, 0), "columns=0"),
    "a condition below 1": (lambda: matrix_law("normal", 2, condition=0.5), "at least 1"),
    "a Wishart with a mean": (lambda: matrix_law("wishart", 2, mean_scale=1.0), "asks for 'norm"),
    "a negative mean": (lambda: matrix_law("normal", 2, mean_scale=-1.0), "not negative"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dof", [4, 3, 0, -1, NAN])
def test_a_t_law_without_a_variance_of_its_products_is_refused(dof):
    with pytest.raises(MomentDoesNotExist, match="above 4"):
        MatrixStudentT(EYE, EYE, EYE, dof)
