"""The command, its exit codes, and the results on disk."""

import json
import math

import pytest
import validation.__main__ as command
from validation import figures
from validation.catalogue import STUDIES
from validation.record import as_record, plain, write
from validation.study import Findings, Row, Study
from validation.tasks import run_tasks


def study_of(*passed):
    rows = [Row("a claim", 1.0, 1.0, 0.1, p) for p in passed]
    return Study("tiny", "a claim about nothing", lambda **_: Findings(rows, seeds={"s": 1}))


def test_the_list_names_every_study(capsys):
    assert command.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in STUDIES)


def test_an_unknown_name_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["nonsense"])
    assert stopped.value.code == 2
    assert "no study nonsense; there are design_numbers" in capsys.readouterr().err


@pytest.mark.parametrize(("passed", "code"), [((True, None), 0), ((True, False), 1)])
def test_the_exit_code_is_one_if_a_claim_failed(monkeypatch, tmp_path, passed, code):
    monkeypatch.setattr(command, "STUDIES", {"tiny": study_of(*passed)})
    monkeypatch.setattr(command, "write", lambda s, f: write(s, f, tmp_path))
    assert command.main(["tiny"]) == code
    record = json.loads((tmp_path / "tiny.json").read_text())
    assert record["passed"] is (code == 0)
    assert record["command"] == "python -m validation tiny"
    assert set(record["versions"]) >= {"python", "torch", "sympy", "numpy"}


def test_a_record_is_plain_and_the_same_every_time():
    study = study_of(True)
    findings = study.run()
    assert as_record(study, findings) == as_record(study, findings)
    assert plain({"a": math.nan, "b": (1.23456789123, None)}) == {
        "a": "nan", "b": [1.2345679, None],
    }  # fmt: skip


def test_figures_are_the_same_every_time(tmp_path):
    def draw(path):
        figure, axes = figures.panels(1, 1)
        axes[0][0].plot([1, 2], [3, 4], label="x")
        axes[0][0].legend()
        figures.save(figure, path)
        return path.read_bytes()

    draw = figures.styled(draw)
    assert draw(tmp_path / "a.svg") == draw(tmp_path / "b.svg")


def test_tasks_come_back_in_order_and_need_a_worker():
    assert run_tasks(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
    with pytest.raises(ValueError, match="workers=0"):
        run_tasks(divmod, [], workers=0)
