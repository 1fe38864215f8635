(** Independent observations of one law may be exchanged: what is left without one of them is a
    sample of one fewer, independent of the one taken out.  So leave-one-out has no coupling. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law mean_law estimators.
Import ListNotations.
Open Scope R_scope.

Section Exchange.
Context {A : Type}.
Implicit Types (l : list A) (L : law A).

Fixpoint insert (r : nat) (a : A) l : list A :=
  match r, l with
  | S r, b :: l => b :: insert r a l
  | _, _ => a :: l
  end.

(** All observations but the r-th. *)
Fixpoint without (r : nat) l : list A :=
  match r, l with
  | _, [] => []
  | O, _ :: l => l
  | S r, b :: l => b :: without r l
  end.

Lemma without_insert r a l : (r <= length l)%nat -> without r (insert r a l) = l.
Proof.
revert l; induction r as [|r IH]; intros [|b l]; simpl; intro h; try reflexivity; [lia|].
now rewrite IH by lia.
Qed.

Lemma nth_insert r a l d : (r <= length l)%nat -> nth r (insert r a l) d = a.
Proof.
revert l; induction r as [|r IH]; intros [|b l]; simpl; intro h; try reflexivity; [lia|].
apply IH; lia.
Qed.

Lemma E_zero {B} (M : law B) : E M (fun _ => 0) = 0.
Proof. rewrite (E_ext M _ (fun _ => 0 * 0)), E_scal; [ring | intro; ring]. Qed.

Lemma E_swap {B} L (M : law B) f :
  E L (fun a => E M (fun b => f a b)) = E M (fun b => E L (fun a => f a b)).
Proof.
induction L as [|[w a] L IH]; simpl; [symmetry; apply E_zero|].
now rewrite IH, E_plus, E_scal.
Qed.

Lemma length_sample m L : surely (sample m L) (fun l => length l = m).
Proof.
induction m as [|m IH]; simpl; [repeat constructor|].
apply Forall_forall; intros p hp; apply in_map_iff in hp; destruct hp as [q [<- hq]]; simpl.
apply in_flat_map in hq; destruct hq as [u [_ hq]].
apply in_map_iff in hq; destruct hq as [v [<- hv]]; simpl.
f_equal; exact (proj1 (Forall_forall _ _) IH v hv).
Qed.

(** A sample is a smaller one with an independent observation put in anywhere. *)
Theorem sample_insert r m L f : (r <= m)%nat ->
  E (sample (S m) L) f = E L (fun a => E (sample m L) (fun l => f (insert r a l))).
Proof.
revert m f; induction r as [|r IH]; intros m f hr.
- rewrite E_sample_S, E_product; apply E_ext; intro a; apply E_ext; intros []; reflexivity.
- destruct m as [|m]; [lia|].
  rewrite E_sample_S, E_product.
  transitivity (E L (fun b => E L (fun a => E (sample m L) (fun l => f (b :: insert r a l))))).
  { apply E_ext; intro b; cbv beta; simpl fst; simpl snd.
    exact (IH m (fun l => f (b :: l)) ltac:(lia)). }
  rewrite E_swap; apply E_ext; intro a.
  rewrite E_sample_S, E_product; reflexivity.
Qed.

(** Leave-one-out: numerator from observation r, preconditioner from all others; the expectation
    factors, so coupling vanishes exactly. *)
Theorem leave_one_out_factors r m L g f d : (r <= m)%nat ->
  E (sample (S m) L) (fun l => g (nth r l d) * f (without r l)) = E L g * E (sample m L) f.
Proof.
intros hr; rewrite (sample_insert r m L _ hr).
transitivity (E L (fun a => g a * E (sample m L) f)); [|now rewrite E_scal_r].
apply E_ext; intro a; rewrite <- E_scal; apply E_surely_ext.
generalize (length_sample m L); apply surely_imp; intros l hl.
now rewrite nth_insert, without_insert by lia.
Qed.

(** Averaged over all m + 1 folds. *)
Theorem leave_one_out_average m L g f d :
  E (sample (S m) L)
    (fun l => / INR (S m) * sum (S m) (fun r => g (nth r l d) * f (without r l)))
  = E L g * E (sample m L) f.
Proof.
rewrite E_scal, E_sum_n, (sum_ext _ _ (fun _ => E L g * E (sample m L) f)).
- rewrite sum_const; field; apply not_0_INR; lia.
- intros r hr; apply leave_one_out_factors; lia.
Qed.

(** Without one observation the law is that of a smaller sample. *)
Theorem E_without r m L f : probability L -> (r <= m)%nat ->
  E (sample (S m) L) (fun l => f (without r l)) = E (sample m L) f.
Proof.
intros hL hr; rewrite (sample_insert r m L _ hr).
transitivity (E L (fun _ => E (sample m L) f)); [|now apply E_const].
apply E_ext; intro a; apply E_surely_ext.
generalize (length_sample m L); apply surely_imp; intros l hl.
now rewrite without_insert by lia.
Qed.

(** The jackknife's expectation needs two sample sizes only. *)
Theorem E_jackknife m L u u' : probability L ->
  E (sample (S m) L) (jackknife (S m) u (fun r l => u' (without r l)))
  = INR (S m) * E (sample (S m) L) u - INR m * E (sample m L) u'.
Proof.
intros hL; unfold jackknife; rewrite E_minus, !E_scal, E_sum_n.
rewrite (sum_ext _ _ (fun _ => E (sample m L) u')) by (intros; apply E_without; auto; lia).
rewrite sum_const, (S_INR m); field; rewrite <- S_INR; apply not_0_INR; lia.
Qed.
End Exchange.
