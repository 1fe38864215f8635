"""FSDP2 as a source: every rank's own gradient, of the shards that this rank owns.

`fully_shard` reduces gradients during backward: what a rank finds in ``p.grad`` is the mean over
ranks already. Watching that (`MicrobatchStats.microbatch` does) is honest, with one observation
for each backward, however many ranks took part; N ranks with one backward each step give one
observation, and no variance.

A reduce-scatter brings to the owner of a shard the *sum* over ranks; an all-to-all of the same
buffer brings all N of the *terms*, and each rank sends the same (N−1)/N of it as a ring
reduce-scatter does. So the owner sums them itself, sees N observations, and nothing more is
communicated than without statistics (but for two numbers per rank and microbatch: its weight, and
a mark of the optimizer's options, which must be equal).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deltabias.microbatch.accumulator import Accumulator
from deltabias.microbatch.agreement import awaiting
from deltabias.microbatch.block import fitting_scale, peaks, usable
from deltabias.microbatch.layout import checked_weight, local
from deltabias.microbatch.stats import MicrobatchStats


class RankGradients:
    """Feeds a `MicrobatchStats` with the gradients of all ranks of a model under FSDP2.

    Each backward inside `microbatch` is one observation *per rank*. Gradients are reduced by this
    object from here on (`FSDPModule.set_custom_reduce_scatter`), in the blocks and outside: the
    sum over ranks in the order of the ranks, the same up to rounding.

    With ``model.set_requires_gradient_sync(False)`` FSDP2 adds up several backwards before it
    reduces; together they are then one observation per rank, with the sum of their weights.

    On a mesh with replicas (HSDP) each replica sees its own shard group; merge them by
    ``stats.all_reduce(mesh.get_group(replicate_dimension))`` before the step.

    Memory: one more buffer of the size of FSDP's reduce-scatter input, for one module at a time,
    and inside a block ``moments`` tensors of the size of each shard.

    Parameters
    ----------
    model
        after `torch.distributed.fsdp.fully_shard`
    stats
        of its parameters; every one of them a DTensor

    Raises
    ------
    TypeError
        No module of `model` is under FSDP2, or the statistics follow other parameters.

    Examples
    --------
    ::

        stats = MicrobatchStats(model.parameters())
        ranks = RankGradients(model, stats)
        optimizer.attach(stats)
        for batch in my_batches:
            with ranks.microbatch(weight=n_tokens):
                loss(batch).backward()
        optimizer.step()
    """

    def __init__(self, model: nn.Module, stats: MicrobatchStats) -> None:
        from torch.distributed.fsdp import FSDPModule

        if type(stats) is not MicrobatchStats:
            raise TypeError(
                f"RankGradients feeds a MicrobatchStats, got {type(stats).__name__}; a matrix "
                "preconditioner needs whole matrices, which no rank has under FSDP2"
            )
        modules = [m for m in model.modules() if isinstance(m, FSDPModule)]
        if not modules:
            raise TypeError(
                f"no module of {type(model).__name__} is under FSDP2; call fully_shard first, or "
                "use stats.microbatch() and stats.all_reduce() without it"
            )
        managed = {id(p) for module in modules for p in module.parameters()}
        for param in stats.params:
            if id(param) not in managed or not hasattr(param, "device_mesh"):
                raise TypeError(
                    f"a parameter of shape {tuple(param.shape)} is not managed by FSDP2; build "
                    "MicrobatchStats(model.parameters()) after fully_shard"
                )
        self._stats = stats
        self._group, self._device = _shard_group(stats.params[0])
        self._open: _Terms | None = None
        self._pending = 0.0
        self._rows: Tensor | None = None
        self._offset = 0
        for module in modules:
            module.set_custom_reduce_scatter(_ExchangeAndSum(self))
        self._hooks = [
            param.register_post_accumulate_grad_hook(self._collect)
            for param in stats.params
            if param.requires_grad
        ]

    @contextmanager
    def microbatch(self, weight: float = 1.0) -> Iterator[None]:
        """``with ranks.microbatch(weight=n_tokens): loss.backward()`` on every rank.

        `weight` is this rank's own. As in `MicrobatchStats.microbatch`, what a rank adds to the
        gradient is taken as proportional to w_r g_r. An exception in the block adds nothing to
        the statistics; ``p.grad`` is as FSDP2 left it.

        Raises
        ------
        RuntimeError
            A block inside a block.
        RanksDisagree, RankLost
            Other parameters or options on another rank; a rank that does not take part.
        """
        weight = checked_weight(weight)
        if self._open is not None:
            raise RuntimeError("microbatch() inside microbatch(): each counts its own backward")
        self._stats.check_ranks(self._group)
        if not self._stats.is_looking:
            with self._stats.microbatch(weight):  # counts it
                yield
            return
        with awaiting("the exchange of weights"):
            weights = self._gathered(self._pending + weight)
        self._open = _Terms(self._stats, weights)
        try:
            with awaiting("a forward or backward pass"):  # FSDP2's own collectives
                yield
            terms = self._open
        finally:
            self._open = None
        self._pending += weight
        if terms.seen:
            self._pending = 0.0
            self._stats.merge_streams(terms.streams)

    def _gathered(self, weight: float) -> list[float]:
        agreement = self._stats.agreement
        mine = torch.tensor([weight, agreement.mark()], dtype=torch.float64, device=self._device)
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(self._group))]
        dist.all_gather(everyone, mine, group=self._group)
        weights, marks = torch.stack(everyone).T.tolist()
        if len(set(marks)) > 1:
            agreement.explain(self._group)
        return weights

    def keep(self, rows: Tensor) -> None:
        """Every rank's part of what is about to be handed to the parameters, [N, elements]."""
        self._rows, self._offset = rows, 0

    def _collect(self, param: Tensor) -> None:
        """FSDP2 calls this for each parameter of the module just reduced, in the buffer's order."""
        if self._rows is None:  # one rank: nothing was reduced
            return
        size, start = _padded_size(param, len(self._rows)), self._offset
        self._offset += size
        if self._open is not None:
            shard = local(param)
            rows = self._rows[:, start : start + shard.numel()].unflatten(1, shard.shape)
            self._open.add(self._stats.position(param), rows)
        if self._offset == self._rows.shape[1]:
            self._rows = None


