"""A page for every study, written from validation/results: claim, numbers, figure, command."""

import json
import re
from typing import ClassVar

from api_pages import HERE, write_changed
from sphinx.util.docutils import SphinxDirective

RESULTS = HERE.parent / "validation" / "results"
FOLDER = HERE / "_generated" / "validation"
BENCHMARKS = HERE / "_generated" / "benchmarks"
MOST_ROWS = 60
_MARK = {True: "held", False: "**failed**", None: "reported"}


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, _Raw):
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
    return [row["claim"], *numbers, _Raw(_MARK[row["passed"]]), row["note"]]


class _Raw(str):
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


def benchmark_page(name: str, record: dict) -> str:
    """The page of a benchmark: whatever numbers its file has, machine included."""
    lines = [f"# {escape(name)}", ""]
    if "passed" in record:
        lines += [f"**Result:** the claim {'held' if record['passed'] else 'failed'}.", ""]
    for key in ("claim", "what", "command"):
        if isinstance(record.get(key), str):
            lines += [f"`{record[key]}`" if key == "command" else escape(record[key]), ""]
    for key, value in record.items():
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            header = list(dict.fromkeys(k for v in value for k in v))
            rows = [[_flat(v.get(k)) for k in header] for v in value]
            lines += [f"## {escape(key)}", "", *table([escape(h) for h in header], rows), ""]
        elif isinstance(value, dict) and key != "tables":
            lines += [
                f"## {escape(key)}",
                "",
                *table(["what", "value"], [[k, _flat(v)] for k, v in value.items()]),
                "",
            ]
        elif isinstance(value, dict):
            for title, part in value.items():
                lines += benchmark_page(title, {"rows": part})[2:].splitlines() if part else []
    return "\n".join(lines) + "\n"


def _flat(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def write(app) -> None:
    """Write a page for every study and every benchmark that has results."""
    studies = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        studies[FOLDER / f"{path.stem}.md"] = study_page(record, path.with_suffix(".svg").exists())
    write_changed(FOLDER, studies)
    measured = {}
    for path in sorted((RESULTS / "benchmarks").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        measured[BENCHMARKS / f"{path.stem}.md"] = benchmark_page(path.stem, record)
    write_changed(BENCHMARKS, measured)


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
            rows.append([_Raw(f"[{escape(path.stem)}]({page}.md)"), *_outcome(record)])
            pages.append(page)
        if not rows:
            return self.parse_text_to_nodes(self.none)
        lines = [
            *table(["what", "claim", "outcome"], rows),
            *("", "```{toctree}", ":hidden:", "", *pages, "```"),
        ]
        return self.parse_text_to_nodes("\n".join(lines))


class Benchmarks(Overview):
    """The same of the benchmarks."""

    results = RESULTS / "benchmarks"
    pages = "benchmarks"
    none = "No benchmark was measured here yet."


def _outcome(record: dict) -> list[str]:
    """The claim, and how many of its parts held."""
    verdicts = [row.get("passed") for row in record["rows"]]
    held, failed = verdicts.count(True), verdicts.count(False)
    said = f"{failed} of {held + failed} failed" if failed else f"{held} held" if held else ""
    return [record.get("claim", ""), said or "reported"]


def setup(app):
    app.add_directive("studies", Overview)
    app.add_directive("benchmarks", Benchmarks)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
