r"""A^(-1/p) by products of matrices only, with a proven bound on what came out.

**Iteration.** X and M = X^p A are carried along (coupled Newton, Guo & Higham 2006): with
H = αI − βM,

.. math:: X \leftarrow X H, \qquad M \leftarrow H^p M .

Newton's α = (p+1)/p, β = 1/p is best near M = I, and slow far from it: an eigenvalue m grows by
((p+1)/p)^p a step. While the spectrum lies in [l, u], the α, β that leave the smallest
interval about 1 make g(m) = (α − βm)^p m equal at both ends, α/β = (ρu − l)/(ρ − 1) with
ρ = (u/l)^(1/p), and put the middle of its range at 1; a small eigenvalue then grows by up to
2 (p+1)^(p+1)/p^p (as Polar Express does for the sign, arXiv 2505.16932).

**Certificate.** Let X be symmetric positive semidefinite, A positive definite and ‖X^p A − I‖ ≤ r
< 1. With B = A^(-1) and X^p = B + F, F is symmetric and B^(-½) F B^(-½) is similar to
F B^(-1) = X^p A − I, so its eigenvalues are at most r in size and −rB ⪯ F ⪯ rB. As t^(1/p) is
operator monotone (Löwner-Heinz),

.. math:: (1-r)^{1/p} A^{-1/p} \preceq X \preceq (1+r)^{1/p} A^{-1/p} :

every direction is right to within δ = 1 − (1−r)^(1/p), whatever the condition number. X and A
need not commute. r is evaluated in fp64, of the rounded X that is returned; what rounding hides
is bounded by γ_n ‖|X|…|A|…|X|‖ with γ_n = nu/(1−nu) (Higham, *Accuracy and Stability*, §3.5), and
X ⪰ 0 for even p by a Cholesky factorization of X shifted down by its own rounding (Rump 2006).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deltabias.microbatch.matrix_moments import full_precision
from deltabias.optim.checks import check_choice, check_range
from deltabias.optim.eigen import check_matrix, eigendecompose

POWERS = (1, 2, 3, 4, 6, 8)
PRECISIONS = {
    # name: (dtype of the products, where the iteration ends, how far the spectrum may stray)
    "bf16": (torch.bfloat16, 3e-2, 1.10),
    "fp32": (torch.float32, 1e-6, 1.01),
    "fp64": (torch.float64, 1e-14, 1.01),
}
MOST_STEPS = 100
POLISHINGS = 2
UNIT = 2.0**-53
METHODS = (*PRECISIONS, "eigh")


@dataclass(frozen=True)
class CertifiedRoot:
    """An inverse root and what is proven of it.

    Attributes
    ----------
    inverse_root
        X [..., d, d], symmetric, in the matrix's dtype (at least fp32)
    error
        δ [...], fp64: (1 − δ) P ⪯ X ⪯ (1 + δ) P with P = A^(-1/p). Infinite where nothing could be
        proven; also those of `eigendecompose` are certified in this way
    method
        index into ``METHODS`` of what computed each matrix, [...]
    missed
        where no iteration proved the tolerance, bool [...]: of the last one and the eigensolver
        the one with the smaller error was taken
    steps
        iterations taken, at each precision that was tried
    """

    inverse_root: Tensor
    error: Tensor
    method: Tensor
    missed: Tensor
    steps: dict[str, int]

    @property
    def fallbacks(self) -> int:
        """How many matrices the eigensolver was asked for; waits for the device."""
        return int(self.missed.sum())


@torch.no_grad()
def iterate_root(
    matrix: Tensor,
    power: int,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-4,
    precision: str = "fp32",
    name: str = "the preconditioner",
) -> CertifiedRoot:
    r"""(A + damping I)^(-1/p) of a batch, by products of matrices where their bound suffices.

    The iteration runs in `precision` and is polished in fp64 while its bound allows. What is not
    within `tolerance` is tried in the next better precision, and at last by `eigendecompose`, of
    which and the last iteration the one with the smaller proven error is taken.

    Parameters
    ----------
    matrix
        A [..., d, d], symmetric positive semidefinite to within rounding; not modified
    power
        p, one of 1, 2, 3, 4, 6, 8
    damping
        >= 0, in units of the matrix. Without it the eigenvalues are taken for at least d eps of
        the largest
    tolerance
        in (0, 1): the largest δ of `CertifiedRoot.error` that is accepted of an iteration
    precision : {"bf16", "fp32", "fp64"}
        of the products in the iteration; fp64 matrices start at fp64

    Raises
    ------
    ValueError
        for another power, precision, tolerance or damping.
    MatrixError and its kin
        as `eigendecompose`.

    Examples
    --------
    >>> root = iterate_root(torch.diag(torch.tensor([4.0, 1.0])), 2)
    >>> root.inverse_root
    tensor([[0.5000, 0.0000],
            [0.0000, 1.0000]])
    >>> bool(root.error < 1e-6), METHODS[root.method]
    (True, 'fp32')
    """
    _check_arguments(power, damping, tolerance, precision)
    work = check_matrix(matrix, name)
    batch, d = work.shape[:-2], work.shape[-1]
    flat = work.reshape(math.prod(batch), d, d)
    out = torch.empty_like(flat)
    error = torch.full((len(flat),), math.inf, dtype=torch.float64, device=flat.device)
    method = torch.full((len(flat),), METHODS.index("eigh"), device=flat.device)
    steps: dict[str, int] = {}
    if not flat.numel():
        nothing = error.zero_().view(batch)
        return CertifiedRoot(work.clone(), nothing, method.view(batch), nothing.bool(), steps)
    exact = flat.double() + damping * torch.eye(d, dtype=torch.float64, device=flat.device)
    scaled, exponent = _normalized(exact, power)
    # a floor above the spectrum would end the schedule too early; rounding may go below damping
    floor = 0.5 * damping * torch.exp2(-power * exponent)
    lowest = (floor if damping else floor + d * torch.finfo(flat.dtype).eps).tolist()
    waiting = torch.arange(len(flat), device=flat.device)
    with full_precision():
        for rung in _ladder(precision, flat.dtype):
            floors = [max(lowest[k], UNIT**2) for k in waiting.tolist()]
            x, steps[rung] = _iterate(scaled[waiting], power, floors, rung)
            x, bound = _polished(x, scaled[waiting], power, flat.dtype, tolerance)
            out[waiting], error[waiting] = x.to(flat.dtype), bound
            method[waiting] = METHODS.index(rung)
            waiting = waiting[bound > tolerance]
            if not len(waiting):
                break
        else:
            x = _by_eigh(flat[waiting], power, damping, exponent[waiting], name).to(flat.dtype)
            bound = certify(x.double(), scaled[waiting], power)
            better = ~(bound > error[waiting])  # also where neither is proven
            chosen = waiting[better]
            out[chosen], error[chosen] = x[better], bound[better]
            method[chosen] = METHODS.index("eigh")
    missed = torch.zeros_like(error, dtype=torch.bool)
    missed[waiting] = True
    out = out * torch.exp2(-exponent).to(out.dtype)[:, None, None]  # powers of two: exact
    views = (t.view(batch) for t in (error, method, missed))
    return CertifiedRoot(out.view(work.shape), *views, steps)


def certify(x: Tensor, a: Tensor, power: int) -> Tensor:
    """δ [B] with (1 − δ) A^(-1/p) ⪯ X ⪯ (1 + δ) A^(-1/p); infinite if none is proven.

    x, a: fp64, symmetric, [B, d, d]. The proof is in the module's docstring.
    """
    d, half = a.shape[-1], power // 2
    factors = [x] * half + [a] + [x] * (power - half)  # similar to X^p A, symmetric for even p
    product, ones = factors[0], a.new_ones(*a.shape[:-1], 1)
    for factor in factors[1:]:
        product = product @ factor
    product.diagonal(dim1=-2, dim2=-1).sub_(1)
    rows, columns = ones, ones  # ‖|X|…|A|…|X|‖ from matrix-vector products
    for factor in factors[::-1]:
        rows = factor.abs() @ rows
    for factor in factors:
        columns = factor.abs() @ columns
    gamma = _gamma(power * d + 2)
    hidden = gamma / (1 - gamma) * (rows.amax((-2, -1)) * columns.amax((-2, -1))).sqrt()
    seen = torch.linalg.matrix_norm(product) * (1 + _gamma(d * d + 2))
    r = (seen + hidden) * (1 + 8 * UNIT)
    proven = (r < 1) & (_positive(x) if power % 2 == 0 else torch.ones_like(r, dtype=torch.bool))
    # 1 − (1−r)^(1/p), without cancellation, and rounded up
    delta = -torch.expm1(torch.log1p(-r.clamp_max(1 - UNIT)) / power) * (1 + 16 * UNIT)
    return torch.where(proven, delta, torch.full_like(r, math.inf))


def _positive(x: Tensor) -> Tensor:
    """Whether X is positive definite, proven by Cholesky of X − cI, c its rounding error, [B]."""
    d = x.shape[-1]
    trace = x.diagonal(dim1=-2, dim2=-1).abs().sum(-1)
    shift = 2 * _gamma(d + 3) * trace
    shifted = x - shift[:, None, None] * torch.eye(d, dtype=x.dtype, device=x.device)
    return torch.linalg.cholesky_ex(shifted).info == 0


def _gamma(n: int) -> float:
    return n * UNIT / (1 - n * UNIT)


def schedule(power: int, lowest: float, end: float, slack: float) -> list[tuple[float, float]]:
    """(α, β) of every step that takes eigenvalues of [lowest, 1] to within `end` of 1.

    The spectrum is taken for `slack` times wider than exact arithmetic would have it, as an
    eigenvalue beyond α/β would change sign.
    """
    l, u, steps, p = lowest, 1.0, [], power
    while (max(u - 1, 1 - l) > end or not steps) and len(steps) < MOST_STEPS:
        if u - l < 0.1:
            alpha, beta = (p + 1) / p, 1 / p
            low, high = min(_map(alpha, beta, m, p) for m in (l, u)), 1.0
        else:
            u *= slack
            ratio = (u / l) ** (1 / p)
            alpha, beta = max((ratio * u - l) / (ratio - 1), slack * u), 1.0
            low = min(_map(alpha, beta, m, p) for m in (l, u))
            high = _map(alpha, beta, alpha / (p + 1), p)
            size = (2 / (low + high)) ** (1 / p)
            alpha, beta, low, high = alpha * size, size, low * size**p, high * size**p
        steps.append((alpha, beta))
        l, u = low, max(high, 1.0)
    return steps


def _map(alpha: float, beta: float, m: float, p: int) -> float:
    return (alpha - beta * m) ** p * m


def _iterate(a: Tensor, power: int, lowest: list[float], rung: str) -> tuple[Tensor, int]:
    """The coupled iteration on matrices with ‖A‖ ≤ 1; fp64 in and out."""
    dtype, end, slack = PRECISIONS[rung]
    plans = [schedule(power, low, end, slack) for low in lowest]
    count = max(map(len, plans))
    newton = ((power + 1) / power, 1 / power)  # harmless where a matrix has arrived
    plans = [plan + [newton] * (count - len(plan)) for plan in plans]
    coefficients = torch.tensor(plans, dtype=torch.float64, device=a.device)[..., None, None]
    # bf16 products, fp32 storage: the sums X + X(H − I) would lose what a product keeps
    store = torch.promote_types(dtype, torch.float32)

    def times(left: Tensor, right: Tensor) -> Tensor:
        return (left.to(dtype) @ right.to(dtype)).to(store)

    m = a.to(store)
    x = torch.eye(a.shape[-1], dtype=store, device=a.device).expand_as(m)
    for k in range(count):
        alpha, beta = coefficients[:, k].unbind(1)
        h = -beta.to(store) * m
        h.diagonal(dim1=-2, dim2=-1).add_(alpha.squeeze(-1).to(store))
        x = times(x, h)
        m = times(_matrix_power(h, power, times), m)
        m = torch.lerp(m, m.mT, 0.5)
    return torch.lerp(x, x.mT, 0.5).double(), count


def _matrix_power(h: Tensor, power: int, times) -> Tensor:
    """H^p by squaring."""
    result = None
    while power:
        if power & 1:
            result = h if result is None else times(result, h)
        power >>= 1
        if power:
            h = times(h, h)
    return result


def _polished(
    x: Tensor, a: Tensor, power: int, dtype: torch.dtype, tolerance: float
) -> tuple[Tensor, Tensor]:
    """X rounded to `dtype`, as fp64, and its bound; Newton's step in fp64 while it helps."""
    best, bound = x, torch.full(x.shape[:1], math.inf, dtype=torch.float64, device=x.device)
    for k in range(POLISHINGS + 1):
        x = torch.lerp(x, x.mT, 0.5).to(dtype).double()
        found = certify(x, a, power)
        better = found < bound
        best = torch.where(better[:, None, None], x, best)
        bound = torch.where(better, found, bound)
        hopeful = (bound > tolerance) & (bound < 0.5)
        if k == POLISHINGS or not bool(hopeful.any()):
            break
        m = torch.linalg.matrix_power(x, power) @ a
        x = x + (x - x @ m) / power
    return best, bound


