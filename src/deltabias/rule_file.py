"""Rules from a small TOML file, and from whatever was typed where a rule is wanted.

A file is data. Its expressions go through the same whitelist as a typed rule:

    name = "cube_root_adam"
    update = "exp_avg/(cbrt(exp_avg_sq) + eps)"
    title = "Adam with a cube root"             # optional, as is `sources`
    sources = ["a paper"]

    [hypers]                                    # name = default
    beta1 = 0.9
    beta2 = 0.95
    eps = 1e-8

    [states.exp_avg]
    kind = "ema"                                # "fresh", "ema" or "total"
    sample = "x"                                # a microbatch's part, in its gradient x
    beta = "beta1"                              # of an "ema"; debias = false switches 1 - βᵗ off

    [states.exp_avg_sq]
    kind = "ema"
    sample = "x"
    outer = "mean**2"                           # of the mean over the microbatches; optional
    beta = "beta2"
    positive = true                             # by default, whether it is seen to be

Without a `sample` the statistic is opaque: only its cumulants' names are known. ``y`` in a sample
is the gradient for labels drawn from the model, independent of ``x``.

An update with upper-case names is a matrix rule. Its samples are in G, the gradient as a matrix,
and ``of_mean = true`` takes the sample of the batch's mean gradient instead of the samples' mean:

    update = "inv_root(L + damping*I, 4) * M"

    [states.L]
    kind = "ema"
    sample = "G*G.T"
    of_mean = true
    beta = "beta2"
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import sympy as sp

from deltabias.errors import DeltabiasError, ParseError, RuleError
from deltabias.matrix_parser import mentions_matrices, parse_matrix
from deltabias.matrix_rule import MatrixRule, MatrixState, MatrixStatistic
from deltabias.parser import parse_expression
from deltabias.rule import (
    GRADIENT,
    LABEL_GRADIENT,
    MEAN,
    Ema,
    Fresh,
    Hyper,
    State,
    Statistic,
    Total,
    UpdateRule,
)
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE, get_rule

MAX_BYTES = 64 * 1024
KINDS = {"fresh": Fresh, "ema": Ema, "total": Total}
RULE_KEYS = ("name", "update", "title", "sources", "hypers", "states")
STATE_KEYS = ("kind", "sample", "outer", "beta", "debias", "positive")
MATRIX_STATE_KEYS = ("kind", "sample", "of_mean", "beta")
_WORD = re.compile(r"[A-Za-z_]\w*\Z")


def resolve_rule(
    text: str, hypers: Mapping[str, float] | None = None, *, name: str = "custom"
) -> UpdateRule | MatrixRule:
    """The rule that was meant: a catalogue name, an existing ``*.toml`` file, or mathematics.

    Parameters
    ----------
    text : "adamw", "rule.toml", "g/(sqrt(v)+eps)" or "inv_root(L + damping*I, 4)*M"
    hypers : hyperparameters of a typed rule with their defaults, besides eps…, beta…, lr
    name : of a typed rule

    Raises
    ------
    RuleError, ParseError
        for a word that is no rule, with the nearest that is.

    Examples
    --------
    >>> resolve_rule("adamw").name, resolve_rule("g/(sqrt(v)+eps)").name
    ('adamw', 'custom')
    """
    if not isinstance(text, str):
        raise ParseError(f"expected a rule such as 'adamw' or 'g/(sqrt(v)+eps)', got {text!r}.")
    ready = _ready_rule(text)
    if ready is None:
        kind = MatrixRule if mentions_matrices(text) else UpdateRule
        return kind.parse(text, hypers=hypers, name=name)
    if hypers:
        known = ", ".join(h.name for h in ready.all_hypers) or "none"
        raise RuleError(
            f"{', '.join(hypers)} cannot be declared for {text!r}: only a rule typed as a string "
            f"leaves its hyperparameters open; this one has {known}."
        )
    return ready


def _ready_rule(text: str) -> UpdateRule | MatrixRule | None:
    """The rule of that name or file; None if it is to be parsed."""
    if text.endswith(".toml"):
        return load_rule(text)
    known = {**CATALOGUE, **MATRIX_CATALOGUE}
    if text in known:
        return known[text]
    alike = text.lower().replace("-", "_")
    if alike in known:  # AdamW, adam-mean-of-squares
        raise RuleError(f"no rule {text!r}. Did you mean {alike!r}?")
    return get_rule(text) if _WORD.match(text) else None


def load_rule(path: str | Path) -> UpdateRule | MatrixRule:
    """The rule that a TOML file describes; see the module for the format.

    Raises
    ------
    RuleError, ParseError
        naming the file and the key, what it says and what is allowed.
    """
    path = Path(path)
    try:
        return _rule(_read(path))
    except DeltabiasError as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> dict:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RuleError(f"cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise RuleError(f"has {len(content)} bytes; a rule file has up to {MAX_BYTES}.")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RuleError(f"is not a TOML file: {error}.") from error


def _rule(table: dict) -> UpdateRule | MatrixRule:
    _check_keys(table, RULE_KEYS, "")
    for key in ("name", "update", "states"):
        if key not in table:
            raise RuleError(f"has no {key!r}; a rule needs a name, an update and states.")
    hypers = _hypers(_typed(table, "hypers", dict, "", {}))
    states = _typed(table, "states", dict, "", {})
    update = _typed(table, "update", str, "")
    kind, state = (MatrixRule, _matrix_state) if mentions_matrices(update) else (UpdateRule, _state)
    made = tuple(state(name, entry, hypers) for name, entry in states.items())
    used = _names_in(update)
    of_update = tuple(h for n, h in hypers.items() if n in used)
    rule = _at(
        "update",
        lambda: kind(
            name=_typed(table, "name", str, ""),
            update=update,
            states=made,
            hypers=of_update,
            title=_typed(table, "title", str, "", ""),
            sources=_sources(table),
        ),
    )
    if idle := [n for n in hypers if n not in {h.name for h in rule.all_hypers}]:
        raise RuleError(f"[hypers] {', '.join(idle)} occurs neither in the update nor as a beta.")
    return rule


def _sources(table: dict) -> tuple[str, ...]:
    sources = _typed(table, "sources", list, "", [])
    if not all(isinstance(s, str) for s in sources):
        raise RuleError(f"sources={sources!r} must be a list of strings.")
    return tuple(sources)


def _hypers(table: dict) -> dict[str, Hyper]:
    made = {}
    for name, default in table.items():
        if isinstance(default, bool) or not isinstance(default, int | float):
            raise RuleError(f"[hypers] {name}={default!r} must be a number, its default.")
        high = 1.0 if name.startswith("beta") else float("inf")
        made[name] = _at(f"[hypers] {name}", lambda n=name, d=default, h=high: Hyper(n, d, high=h))
    return made


def _state(name: str, entry: object, hypers: dict[str, Hyper]) -> State:
    where = f"[states.{name}] "
    if not isinstance(entry, dict):
        raise RuleError(f"{where.strip()} must be a table with a kind.")
    _check_keys(entry, STATE_KEYS, where)
    kind = _typed(entry, "kind", str, where, "")
    if kind not in KINDS:
        raise RuleError(f"{where}kind={kind!r} is not known; use {', '.join(KINDS)}.")
    statistic = _at(where.strip(), lambda: _statistic(name, entry, where))
    if kind != "ema":
        for key in ("beta", "debias"):
            if key in entry:
                raise RuleError(f"{where}{key} has no meaning for kind={kind!r}; remove it.")
        return _at(where.strip(), lambda: KINDS[kind](name, statistic))
    decay = _decay(entry, hypers, where)
    debias = _typed(entry, "debias", bool, where, True)
    return _at(where.strip(), lambda: Ema(name, statistic, decay, debias))


def _decay(entry: dict, hypers: dict[str, Hyper], where: str) -> Hyper:
    """The hyperparameter that an average's beta names."""
    beta = _typed(entry, "beta", str, where, "")
    if beta not in hypers:
        raise RuleError(
            f"{where}beta={beta!r} must name one of [hypers]: {', '.join(hypers) or 'none there'}."
        )
    decay = hypers[beta]
    if decay.high > 1:  # an average's factor, whatever its name
        decay = hypers[beta] = _at(
            f"[hypers] {beta}", lambda: Hyper(decay.name, decay.default, high=1.0)
        )
    return decay


