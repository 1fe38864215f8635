"""How much of a matrix rule's true bias each mode removes, in one step, with standard errors."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from deltabias.errors import DeltabiasError
from deltabias.matrix_derivation import describe
from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_modes import WITHOUT, ModeFailed, Modes
from deltabias.report.matrix_scenario import MatrixScenario, matrix_scenario
from deltabias.truth import (
    MatrixBias,
    NonFiniteSample,
    NotConverged,
    Share,
    estimate_matrix_bias,
)

BLOCKS = 32
"""Groups of replicates that errors are taken from; a number of replicates is a multiple."""

FEWEST_BLOCKFULS, MOST_BY_DEFAULT, MOST_REPLICATES = 2, 2**16, 2**22
WORK = 1.4e10
"""Of the default number of replicates, in the unit of `default_replicates`: some six seconds."""

ENTRY_SHARE = 0.01
CHUNK_NUMBERS = 2**18
"""Gradient entries held at a time: the deviations of so many stay in the cache."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Removed:
    """A share of the true bias removed, with its standard error; 1 is all, below 0 is harm."""

    removed: float
    standard_error: float

    @classmethod
    def of(cls, share: Share) -> "Removed":
        return cls(float(share.removed), float(share.standard_error))


@dataclass(frozen=True)
class MatrixReport:
    """Shares of a rule's true bias that each mode removes, and the settings they hold for.

    ``bias`` is ‖E U − U*‖/‖U*‖ with its standard error; ``terms`` the share of the bias that each
    term of the expansion predicts, unguarded; ``worst`` by mode the least share removed among
    ``carrying`` of ``entries`` entries, those with more than 1 % of the largest entry's bias.
    """

    rule: str
    name: str
    of: str
    expression: str
    settings: Mapping[str, object]
    bias: Removed
    modes: Mapping[str, Removed]
    not_applicable: Mapping[str, str]
    terms: Mapping[str, Removed]
    worst: Mapping[str, Removed]
    carrying: int
    entries: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts."""
        return {
            "rule": self.rule,
            "name": self.name,
            "of": self.of,
            "object": self.expression,
            **self.settings,
            "bias": {"relative": self.bias.removed, "standard_error": self.bias.standard_error},
            "modes": {n: vars(m) for n, m in self.modes.items()},
            "not_applicable": dict(self.not_applicable),
            "terms": {
                n: {"predicted": t.removed, "standard_error": t.standard_error}
                for n, t in self.terms.items()
            },
            "worst_entry": {
                "among": f"|bias| > {ENTRY_SHARE:g} of the largest entry's",
                "entries": self.carrying,
                "of": self.entries,
                "modes": {n: vars(m) for n, m in self.worst.items()},
            },
            "notes": list(self.notes),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as strict JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def figure(self, path: str | Path) -> Path:
        """Draw the shares as an SVG file, written whole or not at all. Returns the path."""
        from deltabias.report.matrix_figure import draw  # matplotlib takes a second to import

        return draw(self, Path(path))


def matrix_report(
    rule: MatrixRule,
    *,
    dim: int = 8,
    columns: int | None = None,
    microbatches: int = 16,
    law: str = "normal",
    condition: float = 20.0,
    of: str | None = None,
    statistic: str = "mean_of_squares",
    replicates: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **hypers: float,
) -> MatrixReport:
    r"""Simulate every mode of a matrix rule in one step and compare with the exact target.

    The target U* is the rule at the law's exact moments; expectations are means over batches with
    control variates whose means are exactly zero. Nothing of the expansion is in the truth.

    Parameters
    ----------
    rule : MatrixRule; its matrices are the mean gradient, the mean of G Gᵀ, the mean of Gᵀ G
    dim, columns : d and n of the gradient; columns are d if not given
    microbatches : m, at least 2
    law : of one microbatch's gradient, a name of `deltabias.truth.MATRIX_LAWS`
    condition : of the noise's covariance, on each side that the rule preconditions
    of : "update", or "preconditioner" (the inverse root of the left factor alone), which is the
        default, and all there is, for the law of zero mean, "wishart"
    statistic : "mean_of_squares"; "square_of_mean" is refused, for one step
    replicates : a multiple of 32; by default what takes some seconds
    seed : of the law's rotations and of the simulation
    progress : called as ``progress(done, replicates)``
    hypers : of the rule by name, such as ``damping``

    Raises
    ------
    DeltabiasError
        naming the argument, its value, what is allowed and what to do; also for a bias that is
        too small to be seen with so many replicates.

    Examples
    --------
    >>> from deltabias.rules import get_rule
    >>> found = matrix_report(get_rule("shampoo"), law="wishart", dim=2, replicates=64)
    >>> found.of, found.settings["statistic"], found.modes["plug_in"].removed
    ('preconditioner', 'mean_of_squares', 0.0)
    """
    _check_seed(seed)
    scene = matrix_scenario(
        rule, dim=dim, columns=columns, microbatches=microbatches, law=law, condition=condition,
        of=of, statistic=statistic, hypers=hypers, seed=seed,
    )  # fmt: skip
    replicates = default_replicates(scene) if replicates is None else _checked(replicates)
    _try_plug_in(scene)
    modes = Modes(scene, seed=seed)
    estimators, refused = _usable(scene, modes)
    found = None
    while found is None:
        try:
            every = {**estimators, **modes.term_estimators}
            found = simulate(scene, every, replicates, seed, progress=progress)
        except ModeFailed as error:  # without it, from the start: the same batches
            del estimators[error.mode]
            refused[error.mode] = str(error)
    names, estimators = list(estimators), every
    shares = {n: _share(found, n) for n in estimators}
    worst, carrying = worst_entries(found, names)
    return MatrixReport(
        rule=str(rule),
        name=rule.name,
        of=scene.of,
        expression=describe(scene.rule.update) if scene.of == "preconditioner" else str(rule),
        settings=_settings(scene, statistic, replicates, seed),
        bias=relative_bias(found),
        modes={n: shares[n] for n in names},
        not_applicable={**modes.missing, **refused},
        terms={n.removeprefix(WITHOUT): shares[n] for n in shares if n.startswith(WITHOUT)},
        worst=worst,
        carrying=carrying,
        entries=found.target.size,
        notes=scene.notes,
    )


def simulate(
    scene: MatrixScenario,
    estimators: Mapping[str, Callable],
    replicates: int,
    seed: int,
    *,
    progress: Progress | None = None,
    target: np.ndarray | None = None,
) -> MatrixBias:
    """The bias of every estimator over the same batches.

    Raises
    ------
    DeltabiasError
        for a singular matrix without damping, or a value that is not finite.
    """
    rows, columns = scene.law.dimensions
    chunk = max(1, CHUNK_NUMBERS // (scene.microbatches * rows * columns))
    try:
        return estimate_matrix_bias(
            estimators, scene.law, scene.microbatches, replicates, seed,
            population_map=scene.population_map, target=target, control=False, blocks=BLOCKS,
            chunk=chunk, progress=progress,
        )  # fmt: skip
    except ModeFailed:
        raise
    except (ValueError, NonFiniteSample) as error:
        raise DeltabiasError(f"rule {scene.asked.name!r}: {error}") from error


def default_replicates(scene: MatrixScenario) -> int:
    """As many as some seconds allow, by counting products: the same on every machine."""
    size = max(scene.law.dimensions)
    nodes = sum(1 for _ in scene.rule.update.walk())
    each = (20 + nodes) * (scene.microbatches * size**2 * (size + 16) + 10_000)
    return BLOCKS * max(FEWEST_BLOCKFULS, int(min(WORK / each, MOST_BY_DEFAULT) / BLOCKS))


def relative_bias(found: MatrixBias) -> Removed:
    """‖E U − U*‖/‖U*‖ with its error."""
    squared, size = found.squared_norm("plug_in"), float(np.linalg.norm(found.target))
    root = sqrt(max(squared.mean, 0.0))
    return Removed(root / size, squared.standard_error / (2 * root * size) if root else 0.0)


def carrying_entries(found: MatrixBias, share: float = ENTRY_SHARE) -> np.ndarray:
    """Entries whose bias is more than `share` of the largest entry's."""
    bias = np.abs(found.bias("plug_in").mean)
    return bias > share * bias.max()


