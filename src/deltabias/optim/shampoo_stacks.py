"""Blocks of a Shampoo group as stacks that one step takes together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from deltabias.microbatch.matrix_stats import matrix_shape
from deltabias.optim.base import accumulator_dtype
from deltabias.optim.block_stacks import Stack, layout_of, paste
from deltabias.optim.kronecker_states import Options, held_names
from deltabias.optim.kronecker_step import Begun, Prepared, with_roots
from deltabias.optim.root_requests import fallbacks, solve_shared

STACK_ELEMENTS = {"cpu": 2**18}
MOST_ELEMENTS = 2**24
"""Members are concatenated up to so many numbers (four for each of a member): above, launches are
cheap. On a CPU less, where a stack then stays in the cache and large members need no copy."""

Members = tuple[tuple[Tensor, int], ...]


@dataclass(frozen=True)
class Work:
    """A stack of blocks, begun or prepared, and where its update goes."""

    stack: Stack
    members: Members
    progress: Begun | Prepared
    misaligned: Tensor | int


def stacks(
    group: Mapping[str, Any], params: list[Tensor], state: Mapping[Tensor, dict[str, Tensor]]
) -> Iterator[tuple[int, Stack, Members]]:
    """Equal blocks at equal steps, as (the coming step, where the states are, the blocks)."""
    together: dict[tuple, list[tuple[Tensor, int]]] = {}
    for param in params:
        step = int(state[param]["step"]) + 1
        for k, kind in enumerate(layout_of(matrix_shape(param.shape), group["block_size"])):
            size = tuple(s.stop - s.start for s in kind[0])
            key = (step, size, accumulator_dtype(param), param.device)
            together.setdefault(key, []).append((param, k))
    for (step, *_), members in together.items():
        for part in _portions(members):
            yield step, Stack(tuple((state[param], k) for param, k in part)), part


def _portions(members: list[tuple[Tensor, int]]) -> Iterator[Members]:
    part, elements = [], 0
    most = STACK_ELEMENTS.get(members[0][0].device.type, MOST_ELEMENTS)
    for param, k in members:
        size = 4 * param.numel()
        if part and elements + size > most:
            yield tuple(part)
            part, elements = [], 0
        part.append((param, k))
        elements += size
    yield tuple(part)


def solved(
    works: Mapping[int, list[Work]], options: Mapping[int, Options], root_ranks: tuple | None
) -> tuple[dict[int, list[Work]], int]:
    """All groups' work with its inverse roots, and how many an iteration could not prove.

    Computed here, or shared by the ranks of the process group that is in `root_ranks`.
    """
    flat = [(i, work) for i, group_works in works.items() for work in group_works]
    requests = [r for _, work in flat for r in work.progress.requests.values()]
    if root_ranks is not None and requests:
        answers = iter(solve_shared(requests, root_ranks[0]))
    else:
        answers = iter([request.solve() for request in requests])
    prepared: dict[int, list[Work]] = {i: [] for i in works}
    fell = 0
    for i, work in flat:
        mine = {side: next(answers) for side in work.progress.requests}
        fell += sum(fallbacks(answer, options[i].solver) for answer in mine.values())
        states = work.stack.read(() if work.progress.due else held_names(options[i]))
        progress = with_roots(states, work.progress, mine, options[i])
        prepared[i].append(replace(work, progress=progress))
    return prepared, fell


def spread(
    members: Members, stacked: Tensor, updates: Mapping[int, Tensor], block_size: int
) -> None:
    """Write a stack's update into its parameters' updates."""
    kinds = [layout_of(matrix_shape(p.shape), block_size)[k] for p, k in members]
    parts = stacked.split([len(kind) for kind in kinds])
    for (param, _), kind, part in zip(members, kinds, parts, strict=True):
        paste(updates[id(param)], kind, part)
