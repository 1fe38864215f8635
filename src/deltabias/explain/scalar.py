"""A scalar rule's explanation: from the update, term by term, to its corrected form."""

import re
from collections.abc import Iterator

import sympy as sp

from deltabias.calculus.weights import STEP
from deltabias.correction import Correction
from deltabias.derivation import Derivation, Step, Term
from deltabias.explain import words
from deltabias.explain.record import Explanation, Passage, Word
from deltabias.rule import MEAN, State
from deltabias.safe_form import Definition, Kernel
from deltabias.tracking import RATIO, Accumulator

AGE = sp.Symbol("tau", integer=True, nonnegative=True)  # printed after t: t - τ
_mean = sp.Function("mean")


def explain_scalar(
    derivation: Derivation, form: Kernel | None, correction: Correction | None, why: str = ""
) -> Explanation:
    """Every passage about a scalar rule.

    Parameters
    ----------
    derivation : whose terms are explained
    form : the corrected form, None where there is none
    correction : the strategy, None where none applies, `why` then says why
    """
    passages = [
        *_update(derivation),
        *(_state(s) for s in derivation.rule.states),
        *_expansion(derivation),
        *_domain(derivation),
        *_correction(derivation, form, correction),
        _claim(correction, why),
        *_sources(derivation.rule.sources),
    ]
    return Explanation(
        derivation.rule, tuple(passages), None if correction is None else correction.strategy
    )


def slug(expression: object) -> str:
    """An id made of an expression's own names.

    >>> slug("cov(exp_avg, exp_avg_sq)"), slug("var(v)**2")
    ('cov-exp_avg-exp_avg_sq', 'var-v-2')
    """
    return "-".join(re.findall(r"[A-Za-z0-9_]+", str(expression)))


def _eq(left: sp.Basic, right: sp.Basic) -> sp.Basic:
    return sp.Eq(left, right, evaluate=False)


# -- the rule -------------------------------------------------------------------------------------


def _update(derivation: Derivation) -> Iterator[Passage]:
    rule, step = derivation.rule, derivation.steps[0]
    count = len(rule.states)
    statistics = "one statistic" if count == 1 else f"{count} statistics"
    sentence = f"Every parameter moves against this map of {statistics} of the gradients."
    left = step.equation.lhs
    yield Passage("update", "update", "The update", (sentence,), _eq(left, rule.update))
    if derivation.smooth != rule.update:
        yield Passage(
            "branch",
            "update",
            "Its smooth branch",
            ("Away from its kinks the update is this branch, and its bias that of a smooth map.",),
            step.equation,
        )


def _state(state: State) -> Passage:
    weights = state.weights
    now = STEP if weights.decay == 0 else STEP - AGE
    value = weights.gain / weights.normalizer(STEP) * _over_steps(weights.decay, _one(state, now))
    return Passage(
        f"state-{state.name}",
        "statistic",
        f"The state {state.name}",
        words.of_state(state),
        _eq(state.symbol, value),
    )


def _over_steps(decay: sp.Expr, one: sp.Expr) -> sp.Expr:
    return one if decay == 0 else sp.Sum(decay**AGE * one, (AGE, 0, STEP - 1))


def _one(state: State, step: sp.Expr) -> sp.Expr:
    """What one step contributes, in a microbatch's gradient of that step."""
    statistic = state.statistic
    if statistic.opaque:
        return sp.IndexedBase(statistic.name)[step]
    gradient = sp.IndexedBase(statistic.observation.name)[step]
    mean = _mean(statistic.sample.subs(statistic.observation, gradient))
    return mean if statistic.outer is None else statistic.outer.subs(MEAN, mean)


# -- the bias -------------------------------------------------------------------------------------


def _expansion(derivation: Derivation) -> Iterator[Passage]:
    if not derivation.terms:
        sentence = "The update is linear in its statistics: its mean is its population value."
        yield Passage("bias", "bias", "The bias", (sentence,), derivation.steps[-1].equation)
        return
    update = derivation.steps[0].equation.lhs
    general = sp.Add(
        *(t.weight * _derivative(derivation, update, t) * t.moment for t in derivation.terms),
        evaluate=False,
    )
    yield Passage(
        "expansion",
        "expansion",
        "The expansion",
        words.of_expansion(derivation),
        _eq(sp.Symbol("delta_bias"), general),
    )
    for step in derivation.steps:
        if isinstance(step.equation, sp.Equality) and step.equation.lhs.has(sp.Derivative):
            yield _partial(step)
    yield from (_term(derivation, t) for t in derivation.terms)
    yield Passage(
        "bias",
        "bias",
        "The bias",
        ("The terms together are what the update's mean exceeds its population value by.",),
        _eq(sp.Symbol("delta_bias"), derivation.delta_bias),
    )


def _derivative(derivation: Derivation, update: sp.Expr, term: Term) -> sp.Expr:
    pairs = zip(derivation.rule.symbols, term.derivative, strict=True)
    return sp.Derivative(update, *((s, n) for s, n in pairs if n))


