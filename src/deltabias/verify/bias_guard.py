"""What an update may not do: raise, answer in another shape, change its input, roll its own dice.

Nothing that is measured of such an update would mean anything, so it is looked for first, and on
every batch after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deltabias.verify.bias_source import Source

Array = np.ndarray

ROWS = 7
"""A number of replicates that is no number of microbatches anybody uses."""
SAME = 1e-9


class UnusableUpdate(ValueError):
    """The update cannot be judged; the text says why."""


@dataclass(frozen=True)
class Guarded:
    """``guarded(batch)``: a checked update, float64 [replicates, *out]."""

    function: Callable[[torch.Tensor], Any]
    out: tuple[int, ...] | None = None
    name: str = "the update"

    def __call__(self, batch: Array) -> Array:
        given = torch.from_numpy(np.ascontiguousarray(batch))
        try:
            answer = self.function(given)
        except Exception as error:
            raise UnusableUpdate(f"{self.name} raised {type(error).__name__} on a batch of shape "
                                 f"{list(batch.shape)}: {error}") from error  # fmt: skip
        return self._checked(answer, batch.shape)

    def _checked(self, answer: Any, shape: tuple[int, ...]) -> Array:
        if isinstance(answer, torch.Tensor):
            answer = answer.detach().cpu().to(torch.float64).numpy()
        try:
            values = np.asarray(answer, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UnusableUpdate(f"{self.name} returned a {type(answer).__name__}, which is no "
                                 "array of numbers; return a tensor.") from error  # fmt: skip
        if values.ndim == 0 or len(values) != shape[0]:
            raise UnusableUpdate(
                f"{self.name} returned shape {list(values.shape)} for {shape[0]} replicates; "
                "return one update per replicate."
            )
        if self.out is not None and values.shape[1:] != self.out:
            raise UnusableUpdate(
                f"{self.name} returned shape {list(values.shape)} for a batch of shape "
                f"{list(shape)}; one update per replicate of the target's shape is "
                f"{[shape[0], *self.out]}."
            )
        if bad := int(np.count_nonzero(~np.isfinite(values))):
            raise UnusableUpdate(f"{self.name} returned {bad} of {values.size} numbers that are "
                                 f"infinite or NaN, at {shape} gradients.")  # fmt: skip
        return values


def examine(
    guarded: Guarded, source: Source, sizes: tuple[int, ...], steps: int | None, seed: int
) -> bool:
    """Look at an update before it is measured; whether the order of microbatches is nothing to it.

    Raises
    ------
    UnusableUpdate
        naming what it did.
    """
    rng = np.random.default_rng([seed, 77])
    symmetric = True
    for size in sizes:
        batch = source.draw(rng, (ROWS, *([steps] if steps else []), size))
        symmetric &= _examine(guarded, batch, 2 if steps else 1, rng)
    return symmetric


def _examine(guarded: Guarded, batch: Array, axis: int, rng: np.random.Generator) -> bool:
    kept = batch.copy()
    state = torch.get_rng_state()
    first = guarded(batch)
    if not np.array_equal(batch, kept):
        raise UnusableUpdate(f"{guarded.name} changes the gradients that it is given; work on a "
                             "copy.")  # fmt: skip
    again = guarded(kept.copy())
    torch.set_rng_state(state)
    if not np.array_equal(first, again):
        raise UnusableUpdate(
            f"{guarded.name} gave two answers for one batch, {np.abs(first - again).max():.3g} "
            "apart: it keeps a state between calls, or draws random numbers of its own."
        )
    few = guarded(kept[:3].copy())
    if not _close(few, first[:3]):
        raise UnusableUpdate(
            f"{guarded.name} answers for a replicate depending on the others in the batch; each "
            "row is a batch of its own."
        )
    return _close(guarded(_shuffled(kept, axis, rng)), first)


def _shuffled(batch: Array, axis: int, rng: np.random.Generator) -> Array:
    return np.take(batch, rng.permutation(batch.shape[axis]), axis=axis)


def _close(first: Array, second: Array) -> bool:
    size = max(np.abs(second).max(), 1e-300)
    return bool(np.abs(first - second).max() <= SAME * size)


def collapsed(function: Callable[[torch.Tensor], Any], axis: int) -> Callable[[torch.Tensor], Any]:
    """The update of batches whose microbatches have all been replaced by their mean.

    They have no spread, so what corrects for spread is zero: for a map of the mean gradient this
    is the uncorrected update.
    """

    def plug_in(batch: torch.Tensor) -> Any:
        mean = batch.mean(dim=axis, keepdim=True)
        return function(mean.expand_as(batch).contiguous())

    return plug_in
