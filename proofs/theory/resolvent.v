(** The resolvent identity at any order, in any ring with units, commutative or not.

    Square matrices over a field (or any commutative ring with units) are such a ring, so every
    statement here is one about matrices; the last section says so. *)

From mathcomp Require Import all_ssreflect all_algebra.
Import GRing.Theory.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Local Open Scope ring_scope.

Section Resolvent.
Variable ring : unitRingType.
Variables A H : ring.
Hypothesis unitA : A \is a GRing.unit.
Hypothesis unitAH : A + H \is a GRing.unit.

(** (A + H)^-1 = A^-1 - A^-1 H (A + H)^-1. *)
Theorem resolvent_identity : (A + H)^-1 = A^-1 - A^-1 * H * (A + H)^-1.
Proof.
apply: (mulIr unitAH); rewrite mulrBl -mulrA mulVr // mulr1.
by rewrite mulrDr mulVr // addrK.
Qed.

(** The same from the other side. *)
Theorem resolvent_identity_right : (A + H)^-1 = A^-1 - (A + H)^-1 * H * A^-1.
Proof.
apply: (mulrI unitAH); rewrite mulrBr !mulrA mulrV // mul1r.
by rewrite mulrDl mulrV // addrK.
Qed.

(** The series cut at order n, with what is left of it:
    (A + H)^-1 = sum over k <= n of (-A^-1 H)^k A^-1 + (-A^-1 H)^(n+1) (A + H)^-1. *)
Theorem resolvent_any_order n :
  (A + H)^-1 = \sum_(k < n.+1) (- (A^-1 * H)) ^+ k * A^-1 + (- (A^-1 * H)) ^+ n.+1 * (A + H)^-1.
Proof.
elim: n => [|n IH].
  by rewrite big_ord_recr big_ord0 /= add0r expr0 mul1r expr1 mulNr -resolvent_identity.
rewrite [in RHS]big_ord_recr /= -addrA {1}IH; congr (_ + _).
rewrite {1}resolvent_identity mulrBr; congr (_ + _).
by rewrite [in RHS]exprSr -[RHS]mulrA mulNr mulrN.
Qed.

(** Second order: A^-1 - A^-1 H A^-1 + A^-1 H A^-1 H A^-1, and an exact third-order rest. *)
Theorem resolvent_second_order :
  (A + H)^-1 = A^-1 - A^-1 * H * A^-1 + A^-1 * H * A^-1 * H * A^-1
               - A^-1 * H * A^-1 * H * A^-1 * H * (A + H)^-1.
Proof.
rewrite {1}(resolvent_any_order 2) !big_ord_recr big_ord0 /= add0r expr0 mul1r expr1.
rewrite !exprS expr0 !mulr1 !mulNr !mulrN !mulNr !opprK !mulrA.
by [].
Qed.
End Resolvent.

(** The mean of a perturbation of mean zero: first order vanishes, second order is the bias. *)
Section MeanOfInverse.
Variables (ring : unitRingType) (outcome : finType).
Variables (A : ring) (w H : outcome -> ring).
Hypothesis unitA : A \is a GRing.unit.
Hypothesis unitAH : forall a, A + H a \is a GRing.unit.
Hypothesis central_w : forall a x, w a * x = x * w a.
Hypothesis total : \sum_a w a = 1.
Hypothesis centered : \sum_a w a * H a = 0.

(** E (A+H)^-1 - A^-1 = E A^-1 H A^-1 H A^-1 - E A^-1 H A^-1 H A^-1 H (A+H)^-1, exactly. *)
Theorem mean_of_inverse :
  \sum_a w a * (A + H a)^-1 - A^-1
  = \sum_a w a * (A^-1 * H a * A^-1 * H a * A^-1)
    - \sum_a w a * (A^-1 * H a * A^-1 * H a * A^-1 * H a * (A + H a)^-1).
Proof.
have first : \sum_a w a * (A^-1 * H a * A^-1) = 0.
  under eq_bigr do rewrite !mulrA central_w -!mulrA [w _ * (_ * _)]mulrA.
  by rewrite -mulr_sumr -mulr_suml centered mul0r mulr0.
under eq_bigr => a _ do rewrite (resolvent_second_order unitA (unitAH a)) mulrBr mulrDr mulrBr.
rewrite !(big_split, sumrN) /= first subr0 -mulr_suml total mul1r.
by rewrite addrAC [A^-1 + _]addrC addrK.
Qed.
End MeanOfInverse.

(** For matrices. *)
Section Matrices.
Variables (field : fieldType) (n : nat).
Implicit Types A H : 'M[field]_n.+1.

(** The second-order identity of the ring, read for square matrices over a field. *)
Theorem matrix_resolvent_second_order A H : A \in unitmx -> A + H \in unitmx ->
  invmx (A + H) = invmx A - invmx A *m H *m invmx A + invmx A *m H *m invmx A *m H *m invmx A
                  - invmx A *m H *m invmx A *m H *m invmx A *m H *m invmx (A + H).
Proof. exact: (@resolvent_second_order [unitRingType of 'M[field]_n.+1]). Qed.

(** In the eigenbasis the entry (i, j) of the second order is sum over k of H_ik H_kj divided by
    the three eigenvalues: the divided difference of 1/x. *)
Theorem second_order_in_eigenbasis (d : 'rV[field]_n.+1) H i j :
  (forall k, d 0 k != 0) ->
  let D := diag_mx (map_mx (fun x => x^-1) d) in
  (D *m H *m D *m H *m D) i j = \sum_k H i k * H k j / (d 0 i * d 0 k * d 0 j).
Proof.
move=> hd D; rewrite /D mul_mx_diag mxE -!mulmxA mul_diag_mx !mxE.
rewrite mulr_sumr mulr_suml; apply: eq_bigr => k _.
rewrite mul_diag_mx !mxE !invfM.
rewrite -!mulrA mulrCA; congr (_ * _).
by rewrite [RHS]mulrCA; congr (_ * _); rewrite mulrCA.
Qed.
End Matrices.
