"""What the certificates of spectral maps have in common: names, header, the record at the end."""

from collections.abc import Iterable, Sequence

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, INNER, LEFT, RIGHT, SpectralMap
from deltabias.codegen.coq.certificate import Certificate, Theorem
from deltabias.codegen.coq.printing import Printer, coq_name
from deltabias.codegen.emit import MARK

Part = tuple[str, tuple[Theorem, ...]]
"""A piece of Coq text, and what the theorems in it say."""

HEADER = """From Coq Require Import Reals Lra Lia List.
From Coquelicot Require Import Coquelicot.
From deltabias Require Import {imports}.
Import ListNotations.
Open Scope R_scope.
"""
_IMPORTS = """taylor estimators divided matrix_root spectral_map dense_kernel
  expansion matrix_expansion kernel_equation"""
_TAKEN = frozenset({"a", "k", "b", "l", "d", "s", "H", "R", "E", "i", "j", "r", "t"})

NOT_CERTIFIED = (
    "that the function of A + t E has an expansion at all (it is analytic); if it has one, it is "
    "this one where the matrix equation has one solution",
    "that a symmetric matrix has an orthogonal eigenbasis, and the rotations into it and back",
    "rounding: the programs are read over the real numbers",
)


class Text:
    """Prints a map's expressions under the names of its certificate."""

    def __init__(self, hypers: Iterable[sp.Symbol]):
        self.hypers = tuple(sorted(hypers, key=str))
        self.names = {h: _hyper(h.name) for h in self.hypers}
        self._names = {LEFT: "a", INNER: "k", RIGHT: "b", EIGENVALUE: "l", **self.names}
        self.show = Printer(lambda symbol: self._names[symbol])

    @property
    def section(self) -> str:
        """The hyperparameters, none of them negative."""
        lines = [f"Variable {n} : R.\nHypothesis {n}_not_negative : 0 <= {n}."
                 for n in self.names.values()]  # fmt: skip
        return "\n".join(lines)

    def define(self, name: str, arguments: str, expression: sp.Expr) -> str:
        bound = f" ({arguments} : R)" if arguments else ""
        return f"Definition {name}{bound} : R := {self.show(expression)}."


def _hyper(name: str) -> str:
    found = coq_name(name)
    return f"{found}_" if found in _TAKEN else found


def document(
    spectral: SpectralMap, text: Text, parts: Sequence[Part], not_certified: tuple[str, ...]
) -> Certificate:
    """The parts under one header and in one section, with the record of what they say."""
    formula = str(spectral.expression.subs(EIGENVALUE, sp.Symbol("l"))).replace("*", " * ")
    lines = [
        f"(** f(A) for symmetric A, f(l) = {formula.replace(' *  * ', '^')}: its kernels.",
        "",
        f"    {MARK} *)",
        "",
        HEADER.format(imports=_IMPORTS),
        "Section Certificate.",
        text.section,
        *(body for body, _ in parts if body),
        "End Certificate.",
    ]
    return Certificate(
        spectral.name,
        "\n".join(lines).replace("\n\n\n", "\n\n") + "\n",
        tuple(t for _, theorems in parts for t in theorems),
        2,
        ("eigenvalue > 0", *(f"{h} >= 0" for h in text.names.values())),
        not_certified,
    )
