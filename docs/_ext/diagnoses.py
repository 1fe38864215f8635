"""The directive ``{diagnoses}``: every diagnosis with a wrong line, the right one, and a meaning.

The lines are those of the package's own negative controls, which its tests hold against the check.
A diagnosis without a sentence in `diagnoses.toml` is a warning, and so fails the build.
"""

import tomllib
from pathlib import Path
from textwrap import dedent

from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)
MEANINGS = Path(__file__).with_name("diagnoses.toml")


def controls():
    """The wrong optimizers whose mistake has a name, each diagnosis once."""
    from deltabias.verify.controls.optimizers import WRONG_OPTIMIZERS

    return list({w.diagnosis: w for w in reversed(WRONG_OPTIMIZERS) if w.diagnosis}.values())[::-1]


class Diagnoses(SphinxDirective):
    """A section for each diagnosis."""

    has_content = False

    def run(self):
        self.env.note_dependency(str(MEANINGS))
        meanings = tomllib.loads(MEANINGS.read_text(encoding="utf-8"))
        lines: list[str] = []
        for wrong in controls():
            if wrong.diagnosis not in meanings:
                log.warning("no meaning of %r", wrong.diagnosis, location=self.get_location())
            lines += self.section(wrong, meanings.get(wrong.diagnosis, ""))
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)

    def section(self, wrong, meaning: str) -> list[str]:
        """MyST of one diagnosis."""
        lines = [f"## {wrong.diagnosis}", "", meaning, ""]
        for word, code in (("Wrong", wrong.wrong), ("Right", wrong.line)):
            lines += [f"{word}:", "", "```python", *_whole(code).splitlines(), "```", ""]
        return lines


def _whole(code: str) -> str:
    """The lines without the indentation that the first of them lost."""
    first, _, rest = code.partition("\n")
    return "\n".join([first.strip(), dedent(rest)]) if rest else first.strip()


def setup(app):
    app.add_directive("diagnoses", Diagnoses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
