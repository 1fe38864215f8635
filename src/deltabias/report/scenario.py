"""What a report is about: a rule with numbers for everything in it, and a law of the gradients.

Gradients are counted in units of the root mean square of a step's *mean* gradient, so

    E ḡ² = μ² + σ²/m = 1,        noise share q = var(ḡ)/E ḡ² = σ²/m,        μ = √(1 - q),

with m microbatches of mean μ and sample variance σ². That is the same for every rule. A rule fed
with the mean of the microbatches' squares has E v = μ² + σ² = 1 - q + m q in these units.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite, sqrt

import numpy as np
import sympy as sp

from deltabias.derivation import derive
from deltabias.errors import DeltabiasError, RuleError
from deltabias.rule import GRADIENT, State, Statistic, UpdateRule
from deltabias.safe_form import numerator_of
from deltabias.smoothness import smooth_branch
from deltabias.truth import LAWS, Law, law, steps_to_steady_state

FEWEST_MICROBATCHES = 2
MOST_MICROBATCHES = 4096
LONGEST_MEMORY = 200_000
"""Steps of a simulated history; β = 0.9999 needs 138 000 to forget all but a millionth."""

FORGOTTEN = 1e-6
"""What is left of the oldest step's weight, relative to the newest, in a simulated steady state."""


@dataclass(frozen=True)
class Scenario:
    """A rule whose statistics are all functions of a gradient, and every number it needs.

    ``assumptions`` are sentences: what was chosen where the rule left something open.
    """

    rule: UpdateRule
    hypers: Mapping[str, float]
    microbatches: int
    law_name: str
    assumptions: tuple[str, ...] = ()

    @property
    def never_forgets(self) -> bool:
        """Whether a running total is in it, so that there is no steady state."""
        return any(s.weights.decay == 1 for s in self.rule.states)

    @property
    def remembers(self) -> bool:
        """Whether any step but the newest matters."""
        return any(self.decay(s) != 0 for s in self.rule.states)

    @cached_property
    def memory(self) -> int:
        """Steps after which a history is steady: the oldest weight is `FORGOTTEN`.

        Raises
        ------
        DeltabiasError
            for betas so close to one that a history would be longer than `LONGEST_MEMORY`.
        """
        steps = steps_to_steady_state(*map(self.decay, self.rule.states), truncation=FORGOTTEN)
        if steps > LONGEST_MEMORY:
            raise DeltabiasError(
                f"the averages of rule {self.rule.name!r} need {steps} steps to forget, more than "
                f"the {LONGEST_MEMORY} that are simulated; use betas up to 0.9999."
            )
        return steps

    def decay(self, state: State) -> float:
        """The factor by which a state forgets in one step."""
        return float(sp.sympify(state.weights.decay).subs(self.substitutions))

    @cached_property
    def substitutions(self) -> dict[sp.Symbol, float]:
        """The hyperparameters' symbols with their values."""
        return {h.symbol: self.hypers[h.name] for h in self.rule.all_hypers}

    def weights(self, state: State, steps: int) -> np.ndarray:
        """The weights of the steps in a state after so many steps, oldest first, ``[steps]``."""
        gain, normalizer = (
            float(sp.sympify(e).subs(self.substitutions))
            for e in (state.weights.gain, state.weights.normalizer(sp.Integer(steps)))
        )
        ages = np.arange(steps - 1, -1, -1)
        return gain * self.decay(state) ** ages / normalizer

    @cached_property
    def update(self) -> Callable[..., np.ndarray]:
        """The smooth branch of the update: arrays of the states, in their order, to an array."""
        return sp.lambdify(self.rule.symbols, self.smooth, modules=["numpy", "scipy"])

    @cached_property
    def smooth(self) -> sp.Expr:
        """The smooth branch with its hyperparameters' values put in."""
        return smooth_branch(self.rule)[0].subs(self.substitutions)

    def gradient_law(self, noise_share: float) -> Law:
        """The law of one microbatch's gradient, exact, with E ḡ² = 1.

        Raises
        ------
        ValueError
            for a law that cannot have that mean and variance (a positive law with mean zero).
        """
        return law(
            self.law_name, mean=sqrt(1 - noise_share), sd=sqrt(noise_share * self.microbatches)
        )

    @cached_property
    def is_odd(self) -> bool:
        """Whether the update changes its sign with the gradients, so that u* = 0 at q = 1."""
        flipped = {s.symbol: -s.symbol for s in self.rule.states if _is_odd(s.statistic)}
        if not flipped:
            return False
        return sp.expand(self.smooth + self.smooth.subs(flipped, simultaneous=True)) == 0


