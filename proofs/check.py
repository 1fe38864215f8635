"""Check the proofs: compile every file, look for holes, collect the axioms, let coqchk agree.

    python proofs/check.py [FOLDER ...] [--build DIR] [--json] [--limit SECONDS]
                           [--coqchk own|all|none]

Folders default to ``proofs/theory``. Every ``.v`` file in them becomes the module
``deltabias.NAME``; all compiled files go to the build folder, none beside the sources.

Exit status: 0 everything is proved, 1 a file is rejected, has a hole or needs an axiom that is
not on the list, 2 it could not be checked (no coqc, a time limit, a wrong argument).
Needs the standard library of Python and Coq alone (``proofs/install-coq.sh``).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = "deltabias"
WARNINGS = "-ambiguous-paths,-notation-overridden,-hiding-delimiting-key,-deprecated"

# What the real numbers of Coq's standard library are made of, and nothing else.
ALLOWED_AXIOMS = {
    "ClassicalDedekindReals.sig_forall_dec": "comparing reals: a decidable property holds "
    "everywhere, or fails somewhere that can be found",
    "ClassicalDedekindReals.sig_not_dec": "comparing reals: a negation is decidable",
    "FunctionalExtensionality.functional_extensionality_dep": "functions equal everywhere are "
    "equal (reals are functions)",
    "Classical_Prop.classic": "excluded middle",
}

HOLES = re.compile(
    r"\b(Admitted|admit|give_up|Axioms?|Parameters?|Conjectures?|Unset\s+Guard\s+Checking"
    r"|Unset\s+Universe\s+Checking|Unset\s+Positivity\s+Checking|bypass_check)\b"
)
SECTION = re.compile(r"\b(Section|End)\s+(\w+)\s*\.")
ASSUMED = re.compile(r"^\s*(Variables?|Hypothes[ie]s|Context)\b", re.M)
IMPORT = re.compile(rf"From\s+{LIBRARY}\s+Require\s+(?:Import|Export)\s+([\w\s]+)\.")
THEOREM = re.compile(
    r"(?:\(\*\*((?:(?!\*\)).)*)\*\)\s*)?^(?:Theorem|Corollary)\s+([\w']+)", re.M | re.S
)


class CannotCheck(Exception):
    """Nothing was found wrong, but nothing was verified either: exit status 2."""


class Rejected(Exception):
    """A proof is wrong or incomplete: exit status 1."""


@dataclass
class Theorem:
    """``words`` is the comment above it."""

    name: str
    file: str
    words: str


@dataclass
class Report:
    """What was checked: seconds and axioms per file, theorems with their words."""

    coq: str
    seconds: dict[str, float] = field(default_factory=dict)
    axioms: dict[str, list[str]] = field(default_factory=dict)
    coqchk_seconds: float | None = None
    theorems: list[Theorem] = field(default_factory=list)


def without_comments(text: str) -> str:
    """The source with its nested comments blanked, line numbers kept."""
    depth, out, i = 0, [], 0
    while i < len(text):
        pair = text[i : i + 2]
        if pair == "(*":
            depth, i = depth + 1, i + 2
        elif pair == "*)" and depth:
            depth, i = depth - 1, i + 2
        else:
            out.append(text[i] if not depth or text[i] == "\n" else "")
            i += 1
    return "".join(out)


def look_for_holes(path: Path, text: str) -> None:
    """Words that leave something unproved, and hypotheses outside any section (axioms in disguise).

    Raises `Rejected` with the place.
    """
    code = without_comments(text)
    found = HOLES.search(code) or _assumed_outside_sections(code)
    if found:
        line = code.count("\n", 0, found.start(1)) + 1
        raise Rejected(f"{path}:{line}: {found[1]} leaves something unproved; prove it or drop it.")


def _assumed_outside_sections(code: str) -> re.Match | None:
    marks = list(SECTION.finditer(code))
    opened = {m[2] for m in marks if m[1] == "Section"}  # modules end too, and assume for good
    depth = [(m.start(), 1 if m[1] == "Section" else -1) for m in marks if m[2] in opened]
    for found in ASSUMED.finditer(code):
        if sum(step for place, step in depth if place < found.start()) < 1:
            return found
    return None


def sources(folders: list[Path]) -> dict[str, Path]:
    """Module name to file, in an order in which each comes after what it imports."""
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CannotCheck(f"{folder} is not a folder; give folders that hold .v files.")
        for path in sorted(folder.glob("*.v")):
            if path.stem in files:
                raise CannotCheck(f"{path} and {files[path.stem]} have one name; rename one.")
            files[path.stem] = path
    if not files:
        raise CannotCheck(f"no .v file in {', '.join(map(str, folders))}.")
    ordered: dict[str, Path] = {}

    def visit(name: str, below: tuple[str, ...]) -> None:
        if name in below:
            raise Rejected(f"{files[name]} imports itself through {' -> '.join(below)}.")
        if name in ordered:
            return
        if name not in files:
            raise Rejected(f"{files[below[-1]]} imports {LIBRARY}.{name}, which is not there.")
        for group in IMPORT.findall(without_comments(files[name].read_text())):
            for other in group.split():
                visit(other, (*below, name))
        ordered[name] = files[name]

    for name in files:
        visit(name, ())
    return ordered


def run(
    command: list[str], limit: float, what: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command run in a folder; `Rejected` with its last lines if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise CannotCheck(
            f"{what}: not finished within {limit:.0f} s; raise --limit, or split the file."
        ) from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise Rejected(f"{what} is rejected:\n{tail}")
    return done


def coqc(path: Path, name: str, build: Path, limit: float) -> None:
    """Compile one file into the build folder."""
    target = build / f"{name}.vo"
    command = ["coqc", "-q", "-w", WARNINGS, "-R", str(build), LIBRARY, "-o", str(target)]
    run([*command, str(path.resolve())], limit, str(path), build)  # its caches stay there too


def theorems_of(name: str, text: str) -> list[Theorem]:
    """Its theorems and corollaries, with the words above them."""
    return [Theorem(m[2], name, " ".join((m[1] or "").split())) for m in THEOREM.finditer(text)]


def collect_axioms(report: Report, build: Path, limit: float) -> None:
    """What the theorems of each file stand on, all of them together: one answer takes a second."""
    names = {file: [t.name for t in report.theorems if t.file == file] for file in report.seconds}
    lines = [f"From {LIBRARY} Require {' '.join(names)}."]
    for file, theorems in names.items():
        together = ", ".join(f"@{file}.{name}" for name in theorems) or "tt"
        lines += [
            f"Definition all_of_{file} := (tt, {together}).",
            f'Goal True. idtac "@ {file}". Abort.',
            f"Print Assumptions all_of_{file}.",
        ]
    audit = build / "audit_axioms.v"
    audit.write_text("\n".join(lines) + "\n")
    command = ["coqc", "-q", "-w", WARNINGS, "-R", str(build), LIBRARY, str(audit)]
    output = run(command, limit, "Print Assumptions", build).stdout
    parts = re.split(r"^@ (\S+)$", output, flags=re.M)[1:]
    answers = dict(zip(parts[::2], parts[1::2], strict=True))
    report.axioms = {file: axioms_in(answers.get(file, ""), file) for file in names}


def axioms_in(answer: str, file: str) -> list[str]:
    """Names in one answer of `Print Assumptions`.

    >>> axioms_in("Axioms:\\nA.b : forall x,\\n  x = x\\nc\\n  : nat\\n", "f")
    ['A.b', 'c']
    """
    if "Closed under the global context" in answer:
        return []
    if "Axioms:" not in answer:
        raise Rejected(f"Print Assumptions gave no answer for {file}.")
    # a name stands at the start of a line, its type is indented or follows a colon
    lines = answer.split("Axioms:")[1]
    return sorted(set(re.findall(r"^([A-Za-z_][\w.']*)\s*(?=:|$)", lines, re.M)))


def compare_with_whitelist(report: Report) -> None:
    """`Rejected` for a file that needs more than the reals."""
    for file, axioms in report.axioms.items():
        extra = [a for a in axioms if a not in ALLOWED_AXIOMS]
        if extra:
            raise Rejected(
                f"a theorem of {file} stands on {', '.join(extra)}; allowed are "
                f"{', '.join(ALLOWED_AXIOMS)}."
            )


def recheck(names: list[str], build: Path, limit: float, libraries: bool) -> None:
    """Coq's independent checker over the compiled files, and over every library they use."""
    modules = [f"{LIBRARY}.{name}" for name in names]
    command = ["coqchk", "-silent", "-o", "-R", str(build), LIBRARY]
    if not libraries:
        # ours alone are read again, Coq's own libraries are trusted
        modules = [part for module in modules for part in ("-norec", module)]
    done = run([*command, *modules], 6 * limit, "coqchk", build)
    if not libraries:  # what it did not read counts as assumed there
        return
    answer = done.stdout + done.stderr
    found = re.search(r"^\* Axioms:(?: <none>)?\s*\n((?: {4}\S+\n)*)", answer, re.M)
    if found is None:
        raise Rejected(f"coqchk gave no summary of axioms:\n{answer[-500:]}")
    extra = [a for a in found[1].split() if not a.endswith(tuple(f".{x}" for x in ALLOWED_AXIOMS))]
    if extra:
        raise Rejected(f"coqchk finds that the theory stands on {', '.join(extra)}.")


