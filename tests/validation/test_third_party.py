"""The study of other packages' optimizers: its structure, on a package made for the purpose."""

import json
import sys

import pytest
from validation.catalogue import STUDIES
from validation.third_party import judge, page, subject
from validation.third_party.notes import NOTES
from validation.third_party.subject import BUG, RULES, Note, Subject

from deltabias.verify.step_rule_file import load_step_rule

CODE = """
import torch

class Sgd(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-2, weight_decay=0.0, **kwargs):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * (p.grad + DECAY))
        return loss
"""
RULE = """
name = "sgd"
source = "a paper"
steps = ["grad = grad + weight_decay*param", "param = param - lr*grad"]
"""
RIGHT, WRONG = 'group["weight_decay"]*p', 'group["weight_decay"]'
FOUND = {"grad = grad + weight_decay*param": ("grad = grad + weight_decay",)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes a package `strange` with a given decay, and a rule for it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(subject, "RULES", tmp_path)
    (tmp_path / "sgd.toml").write_text(RULE)
    information = tmp_path / "strange-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")

    def write(decay):
        (tmp_path / "strange.py").write_text(CODE.replace("DECAY", decay))
        sys.modules.pop("strange", None)

    yield write
    sys.modules.pop("strange", None)


def test_a_package_that_is_missing_is_skipped_by_name():
    missing = Subject("no-such-package-here", "Adam", "adamw", "1.0")
    findings = judge.run(subjects=[missing])
    assert findings.passed
    assert findings.rows[0].passed is None
    assert findings.rows[0].note == "skipped: pip install no-such-package-here"


def test_an_optimizer_that_follows_its_paper_is_held(package):
    package(RIGHT)
    findings = judge.run(subjects=[Subject("strange", "Sgd", "sgd", "1.0")])
    assert [(row.measured, row.passed) for row in findings.rows] == [("pass", True)]


def test_a_difference_that_nobody_explained_fails_the_study(package):
    package(WRONG)
    findings = judge.run(subjects=[Subject("strange", "Sgd", "sgd", "1.0")])
    assert findings.rows[0].measured == "fail"
    assert not findings.passed
    assert "without a note: no rule as found, conformance" in findings.rows[0].note


def test_a_difference_is_explained_by_a_note_and_by_the_rule_as_found(package, monkeypatch):
    package(WRONG)
    note = Note(BUG, "strange.py:14", "the decay is a constant")
    monkeypatch.setitem(NOTES, ("strange", "Sgd"), {"conformance": note})
    explained = Subject("strange", "Sgd", "sgd", "1.0", found=FOUND)
    findings = judge.run(subjects=[explained])
    lines = {line["check"]: line for line in findings.tables["checks"]}
    assert findings.passed
    assert lines["conformance"]["kind"] == BUG
    assert lines["conformance as found"]["verdict"] == "pass"
    # a note alone, beside a rule as found that the code does not follow, explains nothing
    package('2*group["weight_decay"]')
    assert not judge.run(subjects=[explained]).passed


def test_a_line_that_the_rule_does_not_have_cannot_be_replaced(package):
    package(RIGHT)
    wrong = Subject("strange", "Sgd", "sgd", "1.0", found={"param = 0": ("param = 1",)})
    with pytest.raises(ValueError, match="has no line 'param = 0'"):
        wrong.as_found()


def test_another_version_than_the_one_that_was_read_is_said(package):
    package(RIGHT)
    findings = judge.run(subjects=[Subject("strange", "Sgd", "sgd", "0.9")])
    assert "the notes are of 0.9, installed is 1.0" in findings.rows[0].note


def test_the_page_names_the_verdict_and_what_was_confirmed():
    line = {
        "package": "strange", "version": "1.0", "optimizer": "Sgd", "rule": "a paper",
        "check": "conformance", "verdict": "fail", "diagnosis": "", "detail": "50 of 50 differ",
        "kind": BUG, "where": "strange.py:14", "confirmed": "the decay is a constant",
    }  # fmt: skip
    said = page.render({"rows": [], "tables": {"checks": [line]}})
    assert "| strange 1.0 | Sgd | a paper | fail | 50 of 50 differ | bug |" in said
    assert "**strange Sgd** (bug; `strange.py:14`): the decay is a constant" in said


@pytest.mark.parametrize("path", sorted(RULES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_rule_names_its_source(path):
    assert load_step_rule(path).source


@pytest.mark.parametrize(
    "tried", [s for s in judge.SUBJECTS if s.found], ids=lambda tried: tried.label
)
def test_every_rule_as_found_is_another_rule(tried):
    assert tried.as_found().text != tried.published().text


def test_the_page_is_that_of_the_results():
    record = json.loads((page.RESULTS / "third_party.json").read_text(encoding="utf-8"))
    assert page.render(record) == page.PAGE.read_text(encoding="utf-8")


def test_the_study_is_in_the_catalogue():
    assert STUDIES["third_party"] is judge.STUDY
