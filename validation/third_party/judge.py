"""The study: every optimizer against its paper, and against what reading its code found."""

from collections.abc import Iterable

from deltabias.verify import Report, check_optimizer
from deltabias.verify.record import PASS
from validation.study import Findings, Progress, Row, Study, no_progress
from validation.third_party import (
    heavyball_subjects,
    pytorch_optimizer_subjects,
    torch_optimizer_subjects,
)
from validation.third_party.notes import notes_of
from validation.third_party.subject import Note, Subject

SUBJECTS = (
    *torch_optimizer_subjects.SUBJECTS,
    *pytorch_optimizer_subjects.SUBJECTS,
    *heavyball_subjects.SUBJECTS,
)
SEED = 0
AS_FOUND = "conformance as found"


def run(
    workers: int = 1, progress: Progress = no_progress, subjects: Iterable[Subject] = SUBJECTS
) -> Findings:
    """A row for each optimizer: held if all that differs from the paper was confirmed by hand.

    A package that is missing gives a row that claims nothing and says what to install.
    """
    subjects = tuple(subjects)
    rows: list[Row] = []
    table: list[dict] = []
    for done, subject in enumerate(subjects):
        progress(done, len(subjects))
        lines, row = _judge(subject)
        table += lines
        rows.append(row)
    progress(len(subjects), len(subjects))
    return Findings(rows, {"checks": table}, seeds={"histories": SEED})


def _judge(subject: Subject) -> tuple[list[dict], Row]:
    claim = f"{subject.label}: every difference from {subject.rule} is explained"
    installed = subject.version()
    if installed is None:
        return [], Row(claim, "skipped", note=f"skipped: pip install {subject.package}")
    try:
        make = subject.load()
    except Exception as error:  # a stranger's package may need what is not here
        return [], Row(claim, "skipped", note=f"skipped: {type(error).__name__}: {error}")
    published = check_optimizer(
        make, subject.published(), hypers=subject.hypers, seed=SEED, features=False
    )
    found = check_optimizer(
        make,
        subject.as_found(),
        hypers={**subject.hypers, **subject.found_hypers},
        dtype=subject.found_dtype,
        seed=SEED,
    )
    lines = [*_lines(subject, installed, published, found)]
    open_ = [line["check"] for line in lines if line["verdict"] != PASS and not line["kind"]]
    verdict = published.checks[0].verdict
    if verdict != PASS and not subject.deviates:
        open_.insert(0, "no rule as found")  # a note alone confirms nothing
    note = f"without a note: {', '.join(open_)}" if open_ else ""
    if installed != subject.read:
        note += f" (the notes are of {subject.read}, installed is {installed})"
    return lines, Row(claim, verdict, "pass", None, not open_, note.strip())


def _lines(subject: Subject, installed: str, published: Report, found: Report):
    """A line for the conformance to either rule, and one for every check that did not pass."""
    notes = notes_of(subject.package, subject.name)
    first = published.checks[0]
    yield _line(subject, installed, "conformance", first, notes.get("conformance"))
    if subject.deviates:
        yield _line(subject, installed, AS_FOUND, found.checks[0], notes.get(AS_FOUND))
    for check in found.checks[1:]:
        if check.verdict in ("fail", "error", "inconclusive"):
            yield _line(subject, installed, check.name, check, notes.get(check.name))


def _line(subject: Subject, installed: str, name: str, check, note: Note | None) -> dict:
    failed = check.verdict != PASS
    return {
        "package": subject.package,
        "version": installed,
        "optimizer": subject.name,
        "rule": subject.published().source or subject.rule,
        "check": name,
        "verdict": check.verdict,
        "measured": check.measured,
        "diagnosis": check.diagnosis,
        "detail": check.detail.split("; agrees with")[0][:200],
        "kind": note.kind if note and failed else "",
        "where": note.where if note and failed else "",
        "confirmed": note.text if note and failed else "",
    }


STUDY = Study(
    "third_party",
    "optimizers of other packages compute what their papers say, or how they differ is known",
    run,
)
