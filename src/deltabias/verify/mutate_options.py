"""Options that are ignored, cases that are confused."""

import sympy as sp

from deltabias.verify.rewriting import (
    GRAD,
    LR,
    PARAM,
    Made,
    T,
    everywhere,
    has,
    one,
    substituted,
)
from deltabias.verify.step_rule import StepRule, symbol, where
from deltabias.verify.structure import (
    average_betas,
    debias_of,
)


def options_mutations(rule: StepRule) -> Made:
    """Hyperparameters that are ignored, each with its name."""
    for hyper in rule.hypers:
        own = symbol(hyper.name)
        if hyper.is_flag:
            yield f"{hyper.name} ignored", substituted(rule, (own, sp.Integer(0)))
            yield f"{hyper.name} always on", substituted(rule, (own, sp.Integer(1)))
            yield f"{hyper.name} inverted", substituted(rule, (own, 1 - own))
        else:
            for value in dict.fromkeys((hyper.default, hyper.value_if_absent)):
                yield f"{hyper.name} ignored", substituted(rule, (own, sp.Rational(str(value))))
            if hyper.name not in ("lr", "weight_decay"):
                yield f"{hyper.name} taken as 1 - {hyper.name}", substituted(rule, (own, 1 - own))


def momentum_mutations(rule: StepRule) -> Made:
    """Momentum, dampening and Nesterov mistaken, each with its name."""
    if has(rule, "momentum", "dampening"):
        momentum, dampening = symbol("momentum"), symbol("dampening")
        plain = substituted(rule, (dampening, sp.Integer(0)))
        yield "dampening ignored", plain
        yield "dampening replaced by momentum", substituted(rule, (dampening, momentum))
    if has(rule, "nesterov"):
        momentum, buffer = symbol("momentum"), symbol("momentum_buffer")
        right = GRAD + momentum * buffer
        for said, wrong in (
            ("nesterov adds the buffer unweighted", GRAD + buffer),
            ("nesterov leaves the gradient out", momentum * buffer),
            ("nesterov weights the gradient", momentum * GRAD + buffer),
            ("nesterov weights twice", GRAD + momentum**2 * buffer),
        ):
            yield said, everywhere(rule, lambda e, w=wrong: e.xreplace({right: w}))


def branches_mutations(rule: StepRule) -> Made:
    """A case distinction that is never made, made the other way round, or at another place."""
    flags = {symbol(h.name) for h in rule.hypers if h.is_flag}
    for index, (name, expression) in enumerate(rule.steps):
        for case in sorted(expression.atoms(where), key=str):
            condition, yes, no = case.args
            if condition.free_symbols <= flags:
                continue
            first = condition == T - 1
            swaps = [
                (f"the first step not special in {name}" if first else
                 f"always the first case in {name}", yes),
                (f"always the second case in {name}", no),
                (f"cases exchanged in {name}", where(condition, no, yes)),
            ]  # fmt: skip
            if condition.free_symbols & {T} or not condition.is_Symbol:
                swaps += [
                    (f"threshold off by one in {name}", where(condition + 1, yes, no)),
                    (f"threshold off by one in {name}", where(condition - 1, yes, no)),
                ]
            for said, value in swaps:
                yield said, one(rule.steps, index, expression.xreplace({case: value}))
        for largest in sorted(expression.atoms(sp.Max), key=str):
            total = expression.xreplace({largest: sp.Add(*largest.args)})
            yield f"sum instead of maximum in {name}", one(rule.steps, index, total)
            for part in largest.args:
                steps = one(rule.steps, index, expression.xreplace({largest: part}))
                yield f"maximum missing in {name}", steps


def amsgrad_mutations(rule: StepRule) -> Made:
    """The maximum taken of the debiased average."""
    largest, second = symbol("max_exp_avg_sq"), symbol("exp_avg_sq")
    if not has(rule, "amsgrad", "beta2") or "max_exp_avg_sq" not in rule.states:
        return
    factor, amsgrad = 1 - symbol("beta2") ** T, symbol("amsgrad")
    steps = []
    for name, expression in rule.steps:
        if name == "max_exp_avg_sq":
            expression = sp.Max(largest, second / factor)
        elif name != "exp_avg_sq" and factor in debias_of(expression):
            expression = expression.subs(factor, where(amsgrad, 1, factor))
        steps.append((name, expression))
    yield "amsgrad maximum after the debias", steps


def uses_mutations(rule: StepRule) -> Made:
    """A state's average that is kept but not used."""
    last = [i for i, (n, _) in enumerate(rule.steps) if n == "param"][-1]
    expression = rule.steps[last][1]
    for state in average_betas(rule):
        own = symbol(state)
        if own in expression.free_symbols:
            yield f"the gradient used in place of {state}", one(
                rule.steps, last, expression.subs(own, GRAD))  # fmt: skip
    for name, other in (("param", sp.sign),):
        update = sp.expand(expression - PARAM)
        if name and PARAM not in update.free_symbols and LR in update.free_symbols:
            direction = (PARAM - expression) / LR
            yield "the sign of the update instead of the update", one(
                rule.steps, last, PARAM - LR * other(direction))  # fmt: skip
            if symbol("exp_avg") in expression.free_symbols and has(rule, "beta1"):
                average, beta1 = symbol("exp_avg"), symbol("beta1")
                ahead = beta1 * average + (1 - beta1) * GRAD
                yield "nesterov where there is none", one(
                    rule.steps, last, expression.subs(average, ahead))  # fmt: skip
