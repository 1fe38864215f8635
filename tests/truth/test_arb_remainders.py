"""The remainder of the second-order formula: its sign, its constant, its order, proved by balls."""

from fractions import Fraction
from itertools import pairwise

import pytest
import sympy as sp

from deltabias.ball_map import ball_map, preconditioner_map
from deltabias.derivation import derive
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE
from deltabias.truth import (
    Gamma,
    HolomorphicMap,
    LogNormal,
    NotConverged,
    TwoPoint,
    UnboundedRemainder,
    derivative_bound,
    enclose,
    enclose_remainder,
    inverse_power,
    inverse_root_plus_eps,
    remainder_constant,
)

flint = pytest.importorskip("flint", reason="rigorous enclosures need python-flint")
MICROBATCHES = (2, 4, 8, 16, 32, 64)
MAPS = {
    "1/v": inverse_power(1),
    "v**(-1/2)": inverse_power("1/2"),
    "v**(-1/4)": inverse_power("1/4"),
    "1/(sqrt(v)+eps)": inverse_root_plus_eps("1e-8"),
}


@pytest.fixture(autouse=True)
def many_digits():
    with flint.ctx.workdps(80):
        yield


def test_the_remainder_of_one_over_x_under_a_gamma_law_is_a_rational():
    # E 1/X = k/(k − 1), so R = k/(k − 1) − 1 − 1/k = 1/(k(k − 1))
    for m in MICROBATCHES:
        k = 5 * m
        ball = enclose_remainder(inverse_power(1), Gamma(5, "1/5"), m)
        assert ball.contains(flint.arb(flint.fmpq(1, k * (k - 1))))
        assert ball > 0


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("law", [TwoPoint("1/2", "3/2"), TwoPoint("1/4", 2, "1/5")], ids=str)
def test_the_constant_bounds_the_exact_remainder_at_every_m(name, law):
    constant = remainder_constant(MAPS[name], law)
    scaled = [enclose_remainder(MAPS[name], law, m) * m**2 for m in MICROBATCHES]
    assert all(abs(r) < constant for r in scaled)
    # the order is exactly two: R m² settles, so C/m² is no bound of something smaller
    assert abs(scaled[-1] / scaled[-2] - 1) < flint.arb("0.03")


def test_the_limit_of_the_scaled_remainder_is_the_next_term_of_the_expansion():
    # κ₃ = 0 here, so R m² → f⁗σ⁴/8 = 24/128, and what is left falls like 1/m
    law = TwoPoint("1/2", "3/2")
    left = [
        enclose_remainder(inverse_power(1), law, m) * m**2 - flint.arb("0.1875") for m in (64, 128)
    ]
    assert abs(left[0] / left[1] - 2) < flint.arb("0.1")


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("law", [Gamma(6, "1/6"), TwoPoint("1/2", "3/2")], ids=["gamma", "two"])
def test_the_derived_coefficient_leaves_a_remainder_of_second_order(name, law):
    """Halving 1/m divides what is left by four; a wrong coefficient's by two only."""
    coefficient = _derived(name, law)
    right = _left_over(name, law, coefficient)
    wrong = _left_over(name, law, coefficient * flint.arb("1.01"))
    assert all(abs(a / b - 4) < flint.arb("0.35") for a, b in pairwise(right))
    assert abs(wrong[-2] / wrong[-1] - 4) > 1


def _derived(name, law):
    """The second-order coefficient that the library derives, at the law's mean."""
    derivation = derive(UpdateRule.parse(name))
    (term,) = derivation.by_order(1)
    free = {s: 1 if s.name == "v" else sp.Rational(1, 10**8) for s in term.coefficient.free_symbols}
    assert law.mean == 1
    return flint.arb(str(sp.N(term.coefficient.subs(free), 60)), 1e-58)


def _left_over(name, law, coefficient):
    f = MAPS[name].function(flint.acb(1), False).real
    variance = flint.arb(flint.fmpq(law.variance.numerator, law.variance.denominator))
    return [
        enclose(MAPS[name], law, digits=40, microbatches=m) - f - coefficient * variance / m
        for m in (16, 32, 64, 128)
    ]


def test_an_expression_s_series_gives_the_remainder_of_the_map_written_by_hand():
    law = TwoPoint(1, 3)
    translated = preconditioner_map(CATALOGUE["adamw"])
    by_hand = inverse_root_plus_eps("1e-8")
    assert enclose_remainder(translated, law, 4).overlaps(enclose_remainder(by_hand, law, 4))
    assert remainder_constant(translated, law).overlaps(
        remainder_constant(by_hand, law) + flint.arb(0, 1e-9)
    )


def test_the_bound_of_a_derivative_is_sharp_to_ten_percent():
    # |f⁗| = 24/v⁵ is largest at the left end
    bound = derivative_bound(inverse_power(1), Fraction(1, 2), Fraction(10**12))
    assert bound >= 768
    assert bound <= 768 * flint.arb("1.11")


def test_outcomes_twelve_decades_apart_have_a_constant():
    law = TwoPoint(1, 10**12, "1e-3")
    constant = remainder_constant(inverse_power("1/2"), law)
    for m in (2, 64):
        assert abs(enclose_remainder(inverse_power("1/2"), law, m)) * m**2 < constant


def test_a_remainder_that_is_zero_is_not_given_a_sign():
    # 1/E X + Var/(E X)³ = E 1/X under every lognormal law
    with pytest.raises(NotConverged, match="not told from zero"):
        enclose_remainder(inverse_power(1), LogNormal(0, "1/2"))
    assert enclose_remainder(ball_map("v**2 + v"), TwoPoint(1, 3)) == 0


@pytest.mark.parametrize(
    ("f", "law", "reason"),
    [
        (inverse_power(1), TwoPoint(0, 3), "contains the singular point 0"),
        (inverse_power(1), Gamma(3), "has no bounded support"),
        (ball_map("max(v, 2)"), TwoPoint(1, 3), "singular or has a kink"),
    ],
)
def test_a_remainder_without_a_bound_is_refused_by_name(f, law, reason):
    with pytest.raises(UnboundedRemainder, match=reason):
        remainder_constant(f, law)


def test_a_map_without_its_series_is_refused():
    with pytest.raises(TypeError, match="needs the map's series"):
        enclose_remainder(HolomorphicMap(lambda v, a: 1 / v, pole_order=1, growth=-1), Gamma(3))
