"""The programs of a rule: pure updates of states and moments, steps, scalars of the step count."""

from dataclasses import dataclass

from deltabias.calculus.weights import STEP
from deltabias.codegen.spaced import STRATEGIES as SPACED
from deltabias.codegen.spaced import spaced_programs, spaced_scalars
from deltabias.codegen.ssa import Assign, Mutate, Operand, Program, lower, symbols_of
from deltabias.codegen.step import meter_program, step_program
from deltabias.correction import Correction, correct
from deltabias.derivation import MICROBATCHES
from deltabias.rule import Ema, UpdateRule
from deltabias.safe_form import Definition, Kernel

STEP_STRATEGIES = ("plug_in", "delta", "inversion", "closed_form")

RESULT = "update"
"""What a function that fills an argument fills; no rule may use the name."""


@dataclass(frozen=True)
class RulePrograms:
    """Everything that is printed for a rule, and the kernel it comes from."""

    rule: UpdateRule
    kernel: Kernel
    updates: tuple[Program, ...]
    steps: tuple[Program, ...]
    scalars: tuple[Program, ...]
    meters: tuple[Program, ...]
    spaced: tuple[Program, ...] = ()
    """Steps for statistics every k-th time: in the backends that pass once, and not plain."""
    spaced_scalars: tuple[Program, ...] = ()


def rule_programs(rule: UpdateRule) -> RulePrograms:
    """The programs of a rule; steps only where every state is known and has an optimizer's form."""
    form = correct(rule).kernel
    updates = (update_program(rule, form, corrected=False), update_program(rule, form))
    steps: list[Program] = []
    scalars: list[Program] = []
    meters: list[Program] = []
    if form.safe and _averages_known_statistics(rule):
        for correction in _step_corrections(rule):
            steps += _step_programs(correction)
            scalars.append(_scalar_program(correction))
            if correction.terms:
                meters.append(meter_program(correction))
    strategies = {p.name.removeprefix("step_") for p in steps}
    remembering = [correct(rule, s) for s in SPACED if s in strategies]
    return RulePrograms(
        rule,
        form,
        updates,
        tuple(steps),
        tuple(scalars),
        tuple(meters),
        tuple(p for c in remembering for p in spaced_programs(c)),
        tuple(p for c in remembering for p in spaced_scalars(c)),
    )


def has_step(rule: UpdateRule) -> bool:
    """Whether an optimizer's step can be printed: known statistics, an average underneath.

    And a corrected form that is a quotient: the parts of one are what a step is made of.
    """
    return _averages_known_statistics(rule) and correct(rule).kernel.safe


def _averages_known_statistics(rule: UpdateRule) -> bool:
    return not any(s.statistic.opaque for s in rule.states) and any(
        isinstance(s, Ema) for s in rule.states[1:]
    )


def _step_corrections(rule: UpdateRule) -> list[Correction]:
    squares = any(s.statistic.outer is not None for s in rule.states)
    wanted = STEP_STRATEGIES if squares else STEP_STRATEGIES[:3]
    return [correct(rule, strategy) for strategy in wanted]


def _step_programs(correction: Correction) -> list[Program]:
    if len({s.statistic.observation for s in correction.rule.states}) > 1:
        # statistics and gradient come at different times
        return [
            step_program(correction, apply=False),
            step_program(correction, observe=False),
        ]
    return [step_program(correction)]


def _scalar_program(correction: Correction) -> Program:
    definitions = list(correction.tracking.scalars)
    known = {d.name for d in definitions}
    for state, name in zip(
        correction.rule.states, ("debias_numerator", "debias_preconditioner"), strict=False
    ):
        if state.weights.debias and name not in known:
            definitions.append(Definition(name, state.weights.normalizer(STEP)))
    arguments = [STEP.name, *(h.name for s in correction.rule.states for h in s.hypers)]
    read = set().union(*(d.expression.free_symbols for d in definitions))
    if MICROBATCHES in read:
        arguments.append(MICROBATCHES.name)
    name = f"scalars_{correction.strategy}"
    if not definitions:
        return Program(name, (), tuple(arguments))
    return lower(
        name,
        definitions,
        (),
        arguments,
        results=[d.name for d in definitions],
        doc="Scalars of the step count t, for the step of the same name.",
    )


def update_program(rule: UpdateRule, form: Kernel, *, corrected: bool = True) -> Program:
    """The plug-in or the corrected update as a pure function."""
    states = [s.name for s in rule.states]
    if corrected:
        definitions = form.definitions
        tensors = states + [m.name for m in form.moments]
        doc = "The update less its leading bias. Moments are those of the states, relative."
    else:
        definitions = (Definition("update", rule.update),)
        tensors = states
        doc = "The update as it is."
    used = symbols_of(definitions)
    scalars = [h.name for h in rule.hypers if h.name in used]
    name = "corrected_update" if corrected else "plug_in_update"
    return lower(name, definitions, tensors, scalars, doc=doc)


def filling(program: Program) -> Program:
    """A pure function as one that fills its first argument, as passes over memory want it.

    Examples
    --------
    >>> from deltabias.rules import get_rule
    >>> pure, _ = rule_programs(get_rule("inverse_sqrt")).updates
    >>> filling(pure).tensors, filling(pure).statements[-1].operands
    (('update', 'g', 'v'), ('_result',))
    """
    (result,) = program.results

    def apart(operand: Operand) -> Operand:
        return "_result" if operand == result else operand

    statements = [
        Assign(apart(s.target), s.operation, tuple(map(apart, s.operands)), s.scalar, s.note)
        for s in program.statements
    ]
    return Program(
        program.name,
        (RESULT, *program.tensors),
        program.scalars,
        [*statements, Mutate(RESULT, "copy", (apart(result),))],
        doc=program.doc,
    )
