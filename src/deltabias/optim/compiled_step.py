"""Runs a generated one-pass step on lists of tensors, compiled; see `deltabias.one_pass`."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from deltabias.one_pass import call_flat, compiler_missing, lie_alike
from deltabias.optim.stepping import parameters_of

ONLY_READ = frozenset({"grad", "c2", "c3", "c4", "unit_of_c"})

Columns = Mapping[str, Sequence[Tensor]]


def run_one_pass(
    module: ModuleType,
    step: str,
    tensors: Columns,
    scalars: Mapping[str, Any],
    *,
    compile_it: bool,
) -> None:
    """``module.one_pass_…`` on every tuple of tensors, in place.

    Parameters
    ----------
    step
        the plain function's name, as ``step_delta``
    tensors
        for each argument a list with one tensor per parameter: of the parameter's shape, or 0-d
    scalars
        numbers by name; ``keep`` and ``skew`` may be left out
    compile_it
        False runs the same function as it is: many temporaries, the same values but for rounding
    """
    base = step.removeprefix("step_")
    pack = getattr(module, f"pack_{base}")
    numbers = pack(**{n: float(scalars[n]) for n in parameters_of(pack) if n in scalars})
    function = getattr(module, f"one_pass_{base}")
    order = [n for n in parameters_of(function) if n != "scalars"]
    call_flat(
        function,
        [tensors[n] for n in order],
        numbers,
        lead=order.index("grad"),  # every step has one; of the parameter's shape
        written=[n not in ONLY_READ for n in order],
        compile_it=compile_it,
    )


__all__ = ["compiler_missing", "lie_alike", "run_one_pass"]
