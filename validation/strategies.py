"""Strategies side by side: bias that is left, variance, mean squared error, passes, bytes.

Two settings, both with m = 16. *One step*: g/√v with v the mean of squares, states without
memory, where every strategy has its full effect. *Trajectory*: torch's AdamW at t = 50. Each
strategy is compared with its own target; a square of a smaller group's mean has another one, and
the change of target stands beside it. Errors are relative to the target, so that a change of
target, which is a learning-rate factor, is no error.

The plug-in's bias is exact; the others' is that plus a paired difference on the same draws.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from deltabias.correction import STRATEGIES, Correction, correct
from deltabias.errors import StrategyError
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rule import UpdateRule
from deltabias.rules import get_rule
from deltabias.truth import Sampler, adam_update_mean_float64, ema_weights, estimate, law
from validation.figures import legend_below, panels, save, styled
from validation.student_means import student_mean_law
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks
from validation.within_step import preconditioner_size

LAWS = ("normal", "skewed", "student_t", "two_point")
NOISES = ("0.1", "0.2", "0.4", "0.7", "1.4", "2.7", "5.2", "10")
"""Over the mean. A two-point mean must not hit 0 exactly: 1/√v does not forgive that at t = 1."""

MICROBATCHES = 16
BETAS = {"beta1": 0.9, "beta2": 0.95}
STEPS = 50
ONE_STEP, TRAJECTORY = "one step, g/sqrt(v)", "adamw, t = 50"
ONE_STEP_REPLICATES, TRAJECTORY_REPLICATES = 100_000, 5000
CHUNK = 1000
SEED = 4_000
WORST_SQUARED_ERROR = 1.05


def applicable(rule: UpdateRule) -> dict[str, Correction]:
    """The corrections that apply to a rule, by strategy."""
    found = {}
    for strategy in STRATEGIES:
        try:
            found[strategy] = correct(rule, strategy)
        except StrategyError:
            continue
    return found


def halves(values: dict[str, np.ndarray]) -> tuple[Microbatches, Microbatches]:
    """The microbatches in two groups; strategies without groups join them again."""
    half = MICROBATCHES // 2
    ones = np.ones(half)
    return (
        Microbatches({k: v[..., :half] for k, v in values.items()}, ones),
        Microbatches({k: v[..., half:] for k, v in values.items()}, ones),
    )


# -- one step -------------------------------------------------------------------------------------


def one_step_lines(law_name: str, noise: str, replicates: int, seed: int) -> list[dict]:
    """Every strategy's line for one law and noise, one step."""
    rule = get_rule("inverse_sqrt")
    corrections = applicable(rule)
    gradient = law(law_name, mean=1, sd=noise)
    target = (1 + float(noise) ** 2) ** -0.5
    evaluators = {name: Evaluator(c) for name, c in corrections.items()}

    def errors(sample: np.ndarray) -> np.ndarray:
        """Relative errors of every strategy, then their squares."""
        columns = []
        for evaluator in evaluators.values():
            evaluator.reset()
            columns.append(evaluator(*halves({"g": sample, "v": sample**2})) / target - 1)
        relative = np.stack(columns, axis=1)
        return np.concatenate([relative, relative**2], axis=1)

    def means(sample: np.ndarray) -> np.ndarray:
        return np.stack([sample.mean(axis=1), (sample**2).mean(axis=1)], axis=1)

    found = estimate(
        errors, Sampler(gradient, (MICROBATCHES,)), replicates, seed,
        control=means, control_mean=np.array([1.0, 1 + float(noise) ** 2]), chunk=10_000,
    )  # fmt: skip
    exact = adam_update_mean_float64(
        gradient, [1], [1], statistic="mean_of_squares", microbatches=MICROBATCHES
    ).value
    return [
        _line(ONE_STEP, law_name, noise, name, corrections[name], 0.0,
              *_summary(found.mean, found.covariance, i, exact / target - 1))
        for i, name in enumerate(corrections)
    ]  # fmt: skip


def _summary(mean: np.ndarray, covariance: np.ndarray, i: int, plug_in_bias: float) -> tuple:
    """(bias, its error, variance ratio, squared-error ratio, its error) of strategy i.

    ``mean`` holds k relative errors, then their k squares; number 0 is the plug-in.
    """
    k = len(mean) // 2
    bias = plug_in_bias + mean[i] - mean[0]
    bias_error = max(0.0, covariance[i, i] + covariance[0, 0] - 2 * covariance[i, 0]) ** 0.5
    own, plain = mean[k + i], mean[k]
    ratio = own / plain
    contrast = covariance[k + i, k + i] + ratio**2 * covariance[k, k]
    contrast -= 2 * ratio * covariance[k + i, k]
    variances = (own - mean[i] ** 2) / (plain - mean[0] ** 2)
    return bias, bias_error, variances, ratio, max(0.0, contrast) ** 0.5 / plain


