"""What one step of an optimizer is: elementwise assignments, run in order.

    StepRule("sgd", ["param = param - lr*grad"])

Names: ``param`` and ``grad`` are the parameter and its gradient, ``t`` counts the parameter's
own steps from 1. A name that is assigned, and read before it is assigned, is a *state*: it is
kept from step to step and begins at its initial value (0 unless said). A name that is assigned
first is a local of the step. Everything else that is read is a hyperparameter.

The expressions go through the whitelist of `deltabias.parser`; nothing is evaluated. One
function is added, ``where(c, a, b)``: a where c > 0, b elsewhere.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count

import sympy as sp

from deltabias.errors import ParseError, RuleError
from deltabias.parser import FUNCTIONS, MAX_LENGTH, parse_expression
from deltabias.verify.hyper_range import HyperRange, usual_range

GIVEN = ("param", "grad", "t")
MAX_STEPS = 40
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)(.*)\Z", re.DOTALL)


class where(sp.Function):
    """``where(c, a, b)``: a where c > 0, else b."""

    nargs = 3

    @classmethod
    def eval(cls, condition: sp.Expr, yes: sp.Expr, no: sp.Expr) -> sp.Expr | None:
        """A condition that is a number is decided at once; so is one that changes nothing."""
        if condition.is_Rational or condition.is_Float:
            return yes if condition > 0 else no
        return yes if yes == no else None


Assignment = tuple[str, sp.Expr]


@dataclass(frozen=True)
class StepRule:
    """An optimizer's whole step, decay and debias included.

    Parameters
    ----------
    name : str
    steps : sequence of ``"name = expression"`` or of pairs (name, expression)
        run in order, elementwise; the last value of ``param`` is the new parameter.
    hypers : sequence of HyperRange, or mapping name -> default
        those that are not declared have the usual meaning of their name (lr, beta1, eps, …).
    initial : mapping state -> expression in the hyperparameters
        what a state begins with; 0 unless said.
    adjust : sequence of assignments to hyperparameters
        combinations that the optimizer refuses, put right: ``"dampening = 0"``-like lines in the
        hyperparameters, applied to every draw.
    title, source : str
        for people.

    Raises
    ------
    RuleError, ParseError
        for a name that is not declared and has no usual meaning, a rule that never assigns
        ``param``, a hyperparameter that is not read.

    Examples
    --------
    >>> rule = StepRule("heavy_ball", ["buf = momentum*buf + grad", "param = param - lr*buf"])
    >>> rule.states, [h.name for h in rule.hypers]
    (('buf',), ['momentum', 'lr'])
    """

    name: str
    steps: tuple[Assignment, ...]
    hypers: tuple[HyperRange, ...] = ()
    initial: Mapping[str, sp.Expr] = field(default_factory=dict)
    adjust: tuple[Assignment, ...] = ()
    title: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise RuleError(f"a step rule needs a name, got {self.name!r}.")
        steps = _assignments(self.steps, f"rule {self.name!r}")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "adjust", _assignments(self.adjust, "adjust", empty=True))
        object.__setattr__(self, "hypers", self._all_hypers())
        object.__setattr__(self, "initial", self._initial_values())
        self._check()

    @cached_property
    def states(self) -> tuple[str, ...]:
        """Names that are kept from step to step, in the order in which they are read."""
        assigned = {name for name, _ in self.steps}
        return tuple(n for n in _read_first(self.steps) if n in assigned and n not in GIVEN)

    @cached_property
    def hyper_names(self) -> tuple[str, ...]:
        """The hyperparameters' names."""
        return tuple(h.name for h in self.hypers)

    @property
    def defaults(self) -> dict[str, float]:
        """Every hyperparameter's default."""
        return {h.name: h.default for h in self.hypers}

    @property
    def text(self) -> str:
        """The step, an assignment a line."""
        return "\n".join(f"{name} = {expression}" for name, expression in self.steps)

    def with_steps(self, steps: Sequence[Assignment], name: str | None = None) -> "StepRule":
        """The same hyperparameters and initial values with other assignments (a mutation)."""
        kept = {s for s, _ in steps}
        initial = {k: v for k, v in self.initial.items() if k in kept}
        return _Lenient(
            name or self.name, tuple(steps), self.hypers, initial, self.adjust, self.title
        )

    def hyper(self, name: str) -> HyperRange:
        """The hyperparameter of that name.

        Raises
        ------
        RuleError
            with the names there are.
        """
        for candidate in self.hypers:
            if candidate.name == name:
                return candidate
        raise RuleError(
            f"rule {self.name!r} has no hyperparameter {name!r}; it has "
            f"{', '.join(self.hyper_names) or 'none'}."
        )

    def with_hypers(self, changes: Mapping[str, HyperRange]) -> "StepRule":
        """The same rule with other ranges."""
        return replace(self, hypers=tuple(changes.get(h.name, h) for h in self.hypers))

    # -- what the constructor works out -------------------------------------------------------

    def _all_hypers(self) -> tuple[HyperRange, ...]:
        given = self.hypers
        if isinstance(given, Mapping):
            given = tuple(usual_range(n, default) for n, default in given.items())
        declared = {h.name: h for h in given}
        if len(declared) < len(given):
            raise RuleError(f"rule {self.name!r} declares a hyperparameter twice.")
        assigned = {name for name, _ in self.steps}
        read = [n for n in _read_first(self.steps) if n not in assigned and n not in GIVEN]
        read += [n for n in self._names_of_initial() if n not in read]
        for name in read:
            if name not in declared:
                declared[name] = usual_range(name)
        return tuple(declared[n] for n in dict.fromkeys((*read, *declared)))

    def _names_of_initial(self) -> list[str]:
        values = (_expression(v) for v in self.initial.values())
        return [n for n in _names(values) if n not in GIVEN]

    def _initial_values(self) -> dict[str, sp.Expr]:
        return {name: _expression(value) for name, value in self.initial.items()}

    def _check(self) -> None:
        if "param" not in {name for name, _ in self.steps}:
            raise RuleError(
                f"rule {self.name!r} never assigns 'param'; end it with a line such as "
                "'param = param - lr*update'."
            )
        if strange := set(self.initial) - set(self.states):
            raise RuleError(
                f"initial values for {', '.join(sorted(strange))}, which is no state of rule "
                f"{self.name!r}; its states are {', '.join(self.states) or 'none'}."
            )
        for name in {n for n, _ in self.steps}:
            if name == "t" or name in self.hyper_names or name in FUNCTIONS or name == "where":
                raise RuleError(f"rule {self.name!r} assigns {name!r}, which it cannot.")
        read = set(_names(e for _, e in self.steps)) | set(self._names_of_initial())
        if idle := [n for n in self.hyper_names if n not in read]:
            raise RuleError(f"rule {self.name!r} declares {', '.join(idle)} and never reads it.")


