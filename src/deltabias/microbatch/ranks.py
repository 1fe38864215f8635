r"""Other processes as a source: one stream's statistics, merged over all ranks.

With :math:`\bar g_r` the mean of rank r, :math:`W_r` its weight and :math:`W = \sum_r W_r`,

.. math:: \bar g = \sum_r \frac{W_r}{W} \bar g_r, \qquad
          c_2 = \sum_r \frac{W_r}{W} \left(c_2^{(r)} + (\bar g_r - \bar g)^2\right)

and likewise for c₃ and c₄ (see `block`): every rank's moments are taken about the *common* mean
before anything is summed, so nothing cancels. That takes two rounds, one for ḡ and one for the
moments. Where the optimizer's gradient was reduced already (DistributedDataParallel), it is ḡ up
to a factor, and the factor follows from one inner product for each parameter: one round is left.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from deltabias.microbatch.accumulator import Accumulator
from deltabias.microbatch.agreement import MARK_BITS, Agreement, awaiting, is_distributed
from deltabias.microbatch.block import Block, usable
from deltabias.microbatch.layout import local

Group = "dist.ProcessGroup | None"

TOLERANCE = 1e-2
"""What of a reduced gradient need not be the mean of the ranks'; as `Moments.scaled_to`."""


def check_initialized() -> None:
    """Raise unless there are ranks to speak to."""
    if not is_distributed():
        raise RuntimeError(
            "all_reduce needs torch.distributed; call torch.distributed.init_process_group first, "
            "or leave it out in a single process"
        )


def check_call(groups: int, *, from_grad: bool) -> None:
    """Raise for a merge that cannot be."""
    check_initialized()
    if from_grad and groups > 1:
        raise ValueError(
            f"from_grad=True with {groups=}: the gradient is the mean of all groups, not of each; "
            "leave from_grad out"
        )


@torch.no_grad()
def all_reduce(
    acc: Accumulator,
    group: Group,
    *,
    from_grad: bool = False,
    agreement: Agreement | None = None,
) -> None:
    """Merge `acc` over the ranks of `group`, in place.

    All ranks receive the same sums, so their copies agree as far as the backend's do. With
    `from_grad` the direction of each common mean is ``param.grad``, which must be the same on all
    ranks: the means are not communicated. A parameter whose ``grad`` turns out not to be the mean
    gets NaN for a mean, which no gradient is aligned with. What `agreement` follows is compared
    with the counts, in the same collective.

    Raises `RankLost` where a rank does not answer, and `RanksDisagree`; the sums are of no use
    then.
    """
    if from_grad:
        _check_grads(acc)
    with awaiting("the merge of microbatch statistics"):
        share, live, products = _reduce_counts(acc, group, from_grad, agreement)
        acc.make_own()
        acc.require(live)
        _reduce_flags_and_scales(acc, live, group)
        buckets = [(positions, acc.block(positions)) for positions in acc.live_buckets()]
        # every bucket's collective is under way before the first is waited for
        if from_grad:
            means = [[_mean_from_grad(acc, i, products[i]) for i in p] for p, _ in buckets]
        else:
            sums = [_Sum(torch._foreach_mul(block.mean, share), group) for _, block in buckets]
            means = [sum_over_ranks.result() for sum_over_ranks in sums]
        moments = [
            _sum_moments(block, mean, share, group, checked=from_grad)
            for (_, block), mean in zip(buckets, means, strict=True)
        ]
        for (positions, block), sum_over_ranks in zip(buckets, moments, strict=True):
            _keep_moments(block, sum_over_ranks.result())
            acc.keep_scale(positions, block)


def _reduce_counts(
    acc: Accumulator, group: Group, from_grad: bool, agreement: Agreement | None
) -> tuple[float, list[int], dict[int, float]]:
    """This rank's share of the weight, which parameters had a gradient on any rank, W <ḡ, grad>."""
    mark = agreement.mark() if agreement else 0
    bits = [float(mark >> k & 1) for k in range(MARK_BITS)]  # every sum is 0 or N if ranks agree
    alive = [float(mean is not None) for mean in acc.mean]
    products = [_product(acc, i) for i in range(len(alive))] if from_grad else []
    device = acc.layout.device
    plain = [*bits, acc.count, acc.weight, acc.inverse_weight, *alive]
    numbers = torch.tensor(plain, dtype=torch.float64, device=device)
    if products:
        numbers = torch.cat([numbers, torch.stack([p.to(device) for p in products])])
    dist.all_reduce(numbers, group=group)
    rest = numbers.tolist()  # the one wait for the device
    if agreement and not {0, dist.get_world_size(group)}.issuperset(rest[:MARK_BITS]):
        agreement.explain(group)
    count, weight, inverse_weight, *rest = rest[MARK_BITS:]
    share = acc.weight / weight if weight else 0.0
    acc.count, acc.weight, acc.inverse_weight = int(count), weight, inverse_weight
    live = [i for i, ranks in enumerate(rest[: len(alive)]) if ranks]
    means = {i: product / weight for i, product in enumerate(rest[len(alive) :]) if weight}
    return share, live, means


