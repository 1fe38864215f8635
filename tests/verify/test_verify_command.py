"""``deltabias verify``: its JSON, its JUnit file, its exit codes, and what it refuses."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click import BadParameter
from click.testing import CliRunner

import deltabias
from deltabias.cli import main, verify_command
from deltabias.cli.verify_command import parse_values, write_whole
from deltabias.errors import DeltabiasError
from deltabias.verify import jobs
from deltabias.verify.drive import DTYPES
from deltabias.verify.features import SLOW
from deltabias.verify.record import Check, Report
from deltabias.verify.target import Outcome

SOURCE = str(Path(deltabias.__file__).parents[1])


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["verify", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def asked(monkeypatch):
    """What `verify_target` is asked, and the verdict that it answers with."""
    said = {"verdict": "pass", "printed": ""}

    def answer(target, rule, **settings):
        said.update(settings, target=target, rule=rule)
        check = Check("conformance", said["verdict"], float("inf"), 4.0, "eps < root", "why")
        return Outcome(Report(target, rule, (check,), 1.0, settings["seed"]), said["printed"])

    monkeypatch.setattr("deltabias.verify.target.verify_target", answer)
    return said


# -- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "code"), [("pass", 0), ("fail", 1), ("inconclusive", 1), ("error", 2)]
)
def test_the_verdict_is_the_exit_code_and_the_json(asked, verdict, code):
    asked["verdict"] = verdict
    asked["printed"] = "noise\n"
    result = run("a:b", "--rule", "adamw", "--json", "--seed", 3, code=code)
    record = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (record["verdict"], record["rule"], record["seed"]) == (verdict, "adamw", 3)
    (check,) = record["checks"]
    assert (check["name"], check["verdict"], check["expected"]) == ("conformance", verdict, 4.0)
    assert check["measured"] is None, "JSON has no infinity"
    assert check["diagnosis"] == "eps < root"
    assert ("noise" in result.stderr) == (verdict != "pass")


def test_people_get_a_table_and_the_target_prints_when_asked(asked):
    asked["printed"] = "noise\n"
    result = run("a:b", "--rule", "adamw")
    assert "a:b against adamw: pass" in result.stdout
    assert "noise" not in result.output
    assert "-- printed by a:b:\nnoise\n" in run("a:b", "--rule", "adamw", "-v").stderr


def test_the_junit_file_is_written_whole_and_with_ordinary_permissions(asked, tmp_path):
    asked["verdict"] = "fail"
    file = tmp_path / "junit.xml"
    file.write_text("what was there")
    run("a:b", "--rule", "adamw", "--junit-xml", file, code=1)
    (case,) = ElementTree.parse(file).iter("testcase")
    assert case.find("failure").get("message") == "eps < root; why"
    assert [p.name for p in tmp_path.iterdir()] == ["junit.xml"]
    (tmp_path / "other").touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "junit.xml"
    file.write_text("what was there")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "half\ud800")
    assert file.read_text() == "what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["junit.xml"]


# -- what goes in ---------------------------------------------------------------------------------


def test_options_reach_the_check(asked):
    run("m:T", "--rule", "sgd", "--hyper", "lr=0.5", "--hyper", "beta1=betas[0]", "--dtype",
        "float32", "--no-features", "--time-limit", "9", "--memory-limit", "1000")  # fmt: skip
    assert (asked["target"], asked["rule"], asked["kind"]) == ("m:T", "sgd", "optimizer")
    assert (asked["time_limit"], asked["memory_limit"]) == (9.0, 1000 << 20)
    assert asked["options"] == {
        "hypers": {"lr": 0.5, "beta1": "betas[0]"}, "dtype": "float32", "features": False
    }  # fmt: skip


def test_what_takes_long_is_asked_for_by_name(asked):
    run("m:T", "--rule", "sgd", "--compiled")
    assert asked["options"]["features"] == [*SLOW]
    run("m:T", "--rule", "sgd")
    assert asked["options"]["features"] is True


def test_bias_options_reach_the_check(asked):
    run("m:f", "--bias", "--rule", "g/v", "--law", "gamma", "--mean", "2", "--statistic", "v=x**2",
        "--microbatches", 8, "--claim", "unbiased", "--hyper", "eps=1")  # fmt: skip
    assert asked["kind"] == "bias"
    assert asked["options"] == {
        "law": "gamma", "mean": "2", "sd": None, "statistics": {"v": "x**2"}, "microbatches": 8,
        "claim": "unbiased", "false_alarm": 1e-6, "hypers": {"eps": 1.0},
    }  # fmt: skip
    run("m:f", "--bias", "--rule", "1/3", "--claim", "3")
    assert asked["options"]["claim"] == 3


def test_a_hyperparameter_is_a_number_a_range_or_an_argument():
    assert parse_values(("lr=1e-3", "eps=1e-8..1e-2", "beta1 = betas[0]", "w=-2")) == {
        "lr": 1e-3, "eps": [1e-8, 1e-2], "beta1": "betas[0]", "w": -2.0
    }  # fmt: skip
    for wrong in ("lr", "lr=", "=1", "lr=nan", "lr=1..x", "lr=f()", "lr=1e999", "lr=a.b"):
        with pytest.raises(BadParameter):
            parse_values((wrong,))


def test_the_dtypes_are_those_that_the_check_knows():
    assert set(verify_command.DTYPES) == set(DTYPES)


BAD_INPUT = [
    (["a:b"], "Missing option '--rule'"),
    (["a:b", "--rule", "sgd", "--law", "gamma"], "--law has no meaning without --bias"),
    (["a:b", "--rule", "sgd", "--bias", "--no-features"], "--no-features has no meaning with"),
    (["a:b", "--rule", "sgd", "--bias", "--hyper", "a=0..1"], "must be a number with --bias"),
    (["a:b", "--rule", "sgd", "--bias", "--statistic", "v"], "write NAME=…, as in v=x**2"),
    (["a:b", "--rule", "sgd", "--bias", "--microbatches", "1"], "1 is not in the range"),
    (["a:b", "--rule", "sgd", "--bias", "--claim", "4"], "'4' is not one of"),
    (["a:b", "--rule", "sgd", "--bias", "--false-alarm", "nan"], "must be in (0, 0.5)"),
    (["a:b", "--rule", "sgd", "--hyper", "lr=1", "--hyper", "lr=2"], "lr is given twice"),
    (["a:b", "--rule", "sgd", "--compiled", "--no-features"], "exclude each other"),
    (["a:b", "--rule", "sgd", "--time-limit", "nan"], "must be > 0"),
    (["a:b", "--rule", "sgd", "--time-limit", "0"], "must be > 0"),
    (["a:b", "--rule", "sgd", "--dtype", "int8"], "'int8' is not one of"),
    (["a:b", "--rule", "sgd", "--junit-xml", "no/such/folder.xml"], "the folder 'no/such' is not"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
def test_bad_input_is_exit_code_2_with_a_message_before_anything_runs(
    asked, arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = run(*arguments, code=2)
    assert refused.stdout == ""
    assert message in " ".join(refused.stderr.replace("│", " ").split())
    assert "target" not in asked
    assert list(tmp_path.iterdir()) == []


# -- with the real checks -------------------------------------------------------------------------

UPDATES = """
import torch
print("hello from the import")
def plug_in(x): return 1 / x.mean(1)
def corrected(x): return 1 / x.mean(1) - x.var(1) / x.shape[1] / x.mean(1) ** 3
def changes_its_input(x): x += 1; return x.mean(1)
def leaves(x): raise SystemExit(0)
"""


@pytest.fixture
def updates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "updates.py").write_text(UPDATES)
    return "updates.py:"


ANSWERS = {
    "plug_in": (1, "of the plug-in's bias removed"),
    "changes_its_input": (2, "changes the gradients"),
    "leaves": (2, "running the check raised SystemExit in leaves (updates.py:7): 0"),
}
BIAS = ("--bias", "--rule", "1/x", "--law", "two_point", "--microbatches", 4)


def test_an_update_is_judged_from_the_command_line_and_nothing_is_left_behind(updates, tmp_path):
    command = [sys.executable, "-m", "deltabias", "verify", f"{updates}corrected", *map(str, BIAS)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": SOURCE})  # fmt: skip
    record = json.loads(done.stdout)
    assert (done.returncode, record["verdict"]) == (0, "pass"), record
    assert done.stderr == ""
    assert [p.name for p in tmp_path.iterdir()] == ["updates.py"]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_update_that_is_wrong_or_unusable_says_why(updates, name):
    code, said = ANSWERS[name]
    result = run(f"{updates}{name}", *BIAS, code=code)
    assert said in result.stdout
    assert "Traceback" not in result.output
    assert "hello from the import" in result.stderr


def test_a_law_that_is_none_is_an_error(updates):
    arguments = (*BIAS[:3], "--law", "cauchy", "--sd", "2")
    assert "law 'cauchy' is unknown" in run(f"{updates}plug_in", *arguments, code=2).stdout


def test_what_is_missing_is_named_with_the_extra_that_has_it(monkeypatch):
    there = jobs.find_spec
    monkeypatch.setattr(jobs, "find_spec", lambda n: None if n == "hypothesis" else there(n))
    jobs.require("bias")
    with pytest.raises(DeltabiasError, match="needs hypothesis; pip install 'deltabias"):
        jobs.require("optimizer")
