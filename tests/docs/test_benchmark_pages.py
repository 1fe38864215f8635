"""The benchmarks' pages, figures and table say what the records say, and nothing by themselves."""

import json
from importlib.util import find_spec

import pytest
from tests.docs.conftest import ROOT

pytestmark = pytest.mark.skipif(find_spec("sphinx") is None, reason="no sphinx")
MIDDLE = {"low": 1.1, "high": 1.4, "rounds": 5}
LIMIT = {"limit": 1.05, "passed": False}


def timed(**row) -> dict:
    """A row of a benchmark, with its middle half."""
    return {"ratio": 1.234, **MIDDLE, "milliseconds": 5.0, **row}


ROWS = {
    "cpu_step": [
        timed(threads=1, step="torch fused", ratio=1.0),
        timed(threads=1, step="delta", limit=1.2),
        timed(threads=2, step="delta", ratio=1.345),
    ],
    "training_step": [
        timed(model="1 M", tokens_a_microbatch=n, step="delta", **LIMIT) for n in (256, 1024)
    ],
    "growth": [
        {"what": "delta", "parameters": 10, "milliseconds": 1.0},
        {"what": "delta", "parameters": 100, "milliseconds": 10.0, "ratio": 10.0, **MIDDLE},
        {"what": "delta", "fitted": "10 … 100", "exponent": 1.234, **MIDDLE},
        timed(what="statistics of a microbatch", microbatches=2),
        {"what": "eigh", "d": 64, "milliseconds": 1.0},
        {"what": "eigh", "d": 128, "milliseconds": 8.0, "ratio": 8.0, **MIDDLE},
        {"what": "eigh", "fitted": "64 … 128", "exponent": 1.234, **MIDDLE},
    ],
    "memory": [{"form": "delta", "state": 1.234}, {"form": "delta", "training peak": 47.0}],
    "rivals": [
        timed(kind="AdamW", optimizer="torch", beside="torch"),
        {"kind": "skipped", "optimizer": "heavyball is not installed"},
    ],
}
NAMES = ("cpu_step", "training_step", "growth_parameters", "growth_microbatches",
         "growth_matrices", "memory", "rivals")  # fmt: skip


def pages():
    import benchmark_pages

    return benchmark_pages


@pytest.fixture
def light(monkeypatch):
    """The svg in one shade; drawing takes longest here."""
    import shades

    monkeypatch.setattr(shades, "SHADES", {"light": shades.SHADES["light"]})
    return lambda draw: shades.in_both_shades(draw)["light"]


def test_every_figure_is_looked_at_here():
    assert tuple(pages().FIGURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_and_its_words_follow_the_record_and_it_fits_a_telephone(name, light):
    known = pages().FIGURES[name]
    texts, words = [], []
    for value in ("1.234", "2.345"):
        rows = json.loads(json.dumps(ROWS[known.benchmark]).replace("1.234", value))
        draw, said = known.of(rows)
        texts.append(light(draw))
        words.append(said)
    assert words[0] != words[1]
    assert any(number in words[1] for number in ("2.35", "2.34", "134.5"))
    if name not in ("growth_parameters", "growth_matrices"):  # there only the words have exponents
        assert texts[0] != texts[1]
    width = float(texts[0].split('width="')[1].split("pt")[0])
    assert width < 350  # points; letters of 9.5 stay legible where 390 pixels are all there is


def test_a_figure_is_the_same_text_when_it_is_drawn_again_and_another_in_the_dark():
    draw, _ = pages().FIGURES["memory"].of(ROWS["memory"])
    first, second = pages().in_both_shades(draw), pages().in_both_shades(draw)
    assert first == second
    assert first["light"] != first["dark"]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_of_rows_that_have_nothing_to_show_is_none(name):
    rows = [{"kind": "skipped", "optimizer": "not installed"}] if name == "rivals" else []
    assert pages().FIGURES[name].of(rows) is None
    assert pages().shown(name, {}) is None


def test_what_lies_in_the_repository_can_be_drawn(light):
    found = pages().records()
    assert {"cpu_step", "memory", "rivals"} <= set(found)
    for name in NAMES:
        if drawn := pages().shown(name, found):
            assert "<svg" in light(drawn[0])


def test_a_page_shows_whatever_numbers_its_file_has_and_its_figures():
    record = {"machine": {"cpu": "X"}, "rows": [{"ratio": 1.19}]}
    text = pages().benchmark_page("growth", record)
    assert "1.19" in text
    assert "| cpu | X |" in text
    assert text.count("{benchmark-figure} growth_") == 3


def test_both_pictures_have_the_values_as_alternative_text():
    text = pages().figure_text("memory", "state: delta: 20")
    assert text.count(":alt: Bytes a parameter, counted from the allocator. state: delta: 20.") == 2
    assert "memory-light.svg" in text
    assert "memory-dark.svg" in text


def a_study(left: float) -> dict:
    way = "delta, int8, every=16"
    plain = {"measured": left, "standard_error": 0.004}
    return {
        "rows": [
            {"claim": f"left of the plain bias: {way}, normal, m = 16, constant, noise share 0.5"}
            | plain,
            {"claim": f"leaves at most 20 %: {way}, all scenes", "measured": "45 of 331 cells"},
            {"claim": f"leaves at most 20 %: {way}, constant", "measured": 0.1},
        ]
    }


@pytest.mark.parametrize(("left", "shown"), [(0.0551, "6 ± 0.4 %"), (-0.222, "−22 ± 0.4 %")])
def test_the_table_of_settings_is_made_of_the_benchmark_and_the_study(left, shown):
    steps = [
        {"threads": 1, "step": "delta int8, every=16", "ratio": 1.315},
        {"threads": 1, "step": "delta int8, between", "ratio": 1.1},
        {"threads": 1, "step": "off", "ratio": 1.019},
        {"threads": 2, "step": "delta", "ratio": 3.0},
    ]
    lines = pages().settings_table(steps, a_study(left))
    assert lines[0] == "| setting | time of a step | left, noise 0.5 | leaves at most 20 % |"
    assert [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines[2:]] == [
        "| `none` | 1.02 | 100 % |  |",
        f"| `delta`, `int8`, every 16 | 1.31 | {shown} | 45 of 331 |",
    ]


def test_the_study_and_the_benchmark_name_the_settings_alike():
    """Were either to rename them, the table would silently have empty cells."""
    path = ROOT / "validation" / "results" / "spacing.json"
    study = json.loads(path.read_text(encoding="utf-8"))
    steps = pages().records()["cpu_step"]["rows"]
    timed_ways = {pages().way_of(s) for r in steps if (s := pages().setting_of(r["step"]))}
    wanted = {
        "delta, full precision, every=1",
        "delta, int8, every=16",
        "closed_form, int8, every=16",
    }
    assert wanted <= timed_ways
    assert wanted <= set(pages().left_in_plainest(study))
    held = pages().counts(study)
    assert len(held) == len(pages().COUNTED)
    assert all(wanted <= set(by_way) for by_way in held.values())
