"""The tensors of a Triton step: what fits, in which groups, and the tables that kernels read."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BLOCK = 1024
"""Elements a turn: 128 threads of 8, which is one 16-byte load in bf16 and two in fp32."""

TURNS = 4
"""Turns a chunk: the look into the tables is paid once for 4096 elements."""

REST = 256
"""Elements of a chunk with a mask: it holds an address for each, in registers."""

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
CODES = {torch.int8: "int8", torch.uint8: "uint8"}
"""What shares may be kept in besides."""

_uploaded_for_graphs: list[Tensor] = []  # a replayed graph copies from these host tensors again


def groups_of(
    entry: dict[str, Any], step: str, tensors: Mapping[str, Sequence[Tensor]], dither: bool
) -> dict[tuple, list[int]]:
    """Indices by device and types: a kernel is compiled for one kind. Refuses what it cannot."""
    if set(tensors) != set(entry["tensors"]):
        raise ValueError(
            f"{step} takes the tensors {', '.join(entry['tensors'])}; got {', '.join(tensors)}."
        )
    counts = {name: len(column) for name, column in tensors.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"{step} takes lists of one length; got {counts}.")
    groups = _one_group(entry, tensors) or _groups_by_row(entry, tensors)
    for device, _ in groups:
        _check_device(entry, device)
    for i, param in enumerate(tensors.get("param", ())):
        if dither and param.dtype != torch.bfloat16:
            raise ValueError(
                f"stochastic_rounding is for bfloat16 parameters; parameter {i} is {param.dtype}. "
                "Leave it out for this group."
            )
    return groups


def _one_group(
    entry: dict[str, Any], tensors: Mapping[str, Sequence[Tensor]]
) -> dict[tuple, list[int]]:
    """The usual case by columns, several times faster than by rows: contiguous, one kind each."""
    shapes = [t.shape for t in tensors[entry["written"][0]]]
    devices, kinds = set(), []
    for name in entry["tensors"]:
        column = tensors[name]
        found = {t.dtype for t in column}
        devices |= {t.device for t in column}
        if len(found) != 1 or len(devices) != 1 or not all(map(Tensor.is_contiguous, column)):
            return {}
        if is_single(entry, name):
            fits = all(t.numel() == 1 for t in column)
        else:
            fits = [t.shape for t in column] == shapes
        if not (fits and _is_known(entry, name, *found)):
            return {}
        kinds += found
    return {(devices.pop(), tuple(kinds)): list(range(len(shapes)))}


def _groups_by_row(
    entry: dict[str, Any], tensors: Mapping[str, Sequence[Tensor]]
) -> dict[tuple, list[int]]:
    groups: dict[tuple, list[int]] = {}
    for i in range(len(tensors[entry["written"][0]])):
        row = {name: tensors[name][i] for name in entry["tensors"]}
        _check_row(entry, row, i)
        kinds = tuple(t.dtype for t in row.values())
        groups.setdefault((row[entry["written"][0]].device, kinds), []).append(i)
    return groups


def _check_row(entry: dict[str, Any], row: dict[str, Tensor], i: int) -> None:
    """One parameter's tensors fit together."""
    main = row[entry["written"][0]]
    for name, tensor in row.items():
        if not _is_known(entry, name, tensor.dtype):
            raise TypeError(
                f"{name} of parameter {i} is {tensor.dtype}; the Triton step takes float32, "
                "bfloat16 and float16 and computes in float32. Pass fused=False."
            )
        if tensor.device != main.device:
            raise ValueError(
                f"{name} of parameter {i} is on {tensor.device}, {entry['written'][0]} on "
                f"{main.device}; move them to one device."
            )
        single = is_single(entry, name)
        if tensor.numel() != 1 if single else tensor.shape != main.shape:
            raise ValueError(
                f"{name} of parameter {i} has shape {tuple(tensor.shape)}, "
                f"{entry['written'][0]} has {tuple(main.shape)}."
            )
        if name in entry["written"] and not _same_layout(tensor, main):
            raise ValueError(
                f"{name} of parameter {i} has strides {tensor.stride()}, {entry['written'][0]} "
                f"has {main.stride()} for shape {tuple(main.shape)}; the Triton step writes dense "
                "tensors of one layout. Make them contiguous, or pass fused=False."
            )


