"""Primary matrix functions: exact second orders, what separates, what stays positive."""

import numpy as np
import pytest
import sympy as sp

from deltabias.calculus.analytic import derivatives, quotient
from deltabias.calculus.convexity import is_operator_convex, is_operator_monotone
from deltabias.calculus.spectral import (
    EIGENVALUE,
    INNER,
    LEFT,
    RIGHT,
    SpectralMap,
    inverse_root,
)
from deltabias.errors import NotDifferentiableError

X = EIGENVALUE
EPS = sp.Symbol("eps", nonnegative=True)
ROOTS = [1, 2, 3, 4, 8, sp.Rational(4, 3), sp.Rational(1, 2)]


@pytest.mark.parametrize("root", ROOTS, ids=str)
def test_the_parts_add_up_to_the_second_order(root):
    f = inverse_root(root)
    step = f.step
    total = sum(p.coefficient * p.weight for p in f.parts) / (
        step.subs(RIGHT, INNER) * step.subs(LEFT, INNER)
    )
    point = {LEFT: sp.Rational(2, 3), INNER: sp.Rational(5, 4), RIGHT: sp.Rational(7, 5)}
    assert (total - f.second()).subs(point) == 0
    wrong = (total * sp.Rational(10**9 + 1, 10**9) - f.second()).subs(point)
    assert wrong != 0


@pytest.mark.parametrize("root", ROOTS, ids=str)
def test_equal_eigenvalues_give_half_the_second_derivative(root):
    f = inverse_root(root)
    half = sp.diff(f.expression, X, 2).subs(X, 3**f.degree) / 2
    assert sp.simplify(f.second(LEFT, LEFT, LEFT).subs(LEFT, 3) - half) == 0


def test_the_second_order_of_an_inverse_is_the_product_it_must_be():
    # A⁻¹ E A⁻¹ E A⁻¹ entry by entry: 1/(λ_i λ_k λ_j)
    assert sp.simplify(inverse_root(1).second() - 1 / (LEFT * INNER * RIGHT)) == 0


def test_numbers_that_must_come_out():
    values = {1: 1, 2: sp.Rational(3, 8), 4: sp.Rational(5, 32)}
    for root, value in values.items():
        assert inverse_root(root).second(LEFT, LEFT, LEFT).subs(LEFT, 1) == value


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        (X**-1, True),
        (X ** sp.Rational(-3, 4), True),
        (X**-2, False),
        (X ** sp.Rational(-4, 3), False),
        (X ** sp.Rational(3, 2), True),
        (X**3, False),
        (1 / (sp.sqrt(X) + EPS), True),
        ((X + EPS) ** sp.Rational(-1, 4), True),
        (2 / X + 3, True),
        (-1 / X, False),
        (1 / sp.log(2 + X), True),
        (1 / (1 + X**2), False),
        (sp.exp(-X), False),
        (sp.sqrt(X), False),
    ],
    ids=str,
)
def test_what_is_called_positive_is_so_on_random_matrices_and_the_rest_is_not(expression, kept):
    f = SpectralMap("f", expression)
    assert f.keeps_positive is kept
    value = sp.lambdify(X, expression.subs(EPS, 0.1), "numpy")
    rng, lowest = np.random.default_rng(0), np.inf
    for _ in range(200):
        d = 3
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        a = (basis * np.exp(rng.uniform(-3, 3, d))) @ basis.T
        e = rng.standard_normal((d, d)) * np.exp(rng.uniform(-3, 3))
        e = (e + e.T) * 1e-3 * np.linalg.eigvalsh(a)[0] / np.abs(e).max()

        def of(m):
            w, q = np.linalg.eigh(m)
            return (q * value(w)) @ q.T

        gap = of(a + e) + of(a - e) - 2 * of(a)
        gap = gap / max(np.abs(gap).max(), 1e-300)
        lowest = min(lowest, np.linalg.eigvalsh((gap + gap.T) / 2)[0])
    # second differences of step 1e-3 keep about eight digits
    assert bool(lowest > -1e-4) is kept


