"""The matrix studies on tiny sizes: their structure, and that their claims can fail."""

import numpy as np
import torch
from validation import matrix_cost, matrix_inverse, matrix_shares

from deltabias.truth import matrix_law


def test_a_setting_has_every_modes_share_and_the_entries_of_both_readings(tmp_path):
    lines = [matrix_shares.line_of(w, law, 3, 4, 512, seed=1)
             for w in matrix_shares.OBJECTS for law in matrix_shares.LAWS]  # fmt: skip
    for line in lines:
        assert all(line[f"{mode}_error"] > 0 for mode in matrix_shares.MODES)
        assert line["of_largest"]["entries"] >= line["of_squares"]["entries"]
    assert {x["law"] for x in lines} == {"wishart", "normal", "student_t"}
    assert {"term_cross", "term_coupling"} <= set(lines[-1])
    findings = matrix_shares.Findings(matrix_shares.full_rows(lines), {"shares": lines})
    matrix_shares.draw(findings, tmp_path / "shares.svg")
    assert (tmp_path / "shares.svg").read_text().startswith("<?xml")


def line(**changes):
    entries = {"entries": 4, "worst": 0.95, "worst_error": 0.01, "below": 0, "resolved": 4}
    made = {
        "object": "preconditioner", "law": "wishart", "dim": 4, "microbatches": 64,
        "full": 0.99, "full_error": 0.001, "eigenvalue_only": 0.4, "eigenvalue_only_error": 0.001,
        "of_largest": entries, "of_squares": entries,
    }  # fmt: skip
    return {**made, **changes}


def test_every_claim_on_shares_can_fail():
    assert all(r.passed for r in matrix_shares.full_rows([line()]))
    assert not matrix_shares.full_rows([line(full=0.88)])[0].passed
    below = {**line()["of_largest"], "below": 1, "worst": 0.7}
    assert [r.passed for r in matrix_shares.full_rows([line(of_largest=below)])] == [
        True, False, True,
    ]  # fmt: skip
    assert matrix_shares.shortcut_rows([line()])[0].passed
    assert not matrix_shares.shortcut_rows([line(eigenvalue_only=0.6)])[0].passed


def test_a_sketch_is_unbiased_and_half_a_sketch_is_seen(monkeypatch):
    right = matrix_shares.sketch_line(3, 8, 1024, seed=2)
    assert matrix_shares.sketch_rows([right])[0].passed
    assert right["noise"] > 0
    original = matrix_shares.Modes.sketched
    monkeypatch.setattr(
        matrix_shares.Modes, "sketched", lambda self: [0.7 * d for d in original(self)]
    )
    wrong = matrix_shares.sketch_line(3, 8, 1024, seed=2)
    assert not matrix_shares.sketch_rows([wrong])[0].passed


def test_deviations_of_wishart_have_the_covariance_of_outer_products():
    sigma = matrix_law("wishart", 3, 1).left_moment
    found = matrix_inverse.deviations_of_wishart(sigma).numpy()
    covariance = np.einsum("rij,rkl->ijkl", found, found)
    expected = np.einsum("ik,jl->ijkl", sigma, sigma) + np.einsum("il,jk->ijkl", sigma, sigma)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_the_corrected_inverse_is_right_to_its_order_and_a_half_of_it_is_not(monkeypatch):
    rows, _ = matrix_inverse.exact_rows()
    assert all(r.passed for r in rows)
    directions = matrix_inverse.deviations_of_wishart
    monkeypatch.setattr(matrix_inverse, "deviations_of_wishart", lambda s: directions(s) * 2**-0.5)
    assert [r.passed for r in matrix_inverse.exact_rows()[0]] == [True, False]


def test_costs_are_paired_ratios_with_memory_and_the_machine(tmp_path):
    findings = matrix_cost.study(dimensions=(8, 16), repeats=2)
    lines = findings.tables["seconds"]
    assert {(x["work"], x["root"]) for x in lines if x["device"] == "cpu"} == {
        (w, r) for w in matrix_cost.WORK for r in (2, 4)
    }
    assert all(x["over_eigh"] == 1 for x in lines if x["work"] == "eigh")
    (machine,) = findings.tables["machine"]
    assert machine["threads"] == torch.get_num_threads()
    assert machine["cpu"]
    matrix_cost.draw(findings, tmp_path / "cost.svg")
    assert (tmp_path / "cost.svg").exists()


def test_memory_is_counted_and_freed():
    one = matrix_cost.peak_numbers(lambda: torch.ones(100) + 1, torch.float32)
    assert one == 200
    assert matrix_cost.peak_numbers(
        lambda: sum((torch.ones(100) for _ in range(50)), torch.zeros(100)), torch.float32
    ) <= 400  # fmt: skip


def test_growth_beyond_the_cube_fails():
    slow = [
        {"device": "cpu", "root": 4, "dim": d, "work": w, "seconds": d**4.0, "over_eigh": 1.0}
        for d in (8, 16)
        for w in matrix_cost.WORK
    ]
    rows = matrix_cost.time_rows(slow, {"threads": 1, "cpu": "x"})
    assert {r.passed for r in rows if "grows" in r.claim} == {False}
    listed = [{"dim": d, "work": w, "numbers": d**3.0, "over_d2": d}
              for d in (8, 16) for w in matrix_cost.WORK]  # fmt: skip
    assert {r.passed for r in matrix_cost.memory_rows(listed) if "grows" in r.claim} == {False}
