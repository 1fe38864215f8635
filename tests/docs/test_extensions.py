"""What the site's own extensions promise: assets, docstrings, generated pages, the theorem role."""

import doctest
import json
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest

needs_sphinx = pytest.mark.skipif(find_spec("sphinx") is None, reason="no sphinx")
EXTENSIONS = ("assets", "docstrings", "api_pages", "study_pages", "benchmark_pages",
              "benchmark_figures", "proof_pages", "diagnoses")  # fmt: skip


@needs_sphinx
@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_examples_in_the_docstrings_hold(name):
    assert doctest.testmod(import_module(name)).failed == 0


@needs_sphinx
def test_mathjax_comes_from_its_package_with_its_licence(tmp_path):
    import assets

    folder = assets.mathjax(tmp_path)
    assert (folder / assets.MATHJAX).stat().st_size > 10**6
    assert "Apache License" in (folder / "mathjax" / "LICENSE").read_text()


def test_without_mathjax_the_message_says_what_to_install(tmp_path, monkeypatch):
    import assets

    monkeypatch.setattr(assets, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="django-static-mathjax"):
        assets.mathjax(tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_sphinx
def test_a_public_function_without_a_docstring_is_named():
    import api_pages

    module = ModuleType("made")
    module.__doc__ = "A module."
    module.__all__ = ["silent", "spoken"]
    exec("def silent(): pass\ndef spoken():\n    'Says so.'", module.__dict__)
    assert api_pages.undocumented(module) == ["made.silent"]


@needs_sphinx
def test_every_top_level_module_of_the_package_is_in_the_reference():
    import pkgutil

    import api_pages

    import deltabias

    names = {m.name for m in pkgutil.iter_modules(deltabias.__path__) if m.name[0] != "_"}
    shown = {name.split(".")[1] for name in api_pages.modules()}
    assert names - shown == {"generated", "cli", "demo", "reserved"} & names


@needs_sphinx
def test_a_study_page_shows_what_failed_first_and_every_number():
    import study_pages

    row = {"predicted": 2.0, "standard_error": 0.1, "note": ""}
    record = {
        "study": "made",
        "claim": "a|b holds",
        "command": "python -m validation made",
        "versions": {"python": "3.11"},
        "rows": [
            {"claim": "held one", "measured": 2.0, "passed": True, **row},
            {"claim": "failed one", "measured": 3.25, "passed": False, **row},
        ],
    }
    text = study_pages.study_page(record, figure=False)
    assert text.index("failed one") < text.index("held one")
    assert "3.25" in text
    assert r"A\|b holds" in text
    assert "1 claims held, 1 failed" in text


@needs_sphinx
def test_every_theorem_that_a_chapter_names_exists_and_another_does_not():
    import proof_pages

    stated = {name for part in proof_pages.theorems().values() for name, _ in part}
    assert {"delta_theorem", "both_biases_of_a_batch"} <= stated
    assert "no_such_theorem" not in stated


@needs_sphinx
def test_a_theorem_that_nobody_stated_and_a_bad_rule_are_warnings(tmp_path):
    """A small project with the site's extensions: the build goes on and says where."""
    import subprocess
    import sys

    from tests.docs.conftest import DOCS, ROOT

    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(DOCS / '_ext')!r})\n"
        "from pathlib import Path\nimport proof_pages\n"
        "proof_pages.FOLDER = Path(__file__).parent / 'g'\n"
        "extensions = ['myst_parser', 'proof_pages']\nexclude_patterns = ['g']\n"
    )
    (tmp_path / "index.md").write_text("# T\n\n{theorem}`no_such_theorem`\n")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", str(tmp_path), str(tmp_path / "out")],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "index.md:3: WARNING: no theorem 'no_such_theorem'" in done.stderr


@needs_sphinx
def test_every_diagnosis_has_a_meaning():
    import tomllib

    import diagnoses

    meanings = tomllib.loads(diagnoses.MEANINGS.read_text(encoding="utf-8"))
    assert {w.diagnosis for w in diagnoses.controls()} == set(meanings)


def test_the_record_of_a_study_is_json_that_the_page_reads():
    from tests.docs.conftest import ROOT

    for path in (ROOT / "validation" / "results").glob("*.json"):
        assert {"study", "claim", "command", "rows"} <= set(json.loads(path.read_text()))
