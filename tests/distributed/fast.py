"""What four ranks do for the tests of the fast path, in one spawn: compiled steps, shares."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from tests.distributed.training import (
    MICROBATCHES,
    TOKENS,
    draw,
    loss,
    model,
    optimizer_of,
    replicated_step,
    sharded_step,
    share,
    snapshot,
)
from tests.distributed.worker import Run
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from deltabias.microbatch import MatrixStats, MicrobatchStats, RanksDisagree
from deltabias.optim import AdamW

STEPS = 5
FORMS: dict[str, dict] = {
    "fused": {"fused": True},
    "fused int8": {"fused": True, "storage": "int8", "every": 2},
    "int8": {"storage": "int8", "every": 3},
    "bfloat16": {"storage": "bfloat16", "every": 2},
    "float32": {"storage": "float32", "every": 2},
    "closed form": {"storage": "int8", "correction": "closed_form", "every": 2},
}
"""Options of the statistics (``every``) and of AdamW."""

FIRST, LATER = range(4), range(4, 8)
"""Before and after a checkpoint. With every=3 the fourth step was looked at, the fifth was not."""
SAVED = ("int8", "closed form", "bfloat16")
RESUMED = ((4, 2), (2, 4))


COMPILED = tuple(form for form in FORMS if "fused" in form)
UNCOMPILED = tuple(form for form in FORMS if form not in COMPILED)


def compiled(rank: int, ranks: int, folder: Path) -> None:
    """The ranks' entry for what is compiled."""
    torch._inductor.config.compile_threads = 1  # four processes are enough
    if rank == 0:  # the others find in the cache what one has compiled
        for form in COMPILED:
            by_hand(None, **FORMS[form])
    dist.barrier()
    meshes = meshes_of(rank)
    out = trained(meshes, COMPILED)
    out["by hand"] = by_hand(meshes[4], **FORMS["fused"])
    out["idle"] = without_framework(rank, dealt_to=3, **FORMS["fused"])
    torch.save(out, folder / f"rank{rank}.pt")


def uncompiled(rank: int, ranks: int, folder: Path) -> None:
    """The ranks' entry for all else."""
    meshes = meshes_of(rank)
    out = trained(meshes, UNCOMPILED)
    for form in SAVED:
        out["checkpoints", form] = checkpoints(rank, meshes, folder, form)
    out["by hand"] = by_hand(meshes[4], **FORMS["int8"])
    out["idle"] = without_framework(rank, dealt_to=3, **FORMS["int8"])
    for when in ("before", "after"):
        out["raises", when] = raising(rank, when)
    out["disagree"] = [said(case) for case in disagreements(rank)]
    out["drift"] = [said(lambda: drifting(rank)), said(lambda: drifting_shards(meshes[4]))]
    torch.save(out, folder / f"rank{rank}.pt")


