"""Statistics every k-th step: what is left of the plain update's bias, setting by setting.

The default tracks cumulants at full precision and looks in every step. Remembering shares in eight
bits and looking every 16th step costs a third of it. What does that lose, and where does it fail?

Every cell is a setting, a law, a number of microbatches, a noise share and a phase of a scene. The
limits were set after a pilot of 5,000 coordinates and not moved since. Where the plain bias is
below `NOTICED` of the update, a share of it says nothing, and no share is claimed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from validation.figures import legend_below, panels, save, styled
from validation.spacing_runs import (
    CANDIDATE,
    LAWS,
    REFERENCE,
    SCENES,
    WAYS,
    Task,
    Way,
    run,
)
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

NOTICED = 1e-3
"""Of the update: a bias below it is nobody's concern, and not worth a correction."""

COORDINATES = {"constant": 20_000}
USUAL_COORDINATES = 12_000
SEED = 66_000
SIZES = (2, 8, 16)
MOVING_CASES = (("normal", 2), ("normal", 8), *((law, 16) for law in LAWS))

FIRST = "first cycle"
EIGHT_BITS = (CANDIDATE, Way("delta", "bfloat16", 16))
EIGHT_BITS_MOST = 0.02


# -- claims ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A number of a cell, its limit, and where it is claimed at all."""

    text: str
    measure: str
    limit: float
    early: bool = True

    def applies(self, line: dict) -> bool:
        noticed = line["plain_bias_of_update"] >= NOTICED
        return (noticed or self.measure not in ("left", "lost_to_reference")) and (
            self.early or line["phase"] != FIRST
        )


CLAIMS = (
    Claim("leaves at most 20 % of the plain update's bias", "left", 0.20, early=False),
    Claim("loses at most 10 % of it to every=1 at full precision", "lost_to_reference", 0.10),
    Claim("adds at most 0.1 % of the update to the plain bias", "harm", NOTICED),
    Claim("root mean square error at most 1.05 × plain", "error_ratio", 1.05),
)
_ERRORS = {
    "left": "standard_error",
    "lost_to_reference": "standard_error_of_lost",
    "error_ratio": "standard_error_of_ratio",
}


def value_of(line: dict, measure: str) -> tuple[float, float]:
    """(value, standard error); the harm is what |bias| gains, as a share of the update."""
    if measure == "harm":
        plain = line["plain_bias_of_update"]
        return plain * (abs(line["left"]) - 1), plain * line["standard_error"]
    value = abs(line["left"]) if measure == "left" else line[measure]
    return value, line[_ERRORS[measure]]


def held(lines: Iterable[dict], claim: Claim) -> tuple[int, int]:
    """In how many of the cells the claim holds, and how many there are."""
    values = [value_of(x, claim.measure)[0] for x in lines if claim.applies(x)]
    return sum(v <= claim.limit for v in values), len(values)


def group_of(line: dict) -> str:
    """Scene and microbatches; the first cycle stands alone."""
    scene = f"{line['scene']}, {FIRST}" if line["phase"] == FIRST else line["scene"]
    return f"{scene}, m = {line['microbatches']}"


def claim_rows(lines: list[dict]) -> list[Row]:
    """The candidate's claims, each on the worst cell of its group."""
    rows = []
    mine = [x for x in lines if x["way"] == CANDIDATE.name]
    for group in dict.fromkeys(map(group_of, mine)):
        cells = [x for x in mine if group_of(x) == group]
        for claim in CLAIMS:
            judged = [x for x in cells if claim.applies(x)]
            if judged:
                default = [x for x in lines if x["way"] == REFERENCE.name and group_of(x) == group]
                rows.append(_worst_row(claim, group, judged, held(default, claim)[0]))
    return rows


