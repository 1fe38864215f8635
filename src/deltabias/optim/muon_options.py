"""A Muon group's options: which go together, and what they need of the statistics."""

from collections.abc import Mapping
from typing import Any

import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim.checks import NONFINITE, check_choice, check_range
from deltabias.optim.orthogonal import NS_COEFFICIENTS, NS_STEPS

TRACKED = ("full", "sketch", "diagonal", "eigenvalue_only")
CORRECTIONS = ("plug_in", "cross_fit", *TRACKED)
POLARS = ("newton_schulz", "exact")
SPREADS = ("history", "microbatches")
SPECTRAL = ("diagonal", "eigenvalue_only", "cross_fit")
"""Corrections of the function of MᵀM: the Newton-Schulz polynomial has none by itself."""


def check_group(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `TypeError` for an option out of range, or two that do not go."""
    for name in ("lr", "weight_decay", "momentum", "eps"):
        check_range(name, options[name])
    choices = {
        "correction": CORRECTIONS,
        "polar": POLARS,
        "spread": SPREADS,
        "nonfinite": NONFINITE,
        "adjust_lr_fn": (None, "original", "match_rms_adamw"),
    }
    for name, allowed in choices.items():
        check_choice(name, options[name], allowed)
    steps, coefficients, dtype = (options[n] for n in ("ns_steps", "ns_coefficients", "ns_dtype"))
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps < 100:
        raise ValueError(f"ns_steps={steps!r} must be an integer in [0, 100).")
    if len(coefficients) != 3:
        raise ValueError(f"ns_coefficients={coefficients!r} must be three numbers (a, b, c).")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"ns_dtype={dtype!r} must be a floating-point torch.dtype.")
    if not options["trust"] > 0:
        raise ValueError(f"trust={options['trust']!r} must be positive; inf withdraws nothing.")
    _check_combination(options)


def _check_combination(options: Mapping[str, Any]) -> None:
    correction, newton_schulz = options["correction"], options["polar"] == "newton_schulz"
    if correction == "plug_in":
        return
    if options["momentum"] >= 1:
        raise ValueError(
            f"momentum={float(options['momentum'])} with {correction=}: the weights of such an "
            "average have no sum; use momentum < 1, or correction='plug_in'."
        )
    if newton_schulz and correction in SPECTRAL:
        raise ValueError(
            f"{correction=} corrects the inverse root of MᵀM, and polar='newton_schulz' takes "
            "none; use polar='exact', or correction='full'."
        )
    if correction == "sketch" and options["spread"] != "microbatches":
        raise ValueError(
            "correction='sketch' with spread='history': the history has one deviation, nothing "
            "to sketch; use correction='full', or spread='microbatches'."
        )
    standard = (tuple(options["ns_coefficients"]), options["ns_steps"])
    if newton_schulz and standard != (NS_COEFFICIENTS, NS_STEPS):
        raise ValueError(
            f"{correction=} is generated for ns_coefficients={NS_COEFFICIENTS} and "
            f"ns_steps={NS_STEPS}, got {standard[0]} and {standard[1]}; use those, "
            "polar='exact', or correction='plug_in'."
        )


def needs_statistics(group: Mapping[str, Any]) -> bool:
    """Whether the group's correction takes anything from the microbatches."""
    if group["correction"] == "cross_fit":
        return True
    return group["correction"] in TRACKED and group["spread"] == "microbatches"


def check_statistics(stats: MicrobatchStats, group: Mapping[str, Any]) -> None:
    """Raise unless the statistics hold what the group's options need."""
    if not needs_statistics(group):
        return
    if not isinstance(stats, MatrixStats):
        raise TypeError(
            f"Muon takes a MatrixStats, got {type(stats).__name__}; build MatrixStats(params), "
            "from deltabias.microbatch.matrix_stats."
        )
    correction = group["correction"]
    if correction == "cross_fit":
        name, have, need = "groups", stats.group_count, 2
    else:
        name, have = "keep", stats.keep
        need = "sketch" if correction == "sketch" else "gradients"
    if have != need:
        raise ValueError(
            f"{correction=} needs {name}={need!r}, the statistics have {name}={have!r}; build "
            f"MatrixStats(params, {name}={need!r})."
        )
