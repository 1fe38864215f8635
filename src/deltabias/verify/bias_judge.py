r"""How a claim about a bias is judged: what is tested, at which error, and when nothing is said.

*Claim k* says :math:`b(m) = O(m^{-k})`. Were it wrong there would be a term of order p = k − 1 (or
lower), so that term is estimated by the contrast of `bias_ladder` over m, 2m, 4m, 8m, which
cancels the orders that are allowed, and is expressed as the bias c that it makes *at m*. *Unbiased*
says b(m) = 0, and that is tested as it is.

The yardstick r is the uncorrected update's bias: its own first order at m for claims 1 and 2, its
whole bias for *unbiased*. Where it is unknown or not clear of zero, r is a quarter of the update's
standard deviation over √m: the bias of 1/x where the noise is a quarter of the mean. For claim 3
r is ten times the plug-in's second order (of which 5 % is half of that order), or ten times (its
first order)²/u* where that is not clear.

With a standard error s from 256 blocks of replicates, Student's quantiles z for the false alarm
(two sides) and y for a power of 0.9, t = 1 % of r (nothing smaller is worth an alarm) and e, what
doubling all sizes changes of an extrapolation (of the plug-in's too, if that is more, for claim
2), as far as that is clear of its own noise:

    fail          |c| > t + e + z s        a right update does so with at most the false alarm
    pass          otherwise, if t + e + (z + y) s <= 5 % of r: what passes had to be this small
    inconclusive  otherwise, with the samples that would do

Where the pilot finds e above 1.5 % of r the sizes begin at 2m, 4m or 8m instead: the claim is on
what happens as m grows, and what the higher orders do at m is no part of it. They also begin at no
less than a quarter of the law's kurtosis, within 8m, for an update that feels more than the mean.

Of an update with several entries every entry is tested, and its component along the plug-in's
bias; the false alarm is divided among them. If the law's mean is unknown the contrast cancels a
constant too, and a second test, with half of the false alarm, holds the limit at large m against
the target: to half of r, as a constant is not what such a claim is about.

Heavy tails: where the law has no sixth moment and the update feels squares, the bias has terms
such as :math:`m^{-3/2}` between the integer orders. They are not told from a small first order, so
e is at least 20 % of r: a gross error still fails, and nothing passes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deltabias.verify.bias_ladder import SIZES, Contrasts, contrast, fitted_order, t_quantile
from deltabias.verify.bias_measure import BLOCKS, PILOT_BLOCK, Measurement
from deltabias.verify.record import FAIL, INCONCLUSIVE, PASS

Array = np.ndarray

NEGLIGIBLE = 0.01
"""t: of the yardstick."""
VISIBLE = 0.05
"""What must be seen, of the yardstick, for an update to pass."""
SETTLED = 0.015
PLANNED = 0.035
"""What the number of replicates is chosen for: some room for a pilot that was lucky."""
HEAVY = 0.2
OFFSET_VISIBLE = 0.5
POWER = 0.9
CLEAR = 4.0
"""A plug-in's bias of so many standard errors is a yardstick."""
ROUNDING = 1e-11


@dataclass(frozen=True)
class Finding:
    """One number held against zero."""

    name: str
    value: float
    error: float
    unsettled: float
    threshold: float
    visible: float
    needed: float

    @property
    def failed(self) -> bool:
        return abs(self.value) > self.threshold

    @property
    def seen(self) -> bool:
        return self.visible <= self.needed


