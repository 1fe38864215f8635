"""Runs Coq: compiles files in the order of their imports, looks for holes, collects axioms.

Needs the standard library of Python and Coq alone. Two ways to fail are kept apart: `Rejected`, a
statement is wrong or incomplete, and `CannotCheck`, nothing was found wrong but nothing was
verified either.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from deltabias.errors import CertifyError, DeltabiasError

THEORY = "deltabias"
CERTIFICATES = "certificates"
WARNINGS = "-ambiguous-paths,-notation-overridden,-hiding-delimiting-key,-deprecated"
INSTALL = "sudo apt-get install coq libcoq-coquelicot libcoq-interval libcoq-mathcomp-algebra gappa"

# What the real numbers of Coq's standard library are made of, and nothing else.
ALLOWED_AXIOMS = {
    "ClassicalDedekindReals.sig_forall_dec": "comparing reals: a decidable property holds "
    "everywhere, or fails somewhere that can be found",
    "ClassicalDedekindReals.sig_not_dec": "comparing reals: a negation is decidable",
    "FunctionalExtensionality.functional_extensionality_dep": "functions equal everywhere are "
    "equal (reals are functions)",
    "Classical_Prop.classic": "excluded middle",
}

LIBRARY_INSTANCES = {"plain_interval"}
"""Files that only instantiate a library's functor: coqchk would read that library again."""

HOLES = re.compile(
    r"\b(Admitted|admit|give_up|Axioms?|Parameters?|Conjectures?|Unset\s+Guard\s+Checking"
    r"|Unset\s+Universe\s+Checking|Unset\s+Positivity\s+Checking|bypass_check)\b"
)
SECTION = re.compile(r"\b(Section|End)\s+(\w+)\s*\.")
ASSUMED = re.compile(r"^\s*(Variables?|Hypothes[ie]s|Context)\b", re.M)
IMPORT = re.compile(r"From\s+(\w+)\s+Require\s+(?:Import|Export)\s+([\w\s]+)\.")
STATED = re.compile(
    r"(?:\(\*\*((?:(?!\*\)).)*)\*\)\s*)?^(?:Theorem|Corollary)\s+([\w']+)", re.M | re.S
)


class CannotCheck(CertifyError):
    """Nothing was found wrong, but nothing was verified either: exit status 2."""


class Rejected(DeltabiasError):
    """A proof is wrong or incomplete: exit status 1."""


@dataclass
class Statement:
    """A theorem of a file; ``words`` is the comment above it."""

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
    theorems: list[Statement] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A file to compile: its module ``library.name``, and the folder for what comes out."""

    library: str
    name: str
    path: Path
    build: Path

    @property
    def key(self) -> str:
        """Its name in reports; the theory's files go by their own name."""
        return self.name if self.library == THEORY else f"{self.library}.{self.name}"


# -- reading sources --------------------------------------------------------------------------


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


def theorems_of(name: str, text: str) -> list[Statement]:
    """Its theorems and corollaries, with the words above them."""
    return [Statement(m[2], name, " ".join((m[1] or "").split())) for m in STATED.finditer(text)]


def imports(source: Source, libraries: Iterable[str]) -> list[str]:
    """Keys of the files of our own libraries that it imports."""
    found = []
    for library, names in IMPORT.findall(without_comments(source.path.read_text())):
        if library in libraries:
            found += [n if library == THEORY else f"{library}.{n}" for n in names.split()]
    return found


def collect(folders: Sequence[Path], build: Path) -> dict[str, Source]:
    """The files of folders by key; a folder named certificates is a library of its own.

    Raises
    ------
    CannotCheck
        for a folder that is not there, two files of one name, no file at all.
    """
    files: dict[str, Source] = {}
    for folder in folders:
        if not folder.is_dir():
            raise CannotCheck(f"{folder} is not a folder; give folders that hold .v files.")
        certificates = folder.name == CERTIFICATES
        library = CERTIFICATES if certificates else THEORY
        place = certificates_build(build) if certificates else build
        for path in sorted(folder.glob("*.v")):
            source = Source(library, path.stem, path, place)
            if source.key in files:
                other = files[source.key].path
                raise CannotCheck(f"{path} and {other} have one name; rename one.")
            files[source.key] = source
    if not files:
        raise CannotCheck(f"no .v file in {', '.join(map(str, folders))}.")
    return files


def certificates_build(build: Path) -> Path:
    """Beside the theory's: a folder below it would be part of the theory's library."""
    return build.with_name(f"{build.name}_certificates")


