"""Arguments and gradients that are refused, each with what was passed and what is allowed."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from deltabias.microbatch.layout import local

NONFINITE = ("raise", "skip", "ignore")

IMPLEMENTATION = ("capturable", "differentiable", "fused")
"""Flags of torch.optim that choose how a step is computed, not what it is."""


def check_range(name: str, value: float | Tensor, high: float = float("inf")) -> None:
    """Raise unless ``0 <= value < high``; a tensor must have one element."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(
            f"{name} is a tensor of shape {tuple(value.shape)}; it must have 1 element."
        )
    if not 0.0 <= value < high:
        limit = f"[0, {high:g})" if high != float("inf") else "[0, inf)"
        raise ValueError(f"{name}={float(value)} is outside {limit}.")


def check_betas(betas: tuple[float | Tensor, float | Tensor]) -> None:
    """Raise unless betas are two numbers in [0, 1)."""
    if len(betas) != 2:
        raise ValueError(f"{betas=} must be a pair (beta1, beta2).")
    for i, beta in enumerate(betas):
        check_range(f"betas[{i}]", beta, 1.0)


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise unless the value is one of those allowed."""
    if value not in (allowed := tuple(allowed)):
        raise ValueError(
            f"{name}={value!r} is not known; use one of {', '.join(map(repr, allowed))}."
        )


def refuse_flags(optimizer: str, flags: Mapping[str, Any]) -> None:
    """Raise for a flag of torch.optim that is not supported; never ignore one."""
    for name, value in flags.items():
        if value:
            raise NotImplementedError(
                f"{optimizer}({name}={value}) is not supported; leave it out, or use "
                f"torch.optim for it."
            )


def described(optimizer: Optimizer) -> dict[str, str]:
    """The options of every group by name, as text that is equal on ranks that agree."""
    return {
        f"{type(optimizer).__name__}, group {i}, {name}": _exactly(value)
        if name != "params"
        else f"{len(value)} of them"
        for i, group in enumerate(optimizer.param_groups)
        for name, value in group.items()
    }


def _exactly(value: Any) -> str:
    """All digits, which a tensor's own text has not; of a CPU's tensors only: others wait."""
    if isinstance(value, Tensor):
        return repr(value.tolist()) if value.is_cpu else f"{value.dtype} on {value.device}"
    return f"({', '.join(map(_exactly, value))})" if isinstance(value, tuple) else repr(value)


def refuse_parameter(param: Tensor) -> None:
    """Raise for parameters whose moments are not defined elementwise."""
    if torch.is_complex(param):
        raise RuntimeError(
            f"a complex parameter (dtype {param.dtype}, shape {tuple(param.shape)}) is not "
            "supported; optimize its real view, torch.view_as_real(param)."
        )


def refuse_sharded(optimizer: str, param: Tensor) -> None:
    """Raise for a DTensor of which no rank has the whole matrix."""
    if any(placement.is_shard() for placement in getattr(param, "placements", ())):
        raise NotImplementedError(
            f"{optimizer} needs whole matrices, and a parameter of shape {tuple(param.shape)} is "
            f"sharded, {param.placements}; replicate it (DistributedDataParallel), or use an "
            "optimizer that works elementwise, as AdamW."
        )


def refuse_gradient(param: Tensor) -> None:
    """Raise for sparse or complex gradients."""
    if param.grad.is_sparse:
        raise RuntimeError(
            f"a sparse gradient (shape {tuple(param.shape)}) is not supported; build the "
            "embedding with sparse=False."
        )
    refuse_parameter(param)


def all_finite(grads: list[Tensor]) -> bool:
    """Whether every gradient is finite: one look, one answer from each kind of device."""
    return bool(finite_flag(grads))


def finite_flag(grads: list[Tensor]) -> Tensor:
    """`all_finite` as a 0-d bool tensor on the device of the last gradient; nothing waits for it.

    Of DTensors each rank looks at its own shards; one small collective for each dimension of
    their meshes makes the answer common.
    """
    whole = _finite_here([local(g) for g in grads])
    for group, device in _sharing(grads):
        flag = whole.to(device, torch.float32)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN, group=group)
        whole = flag > 0
    return whole


def _sharing(grads: list[Tensor]) -> list[tuple]:
    """The process groups over which DTensors are spread, each with its device."""
    meshes = dict.fromkeys(g.device_mesh for g in grads if hasattr(g, "device_mesh"))
    return [(group, mesh.device_type) for mesh in meshes for group in mesh.get_all_groups()]


def _finite_here(grads: list[Tensor]) -> Tensor:
    grads = [g for g in grads if g.numel()]
    on_cpu = [g for g in grads if g.is_cpu]
    elsewhere = [g for g in grads if not g.is_cpu]
    looks = []
    if on_cpu and not _surely_finite(on_cpu):
        looks = [extreme for g in on_cpu for extreme in g.aminmax()]  # NaN is kept by both
    if elsewhere:
        looks += torch._foreach_norm(elsewhere, float("inf"))
    if not looks:
        return torch.ones((), dtype=torch.bool)
    device = looks[-1].device
    return torch.isfinite(torch.stack([e.to(device).double() for e in looks])).all()


def _surely_finite(grads: list[Tensor]) -> bool:
    """A look of a third of the time for many small tensors: Euclidean norms, all in one call.

    No infinity or NaN leaves a norm finite, but finite gradients may have one that overflows.
    """
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(grads, 2))).all())
