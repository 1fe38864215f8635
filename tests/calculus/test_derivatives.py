"""Partial derivatives, against SymPy's own and against automatic differentiation in float64."""

import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deltabias.calculus.derivatives import Derivatives, root_degree

G = sp.Symbol("g", real=True)
V, W = sp.symbols("v w", positive=True)
EPS = sp.Symbol("eps", nonnegative=True)
VARIABLES = (G, V, W)
INDICES = [(1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (1, 1, 1), (0, 3, 0), (0, 2, 2)]
DIGITS = 40

exponents = st.sampled_from([sp.Rational(n, d) for n in (-3, -2, -1, 1, 2, 3) for d in (1, 2, 3)])


def powers(symbol):
    return exponents.map(lambda e: symbol**e)


@st.composite
def algebraic_maps(draw):
    """Products, quotients and sums of broken powers: what preconditioners are made of."""
    bottom = draw(powers(V)) + draw(st.one_of(powers(W), st.just(EPS), st.just(V * W)))
    top = draw(st.sampled_from([G, G**2, G * V, G + W]))
    map_ = top / bottom
    if draw(st.booleans()):
        map_ = map_ + G * draw(powers(V)) * draw(powers(W))
    if draw(st.booleans()):
        map_ = map_ / sp.sqrt(V + W + EPS)
    return map_


positive = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda p: sp.Rational(*p))


def error(found, truth, point):
    """|found - truth| over their size, to forty digits."""
    a, b = (sp.N(e.subs(point), DIGITS) for e in (found, truth))
    return abs(a - b) / (1 + abs(b))


@settings(max_examples=15)
@given(algebraic_maps(), st.sampled_from(INDICES), positive, positive, positive)
def test_derivatives_of_algebraic_maps_equal_those_of_sympy(map_, index, v, w, eps):
    found = Derivatives(map_, VARIABLES)(index)
    truth = sp.diff(map_, *[(s, n) for s, n in zip(VARIABLES, index, strict=True) if n])
    point = {G: sp.Rational(-7, 3), V: v, W: w, EPS: eps}
    assert error(found, truth, point) < 1e-30
    # and a coefficient that is off by one in a thousand would be seen
    assert truth == 0 or error(found * sp.Rational(1001, 1000), truth, point) > 1e-6 * float(
        abs(sp.N(truth.subs(point))) / (1 + abs(sp.N(truth.subs(point))))
    )


def as_torch(map_):
    function = sp.lambdify([*VARIABLES, EPS], map_, modules=[{"sqrt": torch.sqrt}, "math"])
    return lambda x: function(x[0], x[1], x[2], 0.25)


def second_derivatives(map_, x):
    return torch.func.jacrev(torch.func.jacrev(as_torch(map_)))(x)


# forward mode loads torch's own scripted decompositions, which torch itself calls deprecated
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@settings(max_examples=10)
@given(algebraic_maps())
def test_derivatives_equal_automatic_differentiation(map_):
    derivatives = Derivatives(map_, VARIABLES)
    x = torch.tensor([-1.5, 0.75, 2.0], dtype=torch.float64)
    hessian = second_derivatives(map_, x)
    point = {s: sp.Float(float(value), 30) for s, value in zip(VARIABLES, x, strict=True)}
    point[EPS] = sp.Rational(1, 4)
    for i in range(3):
        direction = torch.eye(3, dtype=torch.float64)[i]
        _, slope = torch.func.jvp(as_torch(map_), (x,), (direction,))
        index = tuple(int(k == i) for k in range(3))
        assert float(derivatives(index).subs(point)) == pytest.approx(float(slope), rel=1e-12)
        for j in range(3):
            index = tuple(int(k == i) + int(k == j) for k in range(3))
            found = float(derivatives(index).subs(point))
            assert found == pytest.approx(float(hessian[i, j]), rel=1e-10, abs=1e-12)


def test_the_comparison_with_automatic_differentiation_sees_a_wrong_sign():
    map_ = G / (sp.sqrt(V) + EPS)
    x = torch.tensor([-1.5, 0.75, 2.0], dtype=torch.float64)
    hessian = second_derivatives(map_, x)
    found = Derivatives(map_, VARIABLES)((0, 2, 0)).subs({G: -1.5, V: 0.75, EPS: 0.25})
    assert float(found) == pytest.approx(float(hessian[1, 1]), rel=1e-12)
    assert -float(found) != pytest.approx(float(hessian[1, 1]), rel=1e-12)


@pytest.mark.parametrize(
    ("map_", "degree"),
    [(V, 1), (1 / V, 1), (sp.sqrt(V), 2), (V ** sp.Rational(-3, 4), 4),
     (V ** sp.Rational(1, 3) + sp.sqrt(V), 6), (sp.sqrt(V + W), 1), (W ** sp.Rational(1, 5), 1)],
    ids=str,
)  # fmt: skip
def test_the_root_degree_is_the_common_denominator_of_the_exponents(map_, degree):
    assert root_degree(map_, V) == degree


def test_derivatives_are_printed_in_the_original_symbols_and_factored():
    found = Derivatives(G / (sp.sqrt(V) + EPS), (G, V))((1, 2))
    assert found.free_symbols == {V, EPS}
    assert str(found) == "(eps + 3*sqrt(v))/(4*v**(3/2)*(eps + sqrt(v))**3)"


@pytest.mark.parametrize("map_", [sp.exp(-V) * G, sp.log(1 + V) * G, sp.tanh(G) / V])
def test_transcendental_maps_are_differentiated_too(map_):
    derivatives = Derivatives(map_, (G, V))
    for index in [(1, 0), (0, 1), (1, 1), (0, 2)]:
        truth = sp.diff(map_, *[(s, n) for s, n in zip((G, V), index, strict=True) if n])
        assert error(derivatives(index), truth, {G: sp.Rational(1, 3), V: 2}) < 1e-30


def test_away_from_a_kink_the_absolute_value_has_no_curvature():
    derivatives = Derivatives(sp.Abs(G) * V, (G, V))
    assert derivatives((2, 0)) == 0
    assert derivatives((1, 1)).subs(G, -3) == -1
