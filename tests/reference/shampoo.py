"""A slow, readable Shampoo in float64: every average is a weighted sum over the whole history.

Shares nothing with the package: matrix powers are SciPy's (Schur-Padé), derivatives are
differences, weights are written out, one block at a time. For matrices of a few rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import fractional_matrix_power

Matrix = np.ndarray
Map = Callable[[Matrix], Matrix]


def power(matrix: Matrix, exponent: float) -> Matrix:
    return np.real(fractional_matrix_power(matrix, exponent))


def first_derivative(f: Map, at: Matrix, along: Matrix, h: float) -> Matrix:
    """A central difference of sixth order."""
    ends = [f(at + k * h * along) - f(at - k * h * along) for k in (1, 2, 3)]
    return (45 * ends[0] - 9 * ends[1] + ends[2]) / (60 * h)


def half_second_derivative(f: Map, at: Matrix, along: Matrix, h: float) -> Matrix:
    ends = [f(at + k * h * along) + f(at - k * h * along) - 2 * f(at) for k in (1, 2, 3)]
    return (270 * ends[0] - 27 * ends[1] + 2 * ends[2]) / (180 * h * h) / 2


def ema_weights(beta: float, t: int) -> list[float]:
    """Normalized, oldest first."""
    return [(1 - beta) * beta ** (t - s) / (1 - beta**t) for s in range(1, t + 1)]


@dataclass
class ShampooTwin:
    """One block. `step` takes the gradient, and the factors' statistics if not its squares."""

    param: Matrix
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    damping: float = 1e-12
    weight_decay: float = 0.0
    memory: str = "ema"
    root: float | None = None
    sides: str = "both"
    refresh: int = 1
    grafting: str | None = None
    eps: float = 1e-8
    maximize: bool = False
    correction: str = "plug_in"
    gradients: list[Matrix] = field(default_factory=list)
    lefts: list[Matrix] = field(default_factory=list)
    rights: list[Matrix] = field(default_factory=list)
    # of each step from the second on: relative inversions, coupling and cross terms, unweighted
    terms: dict[int, tuple[Matrix, Matrix, Matrix, Matrix]] = field(default_factory=dict)

    def step(
        self, gradient: Matrix, left: Matrix | None = None, right: Matrix | None = None
    ) -> None:
        if self.maximize:
            gradient = -gradient
        self.gradients.append(gradient)
        self.lefts.append(gradient @ gradient.T if left is None else left)
        self.rights.append(gradient.T @ gradient if right is None else right)
        t = len(self.gradients)
        if self.correction == "full" and t > 1:
            self.terms[t] = self.newest_terms(t)
        update = self.grafted(self.update(t), t)
        self.param = self.param * (1 - self.lr * self.weight_decay) - self.lr * update

    # -- averages -----------------------------------------------------------------------------

    def factor_weights(self, t: int) -> list[float]:
        return [1 / t] * t if self.memory == "sum" else ema_weights(self.betas[1], t)

    def average(self, values: Sequence[Matrix], weights: Sequence[float]) -> Matrix:
        return sum(w * v for w, v in zip(weights, values, strict=False))

    def momentum(self, t: int) -> Matrix:
        return self.average(self.gradients, ema_weights(self.betas[0], t))

    def last_refresh(self, t: int) -> int:
        return t - (t - 1) % self.refresh

    # -- the two maps of an average of t statistics ---------------------------------------------

    def exponent(self) -> float:
        return -1 / (self.root or (4 if self.sides == "both" else 2))

    def map_of(self, side: str, t: int) -> Map:
        if self.sides not in ("both", side):
            return lambda average: np.eye(len(average))
        many = t if self.memory == "sum" else 1
        return lambda average: power(
            many * average + self.damping * np.eye(len(average)), self.exponent()
        )

    def step_size(self, average: Matrix, along: Matrix, t: int) -> float:
        """Of differences: a hundredth of the way to a singular matrix."""
        damping = self.damping / (t if self.memory == "sum" else 1)
        smallest = np.linalg.eigvalsh(average)[0] + damping
        return 1e-2 * smallest / np.linalg.norm(along, 2)

    def factors(self, t: int) -> tuple[Matrix, Matrix]:
        w = self.factor_weights(t)
        return self.average(self.lefts, w), self.average(self.rights, w)

    # -- the update -----------------------------------------------------------------------------

    def update(self, t: int) -> Matrix:
        r = self.last_refresh(t)
        left, right = self.factors(r)
        p_left, p_right = self.map_of("left", r)(left), self.map_of("right", r)(right)
        if self.correction == "plug_in" or r == 1:
            return p_left @ self.momentum(t) @ p_right
        w, m = self.factor_weights(r), ema_weights(self.betas[0], t)[:r]
        squares = [x * x for x in w]
        products = [x * y for x, y in zip(w, m, strict=True)]
        # the first step has no older average to deviate from
        at_refresh = [x * y for x, y in zip(w, ema_weights(self.betas[0], r), strict=True)]
        same = sum(squares) / sum(squares[1:])
        mixed = sum(at_refresh) / sum(at_refresh[1:])
        k_left, k_right, coupling, cross = (
            sum(x[s - 1] * self.terms[s][i] for s in range(2, r + 1)) * start
            for i, (x, start) in enumerate(
                [(squares, same), (squares, same), (products, mixed), (squares, same)]
            )
        )
        corrected = shrunk(p_left, k_left) @ self.momentum(t) @ shrunk(p_right, k_right)
        return corrected - coupling - cross

    def newest_terms(self, t: int) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        r = self.last_refresh(t)
        left, right = self.factors(r)
        f, g = self.map_of("left", r), self.map_of("right", r)
        p, q = f(left), g(right)
        before = self.factors(t - 1)
        d_left, d_right = self.lefts[-1] - before[0], self.rights[-1] - before[1]
        d_momentum = self.gradients[-1] - self.momentum(t - 1)
        w, m = self.factor_weights(t - 1), ema_weights(self.betas[0], t - 1)
        same = 1 + sum(x * x for x in w)
        mixed = 1 + sum(x * y for x, y in zip(w, m, strict=True))
        h_left, h_right = self.step_size(left, d_left, r), self.step_size(right, d_right, r)
        x_left = half_second_derivative(f, left, d_left, h_left) / same
        x_right = half_second_derivative(g, right, d_right, h_right) / same
        slope_left = first_derivative(f, left, d_left, h_left)
        slope_right = first_derivative(g, right, d_right, h_right)
        coupling = (slope_left @ d_momentum @ q + p @ d_momentum @ slope_right) / mixed
        cross = slope_left @ self.momentum(t) @ slope_right / same
        return relative(p, x_left), relative(q, x_right), coupling, cross

    def grafted(self, update: Matrix, t: int) -> Matrix:
        if self.grafting is None:
            return update
        step = self.momentum(t)
        if self.grafting != "sgd":
            beta = self.betas[1]
            v = sum((1 - beta) * beta ** (t - s) * g**2 for s, g in enumerate(self.gradients, 1))
            debias = 1 - beta**t if self.grafting == "adam" else 1
            step = step / (np.sqrt(v / debias) + self.eps)
        return update * np.linalg.norm(step) / np.linalg.norm(update)


def relative(p: Matrix, second: Matrix) -> Matrix:
    """P^-½ X P^-½."""
    return power(p, -0.5) @ second @ power(p, -0.5)


def shrunk(p: Matrix, k: Matrix) -> Matrix:
    """P½ (I + K)⁻¹ P½."""
    half = power(p, 0.5)
    return half @ np.linalg.inv(np.eye(len(p)) + k) @ half
