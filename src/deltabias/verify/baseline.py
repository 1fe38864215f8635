"""An optimizer's plain runs, and how far another way of running it comes from them."""

from collections.abc import Callable

from deltabias.verify.constructor import Constructor, TargetError
from deltabias.verify.distance import Distance, distance
from deltabias.verify.drive import Refused, Run, begin, drive, quiet, rounded
from deltabias.verify.histories import History, draw_histories
from deltabias.verify.interpret import Trajectory, run_rule

FEW = 4
DRAWN = 16


class Unoffered(Exception):
    """The optimizer does not have this."""


class Wrong(TargetError):
    """Seen to be wrong without a number."""


Feature = Callable[["Baseline"], Distance]


class Baseline:
    """A few histories, the optimizer's plain runs of them and the rule's rounding bounds.

    Everything is driven in the subject's dtype, and held against the rounding of that dtype.
    """

    def __init__(self, subject):
        self.subject = subject
        self.constructor: Constructor = subject.constructor
        drawn = draw_histories(subject.scope, DRAWN, subject.seed + 1)
        self.histories: list[History] = []
        self.runs: list[Run] = []
        for history in sorted(drawn, key=lambda h: (not 4 <= h.steps <= 8, -len(h.params))):
            if len(self.runs) == FEW:
                break
            try:
                self.runs.append(self.drive(history))
            except Refused:
                continue
            self.histories.append(rounded(history, self.dtype))
        self.truths = [self.truth(h) for h in self.histories]

    @property
    def dtype(self) -> str:
        return self.subject.dtype

    def drive(self, history: History, constructor: Constructor | None = None, **options) -> Run:
        """The optimizer over a history, in the subject's dtype."""
        held = rounded(history, self.dtype)
        return drive(constructor or self.constructor, held, dtype=self.dtype, **options)

    def truth(self, history: History) -> Trajectory:
        """The rule over a history, with the rounding that the subject's dtype allows."""
        return run_rule(
            self.subject.rule,
            rounded(history, self.dtype),
            dtype=self.dtype,
            single_scalars=self.subject.single_scalars,
        )

    def against(self, rerun: Callable[[History], Run]) -> Distance:
        """The furthest that another way of running comes from the plain one."""
        return worst(
            self.apart(rerun(history).values, run.values, truth.bounds, history)
            for history, run, truth in zip(self.histories, self.runs, self.truths, strict=True)
        )

    def against_rule(self, rerun: Callable[[History], Run], changed: Callable) -> Distance:
        """The furthest that a run comes from the rule on changed histories."""
        found = []
        for history in map(changed, self.histories):
            truth = self.truth(history)
            got = rerun(history).values
            found.append(distance(got, truth.values, truth.bounds, history, self.dtype))
        return worst(found)

    def apart(self, got, expected, bounds, history: History) -> Distance:
        """How far two runs are apart, held against twice the rule's rounding."""
        twice = [[2 * b for b in step] for step in bounds]
        # where rounding decides and where the plain run is no number, nothing is compared
        return distance(got, expected, twice, history, self.dtype)

    def advanced(self, advance: Callable) -> Distance:
        """With another way of taking a step."""
        return self.against(lambda h: self.drive(h, advance=advance))


def worst(found) -> Distance:
    return max(found, key=lambda d: d.ratio, default=Distance())


def begin_one(base: Baseline):
    """The optimizer of the first history, before its first step."""
    with quiet(base.dtype):
        return begin(base.constructor, base.histories[0], base.dtype).optimizer