class _Lenient(StepRule):
    """A mutated rule: made by the hundred from a rule that was checked, so not checked again."""

    def __post_init__(self) -> None:
        pass


def symbol(name: str) -> sp.Symbol:
    """The symbol of a name in a step rule; real, so that no root is split unseen."""
    return sp.Symbol(name, real=True)


def parse_step_expression(text: str) -> sp.Expr:
    """One expression of a step rule.

    Raises
    ------
    ParseError
        with the piece that was not understood.

    Examples
    --------
    >>> parse_step_expression("where(t - 1, momentum*buf + grad, grad)")
    where(t - 1, buf*momentum + grad, grad)
    """
    if not isinstance(text, str):
        raise ParseError(f"expected an expression such as 'param - lr*grad', got {text!r}.")
    return _parse_with_where(text, depth=0)


def _parse_with_where(text: str, depth: int) -> sp.Expr:
    if depth > 20:
        raise ParseError(f"{text[:40]!r}… nests where() deeper than 20 levels.")
    if "where" not in text:
        return parse_expression(text, _symbol_of)
    calls = _outermost_calls(text)
    replaced: dict[str, sp.Expr] = {}
    fresh = (f"where_branch_{i}" for i in count())
    stripped = text.strip()
    for start, end, arguments in reversed(calls):
        name = next(fresh)
        replaced[name] = where(*(_parse_with_where(a, depth + 1) for a in arguments))
        stripped = stripped[:start] + name + stripped[end:]
    return parse_expression(
        stripped, lambda name: replaced[name] if name in replaced else _symbol_of(name)
    )


