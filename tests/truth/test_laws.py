"""Moments of the laws: against integrals of their densities, against cumulants, against samples."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from mpmath import mp

from deltabias.truth import (
    LAWS,
    Discrete,
    Empirical,
    Gamma,
    Laplace,
    LogNormal,
    MomentDoesNotExist,
    Normal,
    ScaledChiSquare,
    Shifted,
    StudentT,
    TwoPoint,
    law,
    skewed_discrete,
)
from deltabias.truth.exact import as_fraction, as_mpf

INF = mp.inf


def gamma_density(x, shape, scale):
    return x ** (shape - 1) * mp.exp(-x / scale) / (mp.gamma(shape) * scale**shape)


def lognormal_density(x):
    return mp.npdf(mp.log(x), mp.mpf(1) / 10, mp.mpf(1) / 2) / x


def student_t9_density(x):
    z = (x - 1) / 2
    return mp.gamma(5) / (mp.gamma(4.5) * mp.sqrt(9 * mp.pi) * 2) * (1 + z * z / 9) ** -5


# Each density is written down here a second time, and knows nothing of the law's own moments.
DENSITIES = {
    "normal": (Normal("0.3", 2), lambda x: mp.npdf(x, mp.mpf("0.3"), 2), [-40, 0, 40]),
    "gamma": (Gamma("2.5", 3), lambda x: gamma_density(x, mp.mpf(2.5), 3), [0, 5, 20, 400]),
    "chi2": (ScaledChiSquare(3, 2), lambda x: gamma_density(x, mp.mpf(1.5), 4), [0, 5, 20, 400]),
    "lognormal": (LogNormal("0.1", "0.5"), lognormal_density, [0, 1, 5, 50, 500, INF]),
    "laplace": (Laplace(1, "0.5"), lambda x: mp.exp(-abs(x - 1) * 2), [-50, 1, 50]),
    "student_t": (StudentT(9, 1, 2), student_t9_density, [-INF, 1, INF]),
    "shifted": (Shifted(Gamma(1, 2), -1), lambda x: mp.exp(-(x + 1) / 2) / 2, [-1, 5, 200]),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_moments_are_the_integrals_of_the_density(name):
    tested, density, nodes = DENSITIES[name]
    with mpmath.workdps(25):
        for n in range(5):
            integral = mp.quad(lambda x, n=n: x**n * density(x), nodes, maxdegree=9)
            assert mp.almosteq(integral, as_mpf(tested.moment(n)), rel_eps=mp.mpf(10) ** -13)


@pytest.mark.parametrize("shape", [1, Fraction(1, 3), 7])
def test_gamma_cumulants_are_factorials(shape):
    scale = Fraction(2, 5)
    for n in range(1, 8):
        assert Gamma(shape, scale).cumulant(n) == math.factorial(n - 1) * shape * scale**n


def test_normal_has_no_cumulant_beyond_the_second():
    cumulants = [Normal("0.7", "1.3").cumulant(n) for n in range(1, 9)]
    assert cumulants == [Fraction(7, 10), Fraction(169, 100), 0, 0, 0, 0, 0, 0]


def test_a_shift_moves_the_first_cumulant_only():
    inner = Gamma(3, 2)
    shifted = Shifted(inner, "-4.5")
    assert shifted.mean == Fraction(3, 2)
    for n in range(2, 7):
        assert shifted.cumulant(n) == inner.cumulant(n)


def test_small_lognormal_cumulants_keep_all_digits():
    # With w = e^{σ²}: κ₄ = m⁴ (w − 1)³ (w³ + 3w² + 6w + 6), m = √w. At σ = 1e−6 plain moments
    # cancel 36 of their digits.
    with mpmath.workdps(30):
        w = mp.exp(mp.mpf(10) ** -12)
    with mpmath.workdps(60):
        w = mp.exp(mp.mpf(10) ** -12)
        expected = w**2 * (w - 1) ** 3 * (w**3 + 3 * w**2 + 6 * w + 6)
    with mpmath.workdps(30):
        found = LogNormal(0, "1e-6").cumulant(4)
        assert abs(found / expected - 1) < mp.mpf(10) ** -28


def test_lognormal_of_no_spread_is_a_constant():
    assert LogNormal(0, 0).cumulant(1) == 1
    assert LogNormal(0, 0).cumulant(2) == 0


# n and the threshold |z| < 5 are fixed: false alarm 6e−7 per assert, 16 asserts.
SAMPLES = 200_000


def z_scores(samples, moments):
    """z of the first two raw sample moments against given ones, by their own standard errors."""
    powers = np.stack([samples, samples**2])
    errors = powers.std(axis=1, ddof=1) / math.sqrt(samples.size)
    return (powers.mean(axis=1) - np.array([float(m) for m in moments])) / errors


@pytest.mark.parametrize("name", LAWS)
def test_samples_have_the_moments_of_the_law(name):
    tested = law(name, mean=2, sd="0.5")
    samples = tested.sample(np.random.default_rng(7), SAMPLES)
    assert samples.dtype == np.float64
    assert np.abs(z_scores(samples, [tested.moment(1), tested.moment(2)])).max() < 5


def test_the_sampling_check_rejects_a_law_that_is_two_percent_too_wide():
    samples = Normal(0, "1.02").sample(np.random.default_rng(7), SAMPLES)
    assert np.abs(z_scores(samples, [0, 1])).max() > 5


FINITE = [
    Discrete([0, 1, 5], ["0.2", "0.3", "0.5"]),
    TwoPoint(-1, 4, "0.1"),
    Empirical([1, 2, 2, 7]),
]


@pytest.mark.parametrize("tested", FINITE)
def test_finite_laws_are_sampled_with_their_probabilities(tested):
    samples = tested.sample(np.random.default_rng(3), (100, 2000))
    assert samples.shape == (100, 2000)
    assert set(np.unique(samples)) == {float(x) for x in tested.points}
    assert np.abs(z_scores(samples.ravel(), [tested.moment(1), tested.moment(2)])).max() < 5


@pytest.mark.parametrize("skewness", [0, "0.5", 2, 7, "-1.5"])
def test_skewed_discrete_has_exactly_the_moments_it_was_asked_for(skewness):
    tested = skewed_discrete("0.3", "1.7", skewness)
    assert tested.mean == Fraction(3, 10)
    assert tested.variance == Fraction(17, 10) ** 2
    assert tested.cumulant(3) == as_fraction(skewness) * Fraction(17, 10) ** 3
    assert len(tested.points) == (2 if skewness == 0 else 3)


def test_empirical_law_is_the_discrete_law_of_its_counts():
    empirical = Empirical([3, 1, 1, 0.5])
    discrete = Discrete([0.5, 1, 3], ["1/4", "1/2", "1/4"])
    assert (empirical.points, empirical.weights) == (discrete.points, discrete.weights)


def test_discrete_merges_repeated_points_and_drops_empty_ones():
    assert Discrete([2, 1, 1, 9], ["1/2", "1/4", "1/4", 0]) == Discrete([1, 2], ["1/2", "1/2"])


@pytest.mark.parametrize("name", LAWS)
def test_named_laws_have_the_mean_and_deviation_asked_for(name):
    tested = law(name, mean="1.5", sd="0.25")
    with mpmath.workdps(50):
        tiny = mp.mpf(10) ** -48
        assert abs(as_mpf(tested.mean) - mp.mpf("1.5")) < tiny
        assert abs(as_mpf(tested.variance) - mp.mpf("0.0625")) < tiny


def test_the_skewed_law_has_skewness_two_and_the_symmetric_ones_none():
    assert law("skewed", mean=0, sd=3).skewness == 2
    for name in ("normal", "laplace", "student_t", "two_point"):
        assert law(name, mean="0.1", sd=3).skewness == 0
        assert law(name, mean="0.1", sd=3).center_of_symmetry == Fraction(1, 10)
    for name in ("gamma", "chi2", "lognormal", "skewed"):
        assert law(name, mean=1, sd=3).center_of_symmetry is None


def test_an_asymmetric_finite_law_has_no_center():
    assert TwoPoint(0, 1, "1/3").center_of_symmetry is None
    assert Discrete([0, 1, 2], ["1/4", "1/2", "1/4"]).center_of_symmetry == 1


@pytest.mark.parametrize("written", ["0.1", Fraction(1, 10), "1/10", "1e-1"])
def test_parameters_are_kept_exactly(written):
    assert Normal(written, 1).mean == Fraction(1, 10)


def test_a_float_parameter_is_the_binary_number_that_it_is():
    assert Normal(0.1, 1).mean == Fraction(0.1) != Fraction(1, 10)
    assert Normal(mp.mpf("0.375"), 1).mean == Fraction(3, 8)
    assert Normal(np.float32(0.5), np.int64(2)) == Normal("1/2", 2)


@pytest.mark.parametrize("n", [5, 6])
def test_a_moment_of_the_t_law_that_diverges_is_refused(n):
    with pytest.raises(MomentDoesNotExist, match=f"moment {n} of a t law with dof=5"):
        StudentT(5).moment(n)


def test_a_constant_has_no_skewness():
    with pytest.raises(MomentDoesNotExist, match="constant"):
        _ = Normal(1, 0).skewness


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Normal(0, -1), "sd=-1 must not be negative"),
        (lambda: Gamma(0), "shape=0 must be positive"),
        (lambda: ScaledChiSquare(3, -2), "scale=-2 must be positive"),
        (lambda: Laplace(0, 0), "scale=0 must be positive"),
        (lambda: StudentT(-1), "dof=-1 must be positive"),
        (lambda: TwoPoint(1, 1), "must be less than"),
        (lambda: TwoPoint(0, 1, 1), "strictly between 0 and 1"),
        (lambda: Discrete([1, 2], ["1/2", "1/3"]), "add to 1 -0.167"),
        (lambda: Discrete([1, 2], [2, -1]), "is negative"),
        (lambda: Discrete([1, 2], [1]), "equally many"),
        (lambda: Discrete(range(10), [0.1] * 10), "pass Fractions"),
        (lambda: Empirical([1]), "at least 2"),
        (lambda: Normal("one", 1), "is no number"),
        (lambda: Normal(float("nan"), 1), "not finite"),
        (lambda: Normal(0, 1).moment(-1), "at least 0"),
        (lambda: Normal(0, 1).cumulant(0), "at least 1"),
        (lambda: skewed_discrete(0, 0, 1), "must be positive"),
        (lambda: law("cauchy", mean=0, sd=1), "choose one of normal"),
        (lambda: law("gamma", mean=0, sd=1), "must be > 0"),
        (lambda: law("normal", mean=0, sd=0), "sd=0 must be positive"),
    ],
)
def test_bad_parameters_are_named(build, text):
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize("value", [True, None, 1j, [1]])
def test_what_is_no_real_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="mean="):
        Normal(value, 1)


def test_shifting_something_else_than_a_law_is_a_type_error():
    with pytest.raises(TypeError, match="must be a Law"):
        Shifted("gamma", 1)
