"""The numbers of a report: one row for each step and noise share, plain enough for JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from deltabias.report.prediction import Predictor
from deltabias.report.scenario import Scenario
from deltabias.report.simulation import NEARLY_ALL_NOISE, simulate

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """Relative biases (E u - u*)/u* at one step (None: the steady state) and noise share.

    Parameters
    ----------
    predicted : exact where an exact integral applies, else the series; ``method`` says which
    simulated, standard_error : from ``replicates`` histories, independent of `predicted`
    leading_order, series : the delta bias through first and third order in the small parameter
    exact : to about 1e-10, or None
    last_term : size of the last term kept of a series in ``predicted``, a guide to its error
    note : why something is missing
    """

    step: int | None
    noise_share: float
    predicted: float | None = None
    method: str = "none"
    simulated: float | None = None
    standard_error: float | None = None
    leading_order: float | None = None
    series: float | None = None
    exact: float | None = None
    last_term: float | None = None
    replicates: int = 0
    note: str = ""

    @property
    def z(self) -> float | None:
        """(simulated - predicted)/standard error: a standard normal number if they agree."""
        if self.simulated is None or self.predicted is None:
            return None
        return (self.simulated - self.predicted) / self.standard_error

    @property
    def bias(self) -> float | None:
        """The best that is known: exact, else simulated, else the series."""
        known = (self.exact, self.simulated, self.predicted)
        return next((value for value in known if value is not None), None)

    def to_dict(self) -> dict:
        """The row for JSON; the steady state has no step."""
        fields = asdict(self)
        if self.step is None:
            del fields["step"]
        return fields


def make_rows(
    scene: Scenario,
    steps: Sequence[int | None],
    noise_shares: Sequence[float],
    *,
    replicates: int | None,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """A row for each pair, with a random stream of its own."""
    predictor = Predictor(scene)
    pairs = [(step, share) for step in steps for share in noise_shares]
    rows = []
    for number, (step, share) in enumerate(pairs):
        stream = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        rows.append(_row(scene, predictor, step, share, replicates, stream))
        if progress is not None:
            progress(number + 1, len(pairs))
    return tuple(rows)


def _row(
    scene: Scenario,
    predictor: Predictor,
    step: int | None,
    share: float,
    replicates: int | None,
    seed: int,
) -> Row:
    if reason := _why_not(scene, share):
        return Row(step, share, note=reason)
    predicted = predictor(share, step)
    steps = scene.memory if step is None else step
    simulated = simulate(scene, share, steps, replicates=replicates, seed=seed)
    return Row(
        step,
        share,
        predicted=predicted.best,
        method=predicted.method,
        simulated=simulated.value,
        standard_error=simulated.standard_error,
        leading_order=predicted.leading_order,
        series=predicted.series,
        exact=predicted.exact,
        last_term=predicted.last_term,
        replicates=simulated.replicates,
        note=simulated.note,
    )


def _why_not(scene: Scenario, share: float) -> str:
    """Why there is no relative bias at this noise share, or nothing."""
    try:
        law = scene.gradient_law(share)
    except ValueError:
        return f"a {scene.law_name} law has no zero mean; take a noise share below 1"
    if share >= NEARLY_ALL_NOISE and scene.is_odd and law.center_of_symmetry is None:
        return f"u* = 0 and, for a {scene.law_name} law, E u is not: the relative bias is infinite"
    return ""