@dataclass(frozen=True)
class Question:
    """What is asked of a measurement.

    ``claim`` is 1, 2, 3 or "unbiased"; ``free_of_offset`` where the law's mean is unknown;
    ``heavy`` where its tails bring orders between the integers.
    """

    claim: int | str
    sizes: tuple[int, ...]
    false_alarm: float
    free_of_offset: bool = False
    heavy: bool = False

    @property
    def order(self) -> int:
        """p, the order that must not be there."""
        return 1 if self.claim == "unbiased" else self.claim - 1

    @property
    def contrasts(self) -> Contrasts:
        if self.claim == "unbiased":
            first = np.eye(len(self.sizes))[0]
            return Contrasts(first, first, first)
        return Contrasts.of(self.sizes, self.order, free_of_offset=self._offset_apart)

    @property
    def _offset_apart(self) -> bool:
        return self.free_of_offset and self.claim in (2, 3)

    @property
    def yardstick(self) -> Array:
        """The contrast that reads r off the plug-in's biases."""
        if self.claim == "unbiased":
            return self.contrasts.main
        return self.second if self.claim == 3 else self.leading

    @property
    def second(self) -> Array:
        """The contrast that reads the second order off a bias that has a first."""
        ladder = self.sizes[-SIZES:]
        weights = contrast(ladder, 2, [1, *(3 + i for i in range(len(ladder) - 2))])
        skipped = np.zeros(len(self.sizes) - len(ladder))
        return np.concatenate([skipped, weights * (ladder[0] / self.sizes[0]) ** 2])

    @property
    def leading(self) -> Array:
        """The contrast that reads the first order off a bias."""
        if self.claim == "unbiased":
            return self.contrasts.main
        return Contrasts.of(self.sizes, 1, free_of_offset=self.free_of_offset).main

    def tails(self, entries: int) -> dict[str, float]:
        """The false alarm of each kind of test, one side."""
        half = self.false_alarm / 2 / (2 if self._offset_apart else 1)
        if entries == 1:
            return {"entry": half, "along": half, "offset": half}
        return {"entry": half / (2 * entries), "along": half / 2, "offset": half}


@dataclass(frozen=True)
class Judgment:
    """The answer: see the module."""

    verdict: str
    reason: str
    findings: tuple[Finding, ...]
    yardstick: float
    from_plug_in: bool
    removed: tuple[float, float]
    order: tuple[float, float]
    replicates_needed: float


def judge(found: Measurement, question: Question) -> Judgment:
    """Hold a measurement against a claim."""
    r, known = _yardstick(found, question)
    findings = tuple(_findings(found, question, r))
    verdict, reason = _verdict(findings, r, known, question)
    return Judgment(
        verdict, reason, findings, r, known, _removed(found, question),
        _order(found, question), _needed(findings),
    )  # fmt: skip


def plan_rows(pilot: Measurement, question: Question) -> int:
    """How many super-batches show `PLANNED` of the yardstick, by a pilot."""
    r, _ = _yardstick(pilot, question, clear=2 * CLEAR)
    if r == 0:
        return BLOCKS
    # the quantiles of the main run, of more blocks
    z = t_quantile(min(question.tails(len(pilot.spread)).values()), BLOCKS - 1) + _power()
    planned, scale = PLANNED - NEGLIGIBLE, math.sqrt(len(pilot.update) * PILOT_BLOCK)
    if question.heavy:
        planned = HEAVY / 4  # it will not pass, and a gross error shows
    found = list(_findings(pilot, question, r))
    rows = max((z * f.error * scale / (planned * f.needed / VISIBLE)) ** 2 for f in found)
    # a gross error needs no more than to be measured to a twentieth
    for f in found:
        if (clear_part := abs(f.value) - f.unsettled - 8 * f.error) > 0:
            rows = min(rows, (20 * z * f.error * scale / clear_part) ** 2)
    return int(min(rows, 1e12))


def unsettled(found: Measurement, question: Question) -> float:
    """e of the yardstick, less one standard error: by a pilot, whether to take larger sizes."""
    r, _ = _yardstick(found, question, clear=2 * CLEAR)
    moves = (_moved(found, b, question, errors=1) for b in (found.update, found.plug_in))
    return max(moves) / r if r > 0 else math.inf


