"""The record that a certificate is: a Coq file, and in words what each theorem in it says.

Pure text. A certificate claims nothing until ``deltabias certify`` (or ``make proofs``) has
compiled ``text`` and found its theorems free of axioms beyond the reals.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["derivative", "bound", "coefficient", "remainder", "bridge", "closed_form"]
KINDS: tuple[str, ...] = get_args(Kind)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_']*")
_STATED = re.compile(r"^(?:Theorem|Corollary)\s+([A-Za-z_][\w']*)", re.M)


@dataclass(frozen=True)
class Theorem:
    """One statement of a certificate.

    ``name`` is its name in the file, ``says`` one English sentence, ``kind`` what it is about:
    ``derivative`` (a derivative tower), ``bound`` (of the last derivative), ``coefficient`` (a term
    of the bias), ``remainder`` (what is left, explicitly), ``bridge`` (the printed program is the
    certified expression), ``closed_form`` (a form in hyperparameters alone).

    Raises:
        ValueError: a name Coq cannot read, an unknown kind, or no sentence.
    """

    name: str
    says: str
    kind: Kind

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"theorem name={self.name!r} is no Coq identifier; use letters and _.")
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of {self.name}; allowed are {', '.join(KINDS)}.")
        if not self.says.strip().endswith("."):
            raise ValueError(f"says={self.says!r} of {self.name} must be a sentence with its stop.")


@dataclass(frozen=True)
class Certificate:
    """A Coq file and what it claims.

    ``subject`` names the rule, ``text`` is the file, ``theorems`` its statements in order,
    ``order`` the order of the derivatives in the expansion (2 or 4), ``domain`` the hypotheses in
    words (``"v > 0"``), ``not_certified`` names in words what is not covered.

    Raises:
        ValueError: the theorems are not exactly those that the text states.
    """

    subject: str
    text: str
    theorems: tuple[Theorem, ...]
    order: int
    domain: tuple[str, ...]
    not_certified: tuple[str, ...]

    def __post_init__(self) -> None:
        stated = _STATED.findall(self.text)
        listed = [theorem.name for theorem in self.theorems]
        if stated != listed:
            raise ValueError(
                f"the certificate of {self.subject} lists theorems={listed}, its text states "
                f"{stated}; they must be the same in the same order (helpers are Lemma or Fact)."
            )


def with_words(text: str, theorems: Sequence[Theorem]) -> str:
    """The text with ``(** kind: sentence *)`` above each theorem, where the tools read it.

    >>> one = Theorem("one", "One is one.", "bound")
    >>> print(with_words("Theorem one : 1 = 1.", [one]))
    (** bound: One is one. *)
    Theorem one : 1 = 1.
    """
    for theorem in theorems:
        says = theorem.says.replace("(*", "( *").replace("*)", "* )")
        words = f"(** {theorem.kind}: {says} *)\n"
        stated = re.compile(
            rf"(?:\(\*\*(?:(?!\*\)).)*\*\)\s*)?^((?:Theorem|Corollary)\s+{re.escape(theorem.name)}(?![\w']))",
            re.M | re.S,
        )
        text = stated.sub(lambda found, words=words: words + found[1], text, count=1)
    return text
