"""Eigen-decompositions: right on hard spectra, named errors on bad input, one retry in fp64."""

import logging
import math

import pytest
import torch

from deltabias.errors import DeltabiasError
from deltabias.optim.eigen import (
    EigensolverFailed,
    IndefinitePreconditioner,
    MatrixError,
    SingularPreconditioner,
    eigendecompose,
    normalized,
)

F64 = torch.float64
EIGH = torch.linalg.eigh


def rotated(values, seed=0, dtype=F64):
    """Q diag(values) Qᵀ with a random rotation, built in fp64."""
    d = len(values)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=F64))
    matrix = q @ torch.diag(torch.tensor(values, dtype=F64)) @ q.T
    return ((matrix + matrix.T) / 2).to(dtype)


SPECTRA = {
    "separated": [1.0, 2.0, 5.0, 9.0],
    "gaps of 1e-9": [1.0, 1.0 + 1e-9, 1.0 + 2e-9, 3.0],
    "repeated": [2.0, 2.0, 2.0, 2.0],
    "condition 1e12": [1e-12, 1e-6, 1.0, 1.0],
    "one": [3.0],
}


@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_vectors_and_values_put_the_matrix_together_again(values):
    matrix = rotated(values)
    found, q = eigendecompose(matrix)
    d = len(values)
    assert (found.dtype, q.dtype) == (F64, F64)
    torch.testing.assert_close(q @ torch.diag(found) @ q.T, matrix, rtol=0, atol=1e-14 * d * 9)
    torch.testing.assert_close(q.T @ q, torch.eye(d, dtype=F64), rtol=0, atol=1e-14 * d)
    torch.testing.assert_close(found, torch.tensor(sorted(values), dtype=F64), rtol=0, atol=1e-13)


def test_batches_are_decomposed_matrix_by_matrix():
    batch = torch.stack([rotated(v) for v in list(SPECTRA.values())[:4]]).view(2, 2, 4, 4)
    values, q = eigendecompose(batch, damping=0.25)
    assert (values.shape, q.shape) == ((2, 2, 4), (2, 2, 4, 4))
    rebuilt = q @ torch.diag_embed(values) @ q.mT
    torch.testing.assert_close(rebuilt, batch + 0.25 * torch.eye(4, dtype=F64))


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32),
     (torch.float32, torch.float32), (F64, F64)],
    ids=str,
)  # fmt: skip
def test_the_precision_is_fp32_at_least(given, computed):
    values, q = eigendecompose(torch.eye(3, dtype=given) * 2)
    assert (values.dtype, q.dtype) == (computed, computed)
    assert normalized(torch.eye(3, dtype=given))[0].dtype == computed


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 4, 4)])
def test_nothing_decomposes_into_nothing(shape):
    values, q = eigendecompose(torch.zeros(shape))
    assert (values.shape, q.shape) == (shape[:-1], shape)
    scaled, scale = normalized(torch.zeros(shape))
    assert (scaled.shape, scale.shape) == (shape, shape[:-2])


def test_no_gradient_flows_through_a_decomposition():
    matrix = torch.eye(2, requires_grad=True)
    assert not eigendecompose(matrix)[0].requires_grad


