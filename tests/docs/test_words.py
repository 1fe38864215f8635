"""Every code block of the pages runs and prints what the page says; commands run."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest
from tests.docs.conftest import DOCS, ROOT

OTHERS = {"rules", "_generated", "_static", "_ext"}
"""Folders that hold no page with code of its own: generated from rules, results, docstrings."""
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in OTHERS)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_ELSEWHERE = {"distributed.md": "tests/distributed", "extension.md": "tests/sphinxext",
                 "explain.md": "tests/explain"}  # fmt: skip
"""Pages whose blocks their own tests run."""


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def named(pages):
    return pytest.mark.parametrize("page", pages, ids=[str(p.relative_to(DOCS)) for p in pages])


WITH_PYTHON = [p for p in PAGES if p.name not in RUN_ELSEWHERE and "python" in dict(blocks(p))]


@named(WITH_PYTHON)
def test_the_code_of_a_page_runs_from_top_to_bottom_and_prints_what_it_says(page, monkeypatch):
    monkeypatch.chdir(page.parent)
    found, scope = blocks(page), {"__name__": "page"}
    for place, (language, code) in enumerate(found):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name}, block {place}", "exec"), scope)
        after = found[place + 1] if place + 1 < len(found) else ("", "")
        assert printed.getvalue() == (after[1] if after[0] == "text" else "")


def test_every_language_of_a_block_is_one_that_is_run_or_read():
    mine = [p for p in PAGES if p.name not in RUN_ELSEWHERE]
    assert {language for p in mine for language, _ in blocks(p)} <= {"python", "text", "console"}


CONSOLE = sorted(
    {
        line
        for p in PAGES
        if p.name not in RUN_ELSEWHERE
        for language, code in blocks(p)
        if language == "console"
        for line in code.splitlines()
    }
)


def test_there_are_commands_to_check():
    assert len(CONSOLE) >= 4


@pytest.mark.parametrize("line", [c for c in CONSOLE if c.startswith("deltabias ")])
def test_a_command_of_a_page_runs(line, tmp_path):
    words = shlex.split(line)
    if words[1] == "certify":  # compiles the theory; tests/certify runs this very rule
        tested = (ROOT / "tests" / "certify" / "test_command.py").read_text(encoding="utf-8")
        assert f'"{words[2]}"' in tested
        return
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [c for c in CONSOLE if not c.startswith("deltabias ")])
def test_any_other_command_is_one_of_pip_make_or_the_studies(line):
    words = shlex.split(line)
    if words[:2] == ["pip", "install"]:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert re.fullmatch(r"deltabias\[(\w+)\]", words[2])
        assert f"\n{words[2][10:-1]} = [" in project
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    else:
        assert words[:2] == ["python", "-m"], line


RECIPES = sorted((DOCS / "optimizers" / "examples").glob("*.py"))
PACKAGES = {"with_accelerate": "accelerate", "with_lightning": "lightning",
            "with_trainer": "transformers"}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=[r.stem for r in RECIPES])
def test_a_recipe_corrects_every_one_of_its_five_steps(recipe, tmp_path):
    package = PACKAGES.get(recipe.stem)
    if package and find_spec(package) is None:
        pytest.skip(f"no {package}")
    search = [str(ROOT / "src"), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, str(recipe)],
        cwd=tmp_path,
        env={
            "PYTHONPATH": ":".join(search),
            "PATH": "",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "steps corrected: 5\n" in done.stdout


def test_every_recipe_is_on_the_page():
    text = (DOCS / "optimizers" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"examples/(\w+)\.py", text)) == {r.stem for r in RECIPES}


SPELLED = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "proofs/theory/not_proved.md",
           "validation/README.md"]  # fmt: skip
NO_TYPOS = "ans,fo,te,nd,ba,ot,ue,alpha,thi,hist,mis,linear,strat"


def test_every_word_is_spelled_as_codespell_would():
    if find_spec("codespell_lib") is None:
        pytest.skip("no codespell")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "codespell_lib",
            "--skip",
            "*.svg,*.js,_generated",
            "-L",
            NO_TYPOS,
            *SPELLED,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_misspelled_word_would_be_seen(tmp_path):
    if find_spec("codespell_lib") is None:
        pytest.skip("no codespell")
    (tmp_path / "a.md").write_text("The " + "teh" + " optimizer.\n")
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "-L", NO_TYPOS, str(tmp_path)],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
