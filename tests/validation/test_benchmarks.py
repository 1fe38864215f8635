"""The benchmarks judge what they time: fits, limits, what is left out. Tiny sizes, no clock."""

import pytest
import torch
from validation.benchmarks import BENCHMARKS, cpu_step, gpu_step, growth, memory, training_step
from validation.benchmarks.record import write

from deltabias import one_pass
from deltabias.microbatch import MicrobatchStats

SIZES = {"256": 256, "512": 512, "1024": 1024}


@pytest.fixture
def uncompiled(monkeypatch):
    """The same functions, which here only have to run, without the seconds a compiler takes."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    one_pass.compiled.cache_clear()
    yield
    one_pass.compiled.cache_clear()


def timed(power: float, rounds: int = 5) -> dict[str, list[float]]:
    """Times that grow with a power of the size, the machine slower from round to round."""
    return {n: [(1 + k) * 1e-9 * size**power for k in range(rounds)] for n, size in SIZES.items()}


@pytest.mark.parametrize(("power", "passed"), [(3.0, True), (2.4, False), (3.4, False)])
def test_an_exponent_outside_its_span_fails(power, passed):
    found = growth.lines("made", "d", timed(power), SIZES, fitted=SIZES, span=growth.CUBIC)
    last = list(found)[-1]
    assert last["exponent"] == pytest.approx(power, abs=1e-3)
    assert last["passed"] is passed


def test_a_slow_round_does_not_change_a_ratio_of_its_own_round():
    rows = list(growth.lines("made", "d", timed(3), SIZES, fitted=SIZES, span=growth.CUBIC))
    assert [r["ratio"] for r in rows if "d" in r and "ratio" in r] == [8.0, 8.0]


def test_nothing_is_fitted_where_calls_are_all_there_is():
    times = {"10": [1.0] * 3, "100": [1.1] * 3, "1000": [2.0] * 3}
    sizes = {"10": 10, "100": 100, "1000": 1000}
    fitted = growth.where_calls_vanish(times, sizes)
    assert fitted == {}
    rows = growth.lines("made", "parameters", times, sizes, fitted=fitted, span=growth.LINEAR)
    assert all("exponent" not in row for row in rows)


def test_a_size_that_memory_does_not_hold_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(growth, "free_bytes", lambda: 1500 * growth.BYTES_OF_ONE)
    monkeypatch.setattr(growth, "REPEATED", 2000)
    steps = {"torch fused": cpu_step.of_torch}
    rows = list(growth.of_parameters((1000, 2000), steps, limit=0.0))
    assert [r["parameters"] for r in rows if "milliseconds" in r] == [1000]
    assert rows[-1] == {
        "what": "torch fused", "parameters": 2000, "left_out": "not enough free memory"
    }  # fmt: skip


def test_statistics_are_judged_beside_those_of_eight_microbatches(uncompiled):
    rows = list(growth.of_microbatches((2, 8), size=100, limit=0.0))
    assert [r.get("microbatches") for r in rows] == [2, 8, None]
    for row in rows[:2]:
        assert row["passed"] is (row["ratio"] <= growth.FLAT)
    assert rows[1]["ratio"] == 1.0


def test_small_matrices_are_timed_and_not_fitted():
    rows = list(growth.of_matrices((4, 8), limit=0.0))
    assert {r["what"] for r in rows} >= {"eigh", "inverse root by products", "full correction"}
    assert all("passed" not in row for row in rows)
    assert rows[-1]["d"] == 8


@pytest.mark.parametrize("observes", [True, False])
def test_a_step_that_looks_sees_statistics_in_every_call_and_one_between_in_none(
    monkeypatch, uncompiled, observes
):
    looked = []
    whole = MicrobatchStats.consume

    def consume(self):
        found = whole(self)
        looked.append(found.observed)
        return found

    monkeypatch.setattr(MicrobatchStats, "consume", consume)
    step = cpu_step.of_ours(cpu_step.Shared(100), observes=observes, storage="int8")
    for _ in range(3):
        step()
    assert looked == [True] + 3 * [observes]  # the first one, which compiles, always looks


@pytest.mark.parametrize(("limit", "passed"), [(1e9, True), (0.0, False)])
def test_the_full_correction_is_judged_beside_eigh(monkeypatch, limit, passed):
    monkeypatch.setattr(gpu_step, "MOST_OF_EIGH", limit)
    rows = list(gpu_step.of_matrices(dim=8, device="cpu"))
    assert [r["step"] for r in rows] == ["full over eigh, root 4", "full over eigh, root 2"]
    assert all(row["passed"] is passed for row in rows)


def test_a_training_step_beyond_its_budget_is_left_out_by_name():
    (row,) = training_step.at("1 M", 256, budget=0.0, most_rounds=5)
    assert row["model"] == "1 M"
    assert row["tokens_a_microbatch"] == 256
    assert "more than the 0 s for a row" in row["left_out"]


def test_second_passes_are_timed_at_one_size_of_each_model():
    for model, sizes in training_step.TOKENS.items():
        whole = [t for t in sizes if "jackknife" in training_step.names_at(model, t)]
        assert whole == [training_step.WITH_SECOND_PASSES[model]]
        assert all({"plain", "delta"} < set(training_step.names_at(model, t)) for t in sizes)


def test_the_peak_counts_what_is_alive_at_once_and_not_what_was_freed():
    def three_times_one_at_a_time():
        for _ in range(3):
            torch.empty(1000, dtype=torch.float32)

    def two_at_once():
        return torch.empty(1000, dtype=torch.float32), torch.empty(500, dtype=torch.float32)

    assert memory.peak_of(three_times_one_at_a_time) == 4000
    assert memory.peak_of(two_at_once) == 6000


def test_a_failed_row_fails_its_benchmark(tmp_path):
    import json

    for passed in (True, False):
        path = write("made", "a claim", [{"passed": True}, {"passed": passed}], folder=tmp_path)
        assert json.loads(path.read_text())["passed"] is passed


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_claim_and_rows(name):
    from importlib import import_module

    module = import_module(f"validation.benchmarks.{name}")
    assert len(module.CLAIM) > 20
    assert callable(module.rows)
    assert isinstance(module.PACKAGES, tuple)