def _moved(found: Measurement, blocks: Array | None, question: Question, *, errors: float) -> float:
    """The norm of what doubling all sizes changes, less so many standard errors.

    Of the plug-in, for claim 2: where its first order is not settled no remainder is.
    """
    if blocks is None or (blocks is found.plug_in and question.claim != 2):
        return 0.0
    moving = question.contrasts.high - question.contrasts.low
    value, error = found.estimate(np.tensordot(blocks, moving, (1, 0)))
    return max(0.0, float(np.linalg.norm(value)) - errors * float(np.linalg.norm(error)))


def _power() -> float:
    return t_quantile(1 - POWER, BLOCKS - 1)


def _yardstick(
    found: Measurement, question: Question, *, clear: float = CLEAR
) -> tuple[float, bool]:
    """r, and whether it is read off the plug-in's bias."""
    m = found.sizes[0]
    natural = float(np.linalg.norm(found.spread)) / math.sqrt(m) / 4

    def size_of(weights: Array) -> float:
        """The norm of a contrast of the plug-in's biases; 0 if not clear of noise."""
        if found.plug_in is None:
            return 0.0
        value, error = found.estimate(np.tensordot(found.plug_in, weights, (1, 0)))
        size, noise = float(np.linalg.norm(value)), float(np.linalg.norm(error))
        rounding = ROUNDING * float(np.linalg.norm(found.spread))
        return size if size > clear * noise + rounding and size > 1e-4 * natural else 0.0

    own = size_of(question.yardstick)
    if question.claim != 3:
        return (own, True) if own else (natural, False)
    if own:
        return 10 * own, True
    scale = float(np.linalg.norm(found.target))
    if (first := size_of(question.leading)) and scale:
        return 10 * first**2 / scale, True
    return natural / math.sqrt(m), False


def _findings(found: Measurement, question: Question, r: float) -> Iterator[Finding]:
    contrasts, entries = question.contrasts, found.update.shape[2]
    tails = question.tails(entries)
    main = np.tensordot(found.update, contrasts.main, (1, 0))
    moving = np.tensordot(found.update, contrasts.high - contrasts.low, (1, 0))

    least = HEAVY * r if question.heavy else 0.0
    least = max(least, _moved(found, found.plug_in, question, errors=2))

    def test(name: str, direction: Array, kind: str, a=main, b=moving, visible=VISIBLE) -> Finding:
        value, error = (float(x) for x in found.estimate(a @ direction))
        moved, noise = (float(x) for x in found.estimate(b @ direction))
        # what is clear of its noise, so that noise is not counted twice
        unsettled = max(least, abs(moved) - 2 * noise)
        z = t_quantile(tails[kind], found.freedom) if found.freedom else 0.0
        tolerated = NEGLIGIBLE * r + unsettled + ROUNDING * float(np.linalg.norm(found.spread))
        return Finding(
            name, value, error, unsettled, tolerated + z * error,
            tolerated + (z + _power()) * error, visible * r,
        )  # fmt: skip

    names = ["the bias"] if entries == 1 else [f"entry {i}" for i in range(entries)]
    for i, name in enumerate(names):
        yield test(name, np.eye(entries)[i], "entry")
    if entries > 1 and found.guide is not None:
        guide = found.guide.T @ question.leading
        if np.linalg.norm(guide) > 0:
            yield test("along the plug-in's bias", guide / np.linalg.norm(guide), "along")
    if question._offset_apart:
        limit = Contrasts.of(found.sizes, 0)
        limits = limit.main, limit.high - limit.low
        sides = [np.tensordot(found.update, w, (1, 0)) for w in limits]
        for i in range(entries):
            yield test("offset", np.eye(entries)[i], "offset", *sides, visible=OFFSET_VISIBLE)


