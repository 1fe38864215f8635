"""Averages, their debias, their betas and the step count, gone wrong."""

import sympy as sp

from deltabias.verify.rewriting import (
    Made,
    T,
    one,
    replaced,
    substituted,
)
from deltabias.verify.step_rule import StepRule, symbol, where
from deltabias.verify.structure import (
    average_betas,
    debias_of,
    ordinal,
)


def debias_mutations(rule: StepRule) -> Made:
    """A debias that is missing or another, each with its name."""
    betas = [b for b in map(symbol, rule.hyper_names) if any(
        (1 - b**T) in debias_of(e) for _, e in rule.steps)]  # fmt: skip
    one = sp.Integer(1)
    for beta in betas:
        which, factor = ordinal(rule, beta), 1 - beta**T
        yield f"no debias of the {which} moment", substituted(rule, (factor, one))
        yield f"debias of the {which} moment multiplied", substituted(rule, (factor, 1 / factor))
        yield f"debias of the {which} moment off by one", substituted(
            rule, (factor, 1 - beta ** (T + 1)))  # fmt: skip
        yield f"debias of the {which} moment off by one", substituted(
            rule, (factor, 1 - beta ** (T - 1)))  # fmt: skip
        yield f"debias of the {which} moment without the step", substituted(
            rule, (factor, 1 - beta))  # fmt: skip
        if which == "first":  # of the second it is the debias outside the root
            yield "debias of the first moment squared", substituted(rule, (factor, factor**2))
        yield f"debias of the {which} moment under a root", substituted(
            rule, (factor, sp.sqrt(factor)))  # fmt: skip
    if len(betas) == 2:
        first, second = (1 - b**T for b in betas)
        yield "debias swapped", substituted(rule, (first, second), (second, first))
        yield "no debias", substituted(rule, (first, one), (second, one))
        yield "the first debias used for both", substituted(rule, (second, first))
        yield "the second debias used for both", substituted(rule, (first, second))


def debias_outside_mutations(rule: StepRule) -> Made:
    """The debias of the second moment beside the root instead of under it."""
    for index, (_, expression) in enumerate(rule.steps):
        for power in sorted(expression.atoms(sp.Pow), key=str):
            if power.exp.is_Rational and not power.exp.is_integer:
                for debias in debias_of(power.base):
                    bare = power.base.subs(debias, 1)
                    sign = -1 if power.exp.is_negative else 1
                    yield (
                        "debias outside the root",
                        one(rule.steps, index, expression.xreplace(
                            {power: bare**power.exp / debias**sign})),
                    )  # fmt: skip


def debias_kept_mutations(rule: StepRule) -> Made:
    """The debiased average written back into the state."""
    for state, beta in average_betas(rule).items():
        factor = 1 - symbol(beta) ** T
        at = [i for i, (n, _) in enumerate(rule.steps) if n == state]
        if not at or not any(factor in debias_of(e) for _, e in rule.steps):
            continue
        bare = substituted(rule, (factor, sp.Integer(1)))
        yield (
            f"debiased {state} written back into its state",
            (*bare[: at[-1] + 1], (state, symbol(state) / factor), *bare[at[-1] + 1 :]),
        )


def step_count_mutations(rule: StepRule) -> Made:
    """A step count that is off, each with its name."""
    if any(T in e.free_symbols for _, e in rule.steps):
        yield "step off by one", substituted(rule, (T, T + 1))
        yield "step off by one", substituted(rule, (T, T - 1))
        yield "step off by one", substituted(rule, (T, sp.Max(T - 1, 1)))
        for index, (name, expression) in enumerate(rule.steps):
            if T in expression.free_symbols:
                for shifted in (T + 1, T - 1):
                    steps = one(rule.steps, index, replaced(expression, ((T, shifted),)))
                    yield f"step off by one in {name}", steps
        yield "step never counted", substituted(rule, (T, sp.Integer(1)))


def betas_mutations(rule: StepRule) -> Made:
    """Betas exchanged, each with its name."""
    betas = [symbol(n) for n in ("beta1", "beta2", "beta3") if n in rule.hyper_names]
    for i, a in enumerate(betas):
        for b in betas[i + 1 :]:
            yield "betas swapped", substituted(rule, (a, b), (b, a))
            yield f"{a} used for {b}", substituted(rule, (b, a))
            yield f"{b} used for {a}", substituted(rule, (a, b))
            for index, (name, expression) in enumerate(rule.steps):
                steps = one(rule.steps, index, replaced(expression, ((a, b), (b, a))))
                yield f"betas swapped in {name}", steps


def averages_mutations(rule: StepRule) -> Made:
    """An average's weights: swapped, missing, started elsewhere."""
    for state, beta_name in average_betas(rule).items():
        beta, own = symbol(beta_name), symbol(state)
        for index, (name, expression) in enumerate(rule.steps):
            if name != state or own not in expression.free_symbols:
                continue
            fed = sp.expand(expression - beta * own) / (1 - beta)
            fed = sp.factor_terms(sp.simplify(fed))
            if own in fed.free_symbols:
                continue
            made = {
                f"weights of the average {state} swapped": (1 - beta) * own + beta * fed,
                f"{state} adds the new value unweighted": beta * own + fed,
                f"{state} is a sum instead of an average": own + fed,
                f"{state} averages with a plain mean": own + (fed - own) / T,
                f"{state} starts at its first value instead of 0": where(T - 1, expression, fed),
                f"{state} has no memory": fed,
                f"{state} keeps no weight of the new value": beta * own + (1 - beta) ** 2 * fed,
            }
            for said, value in made.items():
                yield said, one(rule.steps, index, value)
