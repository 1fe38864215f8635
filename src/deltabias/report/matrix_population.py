"""The update as a plain map of its matrices, read off the rule and not off its generated code.

What the truth needs of a rule is only its value, on stacks of numpy matrices: here functions of
matrices come from numpy's eigensolver, and nothing is ever expanded.
"""

from collections.abc import Callable, Mapping

import numpy as np
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
from deltabias.calculus.spectral import EIGENVALUE
from deltabias.errors import DeltabiasError

Array = np.ndarray
PopulationMap = Callable[[Array, Array, Array], Array]
SMALLEST_NORM = 1e-7
"""A zero matrix over its norm is zero; generated code divides by this as well."""


def population_map(
    update: MatrixExpr, roles: Mapping[str, int], hypers: Mapping[str, float]
) -> PopulationMap:
    """The update as a function of stacks of E G, E G Gᵀ, E Gᵀ G: [k, d, n], [k, d, d], [k, n, n].

    ``roles`` maps each random matrix's name to its place among these three.

    Raises
    ------
    DeltabiasError
        in the map, where a function of a matrix is infinite: a singular matrix without damping.
    """
    values = {sp.Symbol(name): value for name, value in hypers.items()}

    def number(expression: sp.Expr) -> sp.Expr:
        by_name = {s: values[sp.Symbol(s.name)] for s in expression.free_symbols
                   if sp.Symbol(s.name) in values}  # fmt: skip
        return expression.subs(by_name)

    functions = {
        node: sp.lambdify(
            EIGENVALUE if isinstance(node, Spectral) else node.variables,
            number(node.map.expression if isinstance(node, Spectral) else node.expression),
            "numpy",
        )
        for node in update.walk()
        if isinstance(node, Spectral | Elementwise)
    }

    def evaluate(mean: Array, left: Array, right: Array) -> Array:
        given = (mean, left, right)
        known: dict[MatrixExpr, Array] = {}
        for node in update.walk():
            children = [known.get(c) for c in node.children]
            match node:
                case MatrixSymbol(name):
                    known[node] = given[roles[name]]
                case Identity() | Scaled(_, Identity()):
                    continue  # its size is known where it is added
                case Scaled(c, _):
                    known[node] = float(number(c)) * children[0]
                case Transpose():
                    known[node] = np.swapaxes(children[0], -1, -2)
                case Sum(terms):
                    known[node] = _sum(terms, children, number)
                case Product():
                    total = children[0]
                    for factor in children[1:]:
                        total = total @ factor
                    known[node] = total
                case Spectral():
                    known[node] = _spectral(functions[node], children[0])
                case Elementwise():
                    known[node] = functions[node](*children)
                case Normalized():
                    norm = np.linalg.norm(children[0], axis=(-2, -1), keepdims=True)
                    known[node] = children[0] / np.maximum(norm, SMALLEST_NORM)
                case Named():
                    known[node] = children[0]
                case _:
                    raise TypeError(f"{type(node).__name__} is not a matrix expression.")
        return known[update]

    return evaluate


def _sum(terms: tuple[MatrixExpr, ...], values: list[Array | None], number) -> Array:
    total = sum(v for v in values if v is not None)
    for term, value in zip(terms, values, strict=True):
        if value is None:
            c = term.coefficient if isinstance(term, Scaled) else sp.Integer(1)
            total = total + float(number(c)) * np.eye(total.shape[-1])
    return total


def _spectral(function: Callable[[Array], Array], matrix: Array) -> Array:
    eigenvalues, basis = np.linalg.eigh(0.5 * (matrix + np.swapaxes(matrix, -1, -2)))
    with np.errstate(all="ignore"):
        mapped = np.broadcast_to(function(eigenvalues), eigenvalues.shape)
    if not np.all(np.isfinite(mapped)):
        raise DeltabiasError(
            f"a function of a matrix is infinite at the eigenvalue {eigenvalues.min():.3g}; the "
            "population matrix is singular: pass a damping above zero."
        )
    return (basis * mapped[..., None, :]) @ np.swapaxes(basis, -1, -2)
