"""Changing a rule's assignments: what every mutation is made of."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import sympy as sp

from deltabias.verify.step_rule import Assignment, StepRule, symbol

PARAM, GRAD, T, LR, DECAY = map(symbol, ("param", "grad", "t", "lr", "weight_decay"))
HALF = sp.Rational(1, 2)

Made = Iterator[tuple[str, Sequence[Assignment]]]
"""What is wrong, in the words of a diagnosis, and the assignments that are wrong that way."""


def everywhere(rule: StepRule, change: Callable[[sp.Expr], sp.Expr]) -> tuple[Assignment, ...]:
    return tuple((n, change(e)) for n, e in rule.steps)


def substituted(rule: StepRule, *pairs: tuple[sp.Expr, sp.Expr]) -> tuple[Assignment, ...]:
    return tuple((n, replaced(e, pairs)) for n, e in rule.steps)


@cache
def replaced(expression: sp.Expr, pairs: tuple[tuple[sp.Expr, sp.Expr], ...]) -> sp.Expr:
    # pairs of mutations meet the same assignments again and again
    if not any(old.free_symbols <= expression.free_symbols for old, _ in pairs):
        return expression
    return expression.subs(dict(pairs), simultaneous=True)


def one(steps: Sequence[Assignment], index: int, value: sp.Expr) -> tuple[Assignment, ...]:
    return tuple((n, value if i == index else e) for i, (n, e) in enumerate(steps))


def has(rule: StepRule, *names: str) -> bool:
    return all(n in rule.hyper_names for n in names)
