"""The figures of the site and of the README, light and dark: ``python docs/figures.py``.

Numbers come from the studies' results and from exact sums over finite laws; nothing is drawn by
hand. Scalar rules: what ``validation/results/remainder_slopes.json`` has. Rules of matrices and
matrix functions: their states vary along one direction by the mean of m two-point draws, so that
E T is a sum of m + 1 terms, and the derived second order is held against it.
"""

import json
import sys
from importlib import import_module
from math import comb
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import NullLocator, PercentFormatter

from deltabias.codegen.matrix_check import inputs
from deltabias.matrix_rule import MatrixRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, SPECTRAL_MAPS

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

from shades import both_shades  # noqa: E402

RESULTS = DOCS.parent / "validation" / "results"
SITE, RULES = DOCS / "_static" / "figures", DOCS / "rules" / "figures"
MICROBATCHES = (4, 8, 16, 32, 64, 128)
SPREAD = 0.3
"""The share of the generic deviation that one two-point draw makes."""
SCALARS = {"damping": 0.01, "eps": 0.01}


def results(study: str) -> dict:
    """The tables of a study's results."""
    return json.loads((RESULTS / f"{study}.json").read_text(encoding="utf-8"))["tables"]


# -- what is left, for a rule -------------------------------------------------------------------

LABELS = {
    "plug_in": "the bias itself",
    "expansion of order 1": "left by the derived terms",
    "expansion of order 2": "left by the next order too",
    "cross_fit": "left by cross-fitting alone",
}
TWINS = {"adamw": "adam", "adamw_mean_of_squares": "adam_mean_of_squares"}
"""Rules with the same map and states, whose study is the other's."""


def scalar_lines(name: str) -> dict[str, dict[str, tuple]]:
    """law -> label -> (small parameter, remainder), from the study of remainders."""
    found: dict[str, dict[str, tuple]] = {}
    for row in results("remainder_slopes")["slopes"]:
        mine = row["rule"] == TWINS.get(name, name) and row["strategy"] in LABELS
        if mine and row["law"] in ("two_point", "skewed"):
            pair = (np.array(row["small"], float), np.abs(np.array(row["remainders"], float)))
            found.setdefault(row["law"].replace("_", "-"), {})[LABELS[row["strategy"]]] = pair
    return found


def _ticks_of_means(axis, small) -> None:
    """Ticks where there are points, as 1/m; none in between."""
    axis.set_xticks(small, [f"1/{round(1 / x)}" for x in small])
    axis.xaxis.set_minor_locator(NullLocator())


def draw_scalar(lines):
    def draw(shade):
        figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), sharey=True, layout="constrained")
        for axis, (law, by_label) in zip(axes, sorted(lines.items()), strict=True):
            for label in (v for v in LABELS.values() if v in by_label):
                axis.loglog(*by_label[label], marker="o", markersize=3.5, label=label)
            axis.set_title(f"{law} law, exact enumeration")
            axis.set_xlabel("small parameter (1/m)")
            _ticks_of_means(axis, next(iter(by_label.values()))[0])
        axes[0].set_ylabel("size of what is left")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
        return figure

    return draw


