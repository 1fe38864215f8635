"""The certificate of a matrix rule: the derived terms are the second order of the whole update.

Every matrix of the rule moves along a line, X + t dX. The rule is taken apart as it is typed; at
each named result the certificate says what it is to second order, as the derivation printed it, and
Coq opens the brackets. Functions of matrices come with a hypothesis: their first and second order
along any path, which is what the certificate of the spectral map is about.
"""

from dataclasses import dataclass

import sympy as sp

from deltabias.calculus.matrix import (
    Elementwise,
    Jet,
    MatrixExpr,
    Named,
    Normalized,
    Spectral,
    expand,
)
from deltabias.codegen.coq.certificate import Certificate, Theorem
from deltabias.codegen.coq.matrix_elementwise import elementwise_text
from deltabias.codegen.coq.matrix_terms import Terms
from deltabias.codegen.coq.printing import coq_name
from deltabias.codegen.emit import MARK
from deltabias.matrix_derivation import MatrixDerivation, Reading, derive_matrix, describe
from deltabias.matrix_rule import MatrixRule

_HEADER = """From Coq Require Import Reals Lra Lia List FunctionalExtensionality.
From deltabias Require Import finite_law estimators matrix_root spectral_map expansion
  matrix_expansion function_jet.
Open Scope R_scope.

Section Certificate.
Variable d : nat.
Notation "A ** B" := (mul d A B) (at level 40, left associativity)."""

_SPELL = """
(** Brackets opened, linear maps taken apart: both sides are sums of the same words. *)
Ltac linearize := idtac.
Ltac spell :=
  intros; repeat progress (linearize; distribute); unfold add, scale, zero; first [ring | field]."""

NOT_CERTIFIED = (
    "that the generated torch functions put values and kernels together as these terms do, and the "
    "rotations into eigenbases (tested against many digits)",
    "the corrected updates' own forms (the ratio P (P + X)^-1 P is theorem "
    "safe_matrix.ratio_is_subtraction), cheap modes, sketches",
    "rounding: matrices are of real numbers",
)


@dataclass(frozen=True)
class Piece:
    """A result with a name: its expression, and its jet as the derivation prints it."""

    name: str
    body: MatrixExpr
    value: sp.Expr
    first: sp.Expr
    second: sp.Expr

    @classmethod
    def of(cls, name: str, body: MatrixExpr, jet: Jet) -> "Piece":
        return cls(name, body, jet.value, *(sp.Add(*p.values()) for p in (jet.first, jet.second)))


def certificate_of_matrix_rule(rule: MatrixRule) -> Certificate:
    """The certificate of a matrix rule at second order.

    Says: along X + t dX the update is its value, plus t times a linear map of the deviations, plus
    t² times the sum of the derived terms, plus O(t³); over a finite law of deviations of mean zero
    its mean is the value plus t² times the mean of these terms, plus O(t³).

    Raises
    ------
    CertifyError
        for an entry-by-entry map beyond sums, products, quotients and square roots.
    """
    return _Writer(rule, derive_matrix(rule)).certificate()


