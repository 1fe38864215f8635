"""From a rule to its bias: named terms, the steps that lead to them, the domain they hold on.

    E T(S) - T(E S) = sum over terms of coefficient * moment + O(small^(order+1))

One expansion of the *whole* update in *all* its states, so that coupling (numerator and
preconditioner share a batch) and inversion (Jensen) come out together and neither can be
forgotten. `Derivation.at` turns the states' cumulants into those of one microbatch, at any
step of the trajectory, in the steady state, or conditional on the history.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from deltabias.calculus import cumulants
from deltabias.calculus.derivatives import Derivatives
from deltabias.calculus.expansion import Index, expand
from deltabias.calculus.weights import STEP, newest, product_sum
from deltabias.errors import DeltabiasError, NotDifferentiableError
from deltabias.notation import markup
from deltabias.notation.names import Name
from deltabias.notation.printing import display, mathml
from deltabias.rule import MEAN, State, UpdateRule
from deltabias.smoothness import smooth_branch

MICROBATCHES = sp.Symbol("microbatches", integer=True, positive=True)
MAX_ORDER = 3

_var, _cov, _cumulant = map(sp.Function, ("var", "cov", "cumulant"))


def moment_symbol(symbols: Sequence[sp.Symbol], index: Index) -> sp.Expr:
    """The name of a joint cumulant: ``var(v)``, ``cov(g, v)`` or ``cumulant(g, v, v)``."""
    arguments = [s for s, repeats in zip(symbols, index, strict=True) for _ in range(repeats)]
    if len(arguments) == 2:
        first, second = arguments
        return _var(first) if first == second else _cov(first, second)
    return _cumulant(*arguments)


@dataclass(frozen=True)
class Term:
    """One term of the delta bias, ``coefficient * moment``.

    ``name`` is ``inversion`` if the moment involves one statistic, ``coupling`` if several.
    ``order`` is the power of the small parameter (1/m for means). The coefficient contains the
    Taylor factor (the ½ of ½ T'' var) and is evaluated at the states' means.
    """

    name: str
    coefficient: sp.Expr
    moment: sp.Expr
    order: int
    weight: sp.Rational
    derivative: Index
    cumulants: tuple[Index, ...]

    @property
    def value(self) -> sp.Expr:
        return self.coefficient * self.moment


@dataclass(frozen=True)
class Step:
    """One line of a derivation: what is done, and the equation it gives."""

    text: str
    equation: sp.Expr


@dataclass(frozen=True)
class Derivation:
    """The bias of a rule through a power of the small parameter.

    ``smooth`` is the branch of the update that is expanded, ``floors`` the pairs (branch,
    maximum or minimum) that it was taken from.
    """

    rule: UpdateRule
    order: int
    smooth: sp.Expr
    terms: tuple[Term, ...]
    domain: tuple[sp.Basic, ...]
    steps: tuple[Step, ...]
    floors: tuple[tuple[sp.Expr, sp.Expr], ...] = ()

    @property
    def delta_bias(self) -> sp.Expr:
        """The sum of all terms, in the means and cumulants of the states."""
        return sp.Add(*(term.value for term in self.terms))

    def named(self, name: str, order: int = 1) -> tuple[Term, ...]:
        """The terms of that name and order."""
        return tuple(t for t in self.terms if t.name == name and t.order == order)

    def at(
        self,
        step: sp.Expr | int = STEP,
        *,
        conditional: bool = False,
        microbatches: sp.Expr | int = MICROBATCHES,
    ) -> sp.Expr:
        """The delta bias over the trajectory of independent steps, or given the history.

        Parameters
        ----------
        step : a positive integer, a symbol, or ``sympy.oo`` for the steady state
        conditional : bool
            only the newest batch is random.
        microbatches : m, per step

        Returns
        -------
        In the cumulants ``kappa(n)`` of one microbatch where the statistics say how they are
        made of it, otherwise in the named cumulants of one step's statistics. The states'
        symbols keep standing for their means; `means` gives those.
        """
        _check_step(step)
        weigh = newest if conditional else product_sum
        total = sp.Integer(0)
        for term in self.terms:
            product = term.coefficient
            for index in term.cumulants:
                states = [s for s, k in zip(self.rule.states, index, strict=True) for _ in range(k)]
                weights = weigh([s.weights for s in states], sp.sympify(step))
                product *= weights * step_cumulant(states, sp.sympify(microbatches))
            total += product
        return total

    def means(
        self, step: sp.Expr | int = STEP, *, microbatches: sp.Expr | int = MICROBATCHES
    ) -> dict[sp.Symbol, sp.Expr]:
        """The mean of each state at that step, for its symbol."""
        _check_step(step)
        return {
            s.symbol: product_sum([s.weights], sp.sympify(step))
            * step_cumulant([s], sp.sympify(microbatches))
            for s in self.rule.states
        }

    def relative_bias(
        self,
        step: sp.Expr | int = STEP,
        *,
        microbatches: sp.Expr | int = MICROBATCHES,
        law: Callable[[sp.Expr], sp.Expr] = cumulants.normal,
    ) -> sp.Expr:
        """(E u - u*) / u* over the trajectory, for a law's cumulants (normal by default)."""
        population = self.smooth.subs(self.means(step, microbatches=microbatches))
        bias = self.at(step, microbatches=microbatches)
        bias = bias.subs(self.means(step, microbatches=microbatches))
        return law(sp.expand(bias, deep=False)) / law(population)

    @cached_property
    def _by_order(self) -> dict[int, tuple[Term, ...]]:
        return {k: tuple(t for t in self.terms if t.order == k) for k in range(1, self.order + 1)}

    def by_order(self, order: int) -> tuple[Term, ...]:
        """The terms of one power of the small parameter."""
        return self._by_order[order]

    def _repr_latex_(self) -> str:
        bias = sp.Eq(sp.Symbol("delta_bias"), self.delta_bias, evaluate=False)
        return f"$\\displaystyle {display(bias, self.rule.notation)}$"

    def _repr_html_(self) -> str:
        return steps_html(self.rule.title or self.rule.name, self.steps, self.rule.notation)


