"""The plugin in pytest runs of its own: what it costs, asserts, records, and prints."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import deltabias

pytest_plugins = ["pytester"]
SOURCE = str(Path(deltabias.__file__).parents[1])

# Checks that answer at once: what the fixtures do with an answer is under test here.
STUBS = """
import sys, types
def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group: of pytest-xdist, which may be off")
from deltabias.verify.record import Check, Report

def check_optimizer(make, rule, **options):
    print("asked", rule, options["seed"])
    if rule == "broken":
        raise ValueError("no such rule")
    check = Check("conformance", "fail" if rule == "wrong" else "pass", 0.5, 4.0, "eps in the root")
    return Report("Mine", rule, (check,), 0.1, options["seed"])

class Verdict:
    bias, standard_error, samples, reason = float("nan"), 0.1, 10, "half of it is left"
    def __init__(self, verdict, rate): self.verdict, self.rate = verdict, rate
    passed = property(lambda self: self.verdict == "pass")
    def __str__(self): return f"the table, at {self.rate:g}"

def check_bias(update, target, *, false_alarm, seed):
    print("asked", false_alarm)
    return Verdict(update(), false_alarm)

for name, function in (("conformance", check_optimizer), ("bias", check_bias)):
    sys.modules[f"deltabias.verify.{name}"] = types.SimpleNamespace(**{function.__name__: function})
"""

TESTS = """
import pytest
class Mine: pass
def right(): return "pass"
def unclear(): return "inconclusive"

def test_right(check_optimizer, check_bias):
    assert check_optimizer(Mine, "sgd").rule == "sgd"
    check_bias(right, 1.0)
def test_wrong(check_optimizer):
    check_optimizer(Mine, "wrong")
def test_unclear(check_bias):
    check_bias(unclear, 1.0)
def test_raises(check_optimizer):
    check_optimizer(Mine, "broken")
@pytest.mark.xdist_group("one")
@pytest.mark.deltabias(false_alarm=1e-3, seed=5)
def test_marked(check_bias, check_optimizer):
    check_bias(right, 1.0), check_optimizer(Mine, "sgd")
def test_of_something_else(): pass
"""


PLUGIN = ("-p", "deltabias.pytest_plugin", "--strict-markers", "--junit-xml=junit.xml")


@pytest.fixture
def project(pytester, monkeypatch):
    """Run pytest on those tests, in a process of its own, with nothing but this plugin."""
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it may be installed, too
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest(STUBS)
    pytester.makepyfile(test_mine=TESTS)

    def run(*arguments, code=1):
        result = pytester.runpytest_subprocess(*PLUGIN, *arguments)
        assert result.ret == code, result.stdout.str()
        return result

    run.path = pytester.path
    return run


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """What a run of all those tests without options prints, and what it records."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "conftest.py").write_text(STUBS)
    (folder / "test_mine.py").write_text(TESTS)
    environment = {"PYTHONPATH": SOURCE, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", *PLUGIN], cwd=folder, text=True,
                          env=environment, capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 1, done.stdout
    return pytest.LineMatcher(done.stdout.splitlines()), recorded(folder)


def recorded(folder):
    """Each test's checks as the junit file has them, strictly JSON."""
    cases = ElementTree.parse(folder / "junit.xml").iter("testcase")
    return {
        case.get("name").partition("@")[0]: [
            json.loads(found.get("value"), parse_constant=pytest.fail)
            for found in case.iter("property")
            if found.get("name") == "deltabias"
        ]
        for case in cases
    }


# -- what it costs --------------------------------------------------------------------------------

COST = """
import sys, time, pytest
began = time.perf_counter()
import deltabias.pytest_plugin
print(time.perf_counter() - began)
print(*(m for m in sys.modules if m.partition('.')[0] in ('deltabias', 'torch', 'sympy', 'numpy')))
"""


def test_importing_the_plugin_is_fast_and_brings_nothing_along():
    seconds = []
    for _ in range(3):  # the least of three: the machine may be busy
        done = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True,
                              env={"PYTHONPATH": SOURCE}, check=True)  # fmt: skip
        taken, modules = done.stdout.splitlines()
        assert modules.split() == ["deltabias", "deltabias.pytest_plugin"]
        seconds.append(float(taken))
    assert min(seconds) < 0.05


def test_a_run_that_checks_nothing_imports_nothing_and_says_nothing(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        "import sys\n"
        "def test_modules(): assert not {'torch', 'sympy', 'deltabias.verify'} & set(sys.modules)"
    )
    result = pytester.runpytest_subprocess("-p", "deltabias.pytest_plugin")
    result.assert_outcomes(passed=1)
    assert "= deltabias =" not in result.stdout.str()


# -- what it asserts and records ------------------------------------------------------------------


def test_every_verdict_but_pass_fails_with_the_whole_table_and_the_seed(plain_run):
    said, _ = plain_run
    said.fnmatch_lines(
        [
            "*check_optimizer: fail*",
            "*Mine against wrong: fail (0.1 s)*",
            "*conformance  0.5 (expected 4)  eps in the root*",
            "*seed=*, from the test's name; --deltabias-seed changes it.*",
            "*check_bias: inconclusive*",
            "*the table, at 1e-06*",
            "*ValueError: no such rule*",
        ]
    )
    assert "pytest_plugin.py" not in said.str().split("no such rule")[0], "their line, not ours"


