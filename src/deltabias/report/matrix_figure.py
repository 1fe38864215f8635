"""A matrix report as a figure: the share of the bias removed, a bar a mode."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

from deltabias.errors import DeltabiasError
from deltabias.report.figure import ERROR_BARS, _write

if TYPE_CHECKING:
    from deltabias.report.matrix_record import MatrixReport

FLOOR = -1.2
"""Shares below are drawn here and labeled: a mode that triples the bias would hide the others."""


def draw(report: "MatrixReport", path: Path) -> Path:
    """Draw and write; see `MatrixReport.figure`."""
    if path.suffix != ".svg":
        raise DeltabiasError(f"figure {str(path)!r} must end in .svg, the only format written.")
    names = list(report.modes)
    shares = [report.modes[n] for n in names]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    drawn = [100 * max(FLOOR, s.removed) for s in shares]
    bars = [100 * ERROR_BARS * s.standard_error for s in shares]
    axes.bar(names, drawn, yerr=bars, color="C0", capsize=3)
    for place, (share, height) in enumerate(zip(shares, drawn, strict=True)):
        offset = (0, 4 if height >= 0 else -12)
        text, at = f"{100 * share.removed:.1f}", (place, height)
        axes.annotate(text, at, offset, textcoords="offset points", ha="center")
    axes.axhline(100, color="0.5", linestyle=":", linewidth=0.8)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set(ylabel="share of the bias removed, %")
    axes.margins(y=0.12)
    at = report.settings
    axes.set_title(
        f"{report.name}, {report.of}: {at['dim']} × {at['columns']}, {at['microbatches']} "
        f"microbatches, {at['law']}, condition {at['condition']:g}",
        fontsize="medium",
    )
    # no date and no random identifiers: the same report is the same file
    with matplotlib.rc_context({"svg.hashsalt": "deltabias"}):
        return _write(figure, path)
