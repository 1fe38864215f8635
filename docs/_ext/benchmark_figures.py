"""Figures of the benchmarks, drawn from their records: what they show, and the same in words.

A figure is as wide as a telephone lets its text be read. ``FIGURES`` maps a figure's name to its
benchmark, what it shows, and a function of the record's rows that returns how it is drawn and its
values in words, or None where the rows have nothing to show.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

Rows = list[dict[str, Any]]
Drawn = tuple[Callable, str]
WIDTH = 4.7
"""Inches; 450 pixels, so that 9.5 points are 7 where a telephone has 340."""


@dataclass(frozen=True)
class Figure:
    """A figure of a benchmark: ``of(rows)`` is its drawing and its values in words."""

    benchmark: str
    shows: str
    of: Callable[[Rows], Drawn | None]


def number(value: float) -> str:
    """Three digits, as in a text.

    >>> number(4.0453), number(98.51), number(1270.2)
    ('4.05', '98.5', '1270')
    """
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def plain_ticks(axis, at: Iterable[float]) -> None:
    """Ticks at these values and nowhere else, written out."""
    axis.set_major_locator(plt.FixedLocator(list(at)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}".replace(",", " ")))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def spread(row: dict, scale: Callable[[float], float] = float, name: str = "ratio") -> list:
    """Distances to the middle half's ends, as matplotlib takes them."""
    low, middle, high = (scale(row[k]) for k in ("low", name, "high"))
    return [[max(0.0, middle - low)], [max(0.0, high - middle)]]


def ratios(axis, series: dict[str, dict[str, dict]], names: list[str], shade: dict) -> None:
    """Names downwards; for each series the median of a name, and the middle half about it."""
    apart = 0.3 / max(1, len(series) - 1)
    for k, (label, rows) in enumerate(series.items()):
        for i, name in enumerate(n for n in names if n in rows):
            place = names.index(name) + (k - (len(series) - 1) / 2) * apart
            axis.errorbar(
                rows[name]["ratio"], place, xerr=spread(rows[name]), fmt="o", markersize=5,
                color=shade["colors"][k], label=label if i == 0 else None,
            )  # fmt: skip
            if limit := rows[name].get("limit"):
                axis.plot(limit, place, "|", markersize=13, color=shade["ink"])
    axis.axvline(1, color=shade["quiet"], linewidth=0.8)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)


def logarithmic(axis, rows: Iterable[dict], ticks: Iterable[float]) -> None:
    """A logarithmic axis of ratios, with those of the ticks that are within reach."""
    found = [row[end] for row in rows for end in ("low", "high")]
    axis.set_xscale("log")
    plain_ticks(axis.xaxis, [t for t in ticks if 0.9 * min(found) < t < 1.1 * max(found)])


def legend_below(figure, axis, columns: int = 2) -> None:
    """One legend under everything."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with their values, for whoever does not see the figure."""
    return "; ".join(f"{name}: {value}" for name, value in pairs)


def medians(rows: dict[str, dict]) -> str:
    """The ratios in words."""
    return listed((name, number(row["ratio"])) for name, row in rows.items())


def cpu_step(rows: Rows) -> Drawn | None:
    """Every step over torch's, a color for each number of threads."""
    series: dict[str, dict[str, dict]] = {}
    for row in rows:
        threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        series.setdefault(threads, {})[row["step"]] = row
    if not series:
        return None
    names = list(next(iter(series.values())))

    def draw(shade):
        figure, axis = plt.subplots(figsize=(WIDTH, 0.26 * len(names) + 1.1), layout="constrained")
        ratios(axis, series, names, shade)
        every = [row for rows in series.values() for row in rows.values()]
        logarithmic(axis, every, (0.5, 0.8, 1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10))
        axis.set_xlabel("time over torch's fused AdamW")
        legend_below(figure, axis)
        return figure

    return draw, ". ".join(f"{k}: {medians(v)}" for k, v in series.items())


