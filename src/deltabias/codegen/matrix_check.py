"""Two independent second orders of a matrix rule: differences in 60 digits, and nested jvp.

Neither uses a divided difference or an eigenvector's derivative: the first evaluates the map at
A + τE with many digits, the second differentiates Newton's iteration for the roots twice.
"""

import warnings
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from types import ModuleType

import mpmath
import numpy as np
import sympy as sp
import torch
from mpmath import mp
from torch import Tensor

from deltabias.calculus import matrix as m
from deltabias.calculus.spectral import EIGENVALUE
from deltabias.codegen.matrix_analytic import FUNCTIONS
from deltabias.matrix_rule import MatrixRule
from deltabias.truth.matrix_functions import (
    second_order_along,
    symmetric_function,
    to_float64,
)

ALLOWED = 1e-11
"""Of the largest entry: inputs are rotated, so the eigensolver's rounding is in it."""

CASES: dict[str, tuple[float, ...]] = {
    "generic": (1.0, 0.55, 0.3, 0.11, 0.05),
    "repeated": (1.0, 1.0, 0.3, 0.3, 0.3),
    "gap_1e-9": (1.0, 1.0 - 1e-9, 0.3, 0.3 + 1e-9, 0.1),
    "condition_1e3": (1.0, 0.1, 0.05, 0.002, 0.001),
}
DIRECTIONS = 2


def error_against_digits(
    module: ModuleType,
    rule: MatrixRule,
    case: str,
    scalars: Mapping[str, float],
    *,
    scale: float = 1.0,
) -> float:
    """The largest error of the sum of `second_order`'s terms, relative to its largest entry."""
    points, deviations = inputs(rule, case)
    found = scale * sum(module.second_order(*points, *deviations, **scalars).values())
    exact = _digits(rule, case, tuple(sorted(scalars.items())))
    return float((found - exact).abs().max() / exact.abs().max())


def error_against_jvp(
    module: ModuleType,
    rule: MatrixRule,
    case: str,
    scalars: Mapping[str, float],
    *,
    scale: float = 1.0,
) -> float:
    """The same against a twice differentiated Newton iteration."""
    points, deviations = inputs(rule, case)
    found = scale * sum(module.second_order(*points, *deviations, **scalars).values())
    function = _torch_map(rule, scalars)
    total = torch.zeros_like(found)
    for r in range(DIRECTIONS):
        total = total + 0.5 * _second_derivative(function, points, [d[r] for d in deviations])
    return float((found - total).abs().max() / total.abs().max())


def remainder_slope(module: ModuleType, rule: MatrixRule, scalars: Mapping[str, float]) -> float:
    """How fast corrected - (plug-in - second order) vanishes: its power in the deviations' size.

    4 for the form that keeps functions positive definite; infinite where there is no difference.
    """
    points, deviations = inputs(rule, "generic")
    sizes, left = (0.02, 0.01), []
    for size in sizes:
        scaled = [size * d for d in deviations]
        bias = sum(module.second_order(*points, *scaled, **scalars).values())
        corrected = module.corrected_update(*points, *scaled, **scalars)
        plug_in = module.plug_in_update(*points, **scalars)
        left.append(float((corrected - plug_in + bias).abs().max() / plug_in.abs().max()))
    if max(left) < 1e-13:
        return float("inf")
    return float(np.log(left[0] / left[1]) / np.log(sizes[0] / sizes[1]))


# -- inputs -------------------------------------------------------------------------------------


