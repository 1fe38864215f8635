r"""From a matrix rule to its bias: every second-order term, named, and the steps that lead there.

    E T(S) - T(E S) = sum over terms of E[term] + O(1/m²)

A term is quadratic in the deviations dX = X - E X of the rule's matrices. ``first(P, E)`` and
``second(P, E)`` are the first and second order of the matrix function P along E, given entry by
entry in the eigenbasis by divided differences (`deltabias.calculus.spectral`).
"""

from dataclasses import dataclass

import sympy as sp

from deltabias.calculus.matrix import (
    NAMES,
    Elementwise,
    Jet,
    MatrixExpr,
    Named,
    Normalized,
    Spectral,
    expand,
)
from deltabias.calculus.spectral import EIGENVALUE, LEFT
from deltabias.derivation import Step, steps_html
from deltabias.matrix_rule import MatrixRule, bare_symbol
from deltabias.notation.printing import display


class first(sp.Function):
    """The first order of a function of matrices along a direction; linear in it."""

    is_commutative = False

    def _latex(self, printer, exp=None) -> str:
        return rf"\mathrm{{D}}{printer._print(self.args[0])}[{printer._print(self.args[1])}]"


class second(sp.Function):
    """The second order (the coefficient of τ²) of a function of matrices along a direction."""

    is_commutative = False

    def _latex(self, printer, exp=None) -> str:
        return rf"{printer._print(self.args[0])}^{{(2)}}[{printer._print(self.args[1])}]"


class mixed(sp.Function):
    """The second order of an elementwise map along two of its arguments."""

    is_commutative = False


class transpose(sp.Function):
    """A transposed matrix."""

    is_commutative = False
    nargs = 1

    def _latex(self, printer, exp=None) -> str:
        return rf"{printer._print(self.args[0])}^T"


@dataclass(frozen=True)
class MatrixTerm:
    """One second-order term: its name, and the noncommutative product whose mean it is."""

    name: str
    value: sp.Expr


@dataclass(frozen=True)
class MatrixDerivation:
    """The leading bias of a matrix rule.

    ``functions`` names every function of matrices that occurs in the terms, inner ones first.
    """

    rule: MatrixRule
    functions: tuple[tuple[sp.Symbol, MatrixExpr], ...]
    terms: tuple[MatrixTerm, ...]
    steps: tuple[Step, ...]

    @property
    def delta_bias(self) -> sp.Expr:
        """The sum of all terms; its mean is the bias to leading order."""
        return sp.Add(*(t.value for t in self.terms))

    def named(self, name: str) -> tuple[MatrixTerm, ...]:
        """The terms of one name: inversion, cross, coupling or product."""
        return tuple(t for t in self.terms if t.name == name)

    def _repr_latex_(self) -> str:
        return f"$\\displaystyle {display(self.steps[-1].equation, self.rule.notation)}$"

    def _repr_html_(self) -> str:
        return steps_html(self.rule.title or self.rule.name, self.steps, self.rule.notation)


def derive_matrix(rule: MatrixRule) -> MatrixDerivation:
    """The second order of a rule's whole update, noncommutatively.

    Examples
    --------
    >>> rule = MatrixRule.parse("inv_root(L + damping*I, 4) * M")
    >>> for term in derive_matrix(rule).terms:
    ...     print(term.name, term.value)
    coupling first(P_L, dL)*dM
    inversion second(P_L, dL)*M
    """
    reading = Reading(rule)
    jet = expand(rule.update, reading)
    terms = tuple(
        MatrixTerm(name, term)
        for name in sorted(jet.second, key=NAMES.index)
        for term in sp.Add.make_args(sp.expand(jet.second[name]))
        if term != 0
    )
    terms = tuple(sorted(terms, key=lambda t: (t.name, str(t.value))))
    return MatrixDerivation(
        rule, tuple(reading.functions), terms, _steps(rule, reading, jet, terms)
    )


