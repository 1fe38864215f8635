"""Numbers out of a derivation: its terms at a law, a step and hyperparameters.

The derivation says coefficient × moment in symbols; here the cumulants come from a law of
`deltabias.truth`, and the sum is evaluated at mpmath's working precision.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache

import mpmath
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.utilities.iterables import multiset_partitions

from deltabias.calculus.cumulants import KAPPA
from deltabias.calculus.weights import STEP
from deltabias.derivation import MICROBATCHES, derive
from deltabias.rule import UpdateRule
from deltabias.truth import Law

Number = int | float | Fraction | mpmath.mpf


def as_mpf(number: Number) -> mpmath.mpf:
    """The number at the working precision; a fraction is divided there."""
    if isinstance(number, Fraction):
        return mpmath.mpf(number.numerator) / number.denominator
    return mpmath.mpf(number)


@dataclass(frozen=True)
class Observed:
    """What one microbatch shows: a law of x, and for opaque statistics what they are of x.

    ``functions`` maps an opaque state's name to a function of x; the law must be finite then.
    """

    law: Law
    functions: Mapping[str, Callable] = field(default_factory=dict)

    def joint_cumulant(self, names: Iterable[str]) -> Fraction:
        """κ(f₁(x), …, fₙ(x)) = Σ over partitions (−1)^{b−1} (b−1)! Π over blocks E Π f(x)."""
        functions = [self.functions[name] for name in names]
        total = Fraction(0)
        for partition in multiset_partitions(list(range(len(functions)))):
            sign = (-1) ** (len(partition) - 1) * math.factorial(len(partition) - 1)
            total += sign * math.prod(
                (self._moment([functions[i] for i in block]) for block in partition),
                start=Fraction(1),
            )
        return total

    def _moment(self, functions: list[Callable]) -> Fraction:
        pairs = zip(self.law.points, self.law.weights, strict=True)
        return sum(w * math.prod((f(x) for f in functions), start=Fraction(1)) for x, w in pairs)


@dataclass(frozen=True)
class Setting:
    """Where a rule stands: step t (None: steady state), microbatches m, hyperparameters."""

    step: int | None
    microbatches: int
    hypers: Mapping[str, Number] = field(default_factory=dict)


def population_update(rule: UpdateRule, observed: Observed, setting: Setting) -> mpmath.mpf:
    """T(E S), the target: the smooth update at the means of the states."""
    return _value(derive(rule, 1).smooth, _state_means(rule, observed, setting), observed, setting)


def bias_by_power(
    rule: UpdateRule, order: int, observed: Observed, setting: Setting
) -> list[mpmath.mpf]:
    """The contributions of powers 1 … order of the small parameter to E T(S) − T(E S)."""
    means = _state_means(rule, observed, setting)
    steady = setting.step is None
    parts = (_power(rule, order, power, steady) for power in range(1, order + 1))
    return [_value(part, means, observed, setting) for part in parts]


def bias_by_name(rule: UpdateRule, observed: Observed, setting: Setting) -> dict[str, mpmath.mpf]:
    """The leading terms by name: coupling and inversion apart."""
    means = _state_means(rule, observed, setting)
    parts = {n: _named(rule, n, setting.step is None) for n in ("coupling", "inversion")}
    return {name: _value(part, means, observed, setting) for name, part in parts.items()}


# -- symbols to numbers ---------------------------------------------------------------------------


def _step(steady: bool) -> sp.Expr:
    return sp.oo if steady else STEP


@cache
def _power(rule: UpdateRule, order: int, power: int, steady: bool) -> sp.Expr:
    derivation = derive(rule, order)
    part = replace(derivation, terms=derivation.by_order(power))
    return _flat(part.at(_step(steady)))


@cache
def _named(rule: UpdateRule, name: str, steady: bool) -> sp.Expr:
    derivation = derive(rule, 1)
    return _flat(replace(derivation, terms=derivation.named(name)).at(_step(steady)))


@cache
def _means(rule: UpdateRule, steady: bool) -> dict[str, sp.Expr]:
    found = derive(rule, 1).means(_step(steady))
    return {symbol.name: _flat(value) for symbol, value in found.items()}


def _flat(expression: sp.Expr) -> sp.Expr:
    """kappa(3) and cov(g, v) as plain symbols of those names."""
    return sp.sympify(expression).replace(
        lambda e: isinstance(e, AppliedUndef), lambda e: sp.Symbol(str(e))
    )


@cache
def _compiled(expression: sp.Expr) -> Callable[[Mapping[str, Number]], mpmath.mpf]:
    symbols = sorted(expression.free_symbols, key=str)
    function = sp.lambdify(symbols, expression, modules="mpmath")
    return lambda values: mpmath.mpf(function(*(values[s.name] for s in symbols)))


def _value(
    expression: sp.Expr, known: Mapping[str, Number], observed: Observed, setting: Setting
) -> mpmath.mpf:
    """The expression at known values and at every cumulant that it names."""
    values = dict(known)
    for symbol in expression.free_symbols:
        name, _, rest = symbol.name.partition("(")
        if not rest:
            continue
        arguments = [a.strip() for a in rest.rstrip(")").split(",")]
        if name == KAPPA.__name__:
            values[symbol.name] = as_mpf(observed.law.cumulant(int(arguments[0])))
            continue
        names = arguments * 2 if name == "var" else arguments
        # named cumulants are those of the step's mean over the microbatches
        size = Fraction(setting.microbatches) ** (len(names) - 1)
        values[symbol.name] = as_mpf(observed.joint_cumulant(names) / size)
    return _compiled(expression)(values)


def _state_means(rule: UpdateRule, observed: Observed, setting: Setting) -> dict[str, Number]:
    """Hyperparameters, step and microbatches by name, and each state's mean under its name."""
    values = {h.name: as_mpf(setting.hypers.get(h.name, h.default)) for h in rule.all_hypers}
    values |= {STEP.name: setting.step, MICROBATCHES.name: mpmath.mpf(setting.microbatches)}
    for state in rule.states:
        if state.statistic.opaque:  # until the next line, the mean of one step's statistic
            values[state.name] = as_mpf(observed.joint_cumulant([state.name]))
    means = _means(rule, setting.step is None)
    return values | {n: _value(mean, values, observed, setting) for n, mean in means.items()}