def _matrix_state(name: str, entry: object, hypers: dict[str, Hyper]) -> MatrixState:
    where = f"[states.{name}] "
    if not isinstance(entry, dict):
        raise RuleError(f"{where.strip()} must be a table with a kind.")
    _check_keys(entry, MATRIX_STATE_KEYS, where)
    kind = _typed(entry, "kind", str, where, "")
    if kind not in KINDS:
        raise RuleError(f"{where}kind={kind!r} is not known; use {', '.join(KINDS)}.")
    if kind != "ema" and "beta" in entry:
        raise RuleError(f"{where}beta has no meaning for kind={kind!r}; remove it.")
    sample = _typed(entry, "sample", str, where)
    of_mean = _typed(entry, "of_mean", bool, where, False)
    beta = _decay(entry, hypers, where) if kind == "ema" else None
    return _at(
        where.strip(),
        lambda: MatrixState(name, MatrixStatistic(name, sample, of_mean), beta, kind == "total"),
    )


def _statistic(name: str, entry: dict, where: str) -> Statistic:
    sample = _polynomial(entry, "sample", (GRADIENT, LABEL_GRADIENT), where)
    outer = _polynomial(entry, "outer", (MEAN,), where)
    last = sample if outer is None else outer
    seen = last is not None and bool(last.is_nonnegative)
    positive = _typed(entry, "positive", bool, where, seen)
    return Statistic(name, sample, outer, positive)