def _partial(step: Step) -> Passage:
    variables = step.equation.lhs.variable_count
    mixed = len(variables) > 1
    order = sum(n for _, n in variables)
    count = {2: "second", 3: "third", 4: "fourth"}.get(order, f"{order}th")
    name = "-".join(f"{s.name}-{n}" if n > 1 else s.name for s, n in variables)
    said: tuple[Word, ...] = (
        ("How the slope in one statistic changes with another.",)
        if mixed and order == 2
        else ("How the update bends in ", variables[0][0], ".")
        if order == 2
        else ("A derivative that the higher order needs.",)
    )
    title = f"A {count} derivative" + (", mixed" if mixed else "")
    return Passage(f"derivative-{name}", "derivative", title, said, step.equation)


def _term(derivation: Derivation, term: Term) -> Passage:
    order = f", order {term.order}" if derivation.order > 1 else ""
    return Passage(
        f"term-{term.name}-{slug(term.moment)}",
        "term",
        f"{term.name.capitalize()}{order}",
        words.of_term(derivation, term),
        # as a product of two, or SymPy would take the moment into the fraction
        sp.Mul(term.coefficient, term.moment, evaluate=False),
    )


def _domain(derivation: Derivation) -> Iterator[Passage]:
    if not derivation.domain:
        sentence = "The expansion holds wherever the update is defined."
        yield Passage("domain", "domain", "Where it holds", (sentence,))
        return
    sentence = "The expansion holds where all of these do; elsewhere nothing is claimed."
    conditions = sp.Tuple(*derivation.domain)
    yield Passage("domain", "domain", "Where it holds", (sentence,), conditions)


# -- the correction -------------------------------------------------------------------------------


def _correction(
    derivation: Derivation, form: Kernel | None, correction: Correction | None
) -> Iterator[Passage]:
    if not derivation.terms:
        return
    if correction is not None and correction.folds is not None:
        yield from _folds(correction)
    if form is None or (correction is not None and not correction.terms):
        return
    for moment in form.moments:
        yield Passage(
            f"moment-{moment.name}",
            "moment",
            f"The relative moment {moment.name}",
            (
                "Moments enter relative to the statistic, because a variance of squares "
                "underflows where the statistic itself does not.",
            ),
            _eq(moment.symbol, moment.moment / moment.divisor),
        )
    if correction is not None:
        yield from _estimates(correction)
    *inner, last = form.definitions
    for definition in inner:
        yield _safe(definition)
    yield Passage(
        "corrected", "corrected", "The corrected update", (words.of_safety(form.safe),),
        _eq(sp.Symbol("corrected_update"), last.expression),
    )  # fmt: skip


def _safe(definition: Definition) -> Passage:
    note = definition.note or "a part of the corrected update"
    return Passage(
        f"safe-{definition.name}",
        "safe",
        f"The {definition.name.replace('_', ' ')}",
        (f"{definition.name} in the code: {note}.",),
        _eq(definition.symbol, definition.expression),
    )


def _folds(correction: Correction) -> Iterator[Passage]:
    folds = correction.folds
    expression = None
    if folds.kind == "jackknife":
        m, whole, left_out = sp.symbols("microbatches update update_without_one")
        expression = _eq(sp.Symbol("corrected_update"), m * whole - (m - 1) * _mean(left_out))
    yield Passage(
        "folds", "estimate", "How the microbatches are split", (words.of_folds(folds),), expression
    )


def _estimates(correction: Correction) -> Iterator[Passage]:
    """What is remembered from step to step, and the moments that are made of it."""
    tracking = correction.tracking
    yield from (_accumulator(a) for a in tracking.accumulators)
    yield from (_estimate(d, "a number of the step count alone") for d in tracking.scalars)
    yield from (_estimate(d, "made of what is remembered") for d in tracking.moments)


def _estimate(definition: Definition, otherwise: str) -> Passage:
    return Passage(
        f"estimate-{definition.name}",
        "estimate",
        f"The estimate {definition.name}",
        words.of_estimate(definition.name, definition.note or otherwise),
        _eq(definition.symbol, definition.expression),
    )


def _accumulator(accumulator: Accumulator) -> Passage:
    before = sp.Symbol(f"{accumulator.name}_before")
    value = (
        accumulator.decay * RATIO**accumulator.power * before
        + accumulator.gain * accumulator.increment
    )
    kept = "One tensor is kept for it. " if accumulator.kept else ""
    return Passage(
        f"remember-{accumulator.name}",
        "estimate",
        f"Remembered: {accumulator.name}",
        (
            f"{kept}It estimates {accumulator.note}; the ratio of the preconditioner's old state "
            "to its new one keeps it relative.",
        ),
        _eq(accumulator.symbol, value),
    )


# -- the end --------------------------------------------------------------------------------------


def _claim(correction: Correction | None, why: str) -> Passage:
    said = (f"No strategy: {why}",) if correction is None else words.of_claim(correction)
    return Passage("claim", "claim", "Claim and cost", said)


def _sources(sources: tuple[str, ...]) -> Iterator[Passage]:
    said = "; ".join(sources) or "The rule as it was typed"
    yield Passage("sources", "source", "Sources", (f"{said}.",))
