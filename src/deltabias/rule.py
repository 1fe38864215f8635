"""The vocabulary: what an update rule is made of. Frozen records that check themselves.

A rule is a smooth map of *states*; a state averages a *statistic* over the steps; a statistic is
what one step's microbatches contribute. Nothing here knows how a bias is derived or corrected.

    Statistic("g_sq", sample=x, outer=MEAN**2)     the square of the mean gradient, as torch's Adam
    Statistic("g_sq", sample=x**2)                 the mean of the microbatches' squares
    Ema("exp_avg_sq", statistic, beta2)            its exponential moving average
    UpdateRule("adam", "exp_avg/(sqrt(exp_avg_sq)+eps)", states=…, hypers=…)

The two statistics have two targets and two variances (up to a factor m apart), so the rule
names its statistic and everything else is derived from it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from keyword import iskeyword
from numbers import Number

import sympy as sp

from deltabias.calculus.weights import Weights
from deltabias.errors import ParseError, RuleError
from deltabias.notation import markup
from deltabias.notation.names import Name, state_names
from deltabias.notation.printing import latex, mathml
from deltabias.parser import FUNCTIONS, parse_expression
from deltabias.reserved import RESERVED

GRADIENT = sp.Symbol("x", real=True)
"""One microbatch's own gradient, the variable of `Statistic.sample`."""

LABEL_GRADIENT = sp.Symbol("y", real=True)
"""A gradient of the same microbatch for labels drawn from the model, independent of `GRADIENT`."""

MEAN = sp.Symbol("mean", real=True)
"""The mean over the microbatches of a step, the variable of `Statistic.outer`."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")
_HYPER_NAME = re.compile(r"(eps|beta|damping)[a-z0-9_]*\Z|lr\Z")


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not _IDENTIFIER.match(name):
        raise RuleError(
            f"{kind} name {name!r} is not allowed; use lower-case letters, digits and '_', "
            "starting with a letter."
        )
    if kind in ("state", "hyperparameter") and (name in RESERVED or iskeyword(name)):
        raise RuleError(
            f"{kind} name {name!r} is used by corrected forms or by Python; rename it, for "
            f"instance {name}_."
        )
    if name in FUNCTIONS:
        raise RuleError(f"{kind} name {name!r} is a function of the rule language; rename it.")


@dataclass(frozen=True)
class Hyper:
    """A hyperparameter: a non-negative number with a default and a range ``[low, high)``."""

    name: str
    default: float
    low: float = 0.0
    high: float = float("inf")

    def __post_init__(self) -> None:
        _check_name("hyperparameter", self.name)
        self.check(self.default)

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, nonnegative=True)

    def check(self, value: float) -> float:
        """The value itself, if it is in the range.

        Raises
        ------
        RuleError
            with the range that is allowed.
        """
        if isinstance(value, bool) or not isinstance(value, Number):
            raise RuleError(f"{self.name}={value!r} is not a number.")
        if not self.low <= value < self.high:
            raise RuleError(f"{self.name}={value} is outside [{self.low:g}, {self.high:g}).")
        return value


BETA1 = Hyper("beta1", 0.9, high=1.0)
BETA2 = Hyper("beta2", 0.999, high=1.0)
EPS = Hyper("eps", 1e-8)


@dataclass(frozen=True)
class Statistic:
    """What one step contributes: ``outer(mean over microbatches of sample)``.

    Parameters
    ----------
    name : str
    sample : polynomial in `GRADIENT` or in `LABEL_GRADIENT`, or None
        what one microbatch contributes; None is an opaque random quantity of which only the
        mean's cumulants are known, by name.
    outer : polynomial in `MEAN`, or None
        applied to the mean over microbatches; None is the mean itself.
    positive : bool
        never negative; fractional powers and logarithms need it.
    """

    name: str
    sample: sp.Expr | None = None
    outer: sp.Expr | None = None
    positive: bool = False

    def __post_init__(self) -> None:
        _check_name("statistic", self.name)
        for label, expression, allowed in (
            ("sample", self.sample, (GRADIENT, LABEL_GRADIENT)),
            ("outer", self.outer, (MEAN,)),
        ):
            if expression is None:
                continue
            if not isinstance(expression, sp.Expr):
                raise RuleError(
                    f"statistic {self.name!r}: {label}={expression!r} is not a SymPy expression."
                )
            if not any(
                expression.free_symbols == {v} and expression.is_polynomial(v) for v in allowed
            ):
                raise RuleError(
                    f"statistic {self.name!r}: {label}={expression} must be a polynomial in "
                    f"{' or '.join(map(str, allowed))} alone."
                )
        if self.outer is not None and self.sample is None:
            raise RuleError(f"statistic {self.name!r} has an outer map of an unknown sample.")

    @property
    def opaque(self) -> bool:
        """Whether only the cumulants' names are known."""
        return self.sample is None

    @property
    def observation(self) -> sp.Symbol | None:
        """What one microbatch is observed through."""
        return None if self.sample is None else next(iter(self.sample.free_symbols))


