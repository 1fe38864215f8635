"""Studies under ``torchrun``: tasks and Monte Carlo chunks split by rank, results on every rank.

    torchrun --nproc-per-node 2 -m validation strategies

Every task and every chunk seeds its own generator, so the numbers are those of one process, bit
for bit, whatever the number of ranks. One rank prints and writes.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from deltabias.truth.monte_carlo import Part
from validation.study import Progress

SILENCE = timedelta(hours=2)
"""How long a rank waits for the slowest task of another."""


@contextmanager
def joined():
    """Join the ranks that ``torchrun`` started; nothing to do in a process of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=SILENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """(this process's rank, the number of ranks)."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gathered(mine: Any) -> list[Any]:
    """What every rank passed, by rank; anything that pickles."""
    import torch.distributed as dist

    if place()[1] == 1:
        return [mine]
    everyone: list[Any] = [None] * place()[1]
    dist.all_gather_object(everyone, mine)
    return everyone


def part() -> Part:
    """This rank's part of a Monte Carlo, for ``estimate(..., part=part())``."""
    return Part(*place(), gathered)


def run_tasks_over_ranks(
    function: Callable[..., Any], tasks: Sequence[tuple], progress: Progress
) -> list[Any]:
    """Task k on rank k modulo their number; all results on every rank, in the tasks' order.

    An exception on one rank is raised on all of them.
    """
    rank, ranks = place()
    mine, error = {}, None
    for k in range(rank, len(tasks), ranks):
        try:
            mine[k] = function(*tasks[k])
        except Exception as found:  # whatever it is, the others wait for this rank
            error = found
            break
        progress(min(len(tasks), len(mine) * ranks), len(tasks))
    everyone = gathered((mine, error))
    for _, found in everyone:
        if found is not None:
            raise found
    results = {k: value for part_of, _ in everyone for k, value in part_of.items()}
    return [results[k] for k in range(len(tasks))]
