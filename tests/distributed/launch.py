"""Processes for a test: gloo on this machine, and a hard time limit on all of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[2]
SILENCE = timedelta(seconds=60)
"""How long a rank waits for another before it gives up: no test hangs longer."""


def launch(worker: Callable, ranks: int, folder: Path, *, limit: float, **options) -> None:
    """Run ``worker(rank, ranks, folder)`` on every rank; kill all of them after `limit` seconds.

    The first rank's exception is raised here.
    """
    arguments = (worker, ranks, str(folder), options)
    context = torch.multiprocessing.spawn(_enter, arguments, nprocs=ranks, join=False)
    deadline = time.monotonic() + limit
    try:
        while not context.join(timeout=max(0.1, min(1.0, deadline - time.monotonic()))):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{worker.__name__} on {ranks} ranks took over {limit} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()


def survivors(
    workers: dict[str, Callable], folder: Path, *, limit: float, **options
) -> dict[str, int | None]:
    """Run each worker on two ranks of its own, of which the second dies.

    What each first one exits with, None if it hung. `launch` would not do: it ends the survivors as
    soon as one process is gone.
    """
    context = torch.multiprocessing.get_context("spawn")
    processes = {}
    for name, worker in workers.items():
        (folder / name).mkdir(exist_ok=True)
        arguments = (worker, 2, str(folder / name), options)
        processes[name] = [
            context.Process(target=_enter, args=(rank, *arguments)) for rank in range(2)
        ]
        for process in processes[name]:
            process.start()
    deadline = time.monotonic() + limit
    for first, _ in processes.values():
        first.join(max(0.1, deadline - time.monotonic()))
    for process in (p for pair in processes.values() for p in pair):
        if process.is_alive():
            process.kill()
        process.join()
    codes = {name: first.exitcode for name, (first, _) in processes.items()}
    return {name: None if code == -signal.SIGKILL else code for name, code in codes.items()}


def torchrun(script: Path, *arguments: str, ranks: int, limit: float) -> str:
    """What a script prints under torchrun; 0 ranks: on its own. Raises `AssertionError`."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT)))
    process = subprocess.Popen(
        [sys.executable, *(launcher if ranks else []), str(script), *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1",
             "TMPDIR": str(script.parent)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,  # so that its children can be ended with it
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, errors[-3000:]
    return out


def _enter(rank: int, worker: Callable, ranks: int, folder: str, options: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=ranks,
        timeout=options.get("silence", SILENCE),
    )
    worker(rank, ranks, Path(folder))
    dist.destroy_process_group()
