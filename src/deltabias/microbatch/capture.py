"""A backward pass as a source of gradients: what one microbatch adds to ``p.grad``."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

Gradients = list[Tensor | None]


@contextmanager
def own_gradients(params: Sequence[Tensor]) -> Iterator[Gradients]:
    """A list that holds, after the block, the gradients computed inside it.

    ``p.grad`` ends as if the block had stood alone. See `MicrobatchStats.microbatch` for when
    gradients are set aside and when they are taken from hooks.
    """
    grads: Gradients = [None] * len(params)
    hooked = {i for i, param in enumerate(params) if _reduced_in_place(param)}
    aside = [i for i in range(len(params)) if i not in hooked]
    with ExitStack() as stack:
        for i in hooked:
            if params[i].requires_grad:
                stack.enter_context(_hook(params[i], grads, i))
        stack.enter_context(_set_aside(params, grads, aside))
        yield grads


def _reduced_in_place(param: Tensor) -> bool:
    """Whether others may reduce ``param.grad`` during backward, so that it must stay in place.

    DistributedDataParallel averages over ranks what it finds in ``p.grad``, earlier microbatches
    under ``no_sync()`` included, and may keep it as a view of its own buffer.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return distributed and not hasattr(param, "to_local")


@contextmanager
def _hook(param: Tensor, grads: Gradients, i: int) -> Iterator[None]:
    """Collect what reaches the node that accumulates into ``param.grad``."""
    # The parameter holds this node by a weak reference only: without the variable it would die,
    # and the hook with it. torch.autograd.grad does not run the node, and is not counted.
    node = torch.autograd.graph.get_gradient_edge(param).node

    def collect(incoming: tuple[Tensor | None, ...]) -> None:
        (grad,) = incoming
        if grad is not None:
            # Holding the tensor itself, not an alias, keeps torch from making it param.grad.
            grads[i] = grad if grads[i] is None else grads[i] + grad

    handle = node.register_prehook(collect)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _set_aside(params: Sequence[Tensor], grads: Gradients, positions: list[int]) -> Iterator[None]:
    """Let the block start from no gradient at all; accumulate, or restore after an exception."""
    saved = {i: params[i].grad for i in positions}
    for i in positions:
        params[i].grad = None
    try:
        yield
    except BaseException:
        for i in positions:
            params[i].grad = saved[i]
        raise
    for i in positions:
        grads[i] = params[i].grad
        if saved[i] is not None:
            params[i].grad = saved[i]
    _accumulate([(saved[i], grads[i]) for i in positions])


@torch.no_grad()
def _accumulate(pairs: list[tuple[Tensor | None, Tensor | None]]) -> None:
    """The in-place additions that backward would have done."""
    pairs = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    plain = [p for p in pairs if all(type(t) is Tensor and t.layout == torch.strided for t in p)]
    if len(plain) == len(pairs) > 0:
        running, own = zip(*pairs, strict=True)
        torch._foreach_add_(running, own)  # one call for many small tensors
        return
    for running, own in pairs:
        running.add_(own)
