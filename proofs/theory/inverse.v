(** The reciprocal: identities that are exact, for any law away from zero. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law.
Open Scope R_scope.

Section Reciprocal.
Context {A : Type}.
Variables (L : law A) (X : A -> R).
Hypothesis hL : probability L.
Hypothesis hX : surely L (fun a => X a <> 0).
Let mu := mean L X.
Hypothesis hmu : mu <> 0.

(** The geometric series, cut at order n, with what is left of it. *)
Lemma reciprocal_expansion x n : x <> 0 ->
  / x = sum_f_R0 (fun k => (-1) ^ k * (x - mu) ^ k / mu ^ S k) n
        + (-1) ^ S n * (x - mu) ^ S n / (mu ^ S n * x).
Proof.
intros hx; induction n as [|n IH]; [simpl; field; split; assumption|].
rewrite tech5; rewrite IH at 1.
assert (hp : mu ^ n <> 0) by now apply pow_nonzero.
simpl; field; repeat split; assumption.
Qed.

(** E 1/X = 1/mu + Var/mu^3 - mu_3/mu^4 + ..., exactly, at any order. *)
Theorem E_inverse_any_order n :
  E L (fun a => / X a)
  = sum_f_R0 (fun k => (-1) ^ k * central L k X / mu ^ S k) n
    + (-1) ^ S n * E L (fun a => (X a - mu) ^ S n / X a) / mu ^ S n.
Proof.
rewrite (E_surely_ext L _ (fun a =>
  sum_f_R0 (fun k => (-1) ^ k / mu ^ S k * (X a - mu) ^ k) n
  + (-1) ^ S n / mu ^ S n * ((X a - mu) ^ S n / X a))).
2: { revert hX; apply surely_imp; intros a ha; rewrite (reciprocal_expansion (X a) n ha).
     f_equal; [apply sum_eq; intros k _; unfold Rdiv; ring|].
     field; split; [exact ha | now apply pow_nonzero]. }
rewrite E_plus, E_sum, E_scal; f_equal; [|unfold Rdiv; ring].
apply sum_eq; intros k _; rewrite E_scal; unfold central; fold mu; unfold Rdiv; ring.
Qed.

(** E 1/X - 1/mu - Var/mu^3 = - E (X - mu)^3 / (mu^3 X). *)
Theorem E_inverse :
  E L (fun a => / X a) - / mu - Var L X / mu ^ 3 = - E L (fun a => (X a - mu) ^ 3 / (mu ^ 3 * X a)).
Proof.
rewrite (E_inverse_any_order 2); simpl sum_f_R0.
rewrite central_0, central_1 by exact hL.
rewrite (E_surely_ext L (fun a => (X a - mu) ^ 3 / (mu ^ 3 * X a))
          (fun a => / mu ^ 3 * ((X a - mu) ^ 3 / X a))).
- rewrite E_scal; unfold Var; field; exact hmu.
- revert hX; apply surely_imp; intros a ha; field; split; assumption.
Qed.

(** Jensen: for a positive variable the gap is not negative. *)
Theorem E_inverse_gap : surely L (fun a => 0 < X a) -> / mu <= E L (fun a => / X a).
Proof.
intros hpos.
assert (hm : 0 < mu).
{ assert (0 <= mu); [|lra].
  apply mean_ge; [exact hL|]; revert hpos; apply surely_imp; intros; lra. }
rewrite (E_inverse_any_order 1); simpl sum_f_R0; rewrite central_0, central_1 by exact hL.
assert (0 <= E L (fun a => (X a - mu) ^ 2 / X a)).
{ apply E_nonneg; [exact hL|]; revert hpos; apply surely_imp; intros a ha.
  apply Rmult_le_pos; [apply pow2_ge_0 | left; now apply Rinv_0_lt_compat]. }
assert (0 <= / mu ^ 2 * E L (fun a => (X a - mu) ^ 2 / X a)).
{ apply Rmult_le_pos; [left; apply Rinv_0_lt_compat; nra | assumption]. }
replace (_ + _) with (/ mu + / mu ^ 2 * E L (fun a => (X a - mu) ^ 2 / X a)) by (field; exact hmu).
lra.
Qed.
End Reciprocal.