class _ExchangeAndSum:
    """FSDP2's reduce-scatter (`torch.distributed.fsdp` calls the protocol ``ReduceScatter``)."""

    def __init__(self, owner: RankGradients) -> None:
        self._owner = owner

    def allocate(self, size: tuple, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """As FSDP2's default."""
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: "dist.ProcessGroup",
        op: "dist.ReduceOp",
        async_op: bool = False,
    ) -> None:
        """Every rank's part to its owner, who sums."""
        known = {dist.ReduceOp.SUM: 1, dist.ReduceOp.AVG: group.size()}
        divisor = next((d for kind, d in known.items() if op == kind), None)
        if divisor is None or async_op:
            raise NotImplementedError(
                f"a reduction by {op} (async_op={async_op}) is not supported; leave FSDP2's "
                "gradient divide factor at its default"
            )
        received = torch.empty_like(input_tensor)
        with awaiting("the exchange of gradients"):
            dist.all_to_all_single(received, input_tensor, group=group)
        rows = received.view(group.size(), -1)
        torch.sum(rows, 0, out=output_tensor)
        output_tensor.div_(divisor)
        self._owner.keep(rows)


class _Terms:
    """The gradients of one block, one observation per rank, as streams to be merged."""

    def __init__(self, stats: MicrobatchStats, weights: list[float]) -> None:
        self._weights = weights
        self.streams = stats.empty_streams()
        self._dealt = _deal(stats.group_counts(), len(weights))
        for ranks, stream in zip(self._dealt, self.streams, strict=True):
            if ranks:
                mine = [weights[r] for r in ranks]
                stream.count_in(len(mine), sum(mine), sum(1 / w for w in mine))
        self.seen: set[int] = set()

    def add(self, i: int, rows: Tensor) -> None:
        """Parameter i's w_r g_r, [N, *shard]."""
        if i in self.seen:
            raise RuntimeError(
                "FSDP2 reduced a parameter twice in one microbatch() block; use a block for each "
                "backward"
            )
        self.seen.add(i)
        for ranks, stream in zip(self._dealt, self.streams, strict=True):
            if ranks:
                _fill(stream, i, rows[ranks], [self._weights[r] for r in ranks])


def _deal(counts: list[int], microbatches: int) -> list[list[int]]:
    """Which ranks go to which group: each to the one that has the fewest, as in `add`."""
    counts, dealt = list(counts), [[] for _ in counts]
    for rank in range(microbatches):
        group = counts.index(min(counts))
        counts[group] += 1
        dealt[group].append(rank)
    return dealt


@torch.no_grad()
def _fill(stream: Accumulator, i: int, rows: Tensor, weights: list[float]) -> None:
    """Mean and central moments of g_r = row_r / w_r, in two passes: nothing cancels."""
    stream.require([i])
    if not rows.numel():
        return
    dtype = stream.layout.dtypes[i]
    shares = torch.tensor(weights, dtype=dtype, device=rows.device)
    shares = shares.view(-1, *[1] * (rows.ndim - 1))
    x = rows.to(dtype) / shares
    peak = peaks([x])
    stream.finite = stream.finite & torch.isfinite(peak).all().to(stream.finite.device)
    scale = fitting_scale(torch.zeros_like(peak), peak)[0]
    x = x / usable(scale)
    shares = shares / sum(weights)
    stream.scale[i] = scale
    stream.mean[i] = (shares * x).sum(0)
    deviation = x - stream.mean[i]
    power = deviation
    for moments in stream.central.values():
        power = power * deviation
        moments[i] = (shares * power).sum(0)


def _shard_group(param: Tensor) -> tuple["dist.ProcessGroup", str]:
    """The ranks among which a parameter is sharded."""
    mesh = param.device_mesh
    dims = [k for k, placement in enumerate(param.placements) if placement.is_shard()]
    if len(dims) != 1:
        raise TypeError(
            f"a parameter with placements {param.placements} is not sharded over one dimension of "
            "its mesh; RankGradients supports FSDP2 with and without replicas, no tensor "
            "parallelism"
        )
    return mesh.get_group(dims[0]), mesh.device_type


def _padded_size(param: Tensor, ranks: int) -> int:
    """Elements that FSDP2's buffer has for each rank's shard of a parameter."""
    dim = next(p.dim for p in param.placements if p.is_shard())
    rows = param.shape[0]
    if dim or not rows:  # FSDP2 wants other dimensions to be divisible
        return param.numel() // ranks
    return -(-rows // ranks) * (param.numel() // rows)
