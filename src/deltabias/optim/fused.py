"""``fused=True``: the best form of a generated step for the device that its tensors are on.

    CPU    one compiled pass, `deltabias.optim.compiled_step`
    CUDA   one Triton launch, `deltabias.optim.triton_step`
    else   refused by name

This is the only place where a device chooses code.

What a step costs on a CPU, as a multiple of torch's fused AdamW (28 bytes a parameter), 10 million
parameters, one thread of a quiet machine, from validation/benchmarks/cpu_step.py: without a
correction 1.01. Every step observing, without storage, 2.2 for ``closed_form`` (40 bytes) and 3.5
for ``delta`` (64). With ``storage="int8"`` a step between two observations 1.16 (29 bytes) and 1.36
(31), one that observes 2.4 and 3.5, so that a cycle of k steps costs 1.20 and 1.43 at k = 32, 1.23
and 1.50 at k = 16. On a machine whose memory others use too the ratios are smaller: loops that
observe are bound by their arithmetic. ``delta``'s takes 2.8 of its 3.5, where moving the bytes
alone would be 1.9; most of the rest is the comparison of the gradient with the mean of the
statistics.
"""

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch.layout import local
from deltabias.optim.capturable import refuse_uncapturable
from deltabias.optim.compiled_step import compiled_form, compiler_missing, run_one_pass

