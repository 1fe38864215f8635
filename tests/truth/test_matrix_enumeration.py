"""Exact expectations of matrix maps: unbiased maps stay exact, biased ones agree three ways."""

import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from mpmath import mp

from deltabias.truth import (
    FiniteMatrixLaw,
    TooManySamples,
    batched_power,
    every_batch,
    exact_matrix,
    inverse_root,
    matrix_expectation,
    matrix_law,
    second_order_along,
    to_float64,
)

LAW = FiniteMatrixLaw(
    [[[1, 0], ["1/2", 2]], [[-1, 3], [0, 1]], [[0, "1/3"], [2, -1]]], ["1/2", "1/3", "1/6"]
)
THIN = FiniteMatrixLaw([[[1], [2]], [[-1], [1]]], ["1/4", "3/4"])


def difference(value, reference):
    return max(abs(x) for x in value - exact_matrix(reference))


def test_means_of_statistics_are_the_exact_moments():
    with mpmath.workdps(50):
        mean, left, right = matrix_expectation(lambda s: (s.mean, s.left, s.right), LAW, 5)
        for value, moment in ((mean, LAW.exact_mean), (left, LAW.exact_left_moment),
                              (right, LAW.exact_right_moment)):  # fmt: skip
            assert difference(value, moment) < mp.mpf("1e-48")


def test_the_square_of_a_mean_has_the_variance_over_m():
    # E ḠḠᵀ = E G E Gᵀ + (E GGᵀ − E G E Gᵀ)/m: the two statistics of design §1.5 differ by up to m
    m, mean, left = 7, LAW.exact_mean, LAW.exact_left_moment
    reference = mean @ mean.T + (left - mean @ mean.T) / m
    with mpmath.workdps(50):
        value = matrix_expectation(lambda s: s.mean * s.mean.T, LAW, m)
        assert difference(value, reference) < mp.mpf("1e-48")
        assert difference(value, left) > 0.1
        assert difference(value, mean @ mean.T) > 0.01


def test_multisets_agree_with_all_ordered_sequences():
    m, total = 3, np.zeros((2, 2))
    atoms = [a.astype(float) for a in LAW.arrays]
    for places in itertools.product(range(3), repeat=m):
        weight = float(np.prod([float(LAW.probabilities[i]) for i in places]))
        batch = np.stack([atoms[i] for i in places])
        left = (batch @ batch.transpose(0, 2, 1)).mean(axis=0)
        total += weight * np.linalg.inv(left + 0.1 * np.eye(2))
    exact = matrix_expectation(lambda s: inverse_root(s.left, 1, damping="0.1"), LAW, m)
    assert np.abs(to_float64(exact) - total).max() < 1e-14
    assert np.abs(to_float64(exact) * 1.001 - total).max() > 1e-4


@pytest.mark.parametrize("root", [1, 2, 4])
def test_float64_batches_agree_with_many_digits(root):
    weights, gradients = every_batch(LAW, 6)
    left = (gradients @ np.swapaxes(gradients, -1, -2)).mean(axis=1)
    found = np.tensordot(weights, batched_power(left, Fraction(-1, root), 0.01), 1)
    exact = to_float64(matrix_expectation(
        lambda s: inverse_root(s.left, root, damping="0.01"), LAW, 6, digits=30))  # fmt: skip
    wrong = np.tensordot(weights, batched_power(left, Fraction(-1, root + 1), 0.01), 1)
    assert abs(weights.sum() - 1) < 1e-14
    assert np.abs(found / exact - 1).max() < 1e-13
    assert np.abs(wrong / exact - 1).max() > 1e-2


def test_batches_hold_each_gradient_as_often_as_it_was_drawn():
    weights, gradients = every_batch(THIN, 4)
    assert gradients.shape == (5, 4, 2, 1)
    sample = matrix_expectation(lambda s: mp.mpf(len(s.gradients)), THIN, 4)
    assert sample == 4
    assert np.allclose(np.tensordot(weights, gradients.mean(axis=1), 1), THIN.mean)


def test_fewer_columns_than_rows_need_damping():
    # m = 1: G Gᵀ has rank 1 in two dimensions
    with pytest.raises(ValueError, match="singular"):
        matrix_expectation(lambda s: inverse_root(s.left, 2), THIN, 1)
    value = matrix_expectation(lambda s: inverse_root(s.left, 2, damping=1), THIN, 1)
    assert np.all(np.linalg.eigvalsh(to_float64(value)) > 0)


def two_sided(mean, left, right):
    return inverse_root(left, 4) * mean * inverse_root(right, 4)


def test_the_remainder_of_the_second_order_term_is_of_second_order_in_one_over_m():
    # Two atoms, all cross and coupling terms at once: u = L^{-1/4} M R^{-1/4}. The delta term of m
    # is 1/m of Σ p (τ² coefficient along the atom's deviation); what is left has slope 2 in 1/m.
    law = FiniteMatrixLaw([[[2, 1], [0, 1]], [[1, -1], ["1/2", 2]], [[1, 0], [1, 2]]],
                          ["1/2", "1/4", "1/4"])  # fmt: skip
    with mpmath.workdps(40):
        point = [exact_matrix(a) for a in
                 (law.exact_mean, law.exact_left_moment, law.exact_right_moment)]  # fmt: skip
        target, term = two_sided(*point), mp.zeros(2)
        no_cross = mp.zeros(2)
        for atom, p in zip(law.arrays, law.probabilities, strict=True):
            g = exact_matrix(atom)
            deviation = [x - y for x, y in zip((g, g * g.T, g.T * g), point, strict=True)]
            weight = mp.mpf(p.numerator) / p.denominator
            term += weight * second_order_along(two_sided, point, deviation, 25)
            for k in range(3):  # one statistic at a time: own terms, no coupling, no cross
                alone = [x if i == k else 0 * x for i, x in enumerate(deviation)]
                no_cross += weight * second_order_along(two_sided, point, alone, 25)
        sizes = (20, 80)
        gaps = [
            matrix_expectation(lambda s: two_sided(s.mean, s.left, s.right), law, m, 25) - target
            for m in sizes
        ]
        for coefficient, low, high in ((term, 1.85, 2.15), (term / 2, 0.8, 1.2),
                                       (no_cross, 0.8, 1.2)):  # fmt: skip
            left = [mp.norm(gap - coefficient / m) for gap, m in zip(gaps, sizes, strict=True)]
            slope = mp.log(left[0] / left[1]) / mp.log(mp.mpf(sizes[1]) / sizes[0])
            assert low < slope < high


def test_object_arrays_of_fractions_and_numbers_are_values_too():
    value = matrix_expectation(
        lambda s: (np.array([[Fraction(1, 3)]], dtype=object), s.left[0, 0]), THIN, 2
    )
    with mpmath.workdps(50):
        assert abs(value[0][0] - mp.mpf(1) / 3) < mp.mpf("1e-49")
    assert value[1] == 1


def test_what_cannot_be_enumerated_is_refused():
    with pytest.raises(TypeError, match="has no finite support"):
        matrix_expectation(lambda s: s.mean, matrix_law("normal", 2), 3)
    with pytest.raises(TypeError, match="only 16 digits"):
        matrix_expectation(lambda s: 1.0, LAW, 3)
    with pytest.raises(TypeError, match="only 16 digits"):
        matrix_expectation(lambda s: np.eye(2), LAW, 3)
    with pytest.raises(TooManySamples, match="Monte Carlo"):
        every_batch(LAW, 2000)
    with pytest.raises(ValueError, match="at least 1"):
        every_batch(LAW, 0)
