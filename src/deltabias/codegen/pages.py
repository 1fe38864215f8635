"""The page of a scalar rule, in MyST, written from the records that print its code."""

import re
from dataclasses import dataclass

import sympy as sp

from deltabias.codegen.gappa.page import rounding_section
from deltabias.codegen.kernels import RulePrograms
from deltabias.correction import STRATEGIES, correct
from deltabias.derivation import Derivation
from deltabias.errors import StrategyError
from deltabias.explain import Explanation, explain
from deltabias.explain.record import Passage
from deltabias.notation.printing import Names, display, latex
from deltabias.rule import (
    GRADIENT,
    LABEL_GRADIENT,
    MEAN,
    MEAN_GRADIENT,
    SQUARE_OF_MEAN,
    Ema,
    State,
    Total,
    UpdateRule,
)

MEANING = {
    "coupling": "Numerator and preconditioner are made of the same microbatches.",
    "inversion": "The mean of a curved function is not the function of the mean (Jensen).",
    "cross": "Both sides' preconditioners deviate together.",
    "product": "Two statistics that are multiplied deviate together.",
}
"""What a term says, by its name."""


@dataclass(frozen=True)
class Links:
    """Where the page finds a rule's other files, relative to itself; empty: no such file."""

    module: str = ""
    certificate: str = ""
    figure: str = ""
    forms: str = ""
    """Where its steps for other backends are, in words."""


def catalogue_links(name: str, *, steps: bool = False) -> Links:
    """The links of a page in ``docs/rules``; `steps` says that the rule has its own."""
    forms = (
        f"Its steps stand once more in `deltabias.generated.compiled.{name}`, in one pass each for "
        f"`torch.compile`, and in `deltabias.generated.triton.{name}`, as fused kernels."
    )
    return Links(
        module=f"../../src/deltabias/generated/{name}.py",
        certificate=f"../../proofs/certificates/{name}.v",
        figure=f"figures/{name}",
        forms=forms if steps else "",
    )


def own_links(name: str) -> Links:
    """The links of a page that stands beside the files of a user's rule."""
    return Links(module=f"{name}.py")


def rule_page(programs: RulePrograms, stamp: str, links: Links | None = None) -> str:
    """The page of a scalar rule; `stamp` is the mark that says who wrote it and from what.

    `links` are those of the catalogue unless given.
    """
    rule, derivation, names = programs.rule, programs.kernel.derivation, programs.rule.notation
    links = catalogue_links(rule.name, steps=bool(programs.steps)) if links is None else links
    explanation = explain(rule)
    lines = [f"# {rule.title or rule.name}", "", f"<!-- {stamp} -->", ""]
    lines += [f"The rule `{rule.name}`: one line of mathematics,", "", f"    {rule}", ""]
    lines += ["## The update", "", defined("update", rule.update, names), "", *_states(rule), ""]
    lines += ["## Its bias", "", *_bias(derivation, names), *derivation_steps(explanation)]
    lines += ["## The safe form", "", *_safe_form(programs, names), *_remembered(explanation)]
    lines += measured(rule.name, links)
    lines += ["## What each strategy claims and costs", "", *_strategies(rule)]
    lines += rounding_section(programs)
    lines += code_and_certificate(rule.name, links)
    lines += sources(rule.sources)
    return "\n".join(lines)


def equation(expression: sp.Basic, names: Names) -> str:
    """A displayed equation, broken where it is too wide for a page."""
    return f"$$ {display(expression, names)} $$"


def defined(name: str, expression: sp.Basic, names: Names) -> str:
    """The displayed equation ``name = expression``."""
    return equation(sp.Eq(sp.Symbol(name), expression, evaluate=False), names)


def sources(given: tuple[str, ...]) -> list[str]:
    """The section of sources."""
    return ["## Sources", "", *(f"- {s}" for s in given or ("the rule as typed",)), ""]


def dropdown(title: str, body: list[str]) -> list[str]:
    """Text that is folded until it is asked for; opens by mouse and by keyboard."""
    return [f"::::{{dropdown}} {title}", "", *body, "", "::::", ""]


def measured(name: str, links: Links) -> list[str]:
    """The figure that holds the formula against exact truth, light and dark."""
    if not links.figure:
        return []
    lines = ["## Measured against exact truth", ""]
    for shade in ("light", "dark"):
        lines += [
            f"```{{image}} {links.figure}-{shade}.svg",
            f":class: only-{shade}",
            f":alt: What is left of the bias of {name}, plug-in and corrected, against exact truth",
            "```",
            "",
        ]
    return [*lines, "Drawn by `docs/figures.py`; the numbers are on the pages of the [studies]"
            "(../validation/index.md).", ""]  # fmt: skip


def code_and_certificate(name: str, links: Links) -> list[str]:
    """The generated module and the certificate, folded; nothing for files that are not linked."""
    lines = []
    if links.module:
        include = [f"```{{literalinclude}} {links.module}", ":language: python", "```"]
        lines += ["## Generated code", "", f"`deltabias.generated.{name}` imports torch alone.", ""]
        lines += [links.forms, ""] if links.forms else []
        lines += dropdown("The module", include)
    if links.certificate:
        lines += ["## Certificate", "", f"```{{certificate}} {links.certificate}", "```", ""]
    return lines


# -- the update ---------------------------------------------------------------------------------