def order_of(files: Mapping[str, Source]) -> dict[str, list[str]]:
    """What each file imports, in an order in which each comes after what it imports."""
    libraries = {s.library for s in files.values()} | {THEORY}
    needs = {key: imports(source, libraries) for key, source in files.items()}
    ordered: dict[str, list[str]] = {}

    def visit(key: str, below: tuple[str, ...]) -> None:
        if key in below:
            raise Rejected(f"{files[key].path} imports itself through {' -> '.join(below)}.")
        if key in ordered:
            return
        if key not in files:
            user = files[below[-1]]
            if user.library != THEORY and "." not in key:
                return  # the theory may have been compiled before
            raise Rejected(f"{user.path} imports {THEORY}.{key}, which is not there.")
        for other in needs[key]:
            visit(other, (*below, key))
        ordered[key] = needs[key]

    for key in files:
        visit(key, ())
    return ordered


# -- running Coq ------------------------------------------------------------------------------


def require_tools(*tools: str) -> None:
    """Raises `CannotCheck` for a program that is not installed, with how to install it."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise CannotCheck(f"{tool} is not installed: {INSTALL}")


def version() -> str:
    """Of coqc, such as ``8.16.1``."""
    return run(["coqc", "--version"], 60, "coqc --version").stdout.split("version ")[1].split()[0]


def run(
    command: list[str], limit: float, what: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A command run in a folder; `Rejected` with its last lines if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise CannotCheck(f"{what}: not finished within {limit:g} s; allow it more time.") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise Rejected(f"{what} is rejected:\n{tail}")
    return done


def libraries_of(build: Path) -> list[str]:
    """Options that name the compiled theory and, where there are any, the certificates."""
    own = certificates_build(build)
    more = ["-R", str(own), CERTIFICATES] if own.is_dir() else []
    return ["-R", str(build), THEORY, *more]


def compile_file(source: Source, theory: Path, limit: float) -> float:
    """Compile one file into its build folder; the seconds it took."""
    start = time.monotonic()
    target = source.build / f"{source.name}.vo"
    options = ["-R", str(theory), THEORY]
    if source.library != THEORY:
        options += ["-R", str(source.build), source.library]
    command = ["coqc", "-q", "-w", WARNINGS, *options, "-o", str(target)]
    # the tools' caches stay in the build folder too
    run([*command, str(source.path.resolve())], limit, str(source.path), source.build)
    return round(time.monotonic() - start, 2)


def compile_all(
    files: Mapping[str, Source],
    build: Path,
    limit: float,
    jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Compile every file, several at a time where imports allow; seconds by key."""
    needs = order_of(files)
    seconds: dict[str, float] = {}
    waiting = list(needs)
    running: dict[Future, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            ready = [k for k in waiting if all(n in seconds for n in needs[k] if n in files)]
            for key in ready[: jobs - len(running)]:
                waiting.remove(key)
                running[pool.submit(compile_file, files[key], build, limit)] = key
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                key = running.pop(future)
                seconds[key] = future.result()
                say(f"{seconds[key]:7.2f} s  {key}")
    return {key: seconds[key] for key in needs}


def axioms_of(
    files: Mapping[str, Source],
    theorems: Sequence[Statement],
    build: Path,
    limit: float,
    libraries: Sequence[str] | None = None,
) -> dict[str, list[str]]:
    """What the theorems of each file stand on, all of them together: one answer takes a second."""
    lines = []
    for key, source in files.items():
        module = f"{source.library}.{source.name}"
        names = [t.name for t in theorems if t.file == key]
        together = ", ".join(f"@{module}.{name}" for name in names) or "tt"
        label = key.replace(".", "_")
        lines += [
            f"Require {module}.",
            f"Definition all_of_{label} := (tt, {together}).",
            f'Goal True. idtac "@ {key}". Abort.',
            f"Print Assumptions all_of_{label}.",
        ]
    audit = build / "audit_axioms.v"
    audit.write_text("\n".join(lines) + "\n")
    command = ["coqc", "-q", "-w", WARNINGS, *(libraries or libraries_of(build)), str(audit)]
    output = run(command, limit, "Print Assumptions", build).stdout
    parts = re.split(r"^@ (\S+)$", output, flags=re.M)[1:]
    answers = dict(zip(parts[::2], parts[1::2], strict=True))
    return {key: axioms_in(answers.get(key, ""), key) for key in files}


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


def recheck(files: Iterable[Source], build: Path, limit: float, libraries: bool) -> None:
    """Coq's independent checker over the compiled files, and over every library they use."""
    modules = [
        f"{s.library}.{s.name}" for s in files if libraries or s.name not in LIBRARY_INSTANCES
    ]
    command = ["coqchk", "-silent", "-o", *libraries_of(build)]
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