def check(folders: list[Path], build: Path, limit: float, kernel: str, say) -> Report:
    """Everything, in order; the first thing wrong ends it."""
    missing = [c for c in ("coqc", "coqchk") if shutil.which(c) is None]
    if missing:
        raise CannotCheck(f"{missing[0]} is not installed: sh proofs/install-coq.sh")
    version = run(["coqc", "--version"], limit, "coqc --version").stdout
    report = Report(version.split("version ")[1].split()[0])
    build.mkdir(parents=True, exist_ok=True)
    files = sources(folders)
    for stale in build.glob("*.vo"):
        stale.unlink()
    for name, path in files.items():
        text = path.read_text()
        look_for_holes(path, text)
        start = time.monotonic()
        coqc(path, name, build, limit)
        report.seconds[name] = round(time.monotonic() - start, 2)
        report.theorems += theorems_of(name, text)
        say(f"{report.seconds[name]:7.2f} s  {name}")
    collect_axioms(report, build, limit)
    compare_with_whitelist(report)
    if kernel != "none":
        start = time.monotonic()
        recheck(list(files), build, limit, libraries=kernel == "all")
        report.coqchk_seconds = round(time.monotonic() - start, 2)
        say(f"{report.coqchk_seconds:7.2f} s  coqchk ({kernel})")
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[HERE / "theory"])
    parser.add_argument("--build", type=Path, default=HERE.parent / "build" / "proofs")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one file")
    parser.add_argument(
        "--coqchk",
        choices=("own", "all", "none"),
        default="own",
        help="what the second kernel reads again: our files, all libraries too (minutes), nothing",
    )
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    try:
        report = check(options.folders, options.build.resolve(), options.limit, options.coqchk, say)
    except CannotCheck as reason:
        print(f"cannot check: {reason}", file=sys.stderr)
        return 2
    except Rejected as reason:
        print(f"rejected: {reason}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(report), indent=1))
    axioms = sorted(set().union(*report.axioms.values()))
    total = sum(report.seconds.values()) + (report.coqchk_seconds or 0)
    count = f"{len(report.theorems)} theorems in {len(report.seconds)} files"
    say(f"{count}, {total:.0f} s, Coq {report.coq}")
    say("axioms used: " + (", ".join(axioms) or "none"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
