"""Errors of a generated function in units in the last place, against 50 digits."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import mpmath
import torch

DIGITS = 50


def worst_ulps(
    function: Callable[..., torch.Tensor],
    reference: Callable[..., tuple[mpmath.mpf, mpmath.mpf]],
    tensors: Mapping[str, torch.Tensor],
    scalars: Mapping[str, float],
) -> tuple[float, dict[str, float]]:
    """The largest error, in units in the last place of the largest term, and where it is.

    Parameters
    ----------
    function : the generated function, of tensors and keyword scalars
    reference : the formula on mpmath numbers; returns (value, size), size being the sum of the
        absolute values of its terms: where a sum cancels, no arithmetic of the same inputs does
        better than an ulp of its largest term
    tensors : equal 1-d shapes, all of one dtype; inputs are exact numbers of that dtype
    scalars : keyword scalars, float64

    Returns
    -------
    (ulps, arguments) ; infinite where the function is not finite and the reference is
    representable.
    """
    values = function(*tensors.values(), **scalars)
    info = torch.finfo(values.dtype)
    worst, where = 0.0, {}
    with mpmath.workdps(DIGITS):
        for i, value in enumerate(values.tolist()):
            arguments = {name: t[i].item() for name, t in tensors.items()}
            exact, size = reference(
                **{k: mpmath.mpf(v) for k, v in (arguments | dict(scalars)).items()}
            )
            if size > info.max or abs(exact) < info.tiny:
                continue  # not representable in this precision
            last = mpmath.ldexp(info.eps, int(mpmath.floor(mpmath.log(size, 2))))
            error = float(abs(mpmath.mpf(value) - exact) / last) if value == value else mpmath.inf
            if error > worst:
                worst, where = float(error), {**arguments, **scalars}
    return worst, where


def grid(
    ranges: Mapping[str, Sequence[float]], dtype: torch.dtype, *, samples: int = 300, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Every combination of the values given (extremes included) and log-uniform points between.

    A range is (low, high), both positive, or (-high, …, high) for a signed argument.
    """
    corners = torch.tensor(list(product(*ranges.values())), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    columns = {}
    for i, (name, values) in enumerate(ranges.items()):
        sizes = sorted({abs(v) for v in values if v != 0})
        low, high = (torch.tensor(s, dtype=torch.float64).log() for s in (sizes[0], sizes[-1]))
        u = torch.rand(samples, generator=generator, dtype=torch.float64)
        between = (low + (high - low) * u).exp()
        if min(values) < 0:
            between *= torch.randint(0, 2, (samples,), generator=generator) * 2 - 1
        columns[name] = torch.cat([corners[:, i], between]).to(dtype)
    return columns