def _worst_row(claim: Claim, group: str, cells: list[dict], default_holds: int) -> Row:
    worst = max(cells, key=lambda x: value_of(x, claim.measure)[0])
    measured, error = value_of(worst, claim.measure)
    good, count = held(cells, claim)
    where = f"{worst['law']}, noise share {worst['noise_share']:g}, {worst['phase']}"
    plain = f"plain bias {worst['plain_bias_of_update']:.2%} of the update"
    return Row(
        f"{CANDIDATE.name} {claim.text}: {group}",
        measured,
        claim.limit,
        error,
        bool(measured <= claim.limit),
        f"worst of {count} cells, {good} hold (of the default {default_holds}): {where}; {plain}",
    )


def eight_bit_row(lines: list[dict]) -> Row:
    """What int8 itself costs, beside bf16 at the same spacing."""
    ours, theirs = (
        {_cell(x): x for x in lines if x["way"] == way.name and x["phase"] != FIRST}
        for way in EIGHT_BITS
    )
    noticed = [c for c, x in ours.items() if x["plain_bias_of_update"] >= NOTICED]
    apart = {c: abs(ours[c]["left"]) - abs(theirs[c]["left"]) for c in noticed}
    worst = max(apart, key=apart.get)
    return Row(
        f"int8 leaves at most {EIGHT_BITS_MOST:.0%} of the plain bias more than bfloat16, every=16",
        apart[worst],
        EIGHT_BITS_MOST,
        None,
        bool(apart[worst] <= EIGHT_BITS_MOST),
        f"worst of {len(noticed)} cells: {', '.join(map(str, worst))}",
    )


def _cell(line: dict) -> tuple:
    return tuple(line[k] for k in ("scene", "law", "microbatches", "noise_share", "phase"))


def way_rows(lines: list[dict]) -> list[Row]:
    """For every setting: what it leaves in the plainest case, and how often each claim holds."""
    rows = []
    for way in dict.fromkeys(x["way"] for x in lines):
        mine = [x for x in lines if x["way"] == way]
        rows += [
            Row(
                f"left of the plain bias: {way}, normal, m = 16, constant, "
                f"noise share {x['noise_share']:g}",
                x["left"],
                0.0,
                x["standard_error"],
                note=f"plain bias {x['plain_bias_of_update']:.2%} of the update, {x['phase']}",
            )
            for x in mine
            if is_plainest(x) and x["microbatches"] == 16
        ]
        for claim in CLAIMS:
            good, count = held(mine, claim)
            rows.append(Row(f"{claim.text}: {way}, all scenes", f"{good} of {count} cells"))
    return rows


def is_plainest(line: dict) -> bool:
    """Normal gradients whose law does not move, after the start."""
    return (line["scene"], line["law"], line["phase"]) == ("constant", "normal", "a cycle of 32")


def places(lines: list[dict]) -> list[dict]:
    """One line for each cell but for the setting, with the share that every setting leaves."""
    kept = ("scene", "law", "microbatches", "noise_share", "phase")
    found: dict[tuple, dict] = {}
    for x in lines:
        plain = float(f"{x['plain_bias_of_update']:.4g}")
        head = {k: x[k] for k in kept} | {"plain_bias_of_update": plain}
        place = found.setdefault(_cell(x), head)
        place[x["way"]] = round(x["left"], 4)
        place[f"{x['way']}, error"] = round(x["standard_error"], 4)
    return list(found.values())


# -- the study ------------------------------------------------------------------------------------


def tasks_of(scale: float = 1.0) -> list[Task]:
    """Every simulation; `scale` multiplies the numbers of coordinates."""
    cases = [("constant", law, m) for law in LAWS for m in SIZES]
    cases += [(s, law, m) for s in SCENES if s != "constant" for law, m in MOVING_CASES]
    return [
        Task(s, law, m, max(50, int(scale * COORDINATES.get(s, USUAL_COORDINATES))), SEED + i)
        for i, (s, law, m) in enumerate(cases)
    ]


