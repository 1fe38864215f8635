"""What the tracked moments estimate, exactly; and the order of the default with estimates.

Over the histories of three steps of a finite law the accumulators' means are finite sums. They
must be, at any step,

    covariance · v         Σ_k (1−β₁)(1−β₂) (β₁β₂)^k Cov(ḡ, mean g²)  (v fed with means of squares)
    variance · v²          Σ_k (1−β₂)² β₂^{2k} Var(mean g²)
    noise · v              W κ₂/m                                     (v fed with squares of means)
    third · v^{3/2}        W κ₃/m²
    third_mean · v²        W (μ κ₃/m² + κ₄/m³)

the first two being the cumulants of the undebiased states themselves, W the sum of the
accumulator's own weights. How trust in them is withdrawn is another matter.

The order over a whole trajectory, with estimates, has no exact expectation to be compared with.
There the plug-in bias is exact, the correction's mean is a paired simulation, and the slope in
1 − β carries a standard error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from deltabias.correction import correct
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rules import get_rule
from deltabias.tracking import Accumulator
from deltabias.truth import (
    adam_population_update,
    adam_update_mean_float64,
    ema_weights,
    enumerate_samples,
    law,
)
from validation.expansion import Observed
from validation.history import Gradients, mean_gain
from validation.within_step import LAWS

HYPERS = {"beta1": 0.7, "beta2": 0.8, "alpha": 0.8}
STEPS, MICROBATCHES = 3, 4
TRACKED_RULES = (
    "adam", "adam_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares", "adagrad",
)  # fmt: skip


# -- unbiased, exactly ----------------------------------------------------------------------------


def tracked_means(rule_name: str, law_name: str) -> dict[str, tuple[float, float]]:
    """For each accumulator (its exact mean in absolute units, what it should be)."""
    rule = get_rule(rule_name)
    correction = correct(rule)
    hypers = {h.name: HYPERS[h.name] for h in rule.all_hypers if h.name in HYPERS}
    evaluator = Evaluator(correction, hypers)
    histories, weights = _histories(LAWS[law_name])
    for t in range(STEPS):
        evaluator(Microbatches({"x": histories[:, t]}, np.ones(MICROBATCHES)))
    raw = evaluator.values["_new"][rule.states[-1].name]
    shown = Observed(LAWS[law_name], _STATISTICS)
    found = {}
    for accumulator in correction.tracking.accumulators:
        mean = weights @ (evaluator.values[accumulator.name] * raw ** float(accumulator.power))
        found[accumulator.name] = (float(mean), _expected(accumulator, shown, hypers))
    return found


_STATISTICS = {"x": lambda x: x, "square": lambda x: x * x}


def _histories(finite) -> tuple[np.ndarray, np.ndarray]:
    """Every history ``[h, t, m]`` of a finite law, with its probability ``[h]``."""
    points = np.array([float(x) for x in finite.points])
    steps = [(np.repeat(points, c), float(w)) for c, w in enumerate_samples(finite, MICROBATCHES)]
    rows = list(product(steps, repeat=STEPS))
    values = np.array([[sample for sample, _ in row] for row in rows])
    return values, np.array([np.prod([w for _, w in row]) for row in rows])


def _expected(accumulator: Accumulator, shown: Observed, hypers: Mapping[str, float]) -> float:
    m, mean = MICROBATCHES, float(shown.law.mean)
    k2, k3, k4 = (float(shown.law.cumulant(n)) for n in (2, 3, 4))
    beta2 = hypers.get("beta2", hypers.get("alpha"))
    beta1 = hypers.get("beta1", 0.0)  # a fresh numerator has no memory
    if accumulator.name == "covariance":
        weight = _geometric((1 - beta1) * (1 - beta2), beta1 * beta2)
        return weight * float(shown.joint_cumulant(["x", "square"])) / m
    if accumulator.name == "variance":
        weight = _geometric((1 - beta2) ** 2, beta2**2)
        return weight * float(shown.joint_cumulant(["square", "square"])) / m
    moment = {
        "noise": k2 / m,
        "third": k3 / m**2,
        "third_mean": mean * k3 / m**2 + k4 / m**3,
    }[accumulator.name]
    gain, decay = (_number(x, hypers) for x in (accumulator.gain, accumulator.decay))
    return _geometric(gain, decay) * moment


def _number(expression, hypers: Mapping[str, float]) -> float:
    return float(expression.subs({s: hypers[s.name] for s in expression.free_symbols}))


def _geometric(gain: float, decay: float) -> float:
    return sum(gain * decay**k for k in range(STEPS))


# -- the order, with estimates --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A default correction whose slope in 1 − β is simulated; betas are (1 − 2ε, 1 − ε)."""

    rule: str
    law: str
    noise: float
    microbatches: int


CASES = (
    Case("adamw", "skewed", 4.0, 4),
    Case("adamw_mean_of_squares", "skewed", 7.5, 16),
)
EPSILONS = (0.1, 0.05, 0.025)
REPLICATES = 6000
PART = 1000
SIGMAS = 2.0


def _setting(case: Case, epsilon: float) -> tuple[dict[str, float], tuple[int, ...]]:
    memory = round(1 / epsilon)
    return {"beta1": 1 - 2 * epsilon, "beta2": 1 - epsilon}, tuple(
        range(8 * memory, 16 * memory + 1, memory)
    )


def gain_task(index: int, epsilon: float, seed: int, replicates: int):
    """(gain, error) of one part of one case at one epsilon."""
    case = CASES[index]
    betas, at = _setting(case, epsilon)
    gradients = Gradients(case.law, (case.noise,), case.microbatches)
    return mean_gain(
        case.rule, "delta", gradients, at, betas=betas, replicates=replicates, seed=seed
    )


def remaining(case: Case, epsilon: float, gains: list) -> dict:
    """The relative bias before and after, with the standard error of what is left."""
    betas, at = _setting(case, epsilon)
    weights = [ema_weights(f"{beta:.6g}", at[-1]) for beta in betas.values()]
    keywords = {
        "statistic": "mean_of_squares" if "squares" in case.rule else "square_of_mean",
        "microbatches": case.microbatches,
    }
    gradient = law(case.law, mean=1, sd=str(case.noise))
    target = float(adam_population_update(gradient, *weights, **keywords))
    plug_in = adam_update_mean_float64(gradient, *weights, **keywords).value - target
    gain = float(np.mean([g[0] for g, _ in gains]))
    error = float(np.sqrt(np.mean([e[0] ** 2 for _, e in gains]) / len(gains)))
    return {
        "rule": case.rule,
        "law": case.law,
        "noise": case.noise,
        "microbatches": case.microbatches,
        "one_minus_beta2": epsilon,
        "plug_in": plug_in / target,
        "left": (plug_in + gain) / target,
        "standard_error": error / target,
    }


def fitted_slope(lines: list[dict]) -> tuple[float, float]:
    """(slope, standard error) of log |left| between the first and the last epsilon."""
    first, last = lines[0], lines[-1]
    width = np.log(first["one_minus_beta2"] / last["one_minus_beta2"])
    errors = [x["standard_error"] / abs(x["left"]) for x in (first, last)]
    return float(np.log(abs(first["left"] / last["left"])) / width), float(
        np.hypot(*errors) / width
    )
