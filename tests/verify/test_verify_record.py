"""The record of a verification: the worst verdict counts, in every form it is written in."""

import json
from itertools import product
from xml.etree import ElementTree

import pytest

from deltabias.verify import Check, Report
from deltabias.verify.record import EXIT_CODES, WORST_FIRST


def report(*verdicts):
    checks = tuple(Check(f"check {i}", v) for i, v in enumerate(verdicts))
    return Report("mine.py:Mine", "adamw", checks, 1.25, 7)


def test_the_worst_verdict_is_the_reports_in_any_order():
    for verdicts in product(("error", "fail", "inconclusive", "pass"), repeat=3):
        worst = min(verdicts, key=WORST_FIRST.index)
        assert report(*verdicts).verdict == worst
        assert report(*verdicts).passed == (set(verdicts) == {"pass"})


def test_what_asked_nothing_is_an_error_and_never_a_pass():
    for nothing in (report(), report("skipped"), report("skipped", "skipped")):
        assert (nothing.verdict, nothing.exit_code, nothing.passed) == ("error", 2, False)
    assert report("pass", "skipped").passed


def test_exit_codes_are_0_1_and_2():
    assert [report(v).exit_code for v in ("pass", "fail", "inconclusive", "error")] == [0, 1, 1, 2]
    assert set(EXIT_CODES) == set(WORST_FIRST)


def test_a_word_that_is_no_verdict_is_refused():
    with pytest.raises(ValueError, match="'passed' is no verdict; use error, fail"):
        Check("name", "passed")


def test_the_json_has_what_scripts_rely_on():
    check = Check("conformance", "fail", 3.5, 1.0, "eps inside the root", "détail", {"lr": 1})
    record = json.loads(Report("m:T", "adamw", (check,), 0.5, 3).to_json())
    assert set(record) == {"verdict", "target", "rule", "seconds", "seed", "checks"}
    assert record["checks"] == [
        {"name": "conformance", "verdict": "fail", "measured": 3.5, "expected": 1.0,
         "diagnosis": "eps inside the root", "detail": "détail", "counterexample": {"lr": 1}}
    ]  # fmt: skip


def test_the_junit_file_counts_and_names_what_did_not_pass():
    suite = ElementTree.fromstring(
        report("pass", "fail", "inconclusive", "error", "skipped").to_junit()
    )
    assert suite.attrib == {
        "name": "deltabias verify", "tests": "5", "failures": "2", "errors": "1", "skipped": "1",
        "time": "1.250",
    }  # fmt: skip
    children = [[child.tag for child in case] for case in suite]
    assert children == [[], ["failure"], ["failure"], ["error"], ["skipped"]]
    assert {case.get("classname") for case in suite} == {"mine.py:Mine"}


def test_quotes_and_angles_in_a_detail_stay_text():
    check = Check("a<b", "fail", detail='"x" < y & z')
    (case,) = ElementTree.fromstring(Report("m:T", "r", (check,)).to_junit())
    assert case.get("name") == "a<b"
    assert case.find("failure").get("message") == '"x" < y & z'


def test_a_check_is_found_by_its_name():
    assert report("pass", "fail").named("check 1").verdict == "fail"
    with pytest.raises(KeyError, match="no check 'other'; there are check 0"):
        report("pass").named("other")


def test_people_read_one_line_a_check():
    said = str(report("pass", "fail")).splitlines()
    assert said[0] == "mine.py:Mine against adamw: fail (1.2 s)"
    assert [line.split() for line in said[1:]] == [["pass", "check", "0"], ["fail", "check", "1"]]
    line = str(Report("m:T", "r", (Check("a", "fail", 0.123456, 4.0, "why", "how"),)))
    assert line.endswith("fail         a  0.1235 (expected 4)  why; how")
