"""Slow twin of the corrected AdamW and RMSprop updates: Python floats, whole histories, plain sums.

The package keeps running averages relative to the second moment. Here nothing runs and nothing is
relative: every average is Σ_k w_k x_k over all steps, newest first, with the weights written out.

    u = m̂/(s + ε),  s = √v̂,   Δ = -cov(m̂, v̂)/(2 s (s+ε)²) + m̂ var(v̂) (ε+3s)/(8 s³ (s+ε)³)

and, to second order the same but without a subtraction, with the share t = s/(s+ε),

    u_corrected = (m̂ + ½ t cov(m̂, v̂)/v̂) / ((s + ε)(1 + t(1+2t)/8 · var(v̂)/v̂²)).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def central(values: Sequence[float], k: int) -> float:
    """Mean of (g_r - ḡ)^k."""
    return mean([(g - mean(values)) ** k for g in values])


def ema_weights(beta: float, steps: int, *, debias: bool) -> list[float]:
    """(1-β) β^age, newest first, over 1 - β^t where debiased."""
    norm = 1 - beta**steps if debias else 1.0
    return [(1 - beta) * beta**age / norm for age in range(steps)]


def dot(*factors: Sequence[float]) -> float:
    total = 0.0
    for row in zip(*factors, strict=True):
        product = 1.0
        for x in row:
            product *= x
        total += product
    return total


@dataclass(frozen=True)
class Rule:
    """beta1 = 0 without debiasing is RMSprop's fresh gradient."""

    beta1: float
    beta2: float
    eps: float
    debias: bool = True

    def weights(self, steps: int) -> tuple[list[float], list[float]]:
        first = ema_weights(self.beta1, steps, debias=self.debias)
        return first, ema_weights(self.beta2, steps, debias=self.debias)

    def warm(self, t: int) -> float:
        """((1 - β₂^(t-1))/(1 - β₂^t))⁸: nothing is trusted at the first step."""
        return ((1 - self.beta2 ** (t - 1)) / (1 - self.beta2**t)) ** 8


def corrected(first: float, v: float, eps: float, cov: float, var: float) -> float:
    """The safe ratio, from the moments of the states themselves."""
    s = sqrt(v)
    t = s / (s + eps)
    return (first + t * cov / v / 2) / ((s + eps) * (1 + t * (1 + 2 * t) / 8 * var / v**2))


def plug_in(history: Sequence[Sequence[float]], rule: Rule, *, squares: bool) -> float:
    """The update as it is; `squares` feeds v with means of squares, else with squared means."""
    w1, w2 = rule.weights(len(history))
    newest_first = list(reversed(history))
    m_hat = dot(w1, [mean(g) for g in newest_first])
    v_hat = dot(w2, [mean([x * x for x in g]) if squares else mean(g) ** 2 for g in newest_first])
    return m_hat / (sqrt(v_hat) + rule.eps)


def square_of_mean_update(
    history: Sequence[Sequence[float]], rule: Rule, *, skewness: bool = True
) -> float:
    """The closure over ν = var ḡ, κ₃ and E ḡ k₃; without `skewness` it is the closed form."""
    t, newest_first = len(history), list(reversed(history))
    w1, w2 = rule.weights(t)
    means = [mean(g) for g in newest_first]
    m_hat, v_hat = dot(w1, means), dot(w2, [g * g for g in means])
    average_square = v_hat / sum(w2)  # E ḡ², also where v is not debiased
    rms = sqrt(average_square)

    # averages of the step's estimates, with the memory of the coupling's sum, but none that
    # outlasts the power of v it is divided by
    def memory(power: float) -> list[float]:
        lasts = rule.beta2**power
        decay = min(rule.beta1 * rule.beta2, lasts) if rule.beta1 else lasts
        return ema_weights(decay, t, debias=True)

    nu = [central(g, 2) / (len(g) - 1) for g in newest_first]
    k3 = [central(g, 3) / ((len(g) - 1) * max(len(g) - 2, 1)) for g in newest_first]
    noise, third, mixed = dot(memory(1), nu), dot(memory(1.5), k3), dot(memory(2), means, k3)

    q = min(noise / average_square, 1.0)
    skew = clamp(third / rms**3, 1.0) if skewness else 0.0
    spread_skew = clamp((3 * m_hat * third + mixed) / rms**4, 4.0) if skewness else 0.0
    relative_var = max(4 * q - 2 * q * q + spread_skew, 0.0)
    overlap = dot(w1, w2) / (sum(w1) * sum(w2))
    spread = dot(w2, w2) / sum(w2) ** 2
    coupling = 2 * m_hat * q + skew * rms
    if not rule.beta1:  # a fresh gradient couples with its own step alone: 2 ḡ ν̂ - k₃
        coupling = 2 * means[0] * min(nu[0] / average_square, 1.0)
        coupling -= clamp(k3[0] / rms**3, 1.0) * rms if skewness else 0.0
    cov = rule.warm(t) * overlap * coupling * v_hat
    var = rule.warm(t) * spread * relative_var * v_hat**2
    return corrected(m_hat, v_hat, rule.eps, cov, var)


def clamp(x: float, limit: float) -> float:
    return max(-limit, min(limit, x))


def mean_of_squares_update(history: Sequence[Sequence[float]], rule: Rule) -> float:
    """Σ w₁w₂ Ĉ and Σ w₂² V̂ with Ĉ = (p₃ - p₁p₂)/(m-1), V̂ = (p₄ - p₂²)/(m-1), p_k = mean g^k."""
    t, newest_first = len(history), list(reversed(history))
    w1, w2 = rule.weights(t)
    p = {k: [mean([x**k for x in g]) for g in newest_first] for k in (1, 2, 3, 4)}
    m = [len(g) for g in newest_first]
    covs = [(p[3][i] - p[1][i] * p[2][i]) / (m[i] - 1) for i in range(t)]
    variances = [(p[4][i] - p[2][i] ** 2) / (m[i] - 1) for i in range(t)]
    m_hat, v_hat = dot(w1, p[1]), dot(w2, p[2])

    raw = ema_weights(rule.beta2, t, debias=False)
    old = dot(ema_weights(rule.beta2, t - 1, debias=False), p[2][1:])
    ratio = old / dot(raw, p[2])
    settled = 1 / (1 + ((1 - rule.beta2 * ratio) / 0.4) ** 8)
    trust = rule.warm(t) * (1 - (2 / m[0]) ** 3) * settled
    cov, var = trust * dot(w1, w2, covs), trust * dot(w2, w2, variances)
    return corrected(m_hat, v_hat, rule.eps, cov, var)
