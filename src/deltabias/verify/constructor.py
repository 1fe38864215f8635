"""How a rule's hyperparameters reach a stranger's optimizer.

The signature decides what can be passed; where it has ``**kwargs``, a trial does. What cannot be
passed is read from the optimizer's parameter groups, and what is not there either is absent:
no weight decay, no momentum, no option.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from deltabias.errors import DeltabiasError, RuleError
from deltabias.verify.hyper_range import HyperRange
from deltabias.verify.interpret import make_adjust
from deltabias.verify.step_rule import StepRule

_PLACE = re.compile(r"(\w+)\[(\d)\]\Z")
IMPLEMENTATIONS = ("foreach", "fused", "capturable", "differentiable")


NOBODYS = "no_argument_of_any_optimizer"


class TargetError(DeltabiasError):
    """The target is no optimizer, or does not behave like one."""


@dataclass(frozen=True)
class Constructor:
    """A target and what its arguments mean.

    Parameters
    ----------
    make : class or factory ``make(params, **arguments)``
    places : rule's hyperparameter -> (argument, place in a tuple or None)
    tuples : argument -> its default, a tuple
    fixed : hyperparameters that cannot be passed, at the values they have
    per_group : hyperparameters that a parameter group may have of its own
    flags : implementation flags that can be passed (foreach, fused, …)
    scheduled : whether the groups have an lr to change
    assumed : hyperparameters whose values nothing says; the rule's own are taken
    refused : hyperparameters that are arguments, of which only the default is taken
    extra : further arguments for every call
    """

    make: Callable
    places: Mapping[str, tuple[str, int | None]]
    tuples: Mapping[str, tuple]
    booleans: frozenset[str]
    fixed: Mapping[str, float]
    per_group: frozenset[str] = frozenset()
    flags: tuple[str, ...] = ()
    scheduled: bool = True
    assumed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)

    def arguments(self, hypers: Mapping[str, float]) -> dict[str, object]:
        """The constructor's keyword arguments."""
        made: dict[str, object] = {}
        for name, (argument, place) in self.places.items():
            value: object = hypers[name]
            if name in self.booleans:
                value = bool(value)
            if place is None:
                made[argument] = value
            else:
                entries = list(made.get(argument, self.tuples[argument]))
                entries[place] = value
                made[argument] = tuple(entries)
        return made

    def build(self, groups: list[list[torch.Tensor]], hypers: list[Mapping[str, float]]):
        """The optimizer: one group's parameters plainly, several as dictionaries.

        The first group takes the constructor's arguments, as it does in a training script; the
        others bring their own.
        """
        arguments = {**self.arguments(hypers[0]), **self.extra}
        if len(groups) == 1:
            return self.make(groups[0], **arguments)
        entries: list[dict] = [{"params": groups[0]}]
        for params, own in zip(groups[1:], hypers[1:], strict=True):
            entries.append({"params": params, **self.of_group(own)})
        return self.make(entries, **arguments)

    def of_group(self, hypers: Mapping[str, float]) -> dict[str, object]:
        """A parameter group's own options."""
        wanted = {self.places[n][0] for n in self.per_group if n in self.places}
        return {k: v for k, v in self.arguments(hypers).items() if k in wanted}

    def ranges(self, rule: StepRule) -> tuple[HyperRange, ...]:
        """The hyperparameters that can be drawn."""
        return tuple(h for h in rule.hypers if h.name in self.places)

    def with_extra(self, **extra: object) -> "Constructor":
        """The same with further arguments, such as ``foreach=True``."""
        return Constructor(**{**self.__dict__, "extra": {**self.extra, **extra}})


