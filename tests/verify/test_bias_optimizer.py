"""Optimizers with state through the same door: cold, warm, of torch and of this package."""

import pytest
import torch

from deltabias.truth import law
from deltabias.verify.bias import check_bias
from deltabias.verify.bias_optimizer import optimizer_update

NORMAL = law("normal", mean=1, sd="1/2")
BETA1, BETA2, STEPS = 0.8, 0.9, 4


def _adam(params, **options):
    return torch.optim.Adam(params, lr=0.1, betas=(BETA1, BETA2), eps=1e-8, **options)


class Averaged:
    """Adam fed with means of squares over a history, corrected for what the history averages.

    The population is that of the whole trajectory: coupling and inversion are tracked with the
    products of the averages' weights, C ← β₁β₂ C + (1−β₁)(1−β₂) Ĉ and V ← β₂² V + (1−β₂)² V̂.
    """

    steps = STEPS

    def __init__(self, share=1.0):
        self.share = share

    def __call__(self, x):
        mean = square = coupling = inversion = 0.0
        for batch in x.unbind(1):
            m, q = batch.shape[1], batch.square()
            g, v = batch.mean(1), q.mean(1)
            cov = ((batch - g[:, None]) * (q - v[:, None])).sum(1) / (m - 1) / m
            mean = BETA1 * mean + (1 - BETA1) * g
            square = BETA2 * square + (1 - BETA2) * v
            coupling = BETA1 * BETA2 * coupling + (1 - BETA1) * (1 - BETA2) * cov
            inversion = BETA2**2 * inversion + (1 - BETA2) ** 2 * q.var(1) / m
        d1, d2 = 1 - BETA1**STEPS, 1 - BETA2**STEPS
        mean, square = mean / d1, square / d2
        coupling, inversion = coupling / (d1 * d2), inversion / d2**2
        bias = -coupling / (2 * square**1.5) + 3 / 8 * mean * inversion / square**2.5
        return mean / square.sqrt() - self.share * bias


def judged(update, rule, claim, **more):
    hypers = {"beta1": BETA1, "beta2": BETA2, "eps": 0.0}
    return check_bias(update, rule, law=NORMAL, microbatches=8, claim=claim, **more, hypers=hypers)


def test_the_trajectorys_correction_passes_and_its_half_fails():
    right = judged(Averaged(), "adam_mean_of_squares", 2)
    assert right.passed, str(right)
    half = judged(Averaged(0.5), "adam_mean_of_squares", 2)
    assert half.verdict == "fail"
    assert half.removed == pytest.approx(0.5, abs=0.03)


def test_torch_adam_is_uncorrected_over_a_cold_history():
    update = optimizer_update(_adam, steps=STEPS)
    verdicts = [judged(update, "adam", claim, samples=2**20) for claim in (1, 2)]
    assert [v.verdict for v in verdicts] == ["pass", "fail"], [str(v) for v in verdicts]
    assert verdicts[1].removed == pytest.approx(0, abs=0.01)


def test_a_warm_history_is_fixed_and_the_claim_is_given_it():
    warm = torch.linspace(0.5, 1.5, 24, dtype=torch.float64).reshape(3, 8)
    update = optimizer_update(_adam, steps=1, warm=warm)
    verdict = judged(update, "adam", 1, samples=2**20)
    assert verdict.passed, str(verdict)
    cold = judged(optimizer_update(_adam, steps=1), "adam", 1, samples=2**18)
    assert abs(verdict.bias) > 0
    assert verdict.bias != cold.bias


def test_momentum_is_linear_and_unbiased():
    update = optimizer_update(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5), steps=3)
    assert judged_number(update, 1.75).passed
    assert judged_number(update, 1.76).verdict == "fail"


def judged_number(update, target):
    return check_bias(update, target, law=NORMAL, microbatches=8, claim="unbiased", samples=2**20)


def test_an_optimizer_that_decays_its_weights_is_an_error():
    update = optimizer_update(lambda p: _adam(p, weight_decay=0.1), steps=2)
    verdict = judged(update, "adam", 1)
    assert verdict.verdict == "error"
    assert "weight_decay" in verdict.reason


def test_arguments_that_make_no_sense_raise():
    with pytest.raises(ValueError, match="steps"):
        optimizer_update(_adam, steps=0)
    with pytest.raises(ValueError, match="warm"):
        optimizer_update(_adam, warm=[1.0, 2.0])
