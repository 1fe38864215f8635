"""A matrix rule's explanation: its functions of matrices, its terms, its corrected form."""

from collections.abc import Iterator

import sympy as sp

from deltabias.calculus.matrix import (
    Elementwise,
    MatrixExpr,
    Normalized,
    Spectral,
    expand,
)
from deltabias.errors import StrategyError
from deltabias.explain.record import Explanation, Passage, Word
from deltabias.explain.scalar import _sources, slug
from deltabias.matrix_derivation import (
    MatrixDerivation,
    MatrixTerm,
    Reading,
    describe,
    first,
    mixed,
    second,
)
from deltabias.matrix_rule import GRADIENT_MATRIX, MatrixState, bare_symbol

FORMS = {
    "full": "Every term of the first order is taken off.",
    "diagonal": "Of the functions' own second order the diagonals, in their eigenbases, are taken "
    "off: cheap, but a part of it stays, and coupling and cross terms stay whole.",
    "eigenvalue_only": "½ f''(λ) Var λ in fixed eigenbases is taken off, as published, to compare "
    "with: of larger matrices nearly all of the bias stays.",
}
"""The corrected updates that are generated for a matrix rule, and what each leaves."""

_MEANINGS = {
    "inversion": "The function bends: noise in its own argument moves its mean away from its value "
    "at the argument's mean (Jensen's gap).",
    "coupling": "The matrix that is preconditioned and the preconditioner come out of the same "
    "batches: their errors go together and do not average out.",
    "cross": "Two preconditioners come out of the same batches: their errors multiply.",
    "product": "Two factors come out of the same batches: their errors multiply.",
}


def explain_matrix(derivation: MatrixDerivation, form: str = "full") -> Explanation:
    """Every passage about a matrix rule.

    Raises
    ------
    StrategyError
        for a form that is not one of `FORMS`.
    """
    rule = derivation.rule
    if form not in FORMS:
        raise StrategyError(
            f"correction {form!r} is none of a matrix rule's; use one of {', '.join(FORMS)}."
        )
    passages = [
        _update(derivation),
        *map(_state, rule.states),
        *_functions(derivation),
        *_bias(derivation),
        _domain(derivation),
        *(_corrected(derivation, form) if derivation.terms else ()),
        Passage("claim", "claim", "Claim and cost", (_claim(derivation, form),)),
        *_sources(rule.sources),
    ]
    return Explanation(rule, tuple(passages), form if derivation.terms else None)


def _update(derivation: MatrixDerivation) -> Passage:
    rule = derivation.rule
    sentence = f"Every matrix of parameters moves against {rule}. Products do not commute."
    return Passage("update", "update", "The update", (sentence,), derivation.steps[0].equation)


def _symbol(name: str) -> sp.Symbol:
    return sp.Symbol(name, commutative=False)


class mean(sp.Function):
    """The mean over a step's microbatches."""

    is_commutative = False
    nargs = 1


class diagonal(sp.Function):
    """The diagonal of a matrix in the eigenbasis of the function it is the second order of."""

    is_commutative = False
    nargs = 1


class eigenvalue_only(sp.Function):
    """½ f''(λ) times the variance of each eigenvalue, in a fixed eigenbasis."""

    is_commutative = False
    nargs = 1


_TAKEN = {"full": lambda own: own, "diagonal": diagonal, "eigenvalue_only": eigenvalue_only}


def _state(state: MatrixState) -> Passage:
    statistic = state.statistic
    memory = (
        f"an exponential average with decay {state.beta.name}, of"
        if state.beta
        else "the running total of"
        if state.total
        else "the newest step's value of"
    )
    if statistic.sample is None:
        said = f" is {memory} a random matrix of which only the deviations are named."
        return Passage(
            f"state-{state.name}", "statistic", f"The state {state.name}",
            (_symbol(state.name), said),
        )  # fmt: skip
    sample = describe(statistic.sample)
    if statistic.of_mean:
        said = f" is {memory} {sample}, where G is a step's mean gradient."
    else:
        said = (
            f" is {memory} the mean over a step's microbatches of {sample}, where G is one "
            "microbatch's gradient."
        )
    return Passage(
        f"state-{state.name}",
        "statistic",
        f"The state {state.name}",
        (_symbol(state.name), said),
        _sampled(state),
    )


def _sampled(state: MatrixState) -> sp.Basic | None:
    """The step's statistic in the gradient; None where a map of entries has no such form."""
    sample = state.statistic.sample
    if any(isinstance(n, Elementwise | Spectral | Normalized) for n in sample.walk()):
        return None
    gradient, reading = _symbol(GRADIENT_MATRIX), _Sample()
    value = expand(sample, reading).value
    made = value.subs(gradient, mean(gradient)) if state.statistic.of_mean else mean(value)
    return sp.Eq(_symbol(f"{state.name}_step"), made, evaluate=False)


class _Sample(Reading):
    """Noncommutative symbols of a sample, in which nothing is symmetric."""

    def __init__(self) -> None:
        self._symmetric = {_symbol("I")}

    def is_symmetric(self, item: sp.Expr) -> bool:
        return item in self._symmetric


# -- functions of matrices ------------------------------------------------------------------------


def _functions(derivation: MatrixDerivation) -> Iterator[Passage]:
    nodes = dict(derivation.functions)
    for symbol, node in derivation.functions:
        if isinstance(node, Normalized):
            said = (symbol, f" is {describe(node)}: the matrix over its Frobenius norm.")
            yield Passage(f"function-{symbol}", "function", f"The function {symbol}", said)
    body = derivation.steps[1 : len(derivation.steps) - 1 - len(derivation.terms)]
    for step in body:
        left = step.equation.lhs
        if left in nodes:
            said = (left, f" is {describe(nodes[left])}: a map entry by entry.")
            yield Passage(f"function-{left}", "function", f"The function {left}", said,
                          step.equation)  # fmt: skip
        elif left.is_Symbol:
            said = ("A name for what occurs more than once.",)
            yield Passage(f"intermediate-{left}", "intermediate", f"The intermediate {left}", said,
                          step.equation)  # fmt: skip
        else:
            yield _spectral(step, left)


