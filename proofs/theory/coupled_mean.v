(** Both biases of a batch in one expansion: numerator and preconditioner are means over the same m
    microbatches, and E (mean g) f(mean v) is expanded in 1/m with a remainder of second order. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law delta mean_law exchange mean_delta.
Import ListNotations.
Open Scope R_scope.

Implicit Types (F : nat -> R -> R) (D : R -> Prop).

(** [E (g - E g)^i (v - E v)^j]. *)
Definition moment {A} (L : law A) (i j : nat) (g v : A -> R) : R :=
  E L (fun a => (g a - mean L g) ^ i * (v a - mean L v) ^ j).

Section Moments.
Context {A : Type}.
Implicit Types (L : law A) (g v : A -> R).

Lemma moment_0 L j g v : moment L 0 j g v = central L j v.
Proof. unfold moment, central; apply E_ext; intro; simpl; ring. Qed.

Lemma moment_10 L g v : probability L -> moment L 1 0 g v = 0.
Proof.
intros hL; rewrite <- (central_1 L g hL); unfold moment, central; apply E_ext; intro; simpl; ring.
Qed.

Lemma moment_11 L g v : moment L 1 1 g v = Cov L g v.
Proof. unfold moment, Cov; apply E_ext; intro; simpl; ring. Qed.

(** Taken about its own mean, a factor g is its mean and its deviation. *)
Lemma E_factor L k g v : E L (fun a => g a * (v a - mean L v) ^ k)
  = mean L g * central L k v + moment L 1 k g v.
Proof.
unfold central, moment; rewrite <- E_scal, <- E_plus; apply E_ext; intro a; simpl; ring.
Qed.
End Moments.

(** ** Sums of independent pairs *)
Section Sums.
Context {A B : Type}.
Variables (L : law A) (M : law B) (g v : A -> R) (g' v' : B -> R).
Hypothesis hL : probability L.
Hypothesis hM : probability M.

Let both := product L M.
Let G (p : A * B) : R := g (fst p) + g' (snd p).
Let V (p : A * B) : R := v (fst p) + v' (snd p).

Lemma E_moments i j k l :
  E both (fun p => (g (fst p) - mean L g) ^ i * (v (fst p) - mean L v) ^ j
                   * ((g' (snd p) - mean M g') ^ k * (v' (snd p) - mean M v') ^ l))
  = moment L i j g v * moment M k l g' v'.
Proof.
exact (E_independent L M (fun a => (g a - mean L g) ^ i * (v a - mean L v) ^ j)
         (fun b => (g' b - mean M g') ^ k * (v' b - mean M v') ^ l)).
Qed.

Lemma moment_sum_11 : moment both 1 1 G V = moment L 1 1 g v + moment M 1 1 g' v'.
Proof.
replace (moment L 1 1 g v + moment M 1 1 g' v')
  with (moment L 1 1 g v * moment M 0 0 g' v' + moment L 0 0 g v * moment M 1 1 g' v'
        + moment L 1 0 g v * moment M 0 1 g' v' + moment L 0 1 g v * moment M 1 0 g' v')
  by (rewrite (moment_10 L), (moment_10 M), !moment_0, !central_0 by assumption; ring).
rewrite <- !E_moments, <- !E_plus; unfold moment, both, G, V; rewrite !mean_sum by assumption.
apply E_ext; intro p; ring.
Qed.

Lemma moment_sum_12 : moment both 1 2 G V = moment L 1 2 g v + moment M 1 2 g' v'.
Proof.
replace (moment L 1 2 g v + moment M 1 2 g' v')
  with (moment L 1 2 g v * moment M 0 0 g' v' + moment L 0 0 g v * moment M 1 2 g' v'
        + 2 * (moment L 1 1 g v * moment M 0 1 g' v') + 2 * (moment L 0 1 g v * moment M 1 1 g' v')
        + moment L 1 0 g v * moment M 0 2 g' v' + moment L 0 2 g v * moment M 1 0 g' v')
  by (rewrite (moment_10 L), (moment_10 M), !moment_0, !central_0, !central_1 by assumption; ring).
rewrite <- !E_moments, <- !E_scal, <- !E_plus.
unfold moment, both, G, V; rewrite !mean_sum by assumption.
apply E_ext; intro p; ring.
Qed.

Lemma moment_sum_13 : moment both 1 3 G V
  = moment L 1 3 g v + 3 * moment L 1 1 g v * Var M v' + 3 * Var L v * moment M 1 1 g' v'
    + moment M 1 3 g' v'.
Proof.
unfold Var; rewrite <- (moment_0 M 2 g'), <- (moment_0 L 2 g).
replace (moment L 1 3 g v + _ + _ + _)
  with (moment L 1 3 g v * moment M 0 0 g' v' + moment L 0 0 g v * moment M 1 3 g' v'
        + 3 * (moment L 1 1 g v * moment M 0 2 g' v') + 3 * (moment L 0 2 g v * moment M 1 1 g' v')
        + 3 * (moment L 1 2 g v * moment M 0 1 g' v') + 3 * (moment L 0 1 g v * moment M 1 2 g' v')
        + moment L 1 0 g v * moment M 0 3 g' v' + moment L 0 3 g v * moment M 1 0 g' v')
  by (rewrite (moment_10 L), (moment_10 M), !moment_0, !central_0, !central_1 by assumption; ring).
rewrite <- !E_moments, <- !E_scal, <- !E_plus.
unfold moment, both, G, V; rewrite !mean_sum by assumption.
apply E_ext; intro p; ring.
Qed.
End Sums.

(** ** Means over m microbatches *)
Section Sample.
Context {A : Type}.
Variables (L : law A) (g v : A -> R).
Hypothesis hL : probability L.

Lemma moment_total_S m i j : moment (sample (S m) L) i j (total g) (total v)
  = moment (product L (sample m L)) i j (fun p => g (fst p) + total g (snd p))
                                        (fun p => v (fst p) + total v (snd p)).
Proof. unfold moment; now rewrite E_sample_S, !mean_total_S. Qed.

Lemma moment_total m : let t := sample m L in
  moment t 1 1 (total g) (total v) = INR m * moment L 1 1 g v
  /\ moment t 1 2 (total g) (total v) = INR m * moment L 1 2 g v
  /\ moment t 1 3 (total g) (total v)
     = INR m * moment L 1 3 g v + 3 * INR m * (INR m - 1) * moment L 1 1 g v * Var L v.
Proof.
induction m as [|m [h1 [h2 h3]]]; intro t.
{ unfold t, moment, mean; simpl; repeat split; ring. }
assert (hm := probability_sample m L hL); unfold t; rewrite !moment_total_S.
rewrite moment_sum_11, moment_sum_12, moment_sum_13, h1, h2, h3, Var_total, S_INR by assumption.
repeat split; ring.
Qed.

Lemma moment_average m j : (0 < m)%nat ->
  moment (sample m L) 1 j (average m g) (average m v)
  = / INR m ^ S j * moment (sample m L) 1 j (total g) (total v).
Proof.
intros hm; unfold moment at 1; rewrite !mean_average by assumption.
rewrite (E_ext _ _ (fun l => / INR m ^ S j * ((total g l - mean (sample m L) (total g)) ^ 1
                                    * (total v l - mean (sample m L) (total v)) ^ j))).
{ now rewrite E_scal. }
intro l; rewrite !mean_total by (exact hL || exact hm); unfold average.
assert (h0 : INR m <> 0) by (apply not_0_INR; lia).
rewrite <- pow_inv; simpl pow.
replace (/ INR m * total v l - mean L v) with (/ INR m * (total v l - INR m * mean L v))
  by (field; exact h0).
rewrite Rpow_mult_distr; field; exact h0.
Qed.

(** The covariance of the means is Cov/m, and the mixed moments fall like m^-2. *)
Theorem mixed_moments_of_means m : (0 < m)%nat -> let n := INR m in
  let mixed j := moment (sample m L) 1 j (average m g) (average m v) in
  mixed 1%nat = Cov L g v / n
  /\ mixed 2%nat = moment L 1 2 g v / n ^ 2
  /\ mixed 3%nat = (moment L 1 3 g v + 3 * (n - 1) * Cov L g v * Var L v) / n ^ 3.
Proof.
intros hm n mixed; unfold mixed; rewrite !moment_average by exact hm.
destruct (moment_total m) as [h1 [h2 h3]]; rewrite h1, h2, h3, moment_11; fold n.
assert (n <> 0) by (apply not_0_INR; lia); repeat split; field; assumption.
Qed.
End Sample.

(** ** The theorem *)
Section BothBiases.
Context {A : Type}.
Variables (F : nat -> R -> R) (D : R -> Prop) (M bound : R) (L : law A) (g v : A -> R).
Hypothesis hL : probability L.
Hypothesis hD : convex D.
Hypothesis hF : tower F 4 D.
Hypothesis hM : forall t, D t -> Rabs (F 4%nat t) <= M.
Hypothesis hv : surely L (fun a => D (v a)).
Hypothesis hg : surely L (fun a => - bound <= g a <= bound).

Let mu := mean L v.

(** Coupling and inversion, per microbatch. *)
Definition coupling : R := F 1%nat mu * Cov L g v.
Definition inversion : R := F 2%nat mu / 2 * mean L g * Var L v.

(** What is left is at most, times m^2. *)
Definition second_constant : R :=
  Rabs (F 2%nat mu) / 2 * Rabs (moment L 1 2 g v)
  + Rabs (F 3%nat mu) / 6 * (Rabs (mean L g) * Rabs (central L 3 v) + Rabs (moment L 1 3 g v)
                             + 3 * Rabs (Cov L g v) * Var L v)
  + M / 24 * bound * (central L 4 v + 3 * Var L v ^ 2).

Lemma third_piece n c m3 u : 1 <= n -> 0 <= u ->
  Rabs ((m3 + 3 * (n - 1) * c * u) / n ^ 3) <= (Rabs m3 + 3 * Rabs c * u) / n ^ 2.
Proof.
intros hn hu; replace (_ / n ^ 3) with ((m3 + 3 * (n - 1) * c * u) / n * / n ^ 2) by (field; lra).
assert (h2 : 0 < / n ^ 2) by (apply Rinv_0_lt_compat, pow_lt; lra).
rewrite Rabs_mult, (Rabs_pos_eq (/ n ^ 2)) by lra; apply Rmult_le_compat_r; [lra|].
unfold Rdiv; rewrite Rabs_mult, (Rabs_pos_eq (/ n)) by (left; apply Rinv_0_lt_compat; lra).
apply Rmult_le_reg_r with n; [lra|]; rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
eapply Rle_trans; [apply Rabs_triang|].
rewrite !Rabs_mult, (Rabs_pos_eq 3), (Rabs_pos_eq (n - 1)), (Rabs_pos_eq u) by lra.
assert (0 <= Rabs m3) by apply Rabs_pos.
assert (0 <= Rabs c * u) by (apply Rmult_le_pos; [apply Rabs_pos | exact hu]); nra.
Qed.

(** E (mean g) f(mean v) = (E g) f(mu) + (f'(mu) Cov(g, v) + f''(mu)/2 E g Var v)/m, and what is left
    is at most C/m^2. *)
Theorem both_biases_of_a_batch m : (0 < m)%nat ->
  Rabs (E (sample m L) (fun l => average m g l * F 0%nat (average m v l))
        - (mean L g * F 0%nat mu + (coupling + inversion) / INR m))
    <= second_constant / INR m ^ 2.
Proof.
intros hm; set (n := INR m).
assert (h1 : 1 <= n) by (change 1 with (INR 1); apply le_INR; lia).
assert (hS := probability_sample m L hL).
assert (all := surely_and _ _ _ (length_sample m L)
                 (surely_and _ _ _ (surely_sample m L _ hv) (surely_sample m L _ hg))).
assert (inD : surely (sample m L) (fun l => D (average m v l))).
{ revert all; apply surely_imp; intros l [hl [h _]]; now apply average_in_convex. }
assert (small : surely (sample m L) (fun l => Rabs (average m g l) <= bound)).
{ revert all; apply surely_imp; intros l [hl [_ h]]; apply Rabs_le.
  exact (average_in_convex (fun t => - bound <= t <= bound) g m l (convex_interval _ _) hm hl h). }
assert (h := delta_theorem_ratio F 3 D M (sample m L) (average m g) (average m v) hS hD hF hM inD).
cbn [sum_f_R0] in h; rewrite mean_average in h by assumption; fold mu in h.
assert (hmu : mu = mean (sample m L) (average m v)) by (now rewrite mean_average).
rewrite hmu in h; rewrite !E_factor in h; rewrite <- hmu in h.
rewrite mean_average in h by assumption.
destruct (mixed_moments_of_means L g v hL m hm) as [m1 [m2 m3]]; cbv zeta in m1, m2, m3.
rewrite m1, m2, m3, moment_10, central_0, central_1 in h by exact hS.
change (central (sample m L) 2 (average m v)) with (Var (sample m L) (average m v)) in h.
rewrite Var_of_mean, central_3_of_mean in h by assumption; fold n in h, m3.
replace (INR (fact 0)) with 1 in h by (simpl; ring).
replace (INR (fact 1)) with 1 in h by (simpl; ring).
replace (INR (fact 2)) with 2 in h by (simpl; ring).
replace (INR (fact 3)) with 6 in h by (simpl; ring).
replace (INR (fact 4)) with 24 in h by (simpl; ring).
assert (hM0 : 0 <= M).
{ apply Rle_trans with (2 := hM mu (mean_in_convex D L v hL hD hv)); apply Rabs_pos. }
assert (hu : 0 <= Var L v) by (apply Var_nonneg, hL).
assert (h4 : 0 <= central L 4 v) by (apply (even_central_nonneg L v hL 2)).
assert (fourth : E (sample m L) (fun l => Rabs (average m g l) * Rabs (average m v l - mu) ^ 4)
  <= bound * ((central L 4 v + 3 * Var L v ^ 2) / n ^ 2)).
{ assert (hb : 0 <= bound).
  { apply Rle_trans with (E (sample m L) (fun l => Rabs (average m g l))).
    - apply E_nonneg; [exact hS|]; apply Forall_forall; intros; apply Rabs_pos.
    - rewrite <- (E_const (sample m L) bound hS); now apply E_le. }
  apply Rle_trans with (bound * central (sample m L) 4 (average m v)).
  - unfold central; rewrite <- E_scal, mean_average by assumption; fold mu.
    apply E_le; [exact hS|]; revert small; apply surely_imp; intros l hl.
    replace (Rabs (average m v l - mu) ^ 4) with ((average m v l - mu) ^ 4)
      by (replace 4%nat with (2 * 2)%nat by reflexivity; rewrite !pow_mult; now rewrite pow2_abs).
    apply Rmult_le_compat_r; [|exact hl].
    replace 4%nat with (2 * 2)%nat by reflexivity; rewrite pow_mult; apply pow2_ge_0.
  - apply Rmult_le_compat_l; [exact hb|]; rewrite central_4_of_mean by assumption; fold n.
    assert (t := third_piece n (Var L v) (central L 4 v) (Var L v) h1 hu).
    rewrite !(Rabs_pos_eq (central L 4 v)), (Rabs_pos_eq (Var L v)) in t by assumption.
    apply Rle_trans with (1 := Rle_abs _).
    replace (3 * Var L v ^ 2) with (3 * Var L v * Var L v) by ring.
    replace (3 * (n - 1) * Var L v ^ 2) with (3 * (n - 1) * Var L v * Var L v) by ring.
    exact t. }
assert (t := third_piece n (Cov L g v) (moment L 1 3 g v) (Var L v) h1 hu).
set (mixed3 := (moment L 1 3 g v + 3 * (n - 1) * Cov L g v * Var L v) / n ^ 3) in *.
set (value := E (sample m L) (fun l => average m g l * F 0%nat (average m v l))) in *.
set (p2 := F 2%nat mu / 2 * (moment L 1 2 g v / n ^ 2)).
set (p3 := F 3%nat mu / 6 * (mean L g * (central L 3 v / n ^ 2) + mixed3)).
assert (b2 : Rabs p2 <= Rabs (F 2%nat mu) / 2 * Rabs (moment L 1 2 g v) / n ^ 2).
{ unfold p2, Rdiv; rewrite !Rabs_mult, (Rabs_pos_eq (/ 2)), (Rabs_pos_eq (/ n ^ 2));
    [right; ring | left; apply Rinv_0_lt_compat, pow_lt; lra | lra]. }
assert (b3 : Rabs p3 <= Rabs (F 3%nat mu) / 6 * (Rabs (mean L g) * Rabs (central L 3 v)
               + Rabs (moment L 1 3 g v) + 3 * Rabs (Cov L g v) * Var L v) / n ^ 2).
{ unfold p3, Rdiv; rewrite !Rabs_mult, (Rabs_pos_eq (/ 6)) by lra; rewrite (Rmult_assoc (_ * / 6)).
  apply Rmult_le_compat_l; [assert (0 <= Rabs (F 3%nat mu)) by apply Rabs_pos; lra|].
  eapply Rle_trans; [apply Rabs_triang|].
  rewrite !Rabs_mult, (Rabs_pos_eq (/ n ^ 2)) by (left; apply Rinv_0_lt_compat, pow_lt; lra).
  unfold Rdiv in t; lra. }
assert (b4 : M / 24 * E (sample m L) (fun l => Rabs (average m g l) * Rabs (average m v l - mu) ^ 4)
   <= M / 24 * bound * (central L 4 v + 3 * Var L v ^ 2) / n ^ 2).
{ replace (_ / n ^ 2) with (M / 24 * (bound * ((central L 4 v + 3 * Var L v ^ 2) / n ^ 2)))
    by (field; lra).
  apply Rmult_le_compat_l; [lra | exact fourth]. }
replace (value - _) with (value
   - (F 0%nat mu / 1 * (mean L g * 1 + 0) + F 1%nat mu / 1 * (mean L g * 0 + Cov L g v / n)
      + F 2%nat mu / 2 * (mean L g * (Var L v / n) + moment L 1 2 g v / n ^ 2)
      + F 3%nat mu / 6 * (mean L g * (central L 3 v / n ^ 2) + mixed3)) + p2 + p3)
  by (unfold p2, p3, coupling, inversion; field; lra).
eapply Rle_trans; [apply Rabs_triang|]; eapply Rle_trans;
  [apply Rplus_le_compat_r, Rabs_triang|].
replace (second_constant / n ^ 2) with
  (M / 24 * bound * (central L 4 v + 3 * Var L v ^ 2) / n ^ 2
   + Rabs (F 2%nat mu) / 2 * Rabs (moment L 1 2 g v) / n ^ 2
   + Rabs (F 3%nat mu) / 6 * (Rabs (mean L g) * Rabs (central L 3 v)
       + Rabs (moment L 1 3 g v) + 3 * Rabs (Cov L g v) * Var L v) / n ^ 2)
  by (unfold second_constant; field; lra).
apply Rplus_le_compat; [apply Rplus_le_compat|]; [|exact b2 | exact b3].
eapply Rle_trans; [exact h | exact b4].
Qed.
End BothBiases.
