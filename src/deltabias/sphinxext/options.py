"""Options of directives, checked by us: an unknown one is told with those that there are."""

from collections.abc import Callable, Mapping

from deltabias.correction import STRATEGIES
from deltabias.derivation import MAX_ORDER
from deltabias.explain import FORMS, KINDS


class OptionError(ValueError):
    """An option, or its value, that a directive does not have; the text says what it has."""


class AnyOption(dict):
    """Accepts every name, so that ours is the message about an unknown one.

    docutils and MyST look options up in a mapping and say only that a name is unknown.
    """

    def __bool__(self) -> bool:
        return True

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Callable[[object], object]:
        return lambda value: value


Reader = Callable[[str], object]


def read_options(given: Mapping[str, object], allowed: Mapping[str, Reader]) -> dict:
    """The values of options, each read by its reader.

    Raises
    ------
    OptionError
        naming the option, what was passed and what is allowed.

    Examples
    --------
    >>> read_options({"order": "2"}, DERIVATION)
    {'order': 2}
    >>> read_options({"oder": "2"}, {"order": order})
    Traceback (most recent call last):
    ...
    deltabias.sphinxext.options.OptionError: no option 'oder'; allowed are order.
    """
    found = {}
    for name, value in given.items():
        if name not in allowed:
            raise OptionError(f"no option {name!r}; allowed are {', '.join(allowed)}.")
        try:
            found[name.replace("-", "_")] = allowed[name]("" if value is None else str(value))
        except ValueError as error:
            raise OptionError(f"option {name!r}: {error}") from error
    return found


def flag(text: str) -> bool:
    """An option without a value."""
    if text.strip() not in ("", "True"):
        raise ValueError(f"{text!r} is too much; it takes no value.")
    return True


def words(text: str) -> tuple[str, ...]:
    """Words with commas or spaces in between; at least one."""
    found = tuple(text.replace(",", " ").split())
    if not found:
        raise ValueError("is empty; give one or more, with commas in between.")
    return found


def text(value: str) -> str:
    """Anything but nothing."""
    if not value.strip():
        raise ValueError("is empty; it takes a text.")
    return value.strip()


def order(value: str) -> int:
    """1 to 3."""
    known = [str(n) for n in range(1, MAX_ORDER + 1)]
    if value.strip() not in known:
        raise ValueError(f"{value!r} is no order; use {', '.join(known)}.")
    return int(value)


def strategy(value: str) -> str:
    """A strategy of a scalar rule, or a form of a matrix rule."""
    known = (*STRATEGIES, *FORMS)
    if value.strip() not in known:
        raise ValueError(f"{value!r} is no correction; use one of {', '.join(known)}.")
    return value.strip()


def kinds(value: str) -> tuple[str, ...]:
    """Kinds of steps; ``all`` or ``none``."""
    found = words(value)
    if found in (("all",), ("none",)):
        return KINDS if found == ("all",) else ()
    if unknown := [k for k in found if k not in KINDS]:
        raise ValueError(f"{', '.join(unknown)}: use all, none, or some of {', '.join(KINDS)}.")
    return found


def hypers(value: str) -> dict[str, float]:
    """``NAME`` or ``NAME=VALUE``, with spaces in between; without a value 1e-8, that of eps."""
    found = {}
    for pair in words(value):
        name, equals, number = pair.partition("=")
        try:
            found[name] = float(number) if equals else 1e-8
        except ValueError:
            raise ValueError(f"{pair!r}: {number!r} is no number; write NAME=0.5.") from None
    return found


_OF_TYPED: Mapping[str, Reader] = {"hyper": hypers, "named": text}
RULE: Mapping[str, Reader] = {**_OF_TYPED, "no-index": flag}
DERIVATION: Mapping[str, Reader] = {
    **_OF_TYPED,
    "order": order,
    "correction": strategy,
    "steps": words,
    "open": kinds,
}
CODE: Mapping[str, Reader] = {**_OF_TYPED, "function": words, "linenos": flag, "caption": text}
