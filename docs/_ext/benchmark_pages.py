"""Pages and figures of the benchmarks, written from validation/results/benchmarks.

``{benchmarks}`` lists what was measured, ``{benchmark-figure} NAME`` shows a figure of
`benchmark_figures.FIGURES`, and ``{settings}`` is the table of what a setting costs, from the
benchmark ``cpu_step``, and of what it leaves of the bias, from the study ``spacing``.
"""

import json
import re
from pathlib import Path

from api_pages import HERE, write_changed
from benchmark_figures import FIGURES
from shades import in_both_shades
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from study_pages import RESULTS, Overview, Raw, escape, table

log = logging.getLogger(__name__)
MEASURED = RESULTS / "benchmarks"
FOLDER = HERE / "_generated" / "benchmarks"
PICTURES = FOLDER / "figures"
NOT_MEASURED = "*Not measured here yet.*"


def records(folder: Path = MEASURED) -> dict[str, dict]:
    """What every benchmark left, by its name."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def benchmark_page(name: str, record: dict) -> str:
    """The page of a benchmark: its figures, and whatever numbers its file has, machine included."""
    lines = [f"# {escape(name)}", ""]
    if "passed" in record:
        lines += [f"**Result:** the claim {'held' if record['passed'] else 'failed'}.", ""]
    for key in ("claim", "what", "command"):
        if isinstance(record.get(key), str):
            lines += [f"`{record[key]}`" if key == "command" else escape(record[key]), ""]
    for figure, known in FIGURES.items():
        if known.benchmark == name:
            lines += [f"```{{benchmark-figure}} {figure}", "```", ""]
    for key, value in record.items():
        if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            header = list(dict.fromkeys(k for v in value for k in v))
            rows = [[_flat(v.get(k)) for k in header] for v in value]
            lines += [f"## {escape(key)}", "", *table([escape(h) for h in header], rows), ""]
        elif isinstance(value, dict):
            rows = [[k, _flat(v)] for k, v in value.items()]
            lines += [f"## {escape(key)}", "", *table(["what", "value"], rows), ""]
    return "\n".join(lines) + "\n"


def _flat(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def shown(figure: str, found: dict[str, dict]) -> tuple | None:
    """How a figure is drawn and its values in words; None where there is nothing to show."""
    known = FIGURES[figure]
    record = found.get(known.benchmark)
    return known.of(record["rows"]) if record else None


def write(app) -> None:
    """Write a page for every benchmark that has results, and every figure."""
    found = records()
    write_changed(FOLDER, {FOLDER / f"{n}.md": benchmark_page(n, r) for n, r in found.items()})
    pictures = {}
    for name in FIGURES:
        if drawn := shown(name, found):
            for shade, text in in_both_shades(drawn[0]).items():
                pictures[PICTURES / f"{name}-{shade}.svg"] = text
    write_changed(PICTURES, pictures)


class Benchmarks(Overview):
    """What was measured: names, claims, outcomes, and the pages behind them."""

    results = MEASURED
    pages = "benchmarks"
    none = "No benchmark was measured here yet."


class BenchmarkFigure(SphinxDirective):
    """A figure in the page's light and dark colors, with what it shows, and its values in words."""

    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        if name not in FIGURES:
            known = ", ".join(FIGURES)
            log.warning("no figure %r; there are %s", name, known, location=self.get_location())
            return []
        self.env.note_reread()  # the results are no source file of the page
        drawn = shown(name, records())
        return self.parse_text_to_nodes(figure_text(name, drawn[1]) if drawn else NOT_MEASURED)


def figure_text(name: str, words: str) -> str:
    """Both pictures and the sentence under them."""
    known, lines = FIGURES[name], []
    for shade in ("light", "dark"):
        lines += [
            f"```{{image}} /_generated/benchmarks/figures/{name}-{shade}.svg",
            f":class: only-{shade}",
            f":alt: {known.shows} {words}.",
            "```",
            "",
        ]
    link = f"[{escape(known.benchmark)}](/_generated/benchmarks/{known.benchmark}.md)"
    return "\n".join([*lines, f"{known.shows} ({link})"])


# -- what a setting costs, and what it leaves of the bias -----------------------------------------

