"""Is it worth correcting? The bias of a rule at the user's own betas, batch and microbatches."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from deltabias.errors import DeltabiasError
from deltabias.report.rows import Progress, Row, make_rows
from deltabias.report.scenario import LONGEST_MEMORY, Scenario, scenario
from deltabias.report.simulation import check_size
from deltabias.report.verdict import verdict
from deltabias.rule import UpdateRule

NOISE_SHARES = (0.1, 0.5, 1.0)
STEPS = (1, 2, 5, 20, 100)
FEWEST_REPLICATES, MOST_REPLICATES = 100, 100_000_000


@dataclass(frozen=True)
class Report:
    """Relative biases of a rule's update with the settings they hold for, and a verdict.

    ``steady_state`` is empty for a rule that never forgets, and ``settings`` says so.
    """

    rule: str
    settings: Mapping[str, object]
    steady_state: tuple[Row, ...]
    by_step: tuple[Row, ...]
    verdict: str

    def to_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts."""
        return {
            "rule": self.rule,
            "settings": dict(self.settings),
            "steady_state": [row.to_dict() for row in self.steady_state],
            "by_step": [row.to_dict() for row in self.by_step],
            "verdict": self.verdict,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as strict JSON: a number that does not exist is null."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def figure(self, path: str | Path) -> Path:
        """Draw the report as an SVG file, written whole or not at all. Returns the path.

        Raises
        ------
        DeltabiasError
            for a name that does not end in ``.svg`` or a place that cannot be written.
        """
        from deltabias.report.figure import draw  # matplotlib takes a second to import

        return draw(self, Path(path))


def report(
    rule: UpdateRule,
    *,
    betas: tuple[float, float] | None = None,
    microbatches: int = 16,
    noise_shares: Sequence[float] = NOISE_SHARES,
    steps: Sequence[int] = STEPS,
    law: str = "normal",
    replicates: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **hypers: float,
) -> Report:
    r"""Predict and simulate the relative bias (E u - u*)/u* of a rule's update.

    Gradients are independent between steps, with the same law in each.

    Parameters
    ----------
    rule : UpdateRule
    betas : (beta1, beta2); short for hyperparameters of those names
    microbatches : m, in each step; at least 2
    noise_shares : q = var(ḡ)/E ḡ² in (0, 1], ḡ being a step's mean gradient *whatever the rule is
        fed with*. For a mean of squares, the share of the noise in E v is then m q/(1 - q + m q).
        q = 1 is the limit of a vanishing mean gradient.
    steps : steps of the trajectory to look at, from 1
    law : of one microbatch's gradient, a name of `deltabias.truth.LAWS`
    replicates : simulated histories for each row; by default as many as a fraction of a second
        allows, so that all is done in less than 20 s on one core
    seed : of the simulation; each row has its own stream
    progress : called as ``progress(done, total)`` after each row
    hypers : any other hyperparameter of the rule by name; ``eps`` is in units of √(E ḡ²)

    Returns
    -------
    Report

    Raises
    ------
    DeltabiasError
        naming the argument, its value, what is allowed and what to do.

    Examples
    --------
    >>> from deltabias.rules import get_rule
    >>> found = report(get_rule("adamw"), betas=(0.9, 0.95), noise_shares=[1.0], steps=[1])
    >>> round(found.by_step[0].exact, 4), round(found.by_step[0].leading_order, 4)
    (-0.2021, -0.25)
    """
    scene = scenario(rule, betas=betas, hypers=hypers, microbatches=microbatches, law_name=law)
    shares, steps = _shares(noise_shares), _steps(steps)
    _check_count("seed", seed, 0, 2**63 - 1)
    if replicates is not None:
        _check_count("replicates", replicates, FEWEST_REPLICATES, MOST_REPLICATES)
    check_size(scene, max(steps if scene.never_forgets else (*steps, scene.memory)))
    lasting: list[int | None] = [] if scene.never_forgets else [None]
    rows = make_rows(
        scene, [*lasting, *steps], shares, replicates=replicates, seed=seed, progress=progress
    )
    steady, by_step = rows[: len(lasting) * len(shares)], rows[len(lasting) * len(shares) :]
    settings = _settings(scene, seed)
    lines = verdict(rule, scene, steady, by_step)
    return Report(str(rule), settings, steady, by_step, "\n".join(lines))


def _settings(scene: Scenario, seed: int) -> dict[str, object]:
    endless = ["a running total never forgets: there is no steady state"]
    endless = endless if scene.never_forgets else []
    return {
        "rule_name": scene.rule.name,
        "hypers": dict(scene.hypers),
        "microbatches": scene.microbatches,
        "law": scene.law_name,
        "seed": seed,
        "noise_share": "var(mean gradient of a step) / E (mean gradient of a step)**2",
        "unit": "gradients in units of the root of E (mean gradient of a step)**2, eps too",
        "relative_bias": "(E u - u*)/u*, u* the update at the states' means",
        "steady_state_steps": None if scene.never_forgets else scene.memory,
        "assumptions": [*scene.assumptions, *endless],
    }


def _shares(noise_shares: Sequence[float]) -> tuple[float, ...]:
    shares = tuple(float(q) for q in noise_shares)
    if not shares or not all(isfinite(q) and 0 < q <= 1 for q in shares):
        raise DeltabiasError(
            f"noise_shares={list(noise_shares)} must be numbers in (0, 1], at least one: 0 is no "
            "noise and no bias, 1 is noise alone."
        )
    return shares


def _steps(steps: Sequence[int]) -> tuple[int, ...]:
    for step in steps:
        _check_count("step", step, 1, LONGEST_MEMORY)
    if not steps:
        raise DeltabiasError("steps=[] leaves nothing to report by step; pass at least one step.")
    return tuple(steps)


def _check_count(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DeltabiasError(f"{name}={value!r} must be an integer from {low} to {high}.")
