"""Both sides of the theorems about expansions, kernels and matrices, without Coq."""

import random
from fractions import Fraction as Q

import mpmath
import pytest
import sympy as sp
from mpmath import mp, mpf
from tests.certify_matrix import truth
from tests.proofs.coverage import evaluates

SEEDS = range(3)
T = sp.Symbol("t")


@pytest.fixture(autouse=True)
def many_digits():
    before, mp.dps = mp.dps, truth.DIGITS
    yield
    mp.dps = before


def rational(rng):
    return Q(rng.randint(1, 60), rng.randint(7, 40))


def taylor(expression):
    """The coefficients of 1, t and t²."""
    return [sp.diff(expression, T, n).subs(T, 0) / sp.factorial(n) for n in range(3)]


@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "expansion.expands_bound",
    "expansion.expands_inverse",
    "expansion.expands_sqrt",
    "expansion.expands_unique",
)
def test_inverse_and_root_expand_as_stated(seed):
    rng = random.Random(seed)
    a, b, c, g = (sp.Rational(rational(rng)) for _ in range(4))
    f = a + T * b + T**2 * c + T**3 * g
    assert taylor(f) == [a, b, c]  # one set of coefficients
    assert taylor(1 / f) == [1 / a, -(b / a**2), b**2 / a**3 - c / a**2]
    s = sp.sqrt(a)
    wanted = [s, b / (2 * s), c / (2 * s) - b**2 / (8 * s**3)]
    assert all(sp.simplify(x - y) == 0 for x, y in zip(taylor(sp.sqrt(f)), wanted, strict=True))
    for t in (Q(1, 10), Q(-1, 50)):
        left = abs((f - (a + T * b + T**2 * c)).subs(T, sp.Rational(t)))
        assert left <= g * abs(sp.Rational(t)) ** 3


def random_fractions(rng, size):
    return sp.Matrix(size, size, lambda i, j: sp.Rational(rational(rng)) - 1)


@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "expansion.mean_expands",
    "matrix_expansion.matrix_expands_mul",
    "matrix_expansion.mean_matrix_expands",
    "function_jet.mean_of_linear",
    "function_jet.mean_of_product_is_covariance",
)
def test_mean_of_a_product_has_the_covariances_at_second_order(seed):
    rng = random.Random(seed)
    weights = [sp.Rational(1, 4), sp.Rational(1, 2), sp.Rational(1, 4)]
    a, b, kernel = (random_fractions(rng, 2) for _ in range(3))

    def centered():
        one, two = random_fractions(rng, 2), random_fractions(rng, 2)
        return [one, two, -(one + 2 * two)]

    xs, ys = centered(), centered()
    paths = [((a + T * x) * (b + T * y)).expand() for x, y in zip(xs, ys, strict=True)]
    for path, x, y in zip(paths, xs, ys, strict=True):
        assert path.applyfunc(lambda e: e.coeff(T, 1)) == a * y + x * b
        assert path.applyfunc(lambda e: e.coeff(T, 2)) == x * y
    mean = sum((w * p for w, p in zip(weights, paths, strict=True)), sp.zeros(2)).expand()
    assert mean.applyfunc(lambda e: e.coeff(T, 1)) == sp.zeros(2)
    second = sum((w * x * y for w, x, y in zip(weights, xs, ys, strict=True)), sp.zeros(2))
    assert mean.applyfunc(lambda e: e.coeff(T, 2)) == second
    # through a kernel: sum over k of K_ik Cov(X_ik, Y_kj)
    law = list(zip(weights, xs, ys, strict=True))
    through = [w * kernel.multiply_elementwise(x) * y for w, x, y in law]
    by_covariance = sp.Matrix(
        2,
        2,
        lambda i, j: sum(
            kernel[i, k] * sum(w * x[i, k] * y[k, j] for w, x, y in law) for k in range(2)
        ),
    )
    assert sum(through, sp.zeros(2)) == by_covariance


def h(n, a, b):
    return sum(a**i * b ** (n - i) for i in range(n + 1))


def h3(n, a, k, b):
    """Of degree n - 1 in three variables."""
    return sum(
        a**i * k**j * b ** (n - 1 - i - j)
        for i in range(n)
        for j in range(n - i)
        if n - 1 - i - j >= 0
    )


def first_kernel(p, a, b):
    return -1 / (a * b * h(p - 1, a, b))


def second_kernel(p, a, k, b):
    steps = h(p - 1, a, b) * h(p - 1, a, k) * h(p - 1, k, b)
    return h3(p, a, k, b) / (a * k * b * steps)