class Reading:
    """Noncommutative symbols, to be read."""

    def __init__(self, rule: MatrixRule):
        self.rule = rule
        self.functions: list[tuple[sp.Symbol, MatrixExpr]] = []
        self.intermediate: list[tuple[sp.Symbol, sp.Expr]] = []
        self._names: dict[MatrixExpr, sp.Symbol] = {}
        self._symmetric: set[sp.Symbol] = {_matrix_symbol("I")}

    def symbol(self, name: str) -> sp.Symbol:
        return _matrix_symbol(name)

    def deviation(self, name: str) -> sp.Symbol:
        return _matrix_symbol(f"d{name}")

    def identity(self) -> sp.Symbol:
        return _matrix_symbol("I")

    def add(self, items):
        return sp.Add(*items)

    def scale(self, coefficient, item):
        return coefficient * item

    def multiply(self, left, right):
        return sp.expand(left * right)

    def transpose(self, item):
        return sp.Add(*(_transposed(t, self) for t in sp.Add.make_args(sp.expand(item))))

    def _function(self, node: MatrixExpr) -> sp.Symbol:
        if node not in self._names:
            bare = bare_symbol(node.body) if isinstance(node, Spectral) else None
            letter = {Spectral: "P", Elementwise: "F", Normalized: "N"}[type(node)]
            taken = {str(s) for s in self._names.values()}
            name = f"{letter}_{bare or len(taken) + 1}"
            name = name if name not in taken else f"{letter}_{len(taken) + 1}"
            self._names[node] = _matrix_symbol(name)
            self.functions.append((self._names[node], node))
        return self._names[node]

    def spectral(self, node, argument):
        return self._function(node)

    def spectral_first(self, node, item):
        return _linear(lambda e: first(self._function(node), e), item)

    def spectral_second(self, node, item):
        return second(self._function(node), item)

    def settle(self, node, value, parts):
        return value, parts

    def elementwise(self, node, arguments):
        return self._function(node)

    def _partial(self, node: Elementwise, *indices: int) -> sp.Symbol:
        letters = "".join(node.names[i] for i in indices)
        return _matrix_symbol(f"{self._function(node)}_{letters}")

    def elementwise_first(self, node, i, item):
        return _linear(lambda e: first(self._partial(node, i), e), item)

    def elementwise_second(self, node, i, j, a, b):
        variables = node.variables
        if sp.diff(node.expression, variables[i], variables[j]) == 0:
            return None
        if i == j:
            return second(self._partial(node, i, i), a)
        return mixed(self._partial(node, i, j), a, b)

    def named(self, node: Named, jet: Jet) -> Jet:
        """The name's own symbols; what they stand for becomes a step."""
        value, change, curvature = (_matrix_symbol(f"{d}{node.name}") for d in ("", "d", "dd"))
        first_order, second_order = sp.Add(*jet.first.values()), sp.Add(*jet.second.values())
        for symbol, meaning in ((value, jet.value), (change, first_order)):
            self.intermediate.append((symbol, meaning))
        if second_order == 0:
            return Jet(value, {None: change})
        self.intermediate.append((curvature, second_order))
        self._symmetric |= {s for s, m in self.intermediate[-3:] if self.transpose(m) == m}
        return Jet(value, {None: change}, {"inversion": curvature})

    def normalized(self, node, argument):
        return self._function(node)

    def normalized_first(self, node, item):
        return _linear(lambda e: first(self._function(node), e), item)

    def normalized_second(self, node, item):
        return second(self._function(node), item)

    def is_symmetric(self, item: sp.Expr) -> bool:
        """Whether a noncommutative factor is its own transpose."""
        symmetric = {_matrix_symbol(n) for s in self.rule.symmetric for n in (s, f"d{s}")}
        spectral = {s for s, n in self.functions if isinstance(n, Spectral)}
        if isinstance(item, first | second):
            return item.args[0] in spectral
        return item in symmetric | spectral | self._symmetric


def _matrix_symbol(name: str) -> sp.Symbol:
    return sp.Symbol(name, commutative=False)


def _linear(function, item: sp.Expr) -> sp.Expr:
    total = sp.Integer(0)
    for term in sp.Add.make_args(sp.expand(item)):
        commuting, rest = term.args_cnc() if term.is_Mul else ([], [term])
        total += sp.Mul(*commuting) * function(sp.Mul(*rest))
    return total


