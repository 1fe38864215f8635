"""The Laplace route, against closed forms, enumeration, plain integrals and Monte Carlo.

None of the references below uses the Laplace representation.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from mpmath import mp

from deltabias.truth import (
    Discrete,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    Sampler,
    ScaledChiSquare,
    Shifted,
    StudentT,
    TwoPoint,
    adam_population_update,
    adam_update_mean,
    adam_update_mean_float64,
    ema_weights,
    estimate,
    expectation_over_history,
    law,
    relative_bias_adam,
    skewed_discrete,
    steps_to_steady_state,
)
from deltabias.truth.exact import as_mpf

STATISTICS = ["square_of_mean", "mean_of_squares"]
BETAS = ("0.9", "0.95")


def weights(steps, betas=BETAS):
    return [ema_weights(beta, steps) for beta in betas]


def steady_bias(noise_share, betas, truncation="1e-9"):
    steps = steps_to_steady_state(*betas, truncation=truncation)
    return relative_bias_adam(noise_share, *weights(steps, betas))


# --- closed forms -----------------------------------------------------------------------------


@pytest.mark.parametrize("mean", ["0", "0.01", "0.5", "3"])
def test_one_step_without_eps_is_the_mean_of_a_sign(mean):
    # E g/|g| = erf(μ/(√2 τ)), τ² = σ²/m
    found = adam_update_mean(Normal(mean, 2), [1], [1], microbatches=16)
    with mpmath.workdps(30):
        assert abs(found - mp.erf(as_mpf(mean) / mp.sqrt(2) / mp.mpf("0.5"))) < mp.mpf(10) ** -29


@pytest.mark.parametrize("steps", [1, 2, 10, 300, 4000])
def test_equal_weights_at_vanishing_mean_have_a_closed_form(steps):
    # With a = b = 1/n the derivative of E m̂/√v̂ at μ = 0 is E √v̂/τ² (differentiate the density),
    # and v̂ = τ² χ²ₙ/n, so u/u* = √(2/n) Γ((n+1)/2)/Γ(n/2).
    equal = [Fraction(1, steps)] * steps
    expected = mp.sqrt(mp.mpf(2) / steps) * mp.gammaprod(
        [mp.mpf(steps + 1) / 2], [mp.mpf(steps) / 2]
    )
    assert abs(relative_bias_adam(1, equal, equal) - float(expected - 1)) < 1e-12


def test_a_mean_of_squares_is_a_longer_history_of_scalars():
    # m microbatches and T steps of equal weights are mT scalars of equal weights.
    equal = [Fraction(1, 5)] * 5
    n = 5 * 8
    expected = mp.sqrt(mp.mpf(2) / n) * mp.gammaprod([mp.mpf(n + 1) / 2], [mp.mpf(n) / 2]) - 1
    found = relative_bias_adam(1, equal, equal, statistic="mean_of_squares", microbatches=8)
    assert abs(found - float(expected)) < 1e-12
    # Feeding one statistic and asking about the other is caught by the same number.
    assert abs(relative_bias_adam(1, equal, equal, microbatches=8) - float(expected)) > 1e-2


def test_the_first_step_at_full_noise_loses_a_fifth():
    assert relative_bias_adam(1, [1], [1]) == pytest.approx(math.sqrt(2 / math.pi) - 1, abs=1e-13)


def test_without_noise_there_is_no_bias():
    for statistic in STATISTICS:
        found = relative_bias_adam(0, *weights(7), statistic=statistic, microbatches=3, eps="0.01")
        assert abs(found) < 1e-13


def second_order(share, first, second):
    """−Aq + (3/2)Bq − (3/4)Bq²: the published steady-state expansion."""
    a = (1 - first) * (1 - second) / (1 - first * second)
    b = (1 - second) / (1 + second)
    return -a * share + 1.5 * b * share - 0.75 * b * share**2


def test_the_remainder_of_the_steady_state_expansion_is_of_second_order():
    # 1 − β₂ is the small parameter (β₁ = 0: m̂ is the newest gradient). Slope 2, not a size.
    share, scales = Fraction(7, 10), [Fraction(1, 20), Fraction(1, 80)]
    remainders, halved = [], []
    for scale in scales:
        exact = steady_bias(share, (0, 1 - scale))
        formula = second_order(float(share), 0.0, float(1 - scale))
        remainders.append(abs(exact - formula))
        halved.append(abs(exact - formula / 2))
    ratio = math.log(float(scales[0] / scales[1]))
    assert math.log(remainders[0] / remainders[1]) / ratio == pytest.approx(2, abs=0.15)
    # Half the correction leaves a first-order error, and the slope shows it.
    assert math.log(halved[0] / halved[1]) / ratio == pytest.approx(1, abs=0.15)


def test_adamw_at_its_own_betas_is_one_and_a_half_percent_short():
    assert steady_bias(1, BETAS) == pytest.approx(-0.0147, abs=5e-5)
    assert steady_bias(1, ("0.9", "0.999")) == pytest.approx(-0.00061, abs=1e-5)


# --- enumeration ------------------------------------------------------------------------------

FINITE = [
    TwoPoint(-1, 2, "0.4"),
    skewed_discrete("0.5", 1, 2),
    Discrete([-1, 0, 1], ["1/5", "2/5", "2/5"]),
]
MAPS = [
    {"eps": "0.1"},
    {"eps_root": "0.3"},
    {"power": "1/4", "eps_root": "0.01"},
    {"power": 2, "eps_root": 1},
]


def run_adam(history, statistic, a, b, power="1/2", eps=0, eps_root=0):
    """The update as anybody would write it, on one history of samples."""
    first = mp.fsum(w * step.mean for w, step in zip(a, history, strict=True))
    square = {"square_of_mean": lambda s: s.mean**2, "mean_of_squares": lambda s: s.power_mean(2)}
    second = mp.fsum(w * square[statistic](step) for w, step in zip(b, history, strict=True))
    power, eps, eps_root = (as_mpf(Fraction(x)) for x in (power, eps, eps_root))
    return first / ((second + eps_root) ** power + eps)


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("options", MAPS, ids=str)
@pytest.mark.parametrize("tested", FINITE, ids=["two_point", "skewed", "with_zero"])
def test_finite_laws_agree_with_enumeration(tested, options, statistic):
    with mpmath.workdps(40):
        a, b = weights(3)
        exact = expectation_over_history(
            lambda h: run_adam(h, statistic, a, b, **options), tested, 2, 3, digits=35
        )
        arguments = dict(statistic=statistic, microbatches=2, **options)
        found = adam_update_mean(tested, a, b, digits=25, **arguments)
        assert abs(found - exact) < mp.mpf(10) ** -24
        fast = adam_update_mean_float64(tested, a, b, **arguments)
        assert abs(fast.value - exact) < 1e-12
        # Exchanging the two EMAs' weights is a small mistake at three steps, and is seen.
        assert abs(adam_update_mean_float64(tested, b, a, **arguments).value - exact) > 1e-10


def test_without_eps_a_vanishing_state_counts_as_no_update():
    tested = Discrete([-1, 0, 2], ["1/4", "1/2", "1/4"])
    with mpmath.workdps(40):
        a, b = weights(2)

        def update(history):
            zero = all(step.power_mean(2) == 0 for step in history)
            return mp.mpf(0) if zero else run_adam(history, "square_of_mean", a, b)

        exact = expectation_over_history(update, tested, 1, 2)
        assert abs(adam_update_mean(tested, a, b) - exact) < mp.mpf(10) ** -28


# --- plain integrals --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"eps": "0.05"}, {"power": "3/4"}], ids=str)
def test_two_normal_steps_agree_with_polar_integration(options):
    # g = r(cos φ, sin φ): r du/dr is smooth in r, and φ is periodic, so both rules are spectral.
    mean, a, b = 0.4, [0.3, 0.7], [0.2, 0.8]
    angle = np.arange(400) * 2 * np.pi / 400
    radius, weight = np.polynomial.legendre.leggauss(200)
    radius, weight = 6 * (radius + 1), 6 * weight
    g = radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    density = np.exp(-((g - mean) ** 2).sum(-1) / 2) / (2 * np.pi)
    power, eps = float(Fraction(options.get("power", "1/2"))), float(options.get("eps", 0))
    update = (g @ a) / ((g**2 @ b) ** power + eps)
    # r^{3/2} at power 3/4 is the least smooth: Gauss-Legendre gives eight digits of it.
    expected = np.sum(weight[:, None] * radius[:, None] * density * update) * 2 * np.pi / 400
    found = adam_update_mean_float64(Normal("0.4", 1), a, b, **options)
    assert found.value == pytest.approx(expected, rel=1e-7)
    assert float(adam_update_mean(Normal("0.4", 1), a, b, digits=20, **options)) == pytest.approx(
        found.value, rel=1e-12
    )


def exponential_sign(mean):
    """E sign of a mean of 16 shifted exponentials: 2 P(Gamma(16, 1/16) > 1 − mean) − 1."""
    return 2 * mp.gammainc(16, 16 * (1 - mp.mpf(mean)), regularized=True) - 1


def test_one_step_of_a_skewed_law_is_a_difference_of_tails():
    found = adam_update_mean_float64(law("skewed", mean="0.1", sd=1), [1], [1], microbatches=16)
    assert found.value == pytest.approx(float(exponential_sign("0.1")), rel=1e-12)
    assert (
        abs(found.value / float(exponential_sign("0.1")) - 1) <= found.error / found.value + 1e-13
    )


def narrow_gamma_density(x):
    k = 10_000
    return mp.exp((k - 1) * mp.log(x) - k * x + k * mp.log(k) - mp.loggamma(k))


def student_t3_density(x):
    return 2 / (mp.pi * mp.sqrt(3) * (1 + (x - mp.mpf("0.2")) ** 2 / 3) ** 2)


DENSITIES = {
    "gamma": (Gamma("0.5", 2), lambda x: mp.exp(-x / 2) / mp.sqrt(2 * mp.pi * x), [0, 1, 10, 100]),
    "narrow gamma": (Gamma(10_000, "1e-4"), narrow_gamma_density, [0.9, 1, 1.1]),
    "chi2": (ScaledChiSquare(2, 1), lambda x: mp.exp(-x / 2) / 2, [0, 1, 10, 100]),
    "laplace": (
        Laplace("0.3", 1),
        lambda x: mp.exp(-abs(x - mp.mpf("0.3"))) / 2,
        [-40, 0, 0.3, 40],
    ),
    "shifted": (
        Shifted(Gamma(1, 1), "-0.7"),
        lambda x: mp.exp(-x - mp.mpf("0.7")),
        [-0.7, 0, 1, 50],
    ),
    "lognormal": (
        LogNormal(0, "0.5"),
        lambda x: mp.npdf(mp.log(x), 0, 0.5) / x,
        [0.001, 0.5, 1, 40],
    ),
    "student_t": (StudentT(3, "0.2"), student_t3_density, [-mp.inf, -5, 0, 0.2, 5, mp.inf]),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_laws_with_a_density_agree_with_a_plain_integral(name):
    tested, density, nodes = DENSITIES[name]
    with mpmath.workdps(25):
        nodes = [mp.mpf(str(x)) for x in nodes]
        expected = mp.quad(lambda x: x / (abs(x) + mp.mpf("0.1")) * density(x), nodes)
    found = adam_update_mean_float64(tested, [1], [1], eps="0.1")
    assert found.value == pytest.approx(float(expected), rel=1e-9)


# --- Monte Carlo ------------------------------------------------------------------------------

# n, seeds and |z| < 5 are fixed: false alarm 6e−7 per assert, 8 asserts. The smallest error seen
# is 5 standard errors, about 0.3 % of the update here.
REPLICATES = 100_000


def simulate(tested, statistic, microbatches, steps, seed):
    a, b = (np.array([float(w) for w in ws]) for ws in weights(steps))

    def update(g):
        means = g.mean(axis=2)
        squares = means**2 if statistic == "square_of_mean" else (g**2).mean(axis=2)
        return (means @ a) / (np.sqrt(squares @ b) + 0.01)

    return estimate(
        update,
        Sampler(tested, (steps, microbatches)),
        REPLICATES,
        seed,
        chunk=20_000,
        control=lambda g: g.mean(axis=2) @ a,
        control_mean=float(tested.mean),
    )


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", ["normal", "skewed", "student_t"])
def test_simulated_trajectories_agree(name, statistic):
    tested, steps = law(name, mean="0.2", sd=1), 6
    # The mean of several t variables has no law of its own: one microbatch there.
    m = 1 if (name, statistic) == ("student_t", "square_of_mean") else 4
    found = simulate(tested, statistic, m, steps, seed=11)
    arguments = {"statistic": statistic, "microbatches": m, "eps": "0.01"}
    exact = adam_update_mean_float64(tested, *weights(steps), **arguments).value
    assert abs(found.z(exact)) < 5
    # The population update, the answer that ignores the bias, must fail the same check.
    population = float(adam_population_update(tested, *weights(steps), **arguments))
    assert abs(found.z(population)) > 5
