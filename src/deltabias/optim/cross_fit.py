"""The published correction, within a step: two groups of microbatches, crossed.

The numerator of each fold is averaged from one group's gradients, its preconditioner from the
other's, and the two folds' updates are averaged. Both averages are kept twice. With ``+delta``
the inversion's leading term, estimated from the spread within the preconditioner's group, is
divided out of each fold; expanding in the *second moment*, not in its root.

Source: Nayak et al., arXiv 2605.20756, sections on cross-fitted preconditioning and
variance-corrected inversion.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import Moments, StepMoments
from deltabias.microbatch.layout import local

SECOND_FOLD = "_second"
CROSS_FITTED = ("cross_fit", "cross_fit+delta")


def fold_names(states: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the second fold's states."""
    return tuple(name + SECOND_FOLD for name in states)


def group_gradients(
    moments: StepMoments | None, param: Tensor, grad: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Moments | None, Moments | None], Tensor]:
    """Both groups' gradients in the scale of `grad`, their records, and that scale (0: none).

    Without statistics both are the gradient itself, and so they are where the statistics do not
    belong to the gradient.
    """
    record = None if moments is None else moments[param]
    if record is None or len(record.groups) != 2:
        return (grad, grad), (None, None), grad.new_ones(())
    scaled, aligned = record.scaled_to(grad)
    factor = torch.where(aligned, scaled.scale / record.scale, torch.zeros_like(scaled.scale))
    first, second = (
        torch.where(aligned, mean * factor, grad.to(mean.dtype)).to(grad.dtype)
        for mean in record.group_means
    )
    return (first, second), tuple(record.groups), factor


def relative_square_variance(
    group: Moments | None, mean: Tensor, factor: Tensor, square: Tensor
) -> Tensor:
    """Estimate of Var(ḡ²)/v² for a group's mean gradient, unbiased for normal gradients.

    Var ḡ² = 4μ²ν + 2ν², estimated by 4 ḡ² ν̂ - 2 ν̂² (m-1)/(m+1), E ν̂² = ν² (m+1)/(m-1); each
    factor is divided by v before they meet, so that nothing underflows.
    """
    if group is None or group.count < 2:
        return torch.zeros_like(square)
    root = square.sqrt().clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
    signal = mean / root
    noise = group.relative_to(root).var_of_mean() * factor * factor
    m = group.count
    variance = 4 * signal * signal * noise - 2 * noise * noise * ((m - 1) / (m + 1))
    # torch.where, not the product above: NaN times zero is NaN
    return torch.where(factor == 0, torch.zeros_like(variance), variance.clamp_min(0))


def crossed_step(
    module: ModuleType,
    state: dict[str, Tensor],
    param: Tensor,
    grad: Tensor,
    moments: StepMoments | None,
    scalars: dict[str, Any],
    *,
    delta: bool,
) -> Tensor:
    """Update both folds' averages and move the parameter along the mean of their updates.

    Returns whether the statistics did not belong to the gradient, as a 0-d tensor.
    """
    gradients, records, factor = group_gradients(moments, param, local(grad))
    param, state = local(param), {name: local(value) for name, value in state.items()}
    suffixes = ("", SECOND_FOLD)
    beta1, beta2 = scalars["beta1"], scalars["beta2"]
    for gradient, suffix in zip(gradients, suffixes, strict=True):
        state["exp_avg" + suffix].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq" + suffix].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    total = torch.zeros_like(param)
    for top, bottom, record, gradient in zip(
        suffixes, suffixes[::-1], records[::-1], gradients[::-1], strict=True
    ):
        average = state["exp_avg" + top] / scalars["debias_numerator"]
        square = state["exp_avg_sq" + bottom] / scalars["debias_preconditioner"]
        if delta:
            weight = (1 - beta2) / scalars["debias_preconditioner"]
            relative = relative_square_variance(record, gradient, factor, square) * weight**2
            zero = torch.zeros_like(relative)
            total += module.corrected_update(average, square, zero, relative, eps=scalars["eps"])
        else:
            total += module.plug_in_update(average, square, eps=scalars["eps"])
    param.add_(total, alpha=-scalars["lr"] / 2)
    return factor == 0
