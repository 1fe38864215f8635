(** Expectation on a finite probability space, and independence as a product of spaces.

    A law is a list of (weight, outcome).  Outcomes may be anything, a random variable is a
    function of them: one law carries any number of dependent variables.  Nothing is assumed about
    a variable beyond its values, so every statement is one about finite sums. *)

From Coq Require Import Reals Lra List.
Import ListNotations.
Open Scope R_scope.

Definition law (A : Type) := list (R * A).

(** [E f L = sum of weight * f(outcome)]. *)
Fixpoint E {A : Type} (L : law A) (f : A -> R) : R :=
  match L with
  | [] => 0
  | (w, a) :: rest => w * f a + E rest f
  end.

(** Weights are not negative and sum to one. *)
Definition probability {A} (L : law A) : Prop :=
  Forall (fun p => 0 <= fst p) L /\ E L (fun _ => 1) = 1.

(** Something holds for every outcome. *)
Definition surely {A} (L : law A) (P : A -> Prop) : Prop := Forall (fun p => P (snd p)) L.

Definition mean {A} (L : law A) (X : A -> R) : R := E L X.

(** [E (X - E X)^k]. *)
Definition central {A} (L : law A) (k : nat) (X : A -> R) : R :=
  E L (fun a => (X a - mean L X) ^ k).

Definition Var {A} (L : law A) (X : A -> R) : R := central L 2 X.

Definition Cov {A} (L : law A) (X Y : A -> R) : R :=
  E L (fun a => (X a - mean L X) * (Y a - mean L Y)).

(** Independent outcomes, side by side. *)
Definition product {A B} (L : law A) (M : law B) : law (A * B) :=
  flat_map (fun p => map (fun q => (fst p * fst q, (snd p, snd q))) M) L.

Section Expectation.
Context {A : Type}.
Implicit Types (L : law A) (f g X Y : A -> R).

Lemma E_ext L f g : (forall a, f a = g a) -> E L f = E L g.
Proof. intros h; induction L as [|[w a] L IH]; simpl; [|rewrite h, IH]; reflexivity. Qed.

Lemma E_surely_ext L f g : surely L (fun a => f a = g a) -> E L f = E L g.
Proof. induction 1 as [|[w a] L h _ IH]; simpl in *; [|rewrite h, IH]; reflexivity. Qed.

