"""`check_bias`: the mean of an update against the population update, and a verdict on a claim."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from deltabias.matrix_rule import MatrixRule
from deltabias.verify.bias_guard import Guarded, UnusableUpdate, collapsed, examine
from deltabias.verify.bias_judge import (
    SETTLED,
    Judgment,
    Question,
    judge,
    plan_rows,
    share_gone,
    unsettled,
)
from deltabias.verify.bias_ladder import SIZES, ladder
from deltabias.verify.bias_measure import (
    BUDGET,
    Measurement,
    Pilot,
    Subject,
    countable,
    enumerate_every,
)
from deltabias.verify.bias_source import Source, UnusableLaw, read_law
from deltabias.verify.bias_target import Target, UnusableTarget, read_rule, read_target
from deltabias.verify.record import ERROR, PASS, Check

Array = np.ndarray
CLAIMS = (1, 2, 3, "unbiased")
KURTOSIS_SHARE = 4
"""Means of squares of fewer microbatches than a quarter of the kurtosis are far from any series."""
Number = float | Array


@dataclass(frozen=True)
class BiasVerdict:
    """What `check_bias` found; ``str()`` is a table.

    Attributes
    ----------
    verdict : "pass", "fail", "inconclusive" or "error"
    bias, standard_error : E u − u* at m, as measured: floats, or float64 arrays [*out]
    removed, removed_error : the share of the plug-in's leading bias that is gone: 1 right, 0 none,
        1.67 over-corrected, −1 the wrong sign; NaN where the plug-in is unknown or has none
    removed_here : the same of the whole bias at m, higher orders and all
    order, order_error : slope of −log|bias| over log m; NaN where fewer than two sizes show a bias
    left, left_error : the largest part of the bias that the claim rules out, as it is at m
    smallest_visible : the least such part that would have failed, with a power of 0.9
    yardstick : what 5 % is taken of: the plug-in's bias, or else the update's spread over √m
    samples : microbatch gradients drawn, or batches visited where ``method`` is an enumeration
    samples_needed : what would settle it; infinite if no number would
    plug_in : where the uncorrected update came from
    ladder : (microbatches, bias, its error, plug-in's bias) for m, 2m, …
    """

    verdict: str
    reason: str
    claim: int | str
    microbatches: int
    false_alarm: float
    seed: int
    bias: Number = math.nan
    standard_error: Number = math.inf
    removed: float = math.nan
    removed_error: float = math.inf
    removed_here: float = math.nan
    order: float = math.nan
    order_error: float = math.inf
    left: float = math.nan
    left_error: float = math.inf
    smallest_visible: float = math.inf
    yardstick: float = math.nan
    samples: int = 0
    samples_needed: float = math.nan
    method: str = ""
    plug_in: str = "unknown"
    ladder: tuple[tuple[int, float, float, float], ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        return self.verdict == PASS

    def check(self, name: str = "bias") -> Check:
        """The same as a line of a `Report`: the share of the yardstick that is left."""
        measured = self.left / self.yardstick if self.yardstick > 0 else None
        return Check(
            name, self.verdict, measured=measured, expected=0.0, diagnosis=self._diagnosis(),
            detail=self.reason,
        )  # fmt: skip

    def _diagnosis(self) -> str:
        if self.verdict != "fail" or not math.isfinite(self.removed):
            return ""
        return f"{round(self.removed, 2) + 0.0:.0%} of the plug-in's bias removed"

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        return self.check()._repr_html_()


def check_bias(
    update: Callable[[torch.Tensor], Any],
    target: Any,
    *,
    law: Any,
    microbatches: int,
    claim: int | str = 2,
    false_alarm: float = 1e-6,
    seed: int = 0,
    plug_in: Callable[[torch.Tensor], Any] | None = None,
    steps: int | None = None,
    hypers: Mapping[str, float] | None = None,
    statistics: Mapping[str, str] | None = None,
    samples: int | None = None,
) -> BiasVerdict:
    """Measure the mean of an update against the population update, and judge a claim.

    How a claim is judged is the text of `deltabias.verify.bias_judge`: in short, the part of the
    bias that falls more slowly than claimed is estimated from m, 2m, 4m and 8m microbatches and
    fails where it is clear of 1 % of the uncorrected update's bias; what passes was able to show
    5 % of it. Laws of finite support are enumerated, with no noise at all. The number of samples
    is fixed by a pilot beforehand, nothing is retried, and one seed gives one verdict.

    Parameters
    ----------
    update : float64 [replicates, microbatches, *dims] -> [replicates, *out]
        anything that maps the gradients of a batch to an update; with ``steps`` it receives
        [replicates, steps, microbatches, *dims], the oldest first. It must take any number of
        microbatches. See `optimizer_update` for torch optimizers.
    target : the population update
        a number, a tensor [*out], a function of m, or a rule (a record, the catalogue's name or
        one line of mathematics), of which it is computed exactly from the law's moments.
    law : of one microbatch's gradient
        one of `deltabias.truth`'s, a name, or anything that samples: see `read_law`.
    microbatches : m, at least 2
    claim : 1, 2, 3 or "unbiased"
        the order in 1/m that is left: 1 for an uncorrected update, 2 for a corrected one.
    false_alarm : the largest probability with which a right update fails, all tests together
    plug_in : the uncorrected update, for ``removed`` and as a yardstick
        by default that of the target rule; else the update of batches that have no spread, if at
        the law's mean it is the target.
    steps, hypers, statistics : of a rule: see `read_target`. An update's own attributes ``steps``
        and ``warm`` are used where they are not given.
    samples : numbers drawn at most, 2²⁴ by default (some seconds); a pilot of 2¹⁹ and 1,024
        batches of 8m are drawn in any case

    Raises
    ------
    ValueError, TypeError
        for arguments that make no sense. An update, a target or a law that cannot be judged is a
        verdict "error" with its reason, never a pass.

    Examples
    --------
    >>> from deltabias.truth import law
    >>> def corrected(x):
    ...     mean, var_of_mean = x.mean(1), x.var(1) / x.shape[1]
    ...     return 1 / mean - var_of_mean / mean**3
    >>> gamma = law("gamma", mean=1, sd="1/4")
    >>> verdict = check_bias(corrected, "1/x", law=gamma, microbatches=16, claim=2)
    >>> verdict.verdict, round(verdict.removed, 2)
    ('pass', 1.0)
    >>> check_bias(lambda x: 1 / x.mean(1), "1/x", law=gamma, microbatches=16, claim=2).verdict
    'fail'
    """
    steps = getattr(update, "steps", None) if steps is None else steps
    _check_arguments(update, microbatches, claim, false_alarm, seed, steps, samples)
    rule = read_rule(target)
    said = {"claim": claim, "microbatches": microbatches, "false_alarm": false_alarm, "seed": seed}
    try:
        source = read_law(law, matrix=isinstance(rule, MatrixRule))
        warm = getattr(update, "warm", None)
        goal = read_target(
            target if rule is None else rule, source, steps=steps, warm=warm, hypers=hypers,
            statistics=statistics,
        )  # fmt: skip
        setup = _set_up(update, plug_in, goal, source, microbatches, claim, steps, seed)
        found, question = _measure(setup, claim, false_alarm, seed, samples)
    except (UnusableLaw, UnusableTarget, UnusableUpdate) as error:
        return BiasVerdict(ERROR, str(error), **said)
    return _verdict_of(found, judge(found, question), goal, setup.origin, said)


def _check_arguments(update, microbatches, claim, false_alarm, seed, steps, samples) -> None:
    if not callable(update):
        raise TypeError(f"update={update!r} is not callable; pass a function of a tensor.")
    for name, value, lowest in (
        ("microbatches", microbatches, 2),
        ("seed", seed, 0),
        ("steps", 1 if steps is None else steps, 1),
        ("samples", 1 if samples is None else samples, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValueError(f"{name}={value!r} must be an int of at least {lowest}.")
    if isinstance(claim, bool) or claim not in CLAIMS:
        raise ValueError(f"{claim=!r} makes no sense; claim the order in 1/m that is left, 1 "
                         "(uncorrected), 2 or 3, or 'unbiased'.")  # fmt: skip
    if not (isinstance(false_alarm, float) and 0 < false_alarm < 1):
        raise ValueError(f"{false_alarm=!r} must be a probability strictly between 0 and 1.")


@dataclass(frozen=True)
class _Setup:
    """The subject, where its plug-in came from, and what was seen of the update."""

    subject: Subject
    origin: str
    symmetric: bool
    of_mean: bool


def _set_up(update, plug_in, goal: Target, source: Source, m: int, claim, steps, seed) -> _Setup:
    sizes = tuple(m * 2**j for j in range(1 if claim == "unbiased" else SIZES))
    out = goal.value(m).shape
    guarded = Guarded(update, out)
    symmetric = examine(guarded, source, sizes, steps, seed)
    of_mean = _feels_the_mean_alone(update, goal, source, m, steps)
    reference, origin = None, "unknown"
    if plug_in is not None:
        reference, origin = plug_in, "given"
    elif goal.plug_in is not None:
        reference, origin = goal.plug_in, "the target's rule"
    elif of_mean:
        reference, origin = collapsed(update, 2 if steps else 1), "the update without spread"
    if reference is not None:
        reference = Guarded(reference, out, "the plug-in")
        examine(reference, source, sizes, steps, seed)
    subject = Subject(guarded, reference, goal.value, source, sizes, steps)
    return _Setup(subject, origin, symmetric, of_mean)


def _feels_the_mean_alone(update, goal: Target, source: Source, m: int, steps: int | None) -> bool:
    """Whether the update of a batch without spread, at the law's mean, is the target.

    So it is for maps of the mean gradient, corrected for its variance or not. What a mean that is
    known from draws alone is uncertain by is allowed for, seven times.
    """
    shape = (3, *([steps] if steps else []), m, *source.dims)
    still = np.broadcast_to(np.asarray(source.center, dtype=float), shape).copy()
    still[1] += source.center_error
    still[2] -= source.center_error
    value = goal.value(m)
    try:
        answer = Guarded(collapsed(update, 2 if steps else 1), value.shape)(still)
    except UnusableUpdate:
        return False
    allowed = 7 * np.abs(answer[1:] - answer[0]).max() + 1e-9 * max(np.abs(value).max(), 1e-300)
    return bool(np.abs(answer[0] - value).max() <= allowed)


def _kurtosis(source: Source) -> float:
    moments = source.standardized
    return moments[4] if len(moments) > 4 else 0.0


def _measure(
    setup: _Setup, claim, false_alarm: float, seed: int, samples: int | None
) -> tuple[Measurement, Question]:
    """Exact where every batch can be visited, else by random ones; sizes as the module says."""
    source, m = setup.subject.source, setup.subject.sizes[0]
    known_mean = bool(source.raw) or source.matrix is not None
    heavy = source.heavy and not setup.of_mean and claim != "unbiased"
    bases = [m] if claim == "unbiased" or heavy else [m, 2 * m, 4 * m, 8 * m]
    if not setup.of_mean:
        bases = [b for b in bases if _kurtosis(source) <= KURTOSIS_SHARE * b] or bases[-1:]
    best = None
    for base in bases:
        sizes = setup.subject.sizes if claim == "unbiased" else ladder(m, base)
        exact = setup.symmetric and countable(source, sizes, setup.subject.steps)
        if best is not None and bool(exact) != isinstance(best[1], Measurement):
            break  # a size that cannot be enumerated any more
        subject = replace(setup.subject, sizes=sizes)
        question = Question(
            claim, sizes, false_alarm, free_of_offset=not (known_mean or exact), heavy=heavy
        )
        trial = (
            enumerate_every(subject) if exact else Pilot.of(subject, question.contrasts.main, seed)
        )
        moved = unsettled(trial if exact else trial.found, question)
        if best is None or moved < best[0]:
            best = moved, trial, question
        if moved <= SETTLED:
            break
    _, trial, question = best
    if isinstance(trial, Measurement):
        return trial, question
    return trial.measure(plan_rows(trial.found, question), samples or BUDGET), question


def _verdict_of(
    found: Measurement, judgment: Judgment, goal: Target, origin: str, said: dict
) -> BiasVerdict:
    out = goal.value(said["microbatches"]).shape
    bias, error = found.estimate(found.update[:, 0])
    tests = [f for f in judgment.findings if f.name != "offset"]
    worst = max(tests, key=lambda f: abs(f.value))
    needed = judgment.replicates_needed
    return BiasVerdict(
        judgment.verdict, judgment.reason, **said,
        bias=_shaped(bias, out), standard_error=_shaped(error, out),
        removed=judgment.removed[0], removed_error=judgment.removed[1],
        removed_here=share_gone(found, np.eye(len(found.sizes))[0])[0],
        order=judgment.order[0], order_error=judgment.order[1],
        left=worst.value, left_error=worst.error,
        smallest_visible=max(f.visible for f in tests), yardstick=judgment.yardstick,
        samples=found.samples, samples_needed=found.samples * needed, method=found.method,
        plug_in=origin, ladder=tuple(_ladder(found)),
    )  # fmt: skip


def _shaped(values: Array, out: tuple[int, ...]) -> Number:
    return float(values[0]) if out == () else values.reshape(out)


def _ladder(found: Measurement):
    direction = np.ones(found.update.shape[2])
    if len(direction) > 1:
        guide = found.update.mean(axis=(0, 1)) if found.guide is None else found.guide[0]
        direction = guide / max(float(np.linalg.norm(guide)), 1e-300)
    bias, error = found.estimate(found.update @ direction)
    plug = np.full(len(bias), math.nan)
    if found.plug_in is not None:
        plug, _ = found.estimate(found.plug_in @ direction)
    for row in zip(found.sizes, bias, error, plug, strict=True):
        yield (row[0], *(float(x) for x in row[1:]))


def _lines(v: BiasVerdict):
    claimed = v.claim if isinstance(v.claim, str) else f"O(1/m^{v.claim})"
    yield f"{v.verdict}: the bias is {claimed} from m = {v.microbatches}? {v.reason}"
    if not v.ladder:
        return
    yield f"  {'microbatches':>12}  {'bias':>22}  {'plug-in':>10}"
    for m, bias, error, plug in v.ladder:
        yield f"  {m:>12}  {bias:>+11.3e} ± {error:.2e}  {plug:>+10.2e}"
    for name, text in (
        (
            "removed",
            f"{v.removed:.3f} ± {v.removed_error:.2g} of the plug-in's leading bias; "
            f"{v.removed_here:.3f} of all of it at m",
        ),
        ("order", f"{v.order:.2f} ± {v.order_error:.2g} in 1/m"),
        ("ruled out", f"{v.left:+.3e} ± {v.left_error:.2g} of it at m"),
        ("visible", f"{v.smallest_visible:.3e} (5 % of {v.yardstick:.3e} is asked for)"),
        ("samples", f"{v.samples:,} by {v.method}; {v.samples_needed:,.0f} would settle it"),
        ("plug-in", f"{v.plug_in}; false alarm {v.false_alarm:g}, seed {v.seed}"),
    ):
        yield f"  {name:>12}  {text}"
