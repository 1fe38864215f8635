"""One step of Shampoo for a batch of equal blocks: from states and a sample to an update.

Two halves. `prepare` does all that can fail (eigendecompositions) and changes nothing; `finish`
cannot fail and returns the new states. Shapes: B blocks [d, n], r deviations.

The work of a step in n³ flops of a block [n, n], n >= 512, with both factors and p = 4, beside the
eigensolver's and, of ``full``, a Cholesky solve's; "m = 8" with the spread of eight microbatches:

    ==========  =================  =========  ==============  ================
    correction  between refreshes  a refresh  between, m = 8  a refresh, m = 8
    ==========  =================  =========  ==============  ================
    plug_in     6.5                9          26.5            29
    diagonal    13                 15.5       78.5            81
    full        36.5               69.5       206.5           239.5
    ==========  =================  =========  ==============  ================

With ``spread_every`` above 1 most steps between refreshes cost the plug-in's. So ``full`` adds 105
n³ flops a side to a refresh with m = 8, and takes at most half of the eigensolver's time where the
device multiplies at 210 n³ flops in the time of one ``eigh``: 226 GFlop at n = 1024.

All of it is in fp32 (fp64 for fp64), by choice, whatever the process allows. A product in TF32 or
bf16 is wrong by 2⁻¹¹ or 2⁻⁹ of the largest eigenvalue, and an inverse root weighs the smallest
most: those that are smaller than that, as most of a gradient's are, would be noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from deltabias.optim.grafting import SQUARED, grafted
from deltabias.optim.kronecker import BareSide, Side
from deltabias.optim.kronecker_states import (
    Options,
    framed,
    held_names,
    inversion_name,
    state_shapes,
    terms_of,
)
from deltabias.optim.root_requests import Answer, Request
from deltabias.optim.tracked_spread import (
    Deviations,
    Factors,
    GradientDeviations,
    Tracked,
    advance,
    bounded,
    corrected_sides,
    history_deviations,
    moved,
    scaled,
    through,
    turned,
    turned_back,
)

States = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sample:
    """What a step brings. ``gradient`` and ``statistics`` have both folds of each block.

    ``deviations`` reads those of the microbatches when they are needed: m matrices a block.
    """

    gradient: Tensor
    statistics: Factors
    deviations: Callable[[], Deviations | GradientDeviations] | None = None


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


def read_by_finish(prepared: Prepared, options: Options) -> list[str]:
    """The states that `finish` reads: what is held is in `prepared`, but for an old basis."""
    left = set(held_names(options))
    if prepared.due and options.holds:
        left -= {f"{side}_basis" for side in options.powers}
    return [name for name in state_shapes(1, 1, 1, options) if name not in left]


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
            # a corrected side is made of the bare one
            made = Side.bare if options.tracks else Side.from_eigen
            sides[side] = made(*solved[side], power, count) if begun.due else Side(power, **held)
        else:
            sides[side] = BareSide(
                solved[side][0] * count ** float(-1 / power) if begun.due else held["inverse_root"]
            )
    return Prepared(begun.sample, begun.step, begun.due, begun.factors, sides)


def _deviations(
    states: States, sample: Sample, step: int, options: Options
) -> Deviations | GradientDeviations | None:
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
    if options.measures(step):
        update, sides, tracked, clamped = _corrected(states, prepared, options, momentum)
        new |= tracked
    else:
        update = through(sides, momentum)
        if options.couples:
            size = torch.linalg.vector_norm(update.flatten(1), dim=1)
            active = _active(states, prepared, options)
            update, tracked, clamped = _less_terms(update, active, size, options)
            new |= tracked
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
    plain, weights = prepared.sides, options.weights(prepared.step)
    inner = turned(plain, momentum) if options.couples else None
    tracked = advance(
        _tracked(states, prepared, options),
        plain,
        _deviations(states, prepared.sample, prepared.step, options),
        weights,
        inner,
        options.correction,
        held=options.holds,
    )
    same, mixed = tracked.completion(weights)
    sides = plain
    if prepared.due:
        sides = corrected_sides(plain, tracked.inversion, same, options.correction)
    update, clamped = through(sides, momentum), tracked.clamped
    new = {framed("spread_seen", options): tracked.seen}
    if options.couples:
        new |= {state: getattr(tracked, term) for term, state in terms_of(options).items()}
        active = _active(states, prepared, options)
        if prepared.due:
            active = _renewed(tracked, prepared, options, (mixed, same))
        size = torch.linalg.vector_norm(scaled(plain, inner).flatten(1), dim=1)
        update, terms, cut = _less_terms(update, active, size, options)
        new, clamped = new | terms, clamped + cut
        if not options.holds:
            tracked = moved(tracked, {n: s.basis for n, s in plain.items()}, terms=False)
    new |= {inversion_name(n, options): k for n, k in tracked.inversion.items()}
    return update, sides, new, clamped


def _tracked(states: States, prepared: Prepared, options: Options) -> Tracked:
    """What is tracked, with K in the eigenbasis of this step."""
    terms = terms_of(options) if options.couples else {}
    tracked = Tracked(
        {side: states[inversion_name(side, options)] for side in options.powers},
        states[framed("spread_seen", options)],
        *(states[terms[t]] if t in terms else None for t in ("coupling", "cross")),
    )
    if not options.couples or (options.holds and not prepared.due):
        return tracked  # diagonals move with the basis; a basis that is held does not move
    changes = {
        n: side.basis.mT @ states[f"{n}_basis"] if options.holds else side.basis.mT
        for n, side in prepared.sides.items()
    }
    return moved(tracked, changes, terms=options.holds)


def _renewed(
    tracked: Tracked, prepared: Prepared, options: Options, completion: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Coupling and cross term of a preconditioner that has seen every batch."""
    newest = {name: getattr(tracked, name) for name in terms_of(options)}
    if options.holds:
        newest = {name: turned_back(prepared.sides, term) for name, term in newest.items()}
    factors = dict(zip(("coupling", "cross"), completion, strict=True))
    return {name: term * factors[name][:, None, None] for name, term in newest.items()}


def _active(states: States, prepared: Prepared, options: Options) -> dict[str, Tensor]:
    """The part of coupling and cross term that belongs to the preconditioner in use.

    Between refreshes the preconditioner does not see new batches, and the momentum forgets those
    that it has seen: the coupling decays by 1 − a; the cross term has two factors and stays.
    """
    if prepared.due:
        return {}
    forget = {"coupling": 1 - options.weights(prepared.step).newest_momentum, "cross": 1.0}
    return {name: states[f"active_{name}"] * forget[name] for name in terms_of(options)}


def _less_terms(
    update: Tensor, active: dict[str, Tensor], size: Tensor, options: Options
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The update less the terms, cut to `size`; the states that this leaves; how many were cut."""
    terms, cut = bounded(sum(active.values()), size)
    share = torch.linalg.vector_norm(terms.flatten(1), dim=1) / size
    new = {"coupling_share": torch.where(size > 0, share, torch.zeros_like(share))}
    if options.refresh > 1:
        new |= {f"active_{name}": term for name, term in active.items()}
    return update - terms, new, cut
