"""An optimizer with state as an update that `check_bias` takes: a history in, its last step out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import MicrobatchStats


@dataclass(frozen=True)
class OptimizerUpdate:
    """See `optimizer_update`."""

    make: Callable[[list[Tensor]], torch.optim.Optimizer]
    steps: int
    warm: Any = None
    stats: Callable[[list[Tensor]], Any] | None = field(default=None, repr=False)

    def __call__(self, gradients: Tensor) -> Tensor:
        replicates, dims = gradients.shape[0], gradients.shape[3:]
        # elementwise rules take all replicates as one tensor; matrices are a parameter each
        shapes = [dims] * replicates if dims else [(replicates,)]
        params = [torch.nn.Parameter(torch.zeros(s, dtype=gradients.dtype)) for s in shapes]
        optimizer = self.make(params)
        _check_decay(optimizer)
        stats = self._attached(optimizer, params)
        for batch in self._history(gradients):
            before = [p.detach().clone() for p in params]
            self._step(optimizer, stats, params, batch)
        lr = float(optimizer.param_groups[0]["lr"])
        moved = [(b - p.detach()) / lr for b, p in zip(before, params, strict=True)]
        return torch.stack(moved) if dims else moved[0]

    def _attached(self, optimizer: Any, params: list[Tensor]) -> Any:
        if not hasattr(optimizer, "attach"):
            return None
        stats = (self.stats or MicrobatchStats)(params)
        optimizer.attach(stats)
        return stats

    def _history(self, gradients: Tensor):
        """Batches [m, replicates, *dims], the oldest first."""
        for batch in () if self.warm is None else torch.as_tensor(self.warm, dtype=torch.float64):
            shape = (len(batch), len(gradients), *gradients.shape[3:])
            yield batch.reshape(len(batch), 1, *batch.shape[1:]).expand(shape)
        for step in range(self.steps):
            yield gradients[:, step].transpose(0, 1)

    def _step(self, optimizer, stats, params: Sequence[Tensor], batch: Tensor) -> None:
        def split(grad: Tensor) -> list[Tensor]:
            return [grad] if len(params) == 1 and grad.ndim == 1 else list(grad)

        if stats is not None:
            for grad in batch:
                stats.add(split(grad))
        for param, grad in zip(params, split(batch.mean(dim=0)), strict=True):
            param.grad = grad.clone()
        optimizer.step()


def optimizer_update(
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    *,
    steps: int = 1,
    warm: Any = None,
    stats: Callable[[list[Tensor]], Any] | None = None,
) -> OptimizerUpdate:
    """The last step's update of a torch optimizer, over −lr, as a map of its whole history.

    Parameters
    ----------
    make : params -> optimizer
        called for each batch of replicates with float64 parameters that start at zero; without
        weight decay, which is no part of the update's direction.
    steps : random steps; the last one's update is what is judged
        With all of them random and no history before, the claim is over the trajectory (cold).
    warm : gradients [steps before, microbatches, *dims], or None
        a fixed history before the random steps, the same in every replicate: the claim is then
        given that history.
    stats : params -> statistics with ``add``
        for optimizers that have ``attach``; `MicrobatchStats` by default.

    Returns
    -------
    update : float64 [replicates, steps, microbatches, *dims] -> [replicates, *dims]
        with the attributes ``steps`` and ``warm`` that `check_bias` reads.

    Raises
    ------
    ValueError
        for a number of steps below 1; in the update, for an optimizer with weight decay.

    Examples
    --------
    >>> update = optimizer_update(lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.5), steps=2)
    >>> update(torch.ones(3, 2, 4, dtype=torch.float64)).tolist()
    [1.5, 1.5, 1.5]
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r} must be an int of at least 1.")
    if warm is not None and torch.as_tensor(warm).ndim < 2:
        raise ValueError(f"warm has shape {tuple(torch.as_tensor(warm).shape)}; pass "
                         "[steps, microbatches].")  # fmt: skip
    return OptimizerUpdate(make, steps, warm, stats)


def _check_decay(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        if group.get("weight_decay"):
            raise ValueError(f"weight_decay={group['weight_decay']} is no part of the update's "
                             "direction; pass weight_decay=0.")  # fmt: skip
