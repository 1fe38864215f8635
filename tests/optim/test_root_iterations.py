"""Inverse roots by products alone: what is certified holds, against 60 digits and hostile input."""

import warnings

import mpmath
import pytest
import torch
from torch import nn

from deltabias.optim import Shampoo
from deltabias.optim.eigen import IndefinitePreconditioner, MatrixError, SingularPreconditioner
from deltabias.optim.root_iteration import (
    METHODS,
    POWERS,
    PRECISIONS,
    certify,
    iterate_root,
    schedule,
)

D = 6


def matrix(values, seed: int = 0) -> torch.Tensor:
    """Symmetric, with these eigenvalues, in a random basis; fp64."""
    values = torch.as_tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    d = len(values)
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    a = (basis * values) @ basis.mT
    return (a + a.mT) / 2


def relative_error(x: torch.Tensor, a: torch.Tensor, power: int, damping: float = 0.0) -> float:
    """The largest |eigenvalue| of P^-½ X P^-½ − I, with P = A^(-1/p) to 60 digits."""
    with mpmath.workdps(60):
        exact = mpmath.matrix(a.double().tolist()) + damping * mpmath.eye(len(a))
        values, basis = mpmath.eigsy(exact)
        half = basis * mpmath.diag([v ** (mpmath.mpf(1) / (2 * power)) for v in values]) * basis.T
        middle = half * mpmath.matrix(x.double().tolist()) * half - mpmath.eye(len(a))
        middle = (middle + middle.T) / 2
        return float(max(abs(v) for v in mpmath.eigsy(middle, eigvals_only=True)))


SPECTRA = {
    "well conditioned": torch.linspace(1, 3, D),
    "condition 1e4": torch.logspace(0, -4, D),
    "condition 1e8": torch.logspace(0, -8, D, dtype=torch.float64),
    "condition 1e12": torch.logspace(0, -12, D, dtype=torch.float64),
    "all equal": torch.full((D,), 0.7),
    "two clusters": torch.tensor([1.0, 1.0, 1.0, 1e-3, 1e-3, 1e-3]),
    "nearly equal": 1 + 1e-9 * torch.arange(D, dtype=torch.float64),
    "tiny": 1e-30 * torch.linspace(1, 5, D, dtype=torch.float64),
    "huge": 1e30 * torch.linspace(1, 5, D, dtype=torch.float64),
}


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_the_certified_error_bounds_the_true_one(values, power):
    a = matrix(values)
    root = iterate_root(a, power, tolerance=0.1)
    error = relative_error(root.inverse_root, a, power)
    assert error <= float(root.error) <= 0.1
    assert METHODS[root.method] == "fp64"


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("condition", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_low_precision_is_certified_too_or_gives_way_to_a_better_one(power, condition, precision):
    a = matrix(torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), D)).float()
    root = iterate_root(a, power, tolerance=1e-3, precision=precision)
    error = relative_error(root.inverse_root, a, power)
    assert error <= float(root.error) <= 1e-3
    used = METHODS[root.method]
    assert METHODS.index(used) >= METHODS.index(precision)
    assert list(root.steps)[-1] == used


def test_bf16_is_refused_where_its_bound_fails_and_used_where_it_holds():
    kinds = [1.0, 1e4]
    batch = torch.stack([matrix(torch.logspace(0, -torch.log10(torch.tensor(k)).item(), D))
                         for k in kinds]).float()  # fmt: skip
    root = iterate_root(batch, 2, tolerance=1e-2, precision="bf16")
    assert [METHODS[k] for k in root.method] == ["bf16", "fp32"]
    assert bool((root.error <= 1e-2).all())


@pytest.mark.parametrize("power", POWERS)
def test_a_wrong_root_is_not_certified(power):
    a = matrix(torch.linspace(1, 2, D))
    x = iterate_root(a, power).inverse_root[None]
    good = certify(x, a[None], power)
    assert float(good) < 1e-10
    for wrong in (1.01 * x, x + 0.01 * torch.eye(D, dtype=torch.float64), x @ x):
        bound = float(certify(wrong, a[None], power))
        assert bound >= relative_error(wrong[0], a, power) > 1e-3
    if power % 2 == 0:  # (−X)^p = X^p: the residual cannot see the sign
        assert certify(-x, a[None], power).isinf()


