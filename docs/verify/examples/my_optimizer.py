"""An AdamW of one's own, which `deltabias verify` is to judge."""

from collections.abc import Callable

import torch


class MyAdamW(torch.optim.Optimizer):
    """AdamW: the decay is decoupled, eps stands outside the root."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_one(param, group)
        return loss

    def _step_one(self, param: torch.Tensor, group: dict) -> None:
        state = self.state[param]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        state["step"] += 1
        t, (beta1, beta2) = state["step"].item(), group["betas"]
        state["exp_avg"].lerp_(param.grad, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(param.grad, param.grad, value=1 - beta2)
        param.mul_(1 - group["lr"] * group["weight_decay"])
        root = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt_().add_(group["eps"])
        param.addcdiv_(state["exp_avg"], root, value=-group["lr"] / (1 - beta1**t))
