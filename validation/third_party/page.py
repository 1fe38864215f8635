"""The study's results as a page for people: ``python -m validation.third_party.page``."""

import json
from pathlib import Path

from validation.record import RESULTS

PAGE = Path(__file__).parent / "README.md"
HEAD = """# Optimizers that nobody here wrote

`python -m validation third_party` runs `check_optimizer` on optimizers from PyPI against rules
written from their papers (`rules/`), and again against the rule *as found*: the published one
with the lines that reading the code turned up. If that passes, nothing else differs. The packages
are no dependency; what is missing is skipped. `python -m validation.third_party.page` writes this
page from `validation/results/third_party.json`.

Kinds: a **bug** computes what neither the paper nor the package's documentation says; a
**deviation** is documented, or in the authors' own code, or harmless in the usual loop.

What has norms, inner products or matrices over a whole tensor is no elementwise step, and has no
rule here: LAMB, LARS, NovoGrad, AdamP, SGDP, Adafactor, Shampoo, SWATS, A2Grad, Apollo, AvaGrad,
Adai, AdaNorm, Amos, Gravity, MARS, FAdam, StableAdamW, SOAP, Muon, PSGD. Schedule-free ones keep
two sets of parameters and are left out too.
"""


def render(record: dict) -> str:
    """The page of a record, as `validation.record` writes it."""
    lines = record["tables"]["checks"]
    main = [line for line in lines if line["check"] == "conformance"]
    text = [HEAD, "## Against the paper\n"]
    text += [
        "| package | optimizer | rule | verdict | diagnosis | kind |",
        "|---|---|---|---|---|---|",
    ]
    for line in main:
        text.append(
            f"| {line['package']} {line['version']} | {line['optimizer']} | {line['rule']} | "
            f"{line['verdict']} | {line['diagnosis'] or line['detail']} | {line['kind']} |"
        )
    text.append("\n## What was confirmed by hand\n")
    for line in main:
        if line["confirmed"]:
            text.append(_confirmed(line))
    text.append("\n## Besides the arithmetic\n")
    text.append("Each finding once, with the optimizers that have it.\n")
    for (kind, check, where, said), names in _gathered(lines).items():
        text.append(f"- **{check}** ({kind}; `{where}`): {said} *{', '.join(names)}*")
    skipped = [row["note"] for row in record["rows"] if row["measured"] == "skipped"]
    text += [f"\n{note}" for note in dict.fromkeys(skipped)]
    return "\n".join(text) + "\n"


def _confirmed(line: dict) -> str:
    name = f"{line['package']} {line['optimizer']}"
    return f"- **{name}** ({line['kind']}; `{line['where']}`): {line['confirmed']}"


def _gathered(lines: list[dict]) -> dict[tuple[str, ...], list[str]]:
    found: dict[tuple[str, ...], list[str]] = {}
    for line in lines:
        if line["check"] != "conformance" and line["verdict"] != "pass":
            said = line["confirmed"] or f"no note: {line['detail']}"
            key = (line["kind"] or "open", line["check"], line["where"], said)
            found.setdefault(key, []).append(f"{line['package']} {line['optimizer']}")
    return found


if __name__ == "__main__":
    results = json.loads((RESULTS / "third_party.json").read_text(encoding="utf-8"))
    PAGE.write_text(render(results), encoding="utf-8")