@pytest.mark.parametrize("power", [2, 4])
def test_a_root_of_mixed_signs_has_no_residual_and_no_certificate(power):
    values = torch.linspace(1, 2, D, dtype=torch.float64)
    signs = torch.tensor([1.0, -1, 1, 1, -1, 1], dtype=torch.float64)
    x = torch.diag(signs * values ** (-1 / power))[None]
    a = torch.diag(values)[None]
    assert torch.linalg.matrix_norm(torch.linalg.matrix_power(x, power) @ a - torch.eye(D)) < 1e-14
    assert certify(x, a, power).isinf()


def test_the_certificate_is_about_every_direction_not_about_the_largest():
    """A relative error in the weakest direction of X is invisible in ‖X − P‖/‖P‖."""
    values = torch.logspace(0, -10, D, dtype=torch.float64)
    p = torch.diag(values**-0.5)
    x = p.clone()
    x[0, 0] *= 1.1  # the smallest entry
    assert torch.linalg.matrix_norm(x - p) / torch.linalg.matrix_norm(p) < 1e-5
    assert float(certify(x[None], torch.diag(values)[None], 2)) >= 0.1


def test_what_no_iteration_proves_is_given_to_the_eigensolver_and_counted():
    a = matrix(torch.logspace(0, -6, D, dtype=torch.float64)).float()
    root = iterate_root(a, 1, damping=1e-9, tolerance=1e-6)
    assert (bool(root.missed), root.fallbacks) == (True, 1)
    assert list(root.steps) == ["fp32", "fp64"]
    values, basis = torch.linalg.eigh(a)
    plain = (basis / (values + 1e-9)) @ basis.mT
    error = relative_error(root.inverse_root, a, 1, damping=1e-9)
    assert 1e-6 < error <= float(root.error)
    assert error <= relative_error((plain + plain.mT) / 2, a, 1, damping=1e-9)


def test_a_batch_has_each_matrix_solved_as_it_needs():
    spectra = [torch.full((D,), 2.0), torch.logspace(0, -2, D), torch.logspace(0, -5, D)]
    batch = torch.stack([matrix(s, seed=k) for k, s in enumerate(spectra)]).float()
    root = iterate_root(batch.view(3, 1, D, D), 2, damping=1e-6, tolerance=1e-3)
    assert root.inverse_root.shape == (3, 1, D, D)
    assert root.error.shape == root.method.shape == (3, 1)
    for k in range(3):
        error = relative_error(root.inverse_root[k, 0], batch[k], 2, damping=1e-6)
        assert error <= float(root.error[k, 0])


@pytest.mark.parametrize("power", POWERS)
def test_a_deficient_matrix_needs_damping_and_has_it(power):
    a = matrix(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0, 0.0]))
    root = iterate_root(a, power, damping=1e-6, tolerance=1e-3)
    assert METHODS[root.method] == "fp64"
    assert relative_error(root.inverse_root, a, power, damping=1e-6) <= float(root.error) <= 1e-3
    with pytest.raises(SingularPreconditioner, match="pass damping > 0"):
        iterate_root(a, power)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_a_damping_below_the_rounding_of_the_dtype_is_still_reached(power):
    """The spectrum ends at 1e-7 of the largest, d eps of fp32 is seven times that."""
    a = torch.diag(torch.tensor([1.0, 0.5, 0.1, 1e-7, 0.0, 0.0]))
    root = iterate_root(a, power, damping=1e-7, tolerance=1e-3)
    assert not bool(root.missed)
    assert relative_error(root.inverse_root, a, power, damping=1e-7) <= float(root.error)


def test_one_by_one_and_empty_and_zero():
    root = iterate_root(torch.tensor([[4.0]]), 2)
    assert root.inverse_root.item() == pytest.approx(0.5, rel=float(root.error))
    empty = iterate_root(torch.zeros(0, 3, 3), 4)
    assert empty.inverse_root.shape == (0, 3, 3)
    assert empty.fallbacks == 0
    zero = iterate_root(torch.zeros(2, 2), 2, damping=4.0)
    torch.testing.assert_close(zero.inverse_root, 0.5 * torch.eye(2))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_schedule_brings_every_eigenvalue_to_one(power, precision):
    _, end, slack = PRECISIONS[precision]
    lowest = 1e-4 if precision == "bf16" else 1e-12
    steps = schedule(power, lowest, end, slack)
    m = torch.logspace(0, torch.log10(torch.tensor(lowest)).item(), 2001, dtype=torch.float64)
    for alpha, beta in steps:
        h = alpha - beta * m
        assert bool((h > 0).all())  # else the root changes sign
        m = h**power * m
    assert (m - 1).abs().max() <= end
    newton = 0
    low = lowest
    while 1 - low > end:
        low = ((power + 1 - low) / power) ** power * low
        newton += 1
    assert len(steps) < 0.75 * newton


