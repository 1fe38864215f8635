"""`check_bias`: what it says of right and wrong updates, by law, claim, shape and route.

Statistical: false alarm 1e-6 and seed 0 throughout, samples fixed by the pilot.
"""

import math

import numpy as np
import pytest
import torch

from deltabias.matrix_rule import MatrixRule
from deltabias.truth import FiniteMatrixLaw, TwoPoint, law, matrix_law
from deltabias.verify.bias import check_bias

LAWS = {
    "normal": law("normal", mean=1, sd="0.2"),
    "gamma": law("gamma", mean=1, sd="0.5"),
    "laplace": law("laplace", mean=1, sd="0.2"),
    "student_t": law("student_t", mean=1, sd="0.2"),
    "skewed": law("skewed", mean=1, sd="0.5"),
}


def corrected(x, share=1.0):
    mean, var_of_mean = x.mean(1), x.var(1) / x.shape[1]
    return 1 / mean - share * var_of_mean / mean**3


def corrected_root(x, share=1.0):
    mean, var_of_mean = x.mean(1), x.var(1) / x.shape[1]
    return mean**-0.5 - share * 0.375 * var_of_mean * mean**-2.5


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("update", "rule"), [(corrected, "1/x"), (corrected_root, "x**(-1/2)")])
def test_the_right_correction_passes_under_every_law(name, update, rule):
    verdict = check_bias(update, rule, law=LAWS[name], microbatches=16, claim=2)
    assert verdict.passed, str(verdict)
    assert verdict.smallest_visible <= 0.05 * verdict.yardstick
    assert verdict.removed == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("share", [0.95, 1.05, 0.67, 1.33])
def test_a_correction_off_by_five_or_thirty_three_per_cent_fails(name, share):
    verdict = check_bias(
        lambda x: corrected(x, share), "1/x", law=LAWS[name], microbatches=16, claim=2
    )
    assert verdict.verdict == "fail", str(verdict)
    assert verdict.removed == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("target", [1.0, torch.tensor(1.0), "1/x", lambda m: 1.0])
def test_a_target_may_be_a_number_a_tensor_a_function_or_a_rule(target):
    verdict = check_bias(corrected, target, law=LAWS["gamma"], microbatches=16)
    assert verdict.passed
    assert verdict.removed == pytest.approx(1, abs=0.02)


def test_a_map_of_the_mean_needs_no_plug_in_to_say_what_was_removed():
    verdict = check_bias(lambda x: corrected(x, 0.5), 1.0, law=LAWS["gamma"], microbatches=16)
    assert verdict.plug_in == "the update without spread"
    assert verdict.removed == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("claim", "passing"),
    [(1, {"plug", "second", "exact"}), (2, {"second", "exact"}), ("unbiased", {"exact"})],
)
def test_a_claim_is_passed_by_the_updates_that_meet_it(claim, passing):
    gamma = LAWS["gamma"]  # shape 4: E 1/x̄ = 4m/(4m − 1)
    updates = {
        "plug": lambda x: 1 / x.mean(1),
        "second": lambda x: corrected(x),
        "exact": lambda x: (1 - 1 / (4 * x.shape[1])) / x.mean(1),
    }
    # four microbatches, where the second order is 1/16 of the first: unbiased it is not
    verdicts = {n: check_bias(u, "1/x", law=gamma, microbatches=4, claim=claim)
                for n, u in updates.items()}  # fmt: skip
    assert {n for n, v in verdicts.items() if v.passed} == passing, [
        str(v) for v in verdicts.values()
    ]
    assert {v.verdict for n, v in verdicts.items() if n not in passing} <= {"fail"}


def test_the_bias_is_that_of_the_closed_form():
    found = check_bias(lambda x: 1 / x.mean(1), "1/x", law=LAWS["gamma"], microbatches=16, claim=1)
    truth = 64 / 63 - 1
    assert abs(found.bias - truth) < 5 * found.standard_error
    assert found.order == pytest.approx(1, abs=0.05)


