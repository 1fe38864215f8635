(** Taylor's formula with Lagrange's remainder, in one variable, at any order, in both directions.

    Derivatives are given as a _tower_: functions [F 0, F 1, F 2, ...], each the derivative of the
    one before.  A tower is what a certificate writes down, and it needs no derivative operator. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

(** Coquelicot states equalities in a normed module; [ring] and [field] want them in [R]. *)
Ltac in_reals := match goal with |- @eq _ ?a ?b => change (@eq R a b) end.

Implicit Types (F : nat -> R -> R) (D : R -> Prop).

(** [F 0] has derivatives [F 1 ... F n] at every point of [D]. *)
Definition tower (F : nat -> R -> R) (n : nat) (D : R -> Prop) : Prop :=
  forall k t, (k < n)%nat -> D t -> is_derive (F k) t (F (S k) t).

(** A set of reals without holes. *)
Definition convex (D : R -> Prop) : Prop :=
  forall a b t, D a -> D b -> Rmin a b <= t <= Rmax a b -> D t.

(** [F 0 (mu) + ... + F n (mu) (x - mu)^n / n!]. *)
Definition taylor_polynomial (F : nat -> R -> R) (n : nat) (mu x : R) : R :=
  sum_f_R0 (fun k => F k mu / INR (fact k) * (x - mu) ^ k) n.

Lemma convex_half_line lo : convex (fun t => lo <= t).
Proof.
intros a b t ha hb [h _]; apply Rle_trans with (2 := h).
now unfold Rmin; destruct (Rle_dec a b).
Qed.

Lemma convex_interval lo hi : convex (fun t => lo <= t <= hi).
Proof. intros a b t; unfold Rmin, Rmax; destruct (Rle_dec a b); lra. Qed.

Lemma tower_lower F n k D : (k <= n)%nat -> tower F n D -> tower F k D.
Proof. intros hk h j t hj; apply h; lia. Qed.

(** A function's own derivatives are a tower where they exist. *)
Lemma tower_of_derivatives f n D :
  (forall k t, (k <= n)%nat -> D t -> ex_derive_n f k t) -> tower (Derive_n f) n D.
Proof. intros h k t hk ht; apply Derive_correct; apply (h (S k) t hk ht). Qed.

Lemma fact_neq_0_R n : INR (fact n) <> 0.
Proof. apply INR_fact_neq_0. Qed.

Lemma fact_pos_R n : 0 < INR (fact n).
Proof. apply INR_fact_lt_0. Qed.

Lemma fact_succ_R n : INR (fact (S n)) = INR (S n) * INR (fact n).
Proof. now rewrite fact_simpl, mult_INR. Qed.

Lemma taylor_polynomial_at_center F n x : taylor_polynomial F n x x = F 0%nat x.
Proof.
unfold taylor_polynomial; induction n as [|n IH]; [simpl; field|].
rewrite tech5, IH, Rminus_diag_eq by reflexivity; rewrite pow_i by lia; ring.
Qed.

Lemma power_moves c x t n :
  is_derive (fun mu => c * (x - mu) ^ S n) t (- (c * INR (S n) * (x - t) ^ n)).
Proof.
evar_last.
- apply is_derive_scal, is_derive_pow.
  apply (is_derive_minus (fun _ => x) (fun mu => mu));
    [apply is_derive_const | apply is_derive_id].
- unfold minus, plus, opp, zero, one; cbn -[INR fact pow]; simpl pred; in_reals; ring.
Qed.

(** What moves when the point of expansion moves: all but the last term cancels. *)
Lemma taylor_polynomial_moves F n x t :
  (forall k, (k <= n)%nat -> is_derive (F k) t (F (S k) t)) ->
  is_derive (fun mu => taylor_polynomial F n mu x) t
    (F (S n) t / INR (fact n) * (x - t) ^ n).
Proof.
induction n as [|n IH]; intros h.
- unfold taylor_polynomial; simpl.
  apply is_derive_ext with (f := F 0%nat).
  { intro; in_reals; field. }
  replace (F 1%nat t / 1 * 1) with (F 1%nat t) by field.
  now apply h.
- assert (h0 : forall k, (k <= n)%nat -> is_derive (F k) t (F (S k) t)) by (intros; apply h; lia).
  specialize (IH h0).
  apply is_derive_ext with
    (f := fun mu => plus (taylor_polynomial F n mu x)
                         (F (S n) mu * (/ INR (fact (S n)) * (x - mu) ^ S n))).
  { intro mu; unfold taylor_polynomial; rewrite tech5; unfold plus; cbn -[INR fact pow].
    in_reals; unfold Rdiv; ring. }
  assert (hp : is_derive (fun mu => / INR (fact (S n)) * (x - mu) ^ S n) t
                 (- / INR (fact n) * (x - t) ^ n)).
  { evar_last; [apply power_moves | in_reals].
    rewrite fact_succ_R, S_INR.
    field; split; [apply fact_neq_0_R | rewrite <- S_INR; apply not_0_INR; lia]. }
  assert (hm := is_derive_mult (F (S n)) (fun mu => / INR (fact (S n)) * (x - mu) ^ S n)
                  t _ _ (h (S n) (le_n _)) hp Rmult_comm).
  evar_last.
  + exact (is_derive_plus _ _ _ _ _ IH hm).
  + unfold plus, mult; cbn -[INR fact pow]; in_reals; unfold Rdiv; ring.
Qed.

(** Rolle's theorem between two points in any order. *)
Lemma rolle (H dH : R -> R) x y :
  x <> y -> H x = H y ->
  (forall t, Rmin x y <= t <= Rmax x y -> is_derive H t (dH t)) ->
  exists z, Rmin x y < z < Rmax x y /\ dH z = 0.
Proof.
intros hxy heq hd.
assert (hlt : Rmin x y < Rmax x y) by (unfold Rmin, Rmax; destruct (Rle_dec x y); lra).
destruct (MVT_cor2 H dH (Rmin x y) (Rmax x y) hlt) as [z [hz hin]].
{ intros c hc; apply is_derive_Reals, hd, hc. }
exists z; split; [exact hin|].
assert (h0 : dH z * (Rmax x y - Rmin x y) = 0).
{ rewrite <- hz; unfold Rmin, Rmax; destruct (Rle_dec x y); lra. }
apply Rmult_integral in h0; destruct h0; [assumption | lra].
Qed.

(** Taylor-Lagrange: f x = Taylor polynomial at mu + f^(n+1)(z)/(n+1)! (x - mu)^(n+1), with z
    between mu and x; x may lie on either side of mu, and may be mu. *)
Theorem taylor_lagrange F n mu x :
  tower F (S n) (fun t => Rmin mu x <= t <= Rmax mu x) ->
  exists z, Rmin mu x <= z <= Rmax mu x /\
    F 0%nat x = taylor_polynomial F n mu x + F (S n) z / INR (fact (S n)) * (x - mu) ^ S n.
Proof.
intros hF.
destruct (Req_dec mu x) as [heq | hne].
{ exists x; subst mu; split; [unfold Rmin, Rmax; destruct (Rle_dec x x); lra|].
  rewrite taylor_polynomial_at_center, Rminus_diag_eq by reflexivity.
  rewrite pow_i by lia; ring. }
set (K := (F 0%nat x - taylor_polynomial F n mu x) / (x - mu) ^ S n).
assert (hpow : (x - mu) ^ S n <> 0) by (apply pow_nonzero; lra).
set (H := fun t => plus (taylor_polynomial F n t x) (K * (x - t) ^ S n)).
assert (hd : forall t, Rmin mu x <= t <= Rmax mu x -> is_derive H t
   ((F (S n) t / INR (fact n) - K * INR (S n)) * (x - t) ^ n)).
{ intros t ht.
  assert (hP : is_derive (fun mu => taylor_polynomial F n mu x) t
                 (F (S n) t / INR (fact n) * (x - t) ^ n)).
  { apply taylor_polynomial_moves; intros k hk; apply hF; [lia | exact ht]. }
  evar_last; [exact (is_derive_plus _ _ _ _ _ hP (power_moves K x t n))|].
  unfold plus; cbn -[INR fact pow]; in_reals; ring. }
destruct (fun he => rolle H _ mu x hne he hd) as [z [hz h0]].
{ unfold H, K, plus; cbn -[pow].
  rewrite taylor_polynomial_at_center, (Rminus_diag_eq x x) by reflexivity.
  rewrite (pow_i (S n)) by lia; field; exact hpow. }
exists z; split; [lra|].
assert (hK : K = F (S n) z / INR (fact (S n))).
{ apply Rmult_integral in h0; destruct h0 as [h0 | h0].
  - rewrite fact_succ_R.
    assert (hS : INR (S n) <> 0) by (apply not_0_INR; lia).
    assert (e : F (S n) z / INR (fact n) = K * INR (S n)) by lra.
    apply Rmult_eq_reg_r with (INR (S n)); [|exact hS].
    rewrite <- e; field; split; [apply fact_neq_0_R | exact hS].
  - exfalso; revert h0; apply pow_nonzero.
    revert hz; unfold Rmin, Rmax; destruct (Rle_dec mu x); lra. }
rewrite <- hK; unfold K; field; exact hpow.
Qed.

(** The remainder's size, where the next derivative is bounded. *)
Theorem taylor_remainder_bound F n D M mu x :
  convex D -> tower F (S n) D -> (forall t, D t -> Rabs (F (S n) t) <= M) -> D mu -> D x ->
  Rabs (F 0%nat x - taylor_polynomial F n mu x)
    <= M / INR (fact (S n)) * Rabs (x - mu) ^ S n.
Proof.
intros hD hF hM hmu hx.
destruct (taylor_lagrange F n mu x) as [z [hz e]].
{ intros k t hk ht; apply hF; [exact hk | now apply (hD mu x)]. }
rewrite e; replace (_ + _ - _) with (F (S n) z / INR (fact (S n)) * (x - mu) ^ S n) by ring.
rewrite Rabs_mult, RPow_abs.
apply Rmult_le_compat_r; [apply Rabs_pos|].
unfold Rdiv; rewrite Rabs_mult, (Rabs_pos_eq (/ _)).
- apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat, fact_pos_R|].
  now apply hM, (hD mu x).
- left; apply Rinv_0_lt_compat, fact_pos_R.
Qed.
