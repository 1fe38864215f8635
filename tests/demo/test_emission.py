import pytest

from deltabias.demo.emission import emit_and_test, run_tests
from deltabias.errors import GenerateError
from deltabias.rule import UpdateRule

RULE = UpdateRule.parse("g/(sqrt(v)+eps)")


def write(directory, name, text):
    path = directory / name
    path.write_text(text)
    return path


def test_a_failing_test_fails_and_says_why(tmp_path):
    good = write(tmp_path, "test_good.py", "def test_sum():\n    assert 1 + 1 == 2\n")
    bad = write(tmp_path, "test_bad.py", "def test_sum():\n    assert 1 + 1 == 3\n")
    passed, output = run_tests([good, bad])
    assert passed is False
    assert "assert (1 + 1) == 3" in output
    assert "1 failed, 1 passed" in output


def test_a_passing_test_passes_whatever_pytest_settings_surround_it(tmp_path):
    write(tmp_path, "pytest.ini", "[pytest]\naddopts = --no-such-option\n")
    good = write(tmp_path, "test_good.py", "import deltabias\n\ndef test_it():\n    pass\n")
    passed, output = run_tests([good])
    assert passed, output
    assert "1 passed" in output


def test_files_without_a_test_are_refused(tmp_path, monkeypatch):
    def only_a_module(rule, directory):
        return [write(directory, "custom.py", "")]

    monkeypatch.setattr("deltabias.codegen.sync.write_rule", only_a_module)
    with pytest.raises(GenerateError, match=r"no test among custom\.py for rule 'custom'"):
        emit_and_test(RULE, tmp_path / "build")
