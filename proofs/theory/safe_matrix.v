(** The safe ratio P (P + X)^-1 P of matrices: P - X up to second order, in any ring with units,
    and positive definite where P is and X is not negative. *)

From mathcomp Require Import all_ssreflect all_algebra.
Import Order.Theory GRing.Theory Num.Theory.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Local Open Scope ring_scope.

Section Ratio.
Variable ring : unitRingType.
Variables P X : ring.
Hypothesis unitPX : P + X \is a GRing.unit.

(** P (P + X)^-1 P = P - X + X (P + X)^-1 X, exactly. *)
Theorem ratio_is_subtraction : P * (P + X)^-1 * P = P - X + X * (P + X)^-1 * X.
Proof.
have e : P * (P + X)^-1 = 1 - X * (P + X)^-1.
  by rewrite -{1}(addrK X P) mulrBl mulrV.
rewrite e mulrBl mul1r -addrA; congr (_ + _).
have e' : (P + X)^-1 * P = 1 - (P + X)^-1 * X.
  by rewrite -{2}(addrK X P) mulrBr mulVr.
by rewrite -mulrA e' mulrBr mulr1 opprB addrC mulrA.
Qed.

(** Its inverse is P^-1 (P + X) P^-1. *)
Theorem inverse_of_ratio : P \is a GRing.unit ->
  (P * (P + X)^-1 * P)^-1 = P^-1 * (P + X) * P^-1.
Proof.
move=> unitP; rewrite !invrM ?unitrMl ?unitrV //.
by rewrite invrK mulrA.
Qed.

(** What is computed, with P = R R: R (1 + R^-1 X R^-1)^-1 R. *)
Theorem ratio_as_computed (root : ring) : root \is a GRing.unit -> P = root * root ->
  root * (1 + root^-1 * X * root^-1)^-1 * root = P * (P + X)^-1 * P.
Proof.
move=> unitR eP.
have e : 1 + root^-1 * X * root^-1 = root^-1 * (P + X) * root^-1.
  by rewrite mulrDr mulrDl eP mulrA mulVr // mul1r mulrV.
rewrite e !invrM ?unitrMl ?unitrV ?unitR ?unitPX // !invrK.
by rewrite eP !mulrA.
Qed.
End Ratio.

(** For matrices over an ordered field. *)
Section Positive.
Variables (field : numFieldType) (n : nat).
Implicit Types A P X : 'M[field]_n.+1.
Implicit Types v : 'cV[field]_n.+1.

Definition form A v : field := (v^T *m A *m v) 0 0.
Definition positive_definite A : Prop := forall v, v != 0 -> 0 < form A v.
Definition not_negative A : Prop := forall v, 0 <= form A v.

Lemma formD A B v : form (A + B) v = form A v + form B v.
Proof. by rewrite /form mulmxDr mulmxDl mxE. Qed.

Lemma positive_definite_unit A : positive_definite A -> A \in unitmx.
Proof.
move=> pos; rewrite -row_free_unit; apply: contraT.
rewrite -kermx_eq0 => /rowV0Pn [u /sub_kermxP uA u0].
have := pos u^T; rewrite -trmx0 (inj_eq trmx_inj) u0 => /(_ isT).
by rewrite /form trmxK uA mul0mx mxE ltxx.
Qed.

Lemma form_congruence A B v : B^T = B -> form (B *m A *m B) v = form A (B *m v).
Proof. by move=> sym; rewrite /form trmx_mul sym !mulmxA. Qed.

(** P (P + X)^-1 P is positive definite where P is and X is not negative, however large X is. *)
Theorem ratio_is_positive_definite P X : P^T = P -> X^T = X ->
  positive_definite P -> not_negative X -> positive_definite (P *m invmx (P + X) *m P).
Proof.
move=> symP symX pos nn v v0; rewrite form_congruence //.
have posPX : positive_definite (P + X).
  by move=> w w0; rewrite formD ltr_paddr // pos.
have unitPX := positive_definite_unit posPX; have unitP := positive_definite_unit pos.
set w := invmx (P + X) *m (P *m v).
have ew : P *m v = (P + X) *m w by rewrite /w mulKVmx.
have w0 : w != 0.
  apply: contraNneq v0 => z; rewrite z mulmx0 in ew.
  by rewrite -(mulKmx unitP v) ew mulmx0.
have -> : form (invmx (P + X)) (P *m v) = form (P + X) w; last exact: posPX.
rewrite /form ew trmx_mul linearD /= symP symX -!mulmxA.
by rewrite (mulmxA (invmx _)) mulVmx // mul1mx.
Qed.
End Positive.
