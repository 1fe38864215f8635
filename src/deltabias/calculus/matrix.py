r"""Matrix expressions, and their expansion through second order without commuting anything.

An expression is a tree of frozen records. `expand` walks it once and gives its *jet*: for
arguments :math:`X + \tau\,\delta X`, the coefficients of 1, τ and τ². Which algebra the
coefficients live in is the caller's: noncommutative symbols to be read, or lines of code.

    sum        (A + B)₂ = A₂ + B₂
    product    (A B)₂   = A₂ B + A₁ B₁ + A B₂
    transpose  (Aᵀ)₂    = (A₂)ᵀ
    f(A)       f(A)₁    = D f(A)[A₁],   f(A)₂ = D f(A)[A₂] + f₂(A)[A₁]   (see `spectral`)

First orders are kept apart by where the randomness entered, so every product of two of them has a
name: *inversion* within one function of a matrix, *cross* between two of them, *coupling* between
one of them and what it multiplies.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol

import sympy as sp

from deltabias.calculus.spectral import SpectralMap

NAMES = ("inversion", "cross", "coupling", "product")
"""Of second orders: within one function, between two, between one and a factor, of factors."""


@dataclass(frozen=True, eq=False, repr=False)
class MatrixExpr:
    """Abstract: a matrix-valued expression. Equal if built alike.

    Trees share subtrees, and written out may have no end: two are compared by a digest of their
    parts' digests, each computed once.
    """

    @cached_property
    def _digest(self) -> bytes:
        def said(value: object) -> bytes:
            if isinstance(value, MatrixExpr):
                return value._digest
            if isinstance(value, tuple):
                return b"(" + b",".join(map(said, value)) + b")"
            return repr(sp.srepr(value) if isinstance(value, sp.Basic) else value).encode()

        parts = [type(self).__name__.encode(), *(said(getattr(self, f.name)) for f in fields(self))]
        return sha256(b"|".join(parts)).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self._digest == other._digest)

    def __repr__(self) -> str:
        """To a depth of four: written out, a tree that shares subtrees may have no end."""
        return self._shown(4)

    def _shown(self, depth: int) -> str:
        def show(value: object) -> str:
            if isinstance(value, tuple):
                return f"({', '.join(map(show, value))})"
            return value._shown(depth - 1) if isinstance(value, MatrixExpr) else str(value)

        inner = ", ".join(show(getattr(self, f.name)) for f in fields(self)) if depth else "…"
        return f"{type(self).__name__}({inner})"

    @property
    def children(self) -> tuple["MatrixExpr", ...]:
        return ()

    def walk(self) -> Iterator["MatrixExpr"]:
        """Every node, inner ones first, equal ones once."""
        seen: dict[MatrixExpr, None] = {}

        def visit(node: MatrixExpr) -> None:
            if node in seen:
                return
            for child in node.children:
                visit(child)
            seen[node] = None

        visit(self)
        yield from seen

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the random matrices, in the order of their first use."""
        return tuple(n.name for n in self.walk() if isinstance(n, MatrixSymbol))

    @property
    def hypers(self) -> tuple[str, ...]:
        """Names of the scalars, sorted."""
        return tuple(sorted({s.name for n in self.walk() for s in n.scalars}))

    @property
    def scalars(self) -> set[sp.Symbol]:
        """The scalar symbols of this node alone."""
        return set()


@dataclass(frozen=True, eq=False, repr=False)
class MatrixSymbol(MatrixExpr):
    """A random matrix."""

    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Identity(MatrixExpr):
    """The identity, of the size that its neighbors ask for."""


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(MatrixExpr):
    """A scalar times a matrix; the scalar is a number or an expression in hyperparameters."""

    coefficient: sp.Expr
    body: MatrixExpr

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return (self.body,)

    @property
    def scalars(self) -> set[sp.Symbol]:
        return self.coefficient.free_symbols


@dataclass(frozen=True, eq=False, repr=False)
class Sum(MatrixExpr):
    """A sum of two or more."""

    terms: tuple[MatrixExpr, ...]

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return self.terms


@dataclass(frozen=True, eq=False, repr=False)
class Product(MatrixExpr):
    """A product of two or more, in order."""

    factors: tuple[MatrixExpr, ...]

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return self.factors


