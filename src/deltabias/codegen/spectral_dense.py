"""The kernels of an analytic map that does not separate: d² integrals, d³ numbers.

f[p, q] and f[p, q, q] are taken as Gauss-Legendre integrals where the points are close and as
quotients where they are apart: each pair takes the one with the smaller error, the integral's being
what a coarser rule differs by, the quotient's its rounding. No scale of the map is assumed. What
the values themselves have lost is lost: where f saturates, as tanh(100 λ) at λ = 1, the error is a
rounding of f over the squared gap. See `deltabias.calculus.analytic` for the formulas.
"""

from functools import cache

from sympy.integrals.quadrature import gauss_legendre

FINE, COARSE = 16, 12
"""Nodes of the integral, and of the one that it is judged by."""

DENSE_FORM = '''
def {p}roots(eigenvalues: Tensor) -> Tensor:
    """The variable of the formulas below, [..., d]: the eigenvalues themselves."""
    return eigenvalues


{value}

{slope}

{curvature}

def {h}differences(root: Tensor{arguments}) -> tuple[Tensor, Tensor]:
    """f[λ_i, λ_j] and f[λ_i, λ_j, λ_j], [..., d, d] each; exact where eigenvalues meet."""
    left, right = root[..., :, None], root[..., None, :]
    gap, ulp = right - left, torch.finfo(root.dtype).eps
    f_left, f_right = {p}values(left{passed}), {p}values(right{passed})
    fine, coarse = (
        _integral([{h}slope(left + t * gap{passed}) for t, _ in nodes], nodes)
        for nodes in (_nodes(True), _nodes(False))
    )
    rounding = ulp * (f_left.abs() + f_right.abs()) / gap.abs()
    first, error = _better(fine, coarse, (f_right - f_left) / gap, rounding)
    # f[p, q, q] = ∫ t f''(p + t (q - p)) dt = (f'(q) - f[p, q]) / (q - p)
    fine, coarse = (
        _integral([2 * t * {h}curvature(left + t * gap{passed}) for t, _ in nodes], nodes)
        for nodes in (_nodes(True), _nodes(False))
    )
    steep = {h}slope(right{passed})
    rounding = (ulp * (steep.abs() + first.abs()) + error) / gap.abs()
    return first, _better(fine, coarse, (steep - first) / gap, rounding)[0]


def {p}first_order(root: Tensor, perturbation: Tensor{arguments}) -> Tensor:
    """f[λ_i, λ_j] E_ij for E of shape [..., d, d]; exact where eigenvalues meet."""
    return {h}differences(root{passed})[0] * perturbation


def {p}second_order(root: Tensor, perturbations: Tensor{arguments}) -> Tensor:
    """Sum over r of sum_k f[λ_i, λ_k, λ_j] E_ik E_kj for E of shape [..., r, d, d].

    A dense kernel: time r d³, and memory of about ten tensors of d³ numbers, whatever r.
    """
    kernel = _three_points(root, {h}differences(root{passed})[1])
    # [k, i, r] @ [k, r, j]; the kernel is symmetric in its three indices
    pairs = perturbations.transpose(-3, -1) @ perturbations.transpose(-3, -2)
    return (kernel * pairs).sum(-3)


def {p}diagonal(root: Tensor, squares: Tensor{arguments}) -> Tensor:
    """The diagonal of the second order, [..., d], from the sums of E_ik², [..., d, d]; time d²."""
    return ({h}differences(root{passed})[1].mT * squares).sum(-1)


def {p}eigenvalue_only(root: Tensor, squares: Tensor{arguments}) -> Tensor:
    """½ f''(λ_i) of the sums of E_ii², [..., d]: the eigenvectors taken as fixed.

    Not an approximation of the second order: it leaves about (d - 1)/(d + 1) of it.
    """
    return {h}curvature(root{passed}) * squares
'''

_HELPER = '''
def _nodes(fine: bool) -> tuple[tuple[float, float], ...]:
    """Gauss and Legendre's nodes and weights on [0, 1]: {fine} of them, or {coarse}."""
    if fine:
        return {fine_nodes}
    return {coarse_nodes}


def _integral(values: list[Tensor], nodes: tuple[tuple[float, float], ...]) -> Tensor:
    """Of what has these values at the nodes."""
    total = torch.zeros_like(values[0])
    for value, (_, weight) in zip(values, nodes, strict=True):
        total = total + weight * value
    return total


def _better(
    fine: Tensor, coarse: Tensor, quotient: Tensor, rounding: Tensor
) -> tuple[Tensor, Tensor]:
    """The integral, or the quotient where its relative error is smaller; and the error."""
    error = (fine - coarse).abs()
    # relative: where both rules miss a peak they differ by little, but so small is what they find
    apart = (rounding / quotient.abs() < error / fine.abs()) | ~torch.isfinite(error)
    return torch.where(apart, quotient, fine), torch.where(apart, rounding, error)


def _three_points(root: Tensor, confluent: Tensor) -> Tensor:
    """f[λ_i, λ_k, λ_j], [..., d, d, d], from f[p, q, q]: a mean of the two whose q is between."""
    first = confluent[..., :, :, None], confluent[..., :, None, :], confluent[..., None, :, :]
    other = confluent.mT
    turned = other[..., :, :, None], other[..., :, None, :], other[..., None, :, :]
    a, b, c = root[..., :, None, None], root[..., None, :, None], root[..., None, None, :]
    ab, bc, ac = (a - b).abs(), (b - c).abs(), (a - c).abs()

    def mean(x: Tensor, to_x: Tensor, y: Tensor, to_y: Tensor, whole: Tensor) -> Tensor:
        weighted = x * (to_x / whole) + y * (to_y / whole)
        return torch.where(whole > 0, weighted, x)

    between = mean(first[0], ab, turned[2], bc, ac)
    left_between = mean(turned[0], ab, turned[1], ac, bc)
    right_between = mean(first[1], ac, first[2], bc, ab)
    # by order, not by gaps: two of them round to the same number where eigenvalues are far apart
    outer = torch.where(((b <= a) & (a <= c)) | ((c <= a) & (a <= b)), left_between, right_between)
    return torch.where(((a <= b) & (b <= c)) | ((c <= b) & (b <= a)), between, outer)
'''


@cache
def dense_helper() -> str:
    """What every dense map of a module needs once."""
    return _HELPER.format(
        fine=FINE, coarse=COARSE, fine_nodes=_nodes(FINE), coarse_nodes=_nodes(COARSE)
    )


def _nodes(count: int) -> str:
    points, weights = gauss_legendre(count, 30)
    pairs = (f"({float((1 + x) / 2)!r}, {float(w / 2)!r})" for x, w in zip(points, weights,
                                                                         strict=True))  # fmt: skip
    return f"({', '.join(pairs)})"
