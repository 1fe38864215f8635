(** Maps of one statistic as updates with the numerator one: what the theorems about numerator and
    preconditioner say of them. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law mean_law exchange.
Import ListNotations.
Open Scope R_scope.

Lemma total_one {A} (l : list A) : total (fun _ => 1) l = INR (length l).
Proof. induction l as [|a l IH]; [reflexivity|]; cbn [total length]; rewrite S_INR, IH; ring. Qed.

Lemma E_average_one {A} m (L : law A) (h : list A -> R) : (0 < m)%nat ->
  E (sample m L) (fun l => average m (fun _ => 1) l * h l) = E (sample m L) h.
Proof.
intros hm; apply E_surely_ext; generalize (length_sample m L); apply surely_imp; intros l hl.
unfold average; rewrite total_one, hl; field; apply not_0_INR; lia.
Qed.

Lemma mean_one {A} (L : law A) : probability L -> mean L (fun _ => 1) = 1.
Proof. intros hL; unfold mean; now apply E_const. Qed.

Lemma Cov_one {A} (L : law A) (V : A -> R) : probability L -> Cov L (fun _ => 1) V = 0.
Proof.
intros hL; unfold Cov; rewrite mean_one by exact hL.
rewrite (E_ext L _ (fun _ => 0)) by (intro; ring); now apply E_const.
Qed.

Lemma unit_bounded {A} (L : law A) : surely L (fun _ => - 1 <= 1 <= 1).
Proof. apply Forall_forall; intros; lra. Qed.
