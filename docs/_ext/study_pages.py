"""A page for every study, written from validation/results: claim, numbers, figure, command."""

import json
import re
from typing import ClassVar

from api_pages import HERE, write_changed
from sphinx.util.docutils import SphinxDirective

RESULTS = HERE.parent / "validation" / "results"
FOLDER = HERE / "_generated" / "validation"
MOST_ROWS = 60
_MARK = {True: "held", False: "**failed**", None: "reported"}


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, Raw):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}".replace("-", "−")
    return escape(str(value))


def escape(text: str) -> str:
    """Text as it stands, in a cell of a MyST table.

    >>> escape("a|b*c")
    'a\\\\|b\\\\*c'
    """
    return re.sub(r"([\\`*_$<>\[\]{}|#~])", r"\\\1", " ".join(text.split()))


def table(header: list[str], rows: list[list]) -> list[str]:
    """A table in MyST, in a box that scrolls by itself."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]


def study_page(record: dict, figure: bool) -> str:
    """The page of a study, from its record."""
    rows = record["rows"]
    held, failed = (sum(r["passed"] is v for r in rows) for v in (True, False))
    lines = [
        f"# {escape(record['study'])}",
        "",
        f"{escape(record['claim'][:1].upper() + record['claim'][1:])}.",
        "",
        f"**Result:** {held} claims held, {failed} failed, {len(rows) - held - failed} numbers "
        "reported without a claim.",
        "",
        "```console",
        record["command"],
        "```",
        "",
    ]
    if figure:
        path = f"../../../validation/results/{record['study']}.svg"
        alt = f"Figure of the study {record['study']}: {record['claim']}"
        lines += [
            f"```{{figure}} {path}",
            ":class: on-paper",
            f":alt: {alt}",
            "",
            "The study's own figure.",
            "```",
            "",
        ]
    lines += _rows(rows)
    lines += _made_with(record)
    return "\n".join(lines)


def _rows(rows: list[dict]) -> list[str]:
    """What failed first, then the rest; a long list folds."""
    order = sorted(rows, key=lambda r: r["passed"] is not False)
    header = ["claim", "measured", "predicted", "standard error", "result", "note"]

    def cells(part):
        return table(header, [_evidence(row) for row in part])

    shown, rest = order[:MOST_ROWS], order[MOST_ROWS:]
    lines = ["## Claims", "", *cells(shown), ""]
    if rest:
        lines += [f":::{{dropdown}} {len(rest)} rows more", "", *cells(rest), "", ":::", ""]
    return lines


def _evidence(row: dict) -> list:
    numbers = [row["measured"], row["predicted"], row["standard_error"]]
    return [row["claim"], *numbers, Raw(_MARK[row["passed"]]), row["note"]]


class Raw(str):
    """A cell that is MyST already."""


def _made_with(record: dict) -> list[str]:
    def listed(what):
        return ", ".join(f"{escape(str(k))} {_cell(v)}" for k, v in record.get(what, {}).items())

    lines = ["## Made with", "", f"- versions: {listed('versions')}"]
    lines += [
        f"- {name}: {listed(key)}"
        for key, name in (("seeds", "seeds"), ("n", "samples"))
        if record.get(key)
    ]
    return [*lines, ""]


def write(app) -> None:
    """Write a page for every study that has results."""
    studies = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        studies[FOLDER / f"{path.stem}.md"] = study_page(record, path.with_suffix(".svg").exists())
    write_changed(FOLDER, studies)


class Overview(SphinxDirective):
    """What has results: a table of names, claims and outcomes, and the pages behind it."""

    option_spec: ClassVar = {}
    results = RESULTS
    pages = "validation"
    none = "No study has results here yet."

    def run(self):
        self.env.note_reread()  # files come and go
        rows, pages = [], []
        for path in sorted(self.results.glob("*.json")):
            page = f"/_generated/{self.pages}/{path.stem}"
            record = json.loads(path.read_text(encoding="utf-8"))
            rows.append([Raw(f"[{escape(path.stem)}]({page}.md)"), *_outcome(record)])
            pages.append(page)
        if not rows:
            return self.parse_text_to_nodes(self.none)
        lines = [
            *table(["what", "claim", "outcome"], rows),
            *("", "```{toctree}", ":hidden:", "", *pages, "```"),
        ]
        return self.parse_text_to_nodes("\n".join(lines))


def _outcome(record: dict) -> list[str]:
    """The claim, and how many of its parts held."""
    verdicts = [row.get("passed") for row in record["rows"]]
    held, failed = verdicts.count(True), verdicts.count(False)
    said = f"{failed} of {held + failed} failed" if failed else f"{held} held" if held else ""
    return [record.get("claim", ""), said or "reported"]


def setup(app):
    app.add_directive("studies", Overview)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
