"""From a derivation and a strategy to a correction: what to accumulate, the formula, the claim.

Every strategy corrects the *rule's own* update; none changes the statistic it is fed with.

    plug_in          nothing
    delta            coupling and inversion, tracked over the history, from one pass (the default)
    inversion        the inversion term alone (the published "inverse only"; for comparison)
    cross_fit        numerator and preconditioner from disjoint groups, folds averaged
    cross_fit+delta  the same, then the inversion divided out within the group (the published one)
    leave_one_out    cross-fitting with m folds of one and m - 1 microbatches
    leave_one_out+delta
    jackknife        m u - (m - 1) mean of u without microbatch r
    closed_form      the steady-state factor of a normal gradient, for a square of the mean
"""

from dataclasses import dataclass

import sympy as sp

from deltabias.derivation import Derivation, derive
from deltabias.errors import StrategyError
from deltabias.notation import markup
from deltabias.notation.printing import display, mathml
from deltabias.rule import SQUARE_OF_MEAN, State, UpdateRule
from deltabias.safe_form import Definition, Kernel, kernel, numerator_of
from deltabias.tracking import Tracking, closure, direct, none

STRATEGIES = (
    "plug_in",
    "delta",
    "inversion",
    "cross_fit",
    "cross_fit+delta",
    "leave_one_out",
    "leave_one_out+delta",
    "jackknife",
    "closed_form",
)


@dataclass(frozen=True)
class Claim:
    """What is left of the bias, and when.

    ``order`` is the power of the small parameter of the bias that is left (1: as uncorrected).
    ``scope`` is ``step`` (given the history) or ``trajectory`` (over all of it).
    """

    order: int
    scope: str
    domain: tuple[sp.Basic, ...]
    assumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """Passes over the microbatches, tensors kept per parameter, and sums kept per step."""

    passes: int
    buffers: int
    sums: int

    @property
    def bytes_per_parameter(self) -> int:
        """State in fp32, next to the rule's own; the sums live only within a step."""
        return 4 * self.buffers

    @property
    def peak_bytes_per_parameter(self) -> int:
        return 4 * (self.buffers + self.sums)


@dataclass(frozen=True)
class Folds:
    """How the microbatches are split between numerator and preconditioner."""

    kind: str  # "cross_fit", "leave_one_out" or "jackknife"
    groups: int = 2


@dataclass(frozen=True)
class Correction:
    """A corrected update of a rule, ready to be evaluated or printed."""

    rule: UpdateRule
    strategy: str
    derivation: Derivation
    kernel: Kernel
    tracking: Tracking
    claim: Claim
    cost: Cost
    folds: Folds | None = None
    terms: tuple[str, ...] = ()

    @property
    def definitions(self) -> tuple[Definition, ...]:
        """Relative moments first, then the kernel: everything after the states are updated."""
        return (*self.tracking.moments, *self.kernel.definitions)

    @property
    def _formulas(self) -> tuple[sp.Expr, ...]:
        """What a notebook shows: the corrected form, or the update where nothing is divided out."""
        definitions = self.kernel.definitions
        if not self.terms:
            definitions = (Definition("update", self.rule.update),)
        return tuple(sp.Eq(d.symbol, d.expression, evaluate=False) for d in definitions)

    def _repr_latex_(self) -> str:
        rows = r" \\ ".join(display(f, self.rule.notation) for f in self._formulas)
        return rf"$\displaystyle \begin{{array}}{{l}} {rows} \end{{array}}$"

    def _repr_html_(self) -> str:
        claim, cost = self.claim, self.cost
        return markup.card(
            f"{self.rule.title or self.rule.name}: {self.strategy}",
            [mathml(f, self.rule.notation) for f in self._formulas],
            [
                f"leaves a bias of order {claim.order} over the {claim.scope}",
                f"passes: {cost.passes}, tensors kept: {cost.buffers}, sums: {cost.sums}",
                *(f"assumes {a}" for a in claim.assumes),
            ],
        )


def correct(rule: UpdateRule, strategy: str = "delta", *, groups: int = 2) -> Correction:
    """The correction of a rule by a strategy.

    Raises
    ------
    StrategyError
        for an unknown strategy, or one that does not apply to the rule, saying why.

    Examples
    --------
    >>> from deltabias.rules import get_rule
    >>> correction = correct(get_rule("adamw"))
    >>> [a.name for a in correction.tracking.accumulators], correction.claim.order
    (['noise', 'third', 'third_mean'], 2)
    """
    if strategy not in STRATEGIES:
        raise StrategyError(f"{strategy=} is not known; use one of {', '.join(STRATEGIES)}.")
    derivation = derive(rule, 1)
    if not derivation.terms and strategy != "plug_in":
        raise StrategyError(
            f"rule {rule.name!r}, {rule}, is linear in its statistics: its mean update is its "
            "population update and there is nothing to correct. Use strategy='plug_in'."
        )
    form = kernel(derivation)
    if strategy in ("cross_fit", "cross_fit+delta", "leave_one_out", "leave_one_out+delta"):
        return _cross_fitted(rule, strategy, derivation, form, groups)
    if strategy == "jackknife":
        return _jackknife(rule, derivation, form)
    if strategy == "plug_in":
        claim = Claim(1, "trajectory", derivation.domain)
        return Correction(rule, strategy, derivation, form, none(), claim, Cost(1, 0, 0))
    return _delta(rule, strategy, derivation, form)