class _Writer:
    def __init__(self, rule: MatrixRule, derivation: MatrixDerivation):
        self.rule, self.derivation = rule, derivation
        self.hypers = {h: coq_name(h) for h in rule.update.hypers}
        self.terms = Terms(self.hypers)
        self.reading = Reading(rule)
        self.jet = expand(rule.update, self.reading)
        self.lines: list[str] = []
        self.theorems: list[Theorem] = []
        self.domain: list[str] = []
        self.assumed: list[str] = []
        self._linear: list[str] = []
        self._unfold: list[str] = []

    def certificate(self) -> Certificate:
        title = describe(self.rule.update).replace("*", " * ")
        self.lines += [f"(** {self.rule.name}: {title}, to second order.", "", f"    {MARK} *)", ""]
        self.lines += [_HEADER]
        for name in self.hypers.values():
            self.lines += [
                f"Variable {name} : R.",
                f"Hypothesis {name}_not_negative : 0 <= {name}.",
            ]
            self.domain.append(f"{name} >= 0")
        self._symbols()
        for node in self.rule.update.walk():
            self._node(node)
        self._update()
        self._mean()
        self.lines.append("End Certificate.")
        return Certificate(
            self.rule.name,
            "\n".join(self.lines) + "\n",
            tuple(self.theorems),
            2,
            tuple(self.domain),
            (*self.assumed, *NOT_CERTIFIED),
        )

    # -- the matrices ---------------------------------------------------------------------------

    def _symbols(self) -> None:
        self.lines.append("\n(** Means and deviations; each matrix moves on a line. *)")
        for i, name in enumerate(self.rule.update.symbols):
            self.terms.symbols |= {name: f"mean_{name}", f"d{name}": f"(delta {i}%nat)"}
            self.lines += [
                f"Variable mean_{name} : matrix.",
                f"Definition path_{name} (delta : direction) (t : R) : matrix :=\n"
                f"  add mean_{name} (scale t (delta {i}%nat)).",
                f"Lemma expands_{name} delta :\n"
                f"  matrix_expands d (path_{name} delta) mean_{name} (delta {i}%nat) zero.",
                f"Proof. exact (matrix_expands_line d mean_{name} (delta {i}%nat)). Qed.",
            ]
        self.lines.append(_SPELL)

    def _tactics(self) -> None:
        rewrites = "idtac"
        if self._unfold or self._linear:
            parts = [f"unfold {', '.join(self._unfold)}"] if self._unfold else []
            parts += [f"rewrite {', '.join(self._linear)}"] if self._linear else []
            rewrites = "; ".join(parts)
        self.lines.append(f"Ltac linearize ::= {rewrites}.")

    def _node(self, node: MatrixExpr) -> None:
        match node:
            case Named(name, body):
                self._piece(Piece.of(name, body, expand(body, self.reading)))
                says = (
                    f"To second order the intermediate result {name} is what the derivation says."
                )
                self._theorem(f"second_order_of_{name}", says, _same_as(name))
                self.terms.symbols |= {
                    name: f"value_{name}",
                    f"d{name}": f"(first_{name} delta)",
                    f"dd{name}": f"(second_{name} delta)",
                }
            case Spectral() | Normalized():
                self._function(node)
            case Elementwise():
                self._elementwise(node)

    # -- pieces ---------------------------------------------------------------------------------

    def _piece(self, piece: Piece) -> None:
        """Definitions, the lemma that it expands so, and that its first order is linear."""
        name, word = piece.name, self.terms.word
        self.lines += [
            "",
            f"Definition path_{name} (delta : direction) (t : R) : matrix :=\n"
            f"  {self.terms.path(piece.body)}.",
            f"Definition value_{name} : matrix := {word(piece.value)}.",
            f"Definition first_{name} (delta : direction) : matrix :=\n  {word(piece.first)}.",
            f"Definition second_{name} (delta : direction) : matrix :=\n  {word(piece.second)}.",
        ]
        self._expansion(piece)

    def _expansion(self, piece: Piece) -> None:
        name = piece.name
        defined = f"value_{name}, first_{name}, second_{name}"
        self.lines += [
            f"Lemma expands_{name} delta :\n"
            f"  matrix_expands d (path_{name} delta) value_{name} (first_{name} delta) "
            f"(second_{name} delta).",
            "Proof.",
            f"eapply matrix_expands_same; [exact {self.terms.expansion(piece.body)} | | |];",
            f"  intros i j _ _; unfold {defined}; spell.",
            "Qed.",
            f"Lemma linear_{name} : linear first_{name}.",
            f"Proof. split; intros; apply same_matrix; unfold first_{name}; spell. Qed.",
        ]
        self._linear += [f"?(proj1 linear_{name})", f"?(proj2 linear_{name})"]
        self._tactics()

    def _function(self, node: Spectral | Normalized) -> None:
        """A function of one matrix: its argument is a piece, its own orders a hypothesis."""
        name = str(self.reading._function(node))
        self.terms.functions[node] = name
        self._piece(Piece.of(f"argument_{name}", node.body, expand(node.body, self.reading)))
        at = f"value_argument_{name}"
        jet = f"function_jet d fun_{name} {at} {name} D_{name} DD_{name}"
        if isinstance(node, Spectral):
            self.lines += [
                f"(** {name} is a function of {_plain(describe(node.body))}. *)",
                f"Variables fun_{name} D_{name} DD_{name} : matrix -> matrix.",
                f"Variable {name} : matrix.",
                f"Hypothesis jet_{name} :\n  {jet}.",
            ]
            self.domain.append(f"{_plain(describe(node.body))} is positive definite")
            self.assumed.append(
                f"that {name} has a second-order expansion along paths, with the kernels of its "
                f"map (hypothesis jet_{name}; the kernels are certified by {node.map.name})"
            )
        else:
            self.lines += [
                f"Hypothesis positive_{name} : 0 < inner d {at} {at}.",
                f"Definition fun_{name} := normalized d.",
                f"Definition {name} := normalized d {at}.",
                f"Definition D_{name} := normalized_first d {at}.",
                f"Definition DD_{name} := normalized_second d {at}.",
                f"Definition jet_{name} :\n  {jet} :=\n  normalized_jet d {at} positive_{name}.",
            ]
            self.domain.append(f"the Frobenius norm of {_plain(describe(node.body))} is above 1e-7")
        self.terms.symbols[name] = name
        self.lines += [
            f"Definition path_{name} (delta : direction) (t : R) : matrix :=\n"
            f"  fun_{name} (path_argument_{name} delta t).",
            f"Lemma expands_{name} delta : matrix_expands d (path_{name} delta) {name}\n"
            f"  (D_{name} (first_argument_{name} delta))\n"
            f"  (add (D_{name} (second_argument_{name} delta)) (DD_{name} (first_argument_{name} "
            "delta))).",
            f"Proof. exact (jet_expands _ _ _ _ _ _ jet_{name} _ _ _ (expands_argument_{name} "
            "delta)). Qed.",
        ]
        self._unfold += [f"first_argument_{name}", f"second_argument_{name}"]
        self._linear += [
            f"?(jet_add_linear _ _ _ _ _ _ jet_{name})",
            f"?(jet_scale_linear _ _ _ _ _ _ jet_{name})",
            f"?(jet_of_zero _ _ _ _ _ _ jet_{name})",
        ]
        self._tactics()

    def _elementwise(self, node: Elementwise) -> None:
        name = str(self.reading._function(node))
        self.terms.functions[node] = name
        for variable, argument in zip(node.names, node.arguments, strict=True):
            jet = expand(argument, self.reading)
            self._piece(Piece.of(f"argument_{name}_{variable}", argument, jet))
            self._unfold += [f"{o}_argument_{name}_{variable}" for o in ("first", "second")]
        index = [n for _, n in self.reading.functions].index(node) + 1
        found = elementwise_text(self.rule, self.derivation, node, name, index, self.hypers)
        self.lines += found.lines
        self.theorems += found.theorems
        self.domain += found.domain
        self.terms.symbols[name] = f"value_{name}"
        self._linear += found.rewrites
        self._unfold += found.unfold
        self._tactics()

    # -- the whole ------------------------------------------------------------------------------

    def _update(self) -> None:
        """The derived terms, each with a name; their sum is the second order of the update."""
        counts: dict[str, int] = {}
        names = []
        self.lines.append("\n(** The terms of the derivation. *)")
        for term in self.derivation.terms:
            counts[term.name] = counts.get(term.name, 0) + 1
            names.append(f"{term.name}_{counts[term.name]}")
            self.lines.append(
                f"Definition {names[-1]} (delta : direction) : matrix :=\n"
                f"  {self.terms.word(term.value)}."
            )
        total = " ".join(["(add"] * (len(names) - 1) + [f"({names[0]} delta)"]) if names else "zero"
        total += "".join(f" ({n} delta))" for n in names[1:])
        self.lines += [
            "\nDefinition update (delta : direction) (t : R) : matrix :=\n"
            f"  {self.terms.path(self.rule.update)}.",
            "Definition path_update := update.",
            f"Definition value_update : matrix := {self.terms.word(self.jet.value)}.",
            "Definition first_update (delta : direction) : matrix :=\n"
            f"  {self.terms.word(sp.Add(*self.jet.first.values()))}.",
            f"Definition second_update (delta : direction) : matrix :=\n  {total}.",
        ]
        self._unfold += names
        self._tactics()
        self._expansion(Piece("update", self.rule.update, *(sp.Integer(0),) * 3))
        says = (
            "Along X + t dX the update's second order is the sum of the derived terms, up to t^3."
        )
        self._theorem("second_order_of_the_update", says, _same_as("update"))

    def _mean(self) -> None:
        names = [d.split()[1] for d in self.lines if d.startswith("Definition")]
        terms = [
            n for n in names if n.rsplit("_", 1)[0] in ("coupling", "cross", "inversion", "product")
        ]
        total = " + ".join(f"E law (fun a => {n} (delta a) i j)" for n in terms) or "0"
        statement = f""" {{A}} (law : law A) (delta : A -> direction) :
  probability law -> (forall n i j, E law (fun a => delta a n i j) = 0) ->
  matrix_expands d (fun t i j => E law (fun a => update (delta a) t i j)) value_update zero
    (fun i j => {total}).
Proof.
intros hlaw hdelta.
eapply matrix_expands_same; [exact (mean_matrix_expands law d (fun a => update (delta a))
  value_update (fun a => first_update (delta a)) (fun a => second_update (delta a)) hlaw
  (proj2 (Forall_forall _ _) (fun p _ => expands_update (delta (snd p))))
  (mean_of_linear law first_update delta linear_update hdelta)) | | |]; intros i j _ _;
  [reflexivity | reflexivity |].
unfold second_update, add; rewrite ?E_plus.
first [reflexivity | unfold zero; now rewrite E_const].
Qed.
"""
        says = (
            "Over a finite law of deviations of mean zero the mean of the update is its value plus "
            "t^2 times the means of the derived terms, up to t^3."
        )
        self.lines.append(f"\nTheorem bias_of_the_update{statement}")
        self.theorems.append(Theorem("bias_of_the_update", says, "coefficient"))

    def _theorem(self, name: str, says: str, statement: str) -> None:
        self.lines.append(f"\n(** {says} *)\nTheorem {name} {statement}")
        self.theorems.append(Theorem(name, says, "coefficient"))


def _same_as(name: str) -> str:
    return (
        f"delta :\n  matrix_expands d (path_{name} delta) value_{name} (first_{name} delta) "
        f"(second_{name} delta).\nProof. exact (expands_{name} delta). Qed."
    )


def _plain(text: str) -> str:
    return text.replace("*", " * ")
