"""A target runs in a process of its own, and whatever it does there ends as a verdict."""

import os
import re
import sys
import textwrap
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deltabias.errors import DeltabiasError
from deltabias.verify.process import default_memory, run_isolated
from deltabias.verify.target import load_target, parse_target, verify_target

# The check itself is replaced: it makes the optimizer, steps once and passes. A target is a file
# of the user's, so it may put the replacement there itself.
STUB = """
import sys, types; from deltabias.verify.record import Check, Report
def check_optimizer(make, rule, **options):
    make().step()
    return Report("Mine", rule, (Check("conformance", "pass", 0.5, 4, "", str(options)),))
rules = {"resolve_step_rule": lambda text: text, "matrix_rule_of": lambda text: None}
both = {"conformance": {"check_optimizer": check_optimizer}, "step_rule_file": rules}
for name, stub in both.items():
    sys.modules[f"deltabias.verify.{name}"] = types.SimpleNamespace(**stub)
class Mine:
    def __init__(self): pass
    def step(self): pass
"""


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """Write a target's file (the stub, then the lines given) and verify it from another folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(lines="", name="Mine", **settings):
        (tmp_path / "mine.py").write_text(STUB + textwrap.dedent(lines))
        outcome = verify_target(f"{tmp_path / 'mine.py'}:{name}", "sgd", **settings)
        assert list((tmp_path / "here").iterdir()) == []
        assert sorted(p.name for p in tmp_path.iterdir()) == ["here", "mine.py"]
        return outcome

    return run


def reason(outcome, name="run"):
    report = outcome.report
    assert (report.verdict, report.exit_code) == ("error", 2)
    assert [check.name for check in report.checks] == [name]
    assert "Traceback" not in str(report)
    return report.checks[0].detail


def stepping(body, before=""):
    return f"{before}\nclass Mine(Mine):\n    def step(self):\n        {body}\n"


# -- what passes ----------------------------------------------------------------------------------


def test_a_check_that_passes_comes_back_as_it_was(judge):
    outcome = judge(seed=7, options={"features": False})
    report = outcome.report
    assert report.passed
    assert (report.rule, report.seed) == ("sgd", 7)
    check = report.named("conformance")
    assert (check.measured, check.expected) == (0.5, 4)
    assert re.fullmatch(r"{'seed': 7, 'time_limit': 10\d\.\d+, 'features': False}", check.detail)
    assert outcome.printed == ""


def test_a_factory_and_a_dotted_name_are_targets_too(judge):
    lines = "def build(): return Mine()\nclass Box: make = staticmethod(build)"
    assert judge(lines, "build").report.passed
    assert judge(lines, "Box.make").report.passed


def test_prints_are_kept_apart_from_the_report(judge):
    outcome = judge(stepping("print('hello'); import os; os.write(2, b'from C\\x1b[31m')"))
    assert outcome.report.passed
    assert outcome.printed == "hello\nfrom C�[31m"
    assert "hello" not in outcome.report.to_json()


def test_only_the_end_of_endless_prints_is_kept(judge):
    outcome = judge(stepping("print('x' * 100_000); print('end')"))
    assert len(outcome.printed) < 10_000
    assert outcome.printed.startswith("[… ")
    assert outcome.printed.endswith("end\n")


def test_a_module_is_found_from_the_current_directory(tmp_path, monkeypatch):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text(STUB)
    (package / "inner.py").write_text("from .other import Mine")
    monkeypatch.chdir(tmp_path)
    assert verify_target("pack.inner:Mine", "sgd").report.passed
    assert verify_target("pack/inner.py:Mine", "sgd").report.passed, "with its package's name"


def test_a_file_may_be_named_like_a_module_that_is_loaded(tmp_path):
    (tmp_path / "json.py").write_text(STUB)
    assert verify_target(f"{tmp_path}/json.py:Mine", "sgd").report.passed


# -- what is no target ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adamw", "names no object"),
        (":Name", "names no object"),
        ("torch.optim:", "is not a Python name"),
        ("torch.optim:f()", "is not a Python name"),
        ("torch optim:f", "is not a module's name"),
        ("some/file.txt:f", "is not a .py file"),
    ],
)
def test_text_of_another_form_is_refused(text, said):
    with pytest.raises(DeltabiasError, match=said):
        parse_target(text)
    outcome = verify_target(text, "sgd")
    assert said in reason(outcome, "target")


def test_control_characters_in_what_was_typed_reach_no_report():
    report = verify_target("a:\x1b[31m", "s\x00gd").report
    assert (report.target, report.rule) == ("a:�[31m", "s�gd")
    ElementTree.fromstring(report.to_junit())


@pytest.mark.parametrize(
    ("lines", "name", "said"),
    [
        ("", "Mime", "has no 'Mime'. Did you mean 'Mine'?"),
        ("", "Mine.other", "has no 'other'"),
        ("value = 3", "value", "is of type int and cannot be called"),
        ("class Box: pass", "Box", "is a class without a `step`"),
        ("import not_there_at_all", "Mine", "importing it raised ModuleNotFoundError in <module>"),
        ("raise ValueError('so\\x00me')", "Mine", "ValueError in <module> (mine.py:13): so�me"),
        ("def f(:", "Mine", "importing it raised SyntaxError"),
        ("sys.exit(0)", "Mine", "importing it raised SystemExit in <module> (mine.py:13): 0"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_with_the_reason(judge, lines, name, said):
    assert said in reason(judge(lines, name), "target")


def test_a_file_or_module_that_is_not_there_is_named(tmp_path):
    gone = verify_target(f"{tmp_path}/gone.py:Mine", "sgd")
    assert "gone.py' is not there" in reason(gone, "target")
    gone = verify_target("no_such_module.inner:Mine", "sgd")
    assert "there is no module 'no_such_module'" in reason(gone, "target")


# -- what misbehaves ------------------------------------------------------------------------------

DIES = [
    ("import sys; sys.exit(0)", "SystemExit in step (mine.py:16): 0"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt in step (mine.py:16): no message"),
    ("raise RuntimeError('in step')", "RuntimeError in step (mine.py:16): in step"),
    ("import os; os._exit(0)", "ended itself with exit code 0 while running the check; no result"),
    ("import os; os._exit(3)", "ended itself with exit code 3"),
    ("import ctypes; ctypes.string_at(0)", "died of SIGSEGV while running the check, in step"),
    ("import os; os.abort()", "died of SIGABRT while running the check, in step (mine.py:16)"),
    ("import os; os.kill(os.getpid(), 9)", "died of SIGKILL while running the check (perhaps out"),
    ("import signal; signal.alarm(1); signal.pause()", "died of SIGALRM"),
    ("f = lambda: f(); f()", "RecursionError in"),
]


@pytest.mark.parametrize(("body", "said"), DIES)
def test_a_step_that_ends_the_process_is_an_error_and_never_a_pass(judge, body, said):
    assert said in reason(judge(stepping(body)))


HANGS = [
    "while True: pass",
    "import time; time.sleep(60)",
    "(10**9 + 7) ** (10**8)",  # in C, with the interpreter's lock held
    "import faulthandler; faulthandler.cancel_dump_traceback_later(); import time; time.sleep(60)",
    "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; time.sleep(60)",
]


@pytest.mark.parametrize("body", HANGS)
def test_a_step_that_hangs_is_killed_at_the_time_limit(judge, body):
    started = time.perf_counter()
    outcome = judge(stepping(f"print('begun'); {body}" if ":" not in body[:12] else body),
                    time_limit=1.0)  # fmt: skip
    assert time.perf_counter() - started < 3
    said = reason(outcome)
    assert said.startswith("the time limit of 1 s was over while running the check")
    if "cancel" not in body:
        assert ", in step (mine.py:16)" in said, "it says where"
    assert outcome.printed == ("begun\n" if ":" not in body[:12] else "")


def test_an_import_that_hangs_is_killed_too(judge):
    said = reason(judge("while True: pass", time_limit=1.0))
    assert "was over while importing the target, in <module> (mine.py:13)" in said


def test_children_and_threads_that_are_left_behind_hold_nothing_up(judge, tmp_path):
    body = (
        "import os, time, threading; threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "        if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(60)"
    )
    started = time.perf_counter()
    outcome = judge(stepping(body + "\n        time.sleep(0.3)"))
    assert time.perf_counter() - started < 5
    assert outcome.report.passed
    child = int(outcome.printed)
    for _ in range(50):  # init has to reap it first
        if not _is_running(child):
            break
        time.sleep(0.1)
    assert not _is_running(child)


def _is_running(pid):
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"  # dead, and nobody has asked yet how it ended


def test_a_forked_child_that_returns_answers_nothing(judge):
    outcome = judge(stepping("import os, time; os.fork() and time.sleep(0.5)"))
    assert outcome.report.passed
    assert len(outcome.report.checks) == 1


def test_memory_has_a_limit(judge):
    body = "hold = [bytearray(1 << 24) for _ in range(10_000)]"
    said = reason(judge(stepping(body), memory_limit=512 << 20))
    assert said == "out of memory while it ran; the limit is 512 MiB."
    assert 0 < default_memory() <= 8 << 30


def test_standard_input_is_empty(judge):
    assert "EOFError" in reason(judge(stepping("input()")))


def test_closing_the_standard_streams_changes_nothing(judge):
    assert judge(stepping("import sys; sys.stdout.close(); sys.stderr = None")).report.passed


def test_numbers_of_other_libraries_and_what_is_not_finite_come_through(judge):
    lines = """
    import fractions
    class Mine(Mine): pass
    def check_optimizer(make, rule, **options):
        checks = (Check("a", "fail", float("nan")), Check("b", "fail", fractions.Fraction(1, 2)),
                  Check("c", "fail", counterexample={"grad": [1.0, object]}))
        return Report("Mine", rule, checks)
    sys.modules["deltabias.verify.conformance"].check_optimizer = check_optimizer
    """
    report = judge(lines).report
    assert report.exit_code == 1
    assert report.named("a").measured != report.named("a").measured
    assert report.named("b").measured == 0.5
    assert report.named("c").counterexample == {"grad": [1.0, "<class 'object'>"]}


# -- the limits themselves, and loading here ------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_time_limit_must_be_a_time(limit):
    with pytest.raises(DeltabiasError, match="must be a positive number of seconds"):
        run_isolated({}, time_limit=limit)


def test_an_unknown_kind_of_target_is_refused():
    with pytest.raises(DeltabiasError, match="use one of optimizer, bias"):
        verify_target("a:b", "sgd", kind="function")


def test_a_target_can_be_loaded_into_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "loaded_here.py").write_text("class Mine:\n    x = 3")
    assert load_target(f"{tmp_path}/loaded_here.py:Mine.x") == 3
    assert load_target("json.decoder:JSONDecoder").__name__ == "JSONDecoder"
    monkeypatch.delitem(sys.modules, "loaded_here")
