"""The catalogue: one rule per file, a page of mathematics each."""

from difflib import get_close_matches

from deltabias.errors import RuleError
from deltabias.rule import UpdateRule
from deltabias.rules import adagrad, adam, inverse, inverse_sqrt, rmsprop, sophia

CATALOGUE: dict[str, UpdateRule] = {
    rule.name: rule
    for module in (inverse, inverse_sqrt, rmsprop, adam, sophia, adagrad)
    for rule in module.RULES
}


def get_rule(name: str) -> UpdateRule:
    """The catalogue's rule of that name.

    Raises
    ------
    RuleError
        with the names there are.
    """
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RuleError(f"no rule {name!r}; the catalogue has {', '.join(CATALOGUE)}.{hint}")
    return CATALOGUE[name]


__all__ = ["CATALOGUE", "get_rule"]
