"""The design's numbers come out, and a wrong one does not."""

import sympy as sp
from validation import design_numbers
from validation.design_numbers import coefficient_row, gamma_series, study, v, z


def test_every_number_of_the_design_comes_out():
    findings = study()
    assert findings.passed, findings.failures
    assert len(findings.rows) == 19


def test_a_wrong_coefficient_is_rejected():
    row = coefficient_row("v**(-1/2)", sp.Rational(1, 4) * v ** sp.Rational(-5, 2))
    assert row.passed is False


def test_the_gamma_series_is_geometric_only_as_far_as_the_order_goes():
    third = sp.Poly(gamma_series(3), z).all_coeffs()[::-1]
    second = sp.Poly(gamma_series(2), z).all_coeffs()[::-1]
    assert third[:4] == [1, 1, 1, 1]
    assert second[:3] == [1, 1, 1]
    assert len(second) == 3


def test_the_shapes_are_within_the_domain_of_every_power():
    assert all(sp.Rational(k) > 1 for k in design_numbers.SHAPES)