def _outermost_calls(text: str) -> list[tuple[int, int, list[str]]]:
    """Where each ``where(…)`` begins and ends, and its arguments' own text."""
    stripped = text.strip()
    if not stripped.isascii() or "\n" in stripped or len(stripped) > MAX_LENGTH:
        raise ParseError(f"{text[:60]!r} must be one line of plain ASCII mathematics.")
    try:
        tree = ast.parse(stripped, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ParseError(f"{text!r} is not an expression ({error}).") from error
    found = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "where":
            if len(node.args) != 3 or node.keywords:
                raise ParseError(f"where takes 3 arguments, got {len(node.args)} in {text!r}.")
            arguments = [ast.get_source_segment(stripped, a) for a in node.args]
            found.append((node.col_offset, node.end_col_offset, arguments))
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def _symbol_of(name: str) -> sp.Symbol:
    if not _NAME.match(name) or name == "where":
        raise ParseError(
            f"unknown symbol {name!r}: a step rule's names are lower-case, such as exp_avg or eps."
        )
    return symbol(name)


def _expression(value: object) -> sp.Expr:
    if isinstance(value, sp.Expr):
        return value
    return parse_step_expression(value if isinstance(value, str) else repr(value))


def _assignments(steps: object, whose: str, *, empty: bool = False) -> tuple[Assignment, ...]:
    if isinstance(steps, str):
        steps = [line for line in re.split(r"[;\n]", steps) if line.strip()]
    if not isinstance(steps, Sequence) or (not steps and not empty) or len(steps) > MAX_STEPS:
        raise RuleError(
            f"{whose} has 1 to {MAX_STEPS} assignments such as 'param = param - lr*grad', got "
            f"{steps!r}."
        )
    return tuple(_assignment(step, whose) for step in steps)


def _assignment(step: object, whose: str) -> Assignment:
    match step:
        case str():
            if not (read := _ASSIGNMENT.match(step)):
                raise ParseError(f"{whose}: {step!r} is not an assignment 'name = expression'.")
            name, value = read.groups()
        case (str() as name, value):
            pass
        case _:
            raise ParseError(f"{whose}: {step!r} is not an assignment 'name = expression'.")
    if not _NAME.match(name):
        raise ParseError(f"{whose}: the name {name!r} must be lower-case letters, digits and '_'.")
    return name, _expression(value)


def _names(expressions) -> list[str]:
    """Names that are read, each once, in a fixed order."""
    found: dict[str, None] = {}
    for expression in expressions:
        for name in sorted(s.name for s in expression.free_symbols):
            found.setdefault(name)
    return list(found)


def _read_first(steps: Sequence[Assignment]) -> list[str]:
    """Names that are read before they are assigned."""
    assigned: set[str] = set()
    found: dict[str, None] = {}
    for name, expression in steps:
        for read in _names([expression]):
            if read not in assigned:
                found.setdefault(read)
        assigned.add(name)
    return list(found)


def map_steps(rule: StepRule, change: Callable[[str, sp.Expr], sp.Expr]) -> StepRule:
    """The rule with every assigned expression changed."""
    return rule.with_steps([(name, change(name, e)) for name, e in rule.steps])
