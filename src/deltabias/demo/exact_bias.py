"""The bias of a typed rule against exact truth, before and after its correction.

Truth is the sum over every sample that a small discrete law can give (`deltabias.truth`): no
noise, no truncation, and none of the expansion that it judges.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mpmath
import numpy as np

from deltabias.correction import correct
from deltabias.derivation import derive
from deltabias.errors import DeltabiasError
from deltabias.evaluate import Evaluator, Microbatches
from deltabias.rule import UpdateRule
from deltabias.safe_form import numerator_of
from deltabias.truth import Discrete, FiniteLaw, expectation

GRADIENT_LAW = Discrete([-1, 1, 2], ["0.25", "0.5", "0.25"])
"""The law of one microbatch's gradient: it changes sign, and its square is never zero."""

BATCH_SIZES = (4, 8, 16)
DIGITS = 30


@dataclass(frozen=True)
class ExactBias:
    """Relative biases (E u - u*)/u* at one number of microbatches."""

    microbatches: int
    plug_in: float
    corrected: float

    @property
    def ratio(self) -> float | None:
        """What the correction leaves of the bias; None where there was none."""
        return abs(self.corrected / self.plug_in) if self.plug_in else None


def exact_biases(
    rule: UpdateRule, law: FiniteLaw = GRADIENT_LAW, batch_sizes: tuple[int, ...] = BATCH_SIZES
) -> Iterator[ExactBias]:
    """The exact bias of the plug-in and of the corrected update, for each number of microbatches.

    The statistic that the update is proportional to observes the gradient g, every other one g²,
    from the same microbatches.

    Raises
    ------
    DeltabiasError
        where the update is zero or not defined at the population's statistics.
    """
    numerator = numerator_of(derive(rule, 1))

    def observe(gradients: np.ndarray) -> Mapping[str, np.ndarray]:
        return {s.name: gradients if s.symbol == numerator else gradients**2 for s in rule.states}

    evaluators = [
        Evaluator(correct(rule, strategy), {}, "mpmath") for strategy in ("plug_in", "delta")
    ]
    with mpmath.workdps(DIGITS + 15):
        population = _population_update(evaluators[0], observe, law)

    def updates(sample) -> tuple[mpmath.mpf, ...]:
        gradients = np.array([value for value, _ in sample], dtype=object)
        counts = np.array([count for _, count in sample])
        batch = Microbatches(observe(gradients), counts)
        return tuple(_fresh(evaluator, batch) for evaluator in evaluators)

    for m in batch_sizes:
        means = expectation(updates, law, m, DIGITS)
        plug_in, corrected = (float(mean / population - 1) for mean in means)
        yield ExactBias(m, plug_in, corrected)


def _fresh(evaluator: Evaluator, batch: Microbatches) -> mpmath.mpf:
    evaluator.reset()
    return evaluator(batch)


def _population_update(evaluator: Evaluator, observe, law: FiniteLaw) -> mpmath.mpf:
    """u* = T(E S): the update on one microbatch that holds every statistic's mean."""
    points, weights = (
        np.array([mpmath.mpf(x.numerator) / x.denominator for x in fractions], dtype=object)
        for fractions in (law.points, law.weights)
    )
    means = {
        name: np.array([(values * weights).sum()], dtype=object)
        for name, values in observe(points).items()
    }
    update = _fresh(evaluator, Microbatches(means, np.array([1])))
    if not mpmath.isfinite(update) or update == 0:
        raise DeltabiasError(
            f"rule {evaluator.correction.rule} is {update} at the mean of {law}: it has no "
            "relative bias there. Try a rule that is not zero there."
        )
    return update
