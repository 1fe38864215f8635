"""One spawn of four ranks for all of this folder."""

import pytest
import torch
import torch.distributed as dist
from tests.distributed import worker
from tests.distributed.launch import launch


@pytest.fixture(scope="session")
def four(tmp_path_factory) -> list[dict]:
    """What each of four ranks saw, and where its checkpoints are."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("torch without gloo")
    folder = tmp_path_factory.mktemp("four")
    launch(worker.main, 4, folder, limit=180)  # 25 on two idle cores
    seen = [torch.load(folder / f"rank{r}.pt", weights_only=False) for r in range(4)]
    for one in seen:
        one["folder"] = folder
    return seen
