"""Results on disk: everything that makes a number again, nothing that changes by itself."""

import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from validation.study import Findings, Study

RESULTS = Path(__file__).parent / "results"
DIGITS = 8
"""Significant digits that are kept: what lies beyond differs between machines."""

PACKAGES = ("torch", "sympy", "numpy", "scipy", "mpmath")


def command(study: Study) -> str:
    """The command that makes the study's results again."""
    return f"python -m validation {study.name}"


def versions() -> dict[str, str]:
    """Of Python and of what computes; local build tags such as +cpu are left out."""
    found = {name: version(name).split("+")[0] for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def plain(value: Any) -> Any:
    """The value as JSON has it: rounded, and NaN or infinite as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | mpmath.mpf):
        number = float(value)
        return float(f"{number:.{DIGITS - 1}e}") if math.isfinite(number) else str(number)
    return value if value is None else str(value)


def as_record(study: Study, findings: Findings) -> dict[str, Any]:
    """The study's results as plain data."""
    return {
        "study": study.name,
        "claim": study.claim,
        "command": command(study),
        "versions": versions(),
        "seeds": plain(findings.seeds),
        "n": plain(findings.samples),
        "passed": findings.passed,
        "rows": [plain(vars(row)) for row in findings.rows],
        "tables": {name: plain(list(lines)) for name, lines in findings.tables.items()},
    }


def write(study: Study, findings: Findings, folder: Path = RESULTS) -> list[Path]:
    """Write NAME.json and, where there is a figure, NAME.svg. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{study.name}.json"]
    text = json.dumps(as_record(study, findings), indent=1, ensure_ascii=False)
    written[0].write_text(text + "\n", encoding="utf-8")
    if study.draw is not None:
        written.append(folder / f"{study.name}.svg")
        study.draw(findings, written[-1])
    return written
