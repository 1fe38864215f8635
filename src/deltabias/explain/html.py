"""An explanation in HTML: foldable passages, mathematics as MathML, no script, no request."""

from html import escape

from deltabias.explain.record import Explanation, Passage
from deltabias.notation.markup import fold
from deltabias.notation.printing import mathml

OPEN = ("update", "term", "bias", "corrected", "claim")
"""Kinds of passages that are open from the start."""

_STYLE = """
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; line-height: 1.5; max-width: 46rem;
       margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
details { border-inline-start: 2px solid; padding-inline-start: 0.8rem; margin-block: 0.6rem; }
summary { cursor: pointer; font-weight: 600; }
math[display="block"] { margin-block: 0.6rem; }
"""


def fragment(explanation: Explanation) -> str:
    """The passages alone, for a notebook or a page."""
    head = f"<p><strong>{escape(explanation.title)}</strong></p>"
    body = "".join(_passage(p, explanation) for p in explanation.passages)
    return f'<div class="deltabias">{head}{body}</div>'


def page(explanation: Explanation) -> str:
    """A page that needs nothing else."""
    title = escape(explanation.title)
    body = "\n".join(_passage(p, explanation) for p in explanation.passages)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _passage(passage: Passage, explanation: Explanation) -> str:
    said = "".join(
        escape(w) if isinstance(w, str) else mathml(w, explanation.names, block=False)
        for w in passage.words
    )
    shown = "" if passage.expression is None else mathml(passage.expression, explanation.names)
    return fold(
        passage.title,
        f"<p>{said}</p>{shown}",
        anchor=f"deltabias-{explanation.rule.name}-{passage.id}",
        is_open=passage.kind in OPEN,
    )
