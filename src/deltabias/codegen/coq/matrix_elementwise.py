"""Entry-by-entry maps in a certificate: their partial derivatives, and the programs of these."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

import sympy as sp

from deltabias.calculus.matrix import Elementwise
from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.printing import Printer, coq_name
from deltabias.codegen.coq.spectral_program import functions_of, transcribed
from deltabias.codegen.matrix_emit import module_source
from deltabias.errors import CertifyError
from deltabias.matrix_derivation import MatrixDerivation


@dataclass
class Found:
    """What a certificate gets from one map; `rewrites` move brackets out of its first order."""

    lines: list[str] = field(default_factory=list)
    theorems: list[Theorem] = field(default_factory=list)
    domain: list[str] = field(default_factory=list)
    rewrites: list[str] = field(default_factory=list)
    unfold: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EntryMap:
    """A map of entries under its names in a certificate; ``partials`` by letters, "" the map."""

    node: Elementwise
    name: str
    hypers: Mapping[str, str]

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(coq_name(n) for n in self.node.names)

    @property
    def partials(self) -> dict[tuple[int, ...], sp.Expr]:
        """First and second partial derivatives that are not zero, by indices, as code has them."""
        found = {}
        count = range(len(self.node.names))
        for n in (1, 2):
            for index in combinations_with_replacement(count, n):
                by = [self.node.variables[i] for i in index]
                if (e := sp.factor(sp.diff(self.node.expression, *by))) != 0:
                    found[index] = e
        return found

    def letters(self, index: tuple[int, ...]) -> str:
        return f"{self.name}_{''.join(self.node.names[i] for i in index)}"

    def show(self, expression: sp.Expr) -> str:
        by_name = dict(zip(self.node.names, self.variables, strict=True)) | dict(self.hypers)
        return Printer(lambda s: by_name[s.name])(expression)

    @property
    def radicands(self) -> dict[str, sp.Expr]:
        """What stands under a square root, by the one variable in it.

        Raises
        ------
        CertifyError
            for functions and roots without a rule in the theory.
        """
        found = {}
        named = {s: coq_name(s.name) for s in self.node.variables}
        for node in sp.preorder_traversal(self.node.expression):
            if isinstance(node, sp.Function):
                raise CertifyError(
                    f"{node} in an entry-by-entry map has no expansion in the theory; certified "
                    "are sums, products, quotients and square roots."
                )
            if isinstance(node, sp.Pow) and node.exp.is_Rational and node.exp.q != 1:
                inside = [s for s in named if s in node.base.free_symbols]
                if node.exp.q != 2 or len(inside) != 1 or sp.diff(node.base, inside[0]) != 1:
                    raise CertifyError(
                        f"{node} in an entry-by-entry map: certified are square roots of one "
                        "variable plus hyperparameters."
                    )
                found[named[inside[0]]] = node.base
        return found


def elementwise_text(
    rule, derivation: MatrixDerivation, node: Elementwise, name: str, index: int,
    hypers: Mapping[str, str],
) -> Found:  # fmt: skip
    """Definitions, expansion and programs of the map of one node."""
    entry, found = EntryMap(node, name, hypers), Found()
    bound = " ".join(entry.variables)
    found.lines.append("\n(** A map entry by entry, and its partial derivatives. *)")
    every = {(): node.expression, **entry.partials}
    for at, expression in every.items():
        called = entry.letters(at) if at else name
        found.lines.append(f"Definition {called} ({bound} : R) : R := {entry.show(expression)}.")
    _scalar_expansion(entry, found)
    _matrices(entry, found)
    _programs(rule, derivation, entry, index, found)
    for variable in entry.radicands:
        found.domain.append(f"every entry of {variable} is positive")
    return found


def _positive(entry: EntryMap, of: Mapping[str, str]) -> list[str]:
    return [f"0 < {of[v]}" for v in entry.radicands]


def _remove_roots(entry: EntryMap, suffix: str = "") -> str:
    """Proof lines: each variable under a root as a square less what is added to it."""
    lines = []
    for n, (variable, radicand) in enumerate(entry.radicands.items()):
        symbol = next(s for s in entry.node.variables if coq_name(s.name) == variable)
        rest = entry.show(radicand - symbol)
        text = f"({variable}{suffix} + {rest})" if rest != "0" else f"{variable}{suffix}"
        shift = f" - ({rest})" if rest != "0" else ""
        lines.append(
            f"assert (r{n} : 0 < {text}) by positive; assert (q{n} := sqrt_lt_R0 _ r{n}); "
            f"assert (e{n} := sqrt_sqrt _ (Rlt_le _ _ r{n})); set (s{n} := sqrt {text}) in *; "
            f"clearbody s{n}; assert (u{n} : {variable}{suffix} = s{n} * s{n}{shift}) by lra; "
            f"subst {variable}{suffix}"
        )
    return "; ".join(lines)


def _scalar_expansion(entry: EntryMap, found: Found) -> None:
    variables = entry.variables
    at = " ".join(f"{v}0" for v in variables)
    first, second = [], []
    for index in entry.partials:
        call = f"{entry.letters(index)} {at}"
        if len(index) == 1:
            first.append(f"{call} * {variables[index[0]]}1")
            second.append(f"{call} * {variables[index[0]]}2")
        else:
            second.append(_pair(call, *(f"{variables[i]}1" for i in index)))
    binders = " ".join(f"path_{v} {v}0 {v}1 {v}2" for v in variables)
    given = [f"expands path_{v} {v}0 {v}1 {v}2" for v in variables]
    given += _positive(entry, {v: f"{v}0" for v in variables})
    names = [entry.name, *(entry.letters(i) for i in entry.partials)]
    found.lines += [
        f"Lemma expand_{entry.name} {binders} :\n  {' -> '.join(given)} ->",
        f"  expands (fun t => {entry.name} {' '.join(f'(path_{v} t)' for v in variables)}) "
        f"({entry.name} {at})",
        f"    ({' + '.join(first) or '0'})\n    ({' + '.join(second) or '0'}).",
        "Proof.",
        f"intros; unfold {', '.join(names)}.",
        "eapply expands_eq; [expand; first [positive | apply Rgt_not_eq; unfold Rgt; positive] "
        "| | |];",
        f"  {_remove_roots(entry, '0') or 'idtac'}; cbn [INR]; field; not_zero.",
        "Qed.",
    ]  # fmt: skip


def _pair(call: str, left: str, right: str) -> str:
    return f"/ 2 * {call} * {left} ^ 2" if left == right else f"{call} * {left} * {right}"


def _matrices(entry: EntryMap, found: Found) -> None:
    """The map and its orders as matrices, along the arguments' paths."""
    name, names = entry.name, entry.node.names
    at = " ".join(f"(value_argument_{name}_{n} i j)" for n in names)
    moving = " ".join(f"(path_argument_{name}_{n} delta t i j)" for n in names)
    found.lines += [
        f"Definition path_{name} (delta : direction) (t : R) : matrix :=\n"
        f"  fun i j => {name} {moving}.",
        f"Definition value_{name} : matrix := fun i j => {name} {at}.",
    ]
    first, second = [], []
    for index in entry.partials:
        called = entry.letters(index)
        changes = [f"(first_argument_{name}_{names[i]} delta)" for i in index]
        if len(index) == 1:
            found.lines += [
                f"Definition D_{called} (X : matrix) : matrix := fun i j => {called} {at} * X i j.",
                f"Lemma linear_{called} :\n"
                f"  (forall X Y, D_{called} (add X Y) = add (D_{called} X) (D_{called} Y))\n"
                f"  /\\ (forall c X, D_{called} (scale c X) = scale c (D_{called} X))\n"
                f"  /\\ D_{called} zero = zero.",
                "Proof.",
                f"repeat split; intros; apply same_matrix; intros; unfold D_{called}, add, scale, "
                "zero; ring.",
                "Qed.",
            ]
            found.rewrites += [
                f"?(proj1 linear_{called})",
                f"?(proj1 (proj2 linear_{called}))",
                f"?(proj2 (proj2 linear_{called}))",
            ]
            first.append(f"(D_{called} {changes[0]})")
            second.append(f"(D_{called} (second_argument_{name}_{names[index[0]]} delta))")
        elif index[0] == index[1]:
            found.lines.append(
                f"Definition DD_{called} (X : matrix) : matrix := fun i j => "
                f"/ 2 * {called} {at} * X i j ^ 2."
            )
            second.append(f"(DD_{called} {changes[0]})")
        else:
            found.lines.append(
                f"Definition DM_{called} (X Y : matrix) : matrix := fun i j => "
                f"{called} {at} * X i j * Y i j."
            )
            second.append(f"(DM_{called} {changes[0]} {changes[1]})")
    for v, n in zip(entry.variables, names, strict=True):
        if v in entry.radicands:
            found.lines.append(
                f"Hypothesis positive_{name}_{n} : forall i j, (i < d)%nat -> (j < d)%nat ->\n"
                f"  0 < value_argument_{name}_{n} i j."
            )
    positive = "; ".join(
        f"now apply positive_{name}_{n}"
        for v, n in zip(entry.variables, names, strict=True)
        if v in entry.radicands
    )
    given = " ".join(f"(expands_argument_{name}_{n} delta i j hi hj)" for n in names)
    blanks = " _" * (4 * len(names))
    found.lines += [
        f"Lemma expands_{name} delta : matrix_expands d (path_{name} delta) value_{name}\n"
        f"  {_sum(first)}\n  {_sum(second)}.",
        "Proof.",
        f"intros i j hi hj; exact (expand_{name}{blanks} {given}"
        + (f"\n  ltac:({positive})" if positive else "")
        + ").",
        "Qed.",
    ]


