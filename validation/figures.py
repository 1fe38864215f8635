"""The look of the figures, and svg files that are the same on every run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

STYLE = {
    "svg.hashsalt": "deltabias",  # element ids are hashes; unsalted they would be random
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


styled = plt.rc_context(STYLE)
"""Decorates a function that draws: the style holds while it runs, and nowhere else."""


def panels(rows: int, columns: int, *, height: float = 2.8, width: float = 3.4):
    """A figure and its axes ``[rows, columns]``."""
    return plt.subplots(
        rows,
        columns,
        figsize=(width * columns, height * rows),
        squeeze=False,
        layout="constrained",
    )


def legend_below(figure, axis) -> None:
    """One legend for all panels, out of their way."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)


def plain_log_ticks(axis) -> None:
    """Decades are labelled, what lies between them is not."""
    for one in (axis.xaxis, axis.yaxis):
        one.set_minor_formatter(NullFormatter())


def save(figure, path: Path) -> None:
    """Write the svg without a date in it."""
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