def worst_entries(found: MatrixBias, names: list[str]) -> tuple[dict[str, Removed], int]:
    """By mode the least share removed among the entries that carry bias, and their number."""
    carry, worst = carrying_entries(found), {}
    for name in names:
        share = found.removed_per_entry(name)
        where = np.argmin(np.where(carry, share.removed, np.inf))
        worst[name] = Removed(*(float(a.flat[where]) for a in share))
    return worst, int(np.count_nonzero(carry))


def _share(found: MatrixBias, name: str) -> Removed:
    try:
        return Removed.of(found.removed(name))
    except NotConverged as error:
        raise DeltabiasError(str(error)) from error


def _usable(scene: MatrixScenario, modes: Modes) -> tuple[dict, dict[str, str]]:
    """The modes that give values at all, tried on a few batches of their own, and why not.

    Half of the microbatches may leave a factor singular that all of them do not.
    """
    trial = scene.law.sample(np.random.default_rng(0), (4, scene.microbatches))
    estimators, refused = modes.estimators, {}
    try:
        estimators["cross_fit"](trial)
    except ValueError as error:
        del estimators["cross_fit"]
        refused["cross_fit"] = f"half of the microbatches: {error}"
    return estimators, refused


def _try_plug_in(scene: MatrixScenario) -> None:
    """Say beforehand that every batch is singular, or the population."""
    trial = scene.law.sample(np.random.default_rng(0), (4, scene.microbatches))
    try:
        Modes(scene, control=False).estimators["plug_in"](trial)
    except ValueError as error:
        raise DeltabiasError(f"rule {scene.asked.name!r}: {error}") from error


def _settings(scene: MatrixScenario, statistic: str, replicates: int, seed: int) -> dict:
    rows, columns = scene.law.dimensions
    return {
        "statistic": statistic,
        "law": scene.law_name,
        "dim": rows,
        "columns": columns,
        "microbatches": scene.microbatches,
        "condition": scene.condition,
        "damping": scene.hypers.get("damping", 0.0),
        "hypers": dict(scene.hypers),
        "replicates": replicates,
        "seed": seed,
    }


def _checked(replicates: int) -> int:
    low = FEWEST_BLOCKFULS * BLOCKS
    whole = isinstance(replicates, int) and not isinstance(replicates, bool)
    if not (whole and low <= replicates <= MOST_REPLICATES and replicates % BLOCKS == 0):
        raise DeltabiasError(
            f"{replicates=!r} must be a multiple of {BLOCKS} from {low} to {MOST_REPLICATES}: "
            f"standard errors are taken from {BLOCKS} groups of equal size."
        )
    return replicates


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise DeltabiasError(f"{seed=!r} must be an integer from 0 to 2**63 - 1.")
