"""HTML for notebooks and pages: escaped, without script, in the reader's own colors.

Nothing here sets a color of text or background except by name of the system's own, so that a dark
theme stays dark; a verdict is told by its word, and by a border that has its color besides.
"""

from collections.abc import Iterable, Sequence
from html import escape

BORDERS = {"pass": "#2e7d32", "fail": "#c62828", "error": "#c62828", "inconclusive": "#b26a00"}
"""Of a verdict; the word next to it says the same."""

_SCROLL = "overflow-x:auto;max-width:100%"


def card(title: str, formulas: Iterable[str], lines: Iterable[str] = ()) -> str:
    """A title, formulas (already markup) and lines of text (not yet)."""
    body = "".join(f'<div style="{_SCROLL}">{f}</div>' for f in formulas)
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    listed = f"<ul>{items}</ul>" if items else ""
    return f'<div class="deltabias"><p><strong>{escape(title)}</strong></p>{body}{listed}</div>'


def fold(title: str, body: str, *, anchor: str = "", is_open: bool = False) -> str:
    """A part that opens by mouse or keyboard; `body` is markup, `title` is not."""
    mark = f' id="{escape(anchor)}"' if anchor else ""
    opened = ' open=""' if is_open else ""
    return (
        f"<details{mark}{opened}><summary>{escape(title)}</summary>"
        f'<div style="{_SCROLL}">{body}</div></details>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text."""
    first = "".join(f'<th scope="col" style="text-align:left">{escape(h)}</th>' for h in head)
    rest = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{escape(str(cell))}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div style="{_SCROLL}"><table><thead><tr>{first}</tr></thead>'
        f"<tbody>{rest}</tbody></table></div>"
    )


def badge(verdict: str) -> str:
    """A verdict in a frame of its color."""
    color = BORDERS.get(verdict, "currentColor")
    style = f"border:2px solid {color};border-radius:4px;padding:0 0.4em"
    return f'<strong style="{style}">{escape(verdict)}</strong>'


def text_in_math(text: str) -> str:
    r"""Words within a formula, for TeX, MathJax and KaTeX.

    >>> print(text_in_math("100% of exp_avg"))
    \text{100\% of exp\_avg}
    """
    special = {"\\": r"\backslash ", "{": r"\{", "}": r"\}", "^": r"\hat{}", "~": r"\sim "}
    inside = {c: f"\\{c}" for c in "#$%&_"}
    shown = "".join(inside.get(c, f"}}{special[c]}\\text{{" if c in special else c) for c in text)
    return rf"\text{{{shown}}}"
