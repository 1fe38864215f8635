"""The gradient changed before it is used, or its zeros taken for no gradient."""

import sympy as sp

from deltabias.parser import clip
from deltabias.verify.rewriting import DECAY, GRAD, PARAM, Made, everywhere, has
from deltabias.verify.step_rule import StepRule, symbol, where


def gradient_mutations(rule: StepRule) -> Made:
    """Gradients clipped, reduced to signs, left out where zero, each with its name."""
    yield "gradient clipped to [-1, 1]", (("grad", clip(GRAD, -1, 1)), *rule.steps)
    yield "the gradient's sign in place of the gradient", (("grad", sp.sign(GRAD)), *rule.steps)
    given = symbol("given")
    kept = {"param", *rule.states}
    yield (
        "entries with a zero gradient skipped",
        (
            ("given", sp.Abs(GRAD)),
            *((n, where(given, e, symbol(n)) if n in kept else e) for n, e in rule.steps),
        ),
    )
    if has(rule, "weight_decay"):
        bare = everywhere(rule, lambda e: e.subs(DECAY * PARAM, DECAY))
        yield "decay without the parameter", bare