@dataclass(frozen=True, eq=False, repr=False)
class Transpose(MatrixExpr):
    """A transposed matrix."""

    body: MatrixExpr

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return (self.body,)


@dataclass(frozen=True, eq=False, repr=False)
class Spectral(MatrixExpr):
    """A primary function of a symmetric matrix."""

    map: SpectralMap
    body: MatrixExpr

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return (self.body,)

    @property
    def scalars(self) -> set[sp.Symbol]:
        return self.map.hypers


@dataclass(frozen=True, eq=False, repr=False)
class Elementwise(MatrixExpr):
    """A scalar map applied entry by entry to matrices of one shape."""

    expression: sp.Expr
    names: tuple[str, ...]
    arguments: tuple[MatrixExpr, ...]

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return self.arguments

    @property
    def variables(self) -> tuple[sp.Symbol, ...]:
        """The scalar symbols of the map, one an argument."""
        by_name = {s.name: s for s in self.expression.free_symbols}
        return tuple(by_name.get(n, sp.Symbol(n)) for n in self.names)

    @property
    def scalars(self) -> set[sp.Symbol]:
        return {s for s in self.expression.free_symbols if s.name not in self.names}


@dataclass(frozen=True, eq=False, repr=False)
class Normalized(MatrixExpr):
    """A matrix over its Frobenius norm, plus an eps that keeps zero at zero."""

    body: MatrixExpr

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return (self.body,)


@dataclass(frozen=True, eq=False, repr=False)
class Named(MatrixExpr):
    """An intermediate result with a name of its own: derivations print it as a symbol."""

    name: str
    body: MatrixExpr

    @property
    def children(self) -> tuple[MatrixExpr, ...]:
        return (self.body,)


@dataclass(frozen=True)
class Jet:
    """Value, first orders by the function they came through (or None), second orders by name."""

    value: Any
    first: Mapping[MatrixExpr | None, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)


class Algebra(Protocol):
    """What `expand` computes with.

    A *value* does not depend on the direction, a *first* is linear in it, a *second* quadratic
    (and, in code, summed over the directions). `settle` may put a function's own second order
    into its value; what it leaves travels on.
    """

    def symbol(self, name: str) -> Any: ...
    def deviation(self, name: str) -> Any: ...
    def identity(self) -> Any: ...
    def add(self, items: list[Any]) -> Any: ...
    def scale(self, coefficient: sp.Expr, item: Any) -> Any: ...
    def multiply(self, left: Any, right: Any) -> Any: ...
    def transpose(self, item: Any) -> Any: ...
    def spectral(self, node: Spectral, argument: Any) -> Any: ...
    def spectral_first(self, node: Spectral, item: Any) -> Any: ...
    def spectral_second(self, node: Spectral, first: Any) -> Any: ...
    def settle(self, node: MatrixExpr, value: Any, second: dict) -> tuple[Any, dict]: ...
    def elementwise(self, node: Elementwise, arguments: list[Any]) -> Any: ...
    def elementwise_first(self, node: Elementwise, i: int, first: Any) -> Any: ...
    def elementwise_second(self, node: Elementwise, i: int, j: int, a: Any, b: Any) -> Any: ...
    def named(self, node: Named, jet: Jet) -> Jet: ...
    def normalized(self, node: Normalized, argument: Any) -> Any: ...
    def normalized_first(self, node: Normalized, first: Any) -> Any: ...
    def normalized_second(self, node: Normalized, first: Any) -> Any: ...


def expand(expression: MatrixExpr, algebra: Algebra) -> Jet:
    """The jet of an expression through second order, equal subexpressions once."""
    jets: dict[MatrixExpr, Jet] = {}
    for node in expression.walk():
        jets[node] = _jet(node, [jets[c] for c in node.children], algebra)
    return jets[expression]


