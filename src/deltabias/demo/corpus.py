"""Real text that every machine has: the Python standard library's own sources, as bytes."""

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deltabias.errors import DeltabiasError

MOST_BYTES = 4_000_000
HELD_OUT = 16
"""Every 16th file is validation: whole files, so that no window of it was trained on."""

# tests differ from machine to machine; encodings and pydoc_data are tables rather than text
SKIPPED = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data"}
)


@dataclass(frozen=True)
class Corpus:
    """Bytes as 1-d uint8 tensors, files of one split joined in the order of their names."""

    training: Tensor
    validation: Tensor
    files: int


def read_corpus(
    root: Path | None = None, *, most_bytes: int = MOST_BYTES, at_least: int = 65_536
) -> Corpus:
    """The ``.py`` files under `root`, a folder's own before its folders', until `most_bytes`.

    The same machine gives the same tensors; another version of Python gives other text.

    Parameters
    ----------
    root : directory; the running interpreter's standard library by default
    most_bytes : of both splits together
    at_least : bytes that the smaller split must have

    Raises
    ------
    DeltabiasError
        where there is too little text, as in an interpreter that ships its library zipped.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if root is None else root
    splits: tuple[list[bytes], list[bytes]] = ([], [])
    files, total = 0, 0
    for path in _sources(root):
        if total >= most_bytes:
            break
        text = path.read_bytes()[: most_bytes - total]
        splits[files % HELD_OUT == HELD_OUT - 1].append(text)
        files, total = files + 1, total + len(text)
    training, validation = (b"".join(split) for split in splits)
    if len(validation) < at_least or len(training) < at_least:
        raise DeltabiasError(
            f"{root} has {len(training)} bytes of Python to train on and {len(validation)} to "
            f"validate; need at least {at_least} of each. Run the demo with a Python that has its "
            "standard library as files."
        )
    return Corpus(_bytes(training), _bytes(validation), files)


def _sources(root: Path) -> Iterator[Path]:
    """In sorted order; folders that are skipped are not even looked into."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def windows(text: Tensor, starts: Tensor, context: int) -> Tensor:
    """int64 ``[len(starts), context + 1]``: inputs and, shifted by one, targets."""
    return text[starts[:, None] + torch.arange(context + 1)].long()


def random_windows(text: Tensor, count: int, context: int, generator: torch.Generator) -> Tensor:
    """`windows` at independent uniform starts."""
    starts = torch.randint(len(text) - context, (count,), generator=generator)
    return windows(text, starts, context)


def even_windows(text: Tensor, count: int, context: int) -> Tensor:
    """`windows` spread evenly: the same ones for every model that is compared."""
    return windows(text, torch.linspace(0, len(text) - context - 1, count).long(), context)