def _line(
    setting, law_name, noise, strategy, correction, target_change,
    bias, bias_error, variances, squares, squares_error,
) -> dict:  # fmt: skip
    return {
        "setting": setting,
        "law": law_name,
        "noise": float(noise),
        "strategy": strategy,
        "relative_bias": float(bias),
        "standard_error": float(bias_error),
        "variance_ratio": float(variances),
        "squared_error_ratio": float(squares),
        "squared_error_ratio_error": float(squares_error),
        "change_of_target": float(target_change),
        "passes": correction.cost.passes,
        "bytes_per_parameter": correction.cost.bytes_per_parameter,
        "peak_bytes_per_parameter": correction.cost.peak_bytes_per_parameter,
    }


# -- trajectory -----------------------------------------------------------------------------------


def exact_trajectory_mean(law_name: str, noise: str) -> float:
    """E of the plug-in AdamW update at t = 50."""
    gradient, size = law(law_name, mean=1, sd=noise), MICROBATCHES
    if law_name == "student_t":
        gradient, size = student_mean_law(Fraction(1), Fraction(noise), MICROBATCHES), 1
    weights = (ema_weights(str(beta), STEPS) for beta in BETAS.values())
    return adam_update_mean_float64(gradient, *weights, microbatches=size).value


def simulate_trajectory(law_name: str, replicates: int, seed: int) -> dict[str, np.ndarray]:
    """The update at t = 50 of every strategy, ``[noises, replicates]``, on the same draws."""
    corrections = applicable(get_rule("adamw"))
    rng = np.random.default_rng(seed)
    noise = np.array([float(n) for n in NOISES])[:, None, None]
    standard = law(law_name, mean=0, sd=1)
    evaluators = {name: Evaluator(c, {**BETAS, "eps": 0.0}) for name, c in corrections.items()}
    parts: dict[str, list] = {name: [] for name in corrections}
    for begin in range(0, replicates, CHUNK):
        n = min(CHUNK, replicates - begin)
        for evaluator in evaluators.values():
            evaluator.reset()
        for _ in range(STEPS):
            z = standard.sample(rng, (n, MICROBATCHES))
            groups = halves({"x": 1 + noise * z})
            last = {name: evaluator(*groups) for name, evaluator in evaluators.items()}
        for name, update in last.items():
            parts[name].append(update)
    return {name: np.concatenate(found, axis=1) for name, found in parts.items()}


def trajectory_lines(law_name: str, replicates: int, seed: int) -> list[dict]:
    """Every strategy's line for one law over all noises."""
    corrections = applicable(get_rule("adamw"))
    updates = simulate_trajectory(law_name, replicates, seed)
    lines = []
    for i, noise in enumerate(NOISES):
        spread = float(noise) ** 2
        common = (1 + spread / MICROBATCHES) ** -0.5
        plug_in = exact_trajectory_mean(law_name, noise)
        for name, correction in corrections.items():
            size = preconditioner_size(correction, MICROBATCHES)
            own = (1 + spread / size) ** -0.5
            relative = updates[name][i] / own - 1
            plain = updates["plug_in"][i] / common - 1
            both = np.stack([plain, relative, plain**2, relative**2], axis=1)
            covariance = np.cov(both, rowvar=False) / len(both)
            summary = _summary(both.mean(axis=0), covariance, 1, 0.0)
            # the mean is exact plug-in plus a paired difference of the *updates*
            gain = (updates[name][i] - updates["plug_in"][i]) / own
            bias = (plug_in / own - 1) + gain.mean()
            bias_error = gain.std(ddof=1) / len(gain) ** 0.5
            lines.append(
                _line(TRAJECTORY, law_name, noise, name, correction, own / common - 1,
                      bias, bias_error, *summary[2:])
            )  # fmt: skip
    return lines


# -- what it says ---------------------------------------------------------------------------------


def harmful_noises(lines: list[dict], strategy: str) -> list[float]:
    """The noises of the grid at which a strategy leaves more bias than plug-in does.

    More means by two standard errors at least.
    """
    found = []
    for noise in sorted({x["noise"] for x in lines}):
        at = {x["strategy"]: x for x in lines if x["noise"] == noise}
        own, plain = at[strategy], at["plug_in"]
        if abs(own["relative_bias"]) - 2 * own["standard_error"] > abs(plain["relative_bias"]):
            found.append(noise)
    return found