def steps_html(title: str, steps: Sequence[Step], names: Mapping[str, Name]) -> str:
    """The steps of a derivation, foldable; the last one, the bias, is open."""
    folds = [
        markup.fold(step.text, mathml(step.equation, names), is_open=step is steps[-1])
        for step in steps
    ]
    return markup.card(f"The bias of {title}", folds)


def _check_step(step: sp.Expr | int) -> None:
    step = sp.sympify(step)
    if step is not sp.oo and step.is_number and not (step.is_Integer and step >= 1):
        raise DeltabiasError(
            f"{step=} is no step; use 1, 2, …, a symbol, or sympy.oo for the steady state."
        )


def step_cumulant(states: Sequence[State], microbatches: sp.Expr) -> sp.Expr:
    """The joint cumulant of one step's statistics of these states.

    For opaque statistics it is a named symbol of the *step's* statistic (already a mean over
    the microbatches); otherwise it is worked out in the cumulants of one microbatch.

    Raises
    ------
    DeltabiasError
        for statistics whose joint law is not determined (a mean of squares next to a square
        of a mean).
    """
    statistics = [s.statistic for s in states]
    if any(s.opaque for s in statistics):
        symbols = tuple(dict.fromkeys(s.symbol for s in states))
        index = tuple(sum(s.symbol == symbol for s in states) for symbol in symbols)
        return symbols[0] if len(states) == 1 else moment_symbol(symbols, index)
    observations = {s.observation for s in statistics}
    if len(observations) > 1:  # independent by construction
        return sp.Integer(0)
    (x,) = observations
    if all(s.outer is None for s in statistics):
        joint = cumulants.joint_cumulant([s.sample for s in statistics], x)
        return joint / microbatches ** (len(states) - 1)
    if {s.sample for s in statistics} == {x}:
        outers = [MEAN if s.outer is None else s.outer for s in statistics]
        return cumulants.cumulants_of_mean(cumulants.joint_cumulant(outers, MEAN), microbatches)
    raise DeltabiasError(
        f"statistics {', '.join(s.name for s in statistics)} mix functions of a mean with means "
        "of functions; their joint cumulants need the whole joint law."
    )


