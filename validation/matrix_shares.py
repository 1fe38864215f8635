"""The share of the true bias that each matrix mode removes, by dimension, microbatches and law.

Three objects of one step, each at condition 20: the preconditioner L^(-1/2) alone with zero-mean
gradients (Wishart, and Student-t of 6 degrees of freedom), the one-sided update L^(-1/2) M, and the
two-sided update L^(-1/4) M R^(-1/4), whose gradients have a mean as large as their noise. Columns
are as many as rows. Truth: the rule at the law's exact moments, and means over batches with
controls of mean exactly zero (see `deltabias.report.matrix_modes`).

An entry *carries more than 1 % of the bias* if its bias is more than 1 % of the largest entry's;
the other reading, more than 1 % of the *squared* norm of the bias, is reported beside it. The
claim's false alarms: an entry counts as below 90 % if it is so by more than `SIGMAS` errors.
"""

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import torch

from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_modes import WITHOUT, Modes
from deltabias.report.matrix_record import carrying_entries, relative_bias, simulate
from deltabias.report.matrix_scenario import MatrixScenario, matrix_scenario
from deltabias.truth import MatrixBias, NotConverged, matrix_law
from validation.figures import legend_below, panels, save, styled
from validation.matrix_inverse import inverse_rows
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.tasks import run_tasks

DIMENSIONS, MICROBATCHES = (2, 4, 8, 32), (8, 16, 64)
LAWS = ("normal", "student_t")
MODES = ("full", "sketch", "diagonal", "eigenvalue_only", "cross_fit")
CONDITION = 20.0
SEED = 7_000
BLOCKS = 32
REPLICATES = {2: 8192, 4: 4096, 8: 2048, 32: 128}
"""By dimension, a multiple of 32: fixed beforehand, some seconds a setting on one core."""

PROMISED = 0.90
SIGMAS = 5.0
"""An entry is below what is promised if it is so by this many errors; 3e-7 one-sided, each."""

ONE_SIDED = "inv_root(L + damping*I, 2) * M"
TWO_SIDED = "inv_root(L + damping*I, 4) * M * inv_root(R + damping*I, 4)"
OBJECTS = {
    "preconditioner": (ONE_SIDED, "preconditioner"),
    "one-sided update": (ONE_SIDED, "update"),
    "two-sided update": (TWO_SIDED, "update"),
}


def scene_of(what: str, law: str, dim: int, microbatches: int) -> MatrixScenario:
    """The scenario of one setting; a preconditioner's gradients have zero mean."""
    text, of = OBJECTS[what]
    rule = MatrixRule.parse(text)
    scene = matrix_scenario(
        rule, dim=dim, microbatches=microbatches, law=law, condition=CONDITION, of=of, seed=SEED
    )
    if of == "update":
        return scene
    name, scale = ("wishart", None) if law == "normal" else (law, 0.0)
    centered = matrix_law(name, dim, condition=CONDITION, mean_scale=scale, seed=SEED)
    return replace(scene, law=centered, law_name=name)


def line_of(what: str, law: str, dim: int, microbatches: int, replicates: int, seed: int) -> dict:
    """Every mode's shares in one setting."""
    torch.set_num_threads(1)
    scene = scene_of(what, law, dim, microbatches)
    modes = Modes(scene, seed=seed)
    estimators = {**modes.estimators, **modes.term_estimators}
    found = simulate(scene, estimators, replicates, seed)
    bias = relative_bias(found)
    line = {
        "object": what, "law": scene.law_name, "dim": dim, "microbatches": microbatches,
        "replicates": replicates, "bias": bias.removed, "bias_error": bias.standard_error,
    }  # fmt: skip
    terms = {f"term_{n.removeprefix(WITHOUT)}": n for n in modes.term_estimators}
    for key, name in {**{m: m for m in MODES}, **terms}.items():
        line[key], line[f"{key}_error"] = _share(found, name)
    return {**line, **_entries(found)}


def _share(found: MatrixBias, name: str) -> tuple[float | None, float | None]:
    """The share removed and its error; None of a bias that is within three errors of zero."""
    try:
        return tuple(map(float, found.removed(name)))
    except NotConverged:
        return None, None