MEAN_GRADIENT = Statistic("gradient", sample=GRADIENT)
SQUARE_OF_MEAN = Statistic("square_of_mean", sample=GRADIENT, outer=MEAN**2, positive=True)
MEAN_OF_SQUARES = Statistic("mean_of_squares", sample=GRADIENT**2, positive=True)


@dataclass(frozen=True)
class Fresh:
    """A state without memory: the newest step's statistic."""

    name: str
    statistic: Statistic

    def __post_init__(self) -> None:
        _check_name("state", self.name)

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(
            self.name, **({"positive": True} if self.statistic.positive else {"real": True})
        )

    @property
    def hypers(self) -> tuple[Hyper, ...]:
        return ()

    @property
    def weights(self) -> Weights:
        return Weights(decay=sp.Integer(0))


@dataclass(frozen=True)
class Total(Fresh):
    """A running total, as Adagrad's."""

    @property
    def weights(self) -> Weights:
        return Weights(decay=sp.Integer(1))


@dataclass(frozen=True)
class Ema(Fresh):
    """An exponential moving average; ``debias`` divides by ``1 - beta**t`` (Adam's way)."""

    beta: Hyper = BETA2
    debias: bool = True

    @property
    def hypers(self) -> tuple[Hyper, ...]:
        return (self.beta,)

    @property
    def weights(self) -> Weights:
        return Weights(self.beta.symbol, 1 - self.beta.symbol, self.debias)


