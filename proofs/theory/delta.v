(** The delta theorem: the expectation of a smooth function of a random variable, at any order,
    with an explicit remainder.

    [L] is any finite law, [X] any variable on it (a mean of microbatches, say), [F] the function
    with its derivatives, [D] a convex set where the law lives and the last derivative is bounded. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law.
Open Scope R_scope.

Implicit Types (F : nat -> R -> R) (D : R -> Prop).

(** [f(mu) + f''(mu)/2 Var + ... + f^(n)(mu)/n! E (X - mu)^n]. *)
Definition delta_expansion {A} F n (L : law A) (X : A -> R) : R :=
  sum_f_R0 (fun k => F k (mean L X) / INR (fact k) * central L k X) n.

Lemma total_nonneg {A} (M : law A) :
  Forall (fun p => 0 <= fst p) M -> 0 <= E M (fun _ => 1).
Proof.
induction M as [|[w a] M IH]; simpl; intro hw; [lra|].
inversion_clear hw; simpl in *; specialize (IH H0); lra.
Qed.

Lemma total_zero {A} (M : law A) (X : A -> R) :
  Forall (fun p => 0 <= fst p) M -> E M (fun _ => 1) = 0 -> E M X = 0.
Proof.
induction M as [|[w a] M IH]; simpl; intros hw h0; [reflexivity|].
inversion_clear hw; simpl in *; assert (ht := total_nonneg M H0).
replace w with 0 by lra; rewrite IH by (assumption || lra); ring.
Qed.

(** A weighted mean of points of a convex set lies in it; by induction on the law. *)
Lemma weighted_mean_in_convex {A} D (X : A -> R) (M : law A) :
  convex D -> Forall (fun p => 0 <= fst p) M -> surely M (fun a => D (X a)) ->
  0 < E M (fun _ => 1) -> D (E M X / E M (fun _ => 1)).
Proof.
intros hD; induction M as [|[w a] M IH]; simpl; intros hw h hpos; [lra|].
inversion_clear hw; inversion_clear h; simpl in *.
assert (hT := total_nonneg M H0).
destruct (Req_dec (E M (fun _ => 1)) 0) as [h0 | h0].
{ rewrite (total_zero M X H0 h0), h0.
  replace ((w * X a + 0) / (w * 1 + 0)) with (X a) by (field; lra); assumption. }
assert (hM : D (E M X / E M (fun _ => 1))) by (apply IH; auto; lra).
apply (hD _ _ _ H1 hM).
set (T := E M (fun _ => 1)) in *; set (y := E M X / T).
replace (E M X) with (y * T) by (unfold y; field; exact h0).
replace ((w * X a + y * T) / (w * 1 + T)) with (X a + T / (w + T) * (y - X a)) by (field; lra).
assert (hs : 0 <= T / (w + T) <= 1).
{ split; [apply Rlt_le, Rdiv_lt_0_compat; lra|].
  apply Rmult_le_reg_r with (w + T); [lra|]; unfold Rdiv; rewrite Rmult_assoc, Rinv_l; lra. }
revert hs; generalize (T / (w + T)); intros s hs.
unfold Rmin, Rmax; destruct (Rle_dec (X a) y); split; nra.
Qed.

Lemma mean_in_convex {A} D (L : law A) (X : A -> R) :
  probability L -> convex D -> surely L (fun a => D (X a)) -> D (mean L X).
Proof.
intros [hw h1] hD h; unfold mean.
replace (E L X) with (E L X / E L (fun _ => 1)) by (rewrite h1; field).
apply weighted_mean_in_convex; [exact hD | exact hw | exact h | rewrite h1; lra].
Qed.

(** E f(X) = f(mu) + 1/2 f''(mu) Var X + ... to order n, and what is left is at most
    M/(n+1)! E |X - mu|^(n+1), M a bound of the (n+1)-st derivative. *)
Theorem delta_theorem {A} F n D M (L : law A) (X : A -> R) :
  probability L -> convex D -> tower F (S n) D -> (forall t, D t -> Rabs (F (S n) t) <= M) ->
  surely L (fun a => D (X a)) ->
  Rabs (E L (fun a => F 0%nat (X a)) - delta_expansion F n L X)
    <= M / INR (fact (S n)) * E L (fun a => Rabs (X a - mean L X) ^ S n).
Proof.
intros hL hD hF hM hX.
assert (hmu := mean_in_convex D L X hL hD hX).
set (mu := mean L X) in *.
replace (delta_expansion F n L X) with (E L (fun a => taylor_polynomial F n mu (X a))).
2: { unfold taylor_polynomial, delta_expansion; rewrite E_sum; apply sum_eq; intros k _.
     now rewrite E_scal. }
rewrite <- E_minus, <- E_scal.
eapply Rle_trans; [apply E_Rabs, hL|]; apply E_le; [exact hL|].
revert hX; apply surely_imp; intros a ha.
now apply taylor_remainder_bound with D.
Qed.

(** Second order: the gap is half the second derivative times the variance. *)
Corollary delta_second_order {A} F D M (L : law A) (X : A -> R) :
  probability L -> convex D -> tower F 3 D -> (forall t, D t -> Rabs (F 3%nat t) <= M) ->
  surely L (fun a => D (X a)) ->
  Rabs (E L (fun a => F 0%nat (X a)) - F 0%nat (mean L X) - / 2 * F 2%nat (mean L X) * Var L X)
    <= M / 6 * E L (fun a => Rabs (X a - mean L X) ^ 3).
Proof.
intros hL hD hF hM hX.
assert (h := delta_theorem F 2 D M L X hL hD hF hM hX).
unfold delta_expansion in h; simpl sum_f_R0 in h; simpl fact in h.
rewrite central_0, central_1 in h by assumption.
unfold Var; simpl INR in h; replace (1 + 1 + 1 + 1 + 1 + 1) with 6 in h by ring.
eapply Rle_trans; [|exact h]; right; f_equal; field.
Qed.

(** Fourth order: third and fourth moments enter. *)
Corollary delta_fourth_order {A} F D M (L : law A) (X : A -> R) :
  probability L -> convex D -> tower F 5 D -> (forall t, D t -> Rabs (F 5%nat t) <= M) ->
  surely L (fun a => D (X a)) ->
  Rabs (E L (fun a => F 0%nat (X a)) - (F 0%nat (mean L X) + / 2 * F 2%nat (mean L X) * Var L X
     + / 6 * F 3%nat (mean L X) * central L 3 X + / 24 * F 4%nat (mean L X) * central L 4 X))
    <= M / 120 * E L (fun a => Rabs (X a - mean L X) ^ 5).
Proof.
intros hL hD hF hM hX.
assert (h := delta_theorem F 4 D M L X hL hD hF hM hX).
unfold delta_expansion in h; simpl sum_f_R0 in h.
rewrite central_0, central_1 in h by assumption.
replace (INR (fact 5)) with 120 in h by (simpl; ring).
eapply Rle_trans; [|exact h]; right; f_equal; unfold Var; simpl; field.
Qed.

(** ** Numerator and preconditioner together

    An update [g * f(v)] whose numerator g and preconditioner statistic v share a batch. *)

(** Any order.  The moments [E g (v - mu)^k] hold the coupling; no term can be forgotten. *)
Theorem delta_theorem_ratio {A} F n D M (L : law A) (g v : A -> R) :
  probability L -> convex D -> tower F (S n) D -> (forall t, D t -> Rabs (F (S n) t) <= M) ->
  surely L (fun a => D (v a)) ->
  Rabs (E L (fun a => g a * F 0%nat (v a))
        - sum_f_R0 (fun k => F k (mean L v) / INR (fact k)
                             * E L (fun a => g a * (v a - mean L v) ^ k)) n)
    <= M / INR (fact (S n)) * E L (fun a => Rabs (g a) * Rabs (v a - mean L v) ^ S n).
Proof.
intros hL hD hF hM hv.
assert (hmu := mean_in_convex D L v hL hD hv).
set (mu := mean L v) in *.
replace (sum_f_R0 _ n) with (E L (fun a => g a * taylor_polynomial F n mu (v a))).
2: { rewrite (E_ext L _ (fun a => sum_f_R0 (fun k => F k mu / INR (fact k)
                                                     * (g a * (v a - mu) ^ k)) n)).
     - rewrite E_sum; apply sum_eq; intros k _; now rewrite E_scal.
     - intro a; unfold taylor_polynomial; rewrite scal_sum; apply sum_eq; intros k _; ring. }
rewrite <- E_minus, <- E_scal.
eapply Rle_trans; [apply E_Rabs, hL|]; apply E_le; [exact hL|].
revert hv; apply surely_imp; intros a ha.
rewrite <- Rmult_minus_distr_l, Rabs_mult.
assert (h := taylor_remainder_bound F n D M mu (v a) hD hF hM hmu ha).
replace (M / INR (fact (S n)) * (Rabs (g a) * Rabs (v a - mu) ^ S n))
  with (Rabs (g a) * (M / INR (fact (S n)) * Rabs (v a - mu) ^ S n)) by ring.
apply Rmult_le_compat_l; [apply Rabs_pos | exact h].
Qed.

(** Second order, term by term: coupling f'(mu) Cov(g, v), inversion 1/2 E g f''(mu) Var v, and a
    mixed third moment that is of the order of the remainder. *)
Corollary coupling_and_inversion {A} F D M (L : law A) (g v : A -> R) :
  probability L -> convex D -> tower F 3 D -> (forall t, D t -> Rabs (F 3%nat t) <= M) ->
  surely L (fun a => D (v a)) ->
  Rabs (E L (fun a => g a * F 0%nat (v a))
        - (mean L g * F 0%nat (mean L v) + F 1%nat (mean L v) * Cov L g v
           + / 2 * mean L g * F 2%nat (mean L v) * Var L v
           + / 2 * F 2%nat (mean L v) * E L (fun a => (g a - mean L g) * (v a - mean L v) ^ 2)))
    <= M / 6 * E L (fun a => Rabs (g a) * Rabs (v a - mean L v) ^ 3).
Proof.
intros hL hD hF hM hv.
assert (h := delta_theorem_ratio F 2 D M L g v hL hD hF hM hv).
set (mu := mean L v) in *; set (gm := mean L g).
simpl sum_f_R0 in h; replace (INR (fact 3)) with 6 in h by (simpl; ring).
rewrite (E_ext L (fun a => g a * 1) g) in h by (intro; ring).
rewrite (E_ext L (fun a => g a * ((v a - mu) * 1)) (fun a => (g a - gm) * (v a - mu)
          + gm * (v a - mu))) in h by (intro; ring).
rewrite E_plus, (E_scal L gm (fun a => v a - mu)), E_minus, (E_const L mu hL) in h.
rewrite (E_ext L (fun a => g a * ((v a - mu) * ((v a - mu) * 1)))
          (fun a => (g a - gm) * (v a - mu) ^ 2 + gm * (v a - mu) ^ 2)) in h by (intro; ring).
rewrite E_plus, (E_scal L gm (fun a => (v a - mu) ^ 2)) in h.
change (E L (fun a => (g a - gm) * (v a - mu))) with (Cov L g v) in h.
change (E L (fun a => (v a - mu) ^ 2)) with (Var L v) in h.
change (E L v) with mu in h; change (E L g) with gm in h.
eapply Rle_trans; [|exact h]; right; f_equal; simpl fact; simpl INR; field.
Qed.