def _sum(items: list[str]) -> str:
    total = items[0] if items else "zero"
    for item in items[1:]:
        total = f"(add {total} {item})"
    return total


def _programs(
    rule, derivation: MatrixDerivation, entry: EntryMap, index: int, found: Found
) -> None:
    """The printed functions of the map and of its partial derivatives."""
    functions = functions_of(module_source(rule, derivation))
    claims, opened = [], []
    for at in ((), *entry.partials):
        letters = "".join(entry.node.names[i] for i in at)
        printed = functions.get(f"_map_{index}" + (f"_{letters}" if at else ""))
        if printed is None:  # a constant is printed where it stands
            continue
        program = f"program_{entry.letters(at) if at else entry.name}"
        found.lines += transcribed(printed, program)
        passed = " ".join(
            _argument(a, entry) for a in [*printed.args.args, *printed.args.kwonlyargs]
        )
        called = entry.letters(at) if at else entry.name
        claims.append(f"{program} {passed} = {called} {' '.join(entry.variables)}")
        opened += [program, called]
    given = "".join(f"{h} -> " for h in _positive(entry, {v: v for v in entry.variables}))
    says = f"The generated functions of {entry.name} and its partial derivatives compute them."
    found.theorems.append(Theorem(f"programs_of_{entry.name}", says, "bridge"))
    found.lines += [
        f"\n(** {says} *)",
        f"Theorem programs_of_{entry.name} {' '.join(entry.variables)} : {given}\n  "
        + "\n  /\\ ".join(claims) + ".",
        "Proof.",
        "intros.",
        _remove_roots_in_goal(entry, opened),
        "Qed.",
    ]  # fmt: skip


def _argument(argument: ast.arg, entry: EntryMap) -> str:
    return entry.hypers.get(argument.arg, coq_name(argument.arg))


def _remove_roots_in_goal(entry: EntryMap, opened: list[str]) -> str:
    names = ", ".join(dict.fromkeys(opened))
    return (
        f"unfold {names}; cbv zeta.\n"
        f"{_remove_roots(entry) or 'idtac'}; repeat split; field; not_zero."
    )
