"""One compilation of the theory for all tests of the session."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

PROOFS = Path(__file__).resolve().parents[2] / "proofs"
WAIT = 600
"""Seconds that one worker waits for another to compile the theory."""


@dataclass(frozen=True)
class Checked:
    """The report of proofs/check.py, and where it left the compiled files."""

    status: int
    report: dict
    errors: str
    build: Path


@pytest.fixture(scope="session")
def coq() -> str:
    path = shutil.which("coqc")
    if path is None or shutil.which("coqchk") is None:
        pytest.skip("skipped: no coqc")
    return path


def run_check(*arguments: object) -> subprocess.CompletedProcess:
    """proofs/check.py as a user runs it."""
    command = [sys.executable, PROOFS / "check.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="session")
def checked(coq, tmp_path_factory, request) -> Checked:
    """The whole theory, compiled once, by whichever worker comes first."""
    parallel = hasattr(request.config, "workerinput")
    root = tmp_path_factory.getbasetemp()
    build = (root.parent if parallel else root) / "proofs_build"
    answer = build.with_suffix(".json")
    try:
        build.mkdir()
    except FileExistsError:
        for _ in range(WAIT):
            if answer.exists():
                break
            time.sleep(1)
    else:
        done = run_check("--json", "--build", build, PROOFS / "theory")
        text = json.dumps([done.returncode, done.stdout, done.stderr])
        answer.with_suffix(".part").write_text(text)
        answer.with_suffix(".part").rename(answer)  # others never see half of it
    status, output, errors = json.loads(answer.read_text())
    return Checked(status, json.loads(output) if status == 0 else {}, errors, build)


@pytest.fixture(scope="session")
def compiles(checked, tmp_path_factory):
    """A function: does this text compile as a module of the theory? With Coq's last words."""
    folder = tmp_path_factory.mktemp("mutants")

    def attempt(text: str) -> tuple[bool, str]:
        source = folder / "mutant.v"
        source.write_text(text)
        command = ["coqc", "-q", "-w", "none", "-R", str(checked.build), "deltabias", str(source)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, cwd=folder
        )
        return done.returncode == 0, done.stdout + done.stderr

    return attempt
