"""Three spawns of four ranks for all of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests.distributed import fast, worker
from tests.distributed.launch import launch


def seen_by_four(entry: Callable, folder: Path) -> list[dict]:
    """What each of four ranks saw, and where its checkpoints are."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("torch without gloo")
    launch(entry, 4, folder, limit=240)  # 15 on two idle cores
    seen = [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(4)]
    for one in seen:
        one["folder"] = folder
    return seen


@pytest.fixture(scope="session")
def four(tmp_path_factory) -> list[dict]:
    return seen_by_four(worker.main, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="session")
def four_compiled(tmp_path_factory) -> list[dict]:
    return seen_by_four(fast.compiled, tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def four_with_shares(tmp_path_factory) -> list[dict]:
    return seen_by_four(fast.uncompiled, tmp_path_factory.mktemp("shares"))
