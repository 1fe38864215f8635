"""Matrix functions to many digits; differences against algebra that uses no difference."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from mpmath import mp

from deltabias.truth import (
    DivergentExpectation,
    NotConverged,
    batched_power,
    exact_matrix,
    first_order_along,
    first_order_term,
    inverse_root,
    orthogonal,
    polar_factor,
    second_order_along,
    second_order_term,
    spectrum,
    symmetric_function,
    to_float64,
)

DIGITS = 60
SPECTRA = {
    "well separated": spectrum(4, 20),
    "gaps of 1e-9": np.array([1.0, 1.0 + 1e-9, 1.0 + 2e-9, 3.0]),
    "repeated": np.array([1.0, 1.0, 1.0, 2.0]),
    "all equal": np.ones(4),
    "condition 1e12": spectrum(4, 1e12),
    "dimension 1": np.array([0.3]),
    "dimension 8": spectrum(8, 1e6),
}


def symmetric(rng, dim):
    e = rng.standard_normal((dim, dim))
    return e + e.T


def case(name):
    """A symmetric matrix of that spectrum in a random rotation, and a direction; float64."""
    rng, eigenvalues = np.random.default_rng(7), SPECTRA[name]
    basis = orthogonal(rng, len(eigenvalues))
    matrix = (basis * eigenvalues) @ basis.T
    return 0.5 * (matrix + matrix.T), symmetric(rng, len(eigenvalues))


def distance(value, reference):
    """The largest difference over the largest entry, at 200 digits."""
    with mpmath.workdps(200):
        size = max(abs(x) for x in reference)
        return max(abs(x) for x in value - reference) / size


def exact(*matrices):
    return [exact_matrix(a) for a in matrices]


@pytest.mark.parametrize("name", SPECTRA)
def test_second_order_of_the_inverse_is_the_neumann_term(name):
    # (A + τE)⁻¹ = A⁻¹ − τ A⁻¹EA⁻¹ + τ² A⁻¹EA⁻¹EA⁻¹ − …
    a, e = case(name)
    found = second_order_term(lambda x: 1 / x, a, e, DIGITS)
    with mpmath.workdps(150):
        am, em = exact(a, e)
        inverse = am**-1
        reference = inverse * em * inverse * em * inverse
    assert distance(found, reference) < mp.mpf(10) ** -(DIGITS - 2)
    assert distance(found, 2 * reference) > 0.4  # the second derivative, not its half


@pytest.mark.parametrize("name", SPECTRA)
def test_second_order_of_the_root_solves_its_sylvester_equation(name):
    # X = A^{1/2}: X² = A + τE gives X X₂ + X₂ X = −X₁², X X₁ + X₁ X = E
    a, e = case(name)
    first = first_order_term(mp.sqrt, a, e, DIGITS)
    second = second_order_term(mp.sqrt, a, e, DIGITS)
    with mpmath.workdps(DIGITS):
        x = symmetric_function(a, mp.sqrt)
        tolerance = mp.mpf(10) ** -(DIGITS - 16)  # the condition of the equation, up to 1e12
        assert distance(x * first + first * x, exact_matrix(e)) < tolerance
        assert distance(x * second + second * x, -first * first) < tolerance
        assert distance(x * second + second * x, first * first) > 1


@pytest.mark.parametrize("root", [1, 2, 4, 3, 8, Fraction(4, 3)])
@pytest.mark.parametrize("name", SPECTRA)
def test_inverse_roots_undo_their_powers(name, root):
    a, _ = case(name)
    with mpmath.workdps(100):
        x = inverse_root(a, root, digits=100)
        # (A^{−q/p})^p = A^{−q}
        root = Fraction(root)
        power, am = x**root.numerator, exact_matrix(a) ** root.denominator
        identity = power * am
        # 100 digits less the condition of A³, up to 1e36
        assert distance(identity, mp.eye(identity.rows)) < mp.mpf(10) ** -60
        assert distance(x ** (root.numerator + 1) * am, mp.eye(identity.rows)) > mp.mpf(10) ** -12 \
            or name == "all equal"  # fmt: skip


@pytest.mark.parametrize("power", ["-1", "-1/2", "-1/4", "-3/4"])
def test_dimension_one_gives_back_the_scalar_coefficients(power):
    exponent = Fraction(power)
    found = second_order_term(lambda x: x ** (mp.mpf(exponent.numerator) / exponent.denominator),
                              [[2]], [[3]], DIGITS)  # fmt: skip
    with mpmath.workdps(80):
        s = mp.mpf(exponent.numerator) / exponent.denominator
        reference = s * (s - 1) / 2 * 9 * mp.mpf(2) ** (s - 2)
        assert abs(found[0] / reference - 1) < mp.mpf(10) ** -(DIGITS - 2)


def test_rank_deficient_matrices_need_damping_and_are_exact_with_it():
    # A = v vᵀ: (A + δI)^{−1/2} = δ^{−1/2} (I − P) + (|v|² + δ)^{−1/2} P
    v = np.array([[1.0], [2.0], [-3.0]])
    with pytest.raises(ValueError, match="singular or indefinite"):
        inverse_root(v @ v.T, 2, digits=50)
    found = inverse_root(v @ v.T, 2, damping="1e-6", digits=50)
    with mpmath.workdps(60):
        projector = exact_matrix(v @ v.T) / 14
        delta = mp.mpf(1) / 10**6
        reference = (mp.eye(3) - projector) / mp.sqrt(delta) + projector / mp.sqrt(14 + delta)
    assert distance(found, reference) < mp.mpf(10) ** -48


def test_precision_outside_is_left_alone_and_answers_are_rounded_to_digits():
    mp.dps = 15
    value = inverse_root([[2]], 2, digits=40)[0]
    assert mp.dps == 15
    with mpmath.workdps(60):
        assert mp.mpf(10) ** -42 < abs(value - 1 / mp.sqrt(2)) < mp.mpf(10) ** -39


@pytest.mark.parametrize("shape", [(1, 3), (3, 3), (2, 4), (4, 2)])
def test_the_polar_factor_is_orthogonal_and_aligned(shape):
    g = np.random.default_rng(2).standard_normal(shape)
    with mpmath.workdps(50):
        u, gm = polar_factor(g), exact_matrix(g)
        gram = u * u.T if shape[0] <= shape[1] else u.T * u
        assert distance(gram, mp.eye(min(shape))) < mp.mpf(10) ** -45
        stretch = u.T * gm
        assert distance(stretch, stretch.T) < mp.mpf(10) ** -45  # symmetric: UᵀG = (GᵀG)^{1/2}
    w, _, vt = np.linalg.svd(g, full_matrices=False)
    assert np.abs(to_float64(u) - w @ vt).max() < 1e-14


def test_a_product_of_several_matrices_has_its_cross_terms():
    # (A+τE)(M+τF)(B+τH): τ² is E F B + E M H + A F H
    rng = np.random.default_rng(3)
    a, b, e, h = (symmetric(rng, 2) for _ in range(4))
    m, f = rng.standard_normal((2, 2)), rng.standard_normal((2, 2))
    found = second_order_along(lambda x, y, z: x * y * z, [a, m, b], [e, f, h], DIGITS)
    with mpmath.workdps(80):
        a, m, b, e, f, h = exact(a, m, b, e, f, h)
        reference = e * f * b + e * m * h + a * f * h
        without_cross = e * f * b + a * f * h
    assert distance(found, reference) < mp.mpf(10) ** -(DIGITS - 2)
    assert distance(without_cross, reference) > 0.01


def test_linear_and_constant_maps_and_zero_directions_have_no_second_order():
    a, e = case("well separated")
    zero = np.zeros_like(a)
    for terms in (
        second_order_along(lambda x: 3 * x, [a], [e], DIGITS),
        second_order_term(mp.sqrt, a, zero, DIGITS),
        first_order_term(mp.sqrt, a, zero, DIGITS),
        second_order_along(lambda x: x, [zero], [zero], DIGITS),
    ):
        assert max(abs(x) for x in terms) < mp.mpf(10) ** -DIGITS


def test_first_order_is_odd_and_second_order_is_even():
    a, e = case("repeated")
    ahead, behind = (first_order_term(mp.log, a, s * e, 40) for s in (1.0, -1.0))
    twice, once = (second_order_term(mp.log, a, s * e, 40) for s in (2.0, -1.0))
    with mpmath.workdps(40):
        assert distance(ahead, -behind) < mp.mpf(10) ** -38
        assert distance(twice, 4 * once) < mp.mpf(10) ** -38


@pytest.mark.parametrize(
    "matrix_map",
    [
        lambda x: symmetric_function(x, lambda t: abs(t - 1)),  # a kink at an eigenvalue
        lambda x: exact_matrix(to_float64(symmetric_function(x, mp.sqrt))),  # 16 digits only
        lambda x: symmetric_function(x, mp.sqrt, 30),
    ],
    ids=["a kink", "a map in float64", "a map of 30 digits"],
)
def test_maps_that_are_not_smooth_or_not_precise_are_refused(matrix_map):
    with pytest.raises(NotConverged, match=r"smooth|not in floats"):
        second_order_along(matrix_map, [[[1, 0], [0, 2]]], [[[1, 1], [1, 0]]], 30)


def test_the_float64_power_agrees_with_the_exact_one():
    a, _ = case("well separated")
    for power in ("-1", "-1/2", "-1/4", "3/2"):
        exponent = Fraction(power)
        exact_value = symmetric_function(
            a, lambda x, s=exponent: x ** (mp.mpf(s.numerator) / s.denominator), 30
        )
        found = batched_power(np.stack([a, a]), power)
        assert np.abs(found[1] - to_float64(exact_value)).max() < 1e-13
    with pytest.raises(DivergentExpectation, match="need"):
        batched_power(np.diag([1.0, -1.0]), "-1/2")


BAD = {
    "not square": (lambda: symmetric_function([[1, 2]], mp.exp), "1 × 2; it must be square"),
    "not symmetric": (lambda: symmetric_function([[1, 2], [0, 1]], mp.exp), "differs by 2.0"),
    "NaN": (lambda: symmetric_function([[float("nan")]], mp.exp), "not finite"),
    "an mpf NaN": (lambda: exact_matrix([[mp.nan]]), "not finite"),
    "empty": (lambda: exact_matrix([[]]), "at least 1"),
    "0-size": (lambda: exact_matrix(np.zeros((0, 0))), "at least 1"),
    "a vector": (lambda: exact_matrix([1, 2]), "list of rows"),
    "indefinite": (lambda: inverse_root([[1, 2], [2, 1]], 2), "singular or indefinite"),
    "a zero matrix": (lambda: inverse_root(np.zeros((2, 2)), 2), "singular or indefinite"),
    "root 0": (lambda: inverse_root([[1]], 0), "root=0 must be positive"),
    "negative damping": (lambda: inverse_root([[1]], 2, damping=-1), "damping=-1"),
    "directions of another shape": (
        lambda: second_order_term(mp.exp, [[1]], [[1, 0], [0, 1]]),
        "one direction per point",
    ),
    "no points": (lambda: first_order_along(lambda: None, [], []), "at least one point"),
    "a polar factor of rank 1": (lambda: polar_factor([[1, 2], [2, 4]]), "singular"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
