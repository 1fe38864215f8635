"""What an explanation is: passages in order, each a sentence, an expression and an id."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from deltabias.errors import DeltabiasError
from deltabias.matrix_rule import MatrixRule
from deltabias.notation.names import Name
from deltabias.notation.printing import plain
from deltabias.rule import UpdateRule

Word = str | sp.Basic
"""A piece of a sentence: text, or an expression that is typeset within it."""

KINDS = (
    "update",
    "statistic",
    "expansion",
    "derivative",
    "function",
    "intermediate",
    "term",
    "bias",
    "domain",
    "moment",
    "safe",
    "estimate",
    "corrected",
    "claim",
    "source",
)
"""What a passage is about, in the order in which they come."""


@dataclass(frozen=True)
class Passage:
    """One step of an explanation.

    Parameters
    ----------
    id : unique within the explanation: lower-case words, names and digits with ``-`` in between
    kind : one of `KINDS`
    title : a few words
    words : the sentence, text and expressions in turn
    expression : what is shown below it; None where the sentence says it all
    """

    id: str
    kind: str
    title: str
    words: tuple[Word, ...]
    expression: sp.Basic | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind=} is no kind of passage; use {', '.join(KINDS)}.")

    @property
    def sentence(self) -> str:
        """The words as plain text, names as they are in the code."""
        return "".join(w if isinstance(w, str) else plain(w) for w in self.words)


@dataclass(frozen=True)
class Explanation:
    """A rule's bias and correction, explained from the objects that print its code.

    ``strategy`` is the correction that is explained, None where none applies; ``start`` the number
    of the first passage, which is not 1 for a part of an explanation.
    """

    rule: UpdateRule | MatrixRule
    passages: tuple[Passage, ...]
    strategy: str | None = None
    start: int = 1

    def __post_init__(self) -> None:
        ids = [p.id for p in self.passages]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"two passages are called {', '.join(twice)}.")

    @property
    def title(self) -> str:
        """The rule's title, or its name."""
        return self.rule.title or self.rule.name

    @cached_property
    def names(self) -> Mapping[str, Name]:
        """What the rule's symbols are called in formulas."""
        return self.rule.notation

    def of_kind(self, *kinds: str) -> tuple[Passage, ...]:
        """The passages about that."""
        return tuple(p for p in self.passages if p.kind in kinds)

    def find(self, which: int | str) -> Passage:
        """A passage by its number, from 1, or by its id.

        Raises
        ------
        DeltabiasError
            with the numbers or ids that there are.
        """
        count = len(self.passages)
        text = str(which)
        if text.lstrip("-").isdigit():
            if not 1 <= int(text) <= count:
                raise DeltabiasError(
                    f"step {text}: the explanation of {self.rule.name!r} has steps 1 to {count}."
                )
            return self.passages[int(text) - 1]
        for passage in self.passages:
            if passage.id == text:
                return passage
        raise DeltabiasError(
            f"no step {text!r} in the explanation of {self.rule.name!r}; there are "
            f"{', '.join(p.id for p in self.passages)}."
        )

    def only(self, which: int | str) -> "Explanation":
        """The explanation's one passage."""
        passage = self.find(which)
        return Explanation(
            self.rule, (passage,), self.strategy, self.start + self.passages.index(passage)
        )

    def _repr_latex_(self) -> str:
        from deltabias.explain.latex import fragment

        return fragment(self)

    def _repr_html_(self) -> str:
        from deltabias.explain.html import fragment

        return fragment(self)
