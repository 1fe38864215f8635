"""Step rules from a name, a small TOML file, a string, or an update rule of the catalogue.

name = "heavy_ball"
steps = ["buf = momentum*buf + grad", "param = param - lr*buf"]
[hypers]                     # name = default, or a range to draw from
momentum = {default = 0.9, low = 0.1, high = 0.95}
[initial]                    # what a state begins with, unless 0
buf = "0"
"""

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from deltabias.errors import DeltabiasError, RuleError
from deltabias.matrix_parser import mentions_matrices
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import GRADIENT, MEAN, Ema, Total, UpdateRule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE
from deltabias.verify.hyper_range import HyperRange, usual_range
from deltabias.verify.step_rule import StepRule, symbol
from deltabias.verify.torch_rules import COUPLED, DECOUPLED, MAXIMIZE, STEP_RULES

KEYS = ("name", "title", "source", "steps", "hypers", "initial", "adjust")
MAX_BYTES = 64 * 1024
DECAYS = (None, "decoupled", "coupled")


def matrix_rule_of(rule: object) -> MatrixRule | None:
    """The rule of matrices that was meant, if one was: itself, a name, or one line with them.

    Assignments, with a ``=``, are steps entry by entry, whatever their names look like.
    """
    if isinstance(rule, MatrixRule):
        return rule
    if not isinstance(rule, str):
        return None
    if "=" not in rule and not rule.strip().endswith(".toml") and mentions_matrices(rule):
        return MatrixRule.parse(rule)
    return MATRIX_CATALOGUE.get(rule.strip())


def resolve_step_rule(rule: object) -> StepRule:
    """The step rule that was meant.

    Parameters
    ----------
    rule : StepRule, UpdateRule, a name such as "adamw", a path to a ``.toml`` file, or
        assignments separated by ``;`` or line ends

    Raises
    ------
    RuleError, ParseError
        for what is none of these, with the nearest name.

    Examples
    --------
    >>> resolve_step_rule("adamw").name, resolve_step_rule("param = param - lr*grad").states
    ('adamw', ())
    """
    if isinstance(rule, StepRule):
        return rule
    if isinstance(rule, UpdateRule):
        return from_update_rule(rule)
    if isinstance(rule, Path) or (isinstance(rule, str) and rule.strip().endswith(".toml")):
        return load_step_rule(rule)
    if not isinstance(rule, str):
        raise RuleError(
            f"{rule!r} is no rule of an elementwise step; pass a StepRule, a name such as "
            f"{', '.join(STEP_RULES)}, a .toml file, or 'param = param - lr*grad'."
        )
    if "=" in rule:
        return StepRule("custom", rule)
    return _named(rule.strip())