def derive(rule: UpdateRule, order: int = 1) -> Derivation:
    """The delta expansion of a rule's whole update through ``order`` in the small parameter.

    Order 1 is the leading bias; adding it to the estimate leaves O(small²).

    Raises
    ------
    NotDifferentiableError
        if the update has no smooth branch.
    ValueError
        for an order outside 1 … 3.

    Examples
    --------
    >>> for term in derive(UpdateRule.parse("g/(sqrt(v)+eps)")).terms:
    ...     print(term.name, term.moment, term.coefficient)
    coupling cov(g, v) -1/(2*sqrt(v)*(eps + sqrt(v))**2)
    inversion var(v) g*(eps + 3*sqrt(v))/(8*v**(3/2)*(eps + sqrt(v))**3)
    """
    if order not in range(1, MAX_ORDER + 1):
        raise DeltabiasError(f"{order=} is not supported; use 1 to {MAX_ORDER}.")
    smooth, domain, floors = smooth_branch(rule)
    derivatives = Derivatives(smooth, rule.symbols)
    terms = [
        _term(rule, contribution, coefficient)
        for power in range(1, order + 1)
        for contribution, coefficient in expand(derivatives, rule.symbols, power)
        if not any(_independent(rule, index) for index in contribution.cumulants)
    ]
    if bad := [t for t in terms if t.coefficient.has(sp.zoo, sp.nan, sp.oo)]:
        raise NotDifferentiableError(
            f"rule {rule.name!r}, {rule}, is not differentiable at the mean: the coefficient of "
            f"{bad[0].moment} is {bad[0].coefficient}."
        )
    terms.sort(key=lambda t: (t.order, t.name, str(t.moment)))
    steps = _steps(rule, smooth, derivatives, terms, order)
    return Derivation(rule, order, smooth, tuple(terms), domain, steps, floors)


def _independent(rule: UpdateRule, index: Index) -> bool:
    """Whether a joint cumulant vanishes because its states observe different things."""
    seen = {s.statistic.observation for s, k in zip(rule.states, index, strict=True) if k}
    return len(seen) > 1 and None not in seen


def _term(rule: UpdateRule, contribution, coefficient: sp.Expr) -> Term:
    involved = sum(order > 0 for order in contribution.derivative)
    moments = [moment_symbol(rule.symbols, index) for index in contribution.cumulants]
    return Term(
        name="inversion" if involved == 1 else "coupling",
        coefficient=coefficient,
        moment=sp.Mul(*moments),
        order=contribution.power,
        weight=contribution.weight,
        derivative=contribution.derivative,
        cumulants=contribution.cumulants,
    )


def _steps(
    rule: UpdateRule,
    smooth: sp.Expr,
    derivatives: Derivatives,
    terms: Sequence[Term],
    order: int,
) -> tuple[Step, ...]:
    update = sp.Function("T")(*rule.symbols)
    steps = [Step("The update as a map of its states", sp.Eq(update, smooth, evaluate=False))]
    for index in dict.fromkeys(term.derivative for term in terms):
        pairs = [(s, n) for s, n in zip(rule.symbols, index, strict=True) if n]
        left = sp.Derivative(update, *pairs)
        steps.append(Step("A partial derivative", sp.Eq(left, derivatives(index), evaluate=False)))
    for power in range(1, order + 1):
        for term in (t for t in terms if t.order == power):
            steps.append(
                Step(
                    f"{term.name} at order {power}: {term.weight} × the derivative × {term.moment}",
                    term.value,
                )
            )
    bias = sp.Symbol("delta_bias")
    total = sp.Add(*(t.value for t in terms))
    return (*steps, Step("The delta bias", sp.Eq(bias, total, evaluate=False)))