def inspect_target(
    make: Callable, rule: StepRule, hypers: Mapping[str, object] | None = None
) -> Constructor:
    """What of a rule can be passed to a target, and how.

    Parameters
    ----------
    make : optimizer class or factory
    hypers : rule's name -> a number to hold it at, (low, high) to draw it from, or the name of
        the constructor's argument ("betas[0]" for the first of a tuple)

    Raises
    ------
    TargetError
        for a target that cannot be called or makes no optimizer.
    RuleError
        for a hyperparameter that the rule does not have.
    """
    if not callable(make):
        raise TargetError(
            f"{make!r} is no optimizer: pass a torch.optim.Optimizer class or a function "
            "make(params, **arguments) that returns one."
        )
    said = dict(hypers or {})
    for name in said:
        rule.hyper(name)
    offered, defaults = _offered(make, rule, said)
    places, tuples = {}, {}
    for hyper in rule.hypers:
        place = _place(hyper, offered, defaults, said.get(hyper.name))
        if place is not None:
            places[hyper.name] = place
            if place[1] is not None:
                tuples[place[0]] = tuple(defaults[place[0]])
    refused = _refused(rule, places, tuples, make, said)
    for name in refused:
        del places[name]
    optimizer = _trial(make, {}) or _trial(make, _needed(rule, places, tuples, make))
    if optimizer is None:
        raise TargetError(_why_not(make, _needed(rule, places, tuples, make)))
    check_optimizer_interface(optimizer)
    group = optimizer.param_groups[0]
    fixed, assumed = _fixed(rule, places, group)
    at_birth = {s.name for e in rule.initial.values() for s in e.free_symbols}
    own = frozenset(n for n, (argument, _) in places.items() if argument in group) - at_birth
    return Constructor(
        make,
        places,
        tuples,
        frozenset(h.name for h in rule.hypers if h.is_flag),
        fixed,
        own,
        tuple(f for f in IMPLEMENTATIONS if f in offered),
        "lr" in rule.hyper_names and "lr" in group,
        assumed,
        refused,
    )


def check_optimizer_interface(optimizer: object) -> None:
    """Refuses what is no optimizer.

    Raises
    ------
    TargetError
        with what it is.
    """
    groups = getattr(optimizer, "param_groups", None)
    if not callable(getattr(optimizer, "step", None)) or not isinstance(groups, list) or not groups:
        raise TargetError(
            f"the target made {type(optimizer).__name__}, which is no optimizer: it needs step() "
            "and a list param_groups, as torch.optim.Optimizer has."
        )


def _probe() -> list[torch.Tensor]:
    return [torch.nn.Parameter(torch.ones(2, 2))]


def _trial(make: Callable, arguments: Mapping[str, object]):
    try:
        return make(_probe(), **arguments)
    except Exception:
        return None


def _why_not(make: Callable, arguments: Mapping[str, object]) -> str:
    try:
        make(_probe(), **arguments)
    except Exception as error:
        said = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        return f"the constructor raised {type(error).__name__}: {error} (arguments: {said})."
    return "the constructor returned nothing."