DTYPES = {
    "cpu": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
"""What parameters may be on each device; a Triton step computes in fp32."""

KERNELS = ("cuda",)
"""Devices with the options of the Triton step, ``exact`` and ``stochastic_rounding``."""


LARGE = 1_000_000
"""Parameters on a CPU from which a step that is not fused is worth a word."""


class SlowStepWarning(RuntimeWarning):
    """A corrected step on a CPU takes many times as long as with ``fused=True``."""


def slow_without(params: Sequence[Tensor]) -> str:
    """What ``fused=True`` would gain for these parameters; nothing where that is little.

    The factor is that of a step on one thread, eager over compiled: 20 to 40 for two million
    parameters and eight, by correction; for 200,000 it is 4 to 7.
    """
    total = sum(p.numel() for p in map(local, params) if p.is_cpu)
    if total <= LARGE or compiler_missing():
        return ""
    return (
        f"a corrected step of {total:,} parameters on a CPU is dozens of passes over memory; "
        "fused=True compiles it into one, which takes seconds at the first step and is some 20 "
        "to 40 times faster from then on. Pass fused=True, or fused=False not to be told."
    )


def check_fused(options: Mapping[str, Any]) -> None:
    """Raise for two implementations at once, as torch does, and for an option of none.

    Raises
    ------
    RuntimeError
        for ``fused`` and ``foreach`` together.
    ValueError
        for ``exact`` or ``stochastic_rounding`` without ``fused=True``, and a seed that is none.
    """
    if options["fused"] and options["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together; leave one out.")
    for name in ("exact", "stochastic_rounding"):
        if options.get(name) and not options["fused"]:
            raise ValueError(
                f"{name}=True says how fused=True computes on a CUDA device; pass fused=True, or "
                f"leave {name} out."
            )
    seed = options.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ValueError(f"{seed=} is not a seed; pass an integer in [0, 2**31).")


def refuse_unfit(param: Tensor, *, exact: bool = False, stochastic_rounding: bool = False) -> None:
    """Raise for a parameter that no fused step is made for.

    Raises
    ------
    RuntimeError
        for a device other than a CPU or a CUDA GPU; for a dtype that is not floating point, fp64 on
        a GPU, or not bf16 where ``stochastic_rounding`` is asked for; for ``exact`` or
        ``stochastic_rounding`` on a CPU.
    """
    device = param.device.type
    if param.dtype not in DTYPES.get(device, ()):
        known = " and ".join(f"{', '.join(map(str, d))} on {name}" for name, d in DTYPES.items())
        raise RuntimeError(
            f"fused=True has no step for a parameter of dtype {param.dtype} on {param.device}; it "
            f"has one for {known}. Leave fused out for this parameter group."
        )
    if exact and device not in KERNELS:
        raise RuntimeError(
            f"exact=True is for CUDA devices, and a parameter is on {param.device}, where "
            "fused=True contracts products and sums; leave fused and exact out: the uncompiled "
            "step is the exact one."
        )
    if stochastic_rounding and (device not in KERNELS or param.dtype != torch.bfloat16):
        raise RuntimeError(
            f"stochastic_rounding=True is for torch.bfloat16 on CUDA devices, and a parameter is "
            f"{param.dtype} on {param.device}; leave it out for this parameter group."
        )


def refuse_moved(
    group: Mapping[str, Any],
    state: Mapping[Tensor, Mapping[str, Tensor]],
    own: Sequence[str],
    accumulators: Sequence[str],
    **arithmetic: bool,
) -> None:
    """Raise for a parameter of a group that has left its state, or what its step is made for.

    Raises
    ------
    RuntimeError
        as `refuse_unfit`, `refuse_uncapturable` and `check_states`.
    """
    for param in (p for p in group["params"] if p.grad is not None):
        if group.get("fused"):
            refuse_unfit(param, **arithmetic)
        if group.get("capturable"):
            refuse_uncapturable(param)
        check_states(param, state[param], own, accumulators, typed=not group.get("fused"))


def check_states(
    param: Tensor,
    states: Mapping[str, Tensor],
    own: Sequence[str],
    accumulators: Sequence[str],
    *,
    typed: bool,
) -> None:
    """Raise where a parameter has moved away from its states.

    With `typed` its gradient and its rule's `own` states must have its dtype, too.

    Raises
    ------
    RuntimeError
        naming the state, both devices or dtypes and what to do.
    """
    for name in (*own, *accumulators):
        state = states.get(name, param)  # one that is not there yet will be made to fit
        if state.device != param.device or state.shape != param.shape:
            raise RuntimeError(
                f"{name} has shape {tuple(state.shape)} on {state.device}, its parameter "
                f"{tuple(param.shape)} on {param.device}; move the model before the optimizer is "
                "built, or pass the state through state_dict() and load_state_dict()."
            )
    kinds = {"grad": param.grad.dtype} | {n: states[n].dtype for n in own if n in states}
    for name, dtype in kinds.items() if typed else ():
        if dtype != param.dtype:
            raise RuntimeError(
                f"{name} has dtype {dtype}, its parameter of shape {tuple(param.shape)} "
                f"{param.dtype}; cast the model before the optimizer is built, or pass the state "
                "through state_dict() and load_state_dict()."
            )


def run_fused(
    module: ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    scalars: Mapping[str, Any],
    *,
    weight_decay: float,
    say_once: Callable[[str], None],
    steps: Sequence[Tensor] | None = None,
    **options: Any,
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
    steps
        step counts in device memory, one for each parameter, for a step that a graph may repeat
    options
        of the Triton step: ``corrected``, ``exact``, ``stochastic_rounding``, ``seed``
    """
    columns = {name: [local(t) for t in column] for name, column in tensors.items()}
    places = [t.device.type for t in columns["grad"]]
    for device in sorted(set(places)):
        here = [i for i, place in enumerate(places) if place == device]
        chosen = {name: [column[i] for i in here] for name, column in columns.items()}
        if device == "cuda":
            counts = None if steps is None else [steps[i] for i in here]
            _on_cuda(module, step, chosen, scalars, weight_decay, steps=counts, **options)
        else:
            numbers = {**scalars, "keep": 1 - float(scalars.get("lr", 0.0)) * weight_decay}
            if reason := compiler_missing():
                say_once(f"fused=True: {reason}; the step is not compiled, which is slow.")
            form = compiled_form(module)
            run_one_pass(form, step, chosen, numbers, compile_it=not reason)


def _on_cuda(
    module: ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    scalars: Mapping[str, Any],
    weight_decay: float,
    **options: Any,
) -> None:
    # imported here: Triton is not there on every machine, and slow to import
    from deltabias.optim.triton_step import run_triton

    if "param" in tensors:
        scalars = {**scalars, "weight_decay": weight_decay}
    run_triton(module.__name__.rpartition(".")[2], step, tensors, scalars, **options)
