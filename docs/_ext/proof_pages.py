"""The theorems in words, a page for every Coq file, and a role that links to a theorem.

``{theorem}`delta_theorem` `` becomes a link to the theorem's row; a name that no file in
``proofs/theory`` states is a warning, and so fails the build.
"""

import re
from pathlib import Path

from api_pages import HERE, write_changed
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

NO_CERTIFICATE = (
    "There is no certificate of this one yet; the [theory](../theory/index.md) is about maps, and "
    "says [what it does not cover](../theory/not_proved.md)."
)
log = logging.getLogger(__name__)
PROOFS = HERE.parent / "proofs"
STATED = re.compile(
    r"(?:\(\*\*((?:(?!\*\)).)*)\*\)\s*)?^(?:Theorem|Corollary)\s+([\w']+)", re.M | re.S
)
"""A theorem, and the comment right above it, which says what it states."""
FOLDER = HERE / "_generated" / "proofs"


def theorems() -> dict[str, list[tuple[str, str]]]:
    """For each file of the theory its theorems: (name, what it says)."""
    found = {}
    for path in sorted((PROOFS / "theory").glob("*.v")):
        stated = STATED.finditer(path.read_text(encoding="utf-8"))
        found[path.stem] = [(m[2], " ".join((m[1] or "").split()).lstrip("* ")) for m in stated]
    return found


def _page(name: str, stated: list[tuple[str, str]]) -> str:
    lines = [f"# {name}.v", ""]
    for theorem, words in stated:
        lines += [
            f"(theorem-{theorem})=",
            f"**{theorem}**",
            f": {_plain(words) or '(no words)'}",
            "",
        ]
    source = f"../../../proofs/theory/{name}.v"
    return "\n".join(
        [*lines, "## The file", "", f"```{{literalinclude}} {source}", ":language: coq", "```", ""]
    )


def _plain(words: str) -> str:
    """A comment of Coq's as MyST: nothing in it is markup."""
    return re.sub(r"([\\`*_$<>\[\]{}|#])", r"\\\1", words)


def write(app) -> None:
    """Write a page for every file of the theory."""
    pages = {FOLDER / f"{name}.md": _page(name, stated) for name, stated in theorems().items()}
    write_changed(FOLDER, pages)


class TheoremRole(SphinxRole):
    """A link to a theorem of the theory."""

    def run(self):
        for file, stated in theorems().items():
            if self.text in [name for name, _ in stated]:
                page = f"_generated/proofs/{file}"
                uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
                label = nodes.literal(self.text, self.text)
                target = f"{uri}#theorem-{nodes.make_id(self.text)}"
                return [nodes.reference("", "", label, refuri=target, internal=True)], []
        log.warning("no theorem %r in proofs/theory", self.text, location=self.get_location())
        return [nodes.literal(self.text, self.text)], []


class Certificate(SphinxDirective):
    """A rule's certificate: the Coq file, folded, or what it would have to prove."""

    required_arguments = 1

    def run(self):
        _, path = self.env.relfn2path(self.arguments[0])
        name = Path(path).stem
        if Path(path).is_file():
            self.env.note_dependency(path)
            lines = [
                f"{{download}}`{name}.v <{self.arguments[0]}>` is checked by `make proofs`.",
                "",
            ]
            lines += [f":::{{dropdown}} {name}.v", f"```{{literalinclude}} {self.arguments[0]}"]
            lines += [":language: coq", "```", ":::"]
        else:
            lines = [NO_CERTIFICATE]
        return self.parse_text_to_nodes("\n".join(lines))


class Certificates(SphinxDirective):
    """The certificates there are: rule, number of theorems, and what they are about."""

    def run(self):
        lines = ["| rule | theorems | the file |", "| --- | --- | --- |"]
        self.env.note_reread()  # files come and go
        for path in sorted((PROOFS / "certificates").glob("*.v")):
            count = len(STATED.findall(path.read_text(encoding="utf-8")))
            link = f"{{download}}`{path.name} <../../proofs/certificates/{path.name}>`"
            has_page = (HERE / "rules" / f"{path.stem}.md").is_file()
            rule = f"[{path.stem}](../rules/{path.stem}.md)" if has_page else f"`{path.stem}`"
            lines.append(f"| {rule} | {count} | {link} |")
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app):
    app.add_directive("certificate", Certificate)
    app.add_directive("certificates", Certificates)
    app.connect("builder-inited", write)
    app.add_role("theorem", TheoremRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
