"""Wishart inverse moments: closed forms, quadratures, samples agree; what diverges is refused."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from mpmath import mp

from deltabias.truth import (
    DivergentExpectation,
    Gamma,
    NotConverged,
    exact_matrix,
    inverse_moment,
    matrix_closed_forms,
    matrix_law,
    second_order_along,
    to_float64,
    wishart_inverse_mean,
    wishart_inverse_sandwich_mean,
    wishart_log_det_mean,
    wishart_power_mean_identity,
    wishart_power_mean_two,
    wishart_trace_mean,
)

HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)
SIGMA = matrix_law("wishart", 3, condition=20, seed=2).row_cov
MIDDLE = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0], [0.5, 0.0, 3.0]])


def close(value, reference, tolerance):
    return abs(value / reference - 1) < mp.mpf(tolerance)


def gamma_moment(samples, power):
    """W at d = 1 is a χ² over n, a Gamma(n/2, 2/n): the scalar closed form, found elsewhere."""
    return inverse_moment(Gamma(Fraction(samples, 2), Fraction(2, samples)), power, 40)


@pytest.mark.parametrize("samples", [3, 8, 64])
@pytest.mark.parametrize("power", [1, HALF, QUARTER])
def test_dimension_one_is_the_gamma_law(samples, power):
    with mpmath.workdps(40):
        found = wishart_power_mean_identity(1, samples, power, digits=30)
        assert close(found.values[0], gamma_moment(samples, power), "1e-30")


def test_dimension_one_closed_forms_are_the_gamma_law():
    with mpmath.workdps(40):
        inverse = wishart_inverse_mean([[2]], 9)[0]
        assert close(2 * inverse, gamma_moment(9, 1), "1e-38")
        square = wishart_inverse_sandwich_mean([[2]], 9, [[3]])[0]
        assert close(square * 4 / 3, gamma_moment(9, 2), "1e-38")


# Densities that vanish slowly, quickly, and with half-integer powers.
@pytest.mark.parametrize(("dim", "samples"), [(2, 4), (2, 5), (2, 64), (3, 5), (3, 8)])
def test_quadrature_at_power_one_is_the_closed_form(dim, samples):
    found = wishart_power_mean_identity(dim, samples, 1, digits=20)
    with mpmath.workdps(30):
        reference = wishart_inverse_mean(np.eye(dim), samples)[0, 0]
        assert close(reference, mp.mpf(samples) / (samples - dim - 1), "1e-28")
        assert abs(found.values[0] - reference) <= 10 * found.error + mp.mpf("1e-24")
        assert close(found.values[0], reference, "1e-20")
        wrong = mp.mpf(samples) / (samples - dim - 2) if samples > dim + 2 else mp.mpf(1)
        assert abs(found.values[0] - wrong) > 1e6 * found.error


@pytest.mark.parametrize("power", [HALF, QUARTER])
def test_the_angular_quadrature_agrees_with_the_radial_one(power):
    with mpmath.workdps(20):
        radial = wishart_power_mean_identity(2, 9, power).values[0]
        angular = wishart_power_mean_two((1, 1), 9, power)
        scaled = wishart_power_mean_two(("1/4", "1/4"), 9, power)
        assert close(angular.values[0], radial, "1e-12")
        factor = mp.root(4, power.denominator)
        assert close(scaled.values[1], radial * factor, "1e-12")


def test_the_angular_quadrature_at_power_one_is_the_closed_form_at_condition_20():
    found = wishart_power_mean_two((2, "1/10"), 8, 1)
    for value, variance in zip(found.values, (2, Fraction(1, 10)), strict=True):
        assert close(value, Fraction(8, 5) / variance, "1e-12")
    first, second = (wishart_power_mean_two(v, 8, 1).values for v in (("1/2", 1), (1, "1/2")))
    assert close(first[0], second[1], "1e-12")


def test_power_means_agree_with_samples():
    # z < 5 for each of 8 entries: false alarm 5e−6 at most. Seeds 0, 1; n = 40 000.
    for power in (HALF, QUARTER):
        exact = (wishart_power_mean_two((1, "1/2"), 8, power).values,
                 wishart_power_mean_identity(3, 8, power, digits=12).values)  # fmt: skip
        roots = (np.diag([1.0, 0.5]) ** 0.5, np.eye(3))
        for seed, (values, root) in enumerate(zip(exact, roots, strict=True)):
            x = np.random.default_rng(seed).standard_normal((40_000, len(root), 8))
            w = root @ (x @ np.swapaxes(x, 1, 2)) @ root / 8
            eigenvalues, basis = np.linalg.eigh(w)
            diagonal = np.einsum("nij,nj->ni", basis**2, eigenvalues ** -float(power))
            error = diagonal.std(axis=0) / 200
            z = (diagonal.mean(axis=0) - np.array(values, dtype=float)) / error
            assert np.abs(z).max() < 5
            # The plug-in's own target is far outside: the check sees the bias.
            target = np.diag(root) ** (-2 * float(power))
            assert np.min((diagonal.mean(axis=0) - target) / error) > 20


def test_inverse_moments_agree_with_samples():
    # 18 entries, |z| < 5: false alarm 1e−5. n = 16 gives W⁻¹ six moments.
    n, replicates = 16, 40_000
    root = np.linalg.cholesky(SIGMA)
    x = root @ np.random.default_rng(8).standard_normal((replicates, 3, n))
    inverse = np.linalg.inv(x @ np.swapaxes(x, 1, 2) / n)
    cases = (
        (inverse, wishart_inverse_mean(SIGMA, n)),
        (inverse @ MIDDLE @ inverse, wishart_inverse_sandwich_mean(SIGMA, n, MIDDLE)),
    )
    for values, exact in cases:
        error = values.std(axis=0) / np.sqrt(replicates)
        z = (values.mean(axis=0) - to_float64(exact)) / error
        assert np.abs(z).max() < 5
    transposed = to_float64(wishart_inverse_sandwich_mean(SIGMA, n, MIDDLE.T))
    assert np.abs((values.mean(axis=0) - transposed) / error).max() > 20
    log_det = np.linalg.slogdet(x @ np.swapaxes(x, 1, 2) / n)[1]
    z = (log_det.mean() - float(wishart_log_det_mean(SIGMA, n))) / (log_det.std() / 200)
    assert abs(z) < 5


def test_the_sandwich_satisfies_the_identity_of_the_trace():
    # E tr(W⁻¹ΣW⁻¹Σ) from the eigenvalues of the Σ = I law, d = 2, by the quadrature at power 2
    with mpmath.workdps(30):
        sandwich = wishart_inverse_sandwich_mean(np.eye(2), 9, np.eye(2))
        quadrature = wishart_power_mean_identity(2, 9, 2)
        assert close(quadrature.values[0], sandwich[0, 0], "1e-20")


def test_the_bias_of_the_inverse_is_its_second_order_term_to_first_order_in_one_over_n():
    # E W⁻¹ − Σ⁻¹ = Σ⁻¹ (d + 1)/(n − d − 1); the delta term has (d + 1)/n. The order of what is
    # left over is measured: slope 2 in 1/n for the right coefficient, 1 for a wrong one.
    dim, sizes = 3, (100, 1000)
    for coefficient, slope in ((dim + 1, 2), (dim, 1)):
        left = []
        for n in sizes:
            gap = wishart_inverse_mean(np.eye(dim), n)[0, 0] - 1
            left.append(abs(gap - mp.mpf(coefficient) / n))
        measured = mp.log(left[0] / left[1]) / mp.log(10)
        assert abs(measured - slope) < 0.1


def test_the_delta_term_of_the_inverse_comes_out_of_second_differences():
    # ½ E D²f[δ, δ] over the Gaussian covariance of W: Σ over a basis, Var Wᵢᵢ = 2/n, Var Wᵢⱼ = 1/n
    dim, n, total = 2, 50, None
    for i in range(dim):
        for j in range(i, dim):
            direction = np.zeros((dim, dim))
            direction[i, j] = direction[j, i] = 1.0
            term = second_order_along(lambda a: a**-1, [np.eye(dim)], [direction], 30)
            term = term * mp.mpf(2 if i == j else 1) / n
            total = term if total is None else total + term
    assert abs(total[0, 0] - mp.mpf(dim + 1) / n) < 1e-14
    assert abs(total[0, 1]) < 1e-14


def test_means_without_an_inverse_are_unbiased_or_known():
    with mpmath.workdps(30):
        trace = sum(exact_matrix(SIGMA)[i, i] for i in range(3))
        assert abs(wishart_trace_mean(SIGMA, 30) - trace) < mp.mpf("1e-28")
        # χ²₂/2 is exponential: E log = −γ; d = 2, n = 2 adds the χ²₁
        value = wishart_log_det_mean(np.eye(2), 2, 30)
        reference = mp.digamma(1) + mp.digamma(mp.mpf(1) / 2)
        assert abs(value - reference) < mp.mpf("1e-28")


def test_condition_1e12_keeps_its_digits():
    sigma = matrix_law("wishart", 4, condition=1e12).row_cov
    with mpmath.workdps(60):
        product = wishart_inverse_mean(sigma, 20, 50) * exact_matrix(sigma) * 15 / 20
        assert max(abs(x) for x in product - mp.eye(4)) < mp.mpf("1e-36")


DIVERGENT = {
    "E W⁻¹ at n = d + 1": lambda: wishart_inverse_mean(np.eye(3), 4),
    "E W⁻¹ at n < d": lambda: wishart_inverse_mean(np.eye(3), 2),
    "E W⁻² at n = d + 3": lambda: wishart_inverse_sandwich_mean(np.eye(2), 5, np.eye(2)),
    "E log det W at n < d": lambda: wishart_log_det_mean(np.eye(3), 2),
    "E W^-1 at d = 2, n = 3": lambda: wishart_power_mean_identity(2, 3, 1),
    "E W^-1/2 at n < d": lambda: wishart_power_mean_identity(3, 2, HALF),
    "E W^-1/2 at n = d": lambda: wishart_power_mean_two((1, 2), 2, HALF),
}


@pytest.mark.parametrize("name", DIVERGENT)
def test_divergent_expectations_are_refused(name):
    with pytest.raises(DivergentExpectation, match="is infinite for d="):
        DIVERGENT[name]()


def test_the_border_of_existence_is_where_it_says():
    wishart_inverse_mean(np.eye(3), 5)
    wishart_log_det_mean(np.eye(3), 3)
    assert wishart_power_mean_identity(2, 2, QUARTER, digits=10).values[0] > 1


BAD = {
    "an indefinite Σ": (lambda: wishart_inverse_mean([[1, 2], [2, 1]], 9), "indefinite"),
    "a singular Σ": (lambda: wishart_inverse_mean([[1, 1], [1, 1]], 9), "singular"),
    "samples 0": (lambda: wishart_inverse_mean([[1]], 0), "samples=0"),
    "samples as a float": (lambda: wishart_inverse_mean([[1]], 9.0), "samples=9.0"),
    "d = 4": (lambda: wishart_power_mean_identity(4, 9, 1), "dim=4 is beyond"),
    "a power of 0": (lambda: wishart_power_mean_identity(2, 9, 0), "power=0"),
    "a variance of 0": (lambda: wishart_power_mean_two((1, 0), 9, 1), "must be positive"),
    "three variances": (lambda: wishart_power_mean_two((1, 1, 1), 9, 1), "3 variances"),
    "a middle of another size": (
        lambda: wishart_inverse_sandwich_mean(np.eye(2), 9, [[1]]),
        "middle is 1 × 1",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_more_digits_than_the_rule_reaches_are_refused(monkeypatch):
    monkeypatch.setattr(matrix_closed_forms, "FINEST_RULE", 5)  # its finest takes seconds to fail
    with pytest.raises(NotConverged, match=r"48 nodes still moved .* take fewer digits"):
        wishart_power_mean_identity(2, 20_000, QUARTER, digits=20)