def two_point_mean(microbatches: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and probabilities of the mean of m draws of -1 or +2 (probability 2/3, 1/3)."""
    k = np.arange(microbatches + 1)
    chances = np.array([comb(microbatches, int(i)) for i in k], dtype=float)
    chances *= (1 / 3) ** k * (2 / 3) ** (microbatches - k)
    return 3 * k / microbatches - 1, chances


def matrix_lines(subject) -> dict[str, list[float]]:
    """label -> relative Frobenius norm of what is left, for each of `MICROBATCHES`."""
    module = import_module(f"deltabias.generated.{subject.name}")
    value, bias, modes = (_rule if isinstance(subject, MatrixRule) else _map)(subject, module)
    plain = value(0.0)
    lines: dict[str, list[float]] = {}
    for m in MICROBATCHES:
        exact = sum(p * value(float(z)) for z, p in zip(*two_point_mean(m), strict=True)) - plain
        deviation = (2 / m) ** 0.5  # the standard error of the mean: Var of one draw is 2
        left = {"the bias itself": exact, "left by the derived terms": exact - bias(deviation)}
        for label, mode in modes.items():
            left[label] = exact - mode(deviation)
        for label, matrix in left.items():
            lines.setdefault(label, []).append(float(matrix.norm() / plain.norm()))
    return lines


def _rule(rule, module):
    points, deviations = inputs(rule, "generic")
    scalars = {h.name: SCALARS[h.name] for h in rule.hypers}
    steps = [SPREAD * d.flatten(0, -3)[:1] for d in deviations]  # one direction of each state
    scaled = _limited(rule, points, steps)

    def value(z):
        moved = [p + z * d[0] for p, d in zip(points, scaled, strict=True)]
        return module.plug_in_update(*moved, **scalars)

    def bias(size):
        return sum(module.second_order(*points, *(size * d for d in scaled), **scalars).values())

    modes = {}
    if shortcut := getattr(module, "corrected_update_eigenvalue_only", None):
        modes["left by the eigenvalues' curvature alone"] = lambda size: (
            value(0.0) - shortcut(*points, *(size * d for d in scaled), **scalars)
        )
    return value, bias, modes


def _limited(rule, points, steps):
    """Deviations so small that positive states stay positive over all draws (-1 … +2)."""
    size = 1.0
    for state, point, step in zip(rule.states, points, steps, strict=True):
        if state.name in rule.symmetric:
            lowest = torch.linalg.eigvalsh(point).min()
            size = min(size, float(0.3 * lowest / torch.linalg.matrix_norm(step[0], 2)))
        elif state.name == "V":
            size = min(size, float(0.3 * (point / step[0].abs()).min()))
    return [size * step for step in steps]


def _map(spectral, module):
    generator = torch.Generator().manual_seed(5)
    eigenvalues = torch.tensor([0.5, 0.8, 1.0, 2.0, 4.0], dtype=torch.float64)
    noise = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    step = 0.03 * (noise + noise.mT)
    hypers = sorted(s.name for s in spectral.expression.free_symbols if s.name in SCALARS)
    scalars = {name: SCALARS[name] for name in hypers}
    shape = import_module("sympy").lambdify(
        [*spectral.expression.free_symbols], spectral.expression, "numpy"
    )
    order = [s.name for s in spectral.expression.free_symbols]

    def value(z):  # by numpy's own eigenvalues, not by the generated code
        found, basis = np.linalg.eigh((eigenvalues.diag() + z * step).numpy())
        f = shape(*(scalars.get(name, found) for name in order))
        return torch.from_numpy((basis * f) @ basis.T)

    root = module.roots(eigenvalues)
    modes = {
        "left by the eigenvalues' curvature alone": lambda size: module.eigenvalue_only(
            root, (size * step).diagonal().square(), **scalars
        ).diag()
    }
    return value, lambda size: module.second_order(root, size * step[None], **scalars), modes


def draw_matrix(lines):
    def draw(shade):
        figure, axis = plt.subplots(figsize=(5.4, 3.1), layout="constrained")
        for label, values in lines.items():
            axis.loglog(
                [1 / m for m in MICROBATCHES], values, marker="o", markersize=3.5, label=label
            )
        _ticks_of_means(axis, [1 / m for m in MICROBATCHES])
        axis.set_xlabel("1/m")
        axis.set_ylabel("share of the update")
        axis.set_title("exact sum over a two-point law")
        figure.legend(loc="outside lower center", ncols=2 if len(lines) < 3 else 1)
        return figure

    return draw


# -- the site's own -----------------------------------------------------------------------------


def draw_effect(shade):
    """The figure that convinces: AdamW's bias over the steps, and what is left of a bias."""
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.2), layout="constrained")
    _bias_over_steps(axes[0], "0.9 0.95", shade)
    axes[0].set_title("AdamW, betas (0.9, 0.95)")
    by_label = scalar_lines("inverse_sqrt")["skewed"]
    for label in list(LABELS.values())[:2]:
        axes[1].loglog(*by_label[label], marker="o", markersize=4, label=label)
    axes[1].set_title("g/√v, skewed gradients, exact")
    axes[1].set_xlabel("1/m, m microbatches")
    axes[1].set_ylabel("size")
    axes[1].legend(loc="center right")
    _ticks_of_means(axes[1], by_label[LABELS["plug_in"]][0])
    return figure


