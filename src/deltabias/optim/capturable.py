"""``capturable=True``: steps that a CUDA graph can repeat, and that read nothing from the device.

A graph repeats kernels with the numbers that they were given when it was captured. So all that
changes from step to step stands in device memory: the step counts, a learning rate that is a
tensor there, the scalars that follow from them, and whether a gradient is finite. What a step
decides on the host is frozen: which statistics there are, how many microbatches, whether this
step observes.

With ``fused=True`` on CUDA the generated Triton kernels work the scalars out themselves. Here is
the other way, for any device: the generated one-pass step, uncompiled, with a tensor of scalars.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _get_capturable_supported_devices

from deltabias.microbatch.layout import local
from deltabias.optim.stepping import by_device_and_dtype, parameters_of


def check_capturable(options: Mapping[str, Any]) -> None:
    """Raise for options that a step without a look at the device cannot have.

    Raises
    ------
    ValueError
        for ``nonfinite='raise'``, betas in tensors without ``fused=True``, and ``storage``, whose
        number of observations is counted on the host.
    """
    if not options.get("capturable"):
        return
    if options["nonfinite"] == "raise":
        raise ValueError(
            "capturable=True with nonfinite='raise' would wait for the device in every step; pass "
            "nonfinite='skip', which is decided on the device, or 'ignore', as torch."
        )
    if options.get("storage") is not None:
        raise ValueError(
            f"capturable=True with storage={options['storage']!r} would repeat the first "
            "observation's weight for ever: which step observes is decided on the host. Leave "
            "storage out."
        )
    if not options.get("fused") and any(isinstance(b, Tensor) for b in options.get("betas", ())):
        raise ValueError(
            "betas in tensors with capturable=True need fused=True; pass them as numbers."
        )


def refuse_uncapturable(param: Tensor) -> None:
    """Raise for a parameter on a device that has no graphs; torch's list of devices.

    Raises
    ------
    RuntimeError
        naming the device and those allowed.
    """
    devices = _get_capturable_supported_devices()
    if param.device.type not in devices and not torch.compiler.is_compiling():
        raise RuntimeError(
            f"If capturable=True, params and state_steps must be on supported devices: {devices}; "
            f"got a parameter on {param.device}. Move the model first, or leave capturable out."
        )


def refuse_capture(optimizer: Optimizer) -> None:
    """Raise in a step that a graph is about to record and that is not made for it.

    Raises
    ------
    RuntimeError
        as torch's optimizers do.
    """
    if all(group.get("capturable") for group in optimizer.param_groups):
        return
    if torch.compiler.is_compiling() or not _is_capturing():
        return
    raise RuntimeError(
        f"Attempting graph capture of step() for an instance of {type(optimizer).__name__} but "
        "param_groups' capturable is False: the graph would repeat this step's count for ever. "
        "Pass capturable=True, where the optimizer has it."
    )


def refuse_reading(what: str) -> None:
    """Raise while a graph is captured, for what reads numbers back from the device."""
    if _is_capturing():
        raise RuntimeError(
            f"{what} reads numbers back from the device, which a graph cannot repeat; call it "
            "between replays."
        )


def _is_capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


@contextmanager
def undone_where(bad: Tensor, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put back what the block changes where `bad` (0-d bool) is true, without looking at it.

    For as long as the block takes there is a copy of every tensor.
    """
    tensors = [local(t) for t in tensors]
    before = [t.clone() for t in tensors]
    yield
    for tensor, old in zip(tensors, before, strict=True):
        # torch.where, not a product: NaN times zero is NaN
        tensor.copy_(torch.where(bad.to(tensor.device, non_blocking=True), old, tensor))


def run_captured(
    form: ModuleType,
    step: str,
    tensors: Mapping[str, Sequence[Tensor]],
    counts: Sequence[Tensor],
    scalars: Callable[[Tensor], Mapping[str, float | Tensor]],
    *,
    weight_decay: float,
) -> None:
    """One step of a rule on lists of tensors; its scalars never leave the device.

    Parameters
    ----------
    form, step, tensors
        as `deltabias.optim.compiled_step.run_one_pass`
    counts
        the step count of each parameter, 0-d, on its device
    scalars
        the step's scalars by name, of step counts as an fp64 vector: numbers or vectors like it
    weight_decay
        decoupled: the parameter is multiplied by 1 - lr·weight_decay first
    """
    base = step.removeprefix("step_")
    pack, function = getattr(form, f"pack_{base}"), getattr(form, f"one_pass_{base}")
    names = [n for n in parameters_of(function) if n != "scalars"]
    columns = [[local(t).detach() for t in tensors[n]] for n in names]
    for indices in by_device_and_dtype(columns[0]):
        t = torch.stack([counts[i] for i in indices]).double()
        values = {n: _on(value, t) for n, value in scalars(t).items()}
        values["keep"] = 1 - values.get("lr", 0.0) * weight_decay
        numbers = pack(**{n: values[n] for n in parameters_of(pack) if n in values})
        rows = _rows(numbers, t)
        # as a compiled step: fp64 where the parameter is, else fp32
        rows = rows if columns[0][indices[0]].dtype == torch.float64 else rows.float()
        for i, row in zip(indices, rows.unbind(), strict=True):
            function(*(column[i] for column in columns), row)


def _on(value: float | Tensor, counts: Tensor) -> float | Tensor:
    """A scalar for arithmetic with the counts; a number on the host stays one."""
    if not isinstance(value, Tensor):
        return float(value)
    if value.is_cpu and not counts.is_cpu:  # as torch: what is on the host is frozen in a graph
        return float(value)
    return value.double() if value.shape == counts.shape else value.double().reshape(())


def _rows(numbers: Sequence[float | Tensor], counts: Tensor) -> Tensor:
    """[n, width]: a row of numbers for each count. A number is filled in, which is no copy."""
    columns = [
        n.expand_as(counts) if isinstance(n, Tensor) else torch.full_like(counts, n)
        for n in numbers
    ]
    return torch.stack(columns, dim=1)
