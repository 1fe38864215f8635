"""Reads the definitions of a certificate back and computes them with mpmath.

Written against Coq's grammar, not against the printer: precedences are those of the reals'
notations (``^`` over ``/ x`` and ``- x`` over ``*`` and ``/`` over ``+`` and ``-``; application
binds closest).
"""

import re
from collections.abc import Callable

import mpmath
from mpmath import mpf

TOKEN = re.compile(r"\s*(let|in\b|:=|<=|[A-Za-z_][\w']*|\d+|[-+*/^()])")
DEFINITION = re.compile(
    r"^Definition (\w+)\s+\(([\w\s]+?)\s+:\s+R\)\s+:\s+R\s+:=\s(.*?)\.\n", re.S | re.M
)
FUNCTIONS: dict[str, tuple[int, Callable]] = {
    "sqrt": (1, mpmath.sqrt),
    "exp": (1, mpmath.exp),
    "ln": (1, mpmath.log),
    "atan": (1, mpmath.atan),
    "tanh_": (1, mpmath.tanh),
    "root": (2, lambda degree, x: mpmath.power(x, 1 / degree)),
    "Rmax": (2, max),
    "Rmin": (2, min),
    "Rabs": (1, abs),
}


class Definitions:
    """The functions a certificate defines; `hypers` are the values of its section variables."""

    def __init__(self, text: str, **hypers: object):
        self.hypers = {name: mpf(str(value)) for name, value in hypers.items()}
        plain = re.sub(r"\(\*.*?\*\)", "", text, flags=re.S)
        self.bodies = {m[1]: (m[2].split(), m[3]) for m in DEFINITION.finditer(plain)}

    def __call__(self, name: str, *values: object):
        """The value of a defined function."""
        parameters, body = self.bodies[name]
        assert len(parameters) == len(values), (name, parameters)
        local = dict(zip(parameters, values, strict=True))
        return Reader(body, self, {**self.hypers, **local}).value()


class Reader:
    """Recursive descent over one term, computing as it reads."""

    def __init__(self, text: str, known: Definitions, names: dict):
        self.tokens = TOKEN.findall(text)
        self.known, self.names, self.place = known, names, 0

    def value(self):
        result = self.term()
        assert self.place == len(self.tokens), self.tokens[self.place :]
        return result

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        assert not expected or token == expected, (token, expected)
        self.place += 1
        return token

    def term(self):
        if self.peek() == "let":
            self.take()
            name = self.take()
            self.take(":=")
            value = self.term()
            self.take("in")
            self.names = {**self.names, name: value}
            return self.term()
        total = self.product()
        while self.peek() in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self):
        total = self.prefix()
        while self.peek() in ("*", "/"):
            total = total * self.prefix() if self.take() == "*" else total / self.prefix()
        return total

    def prefix(self):
        if self.peek() == "-":
            self.take()
            return -self.prefix()
        if self.peek() == "/":
            self.take()
            return 1 / self.prefix()
        return self.power()

    def power(self):
        base = self.application()
        if self.peek() == "^":
            self.take()
            return base ** int(self.take())
        return base

    def application(self):
        head = self.peek()
        if head in FUNCTIONS:
            self.take()
            count, function = FUNCTIONS[head]
            return function(*(self.atom() for _ in range(count)))
        if head in self.known.bodies and head not in self.names:
            self.take()
            return self.known(head, *(self.atom() for _ in self.known.bodies[head][0]))
        return self.atom()

    def atom(self):
        token = self.take()
        if token == "(":
            value = self.term()
            self.take(")")
            return value
        return mpf(token) if token.isdigit() else self.names[token]