Lemma E_plus L f g : E L (fun a => f a + g a) = E L f + E L g.
Proof. induction L as [|[w a] L IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma E_minus L f g : E L (fun a => f a - g a) = E L f - E L g.
Proof. induction L as [|[w a] L IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma E_scal L c f : E L (fun a => c * f a) = c * E L f.
Proof. induction L as [|[w a] L IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma E_scal_r L c f : E L (fun a => f a * c) = E L f * c.
Proof. induction L as [|[w a] L IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma E_const L c : probability L -> E L (fun _ => c) = c.
Proof.
intros [_ h]; rewrite (E_ext L (fun _ => c) (fun _ => c * 1)) by (intro; ring).
rewrite E_scal, h; ring.
Qed.

Lemma E_sum L (f : nat -> A -> R) n :
  E L (fun a => sum_f_R0 (fun k => f k a) n) = sum_f_R0 (fun k => E L (f k)) n.
Proof. induction n as [|n IH]; simpl; [reflexivity | now rewrite E_plus, IH]. Qed.

Lemma E_le L f g : probability L -> surely L (fun a => f a <= g a) -> E L f <= E L g.
Proof.
intros [hw _] h; induction L as [|[w a] L IH]; simpl; [lra|].
inversion_clear hw; inversion_clear h; simpl in *.
apply Rplus_le_compat; [now apply Rmult_le_compat_l | now apply IH].
Qed.

Lemma E_nonneg L f : probability L -> surely L (fun a => 0 <= f a) -> 0 <= E L f.
Proof. intros hL h; rewrite <- (E_const L 0 hL); now apply E_le. Qed.

Lemma E_Rabs L f : probability L -> Rabs (E L f) <= E L (fun a => Rabs (f a)).
Proof.
intros [hw _]; induction L as [|[w a] L IH]; simpl; [rewrite Rabs_R0; lra|].
inversion_clear hw; simpl in *.
eapply Rle_trans; [apply Rabs_triang|].
rewrite Rabs_mult, (Rabs_pos_eq w) by assumption.
apply Rplus_le_compat_l, IH; assumption.
Qed.

Lemma surely_and L (P Q : A -> Prop) : surely L P -> surely L Q -> surely L (fun a => P a /\ Q a).
Proof. intros h k; induction h; inversion_clear k; constructor; auto. now apply IHh. Qed.

Lemma surely_imp L (P Q : A -> Prop) : (forall a, P a -> Q a) -> surely L P -> surely L Q.
Proof. intros h; apply Forall_impl; intros p; apply h. Qed.

(** If X stays in a half-line or interval so does its mean. *)
Lemma mean_ge L X lo : probability L -> surely L (fun a => lo <= X a) -> lo <= mean L X.
Proof. intros hL h; rewrite <- (E_const L lo hL); now apply E_le. Qed.

Lemma mean_le L X hi : probability L -> surely L (fun a => X a <= hi) -> mean L X <= hi.
Proof. intros hL h; rewrite <- (E_const L hi hL); now apply E_le. Qed.

Lemma central_0 L X : probability L -> central L 0 X = 1.
Proof. intros hL; unfold central; simpl; now apply E_const. Qed.

Lemma central_1 L X : probability L -> central L 1 X = 0.
Proof.
intros hL; unfold central.
rewrite (E_ext L _ (fun a => X a - mean L X)) by (intro; ring).
rewrite E_minus, E_const by assumption; unfold mean; ring.
Qed.

Lemma Var_nonneg L X : probability L -> 0 <= Var L X.
Proof.
intros hL; apply E_nonneg; [exact hL|].
apply Forall_forall; intros p _; apply pow2_ge_0.
Qed.

Lemma Cov_self L X : Cov L X X = Var L X.
Proof. unfold Cov, Var, central; apply E_ext; intro; ring. Qed.

Lemma Cov_sym L X Y : Cov L X Y = Cov L Y X.
Proof. unfold Cov; apply E_ext; intro; ring. Qed.

(** [Cov(X, Y) = E XY - E X E Y]. *)
Lemma Cov_moments L X Y : probability L ->
  Cov L X Y = E L (fun a => X a * Y a) - mean L X * mean L Y.
Proof.
intros hL; unfold Cov.
rewrite (E_ext L _ (fun a => X a * Y a - X a * mean L Y - (mean L X * Y a - mean L X * mean L Y)))
  by (intro; ring).
rewrite !E_minus, E_scal_r, E_scal, E_const by assumption; unfold mean; ring.
Qed.

Lemma Var_moments L X : probability L -> Var L X = E L (fun a => X a ^ 2) - mean L X ^ 2.
Proof.
intros hL; rewrite <- Cov_self, Cov_moments by assumption.
rewrite (E_ext L (fun a => X a ^ 2) (fun a => X a * X a)) by (intro; ring); ring.
Qed.

(** Bilinearity of the covariance. *)
Lemma Cov_plus_l L X Y Z : probability L ->
  Cov L (fun a => X a + Y a) Z = Cov L X Z + Cov L Y Z.
Proof.
intros hL; unfold Cov; rewrite <- E_plus; apply E_ext; intro a.
unfold mean; rewrite E_plus; ring.
Qed.

Lemma Cov_scal_l L c X Y : Cov L (fun a => c * X a) Y = c * Cov L X Y.
Proof.
unfold Cov; rewrite <- E_scal; apply E_ext; intro a; unfold mean; rewrite E_scal; ring.
Qed.

Lemma Cov_plus_r L X Y Z : probability L ->
  Cov L Z (fun a => X a + Y a) = Cov L Z X + Cov L Z Y.
Proof. intros hL; now rewrite Cov_sym, Cov_plus_l, (Cov_sym L X), (Cov_sym L Y). Qed.

Lemma Cov_scal_r L c X Y : Cov L X (fun a => c * Y a) = c * Cov L X Y.
Proof. now rewrite Cov_sym, Cov_scal_l, Cov_sym. Qed.

(** A statistic and its square: [Cov(X, X^2) = 2 mu Var + kappa_3]. *)
Lemma Cov_square L X : probability L ->
  Cov L X (fun a => X a ^ 2) = 2 * mean L X * Var L X + central L 3 X.
Proof.
intros hL; set (mu := mean L X).
assert (h1 : E L (fun a => X a - mu) = 0).
{ rewrite E_minus, E_const by assumption; unfold mu, mean; ring. }
assert (h2 : mean L (fun a => X a ^ 2) = mu ^ 2 + Var L X) 
  by (rewrite Var_moments by assumption; fold mu; unfold mean; ring).
unfold Cov; fold mu; rewrite h2.
rewrite (E_ext L _ (fun a => 2 * mu * (X a - mu) ^ 2 + (X a - mu) ^ 3
                             - Var L X * (X a - mu))) by (intro; ring).
rewrite E_minus, E_plus, !E_scal, h1; unfold Var, central; fold mu; ring.
Qed.

(** [Var(X^2) = 4 mu^2 Var + 4 mu mu_3 + mu_4 - Var^2]. *)
Lemma Var_square L X : probability L ->
  Var L (fun a => X a ^ 2)
  = 4 * mean L X ^ 2 * Var L X + 4 * mean L X * central L 3 X + central L 4 X - Var L X ^ 2.
Proof.
intros hL; set (mu := mean L X).
assert (h1 : E L (fun a => X a - mu) = 0).
{ rewrite E_minus, E_const by assumption; unfold mu, mean; ring. }
assert (h2 : mean L (fun a => X a ^ 2) = mu ^ 2 + Var L X) 
  by (rewrite Var_moments by assumption; fold mu; unfold mean; ring).
unfold Var at 1, central at 1; rewrite h2; set (v := Var L X).
rewrite (E_ext L _ (fun a => 4 * mu ^ 2 * (X a - mu) ^ 2 + 4 * mu * (X a - mu) ^ 3
   + (X a - mu) ^ 4 - 2 * v * (X a - mu) ^ 2 - 4 * mu * v * (X a - mu) + v ^ 2)) by (intro; ring).
rewrite !E_plus, !E_minus, !E_plus, !E_scal, E_const, h1 by assumption.
change (E L (fun a => (X a - mu) ^ 2)) with v.
unfold central; fold mu; ring.
Qed.
End Expectation.

(** ** Independence *)
Section Product.
Context {A B : Type}.
Implicit Types (L : law A) (M : law B).

Lemma E_app (L1 L2 : law A) f : E (L1 ++ L2) f = E L1 f + E L2 f.
Proof. induction L1 as [|[w a] L1 IH]; simpl; [ring | rewrite IH; ring]. Qed.

(** Fubini. *)
Lemma E_product L M (f : A * B -> R) :
  E (product L M) f = E L (fun a => E M (fun b => f (a, b))).
Proof.
assert (happ : forall (L1 L2 : law (A * B)) g, E (L1 ++ L2) g = E L1 g + E L2 g).
{ induction L1 as [|[w a] L1 IH]; simpl; intros; [ring | rewrite IH; ring]. }
induction L as [|[w a] L IH]; simpl; [reflexivity|].
unfold product in *; rewrite happ, IH; f_equal.
rewrite <- E_scal; clear; induction M as [|[u b] M IH]; simpl; [reflexivity|].
rewrite IH; ring.
Qed.

Lemma probability_product L M : probability L -> probability M -> probability (product L M).
Proof.
intros hL hM; split.
- destruct hL as [hL _], hM as [hM _].
  apply Forall_forall; intros p hp; apply in_flat_map in hp.
  destruct hp as [q [hq hp]]; apply in_map_iff in hp; destruct hp as [r [<- hr]]; simpl.
  apply Rmult_le_pos; [now apply (proj1 (Forall_forall _ _) hL) |
                       now apply (proj1 (Forall_forall _ _) hM)].
- rewrite E_product, (E_ext L _ (fun _ => 1)); [apply hL|].
  intro; apply hM.
Qed.

Lemma surely_product L M (P : A -> Prop) (Q : B -> Prop) : surely L P -> surely M Q ->
  surely (product L M) (fun p => P (fst p) /\ Q (snd p)).
Proof.
intros hL hM; apply Forall_forall; intros p hp; apply in_flat_map in hp.
destruct hp as [q [hq hp]]; apply in_map_iff in hp; destruct hp as [r [<- hr]]; simpl.
split; [now apply (proj1 (Forall_forall _ _) hL) | now apply (proj1 (Forall_forall _ _) hM)].
Qed.

Lemma E_first L M f : probability M -> E (product L M) (fun p => f (fst p)) = E L f.
Proof. intros hM; rewrite E_product; apply E_ext; intro a; simpl; now apply E_const. Qed.

Lemma E_second L M f : probability L -> E (product L M) (fun p => f (snd p)) = E M f.
Proof. intros hL; rewrite E_product; simpl; now apply E_const. Qed.

(** Independent variables: the expectation of a product is the product of expectations. *)
Theorem E_independent L M (f : A -> R) (g : B -> R) :
  E (product L M) (fun p => f (fst p) * g (snd p)) = E L f * E M g.
Proof.
rewrite E_product; simpl.
rewrite (E_ext L _ (fun a => E M g * f a)).
- rewrite E_scal; ring.
- intro a; rewrite E_scal; ring.
Qed.

(** Independent variables have no covariance. *)
Theorem Cov_independent L M (X : A -> R) (Y : B -> R) : probability L -> probability M ->
  Cov (product L M) (fun p => X (fst p)) (fun p => Y (snd p)) = 0.
Proof.
intros hL hM; rewrite Cov_moments by now apply probability_product.
unfold mean; rewrite E_independent, E_first, E_second by assumption; ring.
Qed.
End Product.
