"""Docstrings as the project writes them, made into reStructuredText before napoleon reads them.

In a terminal a docstring is plain text: formulas stand indented, `*` and `|` are mathematics. Here
indented paragraphs become literal blocks and the signs lose their meaning as markup.
"""

import re

_SECTION = re.compile(r"^-{3,}$")
_CODE = re.compile(r"``.*?``|`[^`]*`")
_GOOGLE = re.compile(r"(Args|Arguments|Returns|Raises|Yields|Examples?|Notes?):\Z")
ITEMS = ("Parameters", "Attributes", "Other Parameters")


def convert(lines: list[str]) -> list[str]:
    """The docstring's lines as reStructuredText.

    >>> convert(["A sum", "", "    a*b + |c|", "", "of x_ and *y."])
    ['A sum', '', '::', '', '    a*b + |c|', '', 'of x\\\\_ and \\\\*y.']
    """
    out: list[str] = []
    state = "text"  # or "section" (numpydoc's or Google's), "literal", "verbatim", "doctest"
    for block in _blocks(lines):
        first = block[0]
        flush = not first.startswith(" ")
        state = _state(block, state, flush)
        if state == "literal":
            out += ["::", "", *(line if line.startswith(" ") else f"    {line}" for line in block)]
        elif state in ("verbatim", "doctest"):
            out += block
        else:
            if state == "after":  # a paragraph that follows a section's items
                out += ["Notes", "-----"]
                state = "text"
            out += map(escape, block)
        out.append("")
    return out[:-1]


def _blocks(lines: list[str]) -> list[list[str]]:
    """The paragraphs: runs of lines that are not blank."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line.rstrip())
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def _state(block: list[str], before: str, flush: bool) -> str:
    """What a paragraph is, given the one before it."""
    first, rest = block[0], block[1:]
    if first.lstrip().startswith(">>> "):
        return "doctest"
    if rest and _SECTION.match(rest[0]):
        return "items" if first in ITEMS else "section"
    if _GOOGLE.match(first):
        return "section"
    if first.startswith((".. ", "- ", "* ", ":")) or re.match(r"\d+\. ", first):
        return "verbatim" if first.startswith(".. ") else "text"
    if flush:
        if before == "items" and not (rest and rest[0].startswith(" ")) and " : " not in first:
            return "after"
        if before in ("items", "section") and rest and rest[0].startswith(" "):
            return before
        # columns of text, aligned by hand
        return "literal" if any(line.startswith("  ") for line in rest) else "text"
    if before in ("section", "items", "verbatim"):
        return before
    return "literal"


def escape(line: str) -> str:
    """The line with `*`, `|` and a word's trailing `_` as characters; code is left alone."""
    parts, at = [], 0
    for found in _CODE.finditer(line):
        parts += [_escape_text(line[at : found.start()]), found.group()]
        at = found.end()
    return "".join([*parts, _escape_text(line[at:])])


def _escape_text(text: str) -> str:
    bullet = re.match(r"\s*[*] ", text)
    head, rest = (text[: bullet.end()], text[bullet.end() :]) if bullet else ("", text)
    rest = (
        re.sub(r"(?<!\*)\*(?!\*)", r"\\*", rest) if "**" not in rest else rest.replace("*", r"\*")
    )
    rest = rest.replace("|", r"\|")
    return head + re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", rest)


def setup(app):
    def process(app, what, name, thing, options, lines):
        lines[:] = convert(lines)

    app.connect("autodoc-process-docstring", process, priority=100)  # napoleon comes at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
