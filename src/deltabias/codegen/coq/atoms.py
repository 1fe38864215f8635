"""A map of one statistic as a rational function of *atoms*: roots, exponentials, logarithms.

With v = s^k every root of v is a power of s, so an algebraic map becomes rational in s; every other
nested function becomes an atom of its own, whose derivative is rational in the atoms before it.
Differentiating stays inside the field of rational functions, where `field` decides equalities.
"""

from dataclasses import dataclass, field
from math import lcm

import sympy as sp

from deltabias.errors import CertifyError

ROOT = "s"
SMOOTH = {sp.exp: "exp", sp.log: "ln", sp.tanh: "tanh_", sp.atan: "atan"}


@dataclass(frozen=True)
class Atom:
    """``name(v) = head(inner)``: ``head`` is sqrt, root, exp, ln, tanh_ or atan.

    ``inner`` and ``derivative`` are rational in v and the atoms before (and this one);
    ``original`` is the same value in the rule's own symbols. ``rises`` says that it is positive
    and does not fall, by its form, wherever v > 0.
    """

    name: str
    symbol: sp.Symbol
    head: str
    degree: int
    inner: sp.Expr
    original: sp.Expr
    inner_derivative: sp.Expr
    derivative: sp.Expr
    rises: bool


@dataclass
class Field:
    """The atoms of a map of ``statistic``, and the map written in them."""

    statistic: sp.Symbol
    hypers: tuple[sp.Symbol, ...]
    atoms: list[Atom] = field(default_factory=list)
    degree: int = 1
    promoted: set[sp.Symbol] = field(default_factory=set)
    """Hyperparameters that have to be positive, because a denominator vanishes with them."""
    numeric: bool = False
    """On a box of numbers nothing is positive by form; it is shown by intervals."""

    def convert(self, expression: sp.Expr) -> sp.Expr:
        """The expression in atoms, factored.

        Raises
        ------
        CertifyError
            for a function without a derivative in the theory.
        """
        self.degree = _root_degree(expression, self.statistic)
        if self.degree > 1:
            self._add_root_of_statistic()
        return self.tidy(self._convert(expression))

    @staticmethod
    def tidy(expression: sp.Expr) -> sp.Expr:
        return sp.factor(sp.together(expression))

    def derive(self, expression: sp.Expr) -> sp.Expr:
        """d/dv of what is written in atoms."""
        total = sp.diff(expression, self.statistic)
        for atom in self.atoms:
            total += sp.diff(expression, atom.symbol) * atom.derivative
        return self.tidy(total)

    def tower(self, expression: sp.Expr, order: int) -> list[sp.Expr]:
        """The expression and its derivatives up to an order."""
        derivatives = [expression]
        for _ in range(order):
            derivatives.append(self.derive(derivatives[-1]))
        return derivatives

    # -- positivity by form ----------------------------------------------------------------------

    def positive(self, expression: sp.Expr, *, promote: bool = True) -> bool:
        """Whether a polynomial is positive because its terms are not negative and one is positive.

        With `promote`, a hyperparameter that only has to be non-zero for that is noted.
        """
        if self.numeric or not self._rising_symbols(expression) or not expression.is_polynomial():
            return False
        terms = sp.Poly(expression, *sorted(expression.free_symbols, key=str)).terms()
        if not expression.free_symbols:
            return bool(expression > 0)
        if any(c < 0 for _, c in terms):
            return False
        symbols = sorted(expression.free_symbols, key=str)
        weak = [
            {s for s, k in zip(symbols, powers, strict=True) if k} & self._weak
            for powers, _ in terms
        ]
        if any(not w for w in weak):
            return True
        if promote:
            self.promoted |= min(weak, key=len)
        return promote

    @property
    def _weak(self) -> set[sp.Symbol]:
        return set(self.hypers) - self.promoted

    def _rising_symbols(self, expression: sp.Expr) -> bool:
        falling = {a.symbol for a in self.atoms if not a.rises}
        return not expression.free_symbols & falling

    # -- conversion ------------------------------------------------------------------------------

    def _add_root_of_statistic(self) -> None:
        symbol, k = sp.Symbol(ROOT, positive=True), self.degree
        head = "sqrt" if k == 2 else "root"
        one, v = sp.Integer(1), self.statistic
        slope = 1 / (k * symbol ** (k - 1))
        root = v ** sp.Rational(1, k)
        self.atoms.append(Atom(ROOT, symbol, head, k, v, root, one, slope, rises=True))

    def _convert(self, node: sp.Expr) -> sp.Expr:
        v = self.statistic
        if node == v:
            return self.atoms[0].symbol ** self.degree if self.degree > 1 else v
        if node.is_Symbol or node.is_Rational or node in (sp.pi, sp.E):
            return node
        if isinstance(node, sp.Pow):
            return self._convert_power(node)
        if isinstance(node, sp.Add | sp.Mul):
            return node.func(*map(self._convert, node.args))
        if type(node) in SMOOTH and node.has(v):
            return self._function(node)
        raise CertifyError(
            f"{node} ({type(node).__name__}) cannot be certified: the theory has derivatives of "
            "sums, products, rational powers, exp, log, tanh and atan of the preconditioner's "
            "statistic."
        )

    def _convert_power(self, node: sp.Pow) -> sp.Expr:
        base, exponent = node.base, node.exp
        if base == sp.E:
            return self._function(sp.exp(exponent, evaluate=False))
        if not exponent.is_Rational:
            raise CertifyError(f"{node} is not a rational power; it cannot be certified.")
        if exponent.is_integer:
            return self._convert(base) ** exponent
        if base == self.statistic:
            return self.atoms[0].symbol ** (exponent * self.degree)
        if not base.has(self.statistic):
            raise CertifyError(
                f"{node}, a root of hyperparameters alone, cannot be certified; declare the root "
                "itself as a hyperparameter."
            )
        degree = exponent.q
        root = base ** sp.Rational(1, degree)
        head = "sqrt" if degree == 2 else "root"
        return self._atom(head, degree, self._convert(base), root) ** exponent.p

    def _function(self, node: sp.Expr) -> sp.Expr:
        inner = node.args[0]
        if isinstance(node, sp.exp) and inner.could_extract_minus_sign():
            return 1 / self._function(sp.exp(-inner))  # exp u rises, its inverse falls
        if isinstance(node, sp.exp) and (times := inner.as_coeff_Mul()[0]).is_Integer and times > 1:
            return self._function(sp.exp(inner / times)) ** times
        return self._atom(SMOOTH[type(node)], 0, self._convert(inner), node)

    def _atom(self, head: str, degree: int, inner: sp.Expr, original: sp.Expr) -> sp.Symbol:
        known = next((a for a in self.atoms if a.original == original), None)
        if known:
            return known.symbol
        name = f"atom_{len(self.atoms) + 1}"
        inner = self.tidy(inner)
        rising = self.positive(sp.expand(inner), promote=False) if _polynomial(inner) else False
        if head == "ln":
            rising = rising and self._above_one(inner)
        symbol = sp.Symbol(name, **({"positive": True} if rising else {"real": True}))
        slope = self.derive(inner)
        derivative = {
            "sqrt": lambda: slope / (2 * symbol),
            "root": lambda: slope / (degree * symbol ** (degree - 1)),
            "exp": lambda: slope * symbol,
            "ln": lambda: slope / inner,
            "tanh_": lambda: slope * (1 - symbol**2),
            "atan": lambda: slope / (1 + inner**2),
        }[head]()
        by_form = rising and head not in ("tanh_", "atan")
        self.atoms.append(
            Atom(name, symbol, head, degree, inner, original, slope, self.tidy(derivative), by_form)
        )
        return symbol

    def _above_one(self, inner: sp.Expr) -> bool:
        """1 + something positive: the form that the theory's tactic sees."""
        constant, rest = sp.expand(inner).as_coeff_Add()
        return constant == 1 and self.positive(rest, promote=False)