def _polynomial(
    entry: dict, key: str, variables: tuple[sp.Symbol, ...], where: str
) -> sp.Expr | None:
    text = _typed(entry, key, str, where)
    if text is None:
        return None
    known = {v.name: v for v in variables}

    def symbol(name: str) -> sp.Symbol:
        if name not in known:
            raise ParseError(f"unknown symbol {name!r}; a {key} is in {' or '.join(known)}.")
        return known[name]

    return _at(f"{where}{key}={text!r}", lambda: parse_expression(text, symbol))


def _names_in(update: str) -> set[str]:
    """The names that occur; whether they are known is for the rule itself to say."""
    if mentions_matrices(update):
        return set(_at("update", lambda: parse_matrix(update)).hypers)
    names: set[str] = set()

    def note(name: str) -> sp.Symbol:
        names.add(name)
        return sp.Symbol(name, positive=True)

    _at("update", lambda: parse_expression(update, note))
    return names


def _typed(table: dict, key: str, kind: type, where: str, default: object = None):
    """The value of a key, of the right type, or its default."""
    if key not in table:
        return default
    value = table[key]
    if not isinstance(value, kind):
        said = {str: "a string", bool: "true or false", dict: "a table", list: "a list"}[kind]
        raise RuleError(f"{where}{key}={value!r} must be {said}.")
    return value


def _check_keys(table: dict, allowed: tuple[str, ...], where: str) -> None:
    if unknown := [key for key in table if key not in allowed]:
        raise RuleError(
            f"{where}{', '.join(unknown)}: unknown key; allowed are {', '.join(allowed)}."
        )


def _at(where: str, make: Callable):
    """What `make` makes; an error says where in the file it arose."""
    try:
        return make()
    except DeltabiasError as error:
        raise type(error)(f"{where}: {error}") from error
