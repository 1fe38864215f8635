"""Everything that four ranks do for the tests, in one spawn: each case returns what it saw.

Two of the ranks are also a group of their own, so that runs on two and on four ranks, and
checkpoints from the one to the other, need no second spawn.
"""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.distributed.training import (
    MICROBATCHES,
    STEPS,
    TOKENS,
    loss,
    model,
    optimizer_of,
    replicated_step,
    sharded_step,
    share,
    snapshot,
)
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from deltabias.microbatch import MicrobatchStats, RankGradients, RanksDisagree
from deltabias.optim import AdamW, Muon, Shampoo

FIRST = range(2)  # steps before a checkpoint
LATER = range(2, 4)


def main(rank: int, ranks: int, folder: Path) -> None:
    """The ranks' entry."""
    halves = [DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [2, 3])]
    meshes = {2: halves[rank // 2], 4: DeviceMesh("cpu", list(range(4)))}
    replicas = DeviceMesh("cpu", [[0, 1], [2, 3]], mesh_dim_names=("replica", "shard"))
    out: dict = {}
    for n, mesh in meshes.items():
        out["ddp", n] = replicated(mesh)
        out["ddp from grad", n] = replicated(mesh, from_grad=True)
        out["fsdp", n] = sharded(mesh)
    out["ddp static"] = replicated(meshes[4], from_grad=True, static_graph=True)
    out["cross fit"] = sharded(meshes[4], groups=2, correction="cross_fit+delta")
    out["hsdp"] = sharded(replicas)
    out["unsynchronized"] = unsynchronized(meshes[2])
    out["reduced only"] = reduced_only(meshes[2])
    out["wrong gradient"] = wrong_gradient(meshes[2])
    out["disagree"] = disagree(rank)
    out["nan in one shard"] = nan_in_one_shard(meshes[4])
    out["checkpoints"] = checkpoints(rank, meshes, folder)
    for solver in ("eigh", "iteration"):
        out["shampoo", solver] = shampoo(meshes[4], solver)
    out["singular"] = singular(rank)
    out["no gradient"] = no_gradient()
    out["whole matrices"] = whole_matrices(meshes[4])
    out["every second step"] = every_second_step(meshes[2])
    torch.save(out, folder / f"rank{rank}.pt")


def replicated(mesh: DeviceMesh, from_grad: bool = False, static_graph: bool = False) -> dict:
    """DistributedDataParallel on the ranks of a mesh, and what statistics it had."""
    net, group = model(), mesh.get_group()
    wrapped = nn.parallel.DistributedDataParallel(
        net, process_group=group, gradient_as_bucket_view=True, static_graph=static_graph
    )
    optimizer, stats = optimizer_of(net), MicrobatchStats(net.parameters())
    optimizer.attach(stats)
    for step in range(STEPS):
        replicated_step(
            wrapped, stats, optimizer, step, mesh.get_local_rank(), mesh.size(), group,
            from_grad=from_grad,
        )  # fmt: skip
    return {**snapshot(net, optimizer), "validity": optimizer.validity()}


def shard(mesh: DeviceMesh) -> nn.Module:
    """The model under FSDP2, layer by layer."""
    net = model()
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


def sharded(mesh: DeviceMesh, groups: int = 1, **options) -> dict:
    """FSDP2, each rank's gradients observed; with replicas merged over them."""
    net = shard(mesh)
    optimizer = optimizer_of(net, **options)
    stats = MicrobatchStats(net.parameters(), groups=groups)
    watched = RankGradients(net, stats)
    optimizer.attach(stats)
    two_dimensional = mesh.ndim == 2
    ranks = mesh.size()
    rank = mesh.get_rank()
    for step in range(STEPS):
        if two_dimensional:
            for index in range(rank, MICROBATCHES, ranks):
                with watched.microbatch(weight=TOKENS[index]):
                    (loss(net, step, index) * share(index) * ranks).backward()
            stats.all_reduce(mesh.get_group("replica"))
            optimizer.step()
            optimizer.zero_grad()
        else:
            sharded_step(net, watched, optimizer, step, mesh.get_local_rank(), ranks)
    local = {name: tuple(p.to_local().shape) for name, p in net.named_parameters()}
    states = {type(v).__name__ for p in net.parameters() for k, v in optimizer.state[p].items()
              if k != "step"}  # fmt: skip
    return {
        **snapshot(net, optimizer),
        "validity": optimizer.validity(),
        "local shapes": local,
        "states are": states,
    }


def every_second_step(mesh: DeviceMesh) -> tuple[list[bool], list[int]]:
    """Statistics of every second step only: whether each step looked, and what it counted."""
    net = shard(mesh)
    stats = MicrobatchStats(net.parameters(), every=2)
    watched = RankGradients(net, stats)
    looked, counts = [], []
    for step in range(3):
        for index in range(2):
            with watched.microbatch(weight=TOKENS[index]):
                loss(net, step, index).backward()
        taken = stats.consume()
        looked.append(taken.observed)
        counts.append(taken.count)
        net.zero_grad()
    return looked, counts


def no_gradient() -> list[str]:
    """``from_grad`` with groups, and after the gradients were set to None."""
    param = nn.Parameter(torch.zeros(2))
    stats = MicrobatchStats([param])
    stats.add([torch.ones(2)])
    try:
        MicrobatchStats([param], groups=2).all_reduce(from_grad=True)
    except ValueError as error:
        said = [str(error)]
    try:
        stats.all_reduce(from_grad=True)
    except RuntimeError as error:
        said.append(str(error))
    return said


def whole_matrices(mesh: DeviceMesh) -> list[str]:
    """What optimizers of matrices say of shards."""
    said = []
    for kind in (Shampoo, Muon):
        try:
            kind([shard(mesh)[0].weight])
            said.append("nothing")
        except NotImplementedError as error:
            said.append(str(error))
    return said


def unsynchronized(mesh: DeviceMesh) -> dict:
    """FSDP2 that reduces once for two backwards: one observation for each rank."""
    net = shard(mesh)
    stats = MicrobatchStats(net.parameters())
    watched = RankGradients(net, stats)
    rank, ranks = mesh.get_local_rank(), mesh.size()
    mine = range(rank, MICROBATCHES, ranks)
    for index in mine:
        net.set_requires_gradient_sync(index == mine[-1])
        with watched.microbatch(weight=TOKENS[index]):
            (loss(net, 0, index) * share(index) * ranks).backward()
    return _moments(net, stats)


def reduced_only(mesh: DeviceMesh) -> dict:
    """FSDP2 watched by `MicrobatchStats` alone: each reduced gradient is one observation."""
    net = shard(mesh)
    stats = MicrobatchStats(net.parameters())
    rank, ranks = mesh.get_local_rank(), mesh.size()
    for index in range(rank, MICROBATCHES, ranks):
        with stats.microbatch():
            loss(net, 0, index).backward()
    return _moments(net, stats)


def _moments(net: nn.Module, stats: MicrobatchStats) -> dict:
    """This rank's shards of the statistics, in the scale of the reduced gradients."""
    step = stats.consume()
    scaled = {n: step[p].scaled_to(p.grad) for n, p in net.named_parameters()}
    return {
        "count": step.count,
        "var": {n: moments.var_of_mean() for n, (moments, _) in scaled.items()},
        "aligned": all(bool(aligned) for _, aligned in scaled.values()),
    }


def wrong_gradient(mesh: DeviceMesh) -> tuple:
    """A gradient that is not the mean of the microbatches, with ``from_grad``."""
    net, group = model(), mesh.get_group()
    optimizer, stats = optimizer_of(net), MicrobatchStats(net.parameters())
    optimizer.attach(stats)
    index = mesh.get_local_rank()
    with stats.microbatch():
        loss(net, 0, index).backward()
    for param in net.parameters():
        dist.all_reduce(param.grad, group=group)
    net[0].weight.grad.clamp_(-1e-3, 1e-3)  # clipped by value: no multiple of the mean
    stats.all_reduce(group, from_grad=True)
    optimizer.step()
    finite = all(bool(p.isfinite().all()) for p in net.parameters())
    return optimizer.validity().misaligned, finite


def disagree(rank: int) -> list[str]:
    """What every rank is told where one of them differs."""
    shapes = [(3, 2), (2, 3) if rank == 2 else (3, 2)]
    builders = [
        lambda: MicrobatchStats([torch.zeros(s) for s in shapes]),
        lambda: MicrobatchStats([torch.zeros(2)] + [torch.ones(2)] * (rank == 3)),
        lambda: MicrobatchStats([torch.zeros(2)], moments=3 if rank else 4),
        lambda: MicrobatchStats([torch.zeros(2)], groups=2 if rank == 1 else 1),
        lambda: _attached(0.9 if rank < 3 else 0.8),
    ]
    said = []
    for build in builders:
        try:
            build().all_reduce()
            said.append("nothing")
        except RanksDisagree as error:
            said.append(str(error))
    try:
        Shampoo([nn.Parameter(torch.eye(2))], damping=1e-3 * (1 + rank)).share_roots()
    except RanksDisagree as error:
        said.append(str(error))
    return said


def _attached(beta: float) -> MicrobatchStats:
    param = nn.Parameter(torch.zeros(2))
    stats = MicrobatchStats([param])
    AdamW([param], betas=(0.9, beta)).attach(stats)
    return stats


def nan_in_one_shard(mesh: DeviceMesh) -> tuple[str, bool]:
    """One rank's shard is not finite: no rank steps."""
    net = shard(mesh)
    optimizer = optimizer_of(net, correction="none")
    loss(net, 0, 0).backward()
    before = [p.to_local().clone() for p in net.parameters()]
    if mesh.get_local_rank() == 1:
        net[0].weight.grad.to_local()[0, 0] = float("nan")
    try:
        optimizer.step()
        said = "nothing"
    except FloatingPointError as error:
        said = str(error)
    same = [torch.equal(b, p.to_local()) for b, p in zip(before, net.parameters(), strict=True)]
    return said, all(same)


def checkpoints(rank: int, meshes: dict[int, DeviceMesh], folder: Path) -> dict:
    """Saved on two and on four ranks, resumed on the other number; what each ends with."""
    out = {}
    for n, mesh in meshes.items():
        if n == 4 or rank < 2:
            run = Run(mesh)
            run.steps(FIRST)
            run.save(folder / f"from{n}")
            run.steps(LATER)
            out["straight on", n] = run.snapshot()
    dist.barrier()
    for saved, resumed in ((2, 4), (4, 2)):
        if resumed == 4 or rank < 2:
            run = Run(meshes[resumed])
            run.load(folder / f"from{saved}")
            out["loaded", saved, resumed] = run.snapshot()
            run.steps(LATER)
            out["resumed", saved, resumed] = run.snapshot()
    dist.barrier()
    return out


class Run:
    """FSDP2 with AdamW on a mesh."""

    def __init__(self, mesh: DeviceMesh, *, every: int = 1, **options) -> None:
        self.mesh, self.net = mesh, shard(mesh)
        self.optimizer = optimizer_of(self.net, **options)
        self.stats = MicrobatchStats(self.net.parameters(), every=every)
        self.watched = RankGradients(self.net, self.stats)
        self.optimizer.attach(self.stats)

    def steps(self, steps: range) -> None:
        for step in steps:
            sharded_step(
                self.net, self.watched, self.optimizer, step,
                self.mesh.get_local_rank(), self.mesh.size(),
            )  # fmt: skip

    def save(self, path: Path) -> None:
        weights, states = get_state_dict(self.net, self.optimizer)
        dcp.save(
            {"model": weights, "optimizer": states}, checkpoint_id=path,
            process_group=self.mesh.get_group(),
        )  # fmt: skip

    def load(self, path: Path) -> None:
        weights, states = get_state_dict(self.net, self.optimizer)
        both = {"model": weights, "optimizer": states}
        dcp.load(both, checkpoint_id=path, process_group=self.mesh.get_group())
        set_state_dict(
            self.net, self.optimizer,
            model_state_dict=both["model"], optim_state_dict=both["optimizer"],
        )  # fmt: skip

    def snapshot(self) -> dict:
        return snapshot(self.net, self.optimizer)


def matrices() -> nn.Module:
    """Layers of several sizes, in blocks of at most 8."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3)).double()


def shampoo_options(solver: str) -> dict:
    correction = "full" if solver == "eigh" else "plug_in"
    return {"lr": 0.1, "damping": 1e-4, "block_size": 8, "solver": solver, "correction": correction}


def shampoo_steps(net: nn.Module, optimizer: Shampoo) -> dict:
    """Three steps on the same data everywhere."""
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, 12, generator=generator, dtype=torch.float64)
        net(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return snapshot(net, optimizer)


def shampoo(mesh: DeviceMesh, solver: str) -> dict:
    """Inverse roots shared by ranks, and how many matrices this rank solved."""
    net = matrices()
    optimizer = Shampoo(net.parameters(), **shampoo_options(solver))
    optimizer.share_roots(mesh.get_group())
    return shampoo_steps(net, optimizer)


def singular(rank: int) -> str:
    """A deficient factor without damping: refused on every rank, whoever found it."""
    net = matrices()
    optimizer = Shampoo(net.parameters(), **{**shampoo_options("eigh"), "damping": 0.0})
    optimizer.share_roots()
    try:
        shampoo_steps(net, optimizer)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
