"""Both sides of the certificates' statements, read from their text and computed without Coq."""

import random

import mpmath
import pytest
import sympy as sp
from mpmath import mp, mpf
from tests.certify.terms import Definitions
from tests.certify_matrix import truth
from tests.certify_matrix.subjects import certificate
from tests.certify_matrix.words import Words

from deltabias.calculus.matrix import Normalized, Spectral, expand
from deltabias.calculus.spectral import EIGENVALUE
from deltabias.matrix_derivation import Reading
from deltabias.rules import MATRIX_CATALOGUE, SPECTRAL_MAPS

EPS = mpf(3) / 8
EXACT = mpf(10) ** -28
"""Relative: of formulas in 40 digits, with gaps of at least a hundredth."""
DIFFERENCE = mpf(10) ** -12
"""Relative: of central differences whose own error is 1e-18 times derivatives."""
SEPARATED = [n for n, m in SPECTRAL_MAPS.items() if m.separates]
DENSE = [n for n, m in SPECTRAL_MAPS.items() if not m.separates]


@pytest.fixture(autouse=True)
def many_digits():
    before, mp.dps = mp.dps, truth.DIGITS
    yield
    mp.dps = before


def close(found, wanted, tolerance=EXACT):
    assert abs(found - wanted) <= tolerance * max(abs(wanted), mpf(10) ** -6), (found, wanted)


def the_map(name):
    """f of an eigenvalue, and its derivatives, from the rule's own expression."""
    f, eps = SPECTRAL_MAPS[name].expression, sp.Symbol("eps", nonnegative=True)

    def order(n):
        call = sp.lambdify((EIGENVALUE, eps), sp.diff(f, EIGENVALUE, n), "mpmath")
        return lambda x: mpf(1) * call(x, EPS)

    return order(0), order(1), order(2)


def read(name):
    return Definitions(certificate(name).text, eps=EPS)


def roots(seed):
    rng = random.Random(seed)
    return [mpf(n) / 32 for n in rng.sample(range(8, 128), 3)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SEPARATED)
def test_kernels_are_the_quotients_of_the_map(name, seed):
    f, slope, curvature = the_map(name)
    q, d = SPECTRAL_MAPS[name].degree, read(name)
    a, k, b = roots(seed)
    la, lk, lb = (x**q for x in (a, k, b))

    def one(x, y):
        return (f(x) - f(y)) / (x - y)

    close(d("map", la), f(la))
    close(d("value", a), f(la))
    close(d("first", a, b), one(la, lb))
    close(d("second", a, k, b), (one(la, lk) - one(lk, lb)) / (la - lb))
    # where two or three meet: the other quotient, and the derivatives
    close(d("second", a, k, a), (slope(la) - one(lk, la)) / (la - lk))
    close(d("first", a, a), slope(la))
    close(d("second", a, a, a), curvature(la) / 2)
    assert d("second", a, k, b) > 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SEPARATED)
def test_programs_are_the_kernels(name, seed):
    d, spectral = read(name), SPECTRAL_MAPS[name]
    hypers = [EPS] if spectral.hypers else []
    a, k, b = roots(seed)
    close(d("program_values", a, *hypers), d("value", a))
    close(d("program_step", a, b), d("step", a, b))
    close(d("program_first", a, b, *hypers), d("first", a, b))
    for i in range(len(spectral.parts)):
        close(d(f"program_coefficients_{i}", a, b, *hypers), d(f"coefficient_{i}", a, b))
        close(d(f"program_weights_{i}", k, *hypers), d(f"weight_{i}", k))
    close(d("program_roots", a**spectral.degree), a)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", DENSE)
def test_dense_maps_have_these_derivatives_and_integrals(name, seed):
    f, slope, curvature = the_map(name)
    d = read(name)
    a, _, b = roots(seed)
    close(d("dense_map", a), f(a))
    close(d("slope", a), slope(a))
    close(d("curvature", a), curvature(a) / 2)
    hypers = [EPS] if SPECTRAL_MAPS[name].hypers else []
    for program, meant in (("values", "dense_map"), ("slope", "slope"), ("curvature", "curvature")):
        close(d(f"program_{program}", a, *hypers), d(meant, a))
    quotient = (f(b) - f(a)) / (b - a)
    confluent = (slope(b) - quotient) / (b - a)
    close(mp.quad(lambda t: d("slope", a + t * (b - a)), [0, 1]), quotient)
    close(mp.quad(lambda t: 2 * t * d("curvature", a + t * (b - a)), [0, 1]), confluent)


