"""One step of Shampoo for a batch of equal blocks: from states and a sample to an update.

Two halves. `prepare` does all that can fail (eigendecompositions) and changes nothing; `finish`
cannot fail and returns the new states. Shapes: B blocks [d, n], r deviations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from deltabias.optim.grafting import SQUARED, grafted
from deltabias.optim.kronecker import BareSide, Side
from deltabias.optim.root_requests import Answer, Request
from deltabias.optim.tracked_spread import (
    TRACKS_DIAGONAL,
    TRACKS_UPDATE,
    Deviations,
    Factors,
    Tracked,
    Weights,
    advance,
    bounded,
    corrected_sides,
    history_deviations,
    through,
)

States = Mapping[str, Tensor]
TRACKING = (*TRACKS_UPDATE, *TRACKS_DIAGONAL)
HELD = ("basis", "eigenvalues", "scale", "size", "inverse_root")
"""The states that a `Side` is made of."""


@dataclass(frozen=True)
class Options:
    """A group's options, checked; ``powers`` is p by side, for the sides that precondition."""

    beta1: float
    beta2: float
    damping: float
    powers: Mapping[str, Fraction]
    memory: str
    correction: str
    spread: str
    refresh: int
    grafting: str | None
    eps: float
    solver: str = "eigh"
    root_error: float = 1e-4
    root_precision: str = "fp32"

    @property
    def held(self) -> tuple[str, ...]:
        """What of a side outlives the step, with a refresh interval above 1."""
        return HELD if self.solver == "eigh" else ("inverse_root",)

    @property
    def folds(self) -> int:
        """2 where both groups of microbatches have averages of their own."""
        return 2 if self.correction == "cross_fit" else 1

    @property
    def tracks(self) -> bool:
        """Whether a spread is tracked."""
        return self.correction in TRACKING

    @property
    def couples(self) -> bool:
        """Whether terms in the space of updates are tracked."""
        return self.correction in TRACKS_UPDATE

    def weights(self, step: int) -> Weights:
        """See `Weights`."""
        return Weights.at(step, self.beta1, self.beta2, self.memory)

    def average_count(self, step: int) -> tuple[float, int]:
        """What a factor's state is divided by to be an average, and how many averages are summed.

        An EMA is used debiased; a sum is used as it is: t times the average.
        """
        return (step, step) if self.memory == "sum" else (1 - self.beta2**step, 1)


@dataclass(frozen=True)
class Sample:
    """What a step brings. ``gradient`` and ``statistics`` have both folds of each block.

    ``deviations`` reads those of the microbatches when they are needed: m matrices a block.
    """

    gradient: Tensor
    statistics: Factors
    deviations: Callable[[], Deviations] | None = None


@dataclass(frozen=True)
class Begun:
    """A step whose factors are known, and which inverse roots it needs: none if not due."""

    sample: Sample
    step: int
    due: bool
    factors: Factors
    requests: dict[str, Request]


@dataclass(frozen=True)
class Prepared:
    """A step that can no longer fail."""

    sample: Sample
    step: int
    due: bool
    factors: Factors
    sides: dict[str, Side] | dict[str, BareSide]


@dataclass(frozen=True)
class Finished:
    """The update [B, d, n] (to be subtracted, times lr), new states, and what was cut to size."""

    update: Tensor
    states: dict[str, Tensor]
    clamped: Tensor | int


def state_shapes(blocks: int, rows: int, columns: int, options: Options) -> dict[str, tuple]:
    """Every state of a batch of blocks, by name."""
    b, matrix = blocks * options.folds, (blocks * options.folds, rows, columns)
    shapes: dict[str, tuple] = {"exp_avg": matrix}
    if options.grafting in SQUARED:
        shapes["graft_exp_avg_sq"] = (blocks, rows, columns)
    for side in options.powers:
        d = rows if side == "left" else columns
        shapes[side] = (b, d, d)
        if options.tracks:
            diagonal = options.correction in TRACKS_DIAGONAL
            shapes[inversion_name(side, options)] = (b, d) if diagonal else (b, d, d)
        if options.refresh > 1:
            sizes = {"basis": (b, d, d), "eigenvalues": (b, d), "scale": (b,), "size": (b,),
                     "inverse_root": (b, d, d)}  # fmt: skip
            shapes |= {f"{side}_{held}": sizes[held] for held in options.held}
    if options.tracks:
        shapes["spread_seen"] = (b, 2)
    if options.couples:
        shapes |= dict.fromkeys(_update_terms(options), matrix)
        shapes["coupling_share"] = (b,)
    return shapes


def inversion_name(side: str, options: Options) -> str:
    """The state that holds K; a diagonal has a name of its own, as it has another shape."""
    return f"{side}_inversion" + ("_diagonal" if options.correction in TRACKS_DIAGONAL else "")


def _update_terms(options: Options) -> tuple[str, ...]:
    terms = ("coupling", "cross") if len(options.powers) == 2 else ("coupling",)
    active = tuple(f"active_{t}" for t in terms) if options.refresh > 1 else ()
    return terms + active


def prepare(states: States, sample: Sample, step: int, options: Options) -> Prepared:
    """Factors with the newest statistics, taken apart if a refresh is due; changes nothing.

    Raises what `eigendecompose` raises.
    """
    begun = begin(states, sample, step, options)
    solved = {side: request.solve() for side, request in begun.requests.items()}
    return with_roots(states, begun, solved, options)


