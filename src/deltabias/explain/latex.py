"""An explanation in LaTeX: a fragment, or a document that compiles on its own."""

import re
from collections.abc import Iterator

from deltabias.explain.record import Explanation, Passage
from deltabias.notation.names import Name
from deltabias.notation.printing import display, latex

IN_MATH = {
    "λ": r"\lambda", "β": r"\beta", "κ": r"\kappa", "μ": r"\mu", "ν": r"\nu", "τ": r"\tau",
    "ε": r"\varepsilon", "σ": r"\sigma", "Σ": r"\Sigma", "√": r"\surd", "∘": r"\circ",
    "≤": r"\le", "ᵗ": "{}^{t}", "ᵀ": "{}^{T}", "₃": "{}_{3}", "₄": "{}_{4}", "ḡ": r"\bar{g}",
}  # fmt: skip
"""Characters of sentences that pdflatex has no glyph for, as formulas."""

_MATH = re.compile(f"[{''.join(IN_MATH)}]+")
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_\allowbreak{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "×": r"$\times$", "½": r"$\tfrac12$", "²": "${}^2$", "³": "${}^3$", "·": r"$\cdot$",
}  # fmt: skip

_HEAD = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{amsmath}
\usepackage[margin=2.5cm]{geometry}
\allowdisplaybreaks
\sloppy
\begin{document}
"""


def escape(text: str) -> str:
    r"""Text that TeX prints as it is.

    >>> print(escape("50% of g²"))
    50\% of g${}^2$
    """
    return "".join(
        f"${latex_of}$" if latex_of else "".join(_SPECIAL.get(c, c) for c in piece)
        for piece, latex_of in in_pieces(text)
    )


def in_pieces(text: str) -> Iterator[tuple[str, str]]:
    """Pieces of a text and what each is as a formula, empty where it stays text.

    >>> list(in_pieces("divided by κ₃"))
    [('divided by ', ''), ('κ₃', '\\\\kappa{}_{3}')]
    """
    at = 0
    for found in _MATH.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], ""
        yield found[0], "".join(IN_MATH[c] for c in found[0])
        at = found.end()
    if at < len(text):
        yield text[at:], ""


def sentence(passage: Passage, names: dict[str, Name]) -> str:
    """The sentence with its expressions typeset."""
    return "".join(
        escape(w) if isinstance(w, str) else f"${latex(w, names)}$" for w in passage.words
    )


def document(explanation: Explanation) -> str:
    """A whole document, for pdflatex, with amsmath alone."""
    title = rf"\section*{{{escape(explanation.title)}}}"
    return "\n".join([_HEAD + title, *_passages(explanation), r"\end{document}", ""])


def fragment(explanation: Explanation) -> str:
    """The displayed equations, one below the other, for a notebook."""
    shown = [
        rf"\text{{{_in_text(p.title)}:}}\quad & {display(p.expression, explanation.names)}"
        for p in explanation.of_kind("update", "term", "bias", "corrected")
        if p.expression is not None
    ]
    body = " \\\\[1ex]\n".join(shown)
    return f"$\\displaystyle\n\\begin{{array}}{{ll}}\n{body}\n\\end{{array}}$"


def _in_text(title: str) -> str:
    return title.replace("_", r"\_")


def _passages(explanation: Explanation) -> Iterator[str]:
    for passage in explanation.passages:
        yield rf"\paragraph{{{escape(passage.title)}.}} {sentence(passage, explanation.names)}"
        if passage.expression is not None:
            yield rf"\[ {display(passage.expression, explanation.names)} \]"