def strategy_rows(lines: list[dict], setting: str, law_name: str) -> list[Row]:
    """From where on each strategy stops helping, and what the safe form costs."""
    mine = [x for x in lines if x["setting"] == setting and x["law"] == law_name]
    rows = []
    for strategy in dict.fromkeys(x["strategy"] for x in mine if x["strategy"] != "plug_in"):
        harmful = harmful_noises(mine, strategy)
        fine = [x for x in NOISES if not harmful or float(x) < harmful[0]]
        own = [x for x in mine if x["strategy"] == strategy]
        worst = max(own, key=lambda x: x["squared_error_ratio"])
        rows.append(
            Row(
                f"{strategy} leaves no more bias than plug-in up to noise: {setting}, {law_name}",
                fine[-1] if fine else "nowhere",
                note=f"more at noise {', '.join(f'{x:g}' for x in harmful) or 'none'}; "
                f"worst squared error × {worst['squared_error_ratio']:.3f} at noise "
                f"{worst['noise']:g}; {own[0]['passes']} passes, "
                f"{own[0]['bytes_per_parameter']} bytes a parameter",
            )
        )
        if strategy == "delta":
            rows.append(
                Row(
                    f"the safe form's mean squared error is at most {WORST_SQUARED_ERROR} × "
                    f"plug-in: {setting}, {law_name}",
                    worst["squared_error_ratio"],
                    1.0,
                    worst["squared_error_ratio_error"],
                    bool(worst["squared_error_ratio"] <= WORST_SQUARED_ERROR),
                    f"worst at noise {worst['noise']:g}",
                )
            )
    return rows


def study(*, workers: int = 1, progress: Progress = no_progress, scale: float = 1.0) -> Findings:
    """The table of every setting, law, noise and strategy."""
    counts = (
        max(200, int(ONE_STEP_REPLICATES * scale)),
        max(100, int(TRAJECTORY_REPLICATES * scale)),
    )
    long = [(trajectory_lines, name, counts[1], SEED + i) for i, name in enumerate(LAWS)]
    pairs = [(name, noise) for name in LAWS for noise in NOISES]
    short = [(one_step_lines, *pair, counts[0], SEED + 100 + i) for i, pair in enumerate(pairs)]
    parts = run_tasks(_run, long + short, workers=workers, progress=progress)
    lines = [line for part in parts for line in part]
    rows = [
        row
        for setting in (ONE_STEP, TRAJECTORY)
        for law_name in LAWS
        for row in strategy_rows(lines, setting, law_name)
    ]
    samples = {ONE_STEP: counts[0], TRAJECTORY: counts[1]}
    return Findings(rows, {"strategies": lines}, samples, {"first": SEED})


def _run(function, *arguments) -> list[dict]:
    return function(*arguments)


@styled
def draw(findings: Findings, path: Path) -> None:
    """Left bias and squared error over the noise: two rows a setting, a column a law."""
    lines = findings.tables["strategies"]
    figure, axes = panels(4, len(LAWS), width=3.0, height=2.3)
    for row, setting in ((0, ONE_STEP), (2, TRAJECTORY)):
        for column, law_name in enumerate(LAWS):
            mine = [x for x in lines if x["setting"] == setting and x["law"] == law_name]
            bias, squares = axes[row][column], axes[row + 1][column]
            _curves(bias, mine, lambda x: 100 * x["relative_bias"])
            bias.set(title=f"{law_name}: {setting}")
            bias.set_yscale("symlog", linthresh=0.1)
            _curves(squares, mine, lambda x: x["squared_error_ratio"])
        axes[row][0].set_ylabel("left bias, % of the update")
        axes[row + 1][0].set_ylabel("squared error / plug-in")
    for axis in axes[-1]:
        axis.set_xlabel("noise / mean")
    legend_below(figure, axes[0][0])
    save(figure, path)


def _curves(axis, lines: list[dict], value) -> None:
    for color, name in enumerate(STRATEGIES):
        own = [x for x in lines if x["strategy"] == name]
        noise = [x["noise"] for x in own]
        axis.plot(noise, [value(x) for x in own], "-o", ms=2, lw=1, color=f"C{color}", label=name)
    axis.set_xscale("log")


STUDY = Study(
    "strategies",
    "what each strategy leaves and costs, and from which noise on it stops helping",
    study,
    draw,
)
