"""A report as a figure: by step and by noise share, predicted as lines and simulated as points."""

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltabias.errors import DeltabiasError
from deltabias.report.rows import Row

if TYPE_CHECKING:
    from deltabias.report.record import Report

ERROR_BARS = 2  # standard errors


def draw(report: "Report", path: Path) -> Path:
    """Draw and write; see `Report.figure`."""
    if path.suffix != ".svg":
        raise DeltabiasError(f"figure {str(path)!r} must end in .svg, the only format written.")
    panels = 2 if report.steady_state else 1
    figure = Figure(figsize=(5.2 * panels, 3.8), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _by_step(axes[0], report)
    if report.steady_state:
        _steady_state(axes[1], report)
    settings = report.settings
    hypers = ", ".join(f"{k}={v:g}" for k, v in settings["hypers"].items())
    figure.suptitle(
        f"{settings['rule_name']}: {hypers}; {settings['microbatches']} microbatches, "
        f"{settings['law']} gradients",
        fontsize="medium",
    )
    # no date and no random identifiers: the same report is the same file
    with matplotlib.rc_context({"svg.hashsalt": "deltabias"}):
        return _write(figure, path)


def _write(figure: Figure, path: Path) -> Path:
    drawing = BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".svg", delete=False) as file:
            file.write(drawing.getvalue())
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        Path(file.name).unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> DeltabiasError:
    return DeltabiasError(f"figure {str(path)!r} cannot be written: {error.strerror}.")


def _by_step(axes: Axes, report: "Report") -> None:
    for color, share in enumerate(dict.fromkeys(r.noise_share for r in report.by_step)):
        rows = [r for r in report.by_step if r.noise_share == share]
        _curve(axes, [r.step for r in rows], rows, f"C{color}", f"noise share {share:g}")
    axes.set(xlabel="step", ylabel="relative bias, %", xscale="log", title="by step")
    _finish(axes)


def _steady_state(axes: Axes, report: "Report") -> None:
    rows = list(report.steady_state)
    _curve(axes, [r.noise_share for r in rows], rows, "C0", "predicted")
    leading = [(r.noise_share, r.leading_order) for r in rows if r.leading_order is not None]
    if leading:
        x, y = zip(*leading, strict=True)
        axes.plot(x, [100 * v for v in y], "k:", label="leading order")
    axes.set(xlabel="noise share", ylabel="relative bias, %", title="steady state")
    _finish(axes)


def _curve(axes: Axes, x: list[float], rows: list[Row], color: str, label: str) -> None:
    line = [(a, 100 * r.predicted) for a, r in zip(x, rows, strict=True) if r.predicted is not None]
    dots = [
        (a, 100 * r.simulated, 100 * ERROR_BARS * r.standard_error)
        for a, r in zip(x, rows, strict=True)
        if r.simulated is not None
    ]
    if line:
        axes.plot(*zip(*line, strict=True), color=color, label=label)
    if dots:
        a, y, bars = zip(*dots, strict=True)
        axes.errorbar(a, y, yerr=bars, fmt="o", color=color, markersize=4, capsize=2)


def _finish(axes: Axes) -> None:
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
