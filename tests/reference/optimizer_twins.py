"""Float64 twins of the corrected optimizers: every average is a sum over the whole history.

The optimizers keep running averages, relative to the second moment. Here nothing runs and nothing
is relative: a step appends what its microbatches say, and every average is Σ_k w_k x_k with the
weights written out. One parameter tensor each; gradients are the microbatches' own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tests.reference import microbatch_statistics as statistics
from torch import Tensor

# bounds of what no law of gradients should exceed: κ₃ and 4μκ₃ + κ₄, relative to E ḡ²
SKEWNESS_LIMIT, SKEW_VARIANCE_LIMIT = 1, 4


def ema_weights(beta: float, steps: int) -> list[float]:
    """(1-β) β^(t-k), oldest first: of an average that starts at zero, not debiased."""
    return [(1 - beta) * beta ** (steps - 1 - k) for k in range(steps)]


def normalized(weights: Sequence[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def total(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    return sum(w * x for w, x in zip(weights, values, strict=True))


@dataclass
class Observation:
    """One step: what enters the averages, and unbiased estimates of its cumulants."""

    mean: Tensor
    square: Tensor
    microbatches: int
    noise: Tensor  # Var ḡ
    third: Tensor  # κ₃(ḡ)
    third_mean: Tensor  # E ḡ k₃ = μ κ₃ + κ₄
    covariance: Tensor  # Cov(ḡ, p₂), p₂ the mean of squares
    variance: Tensor  # Var p₂


def observe(grads: Sequence[Tensor], weights: Sequence[float], second_moment: str) -> Observation:
    """Microbatch gradients of one step, as the rule and its correction see them."""
    grads, weights = [g.double() for g in grads], list(weights)
    mean = statistics.mean(grads, weights)
    squares = second_moment == "mean_of_squares"
    square = statistics.mean_of_squares(grads, weights) if squares else mean**2
    if len(grads) < 2:
        nothing = torch.zeros_like(mean)
        return Observation(mean, square, 1, *[nothing] * 5)
    third = statistics.third_cumulant_of_mean(grads, weights)
    return Observation(
        mean,
        square,
        len(grads),
        statistics.var_of_mean(grads, weights),
        third,
        mean * third,
        statistics.cov_of_mean_and_mean_of_squares(grads, weights),
        statistics.var_of_mean_of_squares(grads, weights),
    )


def warm(beta: float, step: int) -> float:
    """No trust in the first step, all of it in the steady state."""
    return ((1 - beta ** (step - 1)) / (1 - beta**step)) ** 8


@dataclass
class Relative:
    """cov(m, v)/v and var(v)/v², the two moments that the correction is made of."""

    covariance: Tensor
    variance: Tensor


def closure(
    history: list[Observation], a: list[float], b: list[float], memory: Callable[[float], float],
    beta: float, *, skewness: bool,
) -> Relative:  # fmt: skip
    """For v fed with the square of the mean: q, κ₃ and E ḡ k₃ averaged over the history.

    cov(ḡ, ḡ²) = 2μν + κ₃ and var(ḡ²) = E(ḡ²)²(4q - 2q²) + 4μκ₃ + κ₄, the latter as
    3μκ₃ + E ḡ k₃; times Σ a b and Σ b² of the averages.
    """
    steps = len(history)
    remembered = {
        power: normalized([memory(power) ** (steps - 1 - k) for k in range(steps)])
        for power in (1, 1.5, 2)
    }
    numerator = total(normalized(a), [o.mean for o in history])
    square = total(normalized(b), [o.square for o in history])
    root = square.sqrt()
    q = (total(remembered[1], [o.noise for o in history]) / square).clamp(max=1)
    skew = torch.zeros_like(q)
    skew_variance = torch.zeros_like(q)
    if skewness:
        raw = total(remembered[1.5], [o.third for o in history]) / root**3
        mixed = total(remembered[2], [o.third_mean for o in history]) / square**2
        skew = raw.clamp(-SKEWNESS_LIMIT, SKEWNESS_LIMIT)
        skew_variance = 3 * (numerator / root) * raw + mixed
        skew_variance = skew_variance.clamp(-SKEW_VARIANCE_LIMIT, SKEW_VARIANCE_LIMIT)
    trust = warm(beta, steps) * (history[-1].microbatches > 1)
    overlap = sum(x * y for x, y in zip(normalized(a), normalized(b), strict=True))
    spread = sum(x * x for x in normalized(b))
    coupling = 2 * numerator * q + skew * root
    if not any(a[:-1]):  # a numerator without memory couples with its own step alone
        newest = history[-1]
        coupling = 2 * numerator * (newest.noise / square).clamp(max=1)
        if skewness:
            third = (newest.third / root**3).clamp(-SKEWNESS_LIMIT, SKEWNESS_LIMIT)
            coupling = coupling - third * root
    return Relative(
        trust * overlap * coupling,
        trust * spread * (q * (4 - 2 * q) + skew_variance).clamp(min=0),
    )


def direct(history: list[Observation], a: list[float], b: list[float], beta: float) -> Relative:
    """For v fed with the mean of squares: Σ a b Cov and Σ b² Var, unbiased step by step."""
    square = total(b, [o.square for o in history])
    products = [x * y for x, y in zip(a, b, strict=True)]
    m = history[-1].microbatches
    newest = b[-1] * history[-1].square / square  # the share of the last step in v
    trust = warm(beta, len(history)) * (1 - (2 / m) ** 3) if m > 1 else 0.0
    trust = trust / (1 + (newest / 0.4) ** 8)
    return Relative(
        trust * total(products, [o.covariance for o in history]) / square,
        trust * total([x * x for x in b], [o.variance for o in history]) / square**2,
    )


def corrected(numerator: Tensor, square: Tensor, eps: float, moments: Relative) -> Tensor:
    """(m + c)/((√v + ε)(1 + q)): coupling joins the numerator, inversion divides."""
    root = square.sqrt()
    share = root / (root + eps)
    inversion = moments.variance * share * (1 + 2 * share) / 8
    return (numerator + share * moments.covariance / 2) / ((root + eps) * (1 + inversion))


def choose(
    correction: str, second_moment: str, history: list[Observation], a, b, memory, beta: float
) -> Relative:
    """The moments that an option corrects for."""
    nothing = torch.zeros_like(history[-1].mean)
    if correction == "none":
        return Relative(nothing, nothing)
    if second_moment == "mean_of_squares":
        found = direct(history, a, b, beta)
    else:
        found = closure(history, a, b, memory, beta, skewness=correction != "closed_form")
    return Relative(nothing, found.variance) if correction == "inversion" else found


@dataclass
class AdamWTwin:
    """AdamW: both averages debiased, decay decoupled and before the step."""

    param: Tensor
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    maximize: bool = False
    correction: str = "delta"
    second_moment: str = "square_of_mean"
    history: list = field(default_factory=list)

    def __post_init__(self):
        self.param = self.param.detach().double().clone()

    def step(self, grads: Sequence[Tensor], weights: Sequence[float]) -> None:
        sign = -1 if self.maximize else 1
        grads = [sign * g.double() for g in grads]
        self.param = self.param * (1 - self.lr * self.weight_decay)
        if self.correction.startswith("cross_fit"):
            self.history.append(self._folds(grads, weights))
            update = (self._crossed(0, 1) + self._crossed(1, 0)) / 2
        else:
            self.history.append(observe(grads, weights, self.second_moment))
            update = self._update()
        self.param = self.param - self.lr * update

    def _averages(self) -> tuple[list[float], list[float]]:
        return tuple(normalized(ema_weights(beta, len(self.history))) for beta in self.betas)

    def _update(self) -> Tensor:
        (a, b), history = self._averages(), self.history

        def memory(power: float) -> float:
            """The decay of a cumulant that is kept relative to v**power."""
            return min(self.betas[0] * self.betas[1], self.betas[1] ** power)

        moments = choose(self.correction, self.second_moment, history, a, b, memory, self.betas[1])
        numerator = total(a, [o.mean for o in history])
        return corrected(numerator, total(b, [o.square for o in history]), self.eps, moments)

    def _folds(self, grads, weights) -> tuple[Observation, Observation]:
        """Microbatches dealt in turn; a single one goes to both folds."""
        if len(grads) == 1:
            return (observe(grads, weights, "square_of_mean"),) * 2
        return tuple(observe(grads[i::2], weights[i::2], "square_of_mean") for i in (0, 1))

    def _crossed(self, top: int, bottom: int) -> Tensor:
        """One fold's numerator over the other's preconditioner."""
        a, b = self._averages()
        numerator = total(a, [folds[top].mean for folds in self.history])
        square = total(b, [folds[bottom].square for folds in self.history])
        newest = self.history[-1][bottom]
        m, nu = newest.microbatches, newest.noise
        # Var ḡ² = 4μ²ν + 2ν²; E ḡ² = μ² + ν and E ν̂² = ν² (m+1)/(m-1)
        variance = (4 * newest.mean**2 * nu - 2 * nu**2 * (m - 1) / (m + 1)).clamp(min=0)
        relative = b[-1] ** 2 * variance / square**2
        nothing = torch.zeros_like(relative)
        moments = Relative(nothing, relative if self.correction.endswith("delta") else nothing)
        return corrected(numerator, square, self.eps, moments)


@dataclass
class RMSpropTwin:
    """RMSprop: the average starts at zero and is not debiased, decay is part of the gradient."""

    param: Tensor
    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    maximize: bool = False
    correction: str = "delta"
    second_moment: str = "square_of_mean"
    history: list = field(default_factory=list)

    def __post_init__(self):
        self.param = self.param.detach().double().clone()

    def step(self, grads: Sequence[Tensor], weights: Sequence[float]) -> None:
        sign = -1 if self.maximize else 1
        grads = [sign * g.double() + self.weight_decay * self.param for g in grads]
        self.history.append(observe(grads, weights, self.second_moment))
        history, steps = self.history, len(self.history)
        a = [0.0] * (steps - 1) + [1.0]
        b = ema_weights(self.alpha, steps)
        moments = choose(
            self.correction,
            self.second_moment,
            history,
            a,
            b,
            lambda power: self.alpha**power,
            self.alpha,
        )
        square = total(b, [o.square for o in history])
        self.param = self.param - self.lr * corrected(history[-1].mean, square, self.eps, moments)