def _check_grads(acc: Accumulator) -> None:
    """Raise for statistics without a gradient, before any collective."""
    for i, param in enumerate(acc.layout.params):
        if acc.mean[i] is not None and param.grad is None:
            raise RuntimeError(
                f"parameter {i} of shape {tuple(param.shape)} has statistics and no grad; "
                "from_grad=True needs the gradients that DistributedDataParallel reduced, so "
                "call it before zero_grad()"
            )


def _unit_grad(acc: Accumulator, i: int) -> Tensor:
    """``param.grad`` in units of its largest element, lest the squares of tiny ones vanish.

    Zero where only other ranks have one: then it is not the reduced gradient, and will not fit.
    """
    grad = acc.layout.params[i].grad
    if grad is None:
        return acc.layout.zeros(i)
    grad = local(grad).to(acc.layout.dtypes[i])
    peak = grad.abs().amax() if grad.numel() else grad.new_zeros(())
    return grad / torch.where(peak > 0, peak, 1.0)


def _product(acc: Accumulator, i: int) -> Tensor:
    """W_r <ḡ_r, grad>, fp64, 0-d; 0 where this rank has no gradient."""
    if acc.mean[i] is None or not acc.mean[i].numel():
        return torch.zeros((), dtype=torch.float64, device=local(acc.layout.params[i]).device)
    dot = (acc.mean[i] * _unit_grad(acc, i)).sum(dtype=torch.float64)
    return dot * usable(acc.scale[i]).double() * acc.weight


def _mean_from_grad(acc: Accumulator, i: int, product: float) -> Tensor:
    """ḡ in units of the common scale: the multiple of the gradient that <ḡ, grad> belongs to."""
    grad = _unit_grad(acc, i)
    square = grad.square().sum(dtype=torch.float64)
    slope = product / torch.where(square > 0, square, 1.0)
    return grad * (slope / usable(acc.scale[i]).double()).to(grad.dtype)


def _reduce_flags_and_scales(acc: Accumulator, live: list[int], group: Group) -> None:
    """One maximum over (not finite, scale of each tensor)."""
    device = acc.layout.device
    flags = [~acc.finite, *(acc.scale[i] for i in live)]
    numbers = torch.stack([t.to(device, torch.float64) for t in flags])
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=group)
    acc.finite = numbers[0] == 0
    common = dict(zip(live, numbers[1:].unbind(), strict=True))
    for positions in acc.live_buckets():
        block = acc.block(positions)
        block.rescale(torch.stack([common[i] for i in positions]).to(block.scale))
        acc.keep_scale(positions, block)


class _Sum:
    """Tensors being summed over ranks, in one collective for the whole list."""

    def __init__(self, tensors: list[Tensor], group: Group) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._work = dist.all_reduce(self._flat, group=group, async_op=True)

    def result(self) -> list[Tensor]:
        """Wait for it."""
        self._work.wait()
        parts = self._flat.split([shape.numel() for shape in self._shapes])
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]


def _sum_moments(
    block: Block, means: list[Tensor], share: float, group: Group, *, checked: bool
) -> _Sum:
    """Start Σ (W_r/W) c_k about the common mean, all k together.

    Where the means are not known from a sum, two sums of (W_r/W) (ḡ_r − ḡ) go along, which must
    vanish.
    """
    apart = torch._foreach_sub(block.mean, means)
    block.recenter(apart)
    block.average(share)
    torch._foreach_copy_(block.mean, means)
    checks = [_two_sums(tensor) * share for tensor in apart] if checked else []
    return _Sum([*(c for tensors in block.central.values() for c in tensors), *checks], group)


def _keep_moments(block: Block, sums: list[Tensor]) -> None:
    for tensors in block.central.values():
        torch._foreach_copy_(tensors, sums[: len(tensors)])
        sums = sums[len(tensors) :]
    for mean, check in zip(block.mean, sums, strict=False):  # none without checks
        misfit = ~(check.abs().amax() <= TOLERANCE * torch.linalg.vector_norm(mean))
        mean.masked_fill_(misfit, float("nan"))


def _two_sums(tensor: Tensor) -> Tensor:
    """Σ x_i and Σ ±x_i: one of them sees a difference that the other cannot."""
    flat = tensor.reshape(-1)
    return torch.stack([flat.sum(), flat[::2].sum() - flat[1::2].sum()])