def _entries(found: MatrixBias) -> dict:
    """What `full` removes entry by entry, in both readings of "carries more than 1 %"."""
    share, line = found.removed_per_entry("full"), {}
    readings = {"of_largest": carrying_entries(found), "of_squares": found.carrying(0.1)}
    for name, carry in readings.items():
        removed, error = share.removed[carry], share.standard_error[carry]
        below = removed < PROMISED - SIGMAS * error
        at = int(np.argmin(removed)) if removed.size else -1
        line[name] = {
            "entries": int(removed.size),
            "worst": float(removed[at]) if removed.size else None,
            "worst_error": float(error[at]) if removed.size else None,
            "median_error": float(np.median(error)) if removed.size else None,
            "below": int(np.count_nonzero(below)),
            "resolved": int(np.count_nonzero(error < 0.02)),
        }
    return line


# -- sketch ---------------------------------------------------------------------------------------


def sketch_line(dim: int, microbatches: int, replicates: int, seed: int) -> dict:
    """The sketched second order less the full one, over the same batches: bias and variance.

    Without the safe form, in which the sketch stands under a reciprocal.
    """
    torch.set_num_threads(1)
    scene = scene_of("two-sided update", "normal", dim, microbatches)
    modes = Modes(scene, seed=seed, control=False)
    plug_in = modes.estimators["plug_in"]
    rng, differences, fulls = np.random.default_rng(seed), [], []
    for _ in range(BLOCKS):
        plug_in(scene.law.sample(rng, (replicates // BLOCKS, microbatches)))
        full, sketched = modes.estimated_bias(), modes.estimated_bias(sketch=True)
        differences.append((sketched - full).numpy())
        fulls.append(full.numpy())
    difference, full = np.concatenate(differences), np.concatenate(fulls)
    error = difference.std(axis=0, ddof=1) / sqrt(len(difference))
    z = difference.mean(axis=0) / error
    squares = (full.mean(axis=0) ** 2).sum()
    return {
        "dim": dim, "microbatches": microbatches, "replicates": replicates,
        "chi_square_per_entry": float((z**2).mean()), "entries": z.size,
        "largest_z": float(np.abs(z).max()),
        "noise": float(sqrt(difference.var(axis=0, ddof=1).sum() / squares)),
        "noise_of_full": float(sqrt(full.var(axis=0, ddof=1).sum() / squares)),
    }  # fmt: skip


# -- rows -----------------------------------------------------------------------------------------


def study(
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    dimensions: tuple[int, ...] = DIMENSIONS,
    microbatches: tuple[int, ...] = MICROBATCHES,
    replicates: int | None = None,
) -> Findings:
    """Every setting, with the rows that claim something of them."""
    settings = [(w, law, d, m) for w in OBJECTS for law in LAWS for d in dimensions
                for m in microbatches]  # fmt: skip
    tasks = [(*s, replicates or REPLICATES[s[2]], SEED + i) for i, s in enumerate(settings)]
    lines = run_tasks(line_of, tasks, workers=workers, progress=progress)
    sketches = [sketch_line(d, 16, 4096 if d < 32 else 256, SEED + 500) for d in dimensions]
    rows = [*full_rows(lines), *shortcut_rows(lines), *cross_rows(lines), *sketch_rows(sketches)]
    inverse, inverse_table = inverse_rows(SEED + 900)
    return Findings(
        [*rows, *inverse],
        {"shares": lines, "sketch": sketches, "inverse": inverse_table},
        {"replicates of a setting, most": max(t[4] for t in tasks)},
        {"first": SEED},
    )


def _where(line: dict) -> str:
    return f"{line['object']}, {line['law']}, d = {line['dim']}, m = {line['microbatches']}"


def full_rows(lines: list[dict]) -> list[Row]:
    """What is promised of `full` at the largest number of microbatches."""
    most, rows = max(x["microbatches"] for x in lines), []
    for line in lines:
        if line["microbatches"] != most:
            continue
        share, error = line["full"], line["full_error"]
        if share is None:
            rows.append(
                Row(
                    f"bias relative to the update: {_where(line)}",
                    line["bias"],
                    None,
                    line["bias_error"],
                    None,
                    "too near zero to take a share of",
                )
            )
            continue
        rows.append(Row(
            f"full removes {PROMISED:.0%} of the bias: {_where(line)}", share, PROMISED, error,
            bool(share + 2 * error >= PROMISED), "passed if within two errors",
        ))  # fmt: skip
        for reading, said in (("of_largest", "of the largest entry's"),
                              ("of_squares", "of the squared norm")):  # fmt: skip
            found = line[reading]
            if not found["entries"]:
                continue
            note = (f"{found['entries']} entries, {found['resolved']} with an error below 2 %; "
                    f"{found['below']} below {PROMISED:.0%} by {SIGMAS:g} errors")  # fmt: skip
            rows.append(Row(
                f"in every entry with more than 1 % {said}: {_where(line)}", found["worst"],
                PROMISED, found["worst_error"], found["below"] == 0, note,
            ))  # fmt: skip
    return rows


def shortcut_rows(lines: list[dict]) -> list[Row]:
    """eigenvalue_only leaves about (d − 1)/(d + 1) of a Wishart preconditioner's bias."""
    most, rows = max(x["microbatches"] for x in lines), []
    for line in lines:
        if line["law"] != "wishart" or line["microbatches"] != most:
            continue
        left, predicted = 1 - line["eigenvalue_only"], (line["dim"] - 1) / (line["dim"] + 1)
        rows.append(Row(
            f"eigenvalue_only leaves about (d − 1)/(d + 1), within 0.06: {_where(line)}",
            left, predicted, line["eigenvalue_only_error"], bool(abs(left - predicted) < 0.06),
        ))  # fmt: skip
    return rows


def cross_rows(lines: list[dict]) -> list[Row]:
    """What the cross term carries of a two-sided update's bias; reported, not claimed."""
    most = max(x["microbatches"] for x in lines)
    return [
        Row(f"share of the bias in the cross term: {_where(x)}", x["term_cross"], None,
            x["term_cross_error"], None,
            f"without it {1 - x['full'] + x['term_cross']:.1%} is left, with it "
            f"{1 - x['full']:.1%}")
        for x in lines if x.get("term_cross") is not None and x["microbatches"] == most
    ]  # fmt: skip


def sketch_rows(lines: list[dict]) -> list[Row]:
    """A sketch has no bias of its own: the entries' z² average to one; and its noise."""
    rows = []
    for x in lines:
        error = sqrt(2 / x["entries"])
        allowed = 1 + 5 * error if x["dim"] > 2 else 1 + 8 * error  # few, dependent entries
        note = (f"one sketch's noise over the bias term: {x['noise']:.3g}; that of the full "
                f"estimate itself: {x['noise_of_full']:.3g}")  # fmt: skip
        rows.append(Row(
            f"the sketch's own bias is zero within error, d = {x['dim']}, m = {x['microbatches']}",
            x["chi_square_per_entry"], 1.0, error, bool(x["chi_square_per_entry"] < allowed), note,
        ))  # fmt: skip
    return rows


@styled
def draw(findings: Findings, path: Path) -> None:
    """Shares by dimension, a panel for each object and law, at most microbatches."""
    lines = findings.tables["shares"]
    most = max(x["microbatches"] for x in lines)
    figure, axes = panels(len(LAWS), len(OBJECTS))
    for column, what in enumerate(OBJECTS):
        names = list(dict.fromkeys(x["law"] for x in lines if x["object"] == what))
        for row, law in enumerate(names):
            axis = axes[row][column]
            chosen = [x for x in lines if (x["object"], x["law"], x["microbatches"])
                      == (what, law, most) and x["full"] is not None]  # fmt: skip
            dims = [x["dim"] for x in chosen]
            for mode in MODES:
                axis.errorbar(dims, [100 * x[mode] for x in chosen],
                              yerr=[200 * x[f"{mode}_error"] for x in chosen], fmt="o-",
                              markersize=3, label=mode)  # fmt: skip
            axis.plot(dims, [200 / (d + 1) for d in dims], "k:", label="2/(d + 1)")
            axis.axhline(100 * PROMISED, color="0.6", linewidth=0.8)
            axis.set(title=f"{what}, {law}, m = {most}", xscale="log", ylim=(-120, 210),
                     xlabel="d", ylabel="share removed, %")  # fmt: skip
            axis.set_xticks(dims, [str(d) for d in dims])
            axis.minorticks_off()
    legend_below(figure, axes[0][0])
    save(figure, path)


STUDY = Study(
    "matrix_shares",
    "full removes 90 % of a matrix rule's bias at m = 64, in every entry that carries more than "
    "1 % of it; eigenvalue_only leaves (d − 1)/(d + 1)",
    study,
    draw,
)