def test_arguments_and_matrices_are_refused_by_name():
    eye = torch.eye(2)
    with pytest.raises(ValueError, match="power=5 has no iteration; use one of 1, 2, 3, 4, 6, 8"):
        iterate_root(eye, 5)
    with pytest.raises(ValueError, match="precision='fp8' is not known"):
        iterate_root(eye, 2, precision="fp8")
    with pytest.raises(ValueError, match=r"tolerance=1\.5"):
        iterate_root(eye, 2, tolerance=1.5)
    with pytest.raises(MatrixError, match="is not symmetric"):
        iterate_root(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 2)
    with pytest.raises(MatrixError, match="has a NaN or an infinity"):
        iterate_root(float("nan") * eye, 2)
    with pytest.raises(IndefinitePreconditioner):
        iterate_root(torch.diag(torch.tensor([1.0, -1.0])), 2)


# -- in Shampoo -----------------------------------------------------------------------------------


def steps(count: int = 4, dtype=torch.float64, **options) -> tuple[nn.Parameter, Shampoo]:
    weight = nn.Parameter(torch.linspace(-1, 1, 24, dtype=dtype).reshape(4, 6).clone())
    optimizer = Shampoo([weight], lr=0.1, correction="plug_in", **{"damping": 1e-4, **options})
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        weight.grad = torch.randn(4, 6, generator=generator, dtype=torch.float64).to(dtype)
        optimizer.step()
    return weight, optimizer


@pytest.mark.parametrize("options", [
    {}, {"memory": "sum"}, {"sides": "left"}, {"root": 1}, {"root": 3}, {"grafting": "adam"},
    {"refresh": 3}, {"block_size": 3},
], ids=str)  # fmt: skip
def test_shampoo_by_iteration_makes_the_steps_of_shampoo_by_eigenvalues(options):
    one, _ = steps(**options)
    other, optimizer = steps(**options, solver="iteration", root_error=1e-8)
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert optimizer.validity().fallbacks == 0


def test_shampoo_says_once_what_it_left_to_the_eigensolver_and_counts_it():
    with pytest.warns(RuntimeWarning, match=r"validity\(\)\.fallbacks counts them") as seen:
        one, optimizer = steps(dtype=torch.float32, damping=1e-9, solver="iteration",
                               root_error=1e-9)  # fmt: skip
    assert len([w for w in seen if "eigensolver" in str(w.message)]) == 1
    assert optimizer.validity().fallbacks == 8  # four steps, two sides
    plain, _ = steps(dtype=torch.float32, damping=1e-9)
    torch.testing.assert_close(one, plain, rtol=1e-4, atol=1e-5)


def test_states_of_an_iteration_are_inverse_roots_alone_and_resume():
    options = {"solver": "iteration", "refresh": 3}
    straight, _ = steps(6, **options)
    weight, optimizer = steps(4, **options)
    held = [name for name in optimizer.state[weight] if name.startswith("left_")]
    assert held == ["left_inverse_root.0"]
    other = nn.Parameter(weight.detach().clone())
    resumed = Shampoo([other], lr=0.1, correction="plug_in", damping=1e-4, **options)
    resumed.load_state_dict(optimizer.state_dict())
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(6)]
    for gradient in gradients[4:]:
        other.grad = gradient
        resumed.step()
    assert torch.equal(other, straight)


def test_corrections_and_odd_roots_are_refused_with_the_iteration():
    weight = nn.Parameter(torch.eye(2))
    with pytest.raises(ValueError, match="corrections are made in the eigenbasis"):
        Shampoo([weight], solver="iteration")
    with pytest.raises(ValueError, match=r"solver='iteration' with root=4/3"):
        Shampoo([weight], solver="iteration", correction="plug_in", root="4/3")
    with pytest.raises(ValueError, match="solver='qr' is not known"):
        Shampoo([weight], solver="qr")
    with pytest.raises(ValueError, match=r"root_error=2\.0 must lie between 0 and 1"):
        Shampoo([weight], root_error=2.0)


def test_a_singular_factor_is_refused_before_anything_is_changed():
    weight = nn.Parameter(torch.ones(3, 3))
    optimizer = Shampoo([weight], damping=0.0, correction="plug_in", solver="iteration")
    weight.grad = torch.ones(3, 3)
    with pytest.raises(SingularPreconditioner), warnings.catch_warnings():
        optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(3, 3))
    assert float(optimizer.state[weight]["step"]) == 0
