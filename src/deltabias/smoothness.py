"""Where an update is smooth: the branch that is expanded, and the conditions it holds under.

Clips, maxima and absolute values have kinks. Away from them the update is one of its branches;
the bias of a coordinate that sits on a kink is not a Taylor coefficient of anything.
"""

import sympy as sp

from deltabias.calculus.derivatives import away_from_kinks
from deltabias.errors import NotDifferentiableError
from deltabias.parser import clip
from deltabias.rule import UpdateRule

Conditions = tuple[sp.Basic, ...]
Floors = tuple[tuple[sp.Expr, sp.Expr], ...]


def smooth_branch(rule: UpdateRule) -> tuple[sp.Expr, Conditions, Floors]:
    """The branch of the update that depends on the statistics, its domain, and its floors.

    ``clip(x, low, high)`` is x where low < x < high; a maximum or minimum is its one argument
    that depends on a statistic, where that one wins; ``abs`` and ``sign`` need a non-zero
    argument.

    Raises
    ------
    NotDifferentiableError
        where no branch depends on the statistics, or several do.
    """
    random = set(rule.symbols)
    conditions: list[sp.Basic] = []
    floors: list[tuple[sp.Expr, sp.Expr]] = []

    def branch(node: sp.Basic) -> sp.Basic:
        if node.args:
            node = node.func(*map(branch, node.args))
        if isinstance(node, clip):
            inner, low, high = node.args
            conditions.extend((sp.Lt(low, inner), sp.Lt(inner, high)))
            return inner
        if isinstance(node, sp.Max | sp.Min):
            if not node.free_symbols & random:
                return node
            chosen = _winner(rule, node, random, conditions)
            floors.append((chosen, node))
            return chosen
        if isinstance(node, sp.Abs | sp.sign) and node.free_symbols & random:
            conditions.append(sp.Ne(node.args[0], 0))
        return node

    smooth = branch(rule.update)
    if not smooth.free_symbols & random or all(
        away_from_kinks(sp.diff(smooth, s)) == 0 for s in smooth.free_symbols & random
    ):
        raise NotDifferentiableError(
            f"rule {rule.name!r}, {rule}, does not change with any statistic where it is smooth, "
            "so there is no bias of a smooth map to derive."
        )
    domain = dict.fromkeys([*conditions, *_positivity(smooth, random)])
    return smooth, tuple(c for c in domain if c != sp.true), tuple(floors)


def _winner(rule: UpdateRule, node: sp.Basic, random: set, conditions: list) -> sp.Expr:
    depending = [a for a in node.args if a.free_symbols & random]
    if len(depending) != 1:
        raise NotDifferentiableError(
            f"rule {rule.name!r}: {node} has {len(depending)} branches that depend on statistics; "
            "it is not differentiable where they meet. Write the branch you mean."
        )
    chosen = depending[0]
    compare = sp.Gt if isinstance(node, sp.Max) else sp.Lt
    conditions.extend(compare(chosen, other) for other in node.args if other != chosen)
    return chosen


def _positivity(smooth: sp.Expr, random: set[sp.Symbol]) -> list[sp.Basic]:
    """Positive statistics are stated; denominators that may vanish are excluded."""
    conditions = [
        sp.Gt(s, 0, evaluate=False)
        for s in sorted(random, key=str)
        if s.is_positive and s in smooth.free_symbols
    ]
    denominator = sp.denom(sp.together(smooth))
    for factor in sp.Mul.make_args(denominator):
        base = factor.as_base_exp()[0]
        if base.free_symbols & random and not base.is_positive:
            conditions.append(sp.Ne(base, 0))
    return conditions
