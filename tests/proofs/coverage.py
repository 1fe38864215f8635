"""Which theorem a test evaluates: the register that a test compares with the sources."""

from collections.abc import Callable

EVALUATED: dict[str, str] = {}
"""``file.theorem`` to the name of the test that evaluates both of its sides."""


def evaluates(*theorems: str) -> Callable:
    """Decorator: this test computes both sides of these theorems."""

    def register(test: Callable) -> Callable:
        for theorem in theorems:
            EVALUATED[theorem] = test.__name__
        return test

    return register
