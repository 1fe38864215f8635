"""Independent tasks on one or two processes, in a fixed order of results."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from validation import ranks
from validation.study import Progress, no_progress


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    *,
    workers: int = 1,
    progress: Progress = no_progress,
) -> list[Any]:
    """``[function(*task) for task in tasks]``, in that order whatever finishes first.

    Each task seeds its own generator, so the results do not depend on `workers`. Under torchrun
    the ranks share the tasks, one worker each, and all have all results.

    Raises
    ------
    ValueError
        for fewer than one worker.
    """
    if workers < 1:
        raise ValueError(f"{workers=} cannot run anything; pass 1 or more.")
    if ranks.place()[1] > 1:
        return ranks.run_tasks_over_ranks(function, tasks, progress)
    if workers == 1:
        results = []
        for task in tasks:
            results.append(function(*task))
            progress(len(results), len(tasks))
        return results
    # spawned, not forked: torch and BLAS may hold threads by now
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()  # the first error ends the study
            progress(done, len(tasks))
        return [future.result() for future in futures]