def meshes_of(rank: int) -> dict[int, DeviceMesh]:
    """All four ranks, and this one's half of them."""
    halves = [DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [2, 3])]
    return {2: halves[rank // 2], 4: DeviceMesh("cpu", list(range(4)))}


def trained(meshes: dict[int, DeviceMesh], forms: tuple[str, ...]) -> dict:
    """Both ways to be distributed, on two ranks and on four."""
    out = {}
    for form in forms:
        for n, mesh in meshes.items():
            out["ddp", n, form] = replicated(mesh, from_grad=n == 4, **FORMS[form])
            out["fsdp", n, form] = sharded(mesh, **FORMS[form])
    return out


def saved_options(form: str) -> dict:
    return {**FORMS[form], "every": 3}


def replicated(mesh: DeviceMesh, *, from_grad: bool, every: int = 1, **options) -> dict:
    """DistributedDataParallel, with a parameter that has no dimensions."""
    net, group = model(scalar=True), mesh.get_group()
    wrapped = nn.parallel.DistributedDataParallel(net, process_group=group)
    optimizer, stats = optimizer_of(net, **options), MicrobatchStats(net.parameters(), every=every)
    optimizer.attach(stats)
    for step in range(STEPS):
        replicated_step(
            wrapped, stats, optimizer, step, mesh.get_local_rank(), mesh.size(), group,
            from_grad=from_grad,
        )  # fmt: skip
    return {**snapshot(net, optimizer), "validity": optimizer.validity()}


def sharded(mesh: DeviceMesh, **options) -> dict:
    """FSDP2: five and three rows, so that on four ranks the last one has none of them."""
    run = Run(mesh, **options)
    run.steps(range(STEPS))
    return {**run.snapshot(), "validity": run.optimizer.validity()}


def checkpoints(rank: int, meshes: dict[int, DeviceMesh], folder: Path, form: str) -> dict:
    """Saved within a cycle, resumed on another number of ranks; what each ends with."""
    out, options = {}, saved_options(form)
    for n, mesh in meshes.items():
        if n == 4 or rank < 2:
            run = Run(mesh, **options)
            run.steps(FIRST)
            run.save(folder / f"{form}-{n}")
            run.steps(LATER)
            out["straight on", n] = run.snapshot()
    dist.barrier()
    for saved, resumed in RESUMED:
        if resumed == 4 or rank < 2:
            run = Run(meshes[resumed], **options)
            run.load(folder / f"{form}-{saved}")
            out["looks", saved, resumed] = run.stats.is_looking
            run.steps(LATER)
            out["resumed", saved, resumed] = run.snapshot()
    dist.barrier()
    return out


def by_hand(mesh: DeviceMesh | None, *, every: int = 1, **options) -> dict:
    """DTensors without FSDP2, one of them without dimensions; no mesh: whole tensors.

    Gradients are given; every rank sees all microbatches of what it owns.
    """
    shapes = {"matrix": (5, 3), "row": (1, 7), "scalar": ()}
    params = {n: nn.Parameter(_placed(draw(s, seed=1), mesh)) for n, s in shapes.items()}
    optimizer = AdamW(params.values(), lr=0.05, betas=(0.8, 0.9), **options)
    stats = MicrobatchStats(params.values(), every=every)
    optimizer.attach(stats)
    for step in range(STEPS):
        rows = [[draw(s, seed=9 * step + r) for s in shapes.values()] for r in (2, 3, 4)]
        for row in rows:
            stats.add([_placed(g, mesh) for g in row])
        for param, *grads in zip(params.values(), *rows, strict=True):
            param.grad = _placed(torch.stack(grads).mean(0), mesh)
        optimizer.step()
    net = nn.ParameterDict(params)
    return {**snapshot(net, optimizer), "validity": optimizer.validity()}


def _placed(tensor: torch.Tensor, mesh: DeviceMesh | None) -> torch.Tensor:
    if mesh is None:
        return tensor
    return distribute_tensor(tensor, mesh, [Shard(0) if tensor.dim() else Replicate()])


def without_framework(
    rank: int, dealt_to: int, every: int = 1, act: Callable | None = None, **options
) -> dict:
    """A plain loop. Microbatches are dealt to the first ranks, the others have none, ever."""
    net = model()
    optimizer, stats = optimizer_of(net, **options), MicrobatchStats(net.parameters(), every=every)
    optimizer.attach(stats)
    for step in range(STEPS):
        for index in range(rank, MICROBATCHES, dealt_to) if rank < dealt_to else ():
            (act or observe)(net, stats, step, index)
        for param in net.parameters():
            param.grad = torch.zeros_like(param) if param.grad is None else param.grad
            dist.all_reduce(param.grad)
        stats.all_reduce()
        optimizer.step()
        optimizer.zero_grad()
    return {**snapshot(net, optimizer), "validity": optimizer.validity()}


def observe(net: nn.Module, stats: MicrobatchStats, step: int, index: int) -> None:
    with stats.microbatch(weight=TOKENS[index]):
        (loss(net, step, index) * share(index)).backward()


RAISING = (1, 2)
"""The step and the microbatch of it in which something goes wrong."""


def raising(rank: int, when: str) -> dict:
    """A rank's block raises, before or after its backward, and the loop goes on without it."""

    def act(net, stats, step, index):
        try:
            with stats.microbatch(weight=TOKENS[index]):
                if (step, index) == RAISING and when == "before":
                    raise KeyError("a bad record")
                (loss(net, step, index) * share(index)).backward()
                if (step, index) == RAISING:
                    raise KeyError("a bad record")
        except KeyError:
            pass

    return without_framework(rank, dealt_to=4, act=act)


def said(case: Callable) -> str:
    """What the comparison of ranks has to say."""
    try:
        case()
    except RanksDisagree as error:
        return str(error)
    return "nothing"


def disagreements(rank: int) -> list[Callable]:
    """Each is built otherwise on one of the ranks."""
    odd = rank == 2

    def reduced(every=1, ahead=0, **options):
        net = model()
        stats = MicrobatchStats(net.parameters(), every=every, moments=3)
        optimizer_of(net, **options).attach(stats)
        stats.continue_from(ahead)
        stats.all_reduce()

    return [
        lambda: reduced(every=3 if odd else 2, storage="int8"),
        lambda: reduced(storage="int8" if odd else "bfloat16"),
        lambda: reduced(correction="closed_form" if odd else "delta"),
        lambda: reduced(lr=torch.tensor(0.1000001 if odd else 0.1)),
        lambda: reduced(every=3, ahead=4 if odd else 3, storage="int8"),
        lambda: MatrixStats([torch.zeros(2, 3)], block_size=2 if odd else 3).all_reduce(),
    ]


def drifting(rank: int) -> None:
    """One rank's schedule moves on, later than the first comparison."""

    def act(net, stats, step, index):
        if (step, rank) == (3, 1):
            optimizer.param_groups[0]["lr"] *= 0.9
        observe(net, stats, step, index)

    net = model()
    optimizer, stats = optimizer_of(net), MicrobatchStats(net.parameters())
    optimizer.attach(stats)
    for step in range(STEPS):
        act(net, stats, step, rank)
        stats.all_reduce()
        stats.consume()


def drifting_shards(mesh: DeviceMesh) -> None:
    """The same under FSDP2."""
    run = Run(mesh)
    run.steps(range(2))
    if mesh.get_local_rank() == 1:
        run.optimizer.param_groups[0]["lr"] *= 0.9
    sharded_step(run.net, run.watched, run.optimizer, 2, mesh.get_local_rank(), mesh.size())