def _is_square_of_mean(rule: UpdateRule) -> bool:
    return any(s.statistic.outer == SQUARE_OF_MEAN.outer for s in rule.states)


def _is_coupled(rule: UpdateRule) -> bool:
    """Whether all statistics come out of the same gradients."""
    return len({s.statistic.observation for s in rule.states}) == 1


def _delta(rule: UpdateRule, strategy: str, derivation: Derivation, form: Kernel) -> Correction:
    terms = ("inversion",) if strategy == "inversion" else ("coupling", "inversion")
    if strategy == "closed_form" and not _is_square_of_mean(rule):
        raise StrategyError(
            f"closed_form is the factor for a square of the mean gradient; rule {rule.name!r} has "
            f"{', '.join(s.statistic.name for s in rule.states)}. Use strategy='delta'."
        )
    _check_supported(derivation)
    if _is_square_of_mean(rule):
        tracking = closure(
            derivation, form, skewness=strategy != "closed_form" and _is_coupled(rule)
        )
        assumes = ("gradients stationary over the memory of the averages",)
        if strategy == "closed_form":
            assumes += ("gradient noise is normal",)
    else:
        tracking = direct(derivation, form)
        assumes = ("microbatches independent and identically distributed within a step",)
    claim = Claim(
        order=1 if strategy == "inversion" and len(rule.states) > 1 else 2,
        scope="trajectory",
        domain=derivation.domain,
        assumes=assumes,
    )
    cost = Cost(1, tracking.buffers, tracking.sums)
    return Correction(rule, strategy, derivation, form, tracking, claim, cost, terms=terms)


def _check_supported(derivation: Derivation) -> None:
    """Refuse rules whose moments nothing here estimates; the derivation holds all the same."""
    rule = derivation.rule
    opaque = [s.statistic.opaque for s in rule.states]
    if all(opaque) and (len(rule.states) <= 2 or not any(s.weights.decay for s in rule.states)):
        return
    numerator = numerator_of(derivation)
    tops = [s for s in rule.states if s.symbol == numerator]
    bottoms = [s for s in rule.states if s.symbol != numerator]
    if not any(opaque) and len(bottoms) == 1 and _is_gradient(tops) and _is_square(bottoms[0]):
        return
    raise StrategyError(
        f"rule {rule.name!r}: moments are estimated for one preconditioner fed with a square of "
        "the mean gradient, a mean of squares, or an opaque statistic under an opaque numerator, "
        "and for a numerator that is the mean gradient; it has "
        f"{', '.join(f'{s.name} ({s.statistic.name})' for s in rule.states)}. `derive` gives its "
        "bias in terms of moments that you can estimate yourself."
    )


def _is_gradient(tops: list[State]) -> bool:
    return all(s.statistic.outer is None and s.statistic.sample.is_Symbol for s in tops)


def _is_square(state: State) -> bool:
    statistic = state.statistic
    if statistic.outer is not None:
        return statistic.sample.is_Symbol and statistic.outer == SQUARE_OF_MEAN.outer
    return statistic.sample == statistic.observation**2


def _cross_fitted(
    rule: UpdateRule, strategy: str, derivation: Derivation, form: Kernel, groups: int
) -> Correction:
    if numerator_of(derivation) is None or len(rule.states) < 2:
        raise StrategyError(
            f"{strategy} needs a numerator and a preconditioner to separate; rule {rule.name!r}, "
            f"{rule}, is not proportional to one of its statistics."
        )
    if len(rule.states) > 2:
        raise StrategyError(
            f"{strategy} crosses one numerator with one preconditioner; rule {rule.name!r} has "
            f"{', '.join(s.name for s in rule.states)}."
        )
    if groups < 2:
        raise StrategyError(f"{groups=} cannot be cross-fitted; need at least 2.")
    one_out = strategy.startswith("leave_one_out")
    with_delta = strategy.endswith("+delta")
    claim = Claim(2 if with_delta else 1, "step", derivation.domain, ("independent microbatches",))
    folds = Folds("leave_one_out" if one_out else "cross_fit", groups)
    own = len(rule.states)
    cost = Cost(2 if one_out else 1, own * (groups - 1), own + (groups if with_delta else 0))
    terms = ("inversion",) if with_delta else ()
    return Correction(
        rule, strategy, derivation, form, none(), claim, cost, folds=folds, terms=terms
    )


def _jackknife(rule: UpdateRule, derivation: Derivation, form: Kernel) -> Correction:
    if any(s.statistic.outer is not None for s in rule.states):
        raise StrategyError(
            f"the jackknife removes the bias of maps of *means*; rule {rule.name!r} is fed with "
            "a square of a mean, whose bias does not fall like 1/m. Use strategy='delta'."
        )
    claim = Claim(2, "step", derivation.domain, ("independent, identically distributed",))
    return Correction(
        rule, "jackknife", derivation, form, none(), claim, Cost(2, 0, 1), folds=Folds("jackknife")
    )
