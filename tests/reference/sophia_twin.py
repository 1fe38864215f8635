"""Float64 twin of SophiaG: algorithm 3 of Liu et al., arXiv 2305.14342, and its corrected inverse.

    every k steps   h ← β₂ h + (1 - β₂) ĝ²           ĝ for labels drawn from the model
    each step       m ← β₁ m + (1 - β₁) g
                    θ ← θ - lr λ θ
                    θ ← θ - lr clip(m / max(ρ B h, ε), ±1)

Corrected, max(ρ B h, ε) is multiplied by 1 + var(h)/h²: 1/h has the leading bias var(h)/h³.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tests.reference.optimizer_twins import Observation, ema_weights, normalized, observe, total
from tests.reference.optimizer_twins import warm as warm_up
from torch import Tensor


@dataclass
class SophiaGTwin:
    """SophiaG of one parameter tensor."""

    param: Tensor
    lr: float = 1e-4
    betas: tuple[float, float] = (0.965, 0.99)
    rho: float = 0.04
    weight_decay: float = 1e-1
    eps: float = 1e-15
    batch_size: int = 1
    maximize: bool = False
    correction: str = "delta"
    curvature: list[Observation] = field(default_factory=list)

    def __post_init__(self):
        self.param = self.param.detach().double().clone()
        self.average = torch.zeros_like(self.param)

    def update_hessian(self, grads: Sequence[Tensor], weights: Sequence[float]) -> None:
        self.curvature.append(observe(grads, weights, "square_of_mean"))

    def step(self, grad: Tensor) -> None:
        grad = -grad.double() if self.maximize else grad.double()
        beta1 = self.betas[0]
        self.average = beta1 * self.average + (1 - beta1) * grad
        self.param = self.param * (1 - self.lr * self.weight_decay)
        floor = (self.rho * self.batch_size * self.hessian()).clamp(min=self.eps)
        denominator = floor * (1 + self.relative_variance())
        self.param = self.param - self.lr * (self.average / denominator).clamp(-1, 1)

    def hessian(self) -> Tensor:
        if not self.curvature:
            return torch.zeros_like(self.param)
        weights = ema_weights(self.betas[1], len(self.curvature))
        return total(weights, [o.square for o in self.curvature])

    def relative_variance(self) -> Tensor:
        """var(h)/h² of the averaged square of a normal mean gradient with noise share q."""
        if not self.curvature or self.correction == "none":
            return torch.zeros_like(self.param)
        seen, beta2 = len(self.curvature), self.betas[1]
        weights = normalized(ema_weights(beta2, seen))
        noise = total(weights, [o.noise for o in self.curvature])
        q = (noise / total(weights, [o.square for o in self.curvature])).clamp(max=1)
        spread = sum(w * w for w in weights)
        return q * (4 - 2 * q) * spread * warm_up(beta2, seen)
