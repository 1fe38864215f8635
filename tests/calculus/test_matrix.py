"""The jet of matrix expressions against numbers: a third algebra, of plain numpy matrices."""

import numpy as np
import pytest
import sympy as sp

from deltabias.calculus.matrix import (
    Identity,
    Jet,
    MatrixSymbol,
    Normalized,
    Product,
    Scaled,
    Spectral,
    Sum,
    Transpose,
    expand,
)
from deltabias.calculus.spectral import inverse_root
from deltabias.matrix_parser import parse_matrix

D = 3


def values(seed=0):
    rng = np.random.default_rng(seed)
    out = {}
    for name in "LMR":
        x = rng.standard_normal((D, D))
        out[name] = x @ x.T + np.eye(D) if name != "M" else x
        e = rng.standard_normal((D, D))
        out[f"d{name}"] = e + e.T if name != "M" else e
    return out


class Numbers:
    """Second orders by the eigenbasis and quotients; spectra here are well separated."""

    def __init__(self, at):
        self.at = at

    def symbol(self, name):
        return self.at[name]

    def deviation(self, name):
        return self.at[f"d{name}"]

    def identity(self):
        return np.eye(D)

    def add(self, items):
        return sum(items)

    def scale(self, c, x):
        return float(c) * x

    def multiply(self, a, b):
        return a @ b

    def transpose(self, x):
        return x.T

    def spectral(self, node, argument):
        w, q = np.linalg.eigh(argument)
        self.spectra = {**getattr(self, "spectra", {}), node: (w, q)}
        self.f = sp.lambdify(sp.Symbol("eigenvalue", positive=True), node.map.expression)
        return (q * self.f(w)) @ q.T

    def _first(self, w):
        f = self.f(w)
        gap = w[:, None] - w[None, :] + np.eye(D)
        table = (f[:, None] - f[None, :]) / gap
        slope = [(self.f(x * (1 + 1e-6)) - self.f(x * (1 - 1e-6))) / (2e-6 * x) for x in w]
        return table + np.diag(slope)

    def spectral_first(self, node, e):
        w, q = self.spectra[node]
        return q @ (self._first(w) * (q.T @ e @ q)) @ q.T

    def spectral_second(self, node, e):
        w, q = self.spectra[node]
        a = (q * w) @ q.T
        h = 1e-4

        def f(m):
            w, q = np.linalg.eigh(m)
            return (q * self.f(w)) @ q.T

        return (f(a + h * e) + f(a - h * e) - 2 * f(a)) / (2 * h * h)

    def settle(self, node, value, second):
        return value, second

    def named(self, node, jet):
        second = {"inversion": sum(jet.second.values())} if jet.second else {}
        return Jet(jet.value, {None: sum(jet.first.values())}, second)

    def normalized(self, node, x):
        self.x = x
        return x / np.linalg.norm(x)

    def normalized_first(self, node, e):
        x, n = self.x, np.linalg.norm(self.x)
        return e / n - x * np.sum(x * e) / n**3

    def normalized_second(self, node, e):
        h = 1e-4

        def f(m):
            return m / np.linalg.norm(m)

        return (f(self.x + h * e) + f(self.x - h * e) - 2 * f(self.x)) / (2 * h * h)


def evaluate(expression, at):
    """The expression itself, on matrices."""
    match expression:
        case MatrixSymbol(name):
            return at[name]
        case Identity():
            return np.eye(D)
        case Scaled(c, body):
            return float(c) * evaluate(body, at)
        case Sum(terms):
            return sum(evaluate(t, at) for t in terms)
        case Product(factors):
            return np.linalg.multi_dot([np.eye(D), *(evaluate(f, at) for f in factors)])
        case Transpose(body):
            return evaluate(body, at).T
        case Normalized(body):
            x = evaluate(body, at)
            return x / np.linalg.norm(x)
        case Spectral(f, body):
            w, q = np.linalg.eigh(evaluate(body, at))
            function = sp.lambdify(sp.Symbol("eigenvalue", positive=True), f.expression)
            return (q * function(w)) @ q.T
    raise AssertionError(expression)


def difference(expression, at, h=1e-4):
    def moved(t):
        return evaluate(expression, {n: at[n] + t * at[f"d{n}"] for n in "LMR"})

    return (moved(h) + moved(-h) - 2 * moved(0)) / (2 * h * h)


RULES = [
    "L*M*R",
    "L**3*M",
    "(L + M.T)*R.T",
    "2*L*M - R",
    "M*M.T*M",
    "inv(L)*M",
    "inv_root(L, 4)*M*inv_root(R, 4)",
    "inv_sqrt(L*L.T + I)*M",
    "inv_sqrt(inv(L) + 2*I)*M",
    "normalize(M)*R",
    "M*normalize(L*R)",
]


@pytest.mark.parametrize("text", RULES)
def test_the_named_terms_add_up_to_the_second_difference(text):
    expression, at = parse_matrix(text), values()
    jet = expand(expression, Numbers(at))
    exact = difference(expression, at)
    size = np.abs(exact).max() + np.abs(evaluate(expression, at)).max()
    total = sum(jet.second.values(), np.zeros((D, D)))
    assert np.abs(jet.value - evaluate(expression, at)).max() <= 1e-12 * size
    assert np.abs(total - exact).max() <= 1e-6 * size
    if jet.second:  # the control: no term may be missing
        smallest = min(np.abs(v).max() for v in jet.second.values())
        assert smallest > 1e-4 * size


def test_each_pair_of_first_orders_has_its_name():
    jet = expand(parse_matrix("inv_root(L, 4)*M*inv_root(R, 4)"), Numbers(values()))
    assert set(jet.second) == {"inversion", "coupling", "cross"}
    assert set(expand(parse_matrix("L*M"), Numbers(values())).second) == {"product"}
    assert expand(parse_matrix("2*L - M.T"), Numbers(values())).second == {}


def test_equal_trees_are_equal_and_hash_alike():
    one, other = parse_matrix("inv(L+I)*M"), parse_matrix("inv(L+I)*M")
    assert one == other
    assert hash(one) == hash(other)
    assert one != parse_matrix("inv(L+I)*R")
    assert Spectral(inverse_root(1), MatrixSymbol("L")) != Spectral(
        inverse_root(2), MatrixSymbol("L")
    )


def test_a_tree_that_shares_its_subtrees_is_walked_and_shown_in_no_time():
    deep = parse_matrix("newton_schulz(M, 12)")  # 8¹² nodes written out
    assert len(list(deep.walk())) < 200
    assert len(repr(deep)) < 5000
    assert deep == parse_matrix("newton_schulz(M, 12)")
