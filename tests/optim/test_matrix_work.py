"""The matrix work of a Shampoo step: fewer products, the same values, and how many there are."""

from fractions import Fraction

import pytest
import sympy as sp
import torch
from tests.optim.cases import draw, generator, quietly
from torch.utils.flop_counter import FlopCounterMode

from deltabias.calculus.spectral import INNER, LEFT, RIGHT, inverse_root
from deltabias.microbatch.matrix_products import conjugated, symmetric_product
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Shampoo, shampoo_stacks
from deltabias.optim.kronecker import KERNELS, Side
from deltabias.optim.kronecker_second import CHAINS, orders
from deltabias.optim.tracked_spread import Deviations, GradientDeviations, Weights

SPECTRA = {
    "generic": [0.3, 0.7, 1.1, 1.9],
    "repeated": [0.5, 0.5, 0.5, 2.5],
    "nearly equal": [0.5, 0.5 + 1e-9, 1.5, 1.5],
    "wide": [1e-9, 1e-4, 1.0, 3.0],
}


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# -- the chain of square roots --------------------------------------------------------------------


def chain(links: int, i: sp.Expr, k: sp.Expr, j: sp.Expr) -> sp.Expr:
    """f[λ_i, λ_k, λ_j] as `kronecker_second` computes it, at λ = s^(2^links)."""
    values = [x ** (2**links) for x in (i, k, j)]
    left = right = sp.Integer(1)  # V₁'s coefficients of E_ik and E_kj
    curved = sp.Integer(0)
    for _ in range(links):
        values = [sp.sqrt(x) for x in values]
        a, b, c = values
        left, right = left / (a + b), right / (b + c)
        curved = (curved + left * right) / (a + c)
    a, b, c = values
    return (curved + left * right / b) / (a * c)


@pytest.mark.parametrize("power", CHAINS, ids=str)
def test_the_chain_is_the_divided_difference_as_a_rational_function(power):
    found = chain(CHAINS[power], LEFT, INNER, RIGHT)
    assert sp.cancel(found - inverse_root(power).second()) == 0


@pytest.mark.parametrize("power", CHAINS, ids=str)
def test_a_chain_with_another_number_of_links_is_another_function(power):
    points = list(map(sp.Integer, (2, 3, 5)))
    assert chain(CHAINS[power], *points) == inverse_root(power).second(*points)
    # at the same eigenvalues, whose roots of twice the degree these are
    other = chain(CHAINS[power] + 1, *map(sp.sqrt, points))
    assert sp.N(other - inverse_root(power).second(*points)) != 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("power", KERNELS, ids=str)
def test_both_orders_are_those_of_the_generated_kernels(power, spectrum, dtype):
    eigenvalues = torch.tensor([SPECTRA[spectrum]] * 2, dtype=torch.float64)
    size = eigenvalues.sqrt()
    # as large as an expansion allows in every direction, |E_ij| <= √(λ_i λ_j)
    noise = draw((2, 3, 4, 4), generator()).tanh()
    rotated = (noise + noise.mT) / 2 * (size[:, None, :, None] * size[:, None, None, :])
    first, relative = orders(power, KERNELS[power], eigenvalues.to(dtype), rotated.to(dtype))
    module = KERNELS[power]
    root = module.roots(eigenvalues)
    half = module.values(root).sqrt()
    second = module.second_order(root, rotated) / (half[:, :, None] * half[:, None, :])
    # nothing cancels in either, so a rounding here is one of the diagonal's size at most
    bound = 64 * torch.finfo(dtype).eps
    diagonal = second.diagonal(dim1=-2, dim2=-1).sqrt()
    allowed = bound * diagonal[:, :, None] * diagonal[:, None, :]
    assert ((relative - second).abs() <= allowed).all()
    expected = module.first_order(root.unsqueeze(1), rotated)
    torch.testing.assert_close(first.double(), expected, rtol=bound, atol=0)


@pytest.mark.parametrize("power", CHAINS, ids=str)
def test_a_chain_takes_a_product_for_each_root_and_one_for_the_inverse(power):
    rotated = draw((1, 2, 8, 8), generator())
    call = flops(lambda: orders(power, KERNELS[power], torch.ones(1, 8).double(), rotated))
    assert call == (1 + CHAINS[power]) * 2 * 2 * 8**3


