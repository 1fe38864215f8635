"""What control variates save: samples for a given error, and samples a second.

The update of `microbatches` gamma observations of mean one and a given relative noise, against the
same update less its linear, and its quadratic, Taylor term, whose means are known exactly. Samples
that a given error needs are proportional to the variance of a replicate.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deltabias.truth import Gamma, Sampler, estimate
from validation.benchmarks.pairs import interleaved, ratio

CLAIM = "control variates: at least 1,000 times fewer samples for the same error at 1 % noise"
PACKAGES = ("numpy",)
NOISES = (0.01, 0.03, 0.1, 0.3)
MICROBATCHES = 4
REPLICATES, SEED = 200_000, 20260
FEWER = 1000
MAPS = {
    "1/v": lambda v: 1 / v,
    "1/(sqrt(v)+eps)": lambda v: 1 / (np.sqrt(v) + 1e-8),
    "v**(-1/4)": lambda v: v**-0.25,
}


def _estimates(name: str, noise: float) -> dict[str, Any]:
    """Calls that estimate E f by name of the controls."""
    law = Gamma(round(1 / noise**2), 1 / round(1 / noise**2))
    variance = float(law.variance) / MICROBATCHES
    sampler = Sampler(law, (MICROBATCHES,))

    def update(x: np.ndarray) -> np.ndarray:
        return MAPS[name](x.mean(1))

    def linear(x: np.ndarray) -> np.ndarray:
        return x.mean(1) - 1

    def quadratic(x: np.ndarray) -> np.ndarray:
        return np.stack([x.mean(1) - 1, (x.mean(1) - 1) ** 2], axis=1)

    plain = {"replicates": REPLICATES, "seed": SEED}
    known = np.array([0.0, variance])
    return {
        "none": lambda: estimate(update, sampler, **plain),
        "linear": lambda: estimate(update, sampler, **plain, control=linear, control_mean=0.0),
        "quadratic": lambda: estimate(
            update, sampler, **plain, control=quadratic, control_mean=known
        ),
    }


def rows() -> Iterator[dict[str, Any]]:
    """One line for each map, noise and set of controls."""
    for name in MAPS:
        for noise in NOISES:
            calls = _estimates(name, noise)
            found = {control: call() for control, call in calls.items()}
            times = interleaved(calls, rounds=5, limit=5, warm=0)
            for control in calls:
                fewer = (found["none"].standard_error / found[control].standard_error) ** 2
                cost = ratio(times, control, "none")
                claimed = noise == NOISES[0] and control != "none"
                yield {
                    "map": name,
                    "noise": noise,
                    "controls": control,
                    "fewer_samples": fewer,
                    "time_of_a_sample": cost["ratio"],
                    "samples_a_second": REPLICATES / (cost["milliseconds"] / 1e3),
                    **({"passed": bool(fewer >= FEWER)} if claimed else {}),
                }