def _normalized(matrix: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """A / 2^(kp) of norm at most 1, exactly, and k [B]."""
    norm = torch.minimum(
        torch.linalg.matrix_norm(matrix), torch.linalg.matrix_norm(matrix, ord=math.inf)
    ) * (1 + 1e-9)
    norm = torch.where(norm > 0, norm, torch.ones_like(norm))
    exponent = torch.ceil(torch.log2(norm) / power)
    return matrix * torch.exp2(-power * exponent)[:, None, None], exponent


def _by_eigh(matrix: Tensor, power: int, damping: float, exponent: Tensor, name: str) -> Tensor:
    """The inverse root of the normalized matrix from its eigenvalues, in fp64."""
    values, basis = eigendecompose(matrix, damping=damping, name=name)
    values = values.double() * torch.exp2(-power * exponent)[:, None]
    roots = values ** (-1 / power)
    basis = basis.double()
    x = (basis * roots[:, None, :]) @ basis.mT
    return torch.lerp(x, x.mT, 0.5)


def _ladder(precision: str, dtype: torch.dtype) -> list[str]:
    names = list(PRECISIONS)
    return ["fp64"] if dtype == torch.float64 else names[names.index(precision) :]


def _check_arguments(power: int, damping: float, tolerance: float, precision: str) -> None:
    if power not in POWERS:
        raise ValueError(
            f"{power=} has no iteration; use one of {', '.join(map(str, POWERS))}, or "
            "eigendecompose for other roots"
        )
    check_choice("precision", precision, PRECISIONS)
    check_range("damping", damping)
    if not 0 < tolerance < 1 or damping == math.inf:
        raise ValueError(f"{tolerance=}, {damping=}; allowed are 0 < tolerance < 1, finite damping")
