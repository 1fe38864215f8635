"""Enclosures of lognormal and finite laws, of means, and of any map that has a proved bound."""

from fractions import Fraction

import mpmath
import pytest
from mpmath import mp

from deltabias.ball_map import BallMapError, ball_map, preconditioner_map
from deltabias.rules import CATALOGUE
from deltabias.truth import (
    Discrete,
    DivergentExpectation,
    Gamma,
    Growth,
    HolomorphicMap,
    LogNormal,
    Normal,
    NotConverged,
    TwoPoint,
    enclose,
    expectation,
    inverse_moment,
    inverse_power,
    inverse_root_plus_eps,
)

flint = pytest.importorskip("flint", reason="rigorous enclosures need python-flint")
LAWS = (Gamma(4, "1/4"), LogNormal("-1/8", "1/2"), TwoPoint("1/2", "3/2"))


def ball_of(number, digits=60):
    """The mpf as a ball of its own rounding."""
    with mpmath.workdps(digits), flint.ctx.workdps(digits + 5):
        return flint.arb(mp.nstr(number, digits), abs(float(number)) * 10.0 ** -(digits - 2))


def relative_radius(ball):
    return float(ball.rad()) / abs(float(ball.mid()))


def is_sharp(ball, exact):
    """The ball holds the number, to thirty digits, and not its neighbor in the 29th."""
    with flint.ctx.workdps(60):
        neighbor = exact * (1 + flint.arb("1e-29"))
    return relative_radius(ball) <= 1e-30 and ball.contains(exact) and not ball.overlaps(neighbor)


@pytest.mark.parametrize("power", ["1", "1/2", "1/4", "-3/2"])
@pytest.mark.parametrize("law", [LogNormal(), LogNormal(0, 3), LogNormal(2, "0.01")], ids=str)
def test_a_lognormal_law_has_its_closed_form_in_the_ball(law, power):
    assert is_sharp(enclose(inverse_power(power), law), ball_of(inverse_moment(law, power, 60)))


@pytest.mark.parametrize("microbatches", [1, 2, 7, 64])
def test_the_mean_of_gamma_draws_is_enclosed(microbatches):
    # k m shape, 1/(k m − 1) · k m in closed form for 1/X
    ball = enclose(inverse_power(1), Gamma(3, "1/3"), microbatches=microbatches)
    with mpmath.workdps(70):
        assert is_sharp(ball, ball_of(mp.mpf(3 * microbatches) / (3 * microbatches - 1)))


@pytest.mark.parametrize("microbatches", [1, 2, 16])
def test_the_mean_of_two_point_draws_is_the_enumerated_one(microbatches):
    law = TwoPoint("1/3", 5, "1/7")
    ball = enclose(inverse_root_plus_eps("1/100"), law, microbatches=microbatches)
    with mpmath.workdps(70):
        exact = expectation(
            lambda s: 1 / (mp.sqrt(s.mean) + mp.mpf(1) / 100), law, microbatches, digits=65
        )
        assert is_sharp(ball, ball_of(exact))


@pytest.mark.parametrize("shape", ["1.1", "1.001", "1.0000000001"])
def test_a_gamma_shape_just_above_the_divergence_is_enclosed(shape):
    law = Gamma(shape, "1/3")
    assert is_sharp(enclose(inverse_power(1), law), ball_of(inverse_moment(law, 1, 60)))


def test_hostile_laws_and_eps_are_enclosed_to_thirty_digits():
    tiny = inverse_root_plus_eps("1e-30")
    far_apart = TwoPoint(1, 10**12, "1e-3")
    for law, microbatches in [
        (LogNormal(0, 3), 1),
        (Gamma("1/2"), 1),
        (far_apart, 1),
        (far_apart, 64),
    ]:
        assert relative_radius(enclose(tiny, law, microbatches=microbatches)) <= 1e-30


def test_a_tiny_eps_is_a_perturbation_of_first_order():
    # E 1/(√X + ε) = E X^{−1/2} − ε E 1/X + O(ε²): the 24-digit difference is inside the balls
    law, eps = Gamma(5, "1/5"), "1e-12"
    with flint.ctx.workdps(60):
        ball = enclose(inverse_root_plus_eps(eps), law)
        first = enclose(inverse_power("1/2"), law) - enclose(inverse_power(1), law) * flint.arb(eps)
        assert abs((ball - first) * flint.arb(eps) ** -2) < 10


