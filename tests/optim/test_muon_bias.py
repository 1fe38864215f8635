"""Muon's corrections: against a twin, by exact enumeration, and where they are withdrawn."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from tests.optim.cases import draw, generator
from tests.reference.muon import MuonTwin, half_second_derivative, value
from torch.nn import Parameter

from deltabias.generated import muon_polar
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Muon
from deltabias.optim.muon_average import MomentumWeights
from deltabias.optim.orthogonal import update_bias

FLOAT = torch.float64
POLARS = ["newton_schulz", "exact"]
EXACT_NUMBERS = {"ns_dtype": FLOAT, "lr": 1.0, "weight_decay": 0.0}
SHAPES = [(2, 3), (3, 2), (3, 3), (1, 3), (3, 1)]


def about_a_mean(shape, steps: int, noise: float):
    """Gradients about a mean with singular values from 1 to 2."""
    gen = generator(3)
    u, _, v = torch.linalg.svd(draw(shape, gen), full_matrices=False)
    mean = u * torch.linspace(2, 1, min(shape), dtype=FLOAT) @ v
    return [mean + noise * draw(shape, gen) for _ in range(steps)]


def compare(optimizer, param, twin, gradients, stats=None):
    """Largest relative distance to the twin over the steps."""
    worst = 0.0
    for gradient in gradients:
        param.grad = gradient.clone()
        deviations = None
        if stats is not None:
            parts = [gradient + 0.2 * draw(gradient.shape, generator(k)) for k in range(3)]
            parts = [p + gradient - sum(parts) / 3 for p in parts]
            for part in parts:
                stats.add([part])
            deviations = [(p - gradient).numpy() / 6**0.5 for p in parts]
        optimizer.step()
        twin.step(gradient.numpy(), deviations)
        found = param.detach().numpy()
        worst = max(worst, np.abs(found - twin.param).max() / np.abs(twin.param).max())
    return worst


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("polar", POLARS)
def test_the_second_order_is_that_of_a_power_series(polar, shape):
    matrix, *deviations = about_a_mean(shape, 11, 0.3)  # more than a chunk
    found = update_bias(matrix, torch.stack(deviations), polar, "full")
    expected = sum(half_second_derivative(polar, matrix.numpy(), d.numpy()) for d in deviations)
    assert np.abs(found.numpy() - expected).max() < 1e-10 * np.abs(expected).max() + 1e-13


@pytest.mark.parametrize("polar", POLARS)
@pytest.mark.parametrize("correction", ["plug_in", "full"])
@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_trajectory_is_the_twins(polar, correction, momentum, nesterov):
    start = draw((3, 2), generator(9))
    options = {"momentum": momentum, "nesterov": nesterov, "polar": polar, "lr": 0.2}
    param = Parameter(start.clone())
    optimizer = Muon([param], correction=correction, ns_dtype=FLOAT, **options)
    twin = MuonTwin(start.numpy(), correction=correction, **options)
    assert compare(optimizer, param, twin, about_a_mean((3, 2), 12, 0.1)) < 1e-12


@pytest.mark.parametrize("polar", POLARS)
@pytest.mark.parametrize("block_size", [1024, 2])
def test_the_spread_of_microbatches_is_the_twins(polar, block_size):
    start = draw((2, 3), generator(9))
    param = Parameter(start.clone())
    options = {"momentum": 0.8, "polar": polar, "correction": "full", "lr": 0.2}
    optimizer = Muon([param], spread="microbatches", ns_dtype=FLOAT, **options)
    stats = MatrixStats([param], keep="gradients", block_size=block_size)
    optimizer.attach(stats)
    twin = MuonTwin(start.numpy(), **options)
    assert compare(optimizer, param, twin, about_a_mean((2, 3), 8, 0.05), stats) < 1e-12


@pytest.mark.parametrize(
    "wrong", [{"correction": "plug_in"}, {"nesterov": False}, {"trust": 0.2}, {"momentum": 0.79}]
)
def test_a_twin_with_another_rule_is_told_apart(wrong):
    start = draw((2, 3), generator(9))
    options = {"momentum": 0.8, "polar": "exact", "correction": "full", "lr": 0.2}
    param = Parameter(start.clone())
    twin = MuonTwin(start.numpy(), **{**options, **wrong})
    assert compare(Muon([param], **options), param, twin, about_a_mean((2, 3), 8, 0.3)) > 1e-6


# -- the bias itself, by enumeration ------------------------------------------------------------


def mean_update(noise: float, steps: int, microbatches: int = 1, **options):
    """E U_t over every path of g = G ± noise V, all equally likely, less T(G)."""
    (mean,) = about_a_mean((2, 3), 1, 0.0)
    away = draw((2, 3), generator(4))
    total, paths = torch.zeros_like(mean), list(product((-1, 1), repeat=steps * microbatches))
    for path in paths:
        param = Parameter(torch.zeros_like(mean))
        optimizer = Muon([param], **{**EXACT_NUMBERS, **options})
        stats = None
        if microbatches > 1:
            folds = 2 if options["correction"] == "cross_fit" else 1
            stats = MatrixStats([param], keep="gradients", groups=folds)
            optimizer.attach(stats)
        for t in range(steps):
            parts = [mean + noise * sign * away for sign in path[t::steps]]
            for part in parts if stats is not None else ():
                stats.add([part])
            param.grad, before = sum(parts) / len(parts), param.detach().clone()
            optimizer.step()
        total += (before - param.detach()) / len(paths)
    exact = value(options["polar"], mean.numpy())
    return float((total - torch.from_numpy(exact)).norm())


def slope(**options) -> float:
    """d log bias / d log noise, at little noise."""
    far, near = (mean_update(noise, **options) for noise in (0.02, 0.01))
    return np.log2(far / near)


CASES = [
    {"spread": "history", "steps": 4},
    {"spread": "history", "steps": 4, "momentum": 0.6},
    {"spread": "history", "steps": 4, "nesterov": False, "momentum": 0.7},
    {"spread": "microbatches", "steps": 3, "microbatches": 2, "momentum": 0.8},
]


@pytest.mark.parametrize("polar", POLARS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_full_leaves_is_of_fourth_order_in_the_noise(polar, case):
    # ± about the mean: odd orders vanish. A weight that were wrong would leave the second order.
    assert slope(polar=polar, correction="full", trust=float("inf"), **case) > 3.8


def _changed(**factors):
    right = MomentumWeights.at

    def wrong(step, momentum, nesterov):
        weights = right(step, momentum, nesterov)
        return replace(weights, **{k: getattr(weights, k) * f for k, f in factors.items()})

    return staticmethod(wrong)


@pytest.mark.parametrize("name", ["newest", "newest_buffer", "squares_before", "startup"])
def test_a_weight_that_is_wrong_by_a_tenth_leaves_the_second_order(name, monkeypatch):
    monkeypatch.setattr(MomentumWeights, "at", _changed(**{name: 1.1}))
    assert slope(polar="exact", correction="full", trust=float("inf"), steps=4) < 3


@pytest.mark.parametrize("polar", POLARS)
def test_the_plug_in_leaves_the_second_order(polar):
    assert abs(slope(polar=polar, correction="plug_in", steps=4) - 2) < 0.2


@pytest.mark.parametrize("correction", ["diagonal", "eigenvalue_only"])
def test_corrections_of_the_spectrum_alone_leave_the_second_order(correction):
    assert abs(slope(polar="exact", correction=correction, steps=4) - 2) < 0.2


def test_cross_fitting_leaves_the_second_order():
    case = {"steps": 3, "microbatches": 2}
    assert abs(slope(polar="exact", correction="cross_fit", **case) - 2) < 0.2


def test_trust_does_not_matter_to_the_order():
    assert slope(polar="exact", correction="full", trust=0.1, steps=4) > 3.8


# -- the other modes ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["diagonal", "eigenvalue_only"])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3)], ids=str)
def test_spectral_modes_are_the_generated_ones_to_second_order(mode, shape):
    matrix, *deviations = about_a_mean(shape, 4, 1.0)
    deviations = torch.stack(deviations)
    wide = shape[0] < shape[1]
    m, d = (matrix.mT, deviations.mT) if wide else (matrix, deviations)
    h = 1e-4
    generated = getattr(muon_polar, f"corrected_update_{mode}")(m, h * d)
    expected = (muon_polar.plug_in_update(m) - generated) / h**2
    found = update_bias(matrix, deviations, "exact", mode)
    torch.testing.assert_close(found.mT if wide else found, expected, rtol=1e-5, atol=1e-6)


def test_the_sketch_has_the_full_terms_mean():
    gen, signs = generator(2), list(product((-1.0, 1.0), repeat=4))
    matrix, *_ = about_a_mean((3, 2), 1, 0.0)
    deviations = 0.1 * torch.stack([draw((3, 2), gen) for _ in range(4)])
    for polar in POLARS:
        mean = sum(
            update_bias(
                matrix, (torch.tensor(s, dtype=FLOAT).view(4, 1, 1) * deviations).sum(0, True),
                polar, "full",
            )
            for s in signs
        ) / len(signs)  # fmt: skip
        torch.testing.assert_close(mean, update_bias(matrix, deviations, polar, "full"))


def test_the_sketch_is_what_the_optimizer_takes_from_the_statistics():
    params = [Parameter(torch.zeros(2, 3, dtype=FLOAT)) for _ in range(2)]
    options = {"correction": "full", "spread": "microbatches", "polar": "exact", "trust": 1.0}
    kinds = ["sketch", "full"]
    found = []
    for param, kind in zip(params, kinds, strict=True):
        keep = "sketch" if kind == "sketch" else "gradients"
        stats = MatrixStats([param], keep=keep, block_size=2)
        optimizer = Muon([param], **{**options, "correction": kind})
        optimizer.attach(stats)
        parts = about_a_mean((2, 3), 2, 0.1)
        for part in parts:
            stats.add([part])
        param.grad = sum(parts) / 2
        optimizer.step()
        found.append(optimizer.state[param]["update_bias"])
    # two microbatches: δ₂ = -δ₁, and ω = ±2 δ₁ or 0
    ratio = float(found[0].norm() / found[1].norm())
    assert ratio == pytest.approx(2.0) or ratio == pytest.approx(0.0)


def test_cross_fit_takes_numerator_and_root_from_different_groups():
    param = Parameter(torch.zeros(2, 3, dtype=FLOAT))
    optimizer = Muon([param], lr=1.0, weight_decay=0.0, polar="exact", correction="cross_fit")
    stats = MatrixStats([param], groups=2, block_size=2)
    optimizer.attach(stats)
    a, b = about_a_mean((2, 3), 2, 0.2)
    for part in (a, b):
        stats.add([part])
    param.grad = (a + b) / 2
    optimizer.step()

    def root(x):
        values, basis = torch.linalg.eigh(x @ x.mT)
        return basis * values.rsqrt() @ basis.mT

    expected = (root(b) @ a + root(a) @ b) / 2
    torch.testing.assert_close(param.detach(), -expected)
    assert optimizer.validity().clamped == 0


# -- safety -------------------------------------------------------------------------------------


@pytest.mark.parametrize("polar", POLARS)
@pytest.mark.parametrize("noise", [1.0, 10.0, 1e6])
def test_a_correction_is_never_more_than_half_of_trust(polar, noise):
    gen, trust = generator(6), 0.1
    plain, corrected = (Parameter(torch.zeros(4, 3, dtype=FLOAT)) for _ in range(2))
    common = {**EXACT_NUMBERS, "polar": polar}
    optimizers = [Muon([plain], **common), Muon([corrected], correction="full", **common)]
    for _ in range(12):
        before = [p.detach().clone() for p in (plain, corrected)]
        plain.grad = 1 + noise * draw((4, 3), gen)
        corrected.grad = plain.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        updates = [p.detach() - old for p, old in zip((plain, corrected), before, strict=True)]
        away = (updates[0] - updates[1]).norm() / updates[0].norm()
        assert away <= trust / 2 * (1 + 1e-9)
    assert optimizers[1].validity().clamped > 0


def test_with_infinite_trust_the_clamp_holds_the_correction_at_the_updates_norm():
    gen = generator(6)
    param = Parameter(torch.zeros(3, 3, dtype=FLOAT))
    optimizer = Muon([param], correction="full", trust=float("inf"), **EXACT_NUMBERS)
    for _ in range(12):
        before = param.detach().clone()
        param.grad = 0.01 + draw((3, 3), gen)
        optimizer.step()
        assert float((param.detach() - before).norm()) < 2 * 1.3 * 3**0.5
    assert optimizer.validity().clamped > 0


def test_the_meter_grows_with_the_noise():
    sizes = []
    for noise in (0.01, 0.1):
        param = Parameter(torch.zeros(2, 3, dtype=FLOAT))
        optimizer = Muon([param], correction="full", polar="exact")
        for gradient in about_a_mean((2, 3), 30, noise):
            param.grad = gradient
            optimizer.step()
        sizes.append(optimizer.validity())
    assert sizes[1].inversion == pytest.approx(100 * sizes[0].inversion, rel=0.1)
    assert sizes[0].effective_steps == pytest.approx(39 / np.tanh(30 * np.log(1 / 0.95) / 2), 0.6)
    assert sizes[0].outside == 0
    assert sizes[0].corrected == 30
