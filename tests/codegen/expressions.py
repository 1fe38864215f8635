"""Random formulas of the kind the language can say, finite wherever they are evaluated."""

import sympy as sp
from hypothesis import strategies as st

from deltabias.parser import clip

G = sp.Symbol("g", real=True)
V, W = sp.symbols("v w", positive=True)
EPS, LR = sp.Symbol("eps", nonnegative=True), sp.Symbol("lr", nonnegative=True)

rationals = st.builds(sp.Rational, st.integers(1, 9), st.integers(1, 9))
exponents = st.builds(
    sp.Rational, st.sampled_from([-3, -2, -1, 1, 2, 3, 5]), st.sampled_from([1, 2, 3, 4])
)


def positive(leaves):
    """Sums, products, quotients and powers that stay positive."""
    return st.recursive(
        st.one_of(st.sampled_from(leaves), rationals),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: a * b, inner, inner),
            st.builds(lambda a, b: a / b, inner, inner),
            st.builds(lambda a, e: a**e, inner, exponents),
            st.builds(lambda a, x: sp.log(1 + a + x), inner, st.sampled_from(leaves)),
            st.builds(lambda a, x: sp.exp(-a * x), inner, st.sampled_from(leaves)),
        ),
        max_leaves=4,
    )


@st.composite
def formulas(draw, scalars=True):
    """Real formulas of g, v, w and, if asked for, of two host scalars."""
    leaves = [V, W, EPS, LR] if scalars else [V, W]
    p = positive(leaves)
    top = draw(st.sampled_from([G, sp.tanh(G), sp.Abs(G), sp.atan(G), G**2 - 1, G**3]))
    shape = draw(st.integers(0, 8))
    a, b, c = draw(p), draw(p), draw(p)
    return [
        lambda: top / a,
        lambda: top * a - b,
        lambda: a - top / (b + c),
        lambda: sp.Max(top, a) / b,
        lambda: sp.Min(top * a, b) - c,
        lambda: clip(top / a, -1, 1) * b,
        lambda: -(top + a) * (b - c),
        lambda: (top - a - b) / c,
        lambda: a / b - c * top**2,
    ][shape]()
