"""The exact mean of AdamW's plain update when the law of the gradients moves from step to step.

v is fed with the square of the step's mean gradient g_k = μ_k + τ_k z_k, independent over k. With
1/√v = π^(−1/2) ∫ s^(−1/2) e^(−sv) ds the mean of the quotient is an integral of products,

    E m̂/√v̂ = π^(−1/2) ∫ s^(−1/2) Φ(s) Σ_j a_j ψ_j(s)/φ_j(s) ds,   Φ = Π_k φ_k,
    φ_k = E exp(−s b_k g_k²),   ψ_k = E g_k exp(−s b_k g_k²),

in closed form for normal z and a finite sum over nodes for other laws. `deltabias.truth` has the
same for a law that stays; the weights a, b and the laws may be any here, and nothing is shared
with it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import roots_genlaguerre

from validation.student_means import standardized_nodes

SPACING = 1 / 8
_Y = np.arange(-4.5, 6.5, SPACING)
# s = exp(y − e^(−y)): the integrand decays doubly exponentially to the left, like Φ to the right
NODES = np.exp(_Y - np.exp(-_Y))
_WEIGHTS = SPACING * (1 + np.exp(-_Y)) * np.sqrt(NODES / np.pi)

GAMMA_NODES, STUDENT_NODES = 64, 160


@dataclass(frozen=True)
class Noise:
    """z of variance 1: nodes and weights of its law, or none for the normal law."""

    points: np.ndarray | None = None
    weights: np.ndarray | None = None


def noise_of_mean(law: str, microbatches: int) -> Noise:
    """z, the standardized mean of m draws: normal, skewed (exponential) or Student-t(5)."""
    if law == "normal":
        return Noise()
    if law == "skewed":
        x, weights = roots_genlaguerre(GAMMA_NODES, microbatches - 1)
        return Noise((x - microbatches) / microbatches**0.5, weights / weights.sum())
    x, weights = standardized_nodes(microbatches, STUDENT_NODES)
    return Noise(x * microbatches**0.5, weights / weights.sum())


def ema(beta: float, t: int) -> np.ndarray:
    """Debiased weights of an average over t steps, oldest first."""
    weights = beta ** np.arange(t - 1, -1, -1.0)
    return weights / weights.sum()


def population(means, sds, betas: tuple[float, float], t: int) -> float:
    """u* = E m̂/√(E v̂) at step t: the rule on the true means of its statistics."""
    a, b = (ema(beta, t) for beta in betas)
    return float(a @ means[:t] / np.sqrt(b @ (means[:t] ** 2 + sds[:t] ** 2)))


def mean_update(means, sds, noise: Noise, betas: tuple[float, float], t: int) -> float:
    """E m̂/√v̂ at step t; exact up to quadrature, about 1e-7 relative or better.

    Parameters
    ----------
    means, sds : μ_k and τ_k of the steps' mean gradients, ``[T]``, T ≥ t
    noise : the law of z
    betas : (β₁, β₂); eps is 0
    """
    a, b = (ema(beta, t) for beta in betas)
    means, sds = means[:t], sds[:t]
    size = b @ (means**2 + sds**2)
    log_phi, tilt = _transforms(NODES[:, None] * (b / size), means, sds, noise)
    return float(_WEIGHTS @ (np.exp(log_phi.sum(axis=1)) * (tilt @ a)) / size**0.5)


def _transforms(s, means, sds, noise: Noise):
    """(log φ, ψ/φ) at s ``[nodes, t]``."""
    if noise.points is None:
        spread = 2 * s * sds**2
        tilt = 1 / (1 + spread)
        return -0.5 * np.log1p(spread) - s * means**2 * tilt, means * tilt
    g = means[:, None] + sds[:, None] * noise.points
    terms = np.exp(-s[:, :, None] * (g * g)) * noise.weights
    phi = terms.sum(axis=-1)
    return np.log(phi), np.einsum("stz,tz->st", terms, g) / phi
