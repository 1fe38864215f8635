"""``fused=True``: the best form of a generated step for the device that its tensors are on.

    CPU    one compiled pass, `deltabias.optim.compiled_step`
    CUDA   one Triton launch, `deltabias.optim.triton_step`
    else   refused by name

This is the only place where a device chooses code.

What a step costs on a CPU, as a multiple of torch's fused AdamW (28 bytes a parameter), one thread,
from validation/benchmarks/cpu_step.py: a step between two observations 1.09 for ``closed_form`` (29
bytes) and 1.10 for ``delta`` (30 bytes), both with ``storage="int8"``; a step that observes 3.0 and
4.4, which is bound by its arithmetic and not by memory. A cycle of k steps is their mean: 1.15 and
1.21 at k = 32, 1.21 and 1.32 at k = 16. Without storage every step observes: 2.3 and 4.0. ``delta``
in every step cannot be had for 1.20: it moves 64 bytes and a look at 8 more.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch.layout import local
from deltabias.optim.compiled_step import compiler_missing, run_one_pass

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
DEVICES = ("cpu", "cuda")


def refuse_unfit(param: Tensor) -> None:
    """Raise for a parameter that no fused step is made for.

    Raises
    ------
    RuntimeError
        for a device other than a CPU or a CUDA GPU, or a dtype that is not floating point.
    """
    if param.device.type not in DEVICES or param.dtype not in DTYPES:
        raise RuntimeError(
            f"fused=True has no step for a parameter of dtype {param.dtype} on {param.device}; it "
            f"has one for {', '.join(map(str, DTYPES))} on {' and '.join(DEVICES)}. Leave fused "
            "out for this parameter group."
        )


def check_states(param: Tensor, states: Mapping[str, Tensor]) -> None:
    """Raise where a parameter has moved away from its state.

    Raises
    ------
    RuntimeError
        naming the state, both devices and what to do.
    """
    for name, state in states.items():
        if state.device != param.device or state.shape != param.shape:
            raise RuntimeError(
                f"{name} has shape {tuple(state.shape)} on {state.device}, its parameter "
                f"{tuple(param.shape)} on {param.device}; move the model before the optimizer is "
                "built, or pass the state through state_dict() and load_state_dict()."
            )


def run_fused(
    module: ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    scalars: Mapping[str, Any],
    *,
    weight_decay: float,
    say_once: Callable[[str], None],
) -> None:
    """One step of a rule on lists of tensors, decoupled weight decay included.

    Parameters
    ----------
    module, step
        the generated module and the name of its plain function, as ``step_delta``
    tensors, scalars
        as that function takes them; a list for each tensor argument
    say_once
        is told of a fall-back
    """
    columns = {name: [local(t) for t in column] for name, column in tensors.items()}
    places = [t.device.type for t in columns["grad"]]
    for device in sorted(set(places)):
        here = [i for i, place in enumerate(places) if place == device]
        chosen = {name: [column[i] for i in here] for name, column in columns.items()}
        if device == "cuda":
            _on_cuda(module, step, chosen, scalars, weight_decay)
        else:
            numbers = {**scalars, "keep": 1 - float(scalars.get("lr", 0.0)) * weight_decay}
            if reason := compiler_missing():
                say_once(f"fused=True: {reason}; the step is not compiled, which is slow.")
            run_one_pass(module, step, chosen, numbers, compile_it=not reason)


def _on_cuda(
    module: ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    scalars: Mapping[str, Any],
    weight_decay: float,
) -> None:
    # imported here: Triton is not there on every machine, and slow to import
    from deltabias.optim.triton_step import run_triton

    if "param" in tensors:
        scalars = {**scalars, "weight_decay": weight_decay}
    run_triton(module.__name__.rpartition(".")[2], step, tensors, scalars)