@pytest.mark.parametrize("law", LAWS, ids=["gamma", "lognormal", "two-point"])
@pytest.mark.parametrize("name", ["inverse", "inverse_sqrt", "adamw", "sophia"])
def test_the_preconditioners_of_the_catalogue_are_enclosed(name, law):
    ball = enclose(preconditioner_map(CATALOGUE[name]), law)
    assert relative_radius(ball) <= 1e-30
    by_hand = {
        "inverse": inverse_power(1),
        "inverse_sqrt": inverse_power("1/2"),
        "adamw": inverse_root_plus_eps("1e-8"),
    }
    if name in by_hand:
        assert ball.overlaps(enclose(by_hand[name], law))
    elif isinstance(law, TwoPoint):  # 1/max(ρv, ε) away from its kink, ρ = 0.04
        assert ball.overlaps(enclose(inverse_power(1), law) * 25)


def test_a_kink_inside_the_law_is_enclosed():
    # E max(X, 1), X ~ Gamma(1): 1 − e⁻¹ + 2e⁻¹
    ball = enclose(ball_map("max(v, 1)"), Gamma(1), digits=15)
    with mpmath.workdps(40):
        assert ball.contains(ball_of(1 + mp.exp(-1), 35))


@pytest.mark.parametrize(
    ("text", "closed_form"),
    [
        ("exp(-v)", lambda: mp.mpf(1) / 8),
        ("1/v + 2*v**2", lambda: mp.mpf(1) / 2 + 24),
        ("(1+v)**3", lambda: mp.mpf(1 + 9 + 36 + 60)),
        ("sqrt(v)*v**(-1/3)", lambda: mp.gamma(mp.mpf(19) / 6) / 2),
    ],
)
def test_a_map_the_parser_accepts_has_its_closed_form_in_the_ball(text, closed_form):
    with mpmath.workdps(70):
        assert is_sharp(enclose(ball_map(text), Gamma(3)), ball_of(closed_form()))


@pytest.mark.parametrize("text", ["1/(v**(1/3)+1/100)", "1/log(1+v)", "tanh(v)/v", "v/(1+v)**2"])
def test_the_bound_that_is_proved_from_the_parts_holds_where_it_is_tried(text):
    f = ball_map(text)
    p, r, c = (mp.mpf(x.numerator) / x.denominator for x in (f.pole_order, f.growth, f.constant))
    with mpmath.workdps(50), flint.ctx.workdps(80):
        for exponent in range(-40, 41, 4):
            v = mp.mpf(10) ** exponent
            value = abs(f.function(flint.acb(flint.arb(10) ** exponent), False).real)
            assert mp.mpf(value.str(20, radius=False)) <= c * (v**-p + v**r) * (1 + mp.mpf("1e-15"))


def test_growth_of_a_quotient_swaps_the_bounds():
    v, one = Growth.variable(), Growth.constant(Fraction(1))
    quotient = Growth.sum([v.power(Fraction(1, 2)), one]).power(Fraction(-1))
    assert quotient.bound == (0, 0, 1)
    assert Growth.sum([v, Growth.constant(Fraction(-1))]).power(Fraction(-1)) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1/(v-1)", "may vanish, change sign"),
        ("exp(v)", "grow faster than a power"),
        ("log(v)", "has no map on balls"),
        ("erf(v)", "has no map on balls"),
        ("a*v", "has the names a, v"),
    ],
)
def test_a_map_without_a_proved_bound_is_refused_by_name(text, reason):
    with pytest.raises(BallMapError, match=reason):
        ball_map(text)


def test_expectations_that_do_not_exist_are_refused_by_name():
    with pytest.raises(DivergentExpectation, match="not finite at the outcome 0"):
        enclose(inverse_power("1/2"), TwoPoint(0, 3))
    with pytest.raises(DivergentExpectation, match="not finite at the outcome -1"):
        enclose(inverse_power(1), Discrete([-1, 2], ["1/2", "1/2"]))
    with pytest.raises(DivergentExpectation, match="must exceed the order of the pole, 1"):
        enclose(ball_map("1/v"), Gamma("1/2"), microbatches=2)
    with pytest.raises(TypeError, match="only those are enclosed"):
        enclose(inverse_power(1), Normal(1, 1))
    with pytest.raises(TypeError, match="has no closed form"):
        enclose(inverse_power(1), LogNormal(), microbatches=2)


def test_a_shape_so_near_the_pole_that_zero_decides_needs_to_know_the_map_there():
    f = HolomorphicMap(lambda v, a: 1 / v, pole_order=1, growth=-1)
    with pytest.raises(NotConverged, match="near_zero"):
        enclose(f, Gamma("1.000001"))
