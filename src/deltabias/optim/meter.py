"""The validity meter: how much is corrected, and whether the expansion is to be trusted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltabias.optim.stepping import parameters_of


@dataclass(frozen=True)
class Validity:
    """What the correction did, readable after each step.

    Attributes
    ----------
    inversion, worst_inversion : float
        mean and largest relative size of the inversion term; the expansion is in powers of it,
        so well below one is good and 0.1 leaves about 0.01
    coupling : float
        root mean square of what is added to the average gradient, in units of its root mean
        square size
    outside : float
        share of the elements whose inversion term exceeds 0.3: there the expansion says little
    effective_steps : float
        how many steps the preconditioner's average amounts to
    steps, corrected, uncorrected, skipped : int
        steps taken, of which corrected, of which not for want of statistics, and steps not
        taken because a gradient was not finite
    misaligned : int
        parameters, summed over steps, whose gradient was not a multiple of its microbatches'
        mean (clipped elementwise, or stale statistics) and was therefore not used for estimates
    """

    inversion: float
    worst_inversion: float
    coupling: float
    outside: float
    effective_steps: float
    steps: int
    corrected: int
    uncorrected: int
    skipped: int
    misaligned: int


OUTSIDE = 0.3


def summarize(pairs: list[tuple[Tensor, Tensor]]) -> tuple[float, float, float, float]:
    """Mean, largest and share outside of inversion, root mean square of coupling."""
    pairs = [(i.float().flatten(), c.float().flatten()) for i, c in pairs if i.numel()]
    if not pairs:
        return 0.0, 0.0, 0.0, 0.0
    inversion = torch.cat([i for i, _ in pairs])
    coupling = torch.cat([c for _, c in pairs])
    return (
        float(inversion.mean()),
        float(inversion.max()),
        float(coupling.square().mean().sqrt()),
        float((inversion > OUTSIDE).float().mean()),
    )


def read_meter(function: Callable[..., Any], values: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """A generated meter's inversion and coupling; a coupling that is nowhere is zero."""
    arguments = parameters_of(function)
    inversion, coupling = function(
        *(values[n] for n, p in arguments.items() if p.kind is not p.KEYWORD_ONLY),
        **{n: values[n] for n, p in arguments.items() if p.kind is p.KEYWORD_ONLY},
    )
    return inversion, torch.as_tensor(coupling, dtype=inversion.dtype).expand_as(inversion)
