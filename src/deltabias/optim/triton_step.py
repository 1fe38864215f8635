"""Runs a generated Triton step on lists of tensors: one launch, no host synchronization.

The kernel finds its tensors in a table of pointers, so one launch serves a whole list: with a
launch a tensor, the host would take longer than the memory for a model of many small parameters,
unless every user captured a graph. Whole chunks of aligned tensors go to a kernel of 16-byte
loads without masks; the ends of tensors, and tensors that are not aligned, to a second launch
of the same source with masks.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.optim.triton_tensors import (
    BLOCK,
    REST,
    TURNS,
    capturing,
    chunks_of,
    groups_of,
    in_one_layout,
    is_single,
    kind_of,
    upload,
)

WARPS = 4
DEFAULTS = {"weight_decay": 0.0, "coupled_decay": 0.0, "skew": 1.0}


def triton_module(name: str) -> ModuleType:
    """The generated Triton module of a rule.

    Raises
    ------
    RuntimeError
        where Triton is not installed.
    ValueError
        for a rule without Triton kernels.
    """
    try:
        return import_module(f"deltabias.generated.triton.{name}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "triton":
            raise RuntimeError(
                "triton is not installed, and fused=True on a CUDA device needs it; "
                "pip install triton, or pass fused=False."
            ) from error
        raise ValueError(f"{name!r} has no generated Triton module; pass fused=False.") from error


def run_triton(
    module: str | ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    scalars: Mapping[str, float | Tensor],
    *,
    steps: Sequence[Tensor] | None = None,
    corrected: bool = True,
    maximize: bool = False,
    exact: bool = False,
    stochastic_rounding: bool = False,
    seed: int = 0,
) -> None:
    """Run one step of a rule on lists of tensors, in place.

    Arithmetic is fp32 whatever the tensors are kept in; each written tensor is rounded once.

    Parameters
    ----------
    module, step
        a rule of the catalogue and a function of it, as ("adamw", "step_delta"), or a generated
        Triton module of a rule of your own
    tensors
        the function's tensor arguments, a list each; fp32, bf16 or fp16, dense, in the layout of
        the parameter. What is only read may have another layout: it is copied.
    scalars
        the function's scalar arguments, and optionally ``weight_decay`` (decoupled: the parameter
        is multiplied by 1 - lr·weight_decay first), ``coupled_decay`` (added to the gradient),
        ``skew`` (a factor of c3, for microbatches of unequal weights) and ``t``, the step count.
        Tensors stay where they are; with one of them, or with ``steps``,
        the step's scalars (1 - βᵗ and the like) are worked out on the device and not taken from
        here.
    steps
        step counts on the device, 0-d fp32, already advanced: one for each parameter, or one
        for all. Needed inside a CUDA graph.
    corrected
        False where this step has no statistics; the same as ``warm`` or ``push`` of 0, which the
        device cannot see
    maximize
        take the gradient with the other sign
    exact
        IEEE operations, in the order of the eager function, products and sums fused where torch
        fuses them. Otherwise divisions and roots are approximate (two units in the last place)
        and subnormal numbers may count as zero.
    stochastic_rounding
        round bf16 parameters up or down at random, with the right mean (Philox with seven
        rounds, counted by element, parameter and step).
    seed
        its key; the same seed and ``t`` repeat a step.

    Raises
    ------
    RuntimeError
        without Triton, or for tensors on a CPU outside Triton's interpreter.
    TypeError, ValueError
        for dtypes, devices, sizes or layouts that do not fit, missing scalars, a step that the
        module does not have; nothing was changed.
    """
    module = triton_module(module) if isinstance(module, str) else module
    entry = _entry(module, module.__name__, step)
    groups = groups_of(entry, step, tensors, stochastic_rounding)
    launches = []
    for (device, kinds), indices in groups.items():
        columns = {n: [tensors[n][i] for i in indices] for n in entry["tensors"]}
        flags = {
            "EXACT": exact,
            "NEGATE": maximize,
            "COUPLED": _is_set(scalars.get("coupled_decay", 0)),
            "DITHER": stochastic_rounding,
            **{n.upper(): kind_of(k) for n, k in zip(entry["tensors"], kinds, strict=True)},
        }
        with _on(device):
            columns = in_one_layout(entry, columns)
            rows, stride = _rows(entry, scalars, _counts_of(steps, indices), corrected, device)
        launches.append((columns, rows, stride, flags, device))
    for place, launch in enumerate(launches):  # all are checked before the first is changed
        # tensors are counted from 0 in each launch, so each has a key of its own
        _launch(entry, *launch, seed=(seed + 0x61C88647 * place) % 2**31)
    for name in entry["written"]:  # autograd does not see what a kernel writes
        torch.autograd.graph.increment_version(list(tensors[name]))


def _counts_of(steps: Sequence[Tensor] | None, indices: list[int]) -> list[Tensor] | None:
    if steps is None or len(steps) == 1:
        return steps
    if len(steps) <= max(indices):
        raise ValueError(
            f"{len(steps)} step counts for parameter {max(indices)}; pass one for each parameter, "
            "or one for all."
        )
    return [steps[i] for i in indices]


def _entry(module: ModuleType, name: str, step: str) -> dict[str, Any]:
    if step not in module.STEPS:
        raise ValueError(f"{name} has no Triton step {step!r}; it has {', '.join(module.STEPS)}.")
    return module.STEPS[step]


def _is_number(value: Any) -> bool:
    return not isinstance(value, Tensor)


def _is_set(value: float | Tensor) -> bool:
    return not _is_number(value) or value != 0  # a tensor's value stays on its device


def _on(device: torch.device):
    return torch.cuda.device(device if device.type == "cuda" else -1)


# -- scalars ------------------------------------------------------------------------------------


def _rows(
    entry: dict[str, Any],
    scalars: Mapping[str, float | Tensor],
    steps: Sequence[Tensor] | None,
    corrected: bool,
    device: torch.device,
) -> tuple[Tensor, int]:
    """The scalars in device memory, and how far the rows of two tensors are apart."""
    values = {**DEFAULTS, **scalars}
    if steps is None and not any(_lives_on(v, device) for v in values.values()):
        if capturing(device):
            raise ValueError(
                "a CUDA graph would repeat this step's count for ever; pass steps=, the counts in "
                "device memory (capturable=True)."
            )
        wanted = {n: float(_required(values, n)) for n in entry["scalars"]}
        row = entry["constants"](**wanted, t=values.get("t", 0.0))
        return upload(torch.tensor(row, dtype=torch.float32), device), 0
    if steps is None:
        steps = [torch.full((), float(_required(values, "t")), device=device)]
    return _prepared(entry, values, steps, corrected, device)


def _prepared(
    entry: dict[str, Any],
    values: Mapping[str, float | Tensor],
    steps: Sequence[Tensor],
    corrected: bool,
    device: torch.device,
) -> tuple[Tensor, int]:
    """Rows worked out by the device from its own step counts."""
    for count in steps:
        if count.device != device or count.dtype != torch.float32:
            raise ValueError(
                f"step counts are float32 on {device}, where the parameters are; got "
                f"{count.dtype} on {count.device}."
            )
    stopped = any(values.get(n) == 0 for n in ("warm", "push") if _is_number(values.get(n)))
    hypers = [_required(values, n) for n in entry["hypers"]] + [float(corrected and not stopped)]
    host = [0.0 if _lives_on(h, device) else float(h) for h in hypers]
    given = upload(torch.tensor(host, dtype=torch.float64), device)
    for i, hyper in enumerate(hypers):
        if _lives_on(hyper, device):
            given[i].copy_(hyper.reshape(()))
    counts = upload(torch.tensor([c.data_ptr() for c in steps], dtype=torch.int64), device)
    width = entry["width"]
    rows = torch.empty(len(steps), width, dtype=torch.float32, device=device)
    # fp64 throughout, one program a row: its cost is that of a launch
    entry["prepare"][(len(steps),)](
        counts, given, rows, WIDTH=width, num_warps=1, enable_fp_fusion=False
    )
    return rows, (width if len(steps) > 1 else 0)


def _lives_on(value: float | Tensor, device: torch.device) -> bool:
    """Whether reading the value on the host would wait for the device."""
    return isinstance(value, Tensor) and (value.device.type != "cpu" or device.type == "cpu")


def _required(values: Mapping[str, float | Tensor], name: str) -> float | Tensor:
    if name not in values:
        raise ValueError(f"the step needs the scalar {name!r}; got {', '.join(values)}.")
    return values[name]


# -- launches -----------------------------------------------------------------------------------


def _launch(
    entry: dict[str, Any],
    columns: dict[str, list[Tensor]],
    rows: Tensor,
    stride: int,
    flags: dict[str, Any],
    device: torch.device,
    *,
    seed: int,
) -> None:
    """Both launches of a group; nothing is checked here."""
    sizes = [t.numel() for t in columns[entry["written"][0]]]
    addresses = [[t.data_ptr() for t in columns[n]] for n in entry["tensors"]]
    with _on(device):
        table = upload(torch.tensor([sizes, *addresses], dtype=torch.int64).T.contiguous(), device)
        each = [
            a for n, a in zip(entry["tensors"], addresses, strict=True) if not is_single(entry, n)
        ]
        aligned = tuple(all(a % 16 == 0 for a in column) for column in zip(*each, strict=True))
        for ragged, chunks in enumerate(chunks_of(tuple(sizes), aligned, device)):
            if len(chunks):
                entry["kernel"][(len(chunks),)](
                    table,
                    chunks,
                    rows,
                    stride,
                    seed,
                    **flags,
                    RAGGED=bool(ragged),
                    BLOCK=REST if ragged else BLOCK,
                    TURNS=1 if ragged else TURNS,
                    num_warps=WARPS,
                    enable_fp_fusion=not flags["EXACT"],
                )