@pytest.mark.parametrize("p", range(1, 7))
@evaluates(
    "spectral_map.kernel_first_quotient",
    "spectral_map.kernel_second_quotient",
    "spectral_map.kernel_second_quotient_inner",
    "spectral_map.first_kernel_is_derivative",
    "spectral_map.second_kernel_is_half_derivative",
    "spectral_map.first_order_in_roots",
    "spectral_map.second_order_in_roots",
    "spectral_map.inverse_root_kernel",
)
def test_kernels_of_inverse_roots_are_differences_and_derivatives(p):
    rng = random.Random(p)
    a, k, b = Q(2, 3) + rational(rng), Q(1, 5) + rational(rng), Q(5) + rational(rng)
    one, two = first_kernel, second_kernel
    for x, y in ((a, b), (a, a), (k, a)):
        assert (x**p - y**p) * one(p, x, y) == 1 / x - 1 / y
    for x, z, y in ((a, k, b), (a, a, b), (a, k, a), (a, b, b)):
        assert (x**p - y**p) * two(p, x, z, y) == one(p, x, z) - one(p, z, y)
        assert (x**p - z**p) * two(p, x, z, y) == one(p, x, y) - one(p, z, y)
    # f' = -(1/p) l^(-1/p - 1) and f''/2, at l = a^p
    assert one(p, a, a) == -Q(1, p) / a ** (p + 1)
    assert two(p, a, a, a) == Q(1, p) * (Q(1, p) + 1) / 2 / a ** (2 * p + 1)
    # divided.v's forms at x = 1/a, z = 1/k, y = 1/b
    x, z, y = 1 / a, 1 / k, 1 / b
    assert -((x * y) ** p) / h(p - 1, x, y) == one(p, a, b)
    total = sum((x * y) ** (p - 1 - c) * h(c, x, y) * z ** (p + c) for c in range(p))
    whole = (x * y) ** p / h(p - 1, x, y) * total / (h(p - 1, x, z) * h(p - 1, z, y))
    assert whole == two(p, a, k, b)


def jet_product(left, right):
    """Coefficients of 1, t and t² of a product."""
    return [sum((left[i] * right[n - i] for i in range(n + 1)), sp.zeros(3)) for n in range(3)]


def jet_power(jet, n):
    total = [sp.eye(3), sp.zeros(3), sp.zeros(3)]
    for _ in range(n):
        total = jet_product(jet, total)
    return total


def kernel_jet(value, one, two, s, change):
    def both(i, j):
        return sum(two(s[i], s[k], s[j]) * change[i, k] * change[k, j] for k in range(3))

    return [
        sp.diag(*(value(x) for x in s)),
        sp.Matrix(3, 3, lambda i, j: one(s[i], s[j]) * change[i, j]),
        sp.Matrix(3, 3, both),
    ]


def root_jet(q, s, change):
    def two(a, k, b):
        return -h3(q - 1, a, k, b) / (h(q - 1, a, b) * h(q - 1, a, k) * h(q - 1, k, b))

    return kernel_jet(lambda a: a, lambda a, b: 1 / h(q - 1, a, b), two, s, change)


@pytest.mark.parametrize("q", range(1, 5))
@evaluates(
    "kernel_equation.root_jet_power",
    "kernel_equation.rational_map_equation",
    "kernel_equation.inverse_root_equation",
    "kernel_equation.inverse_root_is_unique",
    "kernel_equation.inverse_root_expansion",
    "kernel_equation.inverse_root_has_this_expansion",
)
def test_jets_solve_the_equations_of_their_functions(q):
    rng = random.Random(q)
    low = sp.Rational(rational(rng))
    s = [low, low, low + 1]  # two equal eigenvalues
    change = random_fractions(rng, 3)
    at = [sp.diag(*(x**q for x in s)), change, sp.zeros(3)]
    root = root_jet(q, s, change)
    assert jet_power(root, q) == at
    inverse = kernel_jet(
        lambda a: 1 / a,
        lambda a, b: sp.Rational(first_kernel(q, a, b)),
        lambda a, k, b: sp.Rational(second_kernel(q, a, k, b)),
        s,
        change,
    )
    one = [sp.eye(3), sp.zeros(3), sp.zeros(3)]
    assert jet_product(jet_power(inverse, q), at) == one
    assert jet_product(root, inverse) == one  # D(S) X = N(S) with D = s, N = 1
    for n in (1, 2):  # no other jet does
        other = [m.copy() for m in inverse]
        other[n][0, 2] += sp.Rational(1, 7)
        assert jet_product(jet_power(other, q), at) != one