PLAINEST = re.compile(
    r"left of the plain bias: (.+), normal, m = 16, constant, noise share ([\d.]+)"
)
"""A row of the study, by setting and noise share, where nothing moves and nothing is skewed."""

COUNTED = ("leaves at most ", "adds at most ")
"""How the claims begin of which the table says in how many of the study's cases they hold."""

STORED = ("int8", "bfloat16")


def setting_of(step: str) -> tuple[str, str, int] | None:
    """Correction, storage and k of a step of ``cpu_step``; None of a part of a cycle.

    >>> setting_of("delta int8, every=16"), setting_of("delta"), setting_of("off")
    (('delta', 'int8', 16), ('delta', '', 1), ('none', '', 0))
    >>> setting_of("delta int8, between") is setting_of("torch fused") is None
    True
    """
    name, _, when = step.partition(", ")
    correction, _, storage = name.partition(" ")
    if step == "off":
        return "none", "", 0
    if when.startswith("every=") and storage in STORED:
        return correction, storage, int(when.removeprefix("every="))
    return (step, "", 1) if step in ("delta", "closed_form") else None


def way_of(setting: tuple[str, str, int]) -> str:
    """A setting as the study ``spacing`` names it."""
    correction, storage, every = setting
    return f"{correction}, {storage or 'full precision'}, every={every}"


def left_in_plainest(study: dict) -> dict[str, dict[str, str]]:
    """way -> noise share -> what is left of the plain update's bias, with its standard error."""
    found: dict[str, dict[str, str]] = {}
    for row in study["rows"]:
        if said := PLAINEST.fullmatch(row["claim"]):
            text = f"{100 * row['measured']:.0f} ± {100 * row['standard_error']:.1f} %"
            found.setdefault(said[1], {})[said[2]] = unbroken(text.replace("-", "−"))
    return found


def unbroken(text: str) -> Raw:
    """The same words, a cell that is not broken into lines.

    >>> len(unbroken("6 ± 1 %").split(" "))
    1
    """
    return Raw(text.replace(" ", "\N{NO-BREAK SPACE}"))


def counts(study: dict) -> dict[str, dict[str, str]]:
    """Claim -> way -> in how many of the study's cases it holds."""
    found: dict[str, dict[str, str]] = {}
    for row in study["rows"]:
        claim, _, way = row["claim"].removesuffix(", all scenes").partition(": ")
        if row["claim"].endswith(", all scenes") and claim.startswith(COUNTED):
            found.setdefault(claim, {})[way] = unbroken(row["measured"].removesuffix(" cells"))
    return found


def settings_table(benchmark: list[dict], study: dict) -> list[str]:
    """A row for every setting that was timed on one thread, cheapest first."""
    left, held = left_in_plainest(study), counts(study)
    shares = sorted({share for by_share in left.values() for share in by_share}, key=float)
    header = ["setting", "time of a step", *(f"left, noise {share}" for share in shares)]
    timed = [(setting_of(r["step"]), r["ratio"]) for r in benchmark if r["threads"] == 1]
    rows = []
    for setting, ratio in sorted((t for t in timed if t[0]), key=lambda t: t[1]):
        correction, storage, every = setting
        said = [f"`{name}`" for name in (correction, storage) if name]
        said += [f"every {every}"] if every else []
        ours, way = left.get(way_of(setting), {}), way_of(setting)
        whole = unbroken("100 %") if correction == "none" else ""
        row = [
            Raw(", ".join(map(unbroken, said))),
            f"{ratio:.2f}",
            *(ours.get(s, whole) for s in shares),
        ]
        rows.append([*row, *(by_way.get(way, "") for by_way in held.values())])
    return table([*header, *map(escape, held)], rows)


class Settings(SphinxDirective):
    """The table of settings."""

    def run(self):
        self.env.note_reread()
        benchmark, path = records().get("cpu_step"), RESULTS / "spacing.json"
        if benchmark is None or not path.is_file():
            return self.parse_text_to_nodes(NOT_MEASURED)
        study = json.loads(path.read_text(encoding="utf-8"))
        return self.parse_text_to_nodes("\n".join(settings_table(benchmark["rows"], study)))


def setup(app):
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("benchmark-figure", BenchmarkFigure)
    app.add_directive("settings", Settings)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
