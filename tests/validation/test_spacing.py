"""Small versions of the study of spaced looks: its exact reference, its runs, what it rejects.

Runs: 4,000 coordinates, 16 microbatches, seed 1; a share left at noise share 0.78 is known to about
2 % of the plain bias. Thresholds are four standard errors, or wide of what a defect would give.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from validation.moving_bias import ema, mean_update, noise_of_mean, population
from validation.record import RESULTS
from validation.spacing import (
    CLAIMS,
    EIGHT_BITS,
    FIRST,
    claim_rows,
    eight_bit_row,
    group_of,
    held,
    tasks_of,
    value_of,
    way_rows,
)
from validation.spacing_runs import (
    BETAS,
    CANDIDATE,
    LAWS,
    REFERENCE,
    SCENES,
    SHARES,
    WAYS,
    Task,
    Way,
    run,
    truth,
    updates,
)

from deltabias.optim import AdamW
from deltabias.truth import adam_update_mean_float64, ema_weights, law, relative_bias_adam

SMALL = Task("constant", "normal", 16, 4000, 1, (REFERENCE, CANDIDATE))


def at(lines, way, share=0.78, phase="a cycle of 32"):
    return next(
        x for x in lines
        if (x["way"], x["noise_share"], x["phase"]) == (way.name, share, phase)
    )  # fmt: skip


# -- the exact reference --------------------------------------------------------------------------


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("t", [8, 96])
def test_a_law_that_stays_has_the_bias_that_truth_says(share, t):
    means, sds = np.ones(t), np.full(t, (share / (1 - share)) ** 0.5)
    found = mean_update(means, sds, noise_of_mean("normal", 1), BETAS, t)
    weights = [ema_weights(str(beta), t) for beta in BETAS]
    exact = relative_bias_adam(str(share), *weights)
    assert found / population(means, sds, BETAS, t) - 1 == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("microbatches", [2, 16])
def test_skewed_means_of_microbatches_agree_with_truth(microbatches):
    t, sd = 30, 6.0
    weights = [ema_weights(str(beta), t) for beta in BETAS]
    exact = adam_update_mean_float64(
        law("skewed", mean=1, sd=str(sd)), *weights, microbatches=microbatches
    )
    means, sds = np.ones(t), np.full(t, sd / microbatches**0.5)
    found = mean_update(means, sds, noise_of_mean("skewed", microbatches), BETAS, t)
    assert found == pytest.approx(exact.value, rel=1e-8)


@pytest.mark.parametrize("law_name", LAWS)
@pytest.mark.parametrize("scene", ["signal fades 10x", "scale jumps up 10x", "mean flips every 8"])
def test_a_moving_law_agrees_with_plain_averages(scene, law_name):
    task = Task(scene, law_name, 2, 3000, 1, ())
    known, seen = truth(scene, law_name, 2), 0
    for t, plain, _ in updates(task):
        if t in SCENES[scene].phases.get(
            "before a look", SCENES[scene].phases.get("a cycle later")
        ):
            error = plain.std(dim=1).numpy() / 3000**0.5
            exact = known.target[:, t] + known.bias[:, t]
            assert np.all(np.abs(plain.mean(dim=1).numpy() - exact) < 4.5 * error)
            seen += 1
    assert seen


def test_the_nodes_of_every_law_have_mean_zero_and_variance_one():
    for law_name in ("skewed", "student_t"):
        for m in (2, 8, 16):
            noise = noise_of_mean(law_name, m)
            assert noise.weights @ noise.points == pytest.approx(0, abs=1e-9)
            assert noise.weights @ noise.points**2 == pytest.approx(1, rel=1e-4)


def test_weights_are_debiased():
    assert ema(0.9, 3) == pytest.approx([float(w) for w in ema_weights("0.9", 3)])


# -- the runs -------------------------------------------------------------------------------------


def test_the_default_leaves_little_and_the_candidate_a_little_more():
    lines = run(SMALL)
    default, candidate = at(lines, REFERENCE), at(lines, CANDIDATE)
    assert abs(default["left"]) + 4 * default["standard_error"] < 0.10
    assert abs(candidate["left"]) + 4 * candidate["standard_error"] < 0.20
    assert default["lost_to_reference"] == 0
    assert all(x["error_ratio"] < 1.05 for x in (default, candidate))


def test_shares_without_their_coupling_fail_the_claims(monkeypatch):
    whole = AdamW._step_scalars

    def without_coupling(self, *arguments):
        return {**whole(self, *arguments), "push": 0.0}

    monkeypatch.setattr(AdamW, "_step_scalars", without_coupling)
    line = at(run(SMALL), CANDIDATE)
    for claim in CLAIMS[:3]:
        measured, error = value_of(line, claim.measure)
        assert measured - 4 * error > claim.limit, claim


def test_a_run_is_the_same_again_and_another_with_another_seed():
    small = replace(SMALL, coordinates=100)
    assert run(small) == run(small)
    assert run(small) != run(replace(small, seed=2))


# -- rows -----------------------------------------------------------------------------------------


def cell(way: Way, **changes) -> dict:
    line = {
        "way": way.name, "scene": "constant", "law": "normal", "microbatches": 16,
        "noise_share": 0.78, "phase": "a cycle of 32", "plain_bias_of_update": 0.01,
        "left": 0.1, "standard_error": 0.01, "lost_to_reference": 0.05,
        "standard_error_of_lost": 0.01, "error_ratio": 1.01, "standard_error_of_ratio": 0.001,
    }  # fmt: skip
    return {**line, **changes}


def outcomes(**changes):
    rows = claim_rows([cell(REFERENCE), cell(CANDIDATE), cell(CANDIDATE, **changes)])
    return [row.passed for row in rows]


def test_each_claim_can_fail():
    assert outcomes() == [True] * 4
    assert outcomes(left=-0.3) == [False, True, True, True]
    assert outcomes(lost_to_reference=0.11) == [True, False, True, True]
    assert outcomes(left=1.2) == [False, True, False, True]
    assert outcomes(error_ratio=1.06) == [True, True, True, False]


def test_an_unnoticed_bias_has_no_share_but_may_be_spoiled():
    assert outcomes(plain_bias_of_update=5e-4, left=2.5, lost_to_reference=2) == [True] * 4
    assert outcomes(plain_bias_of_update=5e-4, left=3.5, lost_to_reference=3)[2] is False


def test_of_the_first_cycle_no_share_is_claimed():
    early = cell(CANDIDATE, phase=FIRST, left=0.9)
    assert not CLAIMS[0].applies(early)
    assert group_of(early) == "constant, first cycle, m = 16"
    assert held([early], CLAIMS[1]) == (1, 1)


def test_eight_bits_are_judged_beside_sixteen():
    int8, bfloat16 = EIGHT_BITS
    assert eight_bit_row([cell(int8, left=0.115), cell(bfloat16)]).passed
    assert eight_bit_row([cell(int8, left=-0.13), cell(bfloat16)]).passed is False


def test_other_settings_are_reported_without_a_claim():
    rows = way_rows([cell(way) for way in WAYS])
    assert {row.passed for row in rows} == {None}
    assert len(rows) == len(WAYS) * (1 + len(CLAIMS))


def test_seeds_differ_and_every_scene_is_run():
    tasks = tasks_of()
    assert len({t.seed for t in tasks}) == len(tasks)
    assert {t.scene for t in tasks} == set(SCENES)


# -- what the documentation says ------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "optimizers" / "index.md"
TABLE = {
    "nothing moves": ("constant", 16, "a cycle of 32"),
    "the same with two microbatches": ("constant", 2, "a cycle of 32"),
    "the first cycle (plain bias 0.9 % of the update)": ("constant", 16, FIRST),
    "the mean changes sign every 8 steps": ("mean flips every 8", 16, "a cycle of 32"),
    "the scale falls tenfold within a cycle": ("scale jumps down 10x", 16, "until the next look"),
}


@pytest.mark.parametrize("text", TABLE)
def test_the_page_on_optimizers_has_the_numbers_of_the_results(text):
    record = json.loads((RESULTS / "spacing.json").read_text(encoding="utf-8"))
    (place,) = (
        x for x in record["tables"]["left"]
        if (x["scene"], x["microbatches"], x["phase"]) == TABLE[text]
        and (x["law"], x["noise_share"]) == ("normal", 0.78)
    )  # fmt: skip
    ways = (REFERENCE, CANDIDATE, Way("closed_form", "int8", 16))
    row = " | ".join([text, *(f"{100 * place[way.name]:.0f} %" for way in ways)])
    assert f"| {row} |".replace("-", "−") in PAGE.read_text(encoding="utf-8")