# -- symmetric products ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(256, 5), (2, 257, 3), (2, 2, 600, 4), (255, 300)], ids=str)
def test_a_symmetric_product_is_the_whole_one(shape):
    a = draw(shape, generator())
    weights = draw(shape[-1:], generator(1)).square()
    torch.testing.assert_close(symmetric_product(a * weights, a), (a * weights) @ a.mT)


def test_a_symmetric_matrix_in_another_basis_stays_exactly_symmetric_but_for_small_blocks():
    a = draw((2, 300, 300), generator())
    basis = torch.linalg.qr(draw((2, 300, 300), generator(1)))[0]
    found = conjugated(basis, a + a.mT)
    torch.testing.assert_close(found, basis @ (a + a.mT) @ basis.mT, rtol=1e-9, atol=1e-10)
    assert torch.equal(found[:, :150, 150:], found[:, 150:, :150].mT)


@pytest.mark.parametrize(("rows", "share"), [(128, 1), (256, 3 / 4), (512, 5 / 8), (1024, 5 / 8)])
def test_halving_leaves_three_quarters_and_twice_five_eighths_of_the_products(rows, share):
    a = torch.zeros(rows, 2)
    assert flops(lambda: symmetric_product(a, a)) == share * 2 * 2 * rows**2


# -- deviations of gradients ----------------------------------------------------------------------


