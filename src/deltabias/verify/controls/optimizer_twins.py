"""Readable optimizers, right ones: what the wrong ones are one line away from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Elementwise(Optimizer):
    """Calls `update` for every parameter that has a gradient; the groups hold the options."""

    def __init__(self, params, **options: Any):
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    state = self.state[param]
                    state["step"] = state.get("step", 0) + 1
                    self.update(param, param.grad, state, group)
        return loss

    def buffer(self, state: dict, name: str, param: Tensor, value: float = 0.0) -> Tensor:
        """A state, made when it is first wanted."""
        if name not in state:
            state[name] = torch.full_like(param, value)
        return state[name]

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        raise NotImplementedError


class ReadableAdamW(_Elementwise):
    """AdamW with amsgrad and maximize."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2,
                 amsgrad=False, maximize=False):  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                         amsgrad=amsgrad, maximize=maximize)  # fmt: skip

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        lr, eps, decay, t = group["lr"], group["eps"], group["weight_decay"], state["step"]
        beta1, beta2 = group["betas"]
        m, v = self.buffer(state, "exp_avg", param), self.buffer(state, "exp_avg_sq", param)
        grad = -grad if group["maximize"] else grad
        param.mul_(1 - lr * decay)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        second = v
        if group["amsgrad"]:
            largest = self.buffer(state, "max_exp_avg_sq", param)
            largest.copy_(torch.maximum(largest, v))
            second = largest
        debias1, debias2 = 1 - beta1**t, 1 - beta2**t
        denominator = (second / debias2).sqrt() + eps
        param.sub_(lr * (m / debias1) / denominator)


class ReadableAdam(_Elementwise):
    """Adam with coupled weight decay and maximize."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0,
                 maximize=False):  # fmt: skip
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                         maximize=maximize)  # fmt: skip

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        lr, eps, decay, t = group["lr"], group["eps"], group["weight_decay"], state["step"]
        beta1, beta2 = group["betas"]
        m, v = self.buffer(state, "exp_avg", param), self.buffer(state, "exp_avg_sq", param)
        grad = -grad if group["maximize"] else grad
        grad = grad + decay * param
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (v / (1 - beta2**t)).sqrt() + eps
        param.sub_(lr * (m / (1 - beta1**t)) / denominator)


class ReadableSGD(_Elementwise):
    """SGD with momentum, dampening, Nesterov, coupled weight decay and maximize."""

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0,
                 nesterov=False, maximize=False):  # fmt: skip
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening,
                         weight_decay=weight_decay, nesterov=nesterov,
                         maximize=maximize)  # fmt: skip

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        lr, decay, t = group["lr"], group["weight_decay"], state["step"]
        momentum, dampening = group["momentum"], group["dampening"]
        grad = -grad if group["maximize"] else grad
        grad = grad + decay * param
        buffer = self.buffer(state, "momentum_buffer", param)
        weight = 1.0 if t == 1 else 1 - dampening
        buffer.mul_(momentum).add_(weight * grad)
        direction = grad + momentum * buffer if group["nesterov"] else buffer
        direction = direction if momentum else grad
        param.sub_(lr * direction)


class ReadableRMSprop(_Elementwise):
    """RMSprop with momentum, centering, coupled weight decay and maximize."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
                 centered=False, maximize=False):  # fmt: skip
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
                         momentum=momentum, centered=centered, maximize=maximize)  # fmt: skip

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        lr, alpha, eps, decay = group["lr"], group["alpha"], group["eps"], group["weight_decay"]
        grad = -grad if group["maximize"] else grad
        grad = grad + decay * param
        v, mean = self.buffer(state, "square_avg", param), self.buffer(state, "grad_avg", param)
        v.mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        mean.mul_(alpha).add_(grad, alpha=1 - alpha)
        second = v - mean**2 if group["centered"] else v
        direction = grad / (second.sqrt() + eps)
        if group["momentum"]:
            buffer = self.buffer(state, "momentum_buffer", param)
            buffer.mul_(group["momentum"]).add_(direction)
            direction = buffer
        param.sub_(lr * direction)


class ReadableAdagrad(_Elementwise):
    """Adagrad with a decaying learning rate."""

    def __init__(self, params, lr=1e-2, lr_decay=0.0, weight_decay=0.0,
                 initial_accumulator_value=0.0, eps=1e-10, maximize=False):  # fmt: skip
        super().__init__(params, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
                         initial_accumulator_value=initial_accumulator_value,
                         maximize=maximize)  # fmt: skip

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        lr, eps, decay, t = group["lr"], group["eps"], group["weight_decay"], state["step"]
        total = self.buffer(state, "sum", param, group["initial_accumulator_value"])
        grad = -grad if group["maximize"] else grad
        grad = grad + decay * param
        total.addcmul_(grad, grad)
        step_size = lr / (1 + (t - 1) * group["lr_decay"])
        param.sub_(step_size * grad / (total.sqrt() + eps))


class ReadableAdadelta(_Elementwise):
    """Adadelta."""

    def __init__(self, params, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        rho, eps = group["rho"], group["eps"]
        grad = grad + group["weight_decay"] * param
        v, moved = self.buffer(state, "square_avg", param), self.buffer(state, "acc_delta", param)
        v.mul_(rho).addcmul_(grad, grad, value=1 - rho)
        delta = (moved + eps).sqrt() / (v + eps).sqrt() * grad
        moved.mul_(rho).addcmul_(delta, delta, value=1 - rho)
        param.sub_(group["lr"] * delta)


class ReadableAdamax(_Elementwise):
    """Adamax."""

    def __init__(self, params, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        beta1, beta2 = group["betas"]
        grad = grad + group["weight_decay"] * param
        m, largest = self.buffer(state, "exp_avg", param), self.buffer(state, "exp_inf", param)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        largest.copy_(torch.maximum(beta2 * largest, grad.abs() + group["eps"]))
        param.sub_(group["lr"] / (1 - beta1 ** state["step"]) * m / largest)


class ReadableRAdam(_Elementwise):
    """RAdam."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        beta1, beta2, t = *group["betas"], state["step"]
        grad = grad + group["weight_decay"] * param
        m, v = self.buffer(state, "exp_avg", param), self.buffer(state, "exp_avg_sq", param)
        m.mul_(beta1).add_(grad, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        debias1, debias2 = 1 - beta1**t, 1 - beta2**t
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / debias2
        scale = torch.ones_like(v)
        if rho > 5:
            rect = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)) ** 0.5
            scale = rect * debias2**0.5 / (v.sqrt() + group["eps"])
        param.sub_(group["lr"] * m / debias1 * scale)


class ReadableLion(_Elementwise):
    """Lion."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay)

    def update(self, param: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        """Changes `param` and `state` in place."""
        beta1, beta2 = group["betas"]
        m = self.buffer(state, "exp_avg", param)
        param.mul_(1 - group["lr"] * group["weight_decay"])
        update = (beta1 * m + (1 - beta1) * grad).sign()
        m.mul_(beta2).add_(grad, alpha=1 - beta2)
        param.sub_(group["lr"] * update)


TWINS: dict[type[Optimizer], str] = {
    ReadableAdamW: "adamw",
    ReadableAdam: "adam",
    ReadableSGD: "sgd",
    ReadableRMSprop: "rmsprop",
    ReadableAdagrad: "adagrad",
    ReadableAdadelta: "adadelta",
    ReadableAdamax: "adamax",
    ReadableRAdam: "radam",
    ReadableLion: "lion",
}
"""Each twin and the rule that it follows."""