def _offered(make: Callable, rule: StepRule, said: Mapping) -> tuple[set[str], dict[str, object]]:
    """The arguments that can be passed, and their defaults."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in named[1:]} | {p.name for p in named[:1] if p.kind is p.KEYWORD_ONLY}
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    if any(p.kind is p.VAR_KEYWORD for p in parameters) or not parameters:
        behind = _trial(make, {})
        known = dict(behind.param_groups[0]) if hasattr(behind, "param_groups") else {}
        refusal = _refusal(make)
        # what takes any name tells nothing by taking one: the named arguments are those it has
        asked = sorted(_candidates(rule, said) - names) if refusal is not None else ()
        for name in asked:
            if _takes(make, name, known.get(name, _sample(name)), refusal):
                names.add(name)
                if name in known:
                    defaults[name] = known[name]
    return names, defaults


def _candidates(rule: StepRule, said: Mapping) -> set[str]:
    names = {n for h in rule.hypers for n in h.names}
    names |= {v for v in said.values() if isinstance(v, str)}
    return {_PLACE.sub(r"\1", n) for n in names} | set(IMPLEMENTATIONS)


def _sample(name: str) -> object:
    if name in ("betas", "nus"):
        return (0.9, 0.99)
    if name in IMPLEMENTATIONS or name in ("maximize", "nesterov", "amsgrad", "centered"):
        return False
    return 0.1


def _refusal(make: Callable) -> str | None:
    """What is said of a keyword that nobody has, without its name; None if it is swallowed."""
    try:
        make(_probe(), **{NOBODYS: 0.1})
    except Exception as error:
        return str(error).replace(NOBODYS, "")
    return None


def _takes(make: Callable, name: str, value: object, refusal: str) -> bool:
    """Whether the keyword is known; a value that is refused is a keyword that is known."""
    try:
        make(_probe(), **{name: value})
    except TypeError as error:
        said = str(error)
        return "unexpected keyword" not in said and said.replace(name, "") != refusal
    except Exception:
        return True
    return True


def _place(hyper: HyperRange, offered: set[str], defaults: Mapping, said: object):
    names = (said,) if isinstance(said, str) else hyper.names
    for name in names:
        inside = _PLACE.match(name)
        if inside is None and name in offered:
            return name, None
        if inside is not None and inside[1] in offered:
            default, place = defaults.get(inside[1]), int(inside[2])
            if default is None and hyper.name.startswith("beta"):
                default = defaults[inside[1]] = (0.9, 0.999)
            if isinstance(default, tuple | list) and place < len(default):
                return inside[1], place
    if isinstance(said, str):
        raise RuleError(
            f"the target takes no argument {said!r} for {hyper.name}; it takes "
            f"{', '.join(sorted(offered)) or 'none'}."
        )
    return None


def _needed(rule: StepRule, places: Mapping, tuples: Mapping, make: Callable) -> dict:
    """Defaults for every argument that the rule knows."""
    every = Constructor(make, places, tuples, frozenset(
        h.name for h in rule.hypers if h.is_flag), {})  # fmt: skip
    return every.arguments(rule.defaults)


def _refused(rule: StepRule, places: Mapping, tuples: Mapping, make: Callable, said: Mapping):
    """Hyperparameters that are arguments in name only: any value but the default raises."""
    flags = frozenset(h.name for h in rule.hypers if h.is_flag)
    every = Constructor(make, places, tuples, flags, {})
    default = every.arguments(rule.defaults)
    if not _works(make, default):
        return ()
    adjust = make_adjust(rule)
    found = []
    for name in places:
        hyper = rule.hyper(name)
        if name in said:
            continue
        middle = 1 if hyper.is_flag else (hyper.low + hyper.high) / 2
        hypers = adjust({**rule.defaults, name: middle})
        if not _works(make, every.arguments(hypers)):
            found.append(name)
    return tuple(found)


def _works(make: Callable, arguments: Mapping[str, object]) -> bool:
    return _trial(make, arguments) is not None


def _fixed(rule: StepRule, places: Mapping, group: Mapping) -> tuple[dict, tuple[str, ...]]:
    """Values of what cannot be passed: the group's, or those of absence."""
    fixed: dict[str, float] = {}
    assumed = []
    for hyper in rule.hypers:
        if hyper.name in places:
            continue
        value = _in_group(hyper, group)
        if value is None:
            value = hyper.value_if_absent
            if hyper.absent is None:
                assumed.append(hyper.name)
        fixed[hyper.name] = float(value)
    return fixed, tuple(assumed)


def _in_group(hyper: HyperRange, group: Mapping) -> float | None:
    for name in hyper.names:
        inside = _PLACE.match(name)
        value = group.get(inside[1] if inside else name)
        if inside and isinstance(value, tuple | list) and int(inside[2]) < len(value):
            value = value[int(inside[2])]
        if isinstance(value, bool | int | float | torch.Tensor):
            return float(value)
    return None