# -- damping, singular, indefinite ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("d", [2, 8, 256])
def test_a_rank_deficient_product_of_gradients_needs_damping_and_says_so(dtype, d):
    generator = torch.Generator().manual_seed(d)
    gradient = torch.randn(d, max(d // 8, 1), generator=generator, dtype=dtype)
    factor = gradient @ gradient.T
    with pytest.raises(SingularPreconditioner, match=r"L\[3\] is singular.*pass damping > 0"):
        eigendecompose(torch.stack([torch.eye(d, dtype=dtype)] * 3 + [factor]), name="L")
    values, _ = eigendecompose(factor, damping=1e-3)
    assert (values >= 1e-3).all()  # what rounding made negative was set to zero first
    assert math.isclose(float(values[0]), 1e-3, rel_tol=0.1)


def test_a_zero_matrix_is_singular_and_with_damping_it_is_the_damping():
    with pytest.raises(SingularPreconditioner, match="smallest eigenvalue is 0"):
        eigendecompose(torch.zeros(3, 3))
    values, q = eigendecompose(torch.zeros(3, 3), damping=0.5)
    assert torch.equal(values, torch.full((3,), 0.5))
    torch.testing.assert_close(q.T @ q, torch.eye(3))


def test_a_zero_of_dimension_one_is_singular_too():
    with pytest.raises(SingularPreconditioner):
        eigendecompose(torch.zeros(1, 1))
    assert eigendecompose(torch.zeros(1, 1), damping=2.0)[0].tolist() == [2.0]


@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_a_negative_eigenvalue_is_named_whatever_the_damping(damping):
    with pytest.raises(IndefinitePreconditioner, match=r"R has the eigenvalue -0.01"):
        eigendecompose(rotated([-0.01, 1.0, 2.0]), damping=damping, name="R")
    with pytest.raises(IndefinitePreconditioner, match=r"eigenvalue -2"):
        eigendecompose(torch.tensor([[-2.0]]), damping=3.0)
    with pytest.raises(IndefinitePreconditioner, match=r"\[1, 0\] has the eigenvalue -1"):
        eigendecompose(torch.stack([torch.eye(2), -torch.eye(2)]).view(2, 1, 2, 2))


def test_rounding_is_judged_by_the_dtype_of_the_matrix():
    tiny = [-1e-6, 1.0, 1.0]
    assert (eigendecompose(rotated(tiny, dtype=torch.float32), damping=1e-3)[0] >= 1e-3).all()
    with pytest.raises(IndefinitePreconditioner):
        eigendecompose(rotated(tiny), damping=1e-3)


@pytest.mark.parametrize("damping", [-1e-9, math.nan, math.inf])
def test_a_damping_that_is_none_is_refused(damping):
    with pytest.raises(ValueError, match="damping="):
        eigendecompose(torch.eye(2), damping=damping)


# -- what is no matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3), (4,), (), (2, 3, 2)])
def test_what_is_not_square_is_refused_by_name(shape):
    with pytest.raises(MatrixError, match="L of block 7 has shape"):
        eigendecompose(torch.ones(shape), name="L of block 7")
    with pytest.raises(MatrixError, match="has shape"):
        normalized(torch.ones(shape))


def test_what_is_not_symmetric_beyond_rounding_is_refused_and_rounding_is_not():
    matrix = rotated([1.0, 2.0, 3.0], dtype=torch.float32)
    nudged, crooked = matrix.clone(), matrix.clone()
    nudged[0, 1] += 1e-6
    crooked[0, 1] += 1e-3
    torch.testing.assert_close(eigendecompose(nudged)[0], torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(MatrixError, match=r"the preconditioner\[1\] is not symmetric"):
        eigendecompose(torch.stack([matrix, crooked]))
    with pytest.raises(MatrixError, match="not symmetric"):
        eigendecompose(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_before_the_solver_sees_it(bad, monkeypatch):
    monkeypatch.setattr(torch.linalg, "eigh", None)
    matrix = torch.eye(3).repeat(2, 1, 1)
    matrix[1, 2, 2] = bad
    with pytest.raises(MatrixError, match=r"L\[1\] has a NaN or an infinity"):
        eigendecompose(matrix, name="L")


def test_complex_integer_and_sparse_matrices_are_refused():
    for bad in (torch.eye(2, dtype=torch.complex64), torch.eye(2, dtype=torch.int64),
                torch.eye(2).to_sparse(), [[1.0]]):  # fmt: skip
        with pytest.raises(TypeError, match="L"):
            eigendecompose(bad, name="L")


def test_every_error_is_one_of_the_package():
    for kind in (MatrixError, IndefinitePreconditioner, SingularPreconditioner, EigensolverFailed):
        assert issubclass(kind, DeltabiasError)


# -- a solver that fails --------------------------------------------------------------------------


class Solver:
    """`torch.linalg.eigh`, failing where it is told to; remembers what it was given."""

    def __init__(self, fails):
        self.fails, self.seen = fails, []

    def __call__(self, matrix):
        self.seen.append((tuple(matrix.shape), matrix.dtype))
        if self.fails(matrix, len(self.seen)):
            raise torch.linalg.LinAlgError(f"failed to converge, call {len(self.seen)}")
        return EIGH(matrix)


@pytest.fixture
def solver(monkeypatch):
    def install(fails):
        monkeypatch.setattr(torch.linalg, "eigh", made := Solver(fails))
        return made

    return install


def test_one_failure_is_retried_once_in_fp64_with_a_line_in_the_log(solver, caplog):
    made = solver(lambda matrix, call: call == 1)
    matrix = rotated([1.0, 2.0, 5.0], dtype=torch.float32)
    with caplog.at_level(logging.WARNING):
        values, q = eigendecompose(matrix, name="L of block 3")
    assert made.seen == [((3, 3), torch.float32), ((3, 3), F64)]
    assert (values.dtype, q.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(q @ torch.diag(values) @ q.T, matrix)
    (record,) = caplog.records
    assert "L of block 3" in record.getMessage()
    assert "failed to converge, call 1" in record.getMessage()


def test_a_solver_that_always_fails_is_named_and_the_first_error_is_kept(solver):
    made = solver(lambda matrix, call: True)
    with pytest.raises(EigensolverFailed, match=r"failed on L .*again in fp64") as caught:
        eigendecompose(torch.eye(2), name="L")
    assert len(made.seen) == 2
    assert isinstance(caught.value.__cause__, torch.linalg.LinAlgError)
    assert "call 1" in str(caught.value.__cause__)


def test_the_one_of_a_batch_that_fails_is_found_and_only_it_is_retried(solver, caplog):
    batch = torch.stack([rotated([1.0, k + 2.0], dtype=torch.float32) for k in range(4)])
    batch = batch.view(2, 2, 2, 2)

    def fails(matrix, call):
        hit = (matrix == batch[1, 0]).flatten(start_dim=-2).all(dim=-1)
        return matrix.dtype == torch.float32 and bool(hit.any())

    made = solver(fails)
    with caplog.at_level(logging.WARNING):
        values, q = eigendecompose(batch, name="R")
    torch.testing.assert_close(q @ torch.diag_embed(values) @ q.mT, batch)
    assert [shape for shape, dtype in made.seen if dtype == F64] == [(2, 2)]
    assert "R[1][0] [2, 2]" in caplog.records[-1].getMessage()


def test_the_one_of_a_batch_that_cannot_be_saved_is_named(solver):
    batch = torch.stack([torch.eye(2) * (k + 1) for k in range(3)])
    solver(lambda matrix, call: bool((matrix == 2).any()))
    with pytest.raises(EigensolverFailed, match=r"R\[1\]"):
        eigendecompose(batch, name="R")


def test_an_answer_of_nan_is_a_failure_too(monkeypatch):
    def poisoned(matrix):
        values, q = EIGH(matrix)
        return (values * math.nan if matrix.dtype == torch.float32 else values), q

    monkeypatch.setattr(torch.linalg, "eigh", poisoned)
    assert eigendecompose(torch.eye(2) * 3)[0].tolist() == [3.0, 3.0]
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (m[..., 0] * math.nan, m))
    with pytest.raises(EigensolverFailed):
        eigendecompose(torch.eye(2))


def test_other_errors_of_the_solver_are_not_swallowed(monkeypatch):
    def broken(matrix):
        raise MemoryError("out of memory")

    monkeypatch.setattr(torch.linalg, "eigh", broken)
    with pytest.raises(MemoryError):
        eigendecompose(torch.eye(2))


# -- normalized -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-36, 1.0, 1e38])
def test_normalizing_makes_eigenvalues_of_one_on_average_and_undoes_exactly(size):
    matrix = rotated([1.0, 2.0, 3.0], dtype=torch.float32)
    batch = torch.stack([matrix * size, matrix * size / 2, torch.zeros(3, 3)])
    scaled, scale = normalized(batch)
    torch.testing.assert_close(scale, torch.tensor([2.0 * size, size, 1.0]))
    torch.testing.assert_close(scaled[:2], torch.stack([matrix / 2, matrix / 2]))
    assert not scaled[2].any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.gpu
def test_on_a_gpu_the_result_is_that_of_the_cpu():
    matrix = rotated([1.0, 2.0, 5.0], dtype=torch.float32)
    values, q = eigendecompose(matrix.cuda(), damping=0.5)
    torch.testing.assert_close(values.cpu(), torch.tensor([1.5, 2.5, 5.5]))
    torch.testing.assert_close((q @ torch.diag(values - 0.5) @ q.T).cpu(), matrix)
