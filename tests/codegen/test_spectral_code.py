"""Generated kernels of matrix functions: values, positivity, shapes, and names that may not be."""

from functools import cache
from types import ModuleType

import mpmath
import pytest
import sympy as sp
import torch

from deltabias.calculus.analytic import quotient
from deltabias.calculus.spectral import EIGENVALUE, SpectralMap, inverse_root
from deltabias.codegen.spectral import kernel_source
from deltabias.codegen.spectral_emit import emit_map
from deltabias.errors import GenerateError

X = EIGENVALUE
EPS = sp.Symbol("eps", nonnegative=True)
SCALARS = {"eps": 0.01}
MAPS = {
    "heat": sp.exp(-X),
    "log": sp.log(1 + X),
    "tanh": sp.tanh(X),
    "erf": sp.erf(X),
    "atan": sp.atan(X),
    "shifted": (X + EPS) ** sp.Rational(-1, 4),
    "root_24": X ** sp.Rational(-1, 24),
    "root_4": X ** sp.Rational(-1, 4),
    "square_inverse": X**-2,
}


@cache
def module(name):
    made = ModuleType(name)
    exec(emit_map(SpectralMap(name, MAPS[name])).module, made.__dict__)
    return made


def scalars(name):
    return {h.name: SCALARS[h.name] for h in SpectralMap(name, MAPS[name]).hypers}


def kernel(name, points):
    """f[λ_i, λ_k, λ_j] at (i, k, j) = (0, 1, 2), read off the module's second order."""
    eigenvalues = torch.tensor(points, dtype=torch.float64)
    e = torch.zeros(1, 3, 3, dtype=torch.float64)
    e[0, 0, 1] = e[0, 1, 0] = e[0, 1, 2] = e[0, 2, 1] = 1.0
    m = module(name)
    return float(m.second_order(m.roots(eigenvalues), e, **scalars(name))[0, 2])


def exact(name, points):
    f = MAPS[name].subs(EPS, sp.Rational(SCALARS["eps"]))
    value = quotient(f, X, tuple(map(sp.Rational, points)))
    return mpmath.mpf(str(sp.N(value, 25, maxn=400)))


GAPS = [0.0, 1e-14, 1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.3, 0.8, 2.0, 5.0]


@pytest.mark.parametrize("name", MAPS)
def test_three_points_at_every_gap_are_right_to_1e_13(name):
    worst = 0.0
    for gap in GAPS:
        points = (0.4, 0.4 + gap, 0.4 + 0.37 * gap)
        found, truth = kernel(name, points), exact(name, points)
        worst = max(worst, float(abs(found - truth) / abs(truth)))
    assert 0 < worst < 1e-13


@pytest.mark.parametrize("name", ["heat", "shifted"])
def test_quotients_alone_would_fail(name):
    m, gap = module(name), 1e-9
    points = torch.tensor((0.4, 0.4 + gap, 0.4 + 0.37 * gap), dtype=torch.float64)
    f = m.values(points, **scalars(name))
    a, b, c = points
    plain = ((f[0] - f[1]) / (a - b) - (f[1] - f[2]) / (b - c)) / (a - c)
    truth = float(exact(name, points.tolist()))
    assert abs(float(plain) - truth) > abs(truth)