def test_monotone_is_seen_from_the_outside_in_and_no_further():
    assert is_operator_monotone(sp.log(1 + X) + 2 * X ** sp.Rational(1, 3), X)
    assert not is_operator_monotone(sp.log(X), X)  # negative below one
    assert not is_operator_monotone(X**2, X)
    assert not is_operator_convex(X**-1 * sp.exp(-X), X)


# -- analytic maps --------------------------------------------------------------------------------

DENSE = [
    sp.exp(-X),
    sp.log(1 + X),
    sp.tanh(X),
    sp.atan(2 * X),
    sp.erf(X),
    (X + EPS) ** sp.Rational(-1, 4),
    X ** sp.Rational(-1, 24),
    X * sp.exp(-X) / (1 + X),
]


@pytest.mark.parametrize("expression", DENSE, ids=str)
def test_an_analytic_map_is_dense_and_says_so(expression):
    f = SpectralMap("f", expression)
    assert (f.separates, f.degree) == (False, 1)
    with pytest.raises(NotDifferentiableError, match="does not separate: it is a dense kernel"):
        _ = f.parts


@pytest.mark.parametrize("expression", DENSE, ids=str)
def test_slope_and_curvature_are_the_derivatives(expression):
    slope, half = derivatives(expression, X)
    point = {X: sp.Rational(3, 7), EPS: sp.Rational(1, 50)}
    for found, order in ((slope, 1), (2 * half, 2)):
        exact = sp.N(sp.diff(expression, X, order).subs(point), 40)
        assert abs(sp.N(found.subs(point), 40) - exact) < 1e-35
        assert abs(sp.N(1.001 * found.subs(point), 40) - exact) > 1e-6 * abs(exact)


def test_a_flat_tanh_keeps_its_slope():
    slope = sp.lambdify(X, derivatives(sp.tanh(X), X)[0], "math")
    assert slope(30.0) == pytest.approx(float(sp.N(1 / sp.cosh(30) ** 2, 30)), rel=1e-14)
    assert 1 - np.tanh(30.0) ** 2 == 0  # the control


def test_quotients_with_repeated_points_are_limits():
    a, b = sp.Rational(1, 3), sp.Rational(6, 5)
    near = quotient(sp.exp(X), X, (a, a + sp.Rational(1, 10**30), b))
    for points in ((a, a, b), (a, b, a), (b, a, a)):
        assert abs(sp.N(quotient(sp.exp(X), X, points) - near, 60)) < 1e-28


@pytest.mark.parametrize(
    ("expression", "piece"),
    [
        (sp.Abs(X - 1), "Abs"),
        (sp.sign(X - 1), "sign"),
        (sp.Max(X, 1), "Max"),
        (sp.Min(X, EPS), "Min"),
        (sp.floor(X), "floor"),
        (sp.sqrt(X - 1), "zero or negative"),
        (sp.log(X - 2), "zero or negative"),
        (1 / (1 - sp.exp(-X)), "zero or negative"),
        (X**EPS, "not a rational number"),
        (2**X, "not a rational number"),
        (X**-100, "out of range"),
        (EPS, "does not depend on"),
    ],
    ids=str,
)
def test_what_is_not_smooth_is_refused_by_name(expression, piece):
    with pytest.raises(NotDifferentiableError, match=piece):
        SpectralMap("f", expression)


@pytest.mark.parametrize("root", [0, -4, sp.Rational(1, 100), 65])
def test_roots_out_of_range_are_refused(root):
    with pytest.raises(NotDifferentiableError):
        inverse_root(root)


def test_only_maps_that_are_finite_at_zero_take_singular_matrices():
    finite = {
        e: SpectralMap("f", e).finite_at_zero for e in (sp.exp(-X), sp.log(1 + X), 1 / (1 + X))
    }
    assert all(finite.values())
    for e in (1 / X, sp.sqrt(X), sp.log(X), (X + EPS) ** -1, X ** sp.Rational(5, 2)):
        assert not SpectralMap("f", e).finite_at_zero
