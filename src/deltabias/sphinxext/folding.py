"""Foldable steps: ``<details>`` in HTML; elsewhere a bold title and what it says.

In builders that cannot typeset a formula it is drawn in Unicode.
"""

from collections.abc import Callable

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

PLAIN_FORMATS = ("text", "man", "texinfo")
"""Builders' formats in which LaTeX would be shown as it is."""

DRAWN = "deltabias-drawn"
"""The attribute of a formula with what it is in Unicode."""


class fold(nodes.General, nodes.Element):
    """A step: a `fold_title`, then its body; ``open`` says whether it starts unfolded."""


class fold_title(nodes.General, nodes.TextElement):
    """The line that is always seen."""


def formula(latex: str, drawn: str, docname: str) -> nodes.math_block:
    """A displayed formula for every builder."""
    node = nodes.math_block(
        latex, latex, nowrap=False, number=None, label=None, docname=docname, classes=[]
    )
    node["no-wrap"] = False
    node[DRAWN] = drawn
    return node


def inline_formula(latex: str, drawn: str) -> nodes.math:
    """A formula within a sentence."""
    node = nodes.math(latex, latex)
    node[DRAWN] = drawn
    return node


def _open_fold(self, node: fold) -> None:
    attributes = {"open": "open"} if node["open"] else {}
    self.body.append(self.starttag(node, "details", CLASS="deltabias-step", **attributes))


def _close_fold(self, node: fold) -> None:
    self.body.append("</details>\n")


def _open_title(self, node: fold_title) -> None:
    self.body.append(self.starttag(node, "summary", ""))


def _close_title(self, node: fold_title) -> None:
    self.body.append("</summary>\n")


def html_visitors() -> dict[type[nodes.Element], tuple[Callable, Callable]]:
    """How HTML is written; for other formats `Unfolded` leaves nothing of these nodes."""
    return {fold: (_open_fold, _close_fold), fold_title: (_open_title, _close_title)}


class Unfolded(SphinxPostTransform):
    """Folds and formulas in terms that every other builder knows."""

    default_priority = 20

    def run(self, **kwargs: object) -> None:
        """Change the document that is about to be written, not the one that was read."""
        if self.app.builder.format == "html":
            return
        for node in list(self.document.findall(fold)):
            title, *body = node.children
            heading = nodes.paragraph("", "", nodes.strong("", "", *title.children))
            heading["ids"] = node["ids"]
            node.replace_self([heading, *body])
        if self.app.builder.format in PLAIN_FORMATS:
            self._draw()

    def _draw(self) -> None:
        for node in list(self.document.findall(nodes.math_block)):
            if drawn := node.get(DRAWN):
                node.replace_self(nodes.literal_block(drawn, drawn, language="none"))
        for node in list(self.document.findall(nodes.math)):
            if drawn := node.get(DRAWN):
                node.replace_self(nodes.Text(drawn))
