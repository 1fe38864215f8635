"""Times taken in turn, A B C A B C …, so that a busy machine slows all of them alike.

What is reported of two calls is the median of the ratios within a round, and the middle half of
those ratios: a time alone says as much about the machine as about the code.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

FEWEST = 5
"""Rounds that are always taken."""

Times = dict[str, list[float]]


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, what it left running on a GPU included."""
    wait()
    began = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - began


def wait() -> None:
    """Until a CUDA device, if there is one, has nothing left to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 31,
    limit: float = 20.0,
    warm: int = 2,
    before: Callable[[str], None] | None = None,
) -> Times:
    """Seconds of every call, round by round, each after `warm` calls that are not counted.

    Parameters
    ----------
    rounds : at most so many, and no new one after `limit` seconds; `FEWEST` in any case
    before : called with a call's name ahead of it, and not counted
    """
    prepare = before or (lambda name: None)
    for _ in range(warm):
        for name, call in calls.items():
            prepare(name)
            call()
    times: Times = {name: [] for name in calls}
    began = time.perf_counter()
    for done in range(max(rounds, FEWEST)):
        if done >= FEWEST and time.perf_counter() - began > limit:
            break
        for name, call in calls.items():
            prepare(name)
            times[name].append(seconds(call))
    return times


def middle(found: Sequence[float], name: str) -> dict[str, float]:
    """The median, under a name, the middle half about it, and how many there were.

    Examples
    --------
    >>> middle([1.0, 2.0, 4.0], "ratio")
    {'ratio': 2.0, 'low': 1.0, 'high': 4.0, 'rounds': 3}
    """
    low, median, high = statistics.quantiles(found, n=4)
    return {
        name: round(median, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "rounds": len(found),
    }


def ratio(times: Times, name: str, base: str) -> dict[str, float]:
    """The median of name over base within a round, and the middle half of it.

    Examples
    --------
    >>> ratio({"ours": [2.0, 4.0, 6.0], "torch": [1.0, 2.0, 4.0]}, "ours", "torch")["ratio"]
    2.0
    """
    found = [a / b for a, b in zip(times[name], times[base], strict=True)]
    milliseconds = round(1e3 * statistics.median(times[name]), 4)
    return {**middle(found, "ratio"), "milliseconds": milliseconds}
