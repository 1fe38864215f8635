"""Scripts of the catalogue, and Gappa by name: skipped where it is not installed."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from deltabias.codegen.gappa import rounding_bounds, rounding_scripts
from deltabias.codegen.kernels import rule_programs
from deltabias.rules import CATALOGUE

ROOT = Path(__file__).parents[2]


def _load_checker():
    path = ROOT / "proofs" / "check_rounding.py"
    spec = importlib.util.spec_from_file_location("check_rounding", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_rounding"] = module  # its records look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def checker():
    """The module that runs Gappa."""
    return _load_checker()


@pytest.fixture(scope="session")
def verdict(checker, tmp_path_factory):
    """Runs Gappa on a script's text; returns the outcome."""
    if shutil.which("gappa") is None:
        pytest.skip("no gappa: sh proofs/install-coq.sh")
    folder = tmp_path_factory.mktemp("scripts")

    def run(text: str, limit: float = 20):
        path = folder / "script.g"
        path.write_text(text)
        return checker.check_script(path, limit)

    return run


@pytest.fixture(scope="session")
def programs():
    """The programs of every rule of the catalogue: they take a second a rule, so once."""
    return {rule.name: rule_programs(rule) for rule in CATALOGUE.values()}


@pytest.fixture(scope="session")
def scripts(programs):
    """Every script of the catalogue by name."""
    return {n: t for p in programs.values() for n, t in rounding_scripts(p).items()}


@pytest.fixture(scope="session")
def bounds(programs):
    """Every bound of the catalogue by (rule, function, dtype)."""
    return {
        (name, b.function, b.dtype): b for name, p in programs.items() for b in rounding_bounds(p)
    }