def begin(states: States, sample: Sample, step: int, options: Options) -> Begun:
    """Factors with the newest statistics; changes nothing and cannot fail."""
    factors = {}
    for side in options.powers:
        factor, statistic = states[side], sample.statistics[side]
        factors[side] = (
            factor + statistic
            if options.memory == "sum"
            else torch.lerp(factor, statistic, 1 - options.beta2)
        )
    due = (step - 1) % options.refresh == 0
    divisor, count = options.average_count(step)
    how = (options.solver, options.root_error, options.root_precision)
    requests = {
        side: Request(
            factors[side] / divisor, options.damping / count, power, f"the {side} factor", *how
        )
        for side, power in options.powers.items()
        if due
    }
    return Begun(sample, step, due, factors, requests)


def with_roots(
    states: States, begun: Begun, solved: Mapping[str, Answer], options: Options
) -> Prepared:
    """The step with the answers to its requests; those held where none were due."""
    _, count = options.average_count(begun.step)
    sides = {}
    for side, power in options.powers.items():
        held = {name: states[f"{side}_{name}"] for name in options.held if not begun.due}
        if options.solver == "eigh":
            sides[side] = (
                Side.from_eigen(*solved[side], power, count) if begun.due else Side(power, **held)
            )
        else:
            sides[side] = BareSide(
                solved[side][0] * count ** float(-1 / power) if begun.due else held["inverse_root"]
            )
    return Prepared(begun.sample, begun.step, begun.due, begun.factors, sides)


def _deviations(states: States, sample: Sample, step: int, options: Options) -> Deviations | None:
    """Of the microbatches, or from the averages before this step."""
    if options.spread == "microbatches":
        return None if sample.deviations is None else sample.deviations()
    if step == 1:
        return None
    divisor, _ = options.average_count(step - 1)
    averages = {side: states[side] / divisor for side in options.powers}
    momentum = states["exp_avg"] / (1 - options.beta1 ** (step - 1))
    return history_deviations(
        sample.gradient, sample.statistics, momentum, averages, options.weights(step - 1)
    )


def finish(states: States, prepared: Prepared, options: Options) -> Finished:
    """The update and the new states."""
    step, gradient = prepared.step, prepared.sample.gradient
    exp_avg = torch.lerp(states["exp_avg"], gradient, 1 - options.beta1)
    momentum = exp_avg / (1 - options.beta1**step)
    new = {"exp_avg": exp_avg, **prepared.factors}
    sides, clamped = prepared.sides, 0
    if options.tracks:
        update, sides, tracked, clamped = _corrected(states, prepared, options, momentum)
        new |= tracked
    else:
        update = through(sides, momentum)
    if options.refresh > 1 and prepared.due:
        new |= {f"{n}_{h}": getattr(side, h) for n, side in sides.items() for h in options.held}
    if options.folds == 2:  # of each block's two folds, side by side, the mean
        update, momentum, gradient = (
            x.unflatten(0, (-1, 2)).mean(1) for x in (update, momentum, gradient)
        )
    square = None
    if options.grafting in SQUARED:
        square = torch.lerp(states["graft_exp_avg_sq"], gradient.square(), 1 - options.beta2)
        new["graft_exp_avg_sq"] = square
    update = grafted(
        update, momentum, square, options.grafting,
        debias=1 - options.beta2**step, eps=options.eps,
    )  # fmt: skip
    return Finished(update, new, clamped)


def _corrected(
    states: States, prepared: Prepared, options: Options, momentum: Tensor
) -> tuple[Tensor, dict[str, Side], dict[str, Tensor], Tensor | int]:
    """The corrected update, the sides it used, the tracked states, and how much was cut."""
    plain = prepared.sides
    if not prepared.due:  # what is held is corrected; the kernels are about the plain one
        plain = {n: replace(s, inverse_root=s.plug_in()) for n, s in plain.items()}
    weights = options.weights(prepared.step)
    names = {side: inversion_name(side, options) for side in options.powers}
    tracked = advance(
        Tracked(
            {side: states[name] for side, name in names.items()},
            states["spread_seen"],
            states.get("coupling"),
            states.get("cross"),
        ),
        plain,
        _deviations(states, prepared.sample, prepared.step, options),
        weights,
        momentum,
        options.correction,
    )  # fmt: skip
    new = {name: tracked.inversion[side] for side, name in names.items()}
    new["spread_seen"] = tracked.seen
    same, mixed = tracked.completion(weights)
    sides = prepared.sides
    if prepared.due:
        sides = corrected_sides(plain, tracked.inversion, same, options.correction)
    update, clamped = through(sides, momentum), tracked.clamped
    if options.couples:
        new |= {t: getattr(tracked, t) for t in _update_terms(options) if "active" not in t}
        active = _active(states, new, prepared, options, (mixed, same))
        if options.refresh > 1:
            new |= {f"active_{name}": term for name, term in active.items()}
        size = torch.linalg.vector_norm(through(plain, momentum).flatten(1), dim=1)
        terms, cut = bounded(sum(active.values()), size)
        update, clamped = update - terms, clamped + cut
        share = torch.linalg.vector_norm(terms.flatten(1), dim=1) / size
        new["coupling_share"] = torch.where(size > 0, share, torch.zeros_like(share))
    return update, sides, new, clamped


def _active(
    states: States,
    new: States,
    prepared: Prepared,
    options: Options,
    completion: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """The part of coupling and cross term that belongs to the preconditioner in use.

    Between refreshes the preconditioner does not see new batches, and the momentum forgets those
    that it has seen: the coupling decays by 1 − a; the cross term has two factors and stays.
    """
    factors = dict(zip(("coupling", "cross"), completion, strict=True))
    present = [name for name in factors if name in new]
    if prepared.due:
        return {name: new[name] * factors[name][:, None, None] for name in present}
    forget = {"coupling": 1 - options.weights(prepared.step).newest_momentum, "cross": 1.0}
    return {name: states[f"active_{name}"] * forget[name] for name in present}