def _jet(node: MatrixExpr, children: list[Jet], algebra: Algebra) -> Jet:
    match node:
        case MatrixSymbol(name):
            return Jet(algebra.symbol(name), {None: algebra.deviation(name)})
        case Identity():
            return Jet(algebra.identity())
        case Scaled(coefficient, _):
            return _mapped(children[0], lambda item: algebra.scale(coefficient, item))
        case Transpose():
            return _mapped(children[0], algebra.transpose)
        case Sum():
            return Jet(
                algebra.add([c.value for c in children]),
                _collected(((k, v) for c in children for k, v in c.first.items()), algebra),
                _collected(((k, v) for c in children for k, v in c.second.items()), algebra),
            )
        case Product():
            total = children[0]
            for child in children[1:]:
                total = _multiplied(total, child, algebra)
            return total
        case Named():
            return algebra.named(node, children[0])
        case Spectral():
            return _spectral(node, children[0], algebra)
        case Elementwise():
            return _elementwise(node, children, algebra)
        case Normalized():
            return _normalized(node, children[0], algebra)
    raise TypeError(f"{type(node).__name__} is not a matrix expression.")


def _mapped(jet: Jet, change) -> Jet:
    return Jet(
        change(jet.value),
        {k: change(v) for k, v in jet.first.items()},
        {k: change(v) for k, v in jet.second.items()},
    )


def _collected(items: Iterable[tuple[Any, Any]], algebra: Algebra) -> dict[Any, Any]:
    grouped: dict[Any, list[Any]] = {}
    for key, item in items:
        grouped.setdefault(key, []).append(item)
    return {k: v[0] if len(v) == 1 else algebra.add(v) for k, v in grouped.items()}


def _multiplied(left: Jet, right: Jet, algebra: Algebra) -> Jet:
    times = algebra.multiply
    first = [(k, times(a, right.value)) for k, a in left.first.items()]
    first += [(k, times(left.value, b)) for k, b in right.first.items()]
    second = [(k, times(a, right.value)) for k, a in left.second.items()]
    second += [(k, times(left.value, b)) for k, b in right.second.items()]
    second += [
        (_name(k, n), times(a, b)) for k, a in left.first.items() for n, b in right.first.items()
    ]
    return Jet(
        times(left.value, right.value), _collected(first, algebra), _collected(second, algebra)
    )


def _name(left: MatrixExpr | None, right: MatrixExpr | None) -> str:
    """What a product of two first orders is called."""
    outside = (left, right).count(None)
    return ("cross", "coupling", "product")[outside]


def _total(parts: Mapping[Any, Any], algebra: Algebra) -> Any | None:
    items = list(parts.values())
    return None if not items else items[0] if len(items) == 1 else algebra.add(items)


def _through(
    node: MatrixExpr, argument: Jet, value: Any, algebra: Algebra, linear, quadratic
) -> Jet:
    """A function of one matrix: its first order is a new source, its second order inversion."""
    first, second = _total(argument.first, algebra), _total(argument.second, algebra)
    if first is None:
        return Jet(value)
    parts = [quadratic(node, first)]
    if second is not None:
        parts.append(linear(node, second))
    own = parts[0] if len(parts) == 1 else algebra.add(parts)
    value, rest = algebra.settle(node, value, {"inversion": own})
    return Jet(value, {node: linear(node, first)}, rest)


def _spectral(node: Spectral, argument: Jet, algebra: Algebra) -> Jet:
    value = algebra.spectral(node, argument.value)
    return _through(node, argument, value, algebra, algebra.spectral_first, algebra.spectral_second)


def _normalized(node: Normalized, argument: Jet, algebra: Algebra) -> Jet:
    value = algebra.normalized(node, argument.value)
    return _through(
        node, argument, value, algebra, algebra.normalized_first, algebra.normalized_second
    )


def _elementwise(node: Elementwise, arguments: list[Jet], algebra: Algebra) -> Jet:
    value = algebra.elementwise(node, [a.value for a in arguments])
    firsts = [_total(a.first, algebra) for a in arguments]
    seconds = [_total(a.second, algebra) for a in arguments]
    first, second = [], []
    for i, argument in enumerate(firsts):
        if argument is None:
            continue
        first.append((node, algebra.elementwise_first(node, i, argument)))
        if seconds[i] is not None:
            second.append(("inversion", algebra.elementwise_first(node, i, seconds[i])))
        for j in range(i, len(firsts)):
            if firsts[j] is not None:
                item = algebra.elementwise_second(node, i, j, argument, firsts[j])
                if item is not None:
                    second.append(("inversion" if i == j else "coupling", item))
    value, rest = algebra.settle(node, value, _collected(second, algebra))
    return Jet(value, _collected(first, algebra), rest)