@pytest.mark.parametrize("sides", [("left", "right"), ("left",), ("right",)], ids=str)
def test_gradients_turned_first_have_the_deviations_of_the_squares_turned_after(sides):
    gen = generator()
    gradients = draw((2, 5, 3, 4), gen)
    weights = draw((5,), gen).square()
    weights = weights / weights.sum()
    roots = (weights / 4).sqrt()
    factors = {"left": gradients @ gradients.mT, "right": gradients.mT @ gradients}
    taken = {n: Side.decompose(factors[n].mean(1), 1e-3, Fraction(4), n) for n in sides}

    def centered(x):
        return roots.view(-1, 1, 1) * (x - (x * weights.view(-1, 1, 1)).sum(1, keepdim=True))

    after = Deviations(centered(gradients), {n: centered(factors[n]) for n in sides})
    first = GradientDeviations(gradients, weights.expand(2, -1), roots.expand(2, -1))
    for found, expected in zip(
        first.rotated(taken, 0.3, couples=True), after.rotated(taken, 0.3, couples=True),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert first.rotated(taken, 0.3, couples=False)[0] is None


# -- what a step costs ----------------------------------------------------------------------------

SIZE, MICROBATCHES = 512, 8  # halving twice, as at 1024: the counts over n³ are the same there

COSTS = {
    "plug_in": ({"correction": "plug_in"}, 9, 6.5),
    "diagonal": ({"correction": "diagonal"}, 15.5, 13),
    "full": ({"correction": "full"}, 69.5, 36.5),
    "plug_in-microbatches": ({"correction": "plug_in", "spread": "microbatches"}, 29, 26.5),
    "diagonal-microbatches": ({"correction": "diagonal", "spread": "microbatches"}, 81, 78.5),
    "full-microbatches": ({"correction": "full", "spread": "microbatches"}, 239.5, 206.5),
}
"""Flops over n³ of a step with a refresh and of one between refreshes, beside the eigensolver."""


def step_flops(options: dict, refresh: int, steps: int, size: int = SIZE) -> list[float]:
    param = torch.nn.Parameter(torch.zeros(size, size))
    kind = "mean_of_squares" if options.get("spread") == "microbatches" else "square_of_mean"
    optimizer = Shampoo([param], refresh=refresh, damping=1e-6, second_moment=kind, **options)
    stats = MatrixStats([param], keep="gradients")
    if kind == "mean_of_squares":
        optimizer.attach(stats)
    gen, found = generator(), []
    for _ in range(steps):
        batch = [draw((size, size), gen, torch.float32) for _ in range(MICROBATCHES)]
        if kind == "mean_of_squares":
            for gradient in batch:
                stats.add([gradient])
        param.grad = sum(batch) / MICROBATCHES
        with quietly():
            found.append(flops(optimizer.step) / size**3)
    return found


@pytest.mark.parametrize("name", COSTS)
def test_a_step_takes_the_products_that_are_stated(name):
    options, due, between = COSTS[name]
    found = step_flops(options, refresh=2, steps=3)
    assert found[1:] == [between, due]


def test_a_refresh_at_every_step_saves_what_holding_a_basis_costs():
    options, _, _ = COSTS["full-microbatches"]
    assert step_flops(options, refresh=1, steps=2)[-1] == 234


def test_large_members_of_a_stack_are_not_copied_on_a_cpu():
    params = [torch.nn.Parameter(torch.zeros(256, 256)) for _ in range(3)]
    small = [torch.nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    optimizer = Shampoo(params + small)
    found = shampoo_stacks.stacks(optimizer.param_groups[0], params + small, optimizer.state)
    assert sorted(len(members) for _, _, members in found) == [1, 1, 1, 3]


# -- a spread that is measured now and then -------------------------------------------------------


@pytest.mark.parametrize("memory", ["ema", "sum"])
@pytest.mark.parametrize("step", [1, 3, 4, 9])
def test_what_a_measurement_stands_for_completes_the_sums_of_weights(step, memory):
    every = 3
    now, each = (Weights.at(step, 0.8, 0.9, memory, k) for k in (every, 1))
    a, b = now.newest_momentum, now.newest_factor
    whole = now.stands_for * b**2, now.stands_for_mixed * a * b
    if step > every:
        before = Weights.at(step - every, 0.8, 0.9, memory)
        whole = whole[0] + now.keep * before.squares, whole[1] + now.keep_mixed * before.products
    assert whole == pytest.approx((each.squares, each.products), rel=1e-12)
    assert (each.stands_for, each.stands_for_mixed) == (1, 1)


# the coupling's terms of a sum have the size of the preconditioner that they were measured with
@pytest.mark.parametrize(
    ("correction", "memory"), [("full", "ema"), ("diagonal", "ema"), ("diagonal", "sum")]
)
def test_a_spread_that_does_not_change_may_be_measured_now_and_then(correction, memory):
    params = [torch.nn.Parameter(torch.zeros(3, 4, dtype=torch.float64)) for _ in range(2)]
    batch = [draw((3, 4), generator(k)) for k in range(4)]
    for param, every in zip(params, (1, 4), strict=True):
        optimizer = Shampoo(
            [param], lr=0.1, betas=(0.8, 0.9), damping=1e-12, correction=correction, memory=memory,
            second_moment="mean_of_squares", spread="microbatches", refresh=4, spread_every=every,
        )  # fmt: skip
        stats = MatrixStats([param], keep="gradients")
        optimizer.attach(stats)
        for _ in range(11):
            for gradient in batch:
                stats.add([gradient])
            param.grad = sum(batch) / 4
            optimizer.step()
        assert optimizer.validity().inversion > 1e-3
    torch.testing.assert_close(*params, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("correction", ["full", "diagonal"])
def test_steps_without_a_measurement_cost_the_plug_ins(correction):
    found = step_flops({"correction": correction, "spread_every": 2}, refresh=2, steps=2, size=64)
    assert found[1] == step_flops({"correction": "plug_in"}, refresh=2, steps=2, size=64)[1]


def test_a_refresh_without_a_measurement_is_refused():
    param = torch.nn.Parameter(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="spread_every=2 does not divide refresh=3"):
        Shampoo([param], refresh=3, spread_every=2)
    with pytest.raises(ValueError, match="spread_every=0 must be an integer >= 1"):
        Shampoo([param], spread_every=0)


def test_a_checkpoint_from_before_this_option_measures_at_every_step():
    param = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = Shampoo([param], refresh=2)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["spread_every"]
    optimizer.load_state_dict(saved)
    param.grad = torch.ones(3, 4)
    optimizer.step()
    assert optimizer.param_groups[0]["spread_every"] == 1


def test_a_process_that_allows_coarse_products_gets_the_same_steps():
    params = [torch.nn.Parameter(torch.zeros(96, 128)) for _ in range(2)]
    before = torch.get_float32_matmul_precision()
    try:
        for param, precision in zip(params, ("highest", "medium"), strict=True):
            torch.set_float32_matmul_precision(precision)
            optimizer, gen = Shampoo([param], damping=1e-6), generator()
            for _ in range(3):
                param.grad = draw((96, 128), gen, torch.float32)
                optimizer.step()
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(*params)
