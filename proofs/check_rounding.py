"""Run Gappa on every rounding certificate: each script proves one function's bound, or fails.

    python proofs/check_rounding.py [PATH ...] [--json] [--limit SECONDS] [--jobs N]

Paths are scripts or folders of scripts, ``proofs/rounding`` by default. ``check_rounding`` is the
same as a function, for other checkers.

Exit status: 0 all are proved, 1 one is rejected, 2 it could not be checked (no gappa, no script,
a time limit). Needs the standard library of Python and Gappa alone (``proofs/install-coq.sh``).
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

NAME = r"(\w+)"
ERROR = re.compile(rf"\|\((any|some|zero)_{NAME} - \w+\) / size_\1_\2\| <= (\S+)")
STEP = re.compile(rf"\|any_{NAME}\| in \[1b(-?\d+),\S+\]")
RELATIVE = re.compile(rf"{NAME} -/ exact_\1 in \[-(\S+),\2\]")
CLAMPED = re.compile(rf"\|\({NAME} - exact_\1\) / {NAME}\| <= (\S+)")


class CannotCheck(Exception):
    """The scripts could not be checked: nothing is said about them."""


@dataclass(frozen=True)
class Outcome:
    """What Gappa says of one script.

    ``status`` is "proved", "rejected" or "time limit"; ``message`` is what Gappa prints then.
    """

    script: str
    status: str
    seconds: float
    message: str = ""


def scripts_in(paths: Iterable[Path]) -> list[Path]:
    """The scripts named, and those in the folders named.

    Raises
    ------
    CannotCheck
        for a path that does not exist, and if there is no script at all.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise CannotCheck(f"{path} does not exist; `deltabias generate` writes the scripts.")
        found += sorted(path.glob("*.g")) if path.is_dir() else [path]
    if not found:
        raise CannotCheck(f"no .g file in {', '.join(map(str, paths))}.")
    return found


def premises_without_a_goal(text: str) -> list[str]:
    """Hypotheses that the script neither proves of what they stand for nor names as assumed.

    A script continues from a sum that may cancel with any value of its error (``any_x``,
    ``some_x``, ``zero_x``), so the error has to be among the goals, for x. What is larger than a
    step of x's grid if it is not zero has to have that grid, and a clamp's error to be a goal
    for its two crossings. A library's error is assumed, and says so in the header.
    """
    hypotheses, _, goals = text.partition("\n  ->\n")
    proved = {" ".join(g.split()) for g in goals.partition(" }\n")[0].split("/\\")}
    assumed = text.count("# Assumed:")
    missing = []
    for line in hypotheses.split("{")[-1].split("/\\"):
        premise = " ".join(line.split())
        if found := ERROR.fullmatch(premise):
            x, limit = found[2], found[3]
            # a clamp keeps the size of what goes into it
            start, end = f"|({x} - exact_{x}) / size_", f"| <= {limit}"
            needed = {g for g in proved if g.startswith(start) and g.endswith(end)} or {premise}
        elif found := STEP.fullmatch(premise):
            needed = {f"@FIX({found[1]},{found[2]})"}
        elif found := RELATIVE.fullmatch(premise):
            x, limit = found[1], found[2]
            needed = {
                f"qa_of_{x} / ta_of_{x} - 1 in [-{limit},{limit}]",
                f"rb_of_{x} * tb_of_{x} - 1 in [-{limit},{limit}]",
            }
            if not needed & proved and assumed:
                assumed, needed = assumed - 1, set()
        elif found := CLAMPED.fullmatch(premise):
            x, limit = found[1], found[3]
            needed = {f"|aa_of_{x}| <= {limit}", f"|ab_of_{x} + db_of_{x}| <= {limit}"}
        else:
            continue
        if not needed <= proved:
            missing.append(premise)
    return missing


def check_script(path: Path, limit: float = 60) -> Outcome:
    """Run Gappa on one script; its exit status is the verdict, if every premise has its goal."""
    start = time.monotonic()
    if missing := premises_without_a_goal(path.read_text()):
        return Outcome(path.name, "rejected", 0.0, f"premise without a goal: {missing[0]}")
    try:
        done = subprocess.run(
            ["gappa", str(path)], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(path.name, "time limit", limit, f"not finished within {limit:g} s")
    seconds = round(time.monotonic() - start, 3)
    if done.returncode == 0:
        return Outcome(path.name, "proved", seconds)
    return Outcome(path.name, "rejected", seconds, _errors(done.stderr))


def _errors(text: str) -> str:
    """Gappa's complaint without its warnings, which stand before it."""
    _, mark, tail = text.partition("Error:")
    return (mark + tail).strip() or text.strip()[-500:]


def check_rounding(
    paths: Iterable[Path] = (HERE / "rounding",), *, limit: float = 60, jobs: int = 0
) -> list[Outcome]:
    """Run Gappa on scripts, several at a time; in the order of their names.

    Parameters
    ----------
    paths : scripts or folders
    limit : seconds for one script
    jobs : processes at a time; 0 for one a processor

    Raises
    ------
    CannotCheck
        if gappa is not installed or there is no script.
    """
    if shutil.which("gappa") is None:
        raise CannotCheck("gappa is not installed: sh proofs/install-coq.sh")
    found = scripts_in(tuple(paths))
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda path: check_script(path, limit), found))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*", type=Path, default=[HERE / "rounding"])
    parser.add_argument("--json", action="store_true", help="the outcomes as JSON on stdout")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one script")
    parser.add_argument("--jobs", type=int, default=0, help="scripts at a time; 0: one a processor")
    options = parser.parse_args(arguments)
    try:
        outcomes = check_rounding(options.paths, limit=options.limit, jobs=options.jobs)
    except CannotCheck as reason:
        print(f"cannot check: {reason}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(o) for o in outcomes], indent=1))
    else:
        for outcome in outcomes:
            print(f"{outcome.seconds:7.2f} s  {outcome.status:10} {outcome.script}")
    for outcome in outcomes:
        if outcome.status != "proved":
            print(f"{outcome.script}: {outcome.status}: {outcome.message}", file=sys.stderr)
    statuses = {outcome.status for outcome in outcomes}
    return 1 if "rejected" in statuses else 2 if "time limit" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