def _polynomial(expression: sp.Expr) -> bool:
    return bool(expression.is_polynomial())


def _root_degree(expression: sp.Expr, symbol: sp.Symbol) -> int:
    powers = [p for p in expression.atoms(sp.Pow) if p.base == symbol and p.exp.is_Rational]
    return lcm(1, *(p.exp.q for p in powers))


# -- bounds by form -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """``coefficient * top / bottom``, none of whose factors is negative."""

    coefficient: sp.Rational
    top: sp.Expr
    bottom: sp.Expr


def parts(field_: Field, derivative: sp.Expr) -> tuple[Part, ...] | None:
    """A derivative as a sum of parts whose factors rise with v, or None if its form shows none.

    Over the half-line each part falls if no atom is left above; that is what `rising` tells.
    """
    numerator, denominator = sp.fraction(field_.tidy(derivative))
    scale, factors = sp.factor_list(denominator)
    if not all(field_.positive(f) for f, _ in factors):
        return None
    symbols = sorted(numerator.free_symbols, key=str)
    if not field_._rising_symbols(numerator):
        return None
    bottom = sp.Mul(*(f**k for f, k in factors))
    if not symbols:
        return (Part(sp.Rational(numerator) / scale, sp.Integer(1), bottom),)
    found = []
    for powers, coefficient in sp.Poly(numerator, *symbols).terms():
        monomial = sp.Mul(*(s**k for s, k in zip(symbols, powers, strict=True)))
        top, below = sp.fraction(monomial / bottom)
        found.append(Part(coefficient / scale, top, below))
    return tuple(found)


def rising(field_: Field, found: tuple[Part, ...]) -> bool:
    """Whether something is left above that grows with v: then a bound needs an upper end."""
    moving = {field_.statistic, *(a.symbol for a in field_.atoms)}
    return any(p.top.free_symbols & moving for p in found)