def rivals(rows: Rows) -> Drawn | None:
    """A panel for each kind of optimizer."""
    kinds: dict[str, dict[str, dict]] = {}
    for row in rows:
        if "ratio" in row:
            kinds.setdefault(row["kind"], {})[row["optimizer"]] = row
    if not kinds:
        return None

    def draw(shade):
        heights = [len(v) + 1 for v in kinds.values()]
        figure, axes = plt.subplots(
            len(kinds), 1, figsize=(WIDTH, 0.27 * sum(heights) + 0.9), height_ratios=heights,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis, (kind, found) in zip(axes[:, 0], kinds.items(), strict=True):
            ratios(axis, {kind: found}, list(found), shade)
            logarithmic(axis, found.values(), (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200))
            axis.set_xlabel(f"time over {next(iter(found.values()))['beside']}")
        return figure

    return draw, ". ".join(f"{k}: {medians(v)}" for k, v in kinds.items())


def memory(rows: Rows) -> Drawn | None:
    """Bars: state between steps, and the peak of a whole training step."""
    panels = {"state": "state between steps", "training peak": "peak of a training step"}
    found = {key: {r["form"]: r[key] for r in rows if key in r} for key in panels}
    found = {key: bars for key, bars in found.items() if bars}
    if not found:
        return None

    def draw(shade):
        heights = [len(v) + 1 for v in found.values()]
        figure, axes = plt.subplots(
            len(found), 1, figsize=(WIDTH, 0.28 * sum(heights) + 0.8), height_ratios=heights,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for k, (axis, (key, bars)) in enumerate(zip(axes[:, 0], found.items(), strict=True)):
            drawn = axis.barh(list(bars), list(bars.values()), color=shade["colors"][k], height=0.6)
            axis.bar_label(drawn, [number(v) for v in bars.values()], padding=3)
            axis.margins(x=0.12)
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            axis.set_xlabel(f"{panels[key]}, bytes a parameter")
        return figure

    words = (
        f"{panels[key]}: {listed((n, number(x)) for n, x in bars.items())}"
        for key, bars in found.items()
    )
    return draw, ". ".join(words)


def training(rows: Rows) -> Drawn | None:
    """What a correction adds to a training step, over the tokens of a microbatch."""
    lines: dict[tuple[str, str], Rows] = {}
    for row in rows:
        if "limit" in row and "tokens_a_microbatch" in row:
            lines.setdefault((row["step"], row["model"]), []).append(row)
    if not lines:
        return None
    steps, models = (list(dict.fromkeys(key[i] for key in lines)) for i in (0, 1))
    ticks = sorted({r["tokens_a_microbatch"] for found in lines.values() for r in found})

    def added(ratio: float) -> float:
        return 100 * (ratio - 1)

    def draw(shade):
        figure, axis = plt.subplots(figsize=(WIDTH, 3.5), layout="constrained")
        for (step, model), found in lines.items():
            bars = [spread(r, added) for r in found]
            axis.errorbar(
                [r["tokens_a_microbatch"] for r in found], [added(r["ratio"]) for r in found],
                [[b[i][0] for b in bars] for i in (0, 1)], label=f"{step}, {model} parameters",
                color=shade["colors"][steps.index(step)], marker="os^D"[models.index(model)],
                linestyle=("-", "--", ":")[models.index(model)], markersize=5, capsize=3,
            )  # fmt: skip
        limit = added(next(iter(lines.values()))[0]["limit"])
        axis.axhline(limit, color=shade["quiet"], linewidth=1)
        axis.annotate(f"claimed: {limit:.0f} %", (0.02, limit), xycoords=("axes fraction", "data"),
                      va="bottom", color=shade["quiet"])  # fmt: skip
        axis.set_xscale("log")
        plain_ticks(axis.xaxis, ticks)
        axis.set_xlabel("tokens in each of 8 microbatches")
        axis.set_ylabel("added to a training step, %")
        legend_below(figure, axis, 1)
        return figure

    def at(found: Rows) -> str:
        return listed(
            (f"{r['tokens_a_microbatch']} tokens", f"{added(r['ratio']):.1f} %") for r in found
        )

    return draw, ". ".join(f"{s}, {m}: {at(found)}" for (s, m), found in lines.items())


def growth(size_is: str, label: str) -> Callable[[Rows], Drawn | None]:
    """Time over size, both logarithmic, a line for each thing that is timed."""

    def of(rows: Rows) -> Drawn | None:
        sized = [r for r in rows if size_is in r and "milliseconds" in r]
        lines: dict[str, Rows] = {}
        for row in sized:
            lines.setdefault(row["what"], []).append(row)
        lines = {what: found for what, found in lines.items() if len(found) > 1}
        if not lines:
            return None
        exponents = {r["what"]: r["exponent"] for r in rows if "exponent" in r}

        def draw(shade):
            figure, axis = plt.subplots(figsize=(WIDTH, 4.0), layout="constrained")
            colors = shade["colors"]
            for i, (what, found) in enumerate(lines.items()):
                axis.plot(
                    [r[size_is] for r in found], [r["milliseconds"] for r in found], label=what,
                    marker="o", markersize=4, color=colors[i % len(colors)],
                    linestyle=("-", "--", ":")[i // len(colors)],
                )  # fmt: skip
            axis.set_xscale("log")
            axis.set_yscale("log")
            if size_is == "d":
                plain_ticks(axis.xaxis, sorted({r["d"] for r in sized}))
            axis.set_xlabel(label)
            axis.set_ylabel("milliseconds")
            legend_below(figure, axis)
            return figure

        shown = ((what, f"{exponents[what]:.2f}") for what in lines if what in exponents)
        return draw, f"Fitted exponents: {listed(shown)}"

    return of


def microbatches(rows: Rows) -> Drawn | None:
    """What one costs among m, over what it costs among eight."""
    found = [r for r in rows if "microbatches" in r and "ratio" in r]
    if not found:
        return None

    def draw(shade):
        figure, axis = plt.subplots(figsize=(WIDTH, 2.5), layout="constrained")
        bars = [spread(r) for r in found]
        axis.errorbar(
            [r["microbatches"] for r in found], [r["ratio"] for r in found],
            [[b[i][0] for b in bars] for i in (0, 1)], marker="o", markersize=5, capsize=3,
            color=shade["colors"][1],
        )  # fmt: skip
        axis.axhspan(0.9, 1.1, color=shade["quiet"], alpha=0.2, linewidth=0)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        plain_ticks(axis.xaxis, [r["microbatches"] for r in found])
        axis.set_xlabel("microbatches in a step")
        axis.set_ylabel("time of one, among 8 = 1")
        return figure

    return draw, listed((f"m = {r['microbatches']}", number(r["ratio"])) for r in found)


FIGURES = {
    "cpu_step": Figure(
        "cpu_step",
        "One step of 10 million parameters over torch's fused AdamW: the median of the ratios "
        "and their middle half; a bar marks what is claimed.",
        cpu_step,
    ),
    "training_step": Figure(
        "training_step",
        "What a correction adds to a whole training step, by tokens in a microbatch: the median of "
        "the ratios and their middle half.",
        training,
    ),
    "growth_parameters": Figure(
        "growth",
        "Time of a step over the number of parameters, one thread.",
        growth("parameters", "parameters"),
    ),
    "growth_microbatches": Figure(
        "growth",
        "Time that the statistics take for a microbatch, over the number of microbatches of a "
        "step; the band is the 10 % that are claimed.",
        microbatches,
    ),
    "growth_matrices": Figure(
        "growth",
        "Time of matrix roots and of their full correction over the matrix's size, one thread.",
        growth("d", "d, of a d × d matrix"),
    ),
    "memory": Figure("memory", "Bytes a parameter, counted from the allocator.", memory),
    "rivals": Figure(
        "rivals",
        "A step beside what a user would pick instead, on a logarithmic scale: the median of the "
        "ratios and their middle half.",
        rivals,
    ),
}
