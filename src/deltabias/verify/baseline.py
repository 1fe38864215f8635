"""An optimizer's plain runs, and how far another way of running it comes from them."""

from collections.abc import Callable

from deltabias.verify.constructor import Constructor, TargetError
from deltabias.verify.distance import Distance, distance
from deltabias.verify.drive import Refused, Run, begin, drive, quiet
from deltabias.verify.histories import History, draw_histories
from deltabias.verify.interpret import run_rule

FEW = 4
DRAWN = 16


class Unoffered(Exception):
    """The optimizer does not have this."""


class Wrong(TargetError):
    """Seen to be wrong without a number."""


Feature = Callable[["Baseline"], Distance]


class Baseline:
    """A few histories, the optimizer's plain runs of them and the rule's rounding bounds."""

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
                self.runs.append(drive(self.constructor, history))
            except Refused:
                continue
            self.histories.append(history)
        self.truths = [run_rule(subject.rule, h) for h in self.histories]

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
            truth = run_rule(self.subject.rule, history)
            found.append(distance(rerun(history).values, truth.values, truth.bounds, history))
        return worst(found)

    @staticmethod
    def apart(got, expected, bounds, history: History) -> Distance:
        """How far two runs are apart, held against twice the rule's rounding."""
        twice = [[2 * b for b in step] for step in bounds]
        # where rounding decides and where the plain run is no number, nothing is compared
        return distance(got, expected, twice, history)

    def advanced(self, advance: Callable) -> Distance:
        """With another way of taking a step."""
        return self.against(lambda h: drive(self.constructor, h, advance=advance))


def worst(found) -> Distance:
    return max(found, key=lambda d: d.ratio, default=Distance())


def begin_one(base: Baseline):
    """The optimizer of the first history, before its first step."""
    with quiet("float64"):
        return begin(base.constructor, base.histories[0], "float64").optimizer