def inputs(rule: MatrixRule, case: str) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices of shapes that fit each other, and deviations [r, rows, columns], float64."""
    generator = torch.Generator().manual_seed(20)
    entrywise = any(isinstance(n, m.Elementwise) for n in rule.update.walk())
    sizes = shapes(rule)
    points, deviations = [], []
    for name in _names(rule):
        rows, columns = sizes[name]
        noise = torch.randn(1 + DIRECTIONS, rows, columns, generator=generator, dtype=torch.float64)
        if name in rule.symmetric:
            basis = torch.linalg.qr(noise[0])[0]
            spectrum = torch.tensor(CASES[case][:rows], dtype=torch.float64)
            points.append((basis * spectrum) @ basis.mT)
            half = points[-1]  # deviations no larger than the matrix itself, in every direction
            deviations.append(0.1 * half @ (noise[1:] + noise[1:].mT) @ half)
        else:
            points.append(noise[0].abs() + 0.5 if entrywise else noise[0])
            deviations.append(0.1 * noise[1:])
    return points, deviations


def _names(rule: MatrixRule) -> list[str]:
    return [s.name for s in rule.states if s.name in rule.update.symbols]


def shapes(rule: MatrixRule) -> dict[str, tuple[int, int]]:
    """Rows and columns of each matrix, equal only where the expression needs them equal.

    Raises
    ------
    ValueError
        for more independent dimensions than there are sizes here.
    """
    parent: dict[object, object] = {}

    def find(x: object) -> object:
        while parent.setdefault(x, x) != x:
            x = parent[x]
        return x

    def dims(node: m.MatrixExpr) -> tuple[object, object]:
        match node:
            case m.MatrixSymbol(name):
                return (name, "rows"), (name, "columns")
            case m.Identity():
                return (id(node), "size"), (id(node), "size")
            case m.Transpose(body):
                return dims(body)[::-1]
            case m.Product(factors):
                inner = [dims(f) for f in factors]
                for left, right in pairwise(inner):
                    parent[find(left[1])] = find(right[0])
                return inner[0][0], inner[-1][1]
            case m.Sum() | m.Elementwise():
                several = [dims(c) for c in node.children if not _is_identity(c)]
                for other in several[1:]:
                    for a, b in zip(several[0], other, strict=True):
                        parent[find(a)] = find(b)
                return several[0]
            case m.Spectral(_, body):
                rows, columns = dims(body)
                parent[find(rows)] = find(columns)
                return rows, columns
        return dims(node.children[0])

    dims(rule.update)
    sizes: dict[object, int] = {}
    found = {}
    for name in _names(rule):
        pair = []
        for side in ("rows", "columns"):
            group = find((name, side))
            if group not in sizes and len(sizes) == 5:
                raise ValueError(f"rule {rule.name!r} has more than 5 independent dimensions.")
            pair.append(sizes.setdefault(group, (4, 3, 5, 2, 1)[len(sizes)]))
        found[name] = tuple(pair)
    return found


def _is_identity(node: m.MatrixExpr) -> bool:
    return isinstance(node, m.Identity) or (
        isinstance(node, m.Scaled) and isinstance(node.body, m.Identity)
    )


# -- many digits --------------------------------------------------------------------------------


@cache
def _digits(rule: MatrixRule, case: str, scalars: tuple) -> Tensor:
    points, deviations = inputs(rule, case)
    values = {n: sp.Rational(v) for n, v in scalars}
    names = _names(rule)

    def matrix_map(*matrices: mpmath.matrix) -> mpmath.matrix:
        return _evaluated(rule.update, dict(zip(names, matrices, strict=True)), values, _Digits())

    total = 0
    for r in range(DIRECTIONS):
        along = [d[r].tolist() for d in deviations]
        total = total + to_float64(
            second_order_along(matrix_map, [p.tolist() for p in points], along)
        )
    return torch.tensor(total)


class _Digits:
    """mpmath matrices."""

    def identity(self, like):
        return mp.eye(like.rows)

    def scale(self, c: sp.Expr, x):
        return mp.mpf(c.p) / c.q * x

    def spectral(self, expression: sp.Expr, x):
        function = sp.lambdify(EIGENVALUE, expression, mpmath)
        return symmetric_function((x + x.T) / 2, function)

    def elementwise(self, expression: sp.Expr, variables, arguments):
        function = sp.lambdify(variables, expression, mpmath)
        first = arguments[0]
        return mp.matrix(
            [
                [function(*(a[i, j] for a in arguments)) for j in range(first.cols)]
                for i in range(first.rows)
            ]
        )

    def normalized(self, x):
        return x / mp.sqrt(sum(e * e for e in x))

    def transpose(self, x):
        return x.T

    def multiply(self, a, b):
        return a * b


def _evaluated(root: m.MatrixExpr, matrices: Mapping[str, object], scalars: Mapping, on):
    """An expression on actual matrices."""
    known: dict[m.MatrixExpr, object] = {}

    def size_of(parent: m.Sum):
        return next(known[c] for c in parent.children if not _is_identity(c))

    for node in root.walk():
        match node:
            case m.MatrixSymbol(name):
                known[node] = matrices[name]
            case m.Identity() | m.Scaled(_, m.Identity()):
                known[node] = None
            case m.Scaled(c, body):
                known[node] = on.scale(c.subs(_by_name(c, scalars)), known[body])
            case m.Sum(terms):
                total = None
                for t in terms:
                    item = known[t]
                    if item is None:
                        c = t.coefficient if isinstance(t, m.Scaled) else sp.Integer(1)
                        item = on.scale(c.subs(_by_name(c, scalars)), on.identity(size_of(node)))
                    total = item if total is None else total + item
                known[node] = total
            case m.Product(factors):
                total = known[factors[0]]
                for f in factors[1:]:
                    total = on.multiply(total, known[f])
                known[node] = total
            case m.Transpose(body):
                known[node] = on.transpose(known[body])
            case m.Named(_, body):
                known[node] = known[body]
            case m.Spectral(f, body):
                expression = f.expression.subs(_by_name(f.expression, scalars))
                known[node] = on.spectral(expression, known[body])
            case m.Elementwise(e, _, arguments):
                known[node] = on.elementwise(
                    e.subs(_by_name(e, scalars)), node.variables, [known[a] for a in arguments]
                )
            case m.Normalized(body):
                known[node] = on.normalized(known[body])
    return known[root]


def _by_name(expression: sp.Expr, scalars: Mapping[str, sp.Expr]) -> dict:
    return {s: scalars[s.name] for s in expression.free_symbols if s.name in scalars}


# -- nested jvp ---------------------------------------------------------------------------------


def _torch_map(rule: MatrixRule, scalars: Mapping[str, float]) -> Callable[..., Tensor]:
    values, names = {n: sp.Rational(v) for n, v in scalars.items()}, _names(rule)
    return lambda *matrices: _evaluated(
        rule.update, dict(zip(names, matrices, strict=True)), values, _Newton()
    )


def _second_derivative(function: Callable[..., Tensor], points, along) -> Tensor:
    """d²/dτ² of the function along one direction, by forward mode through forward mode."""

    def slope(*at: Tensor) -> Tensor:
        return torch.func.jvp(function, at, tuple(along))[1]

    with warnings.catch_warnings():
        # torch 2.13's forward mode compiles a decomposition with its own deprecated torch.jit
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        return torch.func.jvp(slope, tuple(points), tuple(along))[1]


class _Newton:
    """torch matrices; roots by the coupled Newton iteration, which knows no eigenvalue."""

    STEPS = 80

    def identity(self, like: Tensor) -> Tensor:
        return torch.eye(like.shape[-1], dtype=like.dtype)

    def scale(self, c: sp.Expr, x: Tensor) -> Tensor:
        return float(c) * x

    def transpose(self, x: Tensor) -> Tensor:
        return x.mT

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def normalized(self, x: Tensor) -> Tensor:
        return x / (x * x).sum().sqrt()

    def elementwise(self, expression: sp.Expr, variables, arguments) -> Tensor:
        return sp.lambdify(variables, expression, torch)(*arguments)

    def spectral(self, expression: sp.Expr, x: Tensor) -> Tensor:
        if not expression.free_symbols:
            return float(expression) * self.identity(x)
        if expression == EIGENVALUE:
            return x
        if expression.is_Add:
            return sum(self.spectral(t, x) for t in expression.args)
        if expression.is_Mul:
            total = self.identity(x)
            for factor in expression.args:
                total = total @ self.spectral(factor, x)
            return total
        if type(expression) in FUNCTIONS:
            inner = self.spectral(expression.args[0], x)
            return FUNCTIONS[type(expression)](inner, self.inverse_root)
        base = self.spectral(expression.base, x)
        exponent = expression.exp
        if exponent.q != 1:
            base, exponent = self.inverse_root(base, exponent.q), -exponent.p
        if exponent < 0:
            base, exponent = torch.linalg.inv(base), -exponent
        total = base
        for _ in range(int(exponent) - 1):
            total = total @ base
        return total

    def inverse_root(self, x: Tensor, p: int) -> Tensor:
        """Iannazzo's coupled iteration (Guo and Higham 2006, eq. 4.1): quadratic convergence."""
        eye = self.identity(x)
        size = float(torch.linalg.matrix_norm(_plain(x)))
        c = (2 * size / (p + 1)) ** (1 / p)
        root, ratio = eye / c, x / c**p
        for _ in range(self.STEPS):
            factor = ((p + 1) * eye - ratio) / p
            root = root @ factor
            power = factor
            for _ in range(p - 1):
                power = power @ factor
            ratio = power @ ratio
        return root


def _plain(x: Tensor) -> Tensor:
    """The value under forward-mode levels."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return torch.autograd.forward_ad.unpack_dual(x).primal.detach()
