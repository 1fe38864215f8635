"""Kinks: which branch is expanded, where that is the update itself, and what cannot be expanded."""

import pytest
import sympy as sp

from deltabias.errors import NotDifferentiableError
from deltabias.parser import clip
from deltabias.rule import UpdateRule
from deltabias.smoothness import smooth_branch

CASES = [
    # text, smooth branch, conditions
    ("clip(g/h, -1, 1)", "g/h", ["-1 < g/h", "g/h < 1", "Ne(h, 0)"]),
    ("g/max(h, eps)", "g/h", ["h > eps", "Ne(h, 0)"]),
    ("g/max(h, eps, 1)", "g/h", ["h > 1", "h > eps", "Ne(h, 0)"]),
    ("min(g/h, 2)", "g/h", ["g/h < 2", "Ne(h, 0)"]),
    ("abs(g)*sqrt(v)", "sqrt(v)*Abs(g)", ["Ne(g, 0)", "v > 0"]),
    ("sign(g)*sqrt(v)", "sqrt(v)*sign(g)", ["Ne(g, 0)", "v > 0"]),
    ("g/(sqrt(v)+eps)", "g/(eps + sqrt(v))", ["v > 0"]),
    ("g/(h-1)", "g/(h - 1)", ["Ne(h - 1, 0)"]),
    ("clip(g/max(h, eps), -1, 1)", "g/h", ["-1 < g/h", "g/h < 1", "h > eps", "Ne(h, 0)"]),
    ("g*max(eps, 1)", "g*Max(1, eps)", []),
]


@pytest.mark.parametrize(("text", "smooth", "conditions"), CASES, ids=[c[0] for c in CASES])
def test_the_branch_that_depends_on_a_statistic_is_expanded_under_stated_conditions(
    text, smooth, conditions
):
    branch, domain, _ = smooth_branch(UpdateRule.parse(text))
    assert str(branch) == smooth
    assert sorted(map(str, domain)) == sorted(conditions)


def value(expression, point):
    """The value, clips and extremes included."""

    def clipped(x, low, high):
        return sp.Max(low, sp.Min(high, x))

    return expression.subs(point).replace(clip, clipped)


GRID = [sp.Rational(n, 3) for n in (-7, -2, -1, 1, 2, 8)]


@pytest.mark.parametrize("text", [c[0] for c in CASES])
def test_inside_the_domain_the_branch_is_the_update(text):
    rule = UpdateRule.parse(text)
    smooth, domain, _ = smooth_branch(rule)
    inside = 0
    for x in GRID:
        for y in GRID:
            point = dict(zip(rule.symbols, (x, y), strict=False))
            point |= {h.symbol: sp.Rational(2, 5) for h in rule.hypers}
            if all(c.subs(point) == True for c in domain):  # noqa: E712 - a relational of SymPy
                assert value(rule.update, point) == value(smooth, point)
                inside += 1
    assert inside >= 3


@pytest.mark.parametrize(
    ("text", "point"),
    [("clip(g/h, -1, 1)", {"g": 5, "h": 1}), ("g/max(h, eps)", {"g": 1, "h": -1}),
     ("min(g/h, 2)", {"g": 5, "h": 1})],
)  # fmt: skip
def test_outside_the_domain_the_branch_is_another_map(text, point):
    rule = UpdateRule.parse(text)
    smooth, domain, _ = smooth_branch(rule)
    there = {s: point[s.name] for s in rule.symbols} | {h.symbol: 1 for h in rule.hypers}
    assert not all(c.subs(there) == True for c in domain)  # noqa: E712 - a relational of SymPy
    assert value(rule.update, there) != value(smooth, there)


def test_the_floor_that_was_taken_away_is_remembered():
    rule = UpdateRule.parse("clip(g/max(h, eps), -1, 1)")
    h, eps = rule.symbols[1], rule.hypers[0].symbol
    assert smooth_branch(rule)[2] == ((h, sp.Max(h, eps)),)


# once a defect: Ne(2/eps + Abs(g), 0) is True to SymPy, and is stated as a condition
@pytest.mark.parametrize(
    "text", ["abs(2/eps + abs(g))*h", "h*sign(1/eps + abs(g))", "abs(v)*sqrt(v)"]
)
def test_what_always_holds_is_no_condition(text):
    assert sp.true not in smooth_branch(UpdateRule.parse(text))[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max(g, h)", r"Max\(g, h\) has 2 branches that depend on statistics"),
        ("g/min(h, g)", r"Min\(g, h\) has 2 branches that depend on statistics"),
        ("max(g, h, 1)*g", "has 2 branches .* it is not differentiable where they meet. Write the"),
    ],
)
def test_an_extreme_of_two_statistics_has_no_branch(text, message):
    with pytest.raises(NotDifferentiableError, match=message):
        smooth_branch(UpdateRule.parse(text))


# the derivative of sign is a distribution that `sp.diff` does not call zero
@pytest.mark.parametrize("text", ["sign(g)", "sign(g*h)", "eps*sign(g) + 1"])
def test_an_update_that_is_constant_where_it_is_smooth_is_refused(text):
    with pytest.raises(NotDifferentiableError, match="does not change with any statistic where"):
        smooth_branch(UpdateRule.parse(text))
