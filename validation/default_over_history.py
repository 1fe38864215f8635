"""The default correction over 200 steps: how much bias it leaves, and what it costs in error.

The plug-in bias is exact (Laplace integral). What the correction adds is the mean of a paired
difference on the same draws, so the noise of the update itself drops out. Root mean square errors
are scanned over laws, noise levels and steps; the worst case of each scenario is then measured
again with a fresh seed, because the largest of many noisy numbers is too large.
"""

from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np

from deltabias.rules import get_rule
from deltabias.truth import adam_update_mean_float64, ema_weights, law
from validation.expansion import Observed, Setting, bias_by_name, population_update
from validation.figures import panels, save, styled
from validation.history import SCALES, Gradients, mean_gain, paired_errors
from validation.student_means import student_mean_law
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

BETAS = {"beta1": 0.9, "beta2": 0.95}
STEP, MICROBATCHES = 200, 16
NOISES = (0.1, 0.5, 1.0, 2.5, 7.5)
LAWS = ("normal", "skewed", "student_t")
SQUARES, TORCH = "adamw_mean_of_squares", "adamw"
STEADY = tuple(range(150, 501, 10))
"""The bias at these steps is that at t = 200 to 0.95^150 = 5e-4 of itself."""

LIMITS = {
    (SQUARES, "normal"): 0.05,
    (SQUARES, "skewed"): 0.05,
    (SQUARES, "student_t"): 0.30,
    (TORCH, "normal"): 0.20,
}
"""Largest share of the plug-in bias that may be left; the other laws are reported."""

CANCELLED = 0.01
"""Where the plug-in bias is below this share of |coupling| + |inversion|, what is left is judged
against those: a share of nearly nothing says nothing."""

PART = 500
PARTS = {(SQUARES, "student_t"): 32, (SQUARES, "skewed"): 16, (SQUARES, "normal"): 8}
USUAL_PARTS = 8
SEED = 7_000

WORST_ERROR = 1.05
SCAN_NOISES = (0.1, 0.5, 1.0, 2.5, 7.5, 1000.0)
SCAN_SIZES = (4, 16)
SCAN_EPS = 1e-8
START = (1, 2, 3, 5, 8, 12, 20, 50, 200)
AFTER_JUMP = (101, 102, 103, 105, 110, 120, 140, 160)
SCAN_STEPS = {
    "constant": START,
    "up": AFTER_JUMP,
    "down": AFTER_JUMP,
    "alternating": (1, 2, 3, 5, 8, 11, 12, 20, 21, 50, 51, 100),
    "sparse": START,
}
SCAN_REPLICATES, CONFIRM_REPLICATES = 2000, 20_000
SCAN_SEED, CONFIRM_SEED = 8_000, 9_000


# -- the share of the bias that is left -----------------------------------------------------------


def _law(name: str, noise: float):
    return law(name, mean=1, sd=str(noise))


def plug_in_bias(rule_name: str, law_name: str, noise: float) -> float:
    """E u − u* of the plug-in update at t = 200, exact up to quadrature."""
    of_squares = rule_name == SQUARES
    weights = [ema_weights(str(BETAS[b]), STEP) for b in ("beta1", "beta2")]
    gradient, size = _law(law_name, noise), MICROBATCHES
    if law_name == "student_t" and not of_squares:
        sd = Fraction(str(noise))
        gradient, size = student_mean_law(Fraction(1), sd, MICROBATCHES), 1
    found = adam_update_mean_float64(
        gradient, *weights, microbatches=size,
        statistic="mean_of_squares" if of_squares else "square_of_mean",
    )  # fmt: skip
    gradients = Gradients(law_name, (noise,), MICROBATCHES)
    return found.value - float(gradients.targets(rule_name, BETAS, STEP)[0])


def leading_parts(rule_name: str, law_name: str, noise: float) -> tuple[float, float]:
    """(coupling, inversion): the leading terms of the bias at t = 200."""
    setting = Setting(STEP, MICROBATCHES, {**BETAS, "eps": 0})
    found = bias_by_name(get_rule(rule_name), Observed(_law(law_name, noise)), setting)
    return float(found["coupling"]), float(found["inversion"])


def share_lines(rule_name: str, law_name: str, strategy: str, gains: list) -> list[dict]:
    """One line for each noise level out of the parts' (gain, error)."""
    gain = np.mean([g for g, _ in gains], axis=0)
    error = np.sqrt(np.mean([e**2 for _, e in gains], axis=0) / len(gains))
    lines = []
    for i, noise in enumerate(NOISES):
        bias = plug_in_bias(rule_name, law_name, noise)
        coupling, inversion = leading_parts(rule_name, law_name, noise)
        parts = abs(coupling) + abs(inversion)
        target = float(
            population_update(
                get_rule(rule_name),
                Observed(_law(law_name, noise)),
                Setting(STEP, MICROBATCHES, {**BETAS, "eps": 0}),
            )
        )
        lines.append(
            {
                "rule": rule_name,
                "law": law_name,
                "strategy": strategy,
                "noise": noise,
                "relative_plug_in_bias": bias / target,
                "relative_coupling": coupling / target,
                "relative_inversion": inversion / target,
                "share_left": (bias + gain[i]) / bias,
                "standard_error": error[i] / abs(bias),
                "share_of_parts_left": (bias + gain[i]) / parts,
                "standard_error_of_parts": error[i] / parts,
            }
        )
    return lines


