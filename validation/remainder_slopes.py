"""The order of what is left: slopes of exact remainders, for every rule, law and strategy.

Uncorrected 1.0, a second-order claim 2.0, a third-order one 3.0. The parts: `within_step` (every
sample of a finite law, strategies with *estimated* moments), `trajectories` (the expansion against
the Laplace integral), gamma laws in closed form, `tracked` (what the default remembers).
Negative controls spoil a coefficient, and the same check must then see slope 1.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import sympy as sp

from deltabias.correction import correct
from deltabias.rule import GRADIENT, Fresh, Statistic, UpdateRule
from deltabias.rules import get_rule
from deltabias.truth import Gamma, inverse_moment
from validation import tracked, trajectories, within_step
from validation.expansion import Observed, Setting, bias_by_power, population_update
from validation.figures import panels, plain_log_ticks, save, styled
from validation.slopes import slope
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

TOLERANCE = {1: 0.05, 2: 0.05, 3: 0.1}
SEED = 31_000
TWINS = (("adamw", "adam"), ("adamw_mean_of_squares", "adam_mean_of_squares"))
AT_FIRST = "trust is withdrawn at t = 1: this is the plug-in update, and no order is claimed"


def slope_row(line: dict) -> Row:
    """The claim on one slope."""
    order = line["claimed"]
    where = f"{line['rule']}, {line['law']}, {line['strategy']}"
    if order is None:
        return Row(f"slope of what is left: {where}", line["slope"], 1.0, note=AT_FIRST)
    tolerance = TOLERANCE[order]
    return Row(
        f"slope {order} ± {tolerance}: {where}",
        line["slope"],
        float(order),
        passed=bool(abs(line["slope"] - order) <= tolerance),
        note=f"last local slope {line['last_local_slope']:.3f}, "
        f"remainder {line['remainders'][-1]:.1e}",
    )


# -- gamma laws -----------------------------------------------------------------------------------


def gamma_lines(power: str) -> list[dict]:
    """E X^-p of a mean of m draws of Gamma(5, 1/5): closed form less orders 0, 1 and 2."""
    statistic = Statistic("v", GRADIENT, positive=True)
    rule = UpdateRule("inverse_power", f"v**(-{power})", (Fresh("v", statistic),))
    sizes, left = (16, 32, 64), []
    with mpmath.workdps(40):
        for m in sizes:
            exact = inverse_moment(Gamma(5 * m, Fraction(1, 5 * m)), power, 40)
            setting, shown = Setting(1, m), Observed(Gamma(5, Fraction(1, 5)))
            bias = exact - population_update(rule, shown, setting)
            parts = bias_by_power(rule, 2, shown, setting)
            left.append([bias - sum(parts[:k]) for k in range(3)])
        names = ("plug_in", "expansion of order 1", "expansion of order 2")
        return [
            within_step.line(
                f"v^-{power}", "gamma", names[k], k + 1,
                slope([1 / m for m in sizes], [row[k] for row in left]),
            )
            for k in range(3)
        ]  # fmt: skip


# -- negative controls ----------------------------------------------------------------------------

PLANTS = {
    "1/4 instead of 3/8": sp.Rational(2, 3),
    "the wrong sign": sp.Integer(-1),
    "half of it": sp.Rational(1, 2),
}


def planted_strategy_slope(factor: sp.Expr) -> float:
    """The slope of `delta` for inverse_sqrt with its inversion coefficient times `factor`."""
    rule, law_name = get_rule("inverse_sqrt"), "two_point"
    right = correct(rule)
    definitions = tuple(
        replace(d, expression=d.expression * factor) if d.name == "inversion" else d
        for d in right.kernel.definitions
    )
    wrong = replace(right, kernel=replace(right.kernel, definitions=definitions))
    finite, sizes = within_step.LAWS[law_name], within_step.SIZES[law_name]
    with mpmath.workdps(within_step.DIGITS):
        left = [
            within_step.expected_update(rule, wrong, finite, m)
            - population_update(rule, within_step.observed(rule, finite), Setting(1, m))
            for m in sizes
        ]
        return slope([1 / m for m in sizes], left).extrapolated


def planted_expansion_slope(factor: sp.Expr) -> float:
    """The slope after order 1 of the expansion, its coefficient times `factor`."""
    lines = within_step.expansion_slopes(
        "string v**(-1/2)", "skewed", plant=lambda parts: [parts[0] * float(factor), *parts[1:]]
    )
    return lines[0]["slope"]


def control_rows() -> list[Row]:
    """Each planted mistake must miss slope 2 and show slope 1."""
    rows = []
    for name, factor in PLANTS.items():
        for what, measure in (
            ("delta, inverse_sqrt", planted_strategy_slope),
            ("expansion, v^-1/2", planted_expansion_slope),
        ):
            found = measure(factor)
            rows.append(
                Row(
                    f"negative control caught: {name} ({what})",
                    found,
                    1.0,
                    passed=bool(abs(found - 2) > TOLERANCE[2] and abs(found - 1) <= 0.1),
                    note="second order would be 2",
                )
            )
    return rows


def twin_row(name: str, other: str) -> Row:
    """Rules with one map and the same states have the same slopes."""
    first, second = get_rule(name), get_rule(other)
    same = (first.update, first.states) == (second.update, second.states)
    return Row(f"{name} is the same map of the same states as {other}", str(same), "True",
               passed=same, note=f"the slopes of {other} are its own")  # fmt: skip


# -- what the default remembers -------------------------------------------------------------------


def tracked_rows() -> list[Row]:
    """The tracked moments are unbiased at t = 3, for every rule that has any."""
    rows = []
    for rule in tracked.TRACKED_RULES:
        for law_name in within_step.LAWS:
            for name, (mean, expected) in tracked.tracked_means(rule, law_name).items():
                rows.append(
                    Row(
                        f"tracked {name} is unbiased at t = 3: {rule}, {law_name}",
                        mean,
                        expected,
                        passed=bool(abs(mean - expected) <= 1e-12 * max(abs(expected), 1e-3)),
                        note="every history enumerated; trust factors not included",
                    )
                )
    return rows


def simulated_rows(lines: list[dict]) -> list[Row]:
    """The default with estimates over the trajectory, as 1 − β shrinks."""
    rows = []
    for i, case in enumerate(tracked.CASES):
        mine = lines[i * len(tracked.EPSILONS) : (i + 1) * len(tracked.EPSILONS)]
        found, error = tracked.fitted_slope(mine)
        left = ", ".join(f"{x['left'] / x['plug_in']:+.0%}" for x in mine)
        where = f"{case.rule}, {case.law}, noise {case.noise:g}, m = {case.microbatches}"
        rows.append(
            Row(
                f"slope 2 ± {TOLERANCE[2]} in 1 − β, within {tracked.SIGMAS:g} standard errors, of "
                f"delta with estimates: {where}",
                found,
                2.0,
                error,
                bool(abs(found - 2) <= TOLERANCE[2] + tracked.SIGMAS * error),
                f"left of the plug-in bias {left} at 1 − β₂ = {tracked.EPSILONS}",
            )
        )
    return rows


def simulate_tracked(workers: int, progress: Progress, scale: float) -> list[dict]:
    """Lines of every case and epsilon, in order."""
    parts = max(1, round(scale * tracked.REPLICATES / tracked.PART))
    size = max(100, int(min(1.0, scale) * tracked.PART))
    keys = [(i, e) for i in range(len(tracked.CASES)) for e in tracked.EPSILONS]
    tasks = [(*key, SEED + k * parts + j, size) for k, key in enumerate(keys) for j in range(parts)]
    gains = run_tasks(tracked.gain_task, tasks, workers=workers, progress=progress)
    return [
        tracked.remaining(tracked.CASES[i], e, gains[k * parts : (k + 1) * parts])
        for k, (i, e) in enumerate(keys)
    ]


# -- the study ------------------------------------------------------------------------------------


def exact_lines(workers: int, progress: Progress) -> list[dict]:
    """Every exact slope."""
    within = run_tasks(
        within_step.run_task, within_step.all_tasks(), workers=workers, progress=progress
    )
    over = run_tasks(
        trajectories.run_task, trajectories.all_tasks(), workers=workers, progress=progress
    )
    gammas = [gamma_lines(p) for p in ("1", "1/2", "1/4")]
    return [line for part in (*within, *over, *gammas) for line in part]


def study(*, workers: int = 1, progress: Progress = no_progress, scale: float = 1.0) -> Findings:
    """Every slope; `scale` multiplies the replicates of the one part that is simulated."""
    lines = exact_lines(workers, progress)
    simulated = simulate_tracked(workers, progress, scale)
    rows = [
        *map(slope_row, lines),
        *(twin_row(*pair) for pair in TWINS),
        *control_rows(),
        *tracked_rows(),
        *simulated_rows(simulated),
    ]
    return Findings(
        rows,
        {"slopes": lines, "default_with_estimates": simulated},
        {"trajectories of the default with estimates": tracked.REPLICATES},
        {"default with estimates": SEED},
    )


@styled
def draw(findings: Findings, path: Path) -> None:
    """Remainders over the small parameter on log scales, by the order that is claimed."""
    lines = [x for x in findings.tables["slopes"] if x["claimed"]]
    figure, axes = panels(1, 3)
    titles = ("uncorrected or first order", "second order claimed", "third order claimed")
    for axis, order, title in zip(axes[0], (1, 2, 3), titles, strict=True):
        for line in (x for x in lines if x["claimed"] == order):
            small = np.array(line["small"]) / line["small"][0]
            left = np.abs(np.array(line["remainders"], dtype=float))
            axis.loglog(small, left / left[0], "-", color="C0", alpha=0.25, lw=1)
        guide = np.array([1.0, 0.12])
        axis.loglog(guide, guide**order, "--", color="black", lw=1, label=f"slope {order}")
        axis.set(title=title, xlabel="small parameter, relative", ylabel="remainder, relative")
        plain_log_ticks(axis)
        axis.legend()
    save(figure, path)


STUDY = Study(
    "remainder_slopes",
    "what is left falls with the order that is claimed: 1, 2 or 3",
    study,
    draw,
)
