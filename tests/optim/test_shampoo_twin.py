"""Shampoo's steps are those of a slow twin that shares no code with it, for every option."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from tests.optim.cases import draw, generator, parameter
from tests.reference.shampoo import ShampooTwin

from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Shampoo

COMMON = {"lr": 0.1, "betas": (0.8, 0.9), "damping": 0.3}
OPTIONS = [
    {},
    {"memory": "sum"},
    {"sides": "left"},
    {"sides": "right", "memory": "sum"},
    {"root": 2},
    {"root": "4/3", "sides": "left"},
    {"root": Fraction(8), "memory": "sum"},
    {"refresh": 3},
    {"refresh": 3, "memory": "sum"},
    {"damping": 3e-2},
    {"weight_decay": 0.3, "maximize": True},
    {"grafting": "sgd"},
    {"grafting": "adam", "eps": 1e-3},
    {"grafting": "rmsprop", "refresh": 3},
    {"betas": (0.0, 0.9)},
]


def name(options) -> str:
    return "-".join(f"{k}={v}" for k, v in options.items()) or "default"


def twin_options(options):
    root = options.get("root")
    return options if root is None else {**options, "root": float(Fraction(root))}


def gradients(shape, steps: int, noise: float = 0.4):
    """Gradients about a mean, so that no term has to be cut to size."""
    gen = generator(5)
    mean = draw(shape, gen)
    return [mean + noise * draw(shape, gen) for _ in range(steps)]


def relative_error(param, twin) -> float:
    found = param.detach().double().numpy().reshape(twin.param.shape)
    return np.abs(found - twin.param).max() / np.abs(twin.param).max()


@pytest.mark.parametrize("correction", ["plug_in", "full"])
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_option_is_the_twins(options, correction):
    param = parameter(3, 4, dtype=torch.float64)
    options = {**COMMON, **options}
    optimizer = Shampoo([param], correction=correction, **options)
    start = param.detach().numpy().copy()
    twin = ShampooTwin(start, correction=correction, **twin_options(options))
    moved = 0.0
    for gradient in gradients((3, 4), 8):
        param.grad = gradient.clone()
        optimizer.step()
        twin.step(gradient.numpy())
        assert relative_error(param, twin) < (1e-12 if correction == "plug_in" else 1e-9)
        moved = max(moved, np.abs(twin.param - start).max())
    assert moved > 0.1
    assert optimizer.validity().clamped == 0, "the twin cuts nothing to size"


@pytest.mark.parametrize("wrong", [{"root": 3}, {"sides": "left"}, {"memory": "sum"},
                                   {"refresh": 2}, {"correction": "plug_in"}])  # fmt: skip
def test_the_twin_tells_a_wrong_option(wrong):
    param = parameter(3, 4, dtype=torch.float64)
    optimizer = Shampoo([param], **{**COMMON, "correction": "full", **wrong})
    twin = ShampooTwin(param.detach().numpy().copy(), correction="full", **COMMON)
    for gradient in gradients((3, 4), 4):
        param.grad = gradient.clone()
        optimizer.step()
        twin.step(gradient.numpy())
    assert relative_error(param, twin) > 1e-3


@pytest.mark.parametrize("correction", ["plug_in", "full"])
def test_a_large_matrix_is_a_twin_for_each_block(correction):
    # 5 x 7 in blocks of at most 3: rows 3 + 2, columns 3 + 3 + 1
    param = parameter(5, 7, dtype=torch.float64)
    optimizer = Shampoo([param], block_size=3, correction=correction, **COMMON)
    start = param.detach().numpy().copy()
    cuts = [(slice(0, 3), slice(3, 5)), (slice(0, 3), slice(3, 6), slice(6, 7))]
    twins = {
        (i, j): ShampooTwin(start[r, c], correction=correction, **COMMON)
        for i, r in enumerate(cuts[0])
        for j, c in enumerate(cuts[1])
    }
    for gradient in gradients((5, 7), 6):
        param.grad = gradient.clone()
        optimizer.step()
        for (i, j), twin in twins.items():
            twin.step(gradient.numpy()[cuts[0][i], cuts[1][j]])
    joined = np.block([[twins[i, j].param for j in range(3)] for i in range(2)])
    assert np.abs(param.detach().numpy() - joined).max() < 1e-9


def test_equal_layers_that_share_a_launch_step_as_if_alone():
    together = [parameter(3, 4, seed=s, dtype=torch.float64) for s in (1, 2, 3)]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [Shampoo(together, **COMMON), *(Shampoo([p], **COMMON) for p in alone)]
    for step in range(5):
        for k, (p, q) in enumerate(zip(together, alone, strict=True)):
            p.grad = None if step == 2 and k == 1 else draw((3, 4), generator(10 * step + k))
            q.grad = p.grad
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 2, 1, 2)])
def test_higher_ranks_are_flattened_after_their_first_dimension(shape):
    param = parameter(*shape, dtype=torch.float64)
    optimizer = Shampoo([param], **COMMON)
    twin = ShampooTwin(param.detach().numpy().reshape(3, 4).copy(), correction="full", **COMMON)
    for gradient in gradients(shape, 4):
        param.grad = gradient.clone()
        optimizer.step()
        twin.step(gradient.numpy().reshape(3, 4))
    assert relative_error(param, twin) < 1e-9


@pytest.mark.parametrize("correction", ["plug_in", "full"])
def test_means_of_squares_feed_the_factors(correction):
    param = parameter(3, 4, dtype=torch.float64)
    options = {**COMMON, "correction": correction}
    optimizer = Shampoo([param], second_moment="mean_of_squares", **options)
    stats = MatrixStats([param])
    optimizer.attach(stats)
    twin = ShampooTwin(param.detach().numpy().copy(), **options)
    source = gradients((3, 4), 24)
    for step in range(6):
        batch = source[4 * step : 4 * step + 4]
        for gradient in batch:
            stats.add([gradient])
        mean = sum(batch) / 4
        param.grad = 0.5 * mean  # clipped: the statistics follow
        optimizer.step()
        left = sum(g @ g.mT for g in batch) / 16
        right = sum(g.mT @ g for g in batch) / 16
        twin.step(0.5 * mean.numpy(), left.numpy(), right.numpy())
    assert relative_error(param, twin) < (1e-10 if correction == "plug_in" else 1e-9)
    assert optimizer.validity().misaligned == 0


def test_cross_fit_is_the_mean_of_two_twins_fed_crosswise():
    param = parameter(3, 4, dtype=torch.float64)
    optimizer = Shampoo([param], correction="cross_fit", **COMMON)
    stats = MatrixStats([param], groups=2)
    optimizer.attach(stats)
    start = param.detach().numpy().copy()
    folds = [ShampooTwin(start.copy(), **COMMON) for _ in range(2)]
    source = gradients((3, 4), 24)
    for step in range(6):
        batch = source[4 * step : 4 * step + 4]
        for gradient in batch:
            stats.add([gradient])
        param.grad = sum(batch) / 4
        optimizer.step()
        halves = [((batch[k] + batch[k + 2]) / 2).numpy() for k in range(2)]
        for fold, own, other in zip(folds, halves, halves[::-1], strict=True):
            fold.step(own, other @ other.T, other.T @ other)
    expected = (folds[0].param + folds[1].param) / 2
    assert np.abs(param.detach().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("spread", ["history", "microbatches"])
def test_no_spread_is_no_correction(spread):
    optimizers = []
    for correction in ("plug_in", "full"):
        param = parameter(3, 4, dtype=torch.float64)
        optimizer = Shampoo([param], correction=correction, spread=spread,
                            second_moment="mean_of_squares", **COMMON)  # fmt: skip
        stats = MatrixStats([param], keep="gradients")
        optimizer.attach(stats)
        gradient = draw((3, 4), generator(2))
        for _ in range(6):
            for _ in range(3):
                stats.add([gradient])
            param.grad = gradient.clone()
            optimizer.step()
        optimizers.append(optimizer)
    (plain,), (corrected,) = (o.param_groups[0]["params"] for o in optimizers)
    torch.testing.assert_close(plain, corrected, rtol=1e-12, atol=1e-12)
    assert optimizers[1].validity().corrected == 6
