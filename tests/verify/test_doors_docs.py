"""What the pages on verification say is so, and the commands in their examples run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import deltabias
from deltabias import pytest_plugin
from deltabias.cli.verify_command import verify
from deltabias.verify.record import EXIT_CODES, Check, Report

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "verify"
EXAMPLES = PAGES / "examples"
SOURCE = str(Path(deltabias.__file__).parents[1])
WORKFLOW = (EXAMPLES / "github-actions.yml").read_text(encoding="utf-8")
HOOK = (EXAMPLES / "pre-commit-config.yaml").read_text(encoding="utf-8")


def page(name):
    return (PAGES / name).read_text(encoding="utf-8")


def commands(text, key):
    return re.findall(rf"^ +(?:- )?{key}: (.*)$", text, re.MULTILINE)


RUNS = [c for c in commands(WORKFLOW, "run") if not c.startswith("pip ")]
ENTRIES = commands(HOOK, "entry")


@pytest.fixture
def examples(tmp_path):
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, tmp_path)
    return tmp_path


def execute(command, folder):
    """The command as a shell would split it, with this interpreter's deltabias and pytest."""
    program, *arguments = shlex.split(command)
    plugin = ["-p", "deltabias.pytest_plugin"] if program == "pytest" else []
    environment = {**os.environ, "PYTHONPATH": SOURCE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", program, *plugin, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_examples_have_the_commands_that_are_run_here():
    assert [c.split()[0] for c in RUNS] == ["deltabias", "deltabias", "pytest"]
    assert [c.split()[0] for c in ENTRIES] == ["deltabias"]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS + ENTRIES)
def test_a_command_of_the_examples_passes_and_writes_its_junit_file(command, examples):
    execute(command, examples)
    words = shlex.split(command)
    if "--junit-xml" in words:
        assert (examples / words[words.index("--junit-xml") + 1]).read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["github-actions.yml", "pre-commit-config.yaml"])
def test_an_example_is_yaml_of_the_shape_its_reader_wants(name):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "\t" not in text
    if find_spec("yaml") is None:  # not among what the tests need: the shape, line by line
        wanted = r"^ *(#.*|(- )?[\w-]+:( .*)?)$"
        assert all(re.match(wanted, line) for line in text.splitlines())
        return
    import yaml

    read = yaml.safe_load(text)
    if name.startswith("github"):
        assert {"name", "jobs", True} <= set(read), "YAML 1.1 reads the key `on` as true"
        steps = read["jobs"]["verify"]["steps"]
        assert all(("uses" in step) != ("run" in step) for step in steps)
        assert [s["run"] for s in steps if "run" in s][1:] == RUNS
    else:
        (hook,) = read["repos"][0]["hooks"]
        assert {"id", "name", "entry", "language", "files"} <= set(hook)
        assert [hook["entry"]] == ENTRIES
        assert re.search(hook["files"], "my_optimizer.py")


def test_what_an_example_installs_is_an_extra_of_the_package():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for text in (WORKFLOW, HOOK):
        for extra in re.findall(r'"deltabias\[(\w+)\]"', text):
            assert f"\n{extra} = [" in project
    assert '[project.entry-points.pytest11]\ndeltabias = "deltabias.pytest_plugin"' in project


def test_the_table_of_verdicts_is_the_records():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d) \|$", page("index.md"), re.MULTILINE)
    assert {word: int(code) for word, code in rows} == {
        word: code for word, code in EXIT_CODES.items() if word != "skipped"
    }


def test_every_key_of_the_json_is_on_the_page():
    record = json.loads(Report("t", "r", (Check("c", "pass"),)).to_json())
    for key in (*record, *record["checks"][0]):
        assert f"`{key}`" in page("index.md"), key


def test_every_option_on_the_pages_exists():
    known = {option for p in verify.params for option in p.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", page("index.md"))) <= known
    for name in pytest_plugin_options():
        assert f"`--deltabias-{name}`" in page("ci.md")
        assert f"`deltabias_{name.replace('-', '_')}`" in page("ci.md")


def pytest_plugin_options():
    source = Path(pytest_plugin.__file__).read_text(encoding="utf-8")
    found = re.findall(r'^ +\("([a-z-]+)", "[\d.e-]+", ', source, re.MULTILINE)
    assert found == ["seed", "false-alarm"]
    return found


def test_every_file_that_a_page_includes_is_there():
    included = re.findall(r"\{literalinclude\} (\S+)", page("ci.md"))
    assert len(included) == 3
    assert all((PAGES / name).is_file() for name in included)