def _bias_over_steps(axis, betas: str, shade) -> None:
    rows = [r for r in results("steady_state")["relative_bias"] if r["betas"] == betas]
    steps = ["1", "2", "5", "20", "steady"]
    for noise in sorted({r["noise_share"] for r in rows}):
        mine = {str(r["t"]): r for r in rows if r["noise_share"] == noise}
        exact = [mine[t]["exact"] for t in steps]
        label = "all noise" if noise == 1 else f"{noise:.0%} noise"
        (line,) = axis.plot(range(len(steps)), exact, label=label)
        axis.errorbar(
            range(len(steps)),
            [mine[t]["simulated"] for t in steps],
            [3 * mine[t]["standard_error"] for t in steps],
            fmt="o",
            markersize=4,
            color=line.get_color(),
        )
    axis.axhline(0, color=shade["quiet"], linewidth=0.8)
    axis.set_xticks(range(len(steps)), [*steps[:-1], "steady\nstate"])
    axis.set_xlabel("step")
    axis.set_ylabel("relative bias of the update")
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend()


def draw_two_biases(shade):
    """Small multiples: Jensen, a shared batch, and both together as microbatches grow in number."""
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.1), layout="constrained")
    v = np.linspace(0.25, 2.2, 200)
    red, blue = shade["colors"][:2]
    axes[0].plot(v, v**-0.5, color=blue)
    ends = np.array([0.4, 1.6])
    axes[0].plot(ends, ends**-0.5, "o-", color=red, linewidth=1)
    gap = {"arrowstyle": "<->", "color": shade["ink"]}
    axes[0].annotate("", (1, (ends**-0.5).mean()), (1, 1), arrowprops=gap)
    axes[0].text(1.05, 1.3, "inversion bias")
    axes[0].set_title("E f(v) lies above f(E v)")
    axes[0].set_xlabel("v, two equally likely values")
    axes[0].set_ylabel("f(v) = 1/√v")
    generator = np.random.default_rng(3)
    g = 0.5 + generator.normal(size=(250, 4)).mean(1)
    axes[1].scatter(g, g**2, s=6, alpha=0.6, color=red, linewidths=0, rasterized=False)
    axes[1].set_title("numerator and preconditioner: one batch")
    axes[1].set_xlabel("numerator g")
    axes[1].set_ylabel("preconditioner's v = g²")
    return figure


def draw_small_multiples(shade):
    """The bias over the steps for three pairs of betas."""
    every = ["0.8 0.9", "0.9 0.95", "0.9 0.999"]
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.0), sharey=True, layout="constrained")
    for axis, betas in zip(axes, every, strict=True):
        _bias_over_steps(axis, betas, shade)
        axis.set_title(f"betas ({betas.replace(' ', ', ')})")
    for axis in axes[1:]:
        axis.set_ylabel("")
        axis.get_legend().remove()
    return figure


def main(arguments: list[str]) -> int:
    """Draw every figure, or those whose rule is named."""
    wanted = set(arguments)
    if not wanted or "site" in wanted:
        both_shades(draw_effect, SITE / "effect")
        both_shades(draw_two_biases, SITE / "two-biases")
        both_shades(draw_small_multiples, SITE / "bias-over-steps")
    for name in CATALOGUE:
        if not wanted or name in wanted:
            both_shades(draw_scalar(scalar_lines(name)), RULES / name)
    for subject in (*SPECTRAL_MAPS.values(), *MATRIX_CATALOGUE.values()):
        if not wanted or subject.name in wanted:
            both_shades(draw_matrix(matrix_lines(subject)), RULES / subject.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