@pytest.mark.parametrize("name", MAPS)
def test_the_order_of_eigenvalues_and_their_batch_do_not_matter(name):
    m = module(name)
    generator = torch.Generator().manual_seed(1)
    eigenvalues = torch.rand(2, 5, generator=generator, dtype=torch.float64) + 0.05
    e = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    e = e + e.mT
    whole = m.second_order(m.roots(eigenvalues), e, **scalars(name))
    order = torch.randperm(5, generator=generator)
    turned = m.second_order(m.roots(eigenvalues[:, order]), e[..., order, :][..., order],
                            **scalars(name))  # fmt: skip
    torch.testing.assert_close(turned, whole[:, order, :][:, :, order], rtol=1e-11, atol=1e-12)
    one = m.second_order(m.roots(eigenvalues[1]), e[1], **scalars(name))
    torch.testing.assert_close(whole[1], one, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(whole, whole.mT, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", MAPS)
def test_no_perturbation_no_row_and_one_eigenvalue_go_through(name):
    m, given = module(name), scalars(name)
    root = m.roots(torch.tensor([0.3, 0.7], dtype=torch.float32))
    nothing = m.second_order(root, torch.zeros(0, 2, 2), **given)
    assert nothing.dtype == torch.float32
    assert torch.equal(nothing, torch.zeros(2, 2))
    empty = m.second_order(m.roots(torch.zeros(0)), torch.zeros(4, 0, 0), **given)
    assert empty.shape == (0, 0)
    one = m.second_order(m.roots(torch.tensor([0.5])), torch.full((2, 1, 1), 0.1), **given)
    half = float(sp.diff(MAPS[name], X, 2).subs({X: 0.5, EPS: 0.01})) / 2
    assert float(one) == pytest.approx(2 * 0.01 * half, rel=1e-5)


@pytest.mark.parametrize("d", [1, 2, 6])
@pytest.mark.parametrize("root", [1, 2, 4, sp.Rational(4, 3)], ids=str)
def test_the_ratio_is_positive_definite_and_p_less_x_to_second_order(d, root):
    made = ModuleType("made")
    exec(emit_map(inverse_root(root)).module, made.__dict__)
    generator = torch.Generator().manual_seed(d)
    eigenvalues = torch.rand(d, generator=generator, dtype=torch.float64) + 0.05
    at = made.roots(eigenvalues)
    p = torch.diag(made.values(at))
    factor = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = factor @ factor.mT * p.max()
    for size in (1e-6, 1.0, 1e6):
        assert torch.linalg.eigvalsh(made.corrected(at, size * x)).min() > 0
    assert torch.linalg.eigvalsh(p - 1e6 * x).min() < 0  # the subtraction
    left = [(made.corrected(at, s * x) - (p - s * x)).abs().max() for s in (1e-4, 1e-5)]
    assert float(torch.log10(left[0] / left[1])) == pytest.approx(2, abs=0.05)


def test_the_second_order_of_inverse_roots_is_positive_semidefinite_and_of_squares_is_not():
    generator = torch.Generator().manual_seed(4)
    lowest = {}
    for name in ("root_4", "root_24", "shifted", "square_inverse"):
        m, low = module(name), []
        for _ in range(50):
            eigenvalues = torch.exp(3 * torch.randn(4, generator=generator, dtype=torch.float64))
            e = torch.randn(1, 4, 1, generator=generator, dtype=torch.float64)
            x2 = m.second_order(m.roots(eigenvalues), e @ e.mT, **scalars(name))
            spectrum = torch.linalg.eigvalsh(x2)
            low.append(float(spectrum[0] / spectrum.abs().max()))
        lowest[name] = min(low)
    assert lowest.pop("square_inverse") < -1e-3
    assert min(lowest.values()) > -1e-12
    assert not hasattr(module("square_inverse"), "corrected")
    assert not hasattr(module("heat"), "corrected")
    assert hasattr(module("shifted"), "corrected")


@pytest.mark.parametrize("name", ["d", "r", "half", "left", "root", "kernel"])
def test_a_hyperparameter_that_would_be_overwritten_is_refused(name):
    hyper = sp.Symbol(name, nonnegative=True)
    with pytest.raises(GenerateError, match=f"hyperparameter {name} of"):
        kernel_source(SpectralMap("f", 1 / (sp.sqrt(X) + hyper)))


def test_a_saturated_map_is_lost_with_its_values_and_no_worse():
    made = ModuleType("made")
    exec(emit_map(SpectralMap("made", sp.tanh(100 * X))).module, made.__dict__)
    eigenvalues = torch.tensor([0.3, 1.0], dtype=torch.float64)
    e = torch.ones(1, 2, 2, dtype=torch.float64)
    assert made.second_order(eigenvalues, e).abs().max() < 1e-14  # the truth is below 1e-25
