"""What the pieces of a derivation mean, in words; no passage's sentence is written elsewhere."""

import sympy as sp

from deltabias.correction import Correction, Folds
from deltabias.derivation import Derivation, Term
from deltabias.explain.record import Word
from deltabias.rule import SQUARE_OF_MEAN, Ema, State, Total

SMALL = (
    "the small parameter (1/m for a mean of m microbatches, about 1 - β for an average over steps)"
)


def of_state(state: State) -> tuple[Word, ...]:
    """How a state is made of the microbatches."""
    return (state.symbol, f" is {_memory(state)} {_contribution(state)}")


def _memory(state: State) -> str:
    if isinstance(state, Ema):
        scaled = ", divided by 1 - βᵗ so that its weights sum to one," if state.debias else ""
        return f"an exponential average{scaled} of"
    if isinstance(state, Total):
        return "the running total of"
    return "the newest step's value of"


def _contribution(state: State) -> str:
    statistic = state.statistic
    if statistic.opaque:
        return (
            f"a statistic, {statistic.name}, of which only the cumulants are named: estimate them "
            "yourself, or say in the rule how it is made of a microbatch."
        )
    label = " for labels drawn from the model" if statistic.observation.name == "y" else ""
    gradient = f"where {statistic.observation} is one microbatch's gradient{label}"
    if statistic.outer is None:
        return f"the mean over a step's microbatches of {statistic.sample}, {gradient}."
    if statistic.outer == SQUARE_OF_MEAN.outer:
        outer = "the square of the mean"
    else:
        outer = f"{statistic.outer}, of the mean"
    return f"{outer} over a step's microbatches of {statistic.sample}, {gradient}."


def of_expansion(derivation: Derivation) -> tuple[Word, ...]:
    """What is expanded, in what, and how far."""
    return (
        "The whole update is expanded in all its states at once, so that neither coupling nor "
        "inversion can be forgotten. The states wander about their means; the update's mean "
        f"exceeds the update at these means by this, through order {derivation.order} in {SMALL}.",
    )


def of_term(derivation: Derivation, term: Term) -> tuple[Word, ...]:
    """What a term of the bias comes from."""
    symbols = [s for s, k in zip(derivation.rule.symbols, term.derivative, strict=True) if k]
    factor = "" if term.weight == 1 else f"{term.weight} × "
    weight = f"It is {factor}the derivative × the moment."
    if term.order > 1:
        return (f"A {term.name} term of order {term.order}. {weight}",)
    if term.name == "inversion":
        return (
            "The update bends in ", symbols[0], ": noise of variance ", term.moment,
            " moves the update's mean away from its value at the mean of ", symbols[0],
            f" (Jensen's gap). {_direction(derivation, term)}{weight}",
        )  # fmt: skip
    return (
        *_listed(symbols), " come out of the same batches. When they are wrong they are wrong "
        "together, by ", term.moment, f", and their errors do not average out. {weight}",
    )  # fmt: skip


def _listed(symbols: list[sp.Symbol]) -> tuple[Word, ...]:
    pieces: list[Word] = [symbols[0]]
    for symbol in symbols[1:]:
        pieces += [" and ", symbol]
    return tuple(pieces)


def _direction(derivation: Derivation, term: Term) -> str:
    """Whether the term enlarges the update or shrinks it, where the sign is seen."""
    share = sp.cancel(term.coefficient / derivation.smooth)
    if share.is_positive:
        return "It makes the update larger in size. "
    return "It makes the update smaller in size. " if share.is_negative else ""


def of_safety(safe: bool) -> str:
    """What kind of form the correction has."""
    if safe:
        return (
            "Subtracting the bias can overshoot and flip a sign; dividing cannot. This form agrees "
            "with the subtraction to second order, and nothing in it cancels."
        )
    return "No ratio without subtraction was found: this form subtracts, and can overshoot."


def of_claim(correction: Correction) -> tuple[Word, ...]:
    """What is left, under which assumptions, at what cost."""
    claim, cost = correction.claim, correction.cost
    scope = "Over the trajectory" if claim.scope == "trajectory" else "Given the history"
    left = f"{scope} the bias that is left is of order {claim.order} in the small parameter"
    left += "" if claim.order > 1 else ", as without a correction"
    assumes = f" It assumes: {'; '.join(claim.assumes)}." if claim.assumes else ""
    return (
        f"Strategy {correction.strategy}. {left}.{assumes} Passes over the microbatches: "
        f"{cost.passes}; tensors kept: {cost.buffers} ({cost.bytes_per_parameter} bytes a "
        f"parameter in fp32); sums within a step: {cost.sums}.",
    )


def of_folds(folds: Folds) -> str:
    """How microbatches are split."""
    if folds.kind == "jackknife":
        return (
            "The update is taken from all m microbatches, and m times more with one of them left "
            "out; this combination has no term of order 1/m."
        )
    if folds.kind == "leave_one_out":
        return (
            "The numerator comes from one microbatch and the preconditioner from the other m - 1; "
            "the m ways to do so are averaged, and no batch is in both."
        )
    return (
        f"The microbatches are split into {folds.groups} groups; the numerator comes from one and "
        "the preconditioner from the others. The ways to do so are averaged, and no batch is in "
        "both."
    )


CHOSEN = ("warm", "enough", "trust")
"""Factors of the estimates that no expansion gives."""


def of_estimate(name: str, note: str) -> tuple[Word, ...]:
    """What a value that is made of the remembered ones is."""
    honest = " This is chosen, not derived." if name in CHOSEN else ""
    return (f"{name} in the code: {note}.{honest}",)
