"""What is wrong with an optimizer: the mutated rule that it agrees with on every history.

A diagnosis is given only if the mutant lies within the rounding bound of everything that the
optimizer did, in all histories, and differs from the rule where the optimizer does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deltabias.errors import DeltabiasError
from deltabias.verify.distance import coarse_scales, distance
from deltabias.verify.interpret import SINGLE_SCALARS, Quirks, Trajectory, run_rule
from deltabias.verify.mutations import Mutation, mutations, quirk_mutations

PAIRS = 4000


@dataclass(frozen=True)
class Diagnosis:
    """What fits.

    Parameters
    ----------
    name : the mutations' names joined by " and ", or empty
    detail : the mutated assignments, or where the histories that differ have something in common
    rounding_only : the optimizer agrees when its scalars are rounded to single precision
    """

    name: str = ""
    detail: str = ""
    rounding_only: bool = False


def diagnose(subject, bank: Sequence, smallest, dtype: str = "float64") -> Diagnosis:
    """The mutation, or the pair of them, that explains everything that was seen.

    Parameters
    ----------
    subject : `conformance.Subject`
    bank, smallest : `conformance.Trial`; every history, and the smallest that differs
    """
    jury = _Jury(subject.rule, [smallest, *bank], dtype)
    if jury.single_precision_scalars():
        return Diagnosis(
            SINGLE_SCALARS,
            "agrees if scalars such as the debias are rounded to float32",
            rounding_only=True,
        )
    if jury.never_finite():
        return Diagnosis(detail="the optimizer's values are not finite where the rule's are")
    if jury.single_precision():
        return Diagnosis(
            "computed in single precision",
            "agrees if parameters and states are rounded to float32",
        )
    groups = max(len(t.history.groups) for t in bank)
    single = [*mutations(subject.rule), *quirk_mutations(subject.rule, groups)]
    fitting = [m for m in single if jury.accepts(m)]
    if fitting:
        return _said(fitting)
    for pair in _pairs(subject.rule, single, groups):
        if jury.accepts(pair):
            return _said([pair])
    return Diagnosis(detail=in_common(bank))


def _said(fitting: list[Mutation]) -> Diagnosis:
    first = fitting[0]
    others = [m.name for m in fitting[1:] if m.name != first.name]
    detail = f"agrees with: {'; '.join(first.rule.text.splitlines())}"
    if others:
        detail += f" (the same here: {', '.join(dict.fromkeys(others))})"
    return Diagnosis(first.name, detail)


def _pairs(rule, single: Sequence[Mutation], groups: int) -> Iterator[Mutation]:
    """Two mutations at once: one after the other."""
    formulas = mutations(rule, likely=True)
    quirks = [m for m in single if m.quirks != Quirks()]
    for first in formulas:
        for quirk in quirks:
            yield Mutation(f"{first.name} and {quirk.name}", first.rule, quirk.quirks)
    seen = {m.rule.steps for m in single}
    made = 0
    for place, first in enumerate(formulas):
        later = {m.name for m in formulas[place + 1 :]}  # the others were first before
        for second in mutations(first.rule, likely=True):
            if second.rule.steps in seen or second.name not in later:
                continue
            seen.add(second.rule.steps)
            made += 1
            if made > PAIRS:
                return
            yield Mutation(f"{first.name} and {second.name}", second.rule)


class _Jury:
    """Holds mutants against what the optimizer did: coarsely in float64, then exactly."""

    def __init__(self, rule, trials: Sequence, dtype: str):
        self.rule, self.dtype = rule, dtype
        # those that differ tell most, short ones cost least
        self.trials = sorted(trials, key=lambda t: (t.distance.agrees, t.history.size))
        self.coarse = [_Tolerance(t) for t in self.trials]

    def accepts(self, mutation: Mutation) -> bool:
        try:
            return self._coarsely(mutation) and self._exactly(mutation)
        except (DeltabiasError, OverflowError, ZeroDivisionError, TypeError, KeyError):
            return False

    def _coarsely(self, mutation: Mutation) -> bool:
        slack = 1.0 if self.dtype == "float64" else 1e5
        return all(
            tolerance.allows(
                run_rule(mutation.rule, t.history, exact=False, quirks=mutation.quirks), slack
            )
            for t, tolerance in zip(self.trials, self.coarse, strict=True)
        )

    def _exactly(self, mutation: Mutation) -> bool:
        explained = 0
        for trial in self.trials:
            truth = run_rule(mutation.rule, trial.history, dtype=self.dtype, quirks=mutation.quirks)
            found = distance(
                trial.run.values, truth.values, truth.bounds, trial.history, self.dtype
            )
            if not found.agrees:
                return False
            # a mutant that is undefined wherever the optimizer differs explains nothing
            explained += not trial.distance.agrees and found.compared > 0
        return explained > 0

    def never_finite(self) -> bool:
        """Whether all that is wrong is no number where the rule has one."""
        return all(
            np.isinf(t.distance.ratio) and not np.isfinite(t.distance.got)
            for t in self.trials
            if not t.distance.agrees
        ) and any(not t.distance.agrees for t in self.trials)

    def single_precision_scalars(self) -> bool:
        return self._within(single_scalars=True)

    def single_precision(self) -> bool:
        return self._within(dtype="float32")

    def _within(self, **wider) -> bool:
        """Whether everything lies within the rounding of a lower precision."""
        if self.dtype != "float64":
            return False
        return all(
            distance(
                t.run.values,
                t.truth.values,
                run_rule(self.rule, t.history, **wider).bounds,
                t.history,
                self.dtype,
            ).agrees
            for t in self.trials
        )


class _Tolerance:
    """What a float64 run of the right rule may be off by, for one history."""

    def __init__(self, trial):
        self.values = trial.run.values
        self.scales = coarse_scales(trial.history, self.values)
        # where rule and optimizer are both numbers, a mutant that is none explains nothing
        self.needed = [
            [np.isfinite(v) & np.isfinite(b) for v, b in zip(values, bounds, strict=True)]
            for values, bounds in zip(self.values, trial.truth.bounds, strict=True)
        ]

    def allows(self, mutant: Trajectory, slack: float) -> bool:
        for got, expected, needed in zip(self.values, mutant.values, self.needed, strict=True):
            for a, b, must, scale in zip(got, expected, needed, self.scales, strict=True):
                defined = np.isfinite(b)
                if not np.all(np.abs(a - b)[defined] <= slack * scale):
                    return False
                if np.any(must & ~defined):
                    return False
        return True


def in_common(bank: Sequence) -> str:
    """What the histories that differ share and the others lack."""
    failed = [t for t in bank if not t.distance.agrees]
    passed = [t for t in bank if t.distance.agrees]
    if not passed or not failed:
        return "no known mistake fits"
    traits = {
        "several groups": lambda h: len(h.groups) > 1,
        "several parameters": lambda h: len(h.params) > 1,
        "an lr schedule": lambda h: any(f != 1 for step in h.lr_factors for f in step),
        "a missing gradient": lambda h: any(g is None for step in h.grads for g in step),
        "more than one step": lambda h: h.steps > 1,
        "a 0-d parameter": lambda h: () in h.shapes,
    }
    for name in failed[0].history.groups[0].hypers:
        traits[f"{name} above 0"] = lambda h, n=name: any(g.hypers[n] > 0 for g in h.groups)
    shared = [
        said
        for said, holds in traits.items()
        if all(holds(t.history) for t in failed) and not any(holds(t.history) for t in passed)
    ]
    hint = f"; it differs just where there is {' or '.join(shared)}" if shared else ""
    return f"no known mistake fits{hint}"
