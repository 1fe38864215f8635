"""What a directive or a role is about: a rule by its name, its file or its mathematics."""

import ast
from functools import lru_cache
from pathlib import Path

import sympy as sp
from sphinx.environment import BuildEnvironment

import deltabias
from deltabias.codegen.sync import emit_any
from deltabias.derivation import Derivation, derive
from deltabias.errors import DeltabiasError
from deltabias.explain import Explanation, explain
from deltabias.matrix_derivation import MatrixDerivation, derive_matrix
from deltabias.matrix_rule import MatrixRule
from deltabias.rule import UpdateRule
from deltabias.rule_file import resolve_rule
from deltabias.rules import CATALOGUE, MATRIX_CATALOGUE

Rule = UpdateRule | MatrixRule
GENERATED = Path(deltabias.__file__).with_name("generated")


def find_rule(
    env: BuildEnvironment,
    text: str,
    hyper: dict[str, float] | None = None,
    named: str | None = None,
) -> Rule:
    """The rule that is meant; a file's path is relative to the page, or to the source with a ``/``.

    The page depends on the file, also on one that is missing or wrong, so that mending it is seen.

    Raises
    ------
    DeltabiasError
        for what is no rule, with what is allowed.
    """
    text = text.strip()
    if text.endswith(".toml"):
        relative, absolute = env.relfn2path(text)
        env.note_dependency(relative)
        text = str(Path(absolute))
    if named is None:
        return resolve_rule(text, hyper)
    rule = resolve_rule(text, hyper, name=named)
    if rule.name != named:
        raise DeltabiasError(
            f"option 'named': {named!r} names a rule that is typed; this one is {rule.name!r}."
        )
    return rule


@lru_cache(maxsize=64)
def derivation_of(rule: Rule) -> Derivation | MatrixDerivation:
    """Its derivation to leading order, once a process."""
    return derive_matrix(rule) if isinstance(rule, MatrixRule) else derive(rule)


@lru_cache(maxsize=64)
def explanation_of(rule: Rule, order: int = 1, strategy: str | None = None) -> Explanation:
    """Its explanation, once a process.

    Raises
    ------
    DeltabiasError
        for an order or a strategy that does not apply.
    """
    return explain(rule, order=order, strategy=strategy)


def formula_named(rule: Rule, name: str) -> sp.Basic:
    """One term of a rule's bias (all terms of that name), ``bias`` or ``update``.

    Raises
    ------
    DeltabiasError
        with the names that there are.
    """
    derivation = derivation_of(rule)
    if name == "update":
        matrices = isinstance(rule, MatrixRule)
        return derivation.steps[0].equation.rhs if matrices else rule.update
    if name == "bias":
        return derivation.delta_bias
    if terms := derivation.named(name):
        return sp.Add(*(t.value for t in terms))
    known = [*dict.fromkeys(t.name for t in derivation.terms), "bias", "update"]
    raise DeltabiasError(f"rule {rule.name!r} has no term {name!r}; it has {', '.join(known)}.")


@lru_cache(maxsize=64)
def module_of(rule: Rule) -> str:
    """The text of its generated module, once a process.

    That of a catalogue rule comes with the package, and is held to the rule by its own tests.
    """
    if rule is {**CATALOGUE, **MATRIX_CATALOGUE}.get(rule.name):
        return (GENERATED / f"{rule.name}.py").read_text(encoding="utf-8")
    return emit_any(rule).module


def functions_of(rule: Rule, names: tuple[str, ...] | None) -> str:
    """The module, or some of its functions in the order asked for.

    Raises
    ------
    DeltabiasError
        with the names that there are.
    """
    module = module_of(rule)
    if names is None:
        return module
    lines = module.splitlines()
    found = {
        node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.parse(module).body
        if isinstance(node, ast.FunctionDef)
    }
    if unknown := [n for n in names if n not in found]:
        raise DeltabiasError(
            f"the code of {rule.name!r} has no function {', '.join(unknown)}; it has "
            f"{', '.join(n for n in found if not n.startswith('_'))}."
        )
    return "\n\n\n".join(found[n] for n in names) + "\n"
