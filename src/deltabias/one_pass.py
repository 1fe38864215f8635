"""Compiled loops over lists of tensors on a CPU: every tensor read once, one graph for all shapes.

A tensor is seen as flat, in the order in which it lies in memory, so that one compiled graph with
a symbolic size serves every shape; scalars are one small tensor, so that a schedule is data. The
call of a compiled graph costs some 25 µs, which is the work on 10⁵ elements: small tensors, and
those that do not lie flat, are gathered into buffers that stay in the cache, worked on together,
and copied back.
"""

import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SMALL = 2**15
"""Tensors of up to so many elements are gathered: a copy of them is cheaper than a call."""

GATHERED = 2**17
"""Elements of a gathered buffer; with ten columns a few MiB."""

OPTIONS = {"cpp.enable_floating_point_contract_flag": "fast"}
"""a·b + c in one rounding: fewer instructions, and no less exact."""


@cache
def compiler_missing() -> str:
    """Why nothing can be compiled for a CPU here; empty if it can."""
    if sys.platform == "win32":
        return "" if shutil.which("cl") else "no C++ compiler (cl) on the path"
    names = ("g++", "clang++", "c++")
    if not any(map(shutil.which, names)):
        return f"no C++ compiler ({', '.join(names)})"
    # what torch.compile writes is a module for Python
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"no {header} (on Debian: python3-dev)"


@cache
def compiled(function: Callable) -> Callable:
    """The function of flat tensors, compiled once for all sizes; as it is where that fails.

    A failure is said once. Nothing is written by then: a graph is compiled before it runs.
    """
    options = OPTIONS if compiler_missing() == "" else None
    loop: Callable | None = None

    def call(*arguments: Tensor) -> Tensor | None:
        nonlocal loop
        try:
            loop = loop or torch.compile(function, dynamic=True, fullgraph=True, options=options)
            return loop(*arguments)
        except (RuntimeError, ImportError, OSError) as error:
            if loop is function or not _is_of_compiler(error):
                raise
            loop = function
            _say_once(_why(error))
        return function(*arguments)

    return call


def _is_of_compiler(error: Exception) -> bool:
    """Whether it was compiling that failed, or its cache; a RuntimeError may be anything's."""
    if isinstance(error, ImportError | OSError):
        return True
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and imported by now

    return isinstance(error, TorchDynamoException)


def _why(error: Exception) -> str:
    cause = getattr(error, "inner_exception", error)  # of torch's own
    first = (str(cause).strip().splitlines() or [""])[0]
    return f"{type(cause).__name__}: {first[:300]}"


@cache
def _say_once(reason: str) -> None:
    place = os.environ.get("TORCHINDUCTOR_CACHE_DIR", "in the folder of temporary files")
    warnings.warn(
        f"a step could not be compiled, and runs uncompiled from here on, which is slow ({reason})."
        f" A compile that was killed leaves files that are too short: empty torch.compile's cache, "
        f"{place}; or set TORCHINDUCTOR_CACHE_DIR to a folder that can be written.",
        RuntimeWarning,
        stacklevel=3,
    )


def call_flat(
    function: Callable[..., None],
    columns: Sequence[Sequence[Tensor]],
    numbers: Sequence[float],
    *,
    lead: int,
    written: Sequence[bool],
    compile_it: bool = True,
) -> None:
    """``function(*row, scalars)`` for every row of flat tensors, in place.

    Parameters
    ----------
    columns
        for each argument a list with one tensor per row: of the lead's shape, or 0-d
    numbers
        become one small tensor, the last argument: fp64 where the first column is, else fp32
    lead
        which column has the shape of the row
    written
        for each column whether the function changes it
    compile_it
        False runs the same function as it is: many temporaries, the same values but for rounding
    """
    fast = compiled(function) if compile_it else function
    for indices in _by_kind(columns):
        chosen = [[column[i] for i in indices] for column in columns]
        dtype = torch.float64 if chosen[0][0].dtype == torch.float64 else torch.float32
        packed = torch.tensor(numbers, dtype=dtype, device=chosen[0][0].device)
        for arguments in _flat_calls(chosen, lead, written):
            # a size of 1 would be a graph of its own
            (fast if arguments[lead].numel() > 1 else function)(*arguments, packed)


def lie_alike(first: Tensor, *others: Tensor) -> bool:
    """Whether tensors have one shape and one order in memory, without gaps."""
    shape = first.shape
    if first.is_contiguous():  # nearly always: a look for each of many tensors
        return all(t.is_contiguous() and t.shape == shape for t in others)
    strides = first.stride()
    return _is_dense(first) and all(t.shape == shape and t.stride() == strides for t in others)


def _is_dense(tensor: Tensor) -> bool:
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _by_kind(columns: Sequence[Sequence[Tensor]]) -> list[list[int]]:
    kinds: dict[tuple, list[int]] = {}
    for i, row in enumerate(zip(*columns, strict=True)):
        kinds.setdefault((row[0].device, *(t.dtype for t in row)), []).append(i)
    return list(kinds.values())


def _flat_calls(
    columns: list[list[Tensor]], lead: int, written: Sequence[bool]
) -> Iterator[list[Tensor]]:
    """Flat arguments for each call; gathered ones are copied back after it."""
    gathered: list[list[Tensor]] = []
    waiting = 0
    for row in zip(*columns, strict=True):
        row = [t.detach() for t in row]
        size = row[lead].numel()
        if not size:
            continue
        flat = None if size <= SMALL else _flat_views(row, row[lead])
        if flat is not None:
            yield flat
            continue
        if waiting and waiting + size > GATHERED:
            yield from _together(gathered, lead, written)
            gathered, waiting = [], 0
        gathered.append(row)
        waiting += size
    if gathered:
        yield from _together(gathered, lead, written)


def _flat_views(row: list[Tensor], lead: Tensor) -> list[Tensor] | None:
    """1-D views of tensors that lie in memory without gaps and in one order; 0-d stay."""
    if not lie_alike(lead, *(t for t in row if t.dim())):
        return None
    return [t.as_strided((t.numel(),), (1,)) if t.dim() else t for t in row]


def _together(
    rows: list[list[Tensor]], lead: int, written: Sequence[bool]
) -> Iterator[list[Tensor]]:
    """One call for many small tensors: copies in, and back what it changed."""
    sizes = [row[lead].numel() for row in rows]
    shapes = [row[lead].shape for row in rows]
    buffers = []
    for column in zip(*rows, strict=True):
        wide = [t.expand(s).reshape(-1) for t, s in zip(column, shapes, strict=True)]
        buffers.append(torch.cat(wide) if len(wide) > 1 else wide[0].clone())
    yield buffers
    for column, buffer, wanted in zip(zip(*rows, strict=True), buffers, written, strict=True):
        if wanted:
            parts = buffer.split(sizes)
            torch._foreach_copy_(
                list(column), [p.view(s) for p, s in zip(parts, shapes, strict=True)]
            )
