"""Ranks that disagree, and ranks that are gone: named errors on the others, no hang."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.distributed.launch import survivors
from torch import nn

from deltabias.microbatch import MicrobatchStats, RankLost, check_agreement
from deltabias.microbatch.agreement import awaiting
from deltabias.optim import Shampoo

SILENCE = timedelta(seconds=30)
"""Also for starting, which takes a while on a busy machine; what is tested takes two seconds."""
LIMIT = 150.0


def test_every_rank_is_told_what_one_of_them_has_otherwise(four):
    about = [
        r"about parameter 1: rank 0 has (3, 2) torch.float32, rank 2 has (2, 3) torch.float32",
        "about number of parameters: rank 0 has 1, rank 3 has 2 (1 of 4 ranks",
        "about moments: rank 0 has 4, rank 1 has 3 (3 of 4 ranks",
        "about groups: rank 0 has 1, rank 1 has 2",
        "about AdamW, group 0, betas: rank 0 has (0.9, 0.9), rank 3 has (0.9, 0.8)",
        "about Shampoo, group 0, damping: rank 0 has 0.001, rank 1 has 0.002",
    ]
    for seen in four:
        assert len(seen["disagree"]) == len(about)
        for said, expected in zip(seen["disagree"], about, strict=True):
            assert expected in said


def test_options_of_the_fast_path_are_compared_before_the_first_step(four_with_shares):
    about = [
        "about every: rank 0 has 2, rank 2 has 3 (1 of 4 ranks",
        "about AdamW, group 0, storage: rank 0 has 'bfloat16', rank 2 has 'int8'",
        "about AdamW, group 0, correction: rank 0 has 'delta', rank 2 has 'closed_form'",
        # all digits, though a tensor prints four of them
        "about AdamW, group 0, lr: rank 0 has 0.10000000149011612, rank 2 has 0.1000000983476638",
        "about step of the cycle: rank 0 has 0, rank 2 has 1",
        "about block_size: rank 0 has 3, rank 2 has 2",
    ]
    for seen in four_with_shares:
        for said, expected in zip(seen["disagree"], about, strict=True):
            assert expected in said


def test_a_schedule_that_one_rank_runs_ahead_in_is_seen_in_that_step(four_with_shares):
    for seen in four_with_shares:
        for said in seen["drift"]:  # replicas, shards
            assert "about AdamW, group 0, lr: rank 0 has 0.05, rank 1 has 0.045" in said


def _lonely(rank: int, ranks: int, folder: Path) -> None:
    """Rank 1 takes part once; then it sleeps past the limit, and then it dies."""
    param = nn.Parameter(torch.eye(2))
    said = {}
    stats = MicrobatchStats([param])
    stats.add([torch.ones(2, 2)])
    optimizer = Shampoo([param], damping=1e-3)
    optimizer.share_roots()
    check_agreement({"all": "well"})
    if rank == 1:
        while not (folder / "asked").exists():  # silent: alive, and not taking part
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    for name, act in {
        "silent": lambda: check_agreement({"all": "well"}, timeout=timedelta(seconds=1)),
        "dead, comparison": lambda: check_agreement({"all": "well"}),
        "dead, statistics": stats.all_reduce,
        "dead, roots": lambda: _step(optimizer, param),
    }.items():
        begun = time.monotonic()
        try:
            act()
        except RankLost as error:
            said[name] = (str(error), time.monotonic() - begun, error.__cause__ is not None)
        (folder / "asked").touch()
    torch.save((said, bool(param.eq(torch.eye(2)).all())), folder / "said.pt")
    os._exit(0)  # destroying the group would wait for the dead


def _step(optimizer, param):
    param.grad = torch.ones(2, 2)
    optimizer.step()


def test_an_error_that_is_not_about_ranks_keeps_its_name():
    with pytest.raises(RuntimeError, match="out of memory") as seen, awaiting("nothing"):
        raise RuntimeError("out of memory")
    assert not isinstance(seen.value, RankLost)


@pytest.mark.skipif(not dist.is_available(), reason="torch without torch.distributed")
def test_a_rank_that_is_silent_or_dies_is_an_error_within_the_limit(tmp_path):
    assert survivors({"": _lonely}, tmp_path, limit=LIMIT, silence=SILENCE) == {"": 0}
    said, unchanged = torch.load(tmp_path / "said.pt", weights_only=False)
    assert list(said) == ["silent", "dead, comparison", "dead, statistics", "dead, roots"]
    for text, seconds, has_cause in said.values():
        assert "a rank did not take part in" in text
        assert "init_process_group(timeout=...)" in text
        assert has_cause
        assert seconds < SILENCE.total_seconds()
    assert unchanged