def test_a_finite_law_is_enumerated_without_noise():
    two = TwoPoint("1/2", "3/2")
    verdict = check_bias(corrected, "1/x", law=two, microbatches=8)
    assert verdict.passed
    assert verdict.method == "exact enumeration"
    assert verdict.standard_error == verdict.left_error == verdict.order_error == 0
    fail = check_bias(lambda x: corrected(x, 0.95), "1/x", law=two, microbatches=8)
    assert fail.verdict == "fail"
    assert fail.removed == pytest.approx(0.95, abs=1e-3)


def test_the_enumerated_bias_is_the_finite_sum():
    two = TwoPoint(1, 3)
    verdict = check_bias(lambda x: 1 / x.mean(1), "1/x", law=two, microbatches=2, claim=1)
    assert verdict.bias == pytest.approx((1 + 2 * 0.5 + 1 / 3) / 4 - 0.5, abs=1e-14)


def test_an_update_that_minds_the_order_of_microbatches_is_not_enumerated():
    def ordered(x):
        half = x.shape[1] // 2
        return 1 / x[:, :half].mean(1) + 0 * x[:, 0]

    two = TwoPoint("1/2", "3/2")
    verdict = check_bias(ordered, "1/x", law=two, microbatches=8, claim=1, samples=2**18)
    assert verdict.method == "Monte Carlo"
    assert verdict.verdict != "fail"


@pytest.mark.parametrize("kind", ["numpy", "torch", "object"])
def test_anything_that_samples_is_a_law(kind):
    class Sampling:
        def sample(self, rng, shape):
            return rng.gamma(4.0, 0.25, shape)

        def moment(self, n):
            return math.prod((4 + i) / 4 for i in range(n))

    sampler = {
        "numpy": lambda rng, shape: rng.gamma(4.0, 0.25, shape),
        "torch": lambda g, shape: 0.5 + torch.rand(shape, generator=g, dtype=torch.float64),
        "object": Sampling(),
    }[kind]
    assert check_bias(corrected, 1.0, law=sampler, microbatches=16).passed
    wrong = check_bias(lambda x: corrected(x, 0.95), 1.0, law=sampler, microbatches=16)
    assert wrong.verdict == "fail"


def test_without_a_known_mean_a_wrong_target_is_still_seen():
    verdict = check_bias(
        lambda x: corrected(x) + 0.05, 1.0, law=lambda rng, s: rng.gamma(4.0, 0.25, s),
        microbatches=16, plug_in=lambda x: 1 / x.mean(1),
    )  # fmt: skip
    assert verdict.verdict == "fail"
    assert "target" in verdict.reason


def test_too_few_samples_are_inconclusive_and_say_how_many_it_takes():
    few = check_bias(
        corrected, "1/x", law=LAWS["gamma"], microbatches=16, samples=1, false_alarm=1e-12
    )
    hard = check_bias(
        lambda x: x.mean(1) / x.square().mean(1).sqrt(), "g/sqrt(v)",
        law=law("normal", mean=1, sd=1), microbatches=16, claim=2, samples=1000,
    )  # fmt: skip
    assert few.verdict in ("pass", "inconclusive")
    assert hard.verdict == "fail"  # gross errors need few
    slow = check_bias(
        _jackknifed, "g/sqrt(v)", law=law("normal", mean=1, sd=1), microbatches=16, samples=1000
    )
    assert slow.verdict == "inconclusive"
    assert slow.samples_needed > slow.samples
    assert slow.smallest_visible > 0.05 * slow.yardstick


def _jackknifed(x):
    m = x.shape[1]
    total, squares = x.sum(1, keepdim=True), x.square().sum(1, keepdim=True)
    left = ((total - x) / (squares - x.square()).mul(m - 1).sqrt()).mean(1)
    whole = total[:, 0] / (m * squares[:, 0]).sqrt()
    return m * whole - (m - 1) * left


