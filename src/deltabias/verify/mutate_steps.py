"""Roots, squares, the order of things, their sign and size, gone wrong."""

from collections.abc import Sequence

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
from deltabias.verify.step_rule import Assignment, StepRule, symbol, where
from deltabias.verify.structure import (
    average_betas,
    ordinal,
)


def roots_mutations(rule: StepRule) -> Made:
    """Other roots, each with its name."""
    for index, (_, expression) in enumerate(rule.steps):
        for power in sorted(expression.atoms(sp.Pow), key=str):
            if not power.exp.is_Rational or power.exp.is_integer:
                continue
            for root in (sp.Rational(1, 3), sp.Rational(1, 4), 1, HALF, sp.Rational(3, 4)):
                exponent = -root if power.exp.is_negative else root
                name = "root missing" if root == 1 else "wrong root"
                steps = one(rule.steps, index, expression.xreplace({power: power.base**exponent}))
                yield name, steps


def squares_mutations(rule: StepRule) -> Made:
    """Other second moments, each with its name."""
    linear = [s for s, _ in average_betas(rule).items()]
    for index, (state, expression) in enumerate(rule.steps):
        if GRAD**2 not in expression.atoms(sp.Pow):
            continue
        square = GRAD**2
        for other in linear:
            if other == state:
                continue
            average, factor = symbol(other), 1 - symbol(average_betas(rule)[other]) ** T
            for name, value in (
                ("first moment squared instead of the gradient", average**2),
                ("first moment squared instead of the gradient", (average / factor) ** 2),
                ("second moment centered", (GRAD - average) ** 2),
                ("gradient times first moment instead of its square", GRAD * average),
            ):
                steps = one(rule.steps, index, expression.xreplace({square: value}))
                yield name, _after(steps, index, other)
                yield name, steps
        plain = one(rule.steps, index, expression.xreplace({square: GRAD}))
        later = symbol(state)
        squared = tuple((n, e.xreplace({later: later**2}) if n != state else e) for n, e in plain)
        yield "gradient squared after averaging", squared
        yield "gradient not squared", plain
        absolute = one(rule.steps, index, expression.xreplace({square: sp.Abs(GRAD)}))
        yield "gradient not squared", absolute
        yield "gradient to the fourth power", one(
            rule.steps, index, expression.xreplace({square: GRAD**4}))  # fmt: skip
    for index, (_, expression) in enumerate(rule.steps):
        for state in linear:
            square = symbol(state) ** 2
            if square in expression.atoms(sp.Pow):
                steps = one(rule.steps, index, expression.xreplace({square: GRAD**2}))
                yield "gradient squared before averaging", steps


def _after(steps: Sequence[Assignment], index: int, other: str) -> tuple[Assignment, ...]:
    """The assignment moved behind that of another name, whose new value it reads."""
    later = [i for i, (n, _) in enumerate(steps) if n == other and i > index]
    if not later:
        return tuple(steps)
    moved = [s for i, s in enumerate(steps) if i != index]
    return (*moved[: later[-1]], steps[index], *moved[later[-1] :])


# -- order, direction, size -----------------------------------------------------------------------


def order_mutations(rule: StepRule) -> Made:
    """States updated too late or too early, each with its name."""
    for state in rule.states:
        at = [i for i, (n, _) in enumerate(rule.steps) if n == state]
        rest = [s for s in rule.steps if s[0] != state]
        own = [rule.steps[i] for i in at]
        which = _moment_name(rule, state)
        yield f"{which} updated after it is used", (*rest, *own)
        reads = [i for i, (_, e) in enumerate(rest) if symbol(state) in e.free_symbols]
        if reads and at and reads[0] < at[0]:
            first = reads[0]
            yield f"{which} updated before it is used", (*rest[:first], *own, *rest[first:])


def _moment_name(rule: StepRule, state: str) -> str:
    beta = average_betas(rule).get(state)
    if beta is None:
        return state
    return f"{ordinal(rule, symbol(beta))} moment"


def sign_mutations(rule: StepRule) -> Made:
    """Signs, and sizes of the whole update, each with its name."""
    yield "the parameter never updated", (("param", PARAM),)
    if has(rule, "maximize"):
        yield "maximize ignored", substituted(rule, (symbol("maximize"), sp.Integer(0)))
        yield "maximize after the statistics", _late_maximize(rule)
    flipped = [(i, n, e) for i, (n, e) in enumerate(rule.steps) if n == "param"]
    for index, _, expression in flipped:
        if PARAM in expression.free_symbols and expression.coeff(PARAM, 1) == 1:
            update = expression - PARAM
            yield "sign of the update", one(rule.steps, index, PARAM - update)
            yield "the update twice as large", one(rule.steps, index, PARAM + 2 * update)
            yield "the update half as large", one(rule.steps, index, PARAM + update / 2)


def _late_maximize(rule: StepRule) -> tuple[Assignment, ...]:
    maximize = symbol("maximize")
    kept = substituted(rule, (maximize, sp.Integer(0)))
    return tuple(
        (n, PARAM + (e - PARAM) * (1 - 2 * maximize)) if n == "param" else (n, e) for n, e in kept
    )


def learning_rate_mutations(rule: StepRule) -> Made:
    """Learning rates elsewhere, each with its name."""
    if not has(rule, "lr"):
        return
    for index, (name, expression) in enumerate(rule.steps):
        if LR not in expression.free_symbols or DECAY in expression.free_symbols:
            continue
        for said, value in (
            ("lr squared", LR**2), ("lr missing", sp.Integer(1)), ("lr under a root", sp.sqrt(LR)),
        ):  # fmt: skip
            yield said, one(rule.steps, index, expression.subs(LR, value))
        yield from _lr_in_momentum(rule, index, name, expression)


def _lr_in_momentum(rule: StepRule, index: int, name: str, expression: sp.Expr) -> Made:
    """The learning rate inside a buffer, where a schedule shows it."""
    for at, (state, fed) in enumerate(rule.steps):
        own = symbol(state)
        if name != "param" or state not in rule.states or own not in fed.free_symbols:
            continue
        scaled = _scaled_input(fed, own)
        if scaled is not None:
            steps = one(rule.steps, at, scaled)
            yield f"lr inside {state}", one(steps, index, expression.subs(LR, 1))


def _scaled_input(fed: sp.Expr, own: sp.Symbol) -> sp.Expr | None:
    """``lr`` times what is fed to a state, its memory untouched."""
    if isinstance(fed, where):
        condition, yes, no = fed.args
        scaled = _scaled_input(yes, own)
        return None if scaled is None else where(condition, scaled, LR * no)
    memory = sp.expand(fed).coeff(own, 1) * own
    rest = sp.expand(fed - memory)
    return None if rest == 0 or own in rest.free_symbols else memory + LR * rest


def memory_mutations(rule: StepRule) -> Made:
    """States that are not kept as they should be, each with its name."""
    for state in rule.states:
        own = symbol(state)
        frozen = sp.Mod(T, 2)
        for said, keep in (
            (f"{state} updated every other step", frozen),
            (f"{state} updated every other step", 1 - frozen),
            (f"{state} updated in the first step only", 2 - T),
        ):
            yield (
                said,
                tuple((n, where(keep, e, own)) if n == state else (n, e) for n, e in rule.steps),
            )
        yield (
            f"{state} has no memory",
            tuple(
                (n, e.subs(own, rule.initial.get(state, sp.Integer(0)))) if n == state else (n, e)
                for n, e in rule.steps
            ),
        )
