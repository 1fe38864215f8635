"""Closed forms against series, quadrature, exact cumulants and enumeration."""

from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.truth import (
    DivergentExpectation,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    NotConverged,
    ScaledChiSquare,
    Shifted,
    TooManySamples,
    TwoPoint,
    expectation,
    expectation_of_mean_normal,
    inverse_moment,
    law_of_mean,
    skewed_discrete,
)
from deltabias.truth.exact import as_mpf


def test_inverse_of_a_unit_gamma_is_the_geometric_series():
    # E 1/X under Gamma(k, 1/k) is 1 + z + z² + …, z = 1/k.
    for k in (2, 5, 64):
        with mpmath.workdps(50):
            series = mp.nsum(lambda j, k=k: mp.mpf(k) ** -j, [0, mp.inf])
            found = inverse_moment(Gamma(k, Fraction(1, k)), 1)
            assert abs(found - series) < mp.mpf(10) ** -47
            # The delta method's two terms are not the answer, and the same check says so.
            assert abs(found - (1 + mp.mpf(1) / k)) > mp.mpf(10) ** -5


@pytest.mark.parametrize("power", ["1", "1/2", "1/4", "-2"])
@pytest.mark.parametrize(
    ("law", "density"),
    [
        (Gamma(3, 2), lambda x: x**2 * mp.exp(-x / 2) / 16),
        (ScaledChiSquare(6), lambda x: x**2 * mp.exp(-x / 2) / 16),
        (LogNormal("0.5", 1), lambda x: mp.npdf(mp.log(x), mp.mpf("0.5"), 1) / x),
    ],
)
def test_inverse_moments_are_integrals_of_the_density(law, density, power):
    with mpmath.workdps(25):
        p = as_mpf(Fraction(power))
        # x = e^y, so that both ends are smooth
        integral = mp.quad(
            lambda y: mp.exp((1 - p) * y) * density(mp.exp(y)), [-60, -20, -5, 0, 5, 10, 20]
        )
        assert abs(inverse_moment(law, power) / integral - 1) < mp.mpf(10) ** -14


def test_an_inverse_moment_that_diverges_is_refused():
    with pytest.raises(DivergentExpectation, match="shape must exceed 1"):
        inverse_moment(Gamma(1), 1)
    with pytest.raises(TypeError, match="no closed form"):
        inverse_moment(Normal(1, 1), 1)


@pytest.mark.parametrize("law", [Gamma("2.5", 3), ScaledChiSquare(3, 2), Shifted(Gamma(1, 2), -1),
                                 TwoPoint(-1, 2, "0.3"), skewed_discrete(1, 2, 3)])  # fmt: skip
@pytest.mark.parametrize("microbatches", [1, 4])
def test_cumulants_of_a_mean_fall_by_powers_of_m(law, microbatches):
    mean = law_of_mean(law, microbatches)
    for n in range(1, 6):
        assert mean.cumulant(n) == law.cumulant(n) / Fraction(microbatches) ** (n - 1)


def test_the_mean_of_normals_is_normal_to_sixty_digits():
    mean = law_of_mean(Normal(3, "0.7"), 5)
    assert mean.mean == 3
    assert abs(mean.variance - Fraction(49, 500)) < Fraction(1, 10**60)
    assert law_of_mean(Normal(3, 2), 16) == Normal(3, "1/2")


def test_laws_that_averaging_leaves_are_refused():
    with pytest.raises(TypeError, match="mean of 2 draws"):
        law_of_mean(Laplace(), 2)
    assert law_of_mean(Laplace(), 1) == Laplace()
    with pytest.raises(ValueError, match="at least 1"):
        law_of_mean(Normal(), 0)
    with pytest.raises(TooManySamples):
        law_of_mean(skewed_discrete(0, 1, 2), 4096)


def test_the_law_of_the_mean_is_what_enumeration_sees():
    law = skewed_discrete(2, "0.5", 2)
    with mpmath.workdps(50):
        mean = law_of_mean(law, 8)
        pairs = zip(mean.points, mean.weights, strict=True)
        expected = mp.fsum(as_mpf(w) / as_mpf(x) for x, w in pairs)
        assert abs(expectation(lambda s: 1 / s.mean, law, 8) - expected) < mp.mpf(10) ** -48


def test_normal_expectations_of_powers_are_double_factorials():
    found = expectation_of_mean_normal(lambda x: (x - 1) ** 8, 1, "0.25")
    with mpmath.workdps(30):
        assert abs(found - mp.fac2(7) / 4**4) < mp.mpf(10) ** -28


def test_the_folded_normal_mean_needs_its_breakpoint():
    # E|X| = √(2/π) σ e^{−μ²/2σ²} + μ erf(μ/(√2 σ))
    with mpmath.workdps(30):
        mean = mp.mpf(3) / 10
        folded = mp.sqrt(2 / mp.pi) * mp.exp(-(mean**2) / 2) + mean * mp.erf(mean / mp.sqrt(2))
        found = expectation_of_mean_normal(abs, "0.3", 1, breakpoints=[0])
        assert abs(found - folded) < mp.mpf(10) ** -28
    with pytest.raises(NotConverged, match="breakpoints"):
        expectation_of_mean_normal(abs, "0.3", 1, digits=15)


def test_the_variance_is_that_of_the_mean_and_not_its_root():
    found = expectation_of_mean_normal(lambda x: x * x, 0, 4)
    assert abs(found - 4) < 1e-12
    with pytest.raises(ValueError, match="must be positive"):
        expectation_of_mean_normal(lambda x: x, 0, 0)


@pytest.mark.parametrize("power", [2, 1])
def test_an_expectation_that_diverges_does_not_converge(power):
    with pytest.raises(NotConverged, match="does the expectation exist"):
        expectation_of_mean_normal(lambda x: abs(x) ** -power, 1, 1, digits=10, breakpoints=[0])
