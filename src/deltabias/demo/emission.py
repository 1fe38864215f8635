"""Generate a rule's corrected function next to its test, and run that test."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import deltabias
from deltabias.errors import GenerateError
from deltabias.rule import UpdateRule

TIME_LIMIT = 120.0
"""Seconds after which the emitted test counts as failed."""


@dataclass(frozen=True)
class Emission:
    """The written files and what their test said; ``passed`` is None if it could not run."""

    files: tuple[Path, ...]
    passed: bool | None
    output: str


def emit_and_test(rule: UpdateRule, directory: Path) -> Emission:
    """Write the function, its test, its documentation and its certificate; run the test.

    Raises
    ------
    GenerateError
        if no test is among the files.
    """
    from deltabias.codegen.sync import write_rule

    directory.mkdir(parents=True, exist_ok=True)
    files = tuple(Path(path) for path in write_rule(rule, directory))
    tests = [path for path in files if path.name.startswith("test_") and path.suffix == ".py"]
    if not tests:
        raise GenerateError(
            f"no test among {', '.join(p.name for p in files) or 'no files'} for rule "
            f"{rule.name!r}; a corrected function without a test is not to be trusted."
        )
    return Emission(files, *run_tests(tests))


def run_tests(tests: list[Path]) -> tuple[bool | None, str]:
    """Run pytest on the files in a process of its own: (passed, output)."""
    if importlib.util.find_spec("pytest") is None:
        return None, "pytest is not installed; pip install pytest to run the emitted test."
    root = tests[0].resolve().parent
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        # the settings of a project around the directory must not decide what the test says
        *("-c", os.devnull, f"--rootdir={root}"),
        *(str(test.resolve()) for test in tests),
    ]
    # the test must meet this very package, also where it was found through a relative path
    package = str(Path(deltabias.__file__).resolve().parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"the emitted test took longer than {TIME_LIMIT:g} s."
    return done.returncode == 0, (done.stdout + done.stderr).strip()
