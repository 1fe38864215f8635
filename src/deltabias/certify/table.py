"""The table of certificates in proofs/README.md: the part between two marks is generated."""

import re
from collections.abc import Iterable
from pathlib import Path

from deltabias.certify import coq
from deltabias.errors import CertifyError

BEGIN = "<!-- certificates: written by proofs/check.py --write-table -->"
END = "<!-- end of certificates -->"
AXIOMS = {
    "ClassicalDedekindReals.sig_forall_dec": "A",
    "ClassicalDedekindReals.sig_not_dec": "B",
    "FunctionalExtensionality.functional_extensionality_dep": "C",
    "Classical_Prop.classic": "D",
}
_KIND = re.compile(r"(\w+): (.*)", re.S)


def render(report: coq.Report) -> str:
    """Rule, statement, theorem, file, seconds (rounded up), axioms: a line for each theorem."""
    lines = [
        BEGIN,
        "",
        "Axioms: " + "; ".join(f"{letter} `{name}`" for name, letter in AXIOMS.items()) + ".",
        "",
        "| rule | kind | statement | theorem | file | seconds | axioms |",
        "|---|---|---|---|---|---|---|",
    ]
    for theorem in certified(report.theorems):
        name = theorem.file.split(".", 1)[1]
        kind, words = kind_of(theorem.words)
        axioms = " ".join(sorted(AXIOMS[a] for a in report.axioms[theorem.file])) or "none"
        seconds = max(1, round(report.seconds[theorem.file]))
        lines.append(
            f"| {name} | {kind or 'theorem'} | {_cell(words)} | `{theorem.name}` "
            f"| [{name}.v](certificates/{name}.v) | {seconds} | {axioms} |"
        )
    return "\n".join([*lines, "", END])


def certified(theorems: Iterable[coq.Statement]) -> list[coq.Statement]:
    """Those of certificates."""
    return [t for t in theorems if t.file.startswith(f"{coq.CERTIFICATES}.")]


def kind_of(words: str) -> tuple[str, str]:
    """The kind that stands before the sentence, and the sentence.

    >>> kind_of("bound: It is small.")
    ('bound', 'It is small.')
    """
    found = _KIND.fullmatch(words)
    return (found[1].replace("_", " "), found[2]) if found else ("", words)


def _cell(words: str) -> str:
    # in a cell a bar would end it, and a star or an underscore would start emphasis
    return re.sub(r"([*_|])", r"\\\1", words)


def write(readme: Path, report: coq.Report) -> None:
    """Replace the part between the marks.

    Raises
    ------
    CertifyError
        for a file without the two marks.
    """
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise CertifyError(f"{readme} lacks the lines {BEGIN!r} and {END!r}; put them back.")
    readme.write_text(before + render(report) + after)
