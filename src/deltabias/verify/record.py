"""What a check says: one verdict, the number behind it, and what is expected instead."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from xml.etree import ElementTree

from deltabias.notation import markup

PASS, FAIL, INCONCLUSIVE, ERROR, SKIPPED = "pass", "fail", "inconclusive", "error", "skipped"

WORST_FIRST = (ERROR, FAIL, INCONCLUSIVE, PASS, SKIPPED)
EXIT_CODES = {PASS: 0, SKIPPED: 0, FAIL: 1, INCONCLUSIVE: 1, ERROR: 2}

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Check:
    """One question and its answer.

    Parameters
    ----------
    name : what was asked, such as ``conformance`` or ``resume``
    verdict : one of `WORST_FIRST`
    measured, expected : the number that was found, and what it was held against
    diagnosis : what is probably wrong, in a few words; empty where nothing fits
    detail : a sentence for people
    counterexample : the smallest history that shows it, as plain data
    """

    name: str
    verdict: str
    measured: Value = None
    expected: Value = None
    diagnosis: str = ""
    detail: str = ""
    counterexample: dict | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.verdict not in WORST_FIRST:
            raise ValueError(f"{self.verdict=} is no verdict; use {', '.join(WORST_FIRST)}.")

    @property
    def words(self) -> str:
        """The diagnosis and the detail."""
        return "; ".join(filter(None, (self.diagnosis, self.detail)))

    def _repr_latex_(self) -> str:
        row = [self.verdict, self.name, *_numbers(self), self.words]
        return _array([row])

    def _repr_html_(self) -> str:
        listed = [f"measured {_short(self.measured)}"] if self.measured is not None else []
        listed += [f"expected {_short(self.expected)}"] if self.expected is not None else []
        return markup.card(self.name, [markup.badge(self.verdict)], [*listed, self.words])


@dataclass(frozen=True)
class Report:
    """Every check of one target; the verdict is that of the worst.

    A report of no check is an error: nothing was asked.
    """

    target: str
    rule: str
    checks: tuple[Check, ...]
    seconds: float = 0.0
    seed: int = 0

    @property
    def verdict(self) -> str:
        asked = {check.verdict for check in self.checks} - {SKIPPED}
        return next((v for v in WORST_FIRST if v in asked), ERROR)

    @property
    def passed(self) -> bool:
        return self.verdict == PASS

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail or inconclusive, 2 error."""
        return EXIT_CODES[self.verdict]

    def named(self, name: str) -> Check:
        """The check of that name.

        Raises
        ------
        KeyError
            with the names there are.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are {', '.join(c.name for c in self.checks)}.")

    def to_json(self) -> str:
        """``{"verdict": …, "checks": [{"name", "verdict", "measured", "expected", …}]}``."""
        record = {
            "verdict": self.verdict,
            "target": self.target,
            "rule": self.rule,
            "seconds": self.seconds,
            "seed": self.seed,
            "checks": [asdict(check) for check in self.checks],
        }
        return json.dumps(record, indent=2, ensure_ascii=False, default=str)

    def to_junit(self) -> str:
        """The same as JUnit XML: a failure for ``fail`` and ``inconclusive``, errors as such."""
        counts = {v: sum(c.verdict == v for c in self.checks) for v in WORST_FIRST}
        suite = ElementTree.Element(
            "testsuite",
            name="deltabias verify",
            tests=str(len(self.checks)),
            failures=str(counts[FAIL] + counts[INCONCLUSIVE]),
            errors=str(counts[ERROR]),
            skipped=str(counts[SKIPPED]),
            time=f"{self.seconds:.3f}",
        )
        for check in self.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=self.target, name=check.name)
            kind = {FAIL: "failure", INCONCLUSIVE: "failure", ERROR: "error", SKIPPED: "skipped"}
            if check.verdict in kind:
                said = check.words or check.verdict
                ElementTree.SubElement(case, kind[check.verdict], message=said)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _rows(self) -> list[list[str]]:
        return [[c.verdict, c.name, *_numbers(c), c.words] for c in self.checks]

    def _repr_latex_(self) -> str:
        return _array([[self.verdict, f"{self.target} against {self.rule}", "", "", ""],
                       *self._rows()])  # fmt: skip

    def _repr_html_(self) -> str:
        head = ("verdict", "check", "measured", "expected", "what it says")
        shown = [markup.badge(self.verdict), markup.table(head, self._rows())]
        return markup.card(f"{self.target} against {self.rule}", shown)


def _numbers(check: Check) -> list[str]:
    return ["" if v is None else _short(v) for v in (check.measured, check.expected)]


def _array(rows: list[list[str]]) -> str:
    """A table in mathematics: MathJax knows no other."""
    body = r" \\ ".join(" & ".join(markup.text_in_math(cell) for cell in row) for row in rows)
    return rf"$\begin{{array}}{{lllll}} {body} \end{{array}}$"


def _lines(report: Report) -> Iterable[str]:
    yield f"{report.target} against {report.rule}: {report.verdict} ({report.seconds:.1f} s)"
    width = max((len(c.name) for c in report.checks), default=0)
    for check in report.checks:
        numbers = ""
        if check.measured is not None:
            held = f" (expected {_short(check.expected)})" if check.expected is not None else ""
            numbers = f"{_short(check.measured)}{held}"
        yield f"  {check.verdict:<12} {check.name:<{width}}  {numbers}  {check.words}".rstrip()


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
