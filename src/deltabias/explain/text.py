"""An explanation for a terminal: sentences wrapped, equations drawn in Unicode."""

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap

import sympy as sp
from sympy.printing.pretty.pretty_symbology import line_width

from deltabias.errors import DeltabiasError
from deltabias.explain.record import Explanation, Passage
from deltabias.notation.printing import plain, pretty

NARROWEST = 20
INDENT = "    "

_BOLD, _FAINT, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def render(explanation: Explanation, *, width: int = 80, color: bool = False) -> str:
    """Every passage with its number and id; no line is longer than `width` columns.

    Raises
    ------
    DeltabiasError
        for a width below 20.
    """
    if width < NARROWEST:
        raise DeltabiasError(f"{width=} columns cannot hold an equation; use {NARROWEST} or more.")
    head = _fill(f"{explanation.title}: u = {explanation.rule}", width, "")
    parts = [[_styled(line, _BOLD, color) for line in head]]
    for number, passage in enumerate(explanation.passages, explanation.start):
        parts.append(list(_passage(number, passage, width, color)))
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _styled(text: str, code: str, color: bool) -> str:
    return f"{code}{text}{_PLAIN}" if color else text


def _fill(text: str, width: int, indent: str) -> list[str]:
    return wrap(text, width, initial_indent=indent, subsequent_indent=indent) or [""]


def _passage(number: int, passage: Passage, width: int, color: bool) -> Iterator[str]:
    for line in _fill(f"{number}. {passage.title}", width, ""):
        yield _styled(line, _BOLD, color)
    for line in _fill(f"[{passage.id}]", width, INDENT):
        yield _styled(line, _FAINT, color)
    yield from _fill(passage.sentence, width, INDENT)
    if passage.expression is not None:
        yield ""
        yield from (f"{INDENT}{line}".rstrip() for line in drawn(passage.expression, width - 4))


def drawn(expression: sp.Basic, width: int) -> list[str]:
    """The expression in lines of at most `width` columns.

    In two dimensions where that fits; else its terms below each other, each in two dimensions if
    it fits, or wrapped in one.
    """
    if isinstance(expression, sp.Tuple):
        return [line for item in expression for line in drawn(item, width)]
    whole = pretty(expression).splitlines()
    if _fits(whole, width):
        return whole
    if isinstance(expression, sp.Equality):
        left = [f"{line} =" for line in drawn(expression.lhs, width - 2)]
        inner = drawn(expression.rhs, max(width - 2, NARROWEST // 2))
        return [*_sided(expression.lhs, left, width), *(f"  {line}" for line in inner)]
    if isinstance(expression, sp.Add):
        return list(_terms(expression.as_ordered_terms(), width))
    return _wrapped(plain(expression), width)


def _sided(left: sp.Basic, fallback: list[str], width: int) -> list[str]:
    """A left side with its sign of equality at its own height."""
    block = pretty(sp.Eq(left, sp.Symbol(" "), evaluate=False)).splitlines()
    return block if _fits(block, width) else fallback


def _terms(terms: Sequence[sp.Expr], width: int) -> Iterator[str]:
    for i, term in enumerate(terms):
        negative = term.as_coeff_Mul()[0].is_negative
        block = drawn(-term if negative else term, width - 2)
        middle = len(block) // 2
        for j, line in enumerate(block):
            sign = ("- " if negative else "+ " if i else "  ") if j == middle else "  "
            yield sign + line


def _wrapped(text: str, width: int) -> list[str]:
    """One line of formula over several, broken after operators where it can be."""
    lines, line = [], ""
    for piece in re.findall(r"[^\s*/+,()-]+|\*\*|.", text):
        while piece:
            room = width - line_width(line)
            if line_width(piece) <= room:
                line, piece = line + piece, ""
            elif not line.strip():  # a name that is wider than the page
                lines, line, piece = [*lines, line + piece[:room]], "  ", piece[room:]
            else:
                lines, line = [*lines, line], "  "
    return [*lines, line]


def _fits(lines: Sequence[str], width: int) -> bool:
    return all(line_width(line) <= width for line in lines)