def kernels_of_matrices(name, eigenvalues, change):
    """X1 and X2 in the eigenbasis, from the certificate's text."""
    d, spectral = read(name), SPECTRAL_MAPS[name]
    count = range(len(eigenvalues))
    if spectral.separates:
        s = [mpmath.root(x, spectral.degree) for x in eigenvalues]
        first = lambda i, j: d("first", s[i], s[j])  # noqa: E731
        second = lambda i, k, j: d("second", s[i], s[k], s[j])  # noqa: E731
    else:
        x = eigenvalues

        def first(i, j):
            if x[i] == x[j]:
                return d("slope", x[i])
            return (d("dense_map", x[i]) - d("dense_map", x[j])) / (x[i] - x[j])

        def confluent(i, j):
            if x[i] == x[j]:
                return d("curvature", x[i])
            return (d("slope", x[j]) - first(i, j)) / (x[j] - x[i])

        def second(i, k, j):
            if x[i] == x[j]:
                return confluent(k, i)
            mean = (x[k] - x[i]) * confluent(i, k) + (x[j] - x[k]) * confluent(j, k)
            return mean / (x[j] - x[i])

    one = mpmath.matrix([[first(i, j) * change[i, j] for j in count] for i in count])
    two = mpmath.matrix(
        [
            [sum(second(i, k, j) * change[i, k] * change[k, j] for k in count) for j in count]
            for i in count
        ]
    )
    return one, two


@pytest.mark.parametrize("spectrum", [(1, 2, 5), (2, 2, 3), (3, 3, 3)], ids=str)
@pytest.mark.parametrize("name", SPECTRAL_MAPS)
def test_kernels_are_the_second_order_of_the_matrix_function(name, spectrum):
    """What is left over is of third order: a thousandth, when t is a tenth."""
    f, _, _ = the_map(name)
    eigenvalues = [mpf(x) / 2 for x in spectrum]
    change = truth.random_symmetric(random.Random(str(spectrum)), 3)
    one, two = kernels_of_matrices(name, eigenvalues, change)
    at = mpmath.diag(eigenvalues)

    def left(t):
        exact = truth.function_of(at + t * change, f) - truth.function_of(at, f)
        return truth.norm(exact - t * one - t * t * two)

    large, small = left(mpf(10) ** -6), left(mpf(10) ** -7)
    assert large > mpf(10) ** -30
    close(large / small, mpf(1000), mpf(10) ** -4)


# ---- rules


def shapes(rule):
    """Means of the rule's matrices: M of 3 by 2 where it is two-sided, factors that fit."""
    rng = random.Random(rule.name)
    sizes = {"L": 3, "R": 2}
    means = {}
    for name in rule.update.symbols:
        if name in sizes:
            means[name] = truth.random_positive(rng, sizes[name])
        elif name == "V":
            means[name] = truth.random_matrix(rng, 3, 2).apply(lambda x: x * x + 1)
        else:
            means[name] = truth.random_matrix(rng, 3, 2)
    directions = {
        n: truth.random_symmetric(rng, v.rows) if n in sizes else truth.random_matrix(rng, 3, 2)
        for n, v in means.items()
    }
    return means, directions


def functions(rule, means, hypers):
    """D_f and DD_f of each function of a matrix, by central differences; and its value."""
    reading = Reading(rule)
    expand(rule.update, reading)
    known, found = {}, {}
    for symbol, node in reading.functions:
        if not isinstance(node, Spectral | Normalized):
            continue
        at = truth.evaluate(node.body, means, hypers)

        def value(x, node=node):
            if isinstance(node, Spectral):
                return truth.function_of(
                    (x + x.T) / 2, truth.scalar_function(node.map.expression, EIGENVALUE)
                )
            return x / truth.norm(x)

        def first(e, value=value, at=at):
            return (value(at + truth.STEP * e) - value(at - truth.STEP * e)) / (2 * truth.STEP)

        def second(e, value=value, at=at):
            both = value(at + truth.STEP * e) + value(at - truth.STEP * e)
            return (both - 2 * value(at)) / (2 * truth.STEP**2)

        known[str(symbol)] = value(at)
        found |= {f"D_{symbol}": (1, first), f"DD_{symbol}": (1, second)}
    return known, found