State = Fresh  # the common interface; Total and Ema only change the weights


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer's update direction as a map of its states.

    The parameter moves by ``-lr`` times ``update``; decay and schedules stay outside.

    Parameters
    ----------
    name : str
        links everything: generated function, test, certificate, documentation page.
    update : sympy expression, or a string
        in the names of the states and the hyperparameters.
    states : tuple of Fresh, Ema, Total
    hypers : tuple of Hyper
        those of the update; the states bring their own.
    title, sources : str
        for people.

    Examples
    --------
    >>> rule = UpdateRule.parse("g/(sqrt(v)+eps)")
    >>> [state.name for state in rule.states], [hyper.name for hyper in rule.hypers]
    (['g', 'v'], ['eps'])
    """

    name: str
    update: sp.Expr
    states: tuple[State, ...]
    hypers: tuple[Hyper, ...] = ()
    title: str = ""
    sources: tuple[str, ...] = ()
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_name("rule", self.name)
        if isinstance(self.update, str):
            object.__setattr__(self, "text", self.update)
            object.__setattr__(self, "update", parse_expression(self.update, self._lookup))
        if not isinstance(self.update, sp.Expr):
            raise RuleError(
                f"rule {self.name!r}: update={self.update!r} is neither a string nor a SymPy "
                "expression."
            )
        self._check_names()
        free, states = self.update.free_symbols, {s.symbol for s in self.states}
        if unknown := free - states - {h.symbol for h in self.hypers}:
            raise RuleError(
                f"rule {self.name!r} uses {_names(unknown)}, which is neither a state "
                f"({_names(states)}) nor a hyperparameter "
                f"({', '.join(h.name for h in self.hypers) or 'none'})."
            )
        if not states & free:
            raise RuleError(
                f"rule {self.name!r}, {self.update}, depends on no statistic: there is nothing "
                "random in it and nothing to correct. Lower-case symbols other than eps…, "
                "beta…, damping…, lr and the declared hyperparameters are statistics."
            )

    def _lookup(self, name: str) -> sp.Symbol:
        known = {item.name: item.symbol for item in (*self.states, *self.hypers)}
        if name not in known:
            raise ParseError(
                f"unknown symbol {name!r} in rule {self.name!r}; known are {', '.join(known)}."
            )
        return known[name]

    def _check_names(self) -> None:
        names = [item.name for item in (*self.states, *self.hypers)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise RuleError(f"rule {self.name!r} declares {', '.join(twice)} more than once.")

    @classmethod
    def parse(
        cls, text: str, *, hypers: Mapping[str, float] | None = None, name: str = "custom"
    ) -> "UpdateRule":
        """A rule from one line of mathematics.

        Every lower-case symbol that is not a hyperparameter is a random statistic. Names that
        begin with ``eps``, ``beta`` or ``damping``, ``lr`` and the keys of `hypers` are
        hyperparameters. A symbol under a root, a logarithm or a broken power is positive.

        Raises
        ------
        ParseError, RuleError
            with what was passed, what is allowed and what to do.
        """
        declared = dict(hypers or {})
        names: list[str] = []

        def note(symbol_name: str) -> sp.Symbol:
            _check_symbol(symbol_name)
            if symbol_name not in names:
                names.append(symbol_name)
            return sp.Symbol(symbol_name, real=True)

        draft = parse_expression(text, note)
        if unused := sorted(set(declared) - set(names)):
            raise RuleError(f"hyperparameter {', '.join(unused)} does not occur in {text!r}.")
        is_hyper = {n: n in declared or bool(_HYPER_NAME.match(n)) for n in names}
        positive = _positive_symbols(draft, {n for n in names if is_hyper[n]})
        states = tuple(
            Fresh(n, Statistic(n, positive=n in positive)) for n in names if not is_hyper[n]
        )
        hyper_records = tuple(
            Hyper(
                n, declared.get(n, _default(n)), high=1.0 if n.startswith("beta") else float("inf")
            )
            for n in names
            if is_hyper[n]
        )
        return cls(name, text, states, hyper_records)

    @cached_property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """The random arguments of the map, in the order of the states."""
        return tuple(state.symbol for state in self.states)

    @property
    def all_hypers(self) -> tuple[Hyper, ...]:
        """The hyperparameters of the update and of the states, each once."""
        every = [*self.hypers, *(h for state in self.states for h in state.hypers)]
        return tuple(dict.fromkeys(every))

    @cached_property
    def notation(self) -> dict[str, Name]:
        """What its symbols are called in formulas: ``exp_avg_sq`` v̂ where it is debiased."""
        states = [(s.name, s.weights.debias) for s in self.states]
        return state_names(states, [h.name for h in self.all_hypers])

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle u = {latex(self.update, self.notation)}$"

    def _repr_html_(self) -> str:
        return markup.card(
            self.title or self.name,
            [mathml(sp.Eq(sp.Symbol("update"), self.update, evaluate=False), self.notation)],
            [f"{s.name}: {s.statistic.name}" for s in self.states] + list(self.sources),
        )

    def __str__(self) -> str:
        return self.text or str(self.update)


def _names(symbols: set[sp.Symbol]) -> str:
    return ", ".join(sorted(s.name for s in symbols))


def _check_symbol(name: str) -> None:
    if not _IDENTIFIER.match(name):
        raise ParseError(
            f"unknown symbol {name!r}: a scalar rule's statistics and hyperparameters are "
            "lower-case names such as g, v or eps (upper-case names are kept for matrices)."
        )


def _default(name: str) -> float:
    if name.startswith("beta"):
        return 0.9
    return {"lr": 1e-3}.get(name, 1e-8)


def _positive_symbols(expression: sp.Expr, hypers: set[str]) -> set[str]:
    """Symbols under a broken power or a logarithm, or in a denominator next to a stabilizer.

    A denominator such as ``v + eps`` is only stabilized if v is not negative.
    """
    inside: set[sp.Symbol] = set()
    for node in sp.preorder_traversal(expression):
        if isinstance(node, sp.Pow):
            names = {s.name for s in node.base.free_symbols}
            stabilized = node.exp.is_negative and node.base.is_Add and names & hypers
            if stabilized or not node.exp.is_integer:
                inside |= node.base.free_symbols
        elif isinstance(node, sp.log):
            inside |= node.args[0].free_symbols
    return {s.name for s in inside}