def test_heavy_tails_are_never_passed_where_squares_are_felt():
    verdict = check_bias(
        _jackknifed, "g/sqrt(v)", law=law("student_t", mean=1, sd="1/2"), microbatches=16,
        samples=2**20,
    )  # fmt: skip
    assert verdict.verdict == "inconclusive"
    assert "sixth moment" in verdict.reason


def test_one_seed_gives_one_verdict_and_another_seed_another_number():
    first, again, other = (
        check_bias(corrected, "1/x", law=LAWS["gamma"], microbatches=16, seed=s) for s in (3, 3, 4)
    )
    assert first == again
    assert first.bias != other.bias


def test_a_vector_of_updates_is_judged_entry_by_entry():
    def both(x, share=1.0):
        return torch.stack([corrected(x), corrected_root(x, share)], dim=1)

    plug = {"plug_in": lambda x: torch.stack([1 / x.mean(1), x.mean(1) ** -0.5], dim=1)}
    said = {"law": LAWS["gamma"], "microbatches": 16, **plug}
    right = check_bias(both, [1.0, 1.0], **said)
    assert right.passed
    assert right.bias.shape == (2,)
    wrong = check_bias(lambda x: both(x, 0.5), [1.0, 1.0], **said)
    assert wrong.verdict == "fail"
    assert "entry 1" in wrong.reason


def test_the_table_says_what_was_found():
    text = str(check_bias(corrected, "1/x", law=LAWS["gamma"], microbatches=16))
    for word in ("pass", "microbatches", "removed", "order", "visible", "samples", "16", "128"):
        assert word in text


def test_a_verdict_becomes_a_check_of_a_report():
    check = check_bias(lambda x: corrected(x, 0), "1/x", law=LAWS["gamma"], microbatches=16).check()
    assert (check.name, check.verdict, check.expected) == ("bias", "fail", 0.0)
    assert check.measured == pytest.approx(1, abs=0.02)
    assert check.diagnosis == "0% of the plug-in's bias removed"


# -- matrices -------------------------------------------------------------------------------------


def _inverse(x, share=1.0, eigenvalues_only=False):
    """L⁻¹ less its second order, L the mean of G Gᵀ: E L⁻¹ dL L⁻¹ dL L⁻¹."""
    m = x.shape[1]
    products = x @ x.mT
    mean = products.mean(1)
    deviations = (products - mean[:, None]) / (m * (m - 1)) ** 0.5
    eigenvalues, basis = torch.linalg.eigh(mean)
    turned = basis.mT[:, None] @ deviations @ basis[:, None]
    if eigenvalues_only:
        turned = torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))
    inverse = 1 / eigenvalues
    second = (turned * inverse[:, None, None, :] @ turned).sum(1)
    second = inverse[:, :, None] * second * inverse[:, None, :]
    return basis @ (torch.diag_embed(inverse) - share * second) @ basis.mT


def test_wishart_the_full_correction_passes_and_the_eigenvalues_alone_fail():
    wishart = matrix_law("wishart", 3, 6, condition=5)
    said = {"law": wishart, "microbatches": 8, "claim": 2}
    rule = MatrixRule.parse("inv_root(L, 1)")
    right = check_bias(_inverse, rule, **said)
    assert right.passed, str(right)
    wrong = check_bias(lambda x: _inverse(x, eigenvalues_only=True), rule, samples=1, **said)
    assert wrong.verdict == "fail"
    assert 0.2 < wrong.removed < 0.8


def test_a_finite_matrix_law_is_enumerated():
    atoms = [[[1, 0], [0, 2]], [[2, 1], [0, 1]], [[1, -1], [1, 1]]]
    finite = FiniteMatrixLaw(atoms, ["1/4", "1/4", "1/2"])
    verdict = check_bias(_inverse, "inv_root(L, 1)", law=finite, microbatches=8)
    assert verdict.method == "exact enumeration"
    assert verdict.passed, str(verdict)
    wrong = check_bias(lambda x: _inverse(x, 0.9), "inv_root(L, 1)", law=finite, microbatches=8)
    assert wrong.verdict == "fail"
    assert np.isclose(wrong.removed, 0.9, atol=0.01)