def _states(rule: UpdateRule) -> list[str]:
    names = rule.notation
    lines = ["| symbol | name | what it is |", "| --- | --- | --- |"]
    for state in rule.states:
        lines.append(f"| ${names[state.name].latex}$ | `{state.name}` | {_memory(state, names)} |")
    for hyper in rule.all_hypers:
        where = f", in $[{hyper.low:g}, {hyper.high:g})$" if hyper.high < float("inf") else ""
        shown = latex(hyper.symbol, names)
        lines.append(f"| ${shown}$ | `{hyper.name}` | {hyper.default:g} by default{where} |")
    return lines


def _memory(state: State, names: Names) -> str:
    what = _statistic(state)
    if isinstance(state, Ema):
        decay = latex(state.beta.symbol, names)
        debias = "debiased" if state.debias else "not debiased"
        return f"exponential moving average of {what}, decay ${decay}$, {debias}"
    return f"running total of {what}" if isinstance(state, Total) else f"{what} of this step"


def _statistic(state: State) -> str:
    statistic = state.statistic
    if statistic.opaque:
        return f"a random statistic `{statistic.name}`"
    if statistic == SQUARE_OF_MEAN:
        return "the square of the mean gradient"
    if statistic == MEAN_GRADIENT:
        return "the mean gradient"
    one = {GRADIENT: sp.Symbol("g_r"), LABEL_GRADIENT: sp.Symbol("g_l")}
    sample = f"${latex(statistic.sample.subs(one))}$"
    if statistic.outer is None:
        return f"the mean over the microbatches of {sample}"
    outer = latex(statistic.outer.subs(MEAN, sp.Symbol("g")))
    return f"${outer}$, $g$ the mean over the microbatches of {sample}"


# -- the bias -----------------------------------------------------------------------------------


def _bias(derivation: Derivation, names: Names) -> list[str]:
    lines = [
        "The whole update is expanded in all its states at once, so that neither kind of bias can "
        "be forgotten. The moments are those of the states, whatever they are averages of.",
        "",
    ]
    for term in derivation.terms:
        lines += [f"**{term.name}**", "", equation(term.value, names), ""]
        lines += [MEANING[term.name], ""]
    domain = ", ".join(f"${latex(c, names)}$" for c in derivation.domain)
    return [*lines, f"**Valid where** {domain or 'everywhere'}.", ""]


DERIVED = (
    "update",
    "statistic",
    "expansion",
    "derivative",
    "function",
    "intermediate",
    "term",
    "bias",
)
"""Passages that lead from the update to its bias."""


def derivation_steps(explanation: Explanation) -> list[str]:
    """The section in which each step of the derivation opens by itself."""
    lines = ["## Step by step", "", "Each step opens; the equations are the derivation's own.", ""]
    for number, passage in enumerate(explanation.of_kind(*DERIVED), 1):
        body = [_sentence(passage, explanation.names), ""]
        if passage.expression is not None:
            body += [equation(passage.expression, explanation.names)]
        lines += dropdown(f"{number}. {plain_text(passage.title)}", body)
    return lines


def _sentence(passage: Passage, names: Names) -> str:
    """The words of a step, the expressions in them typeset."""
    return "".join(
        plain_text(w) if isinstance(w, str) else f"${latex(w, names)}$" for w in passage.words
    )


def plain_text(text: str) -> str:
    """Text in which MyST finds no markup.

    >>> print(plain_text("inv_root(L + damping*I, 4)"))
    inv\\_root(L + damping\\*I, 4)
    """
    return re.sub(r"([\\`*_$<>\[\]{}|])", r"\\\1", text)


# -- the corrected form -------------------------------------------------------------------------


def _safe_form(programs: RulePrograms, names: Names) -> list[str]:
    kernel = programs.kernel
    lines = []
    if kernel.moments:
        lines += ["Moments enter relative to the statistic, because powers of it underflow:", ""]
    for moment in kernel.moments:
        lines += [defined(moment.name, moment.moment / moment.divisor, names), ""]
    lines += ["The corrected update, in the order in which the code computes it:", ""]
    for definition in kernel.definitions:
        lines += [defined(definition.name, definition.expression, names), ""]
        if definition.note:
            lines += [f"{definition.note[:1].upper()}{definition.note[1:]}.", ""]
    kind = (
        "This is a ratio without subtraction: it cannot overshoot or flip a sign."
        if kernel.safe
        else "This is a subtraction, and it can overshoot: watch the validity meter."
    )
    return [*lines, kind, ""]


def _remembered(explanation: Explanation) -> list[str]:
    """How the moments are estimated over the history, folded."""
    body: list[str] = []
    for passage in explanation.of_kind("estimate"):
        body += [_sentence(passage, explanation.names), ""]
        if passage.expression is not None:
            body += [equation(passage.expression, explanation.names), ""]
    return dropdown("How the moments are estimated over the history", body) if body else []


def _strategies(rule: UpdateRule) -> list[str]:
    lines = [
        "| strategy | order of the bias left | over | passes | tensors kept | bytes a parameter |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    refused = []
    for name in STRATEGIES:
        try:
            found = correct(rule, name)
        except StrategyError as error:
            refused.append(f"`{name}` does not apply: {str(error).rstrip('.')}.")
            continue
        claim, cost = found.claim, found.cost
        lines.append(
            f"| `{name}` | {claim.order} | {claim.scope} | {cost.passes} | {cost.buffers} "
            f"| {cost.bytes_per_parameter} |"
        )
    assumes = correct(rule).claim.assumes
    lines += ["", "Bytes are of state in fp32, next to the rule's own."]
    lines += [f"`delta`, the default, assumes {' and '.join(assumes)}."] if assumes else []
    return [*lines, "", *(f"- {r}" for r in refused), *([""] if refused else [])]
