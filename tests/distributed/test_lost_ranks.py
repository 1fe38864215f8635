"""Ranks that die in the middle of a collective: a named error on the others, and nothing half done.

Each pair of ranks is a run of its own, of which the second ends at the worst moment.
"""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.distributed.launch import survivors
from tests.distributed.training import model, optimizer_of, sharded_step
from tests.distributed.worker import Run
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from deltabias.microbatch import MatrixStats, MicrobatchStats, RankLost
from deltabias.optim import Shampoo

SILENCE = timedelta(seconds=60)
"""Also for starting, which takes a while on a busy machine; what is tested takes two seconds."""
LIMIT = 180.0


def dies_at(call: int, name: str) -> None:
    """This process is killed within its `call`-th collective of a name."""
    whole, count = getattr(dist, name), 0

    def dying(*arguments, **options):
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **options)

    setattr(dist, name, dying)


def said_by(act) -> dict:
    """The error's name and text, and how long it took."""
    begun = time.monotonic()
    try:
        act()
        name, text = "nothing", ""
    except Exception as error:  # whatever it is, it is what the test is about
        name, text = type(error).__name__, str(error)
    return {"error": name, "text": text, "seconds": time.monotonic() - begun}


def leave(folder: Path, seen: dict) -> None:
    torch.save(seen, folder / "seen.pt")
    os._exit(0)  # destroying the group would wait for the dead


def statistics(rank: int, ranks: int, folder: Path) -> None:
    """The second of three all-reduces of a step: counts are common, moments are not."""
    net = model()
    optimizer, stats = optimizer_of(net), MicrobatchStats(net.parameters())
    optimizer.attach(stats)
    stats.add([torch.ones_like(p) for p in net.parameters()])
    stats.add([torch.zeros_like(p) for p in net.parameters()])
    if rank == 1:
        dies_at(2, "all_reduce")
    seen = said_by(stats.all_reduce)
    leave(folder, seen | {"fresh": stats.is_fresh, "count": stats.count})


def matrices(rank: int, ranks: int, folder: Path) -> None:
    """The first gather of a step, after the comparison of ranks."""
    stats = MatrixStats([torch.zeros(2, 3)])
    stats.add([torch.ones(2, 3)])
    if rank == 1:
        dies_at(2, "all_gather_object")
    seen = said_by(stats.all_reduce)
    leave(folder, seen | {"fresh": stats.is_fresh, "count": stats.count})


def shards(rank: int, ranks: int, folder: Path) -> None:
    """The exchange of gradients within a backward under FSDP2."""
    run = Run(DeviceMesh("cpu", [0, 1]))
    if rank == 1:
        dies_at(2, "all_to_all_single")
    before = [p.to_local().detach().clone() for p in run.net.parameters()]
    seen = said_by(lambda: run.steps(range(1)))
    same = all(map(torch.equal, before, (p.to_local() for p in run.net.parameters())))
    leave(folder, seen | {"unchanged": same, "count": run.stats.count})


def block(rank: int, ranks: int, folder: Path) -> None:
    """An exception in one rank's block, of which it ends; the other waits in FSDP2's forward."""
    run = Run(DeviceMesh("cpu", [0, 1]))
    run.steps(range(1))
    if rank == 1:
        with run.watched.microbatch():
            raise KeyError("a bad record")
    step = lambda: sharded_step(run.net, run.watched, run.optimizer, 1, 0, 2)  # noqa: E731
    leave(folder, said_by(step) | {"steps": run.optimizer.validity().steps})


def roots(rank: int, ranks: int, folder: Path) -> None:
    """The gather of inverse roots, which comes after the word that all are solved."""
    param = nn.Parameter(torch.eye(2))
    optimizer = Shampoo([param], damping=1e-3)
    optimizer.share_roots()
    if rank == 1:
        dies_at(1, "all_gather")
    param.grad = torch.ones(2, 2)
    seen = said_by(optimizer.step)
    leave(folder, seen | {"unchanged": bool(param.eq(torch.eye(2)).all())})


CASES = {
    "statistics": statistics,
    "matrices": matrices,
    "shards": shards,
    "block": block,
    "roots": roots,
}
WAITED_FOR = {
    "statistics": "the merge of microbatch statistics",
    "matrices": "the merge of microbatch statistics",
    "shards": "the exchange of gradients",
    "block": "a forward or backward pass",
    "roots": "the exchange of inverse roots",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[str, dict]:
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("torch without gloo")
    folder = tmp_path_factory.mktemp("lost")
    codes = survivors(CASES, folder, limit=LIMIT, silence=SILENCE)
    assert codes == dict.fromkeys(CASES, 0)
    return {name: torch.load(folder / name / "seen.pt", weights_only=False) for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_a_rank_that_dies_within_a_collective_is_an_error_within_the_limit(ended, case):
    seen = ended[case]
    assert seen["error"] == RankLost.__name__, seen["text"]
    assert f"a rank did not take part in {WAITED_FOR[case]}" in seen["text"]
    assert seen["seconds"] < SILENCE.total_seconds()


@pytest.mark.parametrize("case", ["statistics", "matrices"])
def test_sums_that_were_merged_by_halves_are_forgotten(ended, case):
    assert not ended[case]["fresh"]
    assert ended[case]["count"] == 0


def test_a_step_of_which_a_rank_died_changes_nothing(ended):
    assert ended["shards"]["unchanged"]
    assert ended["shards"]["count"] == 0
    assert ended["block"]["steps"] == 1
    assert ended["roots"]["unchanged"]
