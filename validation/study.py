"""What a study is, and what it returns: a claim, beside what was measured and its error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)``."""

Value = float | str | None


def no_progress(done: int, total: int) -> None:
    """For callers who look at no bar."""


@dataclass(frozen=True)
class Row:
    """One line of evidence.

    Parameters
    ----------
    claim : what is said to be true, threshold included
    measured, predicted : a number, or an expression as text where the comparison is symbolic
    standard_error : of ``measured``; None where nothing is random
    passed : None where a number is reported and nothing is claimed of it
    note : where it was measured, or why it is no claim
    """

    claim: str
    measured: Value
    predicted: Value = None
    standard_error: float | None = None
    passed: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """The rows of a study, the tables behind them, and what makes them again.

    ``tables`` maps a table's name to its lines; ``samples`` and ``seeds`` name every number of
    replicates and every seed that was used.
    """

    rows: Sequence[Row]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no claim failed. Rows that claim nothing do not count."""
        return all(row.passed is not False for row in self.rows)

    @property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.passed is False]


@dataclass(frozen=True)
class Study:
    """A named study.

    ``run(workers=…, progress=…)`` returns `Findings`; ``draw(findings, path)`` writes an svg,
    where people would rather look than read.
    """

    name: str
    claim: str
    run: Callable[..., Findings]
    draw: Callable[[Findings, Path], None] | None = None