def study(*, workers: int = 1, progress: Progress = no_progress, scale: float = 1.0) -> Findings:
    """The candidate's claims, what eight bits cost, and every setting's numbers."""
    tasks = tasks_of(scale)
    found = run_tasks(run, [(t,) for t in tasks], workers=workers, progress=progress)
    lines = [line for part in found for line in part]
    return Findings(
        [*claim_rows(lines), eight_bit_row(lines), *way_rows(lines)],
        {"cells": [x for x in lines if is_plainest(x)], "left": places(lines)},
        {
            "coordinates, constant": tasks[0].coordinates,
            "coordinates, moving": tasks[-1].coordinates,
        },
        {"first": SEED, "last": tasks[-1].seed},
    )


_LOOKS = {
    REFERENCE: ("C0", "o"), CANDIDATE: ("C3", "s"), WAYS[3]: ("C1", "D"),
    WAYS[5]: ("C9", "x"), WAYS[6]: ("C2", "^"),
}  # fmt: skip
_DRAWN = 0.78
"""The noise share of the scenes."""


@styled
def draw(findings: Findings, path: Path) -> None:
    """What is left over the noise share for 16 and 2 microbatches, and scene by scene."""
    cells = [x for x in findings.tables["left"] if x["law"] == "normal"]
    figure, axes = panels(1, 3, width=3.8, height=3.6)
    for axis, m in zip(axes[0], (16, 2), strict=False):
        mine = [
            x for x in cells
            if (x["scene"], x["microbatches"], x["phase"]) == ("constant", m, "a cycle of 32")
        ]  # fmt: skip
        shares = np.array([x["noise_share"] for x in mine])
        axis.plot(shares, [_percent(x) for x in mine], "k--", lw=0.8, label="plain")
        for way in _LOOKS:
            _errorbar(axis, shares, mine, way, line="-")
        axis.axhline(0, color="black", lw=0.5)
        axis.set(title=f"normal, constant, m = {m}", xlabel="noise share")
        axis.set_ylabel("bias, % of the update")
    _draw_scenes(axes[0][2], [x for x in cells if x["microbatches"] == 16])
    legend_below(figure, axes[0][0])
    save(figure, path)


def _percent(place: dict) -> float:
    """The plain bias; shares count along it, so it is positive."""
    return 100 * place["plain_bias_of_update"]


def _errorbar(axis, at, mine: list[dict], way: Way, line: str = "") -> None:
    color, marker = _LOOKS[way]
    axis.errorbar(
        at,
        [_percent(x) * x[way.name] for x in mine],
        [2 * _percent(x) * x[f"{way.name}, error"] for x in mine],
        fmt=line + marker, color=color, ms=4, label=way.name,
    )  # fmt: skip


def _draw_scenes(axis, cells: list[dict]) -> None:
    """The phase of each scene in which the candidate is worst, the first cycle included."""
    names = list(SCENES)
    mine = [
        max(
            (x for x in cells if (x["scene"], x["noise_share"]) == (name, _DRAWN)),
            key=lambda x: abs(x[CANDIDATE.name]) * x["plain_bias_of_update"],
        )
        for name in names
    ]
    at = np.arange(len(names))
    axis.plot(at, [_percent(x) for x in mine], "k_", ms=20)
    for k, way in enumerate(_LOOKS):
        _errorbar(axis, at + 0.13 * (k - 2), mine, way)
    axis.axhline(0, color="black", lw=0.5)
    labels = [f"{x['scene']},\n{x['phase']}" for x in mine]
    axis.set_xticks(at, labels, rotation=40, ha="right", fontsize=6)
    axis.set(title=f"normal, noise share {_DRAWN}, m = 16", ylabel="bias, % of the update")


STUDY = Study(
    "spacing",
    "whether int8 shares with every=16 can stand in for the default: what they leave of the bias, "
    "lose to looking in every step at full precision, and spoil",
    study,
    draw,
)
