"""One, two and four ranks on this machine: training steps, Shampoo's roots, Monte Carlo.

Three kinds of work. *Training* gives every rank the same microbatches however many there are, so
the ideal is a constant time; beside the plain optimizer it is measured with statistics over
ranks, all in turn within one run. *Roots* and *Monte Carlo* divide one piece of work, so the ideal
is a time over the number of ranks. The rank counts are taken in turn, several rounds of them; the
median is reported, with all rounds. More ranks than cores share the cores, and the numbers show it.

    python -m validation.benchmarks ranks
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, Shampoo
from deltabias.truth import Gamma, Part, Sampler, estimate

CLAIM = "time of the same work on one, two and four ranks of this machine (gloo), as it is"
PACKAGES = ("numpy",)
RANKS = (1, 2, 4)
ROUNDS = 3
STEPS = 5
WIDTH, TOKENS, MICROBATCHES = 256, 64, 4
SAMPLES, CHUNK = 100_000, 5_000
WAYS = ("none", "all_reduce", "all_reduce from grad")


def model() -> nn.Module:
    """A quarter of a million parameters."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(4)))


def training(rank: int, way: str) -> Callable[[], None]:
    """A step of AdamW under DistributedDataParallel, the same work on every rank."""
    net = model()
    wrapped = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    optimizer = AdamW(net.parameters(), correction="none" if way == "none" else "delta")
    stats = MicrobatchStats(net.parameters(), moments=3)
    optimizer.attach(stats)
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(rank))

    def step() -> None:
        for k in range(MICROBATCHES):
            wrapped.require_backward_grad_sync = k == MICROBATCHES - 1
            if way == "none":
                (wrapped(x).square().mean() / MICROBATCHES).backward()
                continue
            with stats.microbatch():
                (wrapped(x).square().mean() / MICROBATCHES).backward()
        if way != "none":
            stats.all_reduce(from_grad=way.endswith("grad"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def roots() -> Callable[[], None]:
    """A step of Shampoo, its inverse roots shared; every rank has the same gradients."""
    net = model()
    optimizer = Shampoo(net.parameters(), damping=1e-4, block_size=256, correction="plug_in")
    optimizer.share_roots()
    generator = torch.Generator().manual_seed(1)
    for param in net.parameters():
        param.grad = torch.randn(param.shape, generator=generator)
    return optimizer.step


def monte_carlo(rank: int, ranks: int) -> Callable[[], None]:
    """E 1/mean of eight Gamma variables."""

    def gather(mine: object) -> list:
        everyone: list = [None] * ranks
        dist.all_gather_object(everyone, mine)
        return everyone

    def run() -> None:
        found = estimate(
            lambda x: 1 / x.mean(axis=1), Sampler(Gamma(9, "1/9"), (8,)), SAMPLES, seed=1,
            chunk=CHUNK, part=Part(rank, ranks, gather),
        )  # fmt: skip
        assert np.isfinite(found.mean)

    return run


def seconds(call: Callable[[], None], repeats: int) -> float:
    """Of one call, from a barrier until the slowest rank is done."""
    dist.barrier()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    dist.barrier()
    return (time.perf_counter() - started) / repeats


def worker(rank: int, ranks: int, folder: str) -> None:
    """Everything once on this many ranks; rank 0 writes."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks
    )
    steps = {way: training(rank, way) for way in WAYS}
    for step in steps.values():
        step()  # allocates
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(STEPS):
        for way, step in steps.items():
            taken[way].append(seconds(step, 1))
    found = {f"training, {way}": statistics.median(times) for way, times in taken.items()}
    share = roots()
    share()
    found["roots"] = seconds(share, 1)
    found["monte carlo"] = seconds(monte_carlo(rank, ranks), 1)
    if rank == 0:
        Path(folder, "seconds.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def one_round(ranks: int) -> dict[str, float]:
    """Seconds of every kind of work on this many ranks."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, args=(ranks, folder), nprocs=ranks)
        return json.loads(Path(folder, "seconds.json").read_text())


def rows() -> Iterator[dict[str, Any]]:
    """One line for each kind of work and number of ranks."""
    rounds = [{n: one_round(n) for n in RANKS} for _ in range(ROUNDS)]
    for work in rounds[0][1]:
        for n in RANKS:
            times = [one[n][work] for one in rounds]
            line = {
                "work": work,
                "ranks": n,
                "milliseconds": round(1e3 * statistics.median(times), 2),
                "ratio_to_one_rank": round(
                    statistics.median(one[n][work] / one[1][work] for one in rounds), 3
                ),
                "ideal": 1.0 if work.startswith("training") else 1 / n,
                "all_rounds": [round(1e3 * t, 2) for t in times],
            }
            if work == "monte carlo":
                line["samples_a_second"] = round(SAMPLES / statistics.median(times))
            yield line


def missing() -> str | None:
    """Why it cannot be measured here."""
    if dist.is_available() and dist.is_gloo_available():
        return None
    return "torch was built without gloo"