def _named(name: str) -> StepRule:
    if name in STEP_RULES:
        return STEP_RULES[name]
    if name in CATALOGUE:
        return from_update_rule(CATALOGUE[name])
    if name.isidentifier():
        near = get_close_matches(name.lower(), [*STEP_RULES, *CATALOGUE], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RuleError(f"no step rule {name!r}; there are {', '.join(STEP_RULES)}.{hint}")
    raise RuleError(
        f"{name!r} does not say how its states are fed, so it is no whole step. Write the "
        "assignments, for instance 'v = beta2*v + (1-beta2)*grad**2; "
        "param = param - lr*grad/(sqrt(v)+eps)'."
    )


def from_update_rule(rule: UpdateRule, weight_decay: str | None = None) -> StepRule:
    """The step of an update rule, one microbatch a step: param - lr*update.

    Parameters
    ----------
    rule : UpdateRule
        whose statistics are polynomials of the gradient
    weight_decay : None, "decoupled" (before the step) or "coupled" (into the gradient)

    Raises
    ------
    RuleError
        for a statistic that is not a function of the gradient.

    Examples
    --------
    >>> from deltabias.rules import get_rule
    >>> print(from_update_rule(get_rule("rmsprop")).text.splitlines()[-1])
    param = -gradient*lr/(eps + sqrt(square_avg)) + param
    """
    if weight_decay not in DECAYS:
        raise RuleError(f"{weight_decay=} must be None, 'decoupled' or 'coupled'.")
    grad, t = symbol("grad"), symbol("t")
    steps: list = [MAXIMIZE]
    if weight_decay is not None:
        steps.append(DECOUPLED if weight_decay == "decoupled" else COUPLED)
    renamed = {h.symbol: symbol(h.name) for h in rule.all_hypers}
    for state in rule.states:
        statistic, own = state.statistic, symbol(state.name)
        if statistic.opaque or statistic.observation != GRADIENT:
            raise RuleError(
                f"rule {rule.name!r}: the statistic {statistic.name!r} of state {state.name!r} is "
                "no function of the gradient alone; write a StepRule that says how it is fed."
            )
        fed = statistic.sample.subs(GRADIENT, grad)
        fed = fed if statistic.outer is None else statistic.outer.subs(MEAN, fed)
        renamed[state.symbol] = own
        if isinstance(state, Ema):
            beta = symbol(state.beta.name)
            steps.append((state.name, beta * own + (1 - beta) * fed))
            if state.debias:
                renamed[state.symbol] = own / (1 - beta**t)
        else:
            steps.append((state.name, own + fed if isinstance(state, Total) else fed))
    update = rule.update.subs(renamed, simultaneous=True)
    steps.append(("param", symbol("param") - symbol("lr") * update))
    hypers = tuple(usual_range(h.name, h.default) for h in rule.all_hypers)
    return StepRule(rule.name, tuple(steps), hypers, title=rule.title)


def load_step_rule(path: str | Path) -> StepRule:
    """The step rule that a TOML file describes; see the module for the format.

    Raises
    ------
    RuleError, ParseError
        naming the file and what is wrong in it.
    """
    path = Path(path)
    try:
        return _from_table(_read(path))
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


def _from_table(table: dict) -> StepRule:
    if "update" in table and "steps" not in table:
        return from_update_rule(_update_rule(table))
    if unknown := [k for k in table if k not in KEYS]:
        raise RuleError(f"{', '.join(unknown)}: unknown key; allowed are {', '.join(KEYS)}.")
    if "steps" not in table:
        raise RuleError("has no 'steps', a list of assignments such as 'param = param - lr*grad'.")
    for key in ("hypers", "initial"):
        if not isinstance(table.get(key, {}), dict):
            raise RuleError(f"{key} must be a table of names.")
    for key in ("name", "title", "source"):
        if not isinstance(table.get(key, ""), str):
            raise RuleError(f"{key} must be a string.")
    return StepRule(
        table.get("name", "custom"),
        table["steps"],
        tuple(_range(n, v) for n, v in table.get("hypers", {}).items()),
        table.get("initial", {}),
        table.get("adjust", ()),
        table.get("title", ""),
        table.get("source", ""),
    )


def _update_rule(table: dict) -> UpdateRule:
    from deltabias.rule_file import _rule

    rule = _rule(table)
    if not isinstance(rule, UpdateRule):
        raise RuleError("is a matrix rule; only elementwise steps can be run.")
    return rule


def _range(name: str, value: object) -> HyperRange:
    if isinstance(value, bool | int | float):
        return usual_range(name, value)
    if not isinstance(value, Mapping) or "default" not in value:
        raise RuleError(
            f"[hypers] {name}={value!r} must be a number or {{default = …, low, high}}."
        )
    usual = usual_range(name, value["default"])
    known = {"default", "low", "high", "kind", "argument"}
    if unknown := set(value) - known:
        raise RuleError(f"[hypers] {name}: unknown {', '.join(sorted(unknown))}.")
    argument = value.get("argument")
    low, high = value.get("low", usual.low), value.get("high", usual.high)
    kind = value.get("kind", usual.kind if low > 0 or usual.kind == "flag" else "linear")
    names = (argument,) if argument else usual.arguments
    return HyperRange(name, value["default"], low, high, kind, usual.absent, names)


__all__ = ["from_update_rule", "load_step_rule", "resolve_step_rule"]
