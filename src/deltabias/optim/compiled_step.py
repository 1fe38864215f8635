"""Runs a generated one-pass step on lists of tensors, compiled; see `deltabias.one_pass`."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from deltabias.microbatch.layout import local
from deltabias.one_pass import call_flat, compiler_missing, lie_alike
from deltabias.optim.stepping import parameters_of

Columns = Mapping[str, Sequence[Tensor]]


@cache
def compiled_form(module: ModuleType) -> ModuleType:
    """The module with the one-pass steps of a generated module's rule.

    Raises
    ------
    ValueError
        for a rule without steps of its own.

    Examples
    --------
    >>> from deltabias.generated import adamw
    >>> compiled_form(adamw).__name__
    'deltabias.generated.compiled.adamw'
    """
    package, _, name = module.__name__.rpartition(".")
    try:
        return import_module(f"{package}.compiled.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"{name!r} has no generated one-pass steps; pass fused=False.") from error


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
    module
        of one-pass steps: that of `compiled_form`
    step
        the plain function's name, as ``step_delta``
    tensors
        for each argument a list with one tensor per parameter: of the parameter's shape, or 0-d
    scalars
        numbers by name; ``keep`` and ``skew`` may be left out
    compile_it
        False runs the same function as it is: many temporaries, the same values but for rounding
    """
    entry = module.STEPS[step]
    pack, order = entry["pack"], entry["tensors"]
    numbers = pack(**{n: float(scalars[n]) for n in parameters_of(pack) if n in scalars})
    call_flat(
        entry["one_pass"],
        [list(map(local, tensors[n])) for n in order],  # of DTensors this rank's shards
        numbers,
        lead=order.index(entry["written"][0]),  # a number for a whole parameter is only read
        written=[n in entry["written"] for n in order],
        compile_it=compile_it,
    )


__all__ = ["compiled_form", "compiler_missing", "lie_alike", "run_one_pass"]
