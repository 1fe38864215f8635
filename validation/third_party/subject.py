"""One optimizer of somebody else, the published rule, and what reading its code has confirmed."""

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deltabias.verify.hyper_range import usual_range
from deltabias.verify.step_rule import StepRule
from deltabias.verify.step_rule_file import load_step_rule, resolve_step_rule

RULES = Path(__file__).parent / "rules"
BUG, DEVIATION = "bug", "deviation"


@dataclass(frozen=True)
class Note:
    """What a person found in the code.

    Parameters
    ----------
    kind : BUG, or DEVIATION (documented, or the authors' own code has it)
    where : file:line of the version that was read
    text : what the code does, beside what the paper says
    """

    kind: str
    where: str
    text: str


@dataclass(frozen=True)
class Subject:
    """An optimizer and its published rule.

    Parameters
    ----------
    package : its name on PyPI; the module has underscores for its hyphens
    name : of the class
    rule : a file in ``rules/`` without its ending, or a name that `deltabias.verify` knows
    read : the version whose code the notes are about
    hypers : as `check_optimizer` takes them
    found : lines of the published rule -> the lines that the code computes instead
    ranges : hyperparameters of those lines -> their defaults
    initial : states of those lines -> what they begin with
    found_hypers : hypers for the rule as found, where they differ
    found_dtype : in which the code computes
    arguments : for every call of the constructor
    prepare : called with the imported module
    """

    package: str
    name: str
    rule: str
    read: str
    hypers: Mapping[str, object] = field(default_factory=dict)
    found: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, float] = field(default_factory=dict)
    initial: Mapping[str, str] = field(default_factory=dict)
    found_hypers: Mapping[str, object] = field(default_factory=dict)
    found_dtype: str = "float64"
    arguments: Mapping[str, object] = field(default_factory=dict)
    prepare: Callable[[object], None] | None = None

    @property
    def label(self) -> str:
        return f"{self.package} {self.name}"

    @property
    def deviates(self) -> bool:
        """Whether a rule as found is recorded beside the published one."""
        return bool(self.found or self.found_hypers or self.found_dtype != "float64")

    def version(self) -> str | None:
        """The installed version; None where the package is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None

    def load(self) -> Callable:
        """What makes the optimizer, with the arguments that its signature names and no others."""
        module = import_module(self.package.replace("-", "_"))
        if self.prepare is not None:
            self.prepare(module)
        return _named_arguments(getattr(module, self.name), self.arguments)

    def published(self) -> StepRule:
        """The rule as the paper has it."""
        path = RULES / f"{self.rule}.toml"
        return load_step_rule(path) if path.exists() else resolve_step_rule(self.rule)

    def as_found(self) -> StepRule:
        """The published rule with the lines that the code has instead.

        Raises
        ------
        ValueError
            for a line that the published rule does not have.
        """
        published = self.published()
        if not self.found and not self.initial:
            return published
        table = tomllib.loads((RULES / f"{self.rule}.toml").read_text(encoding="utf-8"))
        if missing := [line for line in self.found if line not in table["steps"]]:
            raise ValueError(f"{self.label}: rule {self.rule!r} has no line {missing[0]!r}.")
        steps = [new for line in table["steps"] for new in self.found.get(line, (line,))]
        initial = {**table.get("initial", {}), **self.initial}
        # a name that the changed lines no longer read is no hyperparameter, nor a state
        read = set(re.findall(r"[a-z_]\w*", " ".join([*steps, *initial.values()])))
        known = {h.name: h for h in published.hypers}
        known |= {n: usual_range(n, value) for n, value in self.ranges.items()}
        return StepRule(
            f"{self.rule} as found",
            steps,
            tuple(h for n, h in known.items() if n in read),
            {n: value for n, value in initial.items() if n in read},
            published.adjust,
        )


def _named_arguments(make: Callable, always: Mapping[str, object]) -> Callable:
    """The same without ``**kwargs``, which swallow what the optimizer does not know."""

    @wraps(make)
    def factory(*arguments: object, **named: object) -> object:
        return make(*arguments, **{**always, **named})

    signature = inspect.signature(make)
    kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    factory.__signature__ = signature.replace(parameters=kept)
    return factory
