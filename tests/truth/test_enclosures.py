"""Balls that must contain the closed forms, and must not contain their neighbors."""

import sys
from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.truth import (
    DivergentExpectation,
    Gamma,
    HolomorphicMap,
    MissingDependency,
    Normal,
    NotConverged,
    ScaledChiSquare,
    enclose,
    inverse_moment,
    inverse_power,
    inverse_root_plus_eps,
)

flint = pytest.importorskip("flint", reason="rigorous enclosures need python-flint")


def ball_of(number, digits=60):
    """The mpf as a ball of its own rounding."""
    with mpmath.workdps(digits), flint.ctx.workdps(digits + 5):
        return flint.arb(mp.nstr(number, digits), abs(float(number)) * 10.0 ** -(digits - 2))


def relative_radius(ball):
    return float(ball.rad()) / abs(float(ball.mid()))


@pytest.mark.parametrize("power", ["1", "1/2", "1/4", "-3/2"])
@pytest.mark.parametrize("shape", ["1.1", "2", "17/3", "400"])
def test_the_ball_contains_the_closed_form_to_thirty_digits(shape, power):
    law = Gamma(shape, "0.7")
    ball = enclose(inverse_power(power), law)
    exact = ball_of(inverse_moment(law, power, digits=60))
    assert relative_radius(ball) < 1e-30
    assert ball.contains(exact)
    # A number that is wrong in the 29th digit is outside: the ball is a sharp check.
    with flint.ctx.workdps(60):
        assert not ball.overlaps(exact * (1 + flint.arb("1e-29")))


@pytest.mark.parametrize("digits", [15, 50])
def test_the_radius_is_what_was_asked_for(digits):
    ball = enclose(inverse_power("1/2"), Gamma(3), digits=digits)
    assert relative_radius(ball) <= 10.0**-digits
    assert ball.contains(ball_of(inverse_moment(Gamma(3), "1/2", digits=100), digits=100))


def test_chi_square_is_a_gamma_law_by_another_name():
    ball = enclose(inverse_power("1/4"), ScaledChiSquare(3, 2))
    other = enclose(inverse_power("1/4"), Gamma("3/2", 4))
    assert ball.overlaps(other)


@pytest.mark.parametrize(("shape", "eps"), [(5, "0.1"), ("0.4", "0.01"), (1, "1e-8"), (64, 0)])
def test_an_eps_outside_the_root_agrees_with_quadrature(shape, eps):
    law = Gamma(shape, 2)
    ball = enclose(inverse_root_plus_eps(eps), law)
    with mpmath.workdps(30):
        k, theta, offset = mp.mpf(shape), mp.mpf(2), mp.mpf(eps)
        nodes = [mp.log(k) + d for d in (-170, -60, -20, -5, -1, 0, 1, 2, 5)]
        integral = mp.quad(
            lambda y: (
                mp.exp(k * y - mp.exp(y) - mp.loggamma(k))
                / (mp.sqrt(theta) * mp.exp(y / 2) + offset)
            ),
            nodes,
        )
        assert abs(mp.mpf(ball.mid().str(30, radius=False)) / integral - 1) < mp.mpf(10) ** -25
    assert relative_radius(ball) < 1e-30


def test_an_eps_inside_the_root_is_another_map():
    outside = enclose(inverse_root_plus_eps("0.1"), Gamma(2))
    inside = enclose(
        HolomorphicMap(lambda v, a: (v + flint.acb("0.01")).rsqrt(analytic=a), constant=10),
        Gamma(2),
    )
    assert not outside.overlaps(inside)


def test_a_map_of_ones_own_is_enclosed_given_its_bound():
    # E e^{−X} = (1 + θ)^{−k}, a Laplace transform
    law = Gamma("2.5", 3)
    ball = enclose(HolomorphicMap(lambda v, analytic: (-v).exp()), law)
    with mpmath.workdps(70):
        assert ball.contains(ball_of(mp.mpf(4) ** mp.mpf("-2.5")))


def test_a_pole_needs_a_bound_that_says_so():
    # E (1 + 1/X) = 1 + 1/((k − 1)θ); |f| ≤ 2 (v⁻¹ + 1)
    ball = enclose(
        HolomorphicMap(lambda v, a: 1 + 1 / v, pole_order=1, growth=0, constant=2), Gamma(4, "1/2")
    )
    with mpmath.workdps(70):
        assert ball.contains(ball_of(mp.mpf(5) / 3))


@pytest.mark.parametrize(
    ("tested", "shape", "order"),
    [
        (inverse_power(1), 1, "1"),
        (inverse_power("1/2"), "1/3", "1/2"),
        (inverse_root_plus_eps(0), "1/2", "1/2"),
        (HolomorphicMap(lambda v, a: v, pole_order=3), "5/2", "3"),
    ],
)
def test_an_expectation_that_diverges_is_refused(tested, shape, order):
    with pytest.raises(DivergentExpectation, match=f"must exceed the order of the pole, {order}"):
        enclose(tested, Gamma(shape))


def test_a_map_that_is_not_holomorphic_is_never_enclosed():
    # |v| is no holomorphic function, and says so when asked.
    def modulus(v, analytic):
        return flint.acb("nan") if analytic else flint.acb(abs(v))

    with pytest.raises(NotConverged, match="wider than"):
        enclose(HolomorphicMap(modulus, growth=1), Gamma(2), digits=5)


def test_precision_is_left_as_it_was():
    before = flint.ctx.dps
    enclose(inverse_power(1), Gamma(3), digits=40)
    assert flint.ctx.dps == before


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="is not a gamma law"):
        enclose(inverse_power(1), Normal(1, 1))
    with pytest.raises(ValueError, match="must not be negative"):
        inverse_root_plus_eps(-1)
    with pytest.raises(ValueError, match="must not be negative"):
        HolomorphicMap(lambda v, a: v, constant=-1)


def test_without_python_flint_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(MissingDependency, match="pip install python-flint"):
        enclose(inverse_power(1), Gamma(3))


def test_bounds_are_kept_exactly():
    assert inverse_power("1/3").pole_order == Fraction(1, 3)
    assert inverse_root_plus_eps("1e-8").constant == 10**8
