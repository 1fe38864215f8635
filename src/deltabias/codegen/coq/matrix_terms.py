"""Matrix expressions and their derived second orders as Coq terms: words in matrices, in order."""

from collections.abc import Mapping

import sympy as sp

from deltabias.calculus.matrix import (
    Elementwise,
    Identity,
    MatrixExpr,
    MatrixSymbol,
    Named,
    Normalized,
    Product,
    Scaled,
    Spectral,
    Sum,
    Transpose,
)
from deltabias.codegen.coq.printing import Printer
from deltabias.errors import CertifyError
from deltabias.matrix_derivation import first, mixed, second, transpose


class Terms:
    """Prints under the names of one certificate.

    ``symbols`` says what a noncommutative symbol is called, ``functions`` the function nodes.
    """

    def __init__(self, hypers: Mapping[str, str]):
        self.symbols: dict[str, str] = {"I": "one"}
        self.functions: dict[MatrixExpr, str] = {}
        self._scalar = Printer(lambda symbol: hypers[symbol.name])

    def scalar(self, expression: sp.Expr) -> str:
        return self._scalar.argument(expression)

    # -- what a derivation prints ---------------------------------------------------------------

    def word(self, expression: sp.Expr) -> str:
        """A noncommutative polynomial.

        Raises
        ------
        CertifyError
            for a factor that is no matrix of the rule.
        """
        expression = sp.expand(expression)
        if expression == 0:
            return "zero"
        terms = [self._product(t) for t in expression.as_ordered_terms()]
        total = terms[0]
        for term in terms[1:]:
            total = f"(add {total} {term})"
        return total

    def _product(self, term: sp.Expr) -> str:
        commuting, factors = term.args_cnc() if term.is_Mul else ([], [term])
        coefficient = sp.Mul(*commuting)
        names = [self._factor(b) for f in factors for b in _powers(f)]
        text = f"({' ** '.join(names)})" if len(names) > 1 else names[0]
        return text if coefficient == 1 else f"(scale {self.scalar(coefficient)} {text})"

    def _factor(self, factor: sp.Expr) -> str:
        if isinstance(factor, sp.Symbol) and factor.name in self.symbols:
            return self.symbols[factor.name]
        if isinstance(factor, transpose):
            return f"(transpose {self.word(factor.args[0])})"
        if isinstance(factor, first | second | mixed):
            head = {first: "D", second: "DD", mixed: "DM"}[type(factor)]
            arguments = " ".join(self.word(a) for a in factor.args[1:])
            return f"({head}_{factor.args[0]} {arguments})"
        raise CertifyError(f"{factor} in a derived term is no matrix of the rule.")

    # -- what a rule says -----------------------------------------------------------------------

    def path(self, node: MatrixExpr) -> str:
        """The expression along a path: every matrix moves with t."""
        match node:
            case MatrixSymbol(name):
                return f"(path_{name} delta t)"
            case Identity():
                return "one"
            case Scaled(coefficient, body):
                return f"(scale {self.scalar(coefficient)} {self.path(body)})"
            case Sum(terms):
                return _nested("add", [self.path(x) for x in terms])
            case Product(factors):
                return _nested("mul d", [self.path(x) for x in factors])
            case Transpose(body):
                return f"(transpose {self.path(body)})"
            case Named(name, _):
                return f"(path_{name} delta t)"
            case Spectral() | Normalized() | Elementwise():
                return f"(path_{self.functions[node]} delta t)"
        raise CertifyError(f"{type(node).__name__} has no term in the certificates' table.")

    def expansion(self, node: MatrixExpr) -> str:
        """The proof that it expands, put together as the expression is."""
        match node:
            case MatrixSymbol(name) | Named(name, _):
                return f"(expands_{name} delta)"
            case Identity():
                return "(matrix_expands_const d one)"
            case Scaled(coefficient, body):
                c = self.scalar(coefficient)
                return f"(matrix_expands_scale d {c} _ _ _ _ {self.expansion(body)})"
            case Sum(terms):
                return _nested("matrix_expands_add" + _EIGHT, [self.expansion(x) for x in terms])
            case Product(factors):
                return _nested("matrix_expands_mul" + _EIGHT, [self.expansion(x) for x in factors])
            case Transpose(body):
                return f"(matrix_expands_transpose d _ _ _ _ {self.expansion(body)})"
            case Spectral() | Normalized() | Elementwise():
                return f"(expands_{self.functions[node]} delta)"
        raise CertifyError(f"{type(node).__name__} has no term in the certificates' table.")


_EIGHT = " d" + " _" * 8


def _nested(head: str, items: list[str]) -> str:
    total = items[0]
    for item in items[1:]:
        total = f"({head} {total} {item})"
    return total


def _powers(factor: sp.Expr) -> list[sp.Expr]:
    base, exponent = factor.as_base_exp()
    return [base] * int(exponent) if exponent.is_Integer and exponent > 0 else [factor]
