"""Matrices to take statistics of, and what they are by a loop over the definition."""

import math

import torch
from torch import nn

from deltabias.microbatch import MatrixStats

F64 = torch.float64
KEEPS = ("sketch", "gradients")
WEIGHTS = [3.0, 1.0, 7.0, 2.0]


def draws(m, shape=(3, 2), seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    return [1 + torch.randn(shape, generator=generator, dtype=F64).to(dtype) for _ in range(m)]


def filled(grads, weights=None, params=None, **options):
    """Statistics of one parameter; `grads` may hold None."""
    shape = next(g for g in grads if g is not None)
    params = params or [nn.Parameter(torch.zeros_like(shape))]
    stats = MatrixStats(params, **options)
    for grad, weight in zip(grads, weights or [1.0] * len(grads), strict=True):
        stats.add([grad], weight)
    return stats


def only(stats):
    (record,) = stats.result()
    return record


def truth(grads, weights):
    """w, the means and the deviations of G, GGᵀ, GᵀG by a loop over the definition, in fp64."""
    total, m = sum(weights), len(weights)
    w = [x / total for x in weights]
    means, deviations = [], []
    for statistic in (lambda g: g, lambda g: g @ g.T, lambda g: g.T @ g):
        values = [statistic(g.double()) for g in grads]
        mean = sum(a * v for a, v in zip(w, values, strict=True))
        means.append(mean)
        roots = [math.sqrt(a / (m - 1)) for a in w] if m > 1 else []
        terms = [a * (v - mean) for a, v in zip(roots, values, strict=True)] if m > 1 else []
        deviations.append(torch.stack(terms) if m > 1 else None)
    return w, means, deviations


def outer(deviations):
    """Σ_r δ_r ⊗ δ_r of the joint vector (M, L, R), so that every cross covariance is in it."""
    joint = torch.cat([d.flatten(start_dim=1) for d in deviations], dim=1)
    return joint.T @ joint


def interrupt(reached):
    """An error in the middle of a block; a wrong one if the block did not get as far."""
    assert reached
    raise KeyError("interrupted")


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **({"rtol": 1e-12, "atol": 1e-12} | tolerance))
