"""Reads the matrix terms of a certificate back and computes them with mpmath.

Written against the grammar of the certificates' text: ``A ** B``, ``add A B``, ``scale c A``,
``transpose A``, ``D_f A`` (a first order), ``DD_f A`` (a second one), ``(delta 2%nat)``, names.
"""

import re
from collections.abc import Callable, Mapping

import mpmath
from mpmath import mpf

TOKEN = re.compile(r"\s*(\*\*|[A-Za-z_][\w']*|\d+%nat|\d+|[-+*/^()])")
DEFINITION = re.compile(
    r"^Definition (\w+)(?: \(delta : direction\))? : matrix :=\s+(.*?)\.\n", re.S | re.M
)


class Words:
    """The matrices a certificate defines; `known` are its variables, `functions` its D_ and DD_."""

    def __init__(self, text: str, known: Mapping, functions: Mapping[str, Callable]):
        self.bodies = {m[1]: m[2] for m in DEFINITION.finditer(text)}
        self.known, self.functions = known, functions
        self._done: dict[tuple, mpmath.matrix] = {}

    def __call__(self, name: str, delta) -> mpmath.matrix:
        """The value of a defined matrix, for these deviations."""
        key = (name, id(delta))
        if key not in self._done:
            self._done[key] = _Reader(self.bodies[name], self, delta).whole()
        return self._done[key]


class _Reader:
    def __init__(self, text: str, words: Words, delta):
        self.tokens, self.place = TOKEN.findall(text), 0
        self.words, self.delta = words, delta

    def whole(self):
        value = self.product()
        assert self.place == len(self.tokens), self.tokens[self.place :]
        return value

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        assert not expected or token == expected, (token, expected)
        self.place += 1
        return token

    def product(self):
        total = self.application()
        while self.peek() == "**":
            self.take()
            total = total * self.application()
        return total

    def application(self):
        head = self.peek()
        if head == "add":
            self.take()
            return self.atom() + self.atom()
        if head == "scale":
            self.take()
            return self.scalar() * self.atom()
        if head == "transpose":
            self.take()
            return self.atom().T
        if head == "delta":
            self.take()
            return self.delta[int(self.take().removesuffix("%nat"))]
        if head in self.words.functions:
            self.take()
            count, function = self.words.functions[head]
            return function(*(self.atom() for _ in range(count)))
        if head in self.words.bodies:
            self.take()
            if self.peek() == "delta":
                self.take()
            return self.words(head, self.delta)
        return self.atom()

    def atom(self):
        if self.peek() == "(":
            self.take()
            value = self.product()
            self.take(")")
            return value
        name = self.take()
        return self.words.known[name] if name in self.words.known else self.words(name, self.delta)

    def scalar(self):
        """A number, a quotient of numbers or a hyperparameter, in parentheses or not."""
        if self.peek() != "(":
            token = self.take()
            return mpf(token) if token.isdigit() else self.words.known[token]
        depth, inside = 0, []
        while True:
            token = self.take()
            depth += {"(": 1, ")": -1}.get(token, 0)
            inside.append(token)
            if depth == 0:
                break
        assert all(re.fullmatch(r"[-/()]|\d+", t) for t in inside), inside
        # exact: numerals become mpf before they are divided
        return eval("".join(f"mpf({t})" if t.isdigit() else t for t in inside), {"mpf": mpf})