def share_task(rule_name: str, law_name: str, strategy: str, seed: int, replicates: int):
    """(gain, standard error) of one part of the trajectories."""
    gradients = Gradients(law_name, NOISES, MICROBATCHES)
    return mean_gain(
        rule_name, strategy, gradients, STEADY, betas=BETAS, replicates=replicates, seed=seed
    )


def share_tasks(scale: float) -> list[tuple]:
    """(rule, law, strategy, seed, replicates) of every part."""
    wanted = [(r, law_name, "delta") for r in (SQUARES, TORCH) for law_name in LAWS]
    wanted += [(TORCH, law_name, "closed_form") for law_name in LAWS]
    tasks = []
    for rule, law_name, strategy in wanted:
        parts = PARTS.get((rule, law_name), USUAL_PARTS) if strategy == "delta" else 2
        parts = max(1, round(parts * scale))
        tasks += [
            (rule, law_name, strategy, SEED + len(tasks) + i, max(20, int(PART * min(1, scale))))
            for i in range(parts)
        ]
    return tasks


def share_row(line: dict) -> Row:
    """The claim on one line; against the parts where they cancel."""
    limit = LIMITS.get((line["rule"], line["law"])) if line["strategy"] == "delta" else None
    cancelled = abs(line["relative_plug_in_bias"]) < CANCELLED * (
        abs(line["relative_coupling"]) + abs(line["relative_inversion"])
    )
    kind = "share_of_parts_left" if cancelled else "share_left"
    measured, error = line[kind], line["standard_error_of_parts" if cancelled else "standard_error"]
    of_what = "|coupling| + |inversion|" if cancelled else "the plug-in bias"
    where = f"{line['rule']}, {line['strategy']}, {line['law']}, noise {line['noise']:g}"
    note = f"relative plug-in bias {line['relative_plug_in_bias']:+.1e}"
    if cancelled:
        note += (
            f": coupling and inversion cancel; of that bias {line['share_left']:+.0%} "
            f"± {line['standard_error']:.0%} is left"
        )
    else:
        note += f"; {line['share_of_parts_left']:+.2%} of |coupling| + |inversion|"
    return Row(
        f"leaves at most {limit:.0%} of {of_what}: {where}"
        if limit
        else f"left of {of_what}: {where}",
        measured,
        0.0,
        error,
        bool(abs(measured) <= limit) if limit else None,
        note,
    )


# -- root mean square error -----------------------------------------------------------------------


def scan_task(rule_name: str, scenario: str, microbatches: int, law_name: str, seed: int, n: int):
    """Lines (noise, t, ratio, error) of one law in one scenario."""
    gradients = Gradients(law_name, SCAN_NOISES, microbatches, scenario)
    found = paired_errors(
        rule_name, "delta", gradients, SCAN_STEPS[scenario],
        betas=BETAS, replicates=n, seed=seed, eps=SCAN_EPS, chunk=1500,
    )  # fmt: skip
    return [
        {"rule": rule_name, "scenario": scenario, "microbatches": microbatches, "law": law_name,
         "noise": noise, "t": t, "ratio": paired.ratio[i], "standard_error": paired.ratio_error[i]}
        for t, paired in found.items()
        for i, noise in enumerate(SCAN_NOISES)
    ]  # fmt: skip


def confirm_task(line: dict, seed: int, replicates: int) -> dict:
    """The same place again with draws of its own."""
    gradients = Gradients(line["law"], (line["noise"],), line["microbatches"], line["scenario"])
    found = paired_errors(
        line["rule"], "delta", gradients, (line["t"],),
        betas=BETAS, replicates=replicates, seed=seed, eps=SCAN_EPS,
    )[line["t"]]  # fmt: skip
    confirmed = {"ratio": found.ratio[0], "standard_error": found.ratio_error[0]}
    return {**line, **confirmed, "scanned_ratio": line["ratio"]}


def error_row(line: dict) -> Row:
    """The claim on the worst place of a scenario."""
    return Row(
        f"root mean square error at most {WORST_ERROR} × plug-in: {line['rule']}, "
        f"{line['scenario']}, m = {line['microbatches']}",
        line["ratio"],
        1.0,
        line["standard_error"],
        bool(line["ratio"] <= WORST_ERROR),
        f"worst of the scan: {line['law']}, noise {line['noise']:g}, t = {line['t']}",
    )


