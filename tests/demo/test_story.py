"""The whole demo in small: every part runs, every printed number is in the result."""

import io
import json

import pytest
from rich.console import Console

from deltabias.demo import run_demo
from deltabias.demo.corpus import read_corpus
from deltabias.errors import DeltabiasError

TINY = {"width": 16, "blocks": 1, "heads": 2}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("deltabias.demo.story.SHAPE", TINY)
    small = read_corpus(most_bytes=1_000_000, at_least=1000)
    patch.setattr("deltabias.demo.story.read_corpus", lambda: small)
    for name, value in {
        "RECORDED": 12,
        "PER_TENSOR": 4,
        "HISTORY_STEPS": 10,
        "HISTORIES": 4,
    }.items():
        patch.setattr(f"deltabias.demo.parts.{name}", value)
    text = io.StringIO()
    directory = tmp_path_factory.mktemp("build")
    try:
        result = run_demo(
            rule_text="g/(sqrt(v)+eps)",
            seeds=(0, 1),
            steps=6,
            directory=directory,
            console=Console(file=text, width=100),
        )
    finally:
        patch.undo()
    return result, text.getvalue()


def test_the_result_is_json(outcome):
    result, _ = outcome
    assert json.loads(json.dumps(result, allow_nan=False)).keys() == {
        *("derivation", "emission", "exact", "training", "layers"),
        *("seconds", "total_seconds", "passed"),
    }


def test_the_emitted_test_ran_and_passed(outcome):
    result, text = outcome
    assert result["emission"]["passed"] is True, result["emission"]["output"]
    assert result["passed"] is True
    assert "passed" in text


def test_two_seeds_are_reported_as_noise(outcome):
    result, text = outcome
    assert result["training"]["within_noise"] is True
    assert "within noise (2 seeds cannot tell)" in text


def test_both_contenders_are_named_and_timed(outcome):
    result, text = outcome
    assert result["training"]["names"] == ["torch AdamW", "corrected AdamW"]
    assert result["training"]["step_seconds"]["ratio"] > 0
    assert "time per step" in text


def test_every_layer_is_in_the_table(outcome):
    result, text = outcome
    layers = [row["layer"] for row in result["layers"]["rows"]]
    assert layers[-1] == "all layers"
    assert "block 0" in layers
    assert all(layer in text for layer in layers)


def test_no_progress_bar_outside_a_terminal(outcome):
    _, text = outcome
    assert "━" not in text
    assert "\x1b" not in text


def test_a_demo_without_seeds_is_refused():
    with pytest.raises(DeltabiasError, match="at least one seed and two steps"):
        run_demo(seeds=())
