"""The claim itself, on the optimizer that is shipped: the mean update is the population update.

n = 20,000 independent coordinates of one parameter, each with its own i.i.d. normal gradients, 16
microbatches, noise share q = 0.78 of E v (fed with squares of means, or with means of squares),
betas (0.9, 0.95), 60 steps in float64. Corrected and plain updates share their gradients, so their
difference D is sharp: what is left of the plain update's exact bias B (closed form, nothing
expanded) is B + E D, known to a standard error of sd(D)/√n. Seed and threshold are fixed; accepted
is |B + D̄| + 4.9 se <= 0.3 |B|, wrong for a correction that leaves more in one run of a million.
"""

from dataclasses import dataclass
from functools import cache

import pytest
import torch

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW
from deltabias.truth import ema_weights, relative_bias_adam

COORDINATES, MICROBATCHES, STEPS = 20_000, 16, 60
BETAS = ("0.9", "0.95")
SECOND_MOMENTS = ("square_of_mean", "mean_of_squares")
SHARE = 0.78  # of the noise in E v
SEED, SIGMAS, ALLOWED = 20_260, 4.9, 0.3


@dataclass(frozen=True)
class Remaining:
    """What is left of the plug-in's bias, as a share of it, and the standard error of that."""

    share: float
    standard_error: float

    @property
    def accepted(self) -> bool:
        return abs(self.share) + SIGMAS * self.standard_error <= ALLOWED

    @property
    def rejected(self) -> bool:
        return abs(self.share) - SIGMAS * self.standard_error > ALLOWED


@cache
def updates(correction: str, second_moment: str) -> torch.Tensor:
    """The last step's update of every coordinate, along the gradient. Mean gradient 1."""
    q, m = SHARE, MICROBATCHES
    # q = (σ²/m)/(1 + σ²/m), or σ²/(1 + σ²) where v is fed with squares of microbatches
    sigma = (q / (1 - q) * (m if second_moment == "square_of_mean" else 1)) ** 0.5
    param = torch.nn.Parameter(torch.zeros(COORDINATES, dtype=torch.float64))
    optimizer = AdamW(
        [param], lr=1.0, betas=tuple(map(float, BETAS)), eps=0.0, weight_decay=0.0,
        correction=correction, second_moment=second_moment,
    )  # fmt: skip
    stats = MicrobatchStats([param], moments=3 if second_moment == "square_of_mean" else 4)
    if correction != "none" or second_moment == "mean_of_squares":
        optimizer.attach(stats)
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(STEPS):
        grads = torch.randn(m, COORDINATES, generator=generator, dtype=torch.float64)
        grads.mul_(sigma).add_(1.0)
        if optimizer._stats is not None:
            for grad in grads:
                stats.add([grad])
        param.grad = grads.mean(0)
        before = param.detach().clone()
        optimizer.step()
    assert optimizer.validity().misaligned == 0
    return before - param.detach()


def remaining(correction: str, second_moment: str = "square_of_mean") -> Remaining:
    a, b = (ema_weights(beta, STEPS) for beta in BETAS)
    q, m = SHARE, MICROBATCHES
    bias = relative_bias_adam(q, a, b, statistic=second_moment, microbatches=m)
    size = (1 + q / (1 - q)) ** -0.5  # m̂/√v̂ of the means, μ = 1
    difference = (updates(correction, second_moment) - updates("none", second_moment)) / size
    error = difference.std().item() / COORDINATES**0.5
    return Remaining((bias + difference.mean().item()) / bias, error / abs(bias))


def test_the_plain_update_has_the_bias_that_theory_says():
    # the reference of this file, against plain averages: five standard errors
    for second_moment in SECOND_MOMENTS:
        a, b = (ema_weights(beta, STEPS) for beta in BETAS)
        q = SHARE
        bias = relative_bias_adam(q, a, b, statistic=second_moment, microbatches=MICROBATCHES)
        size = (1 + q / (1 - q)) ** -0.5
        plain = updates("none", second_moment) / size
        error = plain.std().item() / COORDINATES**0.5
        assert abs(plain.mean().item() - 1 - bias) < 5 * error


@pytest.mark.parametrize("second_moment", SECOND_MOMENTS)
def test_the_corrected_update_keeps_at_most_thirty_percent_of_the_bias(second_moment):
    left = remaining("delta", second_moment)
    assert left.accepted, left


def test_the_closed_form_is_right_for_normal_gradients():
    left = remaining("closed_form")
    assert left.accepted, left


@pytest.mark.parametrize("correction", ["none", "inversion"])
def test_the_same_check_rejects_no_correction_and_half_of_it(correction):
    left = remaining(correction)
    assert left.rejected, left
    assert remaining("none", "mean_of_squares").rejected


def test_correcting_the_inversion_alone_makes_the_bias_larger():
    assert remaining("inversion").share > 1.5
