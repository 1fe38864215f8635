"""Symmetric eigen-decompositions of preconditioners, with everything that can go wrong named.

    >>> values, vectors = eigendecompose(torch.diag(torch.tensor([4.0, 1.0])), damping=0.5)
    >>> values
    tensor([1.5000, 4.5000])

Rounding is judged by one number, ``32 √d eps`` of the matrix's own dtype (at most 0.1): products
of gradients in that dtype are symmetric and positive semidefinite to within √d eps or so of their
largest entry (measured: 4e-7 for d = 1024, rank 10, fp32), and a mistake is far above it.
"""

import logging

import torch
from torch import Tensor

from deltabias.errors import DeltabiasError
from deltabias.microbatch.layout import check_dense
from deltabias.microbatch.matrix_moments import full_precision
from deltabias.optim.checks import check_range

_log = logging.getLogger(__name__)

Eigen = tuple[Tensor, Tensor]


class MatrixError(DeltabiasError):
    """What was passed is no symmetric finite matrix."""


class IndefinitePreconditioner(MatrixError):
    """An eigenvalue is negative by more than rounding."""


class SingularPreconditioner(MatrixError):
    """An eigenvalue is zero to within rounding, and there is no damping."""


class EigensolverFailed(MatrixError):
    """The eigensolver did not converge, in fp64 neither."""


@torch.no_grad()
def eigendecompose(
    matrix: Tensor, *, damping: float = 0.0, name: str = "the preconditioner"
) -> Eigen:
    r"""Eigenvalues of ``matrix + damping I``, ascending, and an orthonormal basis.

    .. math:: A = Q \,\mathrm{diag}(\lambda)\, Q^T, \qquad \lambda \leftarrow
              \max(\lambda, 0) + \mathrm{damping}

    The symmetric part is taken. Computed in fp32, in fp64 for fp64, without TF32. Eigenvalues that
    rounding made negative count as zero, before damping is added.

    A solver that does not converge, or answers NaN, is given each matrix of the batch by itself,
    and then those that fail once more in fp64 on the CPU, with a warning in the log.

    On CUDA the host waits for the checks of the matrix, for the solver's own look at its status
    and, when nothing is queued any more, for two looks at its answer. Nothing else waits.

    Parameters
    ----------
    matrix
        [..., d, d], symmetric positive semidefinite to within rounding
    damping
        >= 0, in units of the matrix
    name
        for error texts and the log

    Returns
    -------
    eigenvalues, vectors
        [..., d] and [..., d, d], eigenvectors in columns

    Raises
    ------
    TypeError
        Not a dense real floating-point tensor.
    MatrixError
        Not square, not finite, not symmetric beyond rounding.
    IndefinitePreconditioner
        An eigenvalue below zero by more than rounding.
    SingularPreconditioner
        ``damping=0`` and an eigenvalue of at most ``d eps`` times the largest: its inverse root
        would be infinite, or noise.
    EigensolverFailed
        Also the fp64 retry failed; the solver's own error is the ``__cause__``.
    """
    check_range("damping", damping)
    if damping == float("inf"):
        raise ValueError(f"{damping=} is not finite")
    symmetric = check_matrix(matrix, name)
    if not matrix.numel():
        return symmetric.new_zeros(symmetric.shape[:-1]), symmetric
    with full_precision():
        values, vectors = _solve(symmetric, name)
    values = _checked_eigenvalues(values, matrix, float(damping), name)
    return values + damping, vectors


def check_matrix(matrix: Tensor, name: str) -> Tensor:
    """The symmetric part in at least fp32, or the `TypeError` or `MatrixError` it deserves."""
    check_dense(matrix, name)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise MatrixError(
            f"{name} has shape {tuple(matrix.shape)}; an eigen-decomposition needs [..., d, d]"
        )
    work = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    if not matrix.numel():
        return work.clone()
    _check_symmetric(work, _rounding(matrix), name)
    return torch.lerp(work, work.mT, 0.5)  # no overflow, where a sum could


@torch.no_grad()
def normalized(matrix: Tensor) -> Eigen:
    """``(matrix / scale, scale)`` with scale [...] = trace / d, so that eigenvalues average 1.

    In at least fp32. The scale is 1 where the trace is not positive (a zero matrix) or d = 0.
    A homogeneous map undoes it: f(A) = scale^(-1/p) f(A / scale). Nothing waits for the device.

    >>> normalized(torch.diag(torch.tensor([3.0, 1.0])))
    (tensor([[1.5000, 0.0000],
            [0.0000, 0.5000]]), tensor(2.))
    """
    check_dense(matrix, "matrix")
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise MatrixError(f"matrix has shape {tuple(matrix.shape)}; pass [..., d, d]")
    work = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    diagonal = work.diagonal(dim1=-2, dim2=-1)
    scale = (diagonal / max(work.shape[-1], 1)).sum(dim=-1)  # divided first: no overflow
    scale = torch.where(scale > 0, scale, 1.0)
    return work / scale[..., None, None], scale


