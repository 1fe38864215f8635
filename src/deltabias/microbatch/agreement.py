"""Ranks that disagree, and ranks that are gone: a named error on every rank, never a hang.

Collectives do not compare what they are given: a rank with other shapes, or one that calls in
another order, ends in a wrong sum or in a wait without end. So what must be equal is compared
once, by a digest, before the first collective of a run; and what may change, as a learning rate,
with every step's statistics, for a few bytes more.
"""

import hashlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch import Tensor

from deltabias.errors import DeltabiasError

Group = "dist.ProcessGroup | None"

OF_A_BACKEND = ("gloo", "monitoredbarrier", "connection ", "timed out", "timeout", "pair closure")
"""In the texts of plain RuntimeErrors: gloo does not raise torch's own `DistError`."""


MARK_BITS = 32
"""Of a digest, compared in every step. A difference that is missed is seen in the next one."""


class RanksDisagree(DeltabiasError):
    """Something that must be equal on all ranks is not."""


class RankLost(DeltabiasError, RuntimeError):
    """Another process ended, or did not answer within the time limit."""


def is_distributed() -> bool:
    """Whether there are ranks to speak to."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def awaiting(what: str) -> Iterator[None]:
    """Name what was waited for if another rank is gone; the backend's error is the cause.

    A rank that died closes its connections, which the others notice at once (gloo) or at the
    group's time limit; one that hangs is noticed at that limit. It is the ``timeout`` that
    ``torch.distributed.init_process_group`` was given (by default half an hour).
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if not (isinstance(error, dist.DistError) or any(word in text for word in OF_A_BACKEND)):
            raise
        raise RankLost(
            f"a rank did not take part in {what} ({_first_line(error)}). It ended, hangs, or left "
            "this step out; look at the other ranks' errors, and restart all of them from the "
            "last checkpoint. The time limit is "
            "torch.distributed.init_process_group(timeout=...)."
        ) from error


def check_agreement(
    description: Mapping[str, str],
    process_group: Group = None,
    *,
    timeout: timedelta | None = None,
) -> None:
    """Raise the same error on every rank unless all ranks pass an equal `description`.

    One gather of 32 bytes; only where they differ are the texts exchanged. Every rank of the
    group must call it.

    Parameters
    ----------
    description
        what must be equal, by a name that the error will use
    process_group
        the ranks that are compared; all by default
    timeout
        how long to wait for the others, with the gloo backend. The default, and the limit with
        other backends, is the group's own.

    Raises
    ------
    RanksDisagree
        naming the first entry that differs and the ranks that differ in it
    RankLost
        a rank did not answer in time
    """
    with awaiting("the comparison of ranks"):
        if dist.get_backend(process_group) == "gloo":
            # unlike a collective it takes a time limit, and knows who is missing
            dist.monitored_barrier(process_group, timeout=timeout, wait_all_ranks=True)
        if len(set(_gathered(_digest(description), process_group))) == 1:
            return
        everyone = _gathered(dict(description), process_group)
    raise RanksDisagree(_difference(everyone))


class Agreement:
    """A comparison of things that come together from several places.

    Everything is compared once. What is followed may change, and is compared in every step: its
    `mark` travels with what ranks tell each other anyway. Copies keep what was said, and follow
    nothing.
    """

    def __init__(self) -> None:
        self._described: dict[str, str] = {}
        self._followed: list[tuple[weakref.ref, Callable[..., Mapping[str, str]]]] = []
        self._reached = False

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_followed": []}  # a reference that is weak does not pickle

    def add(self, described: Mapping[str, str]) -> None:
        """More to compare, by name; the next `check` compares again."""
        self._described.update(described)
        self._reached = False

    def follow(self, source: object, describe: Callable[..., Mapping[str, str]]) -> None:
        """Compare ``describe(source)``, now and in every step."""
        self.add(describe(source))
        self._followed.append((weakref.ref(source), describe))

    def check(self, own: Callable[[], Mapping[str, str]], process_group: Group) -> None:
        """`check_agreement` about `own` and all else, if that was not done yet."""
        if not self._reached:
            check_agreement({**own(), **self._described, **self._now()}, process_group)
            self._reached = True

    def mark(self) -> int:
        """What is followed, as it stands: `MARK_BITS` of its digest, equal on ranks that agree."""
        return int.from_bytes(_digest(self._now())[: MARK_BITS // 8], "big")

    def explain(self, process_group: Group) -> None:
        """Where marks differ, which every rank of the group has seen: raise, with the reason."""
        check_agreement(self._now(), process_group)
        raise RanksDisagree(
            "ranks disagree about their optimizers' options; set learning rates and schedules in "
            "the same way on every rank"
        )

    def _now(self) -> dict[str, str]:
        """What is followed, by name; names of a second optimizer have its number."""
        alive = [(ref(), describe) for ref, describe in self._followed]
        described = [describe(source) for source, describe in alive if source is not None]
        return {
            f"{name} (optimizer {k + 1})" if k else name: text
            for k, entries in enumerate(described)
            for name, text in entries.items()
        }


def describe(params: Iterable[Tensor]) -> dict[str, str]:
    """What of parameters must be equal on all ranks: number, shapes, dtypes, placements."""
    params = list(params)
    lines = {"number of parameters": str(len(params))}
    for i, param in enumerate(params):
        # the global shape: the local one of a shard may well differ
        text = f"{tuple(param.shape)} {param.dtype}"
        if hasattr(param, "placements"):
            text += f" {param.placements} on a mesh of {tuple(param.device_mesh.shape)}"
        lines[f"parameter {i}"] = text
    return lines


def _gathered(mine: object, process_group: Group) -> list:
    everyone = [None] * dist.get_world_size(process_group)
    dist.all_gather_object(everyone, mine, group=process_group)
    return everyone


def _digest(description: Mapping[str, str]) -> bytes:
    return hashlib.sha256(repr(sorted(description.items())).encode()).digest()


def _difference(everyone: list[Mapping[str, str]]) -> str:
    names = dict.fromkeys(name for description in everyone for name in description)
    for name in names:
        values = [description.get(name, "nothing") for description in everyone]
        if odd := [rank for rank, value in enumerate(values) if value != values[0]]:
            return (
                f"ranks disagree about {name}: rank 0 has {values[0]}, rank {odd[0]} has "
                f"{values[odd[0]]} ({len(odd)} of {len(values)} ranks differ from rank 0); build "
                "model, statistics and optimizer in the same way on every rank"
            )
    raise AssertionError("digests differ, descriptions do not")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
