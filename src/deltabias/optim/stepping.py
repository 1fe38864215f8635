"""Calls a rule's generated step for the parameters of a group, plain or foreach."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import Parameter, signature
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices

from deltabias.microbatch.layout import local


@cache
def parameters_of(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    """A generated function's parameters; reading a signature costs more than a small step."""
    return signature(function).parameters


def use_foreach(group: Mapping[str, Any], params: list[Tensor]) -> bool:
    """torch's choice: foreach by default where every parameter is on a device that gains.

    A learning rate or betas in tensors are taken one parameter at a time.
    """
    if group["foreach"] is not None:
        return group["foreach"]
    if isinstance(group["lr"], Tensor) or any(
        isinstance(b, Tensor) for b in group.get("betas", ())
    ):
        return False
    devices = _get_foreach_kernels_supported_devices()
    return all(type(p) in (Tensor, torch.nn.Parameter) and p.device.type in devices for p in params)


def run_step(
    module: ModuleType,
    name: str,
    tensors: Mapping[str, list[Tensor]],
    scalars: Mapping[str, float],
    *,
    foreach: bool,
) -> None:
    """Run ``module.name`` on every tuple of tensors, or its foreach twin once per dtype.

    Of DTensors each rank updates its own shards: a step is elementwise.
    """
    tensors = {name: list(map(local, column)) for name, column in tensors.items()}
    if not foreach:
        function: Callable[..., Any] = getattr(module, name)
        for values in zip(*tensors.values(), strict=True):
            function(*values, **scalars)
        return
    function = getattr(module, f"{name}_foreach")
    for indices in by_device_and_dtype(next(iter(tensors.values()))):
        function(*([column[i] for i in indices] for column in tensors.values()), **scalars)


def by_step_count(steps: list[Tensor]) -> dict[float, list[int]]:
    """Parameters grouped by their step count: scalars of the step are shared within a group."""
    groups: dict[float, list[int]] = {}
    for i, step in enumerate(steps):
        groups.setdefault(float(step), []).append(i)
    return groups


def by_device_and_dtype(tensors: Iterable[Tensor]) -> list[list[int]]:
    """Positions of tensors of one kind."""
    kinds: dict[tuple, list[int]] = {}
    for i, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(i)
    return list(kinds.values())
