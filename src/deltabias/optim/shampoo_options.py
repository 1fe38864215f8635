"""A Shampoo group's options: which go together, and what they need of the statistics."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.matrix_moments import MatrixStep
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim.checks import NONFINITE, check_betas, check_choice, check_range
from deltabias.optim.grafting import GRAFTINGS
from deltabias.optim.kronecker import KERNELS
from deltabias.optim.kronecker_states import Options
from deltabias.optim.root_iteration import POWERS, PRECISIONS
from deltabias.optim.tracked_spread import SIDES, default_power

CORRECTIONS = ("full", "diagonal", "eigenvalue_only", "sketch", "cross_fit", "plug_in")
SECOND_MOMENTS = ("square_of_mean", "mean_of_squares")
SPREADS = ("history", "microbatches")
MEMORIES = ("ema", "sum")
SOLVERS = ("eigh", "iteration")


def check_group(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `TypeError` for an option out of range, or two that do not go."""
    for name in ("lr", "damping", "weight_decay", "eps"):
        check_range(name, options[name])
    check_betas(options["betas"])
    choices = {
        "correction": CORRECTIONS,
        "second_moment": SECOND_MOMENTS,
        "spread": SPREADS,
        "memory": MEMORIES,
        "sides": ("both", *SIDES),
        "grafting": GRAFTINGS,
        "solver": SOLVERS,
        "root_precision": PRECISIONS,
        "nonfinite": NONFINITE,
    }
    for name, allowed in choices.items():
        check_choice(name, options[name], allowed)
    for name in ("refresh", "block_size", "spread_every"):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer >= 1.")
    if options["root"] is not None:
        power_of(options["root"])
    _check_combination(options)
    _check_solver(options)


def _check_solver(options: Mapping[str, Any]) -> None:
    if not 0 < options["root_error"] < 1:
        raise ValueError(f"root_error={options['root_error']!r} must lie between 0 and 1.")
    if options["solver"] == "eigh":
        return
    if options["correction"] not in ("plug_in", "cross_fit"):
        raise ValueError(
            f"solver='iteration' with correction={options['correction']!r}: corrections are "
            "made in the eigenbasis, which an iteration does not find; use solver='eigh', or "
            "correction='plug_in' or 'cross_fit'."
        )
    if (power := max(options_of(options).powers.values())) not in POWERS:
        raise ValueError(
            f"solver='iteration' with root={power}; iterations are for root "
            f"{', '.join(map(str, POWERS))}. Use solver='eigh'."
        )


def _check_combination(options: Mapping[str, Any]) -> None:
    correction, spread = options["correction"], options["spread"]
    if correction == "sketch" and spread != "microbatches":
        raise ValueError(
            f"correction='sketch' with {spread=}: the history has one deviation, nothing to "
            "sketch; use correction='full', or spread='microbatches'."
        )
    if options["refresh"] % options["spread_every"]:
        raise ValueError(
            f"spread_every={options['spread_every']} does not divide refresh="
            f"{options['refresh']}: a refresh corrects by a spread that is measured at its step."
        )
    if spread == "microbatches" and options["second_moment"] != "mean_of_squares":
        raise ValueError(
            "spread='microbatches' needs second_moment='mean_of_squares': the square of the mean "
            "is no mean over microbatches, their spread is not its spread; use spread='history'."
        )


def power_of(root: int | str | Fraction) -> Fraction:
    """p of A^(-1/p) as a key of `KERNELS`; `ValueError` for one that is not generated."""
    try:
        power = Fraction(root)
    except (ValueError, TypeError, ZeroDivisionError):
        power = None
    if power not in KERNELS:
        allowed = ", ".join(str(p) for p in KERNELS)
        raise ValueError(
            f"{root=} is not generated; use one of {allowed} (A to the power -1/root)."
        )
    return power


def options_of(group: Mapping[str, Any]) -> Options:
    """The group's options as the step takes them."""
    sides = SIDES if group["sides"] == "both" else (group["sides"],)
    power = default_power(sides) if group["root"] is None else power_of(group["root"])
    return Options(
        beta1=float(group["betas"][0]),
        beta2=float(group["betas"][1]),
        damping=float(group["damping"]),
        powers=dict.fromkeys(sides, power),
        memory=group["memory"],
        correction=group["correction"],
        spread=group["spread"],
        refresh=group["refresh"],
        grafting=group["grafting"],
        eps=float(group["eps"]),
        solver=group["solver"],
        root_error=float(group["root_error"]),
        root_precision=group["root_precision"],
        spread_every=group["spread_every"],
    )


def check_statistics(stats: MicrobatchStats, group: Mapping[str, Any]) -> None:
    """Raise unless the statistics hold what the group's options need."""
    if not isinstance(stats, MatrixStats):
        raise TypeError(
            f"Shampoo takes a MatrixStats, got {type(stats).__name__}; build "
            "MatrixStats(params), from deltabias.microbatch.matrix_stats."
        )
    wrong = {}
    if stats.block_size != group["block_size"]:
        wrong["block_size"] = (stats.block_size, group["block_size"])
    if group["correction"] == "cross_fit" and stats.group_count != 2:
        wrong["groups"] = (stats.group_count, 2)
    if group["sides"] != "both" and group["sides"] not in stats.factors.split("+"):
        wrong["factors"] = (stats.factors, group["sides"])
    if group["sides"] == "both" and stats.factors != "left+right":
        wrong["factors"] = (stats.factors, "left+right")
    if group["spread"] == "microbatches" and group["correction"] not in ("plug_in", "cross_fit"):
        keep = "sketch" if group["correction"] == "sketch" else "gradients"
        if stats.keep != keep:
            wrong["keep"] = (stats.keep, keep)
    for name, (have, need) in wrong.items():
        raise ValueError(
            f"correction={group['correction']!r} with block_size={group['block_size']} and "
            f"sides={group['sides']!r} needs {name}={need!r}, the statistics have {name}={have!r}; "
            f"build MatrixStats(params, {name}={need!r})."
        )


def require_moments(group: Mapping[str, Any], moments: MatrixStep | None) -> None:
    """Raise `RuntimeError` for a step without the statistics that the group's factors average."""
    if group["second_moment"] == "mean_of_squares" and moments is None:
        raise RuntimeError(
            "second_moment='mean_of_squares' averages the microbatches' G Gᵀ, and this step has no "
            "MatrixStats to take them from; nothing was changed. Attach statistics and wrap each "
            "backward in stats.microbatch(), or use second_moment='square_of_mean'."
        )
