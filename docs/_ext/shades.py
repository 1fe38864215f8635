"""The look of the site's figures: one drawing, in the page's light and in its dark colors."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

SHADES = {
    "light": {
        "ink": "#1b1f24",
        "quiet": "#59636e",
        "colors": ["#b3261e", "#0b57d0", "#6b7d00", "#8a3ffc"],
    },
    "dark": {
        "ink": "#e6e9ec",
        "quiet": "#9aa4ae",
        "colors": ["#ff8a80", "#8ab4f8", "#c8d96f", "#d0a9ff"],
    },
}


def style(shade: str) -> dict:
    """Matplotlib's settings for a shade; the background is the page's own."""
    ink, quiet = SHADES[shade]["ink"], SHADES[shade]["quiet"]
    return {
        "svg.hashsalt": "deltabias",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": quiet,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": quiet,
        "grid.alpha": 0.25,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.prop_cycle": plt.cycler(color=SHADES[shade]["colors"]),
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
    }


def in_both_shades(draw) -> dict[str, str]:
    """The svg of ``draw(shade's colors)``, a figure, for each shade; the same text every time."""
    drawn = {}
    for shade, colors in SHADES.items():
        with plt.rc_context(style(shade)):
            figure, text = draw(colors), io.StringIO()
            metadata = {"Date": None, "Creator": None}
            figure.savefig(text, format="svg", transparent=True, metadata=metadata)
            plt.close(figure)
            drawn[shade] = text.getvalue()
    return drawn


def both_shades(draw, path: Path) -> None:
    """Write ``path-light.svg`` and ``path-dark.svg``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for shade, text in in_both_shades(draw).items():
        path.with_name(f"{path.name}-{shade}.svg").write_text(text, encoding="utf-8")