def _transposed(term: sp.Expr, reading: Reading) -> sp.Expr:
    commuting, rest = term.args_cnc() if term.is_Mul else ([], [term])
    factors = [b for f in rest for b in _powers(f)]
    turned = [
        f.args[0] if isinstance(f, transpose) else f if reading.is_symmetric(f) else transpose(f)
        for f in reversed(factors)
    ]
    return sp.Mul(*commuting) * sp.Mul(*turned)


def _powers(factor: sp.Expr) -> list[sp.Expr]:
    base, exponent = factor.as_base_exp()
    return [base] * int(exponent) if exponent.is_Integer and exponent > 0 else [factor]


def _steps(rule: MatrixRule, reading: Reading, jet, terms) -> tuple[Step, ...]:
    update = _matrix_symbol("U")
    value = jet.value if isinstance(jet.value, sp.Expr) else sp.Symbol("T")
    steps = [Step("The update as a map of its matrices", sp.Eq(update, value, evaluate=False))]
    for symbol, node in reading.functions:
        if isinstance(node, Spectral):
            steps += _spectral_steps(symbol, node)
        elif isinstance(node, Elementwise):
            steps.append(
                Step("A map entry by entry", sp.Eq(symbol, node.expression, evaluate=False))
            )
    steps += [
        Step("An intermediate result", sp.Eq(s, m, evaluate=False)) for s, m in reading.intermediate
    ]
    steps += [Step(f"{t.name}: second order in the deviations", t.value) for t in terms]
    total = sp.Add(*(t.value for t in terms))
    bias = sp.Symbol("delta_bias")
    return (*steps, Step("The mean of this is the delta bias", sp.Eq(bias, total, evaluate=False)))


def _spectral_steps(symbol: sp.Symbol, node: Spectral) -> list[Step]:
    """f, its divided differences in the eigenbasis, and the one at equal eigenvalues."""
    f, entry = node.map, sp.Function(f"{symbol}")
    i, k, j = sp.symbols("s_i s_k s_j", positive=True)

    def line(text: str, arguments: tuple[sp.Symbol, ...], value: sp.Expr) -> Step:
        return Step(text, sp.Eq(entry(*arguments), value, evaluate=False))

    return [
        line(
            f"{symbol} is f of {describe(node.body)}; with the eigenvalues' roots λ = s^{f.degree}"
            + ("" if f.separates else "; quotients stand for their limits where points meet"),
            (i,),
            f.value.subs(LEFT, i),
        ),
        line("First order in the eigenbasis: E_ij times f[λ_i, λ_j]", (i, j), f.first(i, j)),
        line(
            "Second order: the sum over k of E_ik E_kj times f[λ_i, λ_k, λ_j]",
            (i, k, j),
            f.second(i, k, j),
        ),
        line("which at equal eigenvalues is ½ f''", (i, i, i), sp.simplify(f.second(i, i, i))),
    ]


def describe(node: MatrixExpr) -> str:
    """An expression in the language it was typed in."""
    from deltabias.calculus import matrix as m

    match node:
        case m.MatrixSymbol(name):
            return name
        case m.Identity():
            return "I"
        case m.Scaled(c, body):
            return f"{c}*{_in_product(body)}"
        case m.Sum(terms):
            return " + ".join(map(describe, terms))
        case m.Product(factors):
            return "*".join(map(_in_product, factors))
        case m.Transpose(body):
            return f"{_in_product(body)}.T"
        case m.Spectral(f, body):
            base, exponent = f.expression.as_base_exp()
            if base == EIGENVALUE and exponent.is_negative:
                return f"inv_root({describe(body)}, {-1 / exponent})"
            return f'spectral("{f.expression}", {describe(body)})'
        case m.Elementwise(e, names, arguments):
            pairs = (f"{n}={describe(a)}" for n, a in zip(names, arguments, strict=True))
            return f'elementwise("{e}", {", ".join(pairs)})'
        case m.Normalized(body):
            return f"normalize({describe(body)})"
        case m.Named(name, _):
            return name
    raise TypeError(f"{type(node).__name__} is not a matrix expression.")


def _in_product(node: MatrixExpr) -> str:
    text = describe(node)
    return f"({text})" if " + " in text and not text.endswith(")") else text
