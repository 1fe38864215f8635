"""Parameters of any rank as stacks of equal blocks, [B, d, n], and back."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from deltabias.microbatch.matrix_stats import blocks

Rectangle = tuple[slice, slice]
Layout = tuple[tuple[Rectangle, ...], ...]


def as_matrix(tensor: Tensor) -> Tensor:
    """[shape[0], rest]; a view where that is possible."""
    return tensor.reshape(tensor.shape[0], -1)


@lru_cache(maxsize=4096)
def layout_of(shape: tuple[int, ...], block_size: int) -> Layout:
    """The blocks of a parameter's shape by their size: at most four kinds (corners, edges)."""
    kinds: dict[tuple[int, int], list[Rectangle]] = {}
    for rows, columns in blocks(shape, block_size):
        size = (rows.stop - rows.start, columns.stop - columns.start)
        kinds.setdefault(size, []).append((rows, columns))
    return tuple(map(tuple, kinds.values()))


@lru_cache(maxsize=4096)
def positions_of(shape: tuple[int, ...], block_size: int) -> tuple[tuple[int, ...], ...]:
    """For each kind the positions of its blocks in ``blocks(shape, block_size)``."""
    order = [(r.start, c.start) for r, c in blocks(shape, block_size)]
    return tuple(
        tuple(order.index((r.start, c.start)) for r, c in kind)
        for kind in layout_of(shape, block_size)
    )


def cut(matrix: Tensor, kind: Iterable[Rectangle]) -> Tensor:
    """The blocks of one kind, [B, d, n], copied."""
    return torch.stack([matrix[rows, columns] for rows, columns in kind])


def paste(matrix: Tensor, kind: Iterable[Rectangle], stack: Tensor) -> None:
    """Write a stack back to where `cut` took it from."""
    for (rows, columns), block in zip(kind, stack, strict=True):
        matrix[rows, columns] = block


@dataclass(frozen=True)
class Stack:
    """Equal blocks of one or several parameters at the same step.

    ``members`` are (the parameter's state, which kind of its blocks). Several members are
    concatenated, so that small equal layers cost one kernel launch; a single one is used in place.
    """

    members: tuple[tuple[dict[str, Tensor], int], ...]

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named states, concatenated over members."""
        return {name: self._joined([s[f"{name}.{k}"] for s, k in self.members]) for name in names}

    def write(self, values: dict[str, Tensor]) -> None:
        """Copy the states back, each part to its member."""
        for name, value in values.items():
            targets = [state[f"{name}.{k}"] for state, k in self.members]
            parts = value.split([len(t) for t in targets])
            for target, part in zip(targets, parts, strict=True):
                target.copy_(part)

    @staticmethod
    def _joined(parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(parts)
