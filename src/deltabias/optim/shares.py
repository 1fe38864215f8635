"""What is remembered as shares: in which dtype, and how the meter reads it.

A share is a relative cumulant with a known range (`deltabias.codegen.spaced`), so eight bits hold
it. The error of a code is half a step, the range over 254 (over 510 for shares that have no sign):
0.008 of the noise share q, 0.008 and 0.03 of the two skewness terms; of what a step in between
reads, 0.002 of the noise and of the skewness, 0.005 of the inversion, 0.008 of the closed form's
factor. Rounding is to nearest and averages out over elements whose estimates scatter by more than a
step. bf16 keeps eight bits of each number.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

STORAGE = (None, "float32", "bfloat16", "int8")

UNSIGNED = ("noise_share_kept", "noise_kept", "inversion_kept")
"""Shares that are never negative, and may use all 256 codes."""


def check_storage(
    optimizer: str, options: Mapping[str, Any], form: ModuleType, strategy: str
) -> None:
    """Raise for a storage that is not known, and for a step that remembers no shares.

    Parameters
    ----------
    form, strategy
        the rule's one-pass steps, and which of them the options choose

    Raises
    ------
    ValueError
        naming what was passed and what has shares.
    """
    storage = options.get("storage")
    if storage not in STORAGE:
        allowed = ", ".join(map(repr, STORAGE))
        raise ValueError(f"{storage=} is not known; use one of {allowed}.")
    if storage is not None and not hasattr(form, f"one_pass_{strategy}_spaced"):
        raise ValueError(
            f"{storage=} remembers shares, which correction='delta' and 'closed_form' with "
            "second_moment='square_of_mean' have; got "
            f"{optimizer}(correction={options['correction']!r}, second_moment="
            f"{options.get('second_moment')!r}). Leave storage out."
        )


def kept_dtype(name: str, storage: str, accumulator: torch.dtype) -> torch.dtype:
    """The dtype of a state that holds shares; `accumulator` is what "float32" stands for."""
    if storage == "int8":
        return torch.uint8 if name in UNSIGNED else torch.int8
    return torch.bfloat16 if storage == "bfloat16" else accumulator


def read_shares(
    module: ModuleType, state: Mapping[str, Tensor], scalars: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """The meter of a step that remembers shares: (inversion, coupling), see `Validity`.

    `module` is that of the one-pass steps, which know how a share is stored.

    Those of the closed form are worked out from its noise share, with eps neglected.
    """

    def read(name: str) -> Tensor:
        return module._decoded(state[name], module.largest_kept(name), torch.float32)

    share = read("noise_share_kept").clamp_max(1)
    inversion = share * (4 - 2 * share) * (3 / 8)
    if "inversion_kept" in state:
        inversion = read("inversion_kept")
    inversion = inversion * scalars["swell"]
    if "exp_avg" not in state:  # what a fresh numerator couples with goes with its step
        return inversion, torch.zeros_like(inversion)
    average = state["exp_avg"].float() / scalars["debias_numerator"]
    root = (state["exp_avg_sq"].float() / scalars["debias_preconditioner"]).sqrt()
    signal = average / root.clamp_min(torch.finfo(torch.float32).tiny)
    skewness = read("skewness_kept") if "skewness_kept" in state else 0
    return inversion, (signal * share + skewness) * scalars["push"]
