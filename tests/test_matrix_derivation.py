"""The printed terms are the bias: each is evaluated as it stands, and their sum compared."""

import numpy as np
import pytest
import sympy as sp

from deltabias.calculus.spectral import LEFT
from deltabias.matrix_derivation import derive_matrix, first, second, transpose
from deltabias.matrix_rule import MatrixRule

D = 3


def said(text):
    return [(t.name, str(t.value)) for t in derive_matrix(MatrixRule.parse(text)).terms]


def test_shampoo_has_its_five_terms():
    assert said("inv_root(L+damping*I, 4)*M*inv_root(R+damping*I, 4)") == [
        ("coupling", "P_L*dM*first(P_R, dR)"),
        ("coupling", "first(P_L, dL)*dM*P_R"),
        ("cross", "first(P_L, dL)*M*first(P_R, dR)"),
        ("inversion", "P_L*M*second(P_R, dR)"),
        ("inversion", "second(P_L, dL)*M*P_R"),
    ]


@pytest.mark.parametrize("text", ["L", "2*L + M.T", "L - M/3"])
def test_a_linear_rule_has_no_bias(text):
    assert said(text) == []
    assert derive_matrix(MatrixRule.parse(text)).delta_bias == 0


def test_products_do_not_commute():
    assert said("L*M") == [("product", "dL*dM")]
    assert said("M*L") == [("product", "dM*dL")]


def numbers(seed=3):
    rng = np.random.default_rng(seed)
    at = {}
    for name in "LMR":
        x, e = rng.standard_normal((2, D, D))
        at[name], at[f"d{name}"] = (x @ x.T + np.eye(D), e + e.T) if name != "M" else (x, e)
    return at


def valued(term, at, functions):
    """A printed product as matrices; `first` and `second` by differences of the function."""
    h = 1e-4

    def value(node):
        if isinstance(node, first | second):
            base, e = functions[str(node.args[0])], value(node.args[1])
            f, a = base
            if isinstance(node, first):
                return (f(a + h * e) - f(a - h * e)) / (2 * h)
            return (f(a + h * e) + f(a - h * e) - 2 * f(a)) / (2 * h * h)
        if isinstance(node, transpose):
            return value(node.args[0]).T
        if node.is_Add:
            return sum(map(value, node.args))
        if node.is_Mul:
            scale, factors = node.args_cnc()
            total = np.eye(D) * float(sp.Mul(*scale))
            for f in factors:
                total = total @ value(f)
            return total
        if node.is_Pow:
            return np.linalg.matrix_power(value(node.base), int(node.exp))
        name = str(node)
        if name in functions:
            f, a = functions[name]
            return f(a)
        return at[name]

    return value(term)


def power(exponent):
    def f(a):
        w, q = np.linalg.eigh(a)
        return (q * w**exponent) @ q.T

    return f


# text, the functions of it by name, and the whole map
CASES = {
    "inv_root(L, 4)*M*inv_root(R, 4)": lambda L, M, R: power(-1 / 4)(L) @ M @ power(-1 / 4)(R),
    "M*inv_sqrt(M.T*M)": lambda L, M, R: M @ power(-1 / 2)(M.T @ M),
    "inv_root(L + inv_sqrt(R), 2)*M": lambda L, M, R: power(-1 / 2)(L + power(-1 / 2)(R)) @ M,
    "(L*M).T*R + M.T*M*R": lambda L, M, R: (L @ M).T @ R + M.T @ M @ R,
}


@pytest.mark.parametrize("text", CASES)
def test_the_sum_of_the_printed_terms_is_the_second_difference(text):
    derivation, at, whole = derive_matrix(MatrixRule.parse(text)), numbers(), CASES[text]
    functions = {}
    for symbol, node in derivation.functions:
        exponent = float(node.map.expression.as_base_exp()[1])
        if len(node.body.symbols) == 1 and "M" not in node.body.symbols:
            argument = at[node.body.symbols[0]]
        elif node.body.symbols == ("M",):
            argument = at["M"].T @ at["M"]
        else:
            argument = at["L"] + power(-1 / 2)(at["R"])
        functions[str(symbol)] = (power(exponent), argument)
    found = sum(valued(t.value, at, functions) for t in derivation.terms)
    h = 1e-4

    def moved(t):
        return whole(*(at[n] + t * at[f"d{n}"] for n in "LMR"))

    exact = (moved(h) + moved(-h) - 2 * moved(0)) / (2 * h * h)
    size = np.abs(exact).max()
    assert np.abs(found - exact).max() < 1e-5 * size
    for t in derivation.terms:  # the control: every one of them is needed
        assert np.abs(found - valued(t.value, at, functions) - exact).max() > 1e-4 * size


def test_steps_lead_from_the_update_to_the_bias():
    derivation = derive_matrix(MatrixRule.parse("inv_root(L + damping*I, 4)*M"))
    assert "The update" in derivation.steps[0].text
    assert derivation.steps[-1].equation.rhs == derivation.delta_bias
    assert any("½ f''" in s.text for s in derivation.steps)


def test_a_dense_map_prints_its_quotients_and_its_curvature():
    derivation = derive_matrix(MatrixRule.parse('spectral("exp(-eigenvalue)", L)*M'))
    assert [(t.name, str(t.value)) for t in derivation.terms] == [
        ("coupling", "first(P_L, dL)*dM"),
        ("inversion", "second(P_L, dL)*M"),
    ]
    last = next(s for s in derivation.steps if "½ f''" in s.text).equation
    s = last.lhs.args[0]
    assert sp.simplify(last.rhs - sp.exp(-s) / 2) == 0
    assert any("limits" in s.text for s in derivation.steps)
    f = derivation.functions[0][1].map
    assert f.second(LEFT, LEFT, LEFT) == sp.exp(-LEFT) / 2


def test_named_terms_can_be_asked_for():
    derivation = derive_matrix(MatrixRule.parse("inv(L)*M"))
    assert [str(t.value) for t in derivation.named("coupling")] == ["first(P_L, dL)*dM"]
    assert derivation.named("cross") == ()