def terms_of(rule, means, directions, hypers):
    """The sum of the derived terms, from the text of the certificate."""
    text = certificate(rule.name).text
    known, found = functions(rule, means, hypers)
    known |= {f"mean_{n}": v for n, v in means.items()} | hypers
    words = Words(text, known, found)
    delta = [directions[n] for n in rule.update.symbols]
    names = [n for n in words.bodies if n.rsplit("_", 1)[0] in ("coupling", "cross", "inversion")]
    assert names
    total = words(names[0], delta)
    for name in names[1:]:
        total = total + words(name, delta)
    return total


RULES = ("shampoo", "shampoo_one_sided", "muon", "muon_polar")
"""The others differ from the first two in their statistics alone."""


@pytest.mark.parametrize("name", RULES)
def test_terms_are_the_second_order_of_the_rule(name):
    rule, hypers = MATRIX_CATALOGUE[name], {"damping": mpf(1) / 100}
    means, directions = shapes(rule)
    hypers = {h: hypers[h] for h in rule.update.hypers}
    found = terms_of(rule, means, directions, hypers)
    wanted = truth.second_order(rule.update, means, directions, hypers)
    assert truth.norm(found - wanted) <= DIFFERENCE * truth.norm(wanted)


def test_entry_maps_are_the_second_order_of_soap():
    """Its terms are entry by entry: the partial derivatives, read from the text."""
    rule, hypers = MATRIX_CATALOGUE["soap"], {"eps": EPS}
    means, directions = shapes(rule)
    wanted = truth.second_order(rule.update, means, directions, hypers)
    d = Definitions(certificate("soap").text, eps=EPS)
    for i in range(3):
        for j in range(2):
            m, v, dm, dv = (x[i, j] for x in (*means.values(), *directions.values()))
            found = d("F_1_mv", m, v) * dm * dv + d("F_1_vv", m, v) * dv**2 / 2
            close(found, wanted[i, j], DIFFERENCE)
            close(d("program_F_1_vv", m, v, EPS), d("F_1_vv", m, v))
            close(d("program_F_1_mv", v, EPS), d("F_1_mv", m, v))


@pytest.mark.parametrize("name", ["shampoo", "muon_polar"])
def test_bias_over_a_finite_law_is_the_mean_of_the_terms(name):
    """Three outcomes of mean zero; what is left over is of third order."""
    rule, hypers = MATRIX_CATALOGUE[name], {"damping": mpf(1) / 100}
    hypers = {h: hypers[h] for h in rule.update.hypers}
    means, one = shapes(rule)
    rng = random.Random(7)
    two = {
        n: truth.random_symmetric(rng, v.rows) if n in "LR" else truth.random_matrix(rng, 3, 2)
        for n, v in one.items()
    }
    three = {n: -(one[n] + 2 * two[n]) for n in one}  # weights 1/4, 1/2, 1/4
    law = [(mpf(1) / 4, one), (mpf(1) / 2, two), (mpf(1) / 4, three)]
    bias = mpmath.zeros(3, 2)
    for weight, outcome in law:
        bias += weight * terms_of(rule, means, outcome, hypers)
    at = truth.evaluate(rule.update, means, hypers)

    def left(t):
        mean = mpmath.zeros(3, 2)
        for weight, outcome in law:
            mean += weight * truth.along(rule.update, means, outcome, hypers, t)
        return truth.norm(mean - at - t * t * bias)

    large, small = left(mpf(10) ** -4), left(mpf(10) ** -5)
    close(large / small, mpf(1000), mpf(10) ** -1)


def test_the_safe_ratio_is_the_subtraction_and_positive():
    """P (P + X)^-1 P = P - X + X (P + X)^-1 X, and as it is computed, by a root of P."""
    rng = random.Random(3)
    p, x = truth.random_positive(rng, 3), truth.random_positive(rng, 3) * 20
    inverse = mpmath.inverse(p + x)
    ratio = p * inverse * p
    assert truth.norm(ratio - (p - x + x * inverse * x)) <= EXACT * truth.norm(x)
    half = truth.function_of(p, mp.sqrt)
    back = mpmath.inverse(half)
    computed = half * mpmath.inverse(mpmath.eye(3) + back * x * back) * half
    assert truth.norm(computed - ratio) <= EXACT * truth.norm(ratio)
    assert min(mp.eigsy((ratio + ratio.T) / 2)[0]) > 0
    assert min(mp.eigsy(p - x)[0]) < 0  # what a subtraction would give