def worst_by(lines: list[dict], keys: tuple[str, ...]) -> list[dict]:
    """The line with the largest ratio for each combination of the keys."""
    found: dict[tuple, dict] = {}
    for line in lines:
        key = tuple(line[k] for k in keys)
        if key not in found or line["ratio"] > found[key]["ratio"]:
            found[key] = line
    return list(found.values())


def scan_errors(workers: int, progress: Progress, counts: dict[str, int]) -> tuple[list, list]:
    """(worst place of each rule, m and scenario, measured again; the scan's worst of each step).

    ``counts`` are the replicates of the scan and of the confirmation.
    """
    groups = product((SQUARES, TORCH), SCALES, SCAN_SIZES, LAWS)
    tasks = [(*group, SCAN_SEED + i, counts["scan"]) for i, group in enumerate(groups)]
    found = run_tasks(scan_task, tasks, workers=workers, progress=progress)
    lines = [line for part in found for line in part]
    worst = worst_by(lines, ("rule", "microbatches", "scenario"))
    again = [(line, CONFIRM_SEED + i, counts["confirmation"]) for i, line in enumerate(worst)]
    by_step = worst_by(lines, ("rule", "microbatches", "scenario", "t"))
    return run_tasks(confirm_task, again, workers=workers, progress=progress), by_step


# -- the study ------------------------------------------------------------------------------------


def study(*, workers: int = 1, progress: Progress = no_progress, scale: float = 1.0) -> Findings:
    """Shares left and worst errors; `scale` multiplies the numbers of replicates."""
    tasks = share_tasks(scale)
    gains = run_tasks(share_task, tasks, workers=workers, progress=progress)
    parts: dict[tuple, list] = {}
    samples: dict[str, int] = {}
    for task, gain in zip(tasks, gains, strict=True):
        parts.setdefault(task[:3], []).append(gain)
        name = f"trajectories, {', '.join(task[:3])}"
        samples[name] = samples.get(name, 0) + task[-1]
    shares = [line for key, found in parts.items() for line in share_lines(*key, found)]
    counts = {
        "scan": max(50, int(SCAN_REPLICATES * scale)),
        "confirmation": max(200, int(CONFIRM_REPLICATES * scale)),
    }
    worst, scanned = scan_errors(workers, progress, counts)
    return Findings(
        [*map(share_row, shares), *map(error_row, worst)],
        {"share_left": shares, "worst_error": worst, "error_scan": scanned},
        samples | counts,
        {"shares": SEED, "scan": SCAN_SEED, "confirmation": CONFIRM_SEED},
    )


@styled
def draw(findings: Findings, path: Path) -> None:
    """What is left over the noise, and the worst error of each scenario."""
    figure, axes = panels(1, 3, width=3.6)
    for axis, rule in zip(axes[0], (SQUARES, TORCH), strict=False):
        for color, law_name in zip(("C0", "C1", "C3"), LAWS, strict=True):
            for strategy, style in (("delta", "-o"), ("closed_form", ":x")):
                mine = [
                    x for x in findings.tables["share_left"]
                    if (x["rule"], x["law"], x["strategy"]) == (rule, law_name, strategy)
                ]  # fmt: skip
                axis.errorbar(
                    [x["noise"] for x in mine],
                    [100 * x["share_of_parts_left"] for x in mine],
                    [200 * x["standard_error_of_parts"] for x in mine],
                    fmt=style, color=color, ms=4,
                    label=f"{law_name}, {strategy}" if mine else None,
                )  # fmt: skip
        axis.axhline(0, color="black", lw=0.5)
        axis.set(title=rule, xscale="log", xlabel="noise / mean")
        axis.set_ylabel("left, % of |coupling| + |inversion|")
        axis.legend(loc="upper left" if rule == SQUARES else "lower left", fontsize=7)
    _draw_errors(axes[0][2], findings.tables["worst_error"])
    save(figure, path)


def _draw_errors(axis, worst) -> None:
    names = list(SCALES)
    for k, (rule, m) in enumerate((r, m) for r in (SQUARES, TORCH) for m in SCAN_SIZES):
        mine = [x for x in worst if (x["rule"], x["microbatches"]) == (rule, m)]
        at = [names.index(x["scenario"]) + 0.15 * (k - 1.5) for x in mine]
        axis.errorbar(
            at, [x["ratio"] for x in mine], [2 * x["standard_error"] for x in mine],
            fmt="o", ms=4, label=f"{rule}, m = {m}",
        )  # fmt: skip
    axis.axhline(WORST_ERROR, color="black", ls="--", lw=0.8)
    axis.set_xticks(range(len(names)), names, rotation=20)
    axis.set(title="worst case of each scenario", ylabel="root mean square error / plug-in")
    axis.set_ylim(1.0, 1.09)
    axis.legend(loc="upper right", fontsize=7)


STUDY = Study(
    "default_over_history",
    "the default leaves little of the bias over 200 steps, at hardly any more error",
    study,
    draw,
)