def _verdict(
    findings: tuple[Finding, ...], r: float, known: bool, question: Question
) -> tuple[str, str]:
    unit = "of a quarter of the update's standard deviation over √m"
    if known:
        unit = "of the yardstick" if question.claim == 3 else "of the plug-in's bias"
    failed = [f for f in findings if f.failed]
    if failed:
        worst = max(failed, key=lambda f: abs(f.value) / f.threshold)
        where = "" if worst.name == "the bias" else f" ({worst.name})"
        if worst.name == "offset":
            return FAIL, (f"at large m the update does not go to the target: it misses it by "
                          f"{worst.value:.3g} ± {worst.error:.2g}")  # fmt: skip
        return FAIL, (
            f"a bias that the claim rules out is there{where}: {worst.value:.3g} ± "
            f"{worst.error:.2g} at m, {abs(worst.value) / r:.1%} {unit}"
        )
    blind = [f for f in findings if not f.seen]
    if not blind:
        largest = max((f for f in findings if f.name != "offset"), key=lambda f: f.visible)
        return PASS, (f"nothing that the claim rules out; {largest.visible / r:.1%} {unit} would "
                      "have shown")  # fmt: skip
    worst = max(blind, key=lambda f: f.visible / f.needed)
    if question.heavy:
        return INCONCLUSIVE, ("the law has no sixth moment: terms such as m^(-3/2) hide a first "
                              f"order below {worst.visible / r:.0%} {unit}")  # fmt: skip
    if worst.unsettled > worst.needed - NEGLIGIBLE * r:
        return INCONCLUSIVE, (
            f"the series in 1/m has not settled: doubling the sizes moves it by "
            f"{worst.unsettled / r:.1%} {unit}; ask at more microbatches"
        )
    return INCONCLUSIVE, f"{worst.visible / r:.1%} {unit} would be the least to show: too little"


def _needed(findings: tuple[Finding, ...]) -> float:
    """By how many times more replicates every test would see what it must; inf if never."""
    factor = 1.0
    for f in findings:
        blind = f.visible - f.needed
        if blind > 0:
            noise = f.visible - f.unsettled - NEGLIGIBLE * f.needed / VISIBLE
            room = noise - blind
            factor = max(factor, (noise / room) ** 2 if room > 0 else math.inf)
    return factor


def _removed(found: Measurement, question: Question) -> tuple[float, float]:
    """1 − ⟨c, c_plug⟩/⟨c_plug, c_plug⟩ of the leading order, with its error; NaN if unknown."""
    return share_gone(found, question.leading)


def share_gone(found: Measurement, weights: Array) -> tuple[float, float]:
    """The same of any contrast over the sizes."""
    if found.plug_in is None:
        return math.nan, math.inf
    update, plug = (np.tensordot(a, weights, (1, 0)) for a in (found.update, found.plug_in))
    direction, error = found.estimate(plug)
    size = float(np.linalg.norm(direction))
    if size <= CLEAR * float(np.linalg.norm(error)) + ROUNDING * float(
        np.linalg.norm(found.spread)
    ):
        return math.nan, math.inf
    along, base = update @ direction / size, plug @ direction / size
    share = float(along.mean() / base.mean())
    _, noise = found.estimate((along - share * base) / base.mean())
    return 1 - share + 0.0, float(noise)


def _order(found: Measurement, question: Question) -> tuple[float, float]:
    """The slope of the update's bias, along the plug-in's where there are several entries."""
    blocks = found.update
    direction = np.ones(1)
    if blocks.shape[2] > 1:
        guide = blocks.mean(axis=(0, 1)) if found.guide is None else found.guide[0]
        direction = guide / max(float(np.linalg.norm(guide)), 1e-300)
    along = blocks @ direction
    if found.exact:
        noise = np.eye(len(found.sizes)) * (ROUNDING * float(np.linalg.norm(found.spread))) ** 2
        slope, _ = fitted_order(found.sizes, along[0], noise)
        return slope, 0.0
    covariance = np.cov(along, rowvar=False).reshape(len(found.sizes), -1) / len(along)
    return fitted_order(found.sizes, along.mean(axis=0), covariance)
