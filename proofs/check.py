"""Check the proofs: compile every file, look for holes, collect the axioms, let coqchk agree.

    python proofs/check.py [FOLDER ...] [--build DIR] [--json] [--limit SECONDS] [--jobs N]
                           [--coqchk own|all|none] [--write-table]

Folders default to ``proofs/theory``, ``proofs/certificates`` and ``proofs/rounding``. Every ``.v``
file becomes a module, ``certificates.NAME`` in a folder of that name and ``deltabias.NAME``
elsewhere; every ``.g`` file is a script for Gappa. All that is compiled goes to the build folder.

Exit status: 0 everything is proved, 1 a file is rejected, has a hole or needs an axiom that is
not on the list, 2 it could not be checked (no coqc, a time limit, a wrong argument).
Needs the standard library of Python and Coq alone (``proofs/install-coq.sh``).
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))  # a checkout need not be installed

import check_rounding  # noqa: E402

from deltabias.certify import coq, table  # noqa: E402

FOLDERS = ("theory", "certificates", "rounding")


def run_gappa(folders: list[Path], limit: float, jobs: int, say) -> dict[str, float]:
    """Every rounding script, checked by Gappa; seconds by file."""
    holding = [folder for folder in folders if any(folder.glob("*.g"))]
    if not holding:
        return {}
    try:
        outcomes = check_rounding.check_rounding(holding, limit=limit, jobs=jobs)
    except check_rounding.CannotCheck as reason:
        raise coq.CannotCheck(str(reason)) from reason
    for outcome in outcomes:
        if outcome.status != "proved":
            failure = coq.Rejected if outcome.status == "rejected" else coq.CannotCheck
            raise failure(f"{outcome.script}: {outcome.status}: {outcome.message}")
    total = sum(outcome.seconds for outcome in outcomes)
    say(f"{total:7.2f} s  gappa, {len(outcomes)} scripts")
    return {f"gappa.{outcome.script}": outcome.seconds for outcome in outcomes}


def check(folders: list[Path], build: Path, limit: float, kernel: str, jobs: int, say):
    """Everything, in order; the first thing wrong ends it."""
    coq.require_tools("coqc", "coqchk")
    report = coq.Report(coq.version())
    files = coq.collect(folders, build)
    for place in {source.build for source in files.values()}:
        place.mkdir(parents=True, exist_ok=True)
        for stale in place.glob("*.vo"):
            stale.unlink()
    for key, source in files.items():
        text = source.path.read_text()
        coq.look_for_holes(source.path, text)
        report.theorems += coq.theorems_of(key, text)
    report.seconds = coq.compile_all(files, build, limit, jobs, say)
    report.axioms = coq.axioms_of(files, report.theorems, build, limit)
    coq.compare_with_whitelist(report)
    if kernel != "none":
        start = time.monotonic()
        coq.recheck(files.values(), build, limit, libraries=kernel == "all")
        report.coqchk_seconds = round(time.monotonic() - start, 2)
        say(f"{report.coqchk_seconds:7.2f} s  coqchk ({kernel})")
    report.seconds |= run_gappa(folders, limit, jobs, say)
    return report


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    existing = [HERE / name for name in FOLDERS if (HERE / name).is_dir()]
    parser.add_argument("folders", nargs="*", type=Path, default=existing)
    parser.add_argument("--build", type=Path, default=HERE.parent / "build" / "proofs")
    parser.add_argument("--json", action="store_true", help="the report as JSON on stdout")
    parser.add_argument("--limit", type=float, default=120, help="seconds for one file")
    parser.add_argument("--jobs", type=int, default=2, help="files compiled at a time")
    parser.add_argument(
        "--coqchk",
        choices=("own", "all", "none"),
        default="own",
        help="what the second kernel reads again: our files, all libraries too (minutes), nothing",
    )
    parser.add_argument(
        "--write-table", action="store_true", help="put the certificates' table in the README"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr if options.json else sys.stdout, flush=True)

    start = time.monotonic()
    build = options.build.resolve()
    try:
        report = check(
            options.folders, build, options.limit, options.coqchk, max(1, options.jobs), say
        )
    except coq.CannotCheck as reason:
        print(f"cannot check: {reason}", file=sys.stderr)
        return 2
    except coq.Rejected as reason:
        print(f"rejected: {reason}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(asdict(report), indent=1))
    if options.write_table:
        table.write(HERE / "README.md", report)
    axioms = sorted(set().union(*report.axioms.values()))
    count = f"{len(report.theorems)} theorems in {len(report.axioms)} files"
    say(f"{count}, {time.monotonic() - start:.0f} s, Coq {report.coq}")
    say("axioms used: " + (", ".join(axioms) or "none"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