def test_the_summary_counts_checks_names_failures_and_bounds_the_false_alarms(plain_run):
    said, _ = plain_run
    said.fnmatch_lines(
        [
            "*= deltabias =*",
            "fail         check_optimizer Mine  eps in the root  [[]test_mine.py::test_wrong,*",
            "inconclusive check_bias unclear  half of it is left  [[]test_mine.py::test_unclear,*",
            "error        check_optimizer Mine  [[]test_mine.py::test_raises,*",
            "4 of 7 checks passed.",
            "3 statistical checks: * has a probability of at most 0.001.",
        ]
    )
    assert "test_right" not in said.str().split("= deltabias =")[1].split("= short")[0]


def test_a_verbose_summary_has_a_line_for_each_check(project):
    said = project("-v", "-k", "right", code=0).stdout.str().split("= deltabias =")[1]
    assert "pass         check_optimizer Mine" in said
    assert "pass         check_bias right" in said


def test_the_junit_file_carries_each_check(plain_run):
    _, found = plain_run
    optimizer, bias = found["test_right"]
    assert optimizer["verdict"] == "pass"
    assert optimizer["checks"] == [
        {"name": "conformance", "verdict": "pass", "measured": 0.5, "expected": 4.0,
         "diagnosis": "eps in the root"}
    ]  # fmt: skip
    assert (bias["false_alarm"], bias["bias"]) == (1e-6, "nan")
    assert found["test_raises"][0]["verdict"] == "error"
    assert found["test_of_something_else"] == []


def test_seeds_are_digests_of_the_name_wherever_and_however_the_tests_run(plain_run, project):
    _, alone = plain_run
    seeds = [c["seed"] for checks in alone.values() for c in checks]
    assert len(set(seeds)) == len(seeds) - 1, "only the two that are marked share theirs"
    assert [c["seed"] for c in alone["test_marked"]] == [5, 5]
    assert alone["test_wrong"][0]["seed"] == 4083819023, "the same on every machine, forever"
    project("-k", "right", "--deltabias-seed", "1", code=0)
    assert recorded(project.path)["test_right"][0]["seed"] != alone["test_right"][0]["seed"]


def test_xdist_changes_nothing(plain_run, project):
    said = project("-p", "xdist.plugin", "-n", "2", "--dist", "loadgroup").stdout
    assert recorded(project.path) == plain_run[1]
    said.fnmatch_lines(["*= deltabias =*", "4 of 7 checks passed."])


# -- options --------------------------------------------------------------------------------------


def test_each_option_is_an_ini_value_that_the_command_line_beats(project):
    (project.path / "pytest.ini").write_text(
        "[pytest]\ndeltabias_seed = 3\ndeltabias_false_alarm = 1e-4\n"
    )
    project("-k", "right", code=0)
    (_, from_file) = recorded(project.path)["test_right"]
    assert from_file["false_alarm"] == 1e-4
    project("-k", "right", "--deltabias-false-alarm=1e-5", "--deltabias-seed=3", code=0)
    (_, from_option) = recorded(project.path)["test_right"]
    assert from_option["false_alarm"] == 1e-5
    assert from_option["seed"] == from_file["seed"]


def test_the_marker_is_registered_set_by_itself_and_selects(project):
    assert "@pytest.mark.deltabias(seed=None" in project("--markers", code=0).stdout.str()
    said = project("-m", "not deltabias", code=0)
    said.assert_outcomes(passed=1, deselected=5)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--deltabias-seed=x", "'x' must be an integer, 0 or more"),
        ("--deltabias-seed=-1", "'-1' must be an integer, 0 or more"),
        ("--deltabias-false-alarm=nan", "'nan' must be between 0 and 0.5"),
        ("--deltabias-false-alarm=1", "'1' must be between 0 and 0.5"),
    ],
)
def test_options_that_make_no_sense_stop_the_run(project, option, said):
    assert said in project(option, code=pytest.ExitCode.USAGE_ERROR).stderr.str()


# -- the real checks ------------------------------------------------------------------------------

REAL = """
import pytest, torch

def test_optimizer(check_optimizer):
    check_optimizer(torch.optim.SGD, "sgd", histories=3, features=False)

def plug_in(x):
    return 1 / x.mean(1)

@pytest.mark.parametrize("claim", [1, 2])
def test_bias(check_bias, claim):
    check_bias(plug_in, "1/x", law="two_point", microbatches=4, claim=claim)
"""


def test_the_real_checks_answer_through_the_fixtures(project):
    (project.path / "conftest.py").write_text("")
    (project.path / "test_mine.py").write_text(REAL)
    said = project()
    said.assert_outcomes(passed=2, failed=1)
    said.stdout.fnmatch_lines(["*check_bias: fail*", "fail*test_bias[[]2[]]*"])
    found = recorded(project.path)
    assert found["test_optimizer"][0]["checks"][0]["name"] == "conformance"
    assert found["test_bias[1]"][0]["verdict"] == "pass"
    assert found["test_bias[1]"][0]["bias"] > 0