def _spectral(step, left: sp.Expr) -> Passage:
    points = [str(a) for a in left.args]
    name = left.func.__name__
    titles = {1: "The function", 2: "First order of", 3: "Second order of"}
    title, text = f"{titles[len(points)]} {name}", step.text
    if len(set(points)) < len(points):
        title = f"Second order of {name}, at equal eigenvalues"
        text = "Where the three eigenvalues meet it is ½ f''"
    return Passage(
        f"function-{name}-{'-'.join(p.removeprefix('s_') for p in points)}",
        "function",
        title,
        (f"{text}.",),
        step.equation,
    )


# -- the bias -------------------------------------------------------------------------------------


def _bias(derivation: MatrixDerivation) -> Iterator[Passage]:
    for term in derivation.terms:
        yield _term(term)
    function, along = _symbol("P"), _symbol("E")
    said: tuple[Word, ...] = (
        "To leading order the bias is the mean of this over the deviations dX = X - E X; ",
        first(function, along), " and ", second(function, along),
        " are the first and second order of ", function, " along ", along, ".",
    )  # fmt: skip
    if not derivation.terms:
        said = ("The update is linear in its matrices: its mean is its population value.",)
    yield Passage("bias", "bias", "The bias", said, derivation.steps[-1].equation)


def _term(term: MatrixTerm) -> Passage:
    return Passage(
        f"term-{term.name}-{slug(term.value)}",
        "term",
        term.name.capitalize(),
        (_MEANINGS[term.name],),
        term.value,
    )


def _domain(derivation: MatrixDerivation) -> Passage:
    needed = [describe(n.body) for _, n in derivation.functions if isinstance(n, Spectral)] or [
        "every denominator"
    ]
    kind = "positive definite" if derivation.rule.spectral else "away from zero"
    listed = " and ".join(dict.fromkeys(needed))
    sentence = f"The expansion holds where {listed} is {kind}."
    return Passage("domain", "domain", "Where it holds", (sentence,))


# -- the correction -------------------------------------------------------------------------------


def _settled(derivation: MatrixDerivation) -> dict[sp.Symbol, sp.Symbol]:
    """Functions that take their own second order into themselves, and what they become."""
    return {
        s: _symbol(f"{s}_corrected")
        for s, n in derivation.functions
        if isinstance(n, Spectral) and n.map.keeps_positive and bare_symbol(n.body)
    }


def _corrected(derivation: MatrixDerivation, form: str) -> Iterator[Passage]:
    settled = _settled(derivation)
    for symbol, corrected in settled.items():
        own = _own(derivation, symbol)
        said = (
            "Divided, not subtracted: with X the mean of the second order, or what is taken of it, "
            "this is positive definite whatever the noise, and agrees with P - X to second order."
        )
        ratio = symbol * (symbol + _TAKEN[form](mean(own))) ** -1 * symbol
        yield Passage(
            f"safe-{symbol}", "safe", f"The corrected {symbol}", (said,),
            sp.Eq(corrected, ratio, evaluate=False),
        )  # fmt: skip
    # as in the code, the factors of what is subtracted are the corrected functions too
    rest = [_replaced(t.value, settled) for t in derivation.terms if _remains(t, settled, form)]
    update = _replaced(derivation.steps[0].equation.rhs, settled)
    value = sp.Add(update, *(-mean(r) for r in rest))
    said = (
        "What no function takes into itself is subtracted."
        if rest
        else "Nothing is left to subtract."
    )
    yield Passage(
        "corrected", "corrected", "The corrected update", (f"{FORMS[form]} {said}",),
        sp.Eq(_symbol("U_corrected"), value, evaluate=False),
    )  # fmt: skip


def _own(derivation: MatrixDerivation, symbol: sp.Symbol) -> sp.Expr:
    """The second order of one function along its argument's deviation."""
    for term in derivation.terms:
        for found in term.value.atoms(second):
            if found.args[0] == symbol:
                return found
    raise LookupError(f"{symbol} has no second order in the terms.")


def _remains(term: MatrixTerm, settled: dict[sp.Symbol, sp.Symbol], form: str) -> bool:
    if any(found.args[0] in settled for found in term.value.atoms(second)):
        return False
    return form == "full" or term.name == "inversion"


def _replaced(expression: sp.Expr, settled: dict[sp.Symbol, sp.Symbol]) -> sp.Expr:
    """Functions by their corrected forms, but not within a first or second order."""
    if isinstance(expression, first | second | mixed):
        return expression
    if expression in settled:
        return settled[expression]
    if not expression.args:
        return expression
    return expression.func(*(_replaced(a, settled) for a in expression.args))


def _claim(derivation: MatrixDerivation, form: str) -> str:
    if not derivation.terms:
        return "There is nothing to correct."
    costs = [_cost(n) for _, n in derivation.functions if isinstance(n, Spectral)]
    return " ".join([f"Form {form}. {FORMS[form]}", *dict.fromkeys(costs)])


def _cost(node: MatrixExpr) -> str:
    parts = (
        f"{len(node.map.parts)} matrix product(s)"
        if node.map.separates
        else "a dense kernel of d³ numbers"
    )
    return f"The second order of {describe(node)} takes {parts}."
