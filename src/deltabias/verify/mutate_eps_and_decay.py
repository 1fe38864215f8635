"""Eps and weight decay in the wrong place."""

from collections.abc import Iterator, Sequence

import sympy as sp

from deltabias.verify.rewriting import (
    DECAY,
    GRAD,
    HALF,
    LR,
    PARAM,
    Made,
    T,
    has,
    one,
    substituted,
)
from deltabias.verify.step_rule import Assignment, StepRule, symbol
from deltabias.verify.structure import (
    debias_of,
    decay_is_coupled,
    eps_places,
    without_decay,
)


def eps_mutations(rule: StepRule) -> Made:
    """Eps elsewhere, or missing, each with its name."""
    for eps in (symbol(n) for n in rule.hyper_names if n.startswith("eps")):
        for index, (_, expression) in enumerate(rule.steps):
            for place in eps_places(expression, eps):
                for name, new in _moved_eps(place, eps):
                    yield name, one(rule.steps, index, expression.xreplace({place: new}))
        yield from _eps_together(rule, eps)
        yield "eps missing", substituted(rule, (eps, sp.Integer(0)))


def _eps_together(rule: StepRule, eps: sp.Symbol) -> Made:
    """Every eps under a root taken out of it at once."""
    steps = []
    for name, expression in rule.steps:
        for place in eps_places(expression, eps):
            moved = dict(_moved_eps(place, eps)).get("eps outside the root", place)
            expression = expression.xreplace({place: moved})
        steps.append((name, expression))
    yield "eps outside the root", steps


def _moved_eps(place: sp.Expr, eps: sp.Symbol) -> Iterator[tuple[str, sp.Expr]]:
    if isinstance(place, sp.Pow):  # sqrt(x + eps)
        root = (place.base - eps) ** sp.Abs(place.exp)
        sign = -1 if place.exp.is_negative else 1
        yield "eps outside the root", (root + eps) ** sign
        yield "eps squared inside the root", (place.base - eps + eps**2) ** place.exp
        return
    root = place - eps
    inside = root.replace(
        lambda e: isinstance(e, sp.Pow) and e.exp == HALF and e.base.free_symbols - {eps, T},
        lambda e: sp.sqrt(e.base + eps),
    )
    if root.has(sp.Pow):
        yield "eps inside the root", sp.sqrt(root**2 + eps)
        yield "eps inside the root", inside
        yield "eps squared inside the root", sp.sqrt(root**2 + eps**2)
        yield "eps both inside and outside the root", sp.sqrt(root**2 + eps) + eps
        for debias in debias_of(root):
            yield "eps added before the debias", root + eps / sp.sqrt(debias)
            yield "eps inside the root, before the debias", sp.sqrt(root**2 + eps / debias)
            yield "eps scaled by the debias", root + eps * sp.sqrt(debias)
            yield "eps scaled by the debias", root + eps * debias
            yield "eps scaled by the debias", root + eps / debias
    else:
        yield "eps under a square root", root + sp.sqrt(eps)
    yield "eps as a floor instead of a sum", sp.Max(root, eps)
    yield "eps squared", root + eps**2
    yield "eps subtracted", root - eps
    yield "eps missing", root


# -- weight decay ---------------------------------------------------------------------------------


def decay_mutations(rule: StepRule) -> Made:
    """Weight decay elsewhere, or missing, each with its name."""
    if not has(rule, "weight_decay"):
        return
    bare, at = without_decay(rule), decay_index(rule)
    coupled = decay_is_coupled(rule)
    add = ("grad", GRAD + DECAY * PARAM)
    shrink = ("param", PARAM * (1 - LR * DECAY))
    if not coupled:
        yield "decay coupled", (*bare[:at], add, *bare[at:])
    else:
        yield "decay decoupled", (*bare[:at], shrink, *bare[at:])
    yield "decay missing", bare
    yield "decay after the step", (*bare, shrink)
    yield "decay not scaled by lr", (*bare[:at], ("param", PARAM * (1 - DECAY)), *bare[at:])
    yield "decay not scaled by lr", (*bare, ("param", PARAM * (1 - DECAY)))
    yield "decay of the wrong sign", substituted(rule, (DECAY, -DECAY))
    yield "decay scaled by lr twice", substituted(rule, (DECAY, LR * DECAY))
    yield "decay squared", substituted(rule, (DECAY, DECAY**2))
    yield "decay halved", substituted(rule, (DECAY, DECAY / 2))
    yield "decay doubled", substituted(rule, (DECAY, 2 * DECAY))
    if coupled and at and "maximize" in rule.hyper_names:
        before = (rule.steps[at], *(s for i, s in enumerate(rule.steps) if i != at))
        yield "maximize after decay", before
    if not coupled and at:
        flipped = 1 - 2 * symbol("maximize")
        yield "decay coupled, maximize after decay", (add, *bare[:at], *bare[at:])
        yield "maximize after decay", (
            *bare[:at], ("param", PARAM * (1 - LR * DECAY * flipped)), *bare[at:])  # fmt: skip
    yield from _partial_decay(bare, at)


def _partial_decay(bare: Sequence[Assignment], at: int) -> Made:
    """A coupled decay that reaches some of the statistics only."""
    reading = [i for i, (n, e) in enumerate(bare) if i >= at and n != "grad" and GRAD in
               e.free_symbols]  # fmt: skip
    if len(reading) < 2:
        return
    for index in reading:
        name, expression = bare[index]
        decayed = expression.xreplace({GRAD: GRAD + DECAY * PARAM})
        yield f"decay reaches {name} only", one(bare, index, decayed)
    last = [i for i, (n, _) in enumerate(bare) if n == "param"][-1]
    yield (
        "decay added to the update, not scaled by lr",
        one(bare, last, bare[last][1] - DECAY * PARAM),
    )


def decay_index(rule: StepRule) -> int:
    """The first assignment that decays."""
    return next((i for i, (_, e) in enumerate(rule.steps) if DECAY in e.free_symbols), 0)
