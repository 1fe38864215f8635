"""What stands where in a step rule: averages, their debias, eps, weight decay."""

from functools import cache

import sympy as sp

from deltabias.verify.step_rule import Assignment, StepRule, symbol

T, GRAD, PARAM, DECAY = map(symbol, ("t", "grad", "param", "weight_decay"))


@cache
def debias_of(expression: sp.Expr) -> tuple[sp.Expr, ...]:
    """The factors ``1 - beta**t`` in an expression."""
    found = [
        e
        for e in expression.atoms(sp.Add)
        if e.free_symbols and e == 1 - sp.Mul(*_power_of(e)) and T in e.free_symbols
    ]
    return tuple(sorted(found, key=str))


def _power_of(expression: sp.Add) -> list[sp.Expr]:
    return [p for p in expression.atoms(sp.Pow) if p.exp == T]


@cache
def _average_betas(steps: tuple[Assignment, ...], states: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name, expression in steps:
        beta = _average_beta(name, expression) if name in states else None
        if beta is not None:
            found[name] = beta
    return found


@cache
def _average_beta(name: str, expression: sp.Expr) -> str | None:
    if not isinstance(expression, sp.Add):
        return None
    memory = expression.coeff(symbol(name), 1)
    if memory.is_Symbol and memory != PARAM and (1 - memory) in _factors(expression):
        return memory.name
    return None


def average_betas(rule: StepRule) -> dict[str, str]:
    """States that are averages ``b*state + (1 - b)*new``, and the name of their b."""
    return dict(_average_betas(rule.steps, rule.states))


def _factors(expression: sp.Add) -> set[sp.Expr]:
    return {f for term in expression.args for f in sp.Mul.make_args(term)}


def ordinal(rule: StepRule, beta: sp.Symbol) -> str:
    """Whether a beta averages the first moment or the second: by what it is fed."""
    for state, name in average_betas(rule).items():
        if name == beta.name:
            expression = dict(rule.steps)[state]
            return "second" if any(p.exp == 2 for p in expression.atoms(sp.Pow)) else "first"
    return "second" if beta.name == "beta2" else "first"


@cache
def eps_places(expression: sp.Expr, eps: sp.Symbol) -> tuple[sp.Expr, ...]:
    """Sums that eps is a term of; where such a sum stands under a root, that root."""
    sums = [e for e in expression.atoms(sp.Add) if eps in e.args]
    places: list[sp.Expr] = []
    for total in sorted(sums, key=str):
        roots = [
            p
            for p in expression.atoms(sp.Pow)
            if p.base == total and p.exp.is_Rational and not p.exp.is_integer
        ]
        places += sorted(roots, key=str) or [total]
    return tuple(places)


def decay_is_coupled(rule: StepRule) -> bool:
    """Whether weight decay goes into the gradient."""
    return any(n == "grad" and DECAY in e.free_symbols for n, e in rule.steps)


def without_decay(rule: StepRule) -> tuple[Assignment, ...]:
    """The assignments with no weight decay; those that then do nothing are gone."""
    bare = tuple((n, e.subs(DECAY, 0)) for n, e in rule.steps)
    return tuple((n, e) for n, e in bare if e != symbol(n))


__all__ = [
    "average_betas",
    "debias_of",
    "decay_is_coupled",
    "eps_places",
    "ordinal",
    "without_decay",
]