@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "dense_kernel.first_integral",
    "dense_kernel.first_integral_at_equal_eigenvalues",
    "dense_kernel.confluent_integral",
    "dense_kernel.confluent_integral_at_equal_eigenvalues",
    "dense_kernel.three_points",
    "dense_kernel.dense_kernel",
    "dense_kernel.kernels_agree",
)
def test_dense_kernels_are_divided_differences(seed):
    rng = random.Random(seed)
    a, k, b = (mpf(x) / 8 for x in rng.sample(range(4, 40), 3))

    def f(x):
        return (x + 1) ** mpf("-0.5")

    def slope(x):
        return -((x + 1) ** mpf("-1.5")) / 2

    def half(x):
        return 3 * (x + 1) ** mpf("-2.5") / 8

    def one(x, y):
        return (f(y) - f(x)) / (y - x)

    def confluent(x, y):
        return (slope(y) - one(x, y)) / (y - x)

    def close(x, y):
        assert abs(x - y) < mpf(10) ** -25 * abs(y)

    close(mp.quad(lambda t: slope(a + t * (b - a)), [0, 1]), one(a, b))
    close(mp.quad(lambda t: 2 * t * half(a + t * (b - a)), [0, 1]), confluent(a, b))
    close(mp.quad(lambda t: slope(a + t * (a - a)), [0, 1]), slope(a))
    close(mp.quad(lambda t: 2 * t * half(a + t * (a - a)), [0, 1]), half(a))
    mean = ((k - a) * confluent(a, k) + (b - k) * confluent(b, k)) / (b - a)
    close(mean, (one(a, k) - one(k, b)) / (a - b))
    # the map separates in x + 1: its own kernels at the shifted roots
    s, z, u = (mp.sqrt(x + 1) for x in (a, k, b))
    close(one(a, b), first_kernel(2, s, u))
    close(mean, second_kernel(2, s, z, u))
    close(half(a), second_kernel(2, s, s, s))


@pytest.mark.parametrize("seed", SEEDS)
@evaluates(
    "safe_matrix.ratio_is_subtraction",
    "safe_matrix.inverse_of_ratio",
    "safe_matrix.ratio_as_computed",
    "safe_matrix.ratio_is_positive_definite",
)
def test_safe_ratio_of_matrices(seed):
    rng = random.Random(seed)
    root = random_fractions(rng, 3) + 4 * sp.eye(3)
    root = root + root.T  # symmetric and, by its diagonal, invertible
    p, some = root * root, random_fractions(rng, 3)
    x = 30 * some * some.T
    ratio = p * (p + x).inv() * p
    assert ratio == p - x + x * (p + x).inv() * x
    assert ratio.inv() == p.inv() * (p + x) * p.inv()
    back = root.inv()
    assert root * (sp.eye(3) + back * x * back).inv() * root == ratio
    assert all(ratio[:n, :n].det() > 0 for n in (1, 2, 3))


@pytest.mark.parametrize("seed", SEEDS)
@evaluates("function_jet.normalized_jet", "function_jet.kernel_is_linear")
def test_normalized_matrices_and_kernels_in_a_basis(seed):
    rng = random.Random(seed)
    x, e, g = (truth.random_matrix(rng, 2, 3) for _ in range(3))
    n = truth.norm(x)

    def inner(a, b):
        return sum(u * v for u, v in zip(a, b, strict=True))

    a, b = inner(x, e) / n**2, inner(e, e) / n**2
    first = (e - x * a) / n
    second = (x * (mpf(3) / 2 * a * a - b / 2) - e * a) / n

    def left(t):
        moved = x + t * e + t * t * g  # a curve: g adds the first order along it
        along = (g - x * (inner(x, g) / n**2)) / n
        return truth.norm(moved / truth.norm(moved) - x / n - t * first - t * t * (along + second))

    assert abs(left(mpf(10) ** -6) / left(mpf(10) ** -7) - 1000) < 1
    q, kernel = (truth.random_matrix(rng, 2, 2) for _ in range(2))

    def through(m):
        rotated = q.T * m * q
        weighted = mpmath.matrix(
            [[kernel[i, j] * rotated[i, j] for j in range(2)] for i in range(2)]
        )
        return q * weighted * q.T

    one, two = (truth.random_matrix(rng, 2, 2) for _ in range(2))
    assert truth.norm(through(3 * one + two) - 3 * through(one) - through(two)) < mpf(10) ** -30
