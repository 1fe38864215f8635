"""The look of the figures, and svg files that are the same on every run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

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


def panels(rows: int, columns: int, *, height: float = 2.8, width: float = 3.4, **keywords):
    """A figure and its axes ``[rows, columns]``, as `matplotlib.pyplot.subplots` gives them."""
    with plt.rc_context(STYLE):
        return plt.subplots(
            rows,
            columns,
            figsize=(width * columns, height * rows),
            squeeze=False,
            layout="constrained",
            **keywords,
        )


def save(figure, path: Path) -> None:
    """Write the svg without a date in it."""
    with plt.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
