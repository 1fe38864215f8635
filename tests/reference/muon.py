"""A slow, readable Muon in float64: every average is a weighted sum over the whole history.

Shares nothing with the package. Second orders come from truncated power series in h: the map is
run on X₀ + X₁ h + X₂ h² with ordinary products, and the coefficient of h² is read off. The polar
factor is the limit of a cubic Newton-Schulz iteration, run on the same series.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Matrix = np.ndarray
Series = tuple[Matrix, Matrix, Matrix]
QUINTIC = (3.4445, -4.7750, 2.0315)


def times(a: Series, b: Series) -> Series:
    return tuple(sum(a[i] @ b[k - i] for i in range(k + 1)) for k in range(3))


def combine(*terms: tuple[float, Series]) -> Series:
    return tuple(sum(c * s[k] for c, s in terms) for k in range(3))


def transposed(a: Series) -> Series:
    return tuple(x.T for x in a)


def divided_by_norm(a: Series) -> Series:
    """X/‖X‖: ‖X‖² = s₀ (1 + u h + v h²), whose power -½ is s₀^-½ (1 - u h/2 + (3u²/8 - v/2) h²)."""
    squares = [sum(np.sum(a[i] * a[k - i]) for i in range(k + 1)) for k in range(3)]
    u, v = squares[1] / squares[0], squares[2] / squares[0]
    factors = (1.0, -u / 2, 3 * u * u / 8 - v / 2)
    return tuple(
        sum(factors[i] * a[k - i] for i in range(k + 1)) / squares[0] ** 0.5 for k in range(3)
    )


def quintic(a: Series, steps: int = 5) -> Series:
    """torch's iteration."""
    x, (p, q, r) = divided_by_norm(a), QUINTIC
    for _ in range(steps):
        gram = times(x, transposed(x))
        x = combine((p, x), (1.0, times(combine((q, gram), (r, times(gram, gram))), x)))
    return x


def polar(a: Series, steps: int = 80) -> Series:
    """X ← (3 X - X Xᵀ X)/2 converges to the polar factor, and its derivatives to the factor's."""
    x = divided_by_norm(a)
    for _ in range(steps):
        x = combine((1.5, x), (-0.5, times(times(x, transposed(x)), x)))
    return x


MAPS = {"newton_schulz": quintic, "exact": polar}


def value(kind: str, matrix: Matrix) -> Matrix:
    zero = np.zeros_like(matrix)
    return MAPS[kind]((matrix, zero, zero))[0]


def half_second_derivative(kind: str, matrix: Matrix, along: Matrix) -> Matrix:
    return MAPS[kind]((matrix, along, np.zeros_like(matrix)))[2]


def buffer_weights(momentum: float, t: int) -> np.ndarray:
    """g_1 … g_t in B_t, unrolled from B = μ B + (1-μ) g; not normalized."""
    weights = np.zeros(t)
    for s in range(t):
        weights *= momentum
        weights[s] += 1 - momentum
    return weights


def update_weights(momentum: float, nesterov: bool, t: int) -> np.ndarray:
    """The same in N_t = (1-μ) g_t + μ B_t, or in B_t."""
    weights = buffer_weights(momentum, t)
    if nesterov:
        weights = momentum * weights
        weights[-1] += 1 - momentum
    return weights


def cut(matrix: Matrix, limit: float) -> Matrix:
    norm = np.linalg.norm(matrix)
    return matrix * (limit / norm) if norm > limit else matrix


@dataclass
class MuonTwin:
    """`step` takes the gradient, and δ's if they come from microbatches."""

    param: Matrix
    lr: float = 1e-3
    weight_decay: float = 0.1
    momentum: float = 0.95
    nesterov: bool = True
    polar: str = "newton_schulz"
    correction: str = "plug_in"
    trust: float = 0.1
    gradients: list[Matrix] = field(default_factory=list)
    terms: dict[int, Matrix] = field(default_factory=dict)  # X_s of each step s, unweighted

    def step(self, gradient: Matrix, deviations: Sequence[Matrix] | None = None) -> None:
        self.gradients.append(gradient)
        history, t = deviations is None, len(self.gradients)
        weights = update_weights(self.momentum, self.nesterov, t)
        average = sum(w * g for w, g in zip(weights, self.gradients, strict=True))
        update = value(self.polar, average)
        if self.correction != "plug_in":
            share = weights / weights.sum()
            if history:
                deviations = self._from_history()
            if deviations:
                term = sum(
                    half_second_derivative(self.polar, average / weights.sum(), d)
                    for d in deviations
                )
                limit = np.linalg.norm(update) / share[-1] ** 2
                self.terms[t - 1] = cut(term, limit)
            bias = sum((share[s] ** 2 * x for s, x in self.terms.items()), np.zeros_like(average))
            if history and t > 1:  # the first step gave no term
                bias = bias * np.sum(share**2) / np.sum(share[1:] ** 2)
            bias = cut(bias, np.linalg.norm(update))
            relative = np.linalg.norm(bias) / np.linalg.norm(update)
            update = update - bias / (1 + (relative / self.trust) ** 2)
        rows, columns = self.param.shape
        self.param = (1 - self.lr * self.weight_decay) * self.param
        self.param = self.param - self.lr * max(1, rows / columns) ** 0.5 * update

    def _from_history(self) -> list[Matrix]:
        older = self.gradients[:-1]
        if not older:
            return []
        share = buffer_weights(self.momentum, len(older))
        share = share / share.sum()
        average = sum(w * g for w, g in zip(share, older, strict=True))
        return [(self.gradients[-1] - average) / np.sqrt(1 + np.sum(share**2))]
