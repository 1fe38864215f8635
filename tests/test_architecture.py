"""The house: one name links a rule's files, files stay short, and imports go one way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deltabias
from deltabias.codegen.emit import MARK
from deltabias.codegen.sync import catalogue_files, compare
from deltabias.rules import SUBJECTS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "deltabias"
NAMES = [subject.name for subject in SUBJECTS]
GENERATED = SOURCE / "generated"
LONGEST = 400
BANNED = {"utils.py", "common.py", "helpers.py", "misc.py"}

FILES = sorted(SOURCE.rglob("*.py"))
WRITTEN = [p for p in FILES if GENERATED not in p.parents]
MODULES = [p for p in FILES if p.parent == GENERATED and p.name != "__init__.py"]


def short(path):
    return str(path.relative_to(SOURCE))


def test_the_package_under_test_is_the_one_of_this_checkout():
    assert len(FILES) > 50
    assert len(MODULES) == len(set(NAMES)) == len(NAMES)
    assert (Path(deltabias.__file__).parent / "rules").is_dir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "place",
    ["src/deltabias/generated/{}.py", "tests/generated/test_{}.py", "docs/rules/{}.md",
     "proofs/certificates/{}.v"],
)  # fmt: skip
def test_every_rule_has_its_module_test_page_and_certificate(name, place):
    path = ROOT / place.format(name)
    if not path.is_file():  # a subject that no Coq file covers yet has a record
        path = path.with_suffix(".json")
    assert path.is_file()
    assert MARK in path.read_text(encoding="utf-8")


def test_no_generated_file_is_there_without_a_rule():
    for place in ("src/deltabias/generated/*.py", "tests/generated/*.py", "docs/rules/*.md"):
        for path in ROOT.glob(place):
            if MARK in path.read_text(encoding="utf-8"):
                assert path.stem.removeprefix("test_") in NAMES


def test_the_committed_files_are_what_the_rules_say_now():
    drifted = compare(ROOT, catalogue_files(SUBJECTS))
    assert not drifted, [f"{d.kind}: {d.path}" for d in drifted]


# -- size and names -------------------------------------------------------------------------------


def too_long(path, lines):
    return lines > LONGEST and GENERATED not in path.parents


@pytest.mark.parametrize("path", WRITTEN, ids=short)
def test_a_hand_written_file_is_short(path):
    assert not too_long(path, len(path.read_text(encoding="utf-8").splitlines()))
    assert too_long(SOURCE / "rule.py", LONGEST + 1)


def test_no_file_is_a_drawer_for_everything():
    assert not {p.name for p in FILES} & BANNED
    assert not {p.parent.name for p in FILES} & {name.removesuffix(".py") for name in BANNED}


@pytest.mark.parametrize("path", WRITTEN, ids=short)
def test_every_module_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body


# -- imports --------------------------------------------------------------------------------------


def imported(source):
    """Every module that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_a_generated_module_imports_nothing_but_torch_and_math(path):
    assert imported(path.read_text(encoding="utf-8")) <= {"torch", "math"}
    assert not imported("from deltabias.rule import EPS") <= {"torch", "math"}


HEAVY = ("torch", "sympy", "mpmath", "numpy", "scipy", "flint", "matplotlib", "rich", "click")


def loaded_by(module):
    """Heavy packages that importing a module brings along, in a process of its own."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    assert loaded_by("deltabias") == set()
    assert "sympy" in loaded_by("deltabias.calculus.weights")  # the control


BLOCKED = """
import sys
for name in ("sympy", "mpmath", "scipy", "flint", "matplotlib", "rich", "click"):
    sys.modules[name] = None  # importing it is an error from here on
import deltabias.generated.adamw, deltabias.microbatch, deltabias.optim
"""


def test_what_runs_in_training_needs_torch_alone():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_module_imports_what_is_above_it():
    order = ["calculus", "parser", "matrix_parser", "rule", "matrix_rule", "rules", "rule_file",
             "smoothness", "derivation", "matrix_derivation", "safe_form", "tracking",
             "correction", "evaluate", "codegen"]  # fmt: skip
    for path in WRITTEN:
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if here not in order:
            continue
        above = {f"deltabias.{name}" for name in order[order.index(here) + 1 :]}
        for name in imported(path.read_text(encoding="utf-8")):
            assert ".".join(name.split(".")[:2]) not in above, (short(path), name)
