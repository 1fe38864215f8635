"""Analytic functions of torch matrices by products, inverses and integrals: no eigenvalue is known.

Slow, differentiable twice in forward mode, and so a second opinion on generated code.
"""

import math
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from torch import Tensor

NODES = 40
SQUARINGS = 12
HALVINGS = 4


def exponential(x: Tensor, _: Callable) -> Tensor:
    """By Taylor's series of x / 2¹², squared twelve times; for norms up to 100."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    small, total = x / 2**SQUARINGS, eye
    for k in range(10, 0, -1):
        total = eye + small @ total / k
    # squared as 1 + y: of a number near one the digits after the one would be lost
    y = total - eye
    for _ in range(SQUARINGS):
        y = 2 * y + y @ y
    return eye + y


def logarithm(x: Tensor, inverse_root: Callable[[Tensor, int], Tensor]) -> Tensor:
    """By four square roots, and the integral of (x - 1)(1 + t (x - 1))⁻¹ over 0 < t < 1."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    for _ in range(HALVINGS):
        x = torch.linalg.inv(inverse_root(x, 2))
    return 2**HALVINGS * _integral(lambda t: (x - eye) @ torch.linalg.inv(eye + t * (x - eye)))


def tangent_hyperbolic(x: Tensor, _: Callable) -> Tensor:
    """(e^{2x} - 1)(e^{2x} + 1)⁻¹."""
    eye, power = torch.eye(x.shape[-1], dtype=x.dtype), exponential(2 * x, _)
    return (power - eye) @ torch.linalg.inv(power + eye)


def arc_tangent(x: Tensor, _: Callable) -> Tensor:
    """The integral of x (1 + t² x²)⁻¹ over 0 < t < 1; for norms up to a few."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    return _integral(lambda t: x @ torch.linalg.inv(eye + t * t * (x @ x)))


def error_function(x: Tensor, _: Callable) -> Tensor:
    """2/√π times the integral of x exp(-t² x²) over 0 < t < 1."""
    return 2 / math.sqrt(math.pi) * _integral(lambda t: x @ exponential(-t * t * (x @ x), _))


def _integral(of: Callable[[float], Tensor]) -> Tensor:
    points, weights = np.polynomial.legendre.leggauss(NODES)
    pairs = zip(points.tolist(), weights.tolist(), strict=True)
    return sum(0.5 * w * of(0.5 * (1 + t)) for t, w in pairs)


FUNCTIONS = {
    sp.exp: exponential,
    sp.log: logarithm,
    sp.tanh: tangent_hyperbolic,
    sp.atan: arc_tangent,
    sp.erf: error_function,
}
"""Each takes a matrix and the inverse root to use."""