def _rounding(matrix: Tensor) -> float:
    return min(32 * matrix.shape[-1] ** 0.5 * torch.finfo(matrix.dtype).eps, 0.1)


def _check_symmetric(work: Tensor, tolerance: float, name: str) -> None:
    size = work.abs().amax(dim=(-2, -1)).flatten()
    # halves, as the difference of two large entries may overflow
    skew = (work / 2 - work.mT / 2).abs().amax(dim=(-2, -1)).flatten() * 2
    bad = ~torch.isfinite(size)
    crooked = skew > tolerance * size
    kinds = torch.stack([bad.any(), crooked.any()]).tolist()  # the one wait
    if kinds[0]:
        at = _where(bad, work)
        raise MatrixError(f"{name}{at} has a NaN or an infinity; look at the gradients before")
    if kinds[1]:
        at, k = _where(crooked, work), int(crooked.nonzero()[0])
        raise MatrixError(
            f"{name}{at} is not symmetric: |A - A^T| is {skew[k] / size[k]:.2e} of its largest "
            f"entry, rounding explains {tolerance:.2e}; pass (A + A.mT) / 2 if that is meant"
        )


def _solve(symmetric: Tensor, name: str) -> Eigen:
    try:
        return _eigh(symmetric)
    except torch.linalg.LinAlgError as error:
        if symmetric.ndim == 2:
            return _retry(symmetric, name, error)
        _log.warning(
            "eigh of %s, a batch of shape %s, failed (%s); its matrices are decomposed one by one",
            name, tuple(symmetric.shape), error,
        )  # fmt: skip
    pairs = [_solve(one, f"{name}[{k}]") for k, one in enumerate(symmetric)]
    values, vectors = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    return values, vectors


def _retry(symmetric: Tensor, name: str, error: Exception) -> Eigen:
    """In fp64 and on the CPU, where LAPACK is; the result comes back as it would have been."""
    _log.warning(
        "eigh of %s [%d, %d] in %s on %s failed (%s); trying once more in fp64 on the CPU",
        name, *symmetric.shape, symmetric.dtype, symmetric.device, error,
    )  # fmt: skip
    try:
        values, vectors = _eigh(symmetric.to("cpu", torch.float64))
    except torch.linalg.LinAlgError as again:
        raise EigensolverFailed(
            f"the eigensolver failed on {name} of shape {tuple(symmetric.shape)}, in "
            f"{symmetric.dtype} and again in fp64 ({again}); skip this refresh and keep the old "
            "basis, or raise the damping"
        ) from error
    return values.to(symmetric), vectors.to(symmetric)


def _eigh(symmetric: Tensor) -> Eigen:
    values, vectors = torch.linalg.eigh(symmetric)
    # some solvers answer NaN instead of an error
    if not bool(torch.isfinite(values).all() & torch.isfinite(vectors).all()):
        raise torch.linalg.LinAlgError("linalg.eigh: the answer is not finite")
    return values, vectors


def _checked_eigenvalues(values: Tensor, matrix: Tensor, damping: float, name: str) -> Tensor:
    """`values` without negative ones; they are ascending, so two of them tell everything."""
    smallest, largest = values[..., 0].flatten(), values[..., -1].flatten()
    tolerance = _rounding(matrix)
    d, eps = matrix.shape[-1], torch.finfo(matrix.dtype).eps
    size = torch.maximum(largest, -smallest)
    negative = smallest < -tolerance * size
    singular = smallest <= d * eps * size if damping == 0 else torch.zeros_like(negative)
    kinds = torch.stack([negative.any(), singular.any()]).tolist()  # the one wait
    if kinds[0]:
        k = int(negative.nonzero()[0])
        raise IndefinitePreconditioner(
            f"{name}{_where(negative, matrix)} has the eigenvalue {float(smallest[k]):.6g}, the "
            f"largest is {float(largest[k]):.6g}; a preconditioner is positive semidefinite, and "
            f"rounding explains {-tolerance * float(size[k]):.2g}"
        )
    if kinds[1]:
        k = int(singular.nonzero()[0])
        raise SingularPreconditioner(
            f"{name}{_where(singular, matrix)} is singular: its smallest eigenvalue is "
            f"{float(smallest[k]):.3g}, its largest {float(largest[k]):.3g}; pass damping > 0, "
            f"e.g. damping={max(1e-6 * float(size[k]), 1e-12):.1e}"
        )
    return values.clamp_min(0)


def _where(flags: Tensor, batch: Tensor) -> str:
    """Which matrix of a batch; nothing for a single one. `flags` is flat."""
    if batch.ndim == 2:
        return ""
    index, sizes = int(flags.nonzero()[0]), batch.shape[:-2]
    place = []
    for size in reversed(sizes):
        place.append(index % size)
        index //= size
    return str(place[::-1])
