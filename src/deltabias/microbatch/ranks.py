"""Other processes as a source: one stream's statistics, merged over all ranks."""

import torch
import torch.distributed as dist
from torch import Tensor

from deltabias.microbatch.accumulator import Accumulator
from deltabias.microbatch.block import Block


def check_initialized() -> None:
    """Raise unless there are ranks to speak to."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "all_reduce needs torch.distributed; call torch.distributed.init_process_group first, "
            "or leave it out in a single process"
        )


@torch.no_grad()
def all_reduce(acc: Accumulator, group: "dist.ProcessGroup | None") -> None:
    """Merge `acc` over the ranks of `group`, in place.

    Only sums and maxima are communicated, and every sum is of terms about the common mean: first
    the counts, then Σ (W_r/W) ḡ_r, then Σ (W_r/W) c_k about it. All ranks receive the same sums,
    so their copies agree as far as the backend's do.
    """
    share, live = _reduce_counts(acc, group)
    acc.make_own()
    acc.require(live)
    _reduce_flags_and_scales(acc, live, group)
    for positions in acc.live_buckets():
        block = acc.block(positions)
        _reduce_block(block, share, group)
        acc.keep_scale(positions, block)


def _reduce_counts(acc: Accumulator, group: "dist.ProcessGroup | None") -> tuple[float, list[int]]:
    """This rank's share of the weight, and which parameters had a gradient on any rank."""
    alive = [float(mean is not None) for mean in acc.mean]
    numbers = torch.tensor(
        [acc.count, acc.weight, acc.inverse_weight, *alive],
        dtype=torch.float64,
        device=acc.layout.device,
    )
    dist.all_reduce(numbers, group=group)
    count, weight, inverse_weight, *alive = numbers.tolist()  # the one wait for the device
    share = acc.weight / weight if weight else 0.0
    acc.count, acc.weight, acc.inverse_weight = int(count), weight, inverse_weight
    return share, [i for i, ranks in enumerate(alive) if ranks]


def _reduce_flags_and_scales(
    acc: Accumulator, live: list[int], group: "dist.ProcessGroup | None"
) -> None:
    """One maximum over (not finite, scale of each tensor)."""
    device = acc.layout.device
    local = [~acc.finite, *(acc.scale[i] for i in live)]
    numbers = torch.stack([t.to(device, torch.float64) for t in local])
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=group)
    acc.finite = numbers[0] == 0
    common = dict(zip(live, numbers[1:].unbind(), strict=True))
    for positions in acc.live_buckets():
        block = acc.block(positions)
        block.rescale(torch.stack([common[i] for i in positions]).to(block.scale))
        acc.keep_scale(positions, block)


def _reduce_block(block: Block, share: float, group: "dist.ProcessGroup | None") -> None:
    mean = _sum_over_ranks(torch._foreach_mul(block.mean, share), group)
    block.recenter(torch._foreach_sub(block.mean, mean))
    block.average(share)
    torch._foreach_copy_(block.mean, mean)
    for moments in block.central.values():
        torch._foreach_copy_(moments, _sum_over_ranks(moments, group))


def _sum_over_ranks(tensors: list[Tensor], group: "dist.ProcessGroup | None") -> list[Tensor]:
    """One collective for the whole list."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat, group=group)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