def _is_known(entry: dict[str, Any], name: str, dtype: torch.dtype) -> bool:
    return dtype in DTYPES or (name in entry["coded"] and dtype in CODES)


def _same_layout(tensor: Tensor, main: Tensor) -> bool:
    if tensor.is_contiguous() and main.is_contiguous():
        return True
    return tensor.stride() == main.stride() and _dense(tensor)


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill their memory without holes, in whatever order."""
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _check_device(entry: dict[str, Any], device: torch.device) -> None:
    interpreted = type(entry["kernel"]).__name__ == "InterpretedFunction"
    if device.type != "cuda" and not interpreted:
        raise RuntimeError(
            f"the Triton step runs on CUDA devices, the tensors are on {device}; pass fused=False "
            "(or, to test, set TRITON_INTERPRET=1 before the first import of triton)."
        )


def in_one_layout(
    entry: dict[str, Any], columns: dict[str, list[Tensor]]
) -> dict[str, list[Tensor]]:
    """Read-only tensors of another layout are copied into that of the parameter."""
    main = columns[entry["written"][0]]
    read = set(entry["tensors"]) - set(entry["written"]) - set(entry["per_tensor"])
    for name in read:
        columns[name] = [
            t if _same_layout(t, m) else torch.empty_like(m, dtype=t.dtype).copy_(t)
            for t, m in zip(columns[name], main, strict=True)
        ]
    return columns


def kind_of(dtype: torch.dtype) -> Any:
    """Triton's type of a tensor's elements."""
    import triton.language as tl

    return getattr(tl, {**DTYPES, **CODES}[dtype])


def is_single(entry: dict[str, Any], name: str) -> bool:
    return name in entry["per_tensor"]


def chunks_of(
    sizes: tuple[int, ...], aligned: tuple[bool, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Whole chunks and the rest, on the device; remembered, since they rarely change."""
    if capturing(device):  # what a graph uploads is there only when it is replayed
        return _place_chunks(sizes, aligned, device)
    return _remembered_chunks(sizes, aligned, device)


def _place_chunks(
    sizes: tuple[int, ...], aligned: tuple[bool, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    whole, rest = chunk_map(sizes, aligned)
    return upload(whole, device), upload(rest, device)


_remembered_chunks = lru_cache(maxsize=32)(_place_chunks)


def chunk_map(sizes: Sequence[int], aligned: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """(tensor, first element) of the whole chunks, and of the blocks of the rest.

    Examples
    --------
    >>> whole, rest = chunk_map([BLOCK * TURNS + 1, 0, 3], [True, True, False])
    >>> whole.tolist(), rest.tolist()
    ([[0, 0]], [[0, 4096], [2, 0]])
    """
    chunk = BLOCK * TURNS
    whole, rest = [], []
    for i, (size, fits) in enumerate(zip(sizes, aligned, strict=True)):
        end = size // chunk * chunk if fits else 0
        whole.append(_places(i, 0, end, chunk))
        rest.append(_places(i, end, size, REST))
    empty = torch.empty(0, 2, dtype=torch.int64)
    return torch.cat([empty, *whole]), torch.cat([empty, *rest])


def _places(tensor: int, start: int, end: int, size: int) -> Tensor:
    first = torch.arange(start, max(start, end), size, dtype=torch.int64)
    return torch.stack([torch.full_like(first, tensor), first], dim=1)


def capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A small host tensor on the device, without waiting for it."""
    if device.type == "cpu":
        return values
    pinned = values.pin_memory()
    if capturing(device):
        _uploaded_for_graphs.append(pinned)
    return pinned.to(device, non_blocking=True)