def _is_odd(statistic: Statistic) -> bool:
    def odd(polynomial: sp.Expr | None) -> bool:
        if polynomial is None:
            return True
        (variable,) = polynomial.free_symbols
        return sp.expand(polynomial + polynomial.subs(variable, -variable)) == 0

    return odd(statistic.sample) and odd(statistic.outer)


def scenario(
    rule: UpdateRule,
    *,
    betas: tuple[float, float] | None = None,
    hypers: Mapping[str, float] | None = None,
    microbatches: int = 16,
    law_name: str = "normal",
) -> Scenario:
    """Check everything and put the numbers together.

    Raises
    ------
    DeltabiasError
        naming the argument, its value, what is allowed and what to do.
    """
    whole = isinstance(microbatches, int) and not isinstance(microbatches, bool)
    if not (whole and FEWEST_MICROBATCHES <= microbatches <= MOST_MICROBATCHES):
        raise DeltabiasError(
            f"{microbatches=} cannot be reported on: one microbatch gives no variance estimate to "
            f"correct with. Pass {FEWEST_MICROBATCHES} to {MOST_MICROBATCHES}."
        )
    if law_name not in LAWS:
        raise DeltabiasError(f"law {law_name!r} is unknown; choose one of {', '.join(LAWS)}.")
    values = _hypers(rule, betas, dict(hypers or {}))
    observed, assumptions = observe(rule)
    return Scenario(observed, values, microbatches, law_name, assumptions)


def _hypers(
    rule: UpdateRule, betas: tuple[float, float] | None, given: dict[str, float]
) -> dict[str, float]:
    known = {h.name: h for h in rule.all_hypers}
    if betas is not None:
        given |= dict(zip(("beta1", "beta2"), betas, strict=True))
    if unknown := sorted(set(given) - set(known)):
        raise RuleError(
            f"rule {rule.name!r} has no hyperparameter {', '.join(unknown)}; it has "
            f"{', '.join(known) or 'none'}."
        )
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise RuleError(f"{name}={value!r} must be a finite number.")
    return {n: float(h.check(given.get(n, h.default))) for n, h in known.items()}


def observe(rule: UpdateRule) -> tuple[UpdateRule, tuple[str, ...]]:
    """The rule with its opaque statistics read as functions of one gradient, and what was read.

    The statistic that the update is proportional to is the mean of the microbatches' gradients x;
    a positive one is the mean of their squares x². Nothing else has a law that anyone could guess.

    Raises
    ------
    RuleError
        for any other opaque statistic.

    Examples
    --------
    >>> observe(UpdateRule.parse("g/(sqrt(v)+eps)"))[1]
    ('g is the mean of the gradients x of the microbatches', 'v is the mean of their squares x**2')
    """
    numerator = numerator_of(derive(rule, 1))
    states, notes = [], []
    for state in rule.states:
        if state.statistic.opaque:
            sample = _sample(rule, state, numerator)
            state = replace(state, statistic=replace(state.statistic, sample=sample))
            made_of = {GRADIENT: "the gradients x of the microbatches"}
            notes.append(f"{state.name} is the mean of {made_of.get(sample, 'their squares x**2')}")
        states.append(state)
    if len({s.statistic.observation for s in states}) > 1:
        notes.append("label gradients y have the law of the gradients x and are independent")
    if smooth_branch(rule)[0] != rule.update:
        notes.append("inside the clip and above the floor: the smooth branch of the update")
    return replace(rule, states=tuple(states)), tuple(notes)


def _sample(rule: UpdateRule, state: State, numerator: sp.Symbol | None) -> sp.Expr:
    if state.symbol == numerator:
        return GRADIENT
    if state.statistic.positive:
        return GRADIENT**2
    raise RuleError(
        f"rule {rule.name!r}, {rule}: nothing says what statistic {state.name!r} is made of, so "
        "its law is unknown. Only a factor g of the update and positive statistics are read as "
        "gradients and squares; write the rule in a file that gives each state its sample."
    )
