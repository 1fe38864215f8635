(** What a batch of m microbatches does: the expansion in 1/m of a smooth function of their mean,
    with a remainder of third order, and the jackknife that removes its first term. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law delta mean_law estimators exchange.
Import ListNotations.
Open Scope R_scope.

Implicit Types (F : nat -> R -> R) (D : R -> Prop).

(** ** The mean stays where the observations are *)

Definition equally {A} (l : list A) : law A := map (fun a => (1, a)) l.

Lemma E_equally {A} (l : list A) (X : A -> R) :
  E (equally l) X = total X l /\ E (equally l) (fun _ => 1) = INR (length l).
Proof.
induction l as [|a l [h1 h2]]; [split; reflexivity|].
unfold equally in *; cbn [map E total length]; rewrite S_INR, h1, h2; split; ring.
Qed.

Lemma average_in_convex {A} D (X : A -> R) m (l : list A) :
  convex D -> (0 < m)%nat -> length l = m -> Forall (fun a => D (X a)) l -> D (average m X l).
Proof.
intros hD hm hl h; destruct (E_equally l X) as [e1 e2]; rewrite hl in e2.
assert (h0 : 0 < INR m) by (now apply lt_0_INR).
unfold average; replace (/ INR m * total X l) with (E (equally l) X / E (equally l) (fun _ => 1))
  by (rewrite e1, e2; field; lra).
apply weighted_mean_in_convex; [exact hD | | | rewrite e2; exact h0].
- apply Forall_forall; intros p hp; apply in_map_iff in hp; destruct hp as [a [<- _]]; simpl; lra.
- apply Forall_forall; intros p hp; apply in_map_iff in hp; destruct hp as [a [<- ha]]; simpl.
  exact (proj1 (Forall_forall _ _) h a ha).
Qed.

Section MeanOfMicrobatches.
Context {A : Type}.
Variables (F : nat -> R -> R) (D : R -> Prop) (M : R) (L : law A) (X : A -> R).
Hypothesis hL : probability L.
Hypothesis hD : convex D.
Hypothesis hF : tower F 6 D.
Hypothesis hM : forall t, D t -> Rabs (F 6%nat t) <= M.
Hypothesis hX : surely L (fun a => D (X a)).

Let mu := mean L X.
Let v := Var L X.
Let c3 := central L 3 X.
Let c4 := central L 4 X.

(** The coefficients of 1/m and of 1/m^2. *)
Definition first_coefficient : R := F 2%nat mu / 2 * v.
Definition second_coefficient : R := F 3%nat mu / 6 * c3 + F 4%nat mu / 8 * v ^ 2.

(** What the rest is at most, times m^3. *)
Definition third_constant : R :=
  Rabs (F 4%nat mu) / 24 * Rabs (c4 - 3 * v ^ 2)
  + Rabs (F 5%nat mu) / 120 * (Rabs (central L 5 X) + 10 * Rabs c3 * v)
  + M / 720 * (central L 6 X + 15 * c4 * v + 10 * c3 ^ 2 + 15 * v ^ 3).

Lemma even_central_nonneg k : 0 <= central L (2 * k) X.
Proof.
apply E_nonneg; [exact hL|]; apply Forall_forall; intros p _.
rewrite pow_mult; apply pow_le, pow2_ge_0.
Qed.

Lemma M_nonneg : 0 <= M.
Proof.
apply Rle_trans with (2 := hM mu (mean_in_convex D L X hL hD hX)); apply Rabs_pos.
Qed.

(** The pieces beyond 1/m^2, each at most its share of the constant over m^3. *)
Lemma fourth_piece m : 1 <= m ->
  Rabs (F 4%nat mu / 24 * ((c4 + 3 * (m - 1) * v ^ 2) / m ^ 3) - F 4%nat mu / 8 * v ^ 2 / m ^ 2)
  <= Rabs (F 4%nat mu) / 24 * Rabs (c4 - 3 * v ^ 2) / m ^ 3.
Proof.
intros hm.
replace (_ - _) with (F 4%nat mu * (c4 - 3 * v ^ 2) * / (24 * m ^ 3)) by (field; lra).
assert (0 < m ^ 3) by (apply pow_lt; lra).
rewrite !Rabs_mult, (Rabs_pos_eq (/ _)) by (left; apply Rinv_0_lt_compat; lra).
right; field; lra.
Qed.

Lemma fifth_piece m : 1 <= m ->
  Rabs (F 5%nat mu / 120 * ((central L 5 X + 10 * (m - 1) * c3 * v) / m ^ 4))
  <= Rabs (F 5%nat mu) / 120 * (Rabs (central L 5 X) + 10 * Rabs c3 * v) / m ^ 3.
Proof.
intros hm; assert (p3 : 0 < m ^ 3) by (apply pow_lt; lra).
assert (hv : 0 <= v) by (apply Var_nonneg, hL).
unfold Rdiv; rewrite !Rabs_mult, (Rabs_pos_eq (/ 120)), (Rabs_pos_eq (/ m ^ 4))
  by (left; apply Rinv_0_lt_compat; (lra || apply pow_lt; lra)).
rewrite !Rmult_assoc; apply Rmult_le_compat_l; [apply Rabs_pos|].
apply Rmult_le_compat_l; [lra|].
replace (/ m ^ 4) with (/ m * / m ^ 3) by (field; lra); rewrite <- Rmult_assoc.
apply Rmult_le_compat_r; [left; now apply Rinv_0_lt_compat|].
apply Rmult_le_reg_r with m; [lra|]; rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
eapply Rle_trans; [apply Rabs_triang|].
rewrite !Rabs_mult, (Rabs_pos_eq 10), (Rabs_pos_eq (m - 1)), (Rabs_pos_eq v) by lra.
assert (0 <= Rabs (central L 5 X)) by apply Rabs_pos.
assert (0 <= Rabs c3 * v) by (apply Rmult_le_pos; [apply Rabs_pos | exact hv]); nra.
Qed.

Lemma sixth_piece m : 1 <= m ->
  M / 720 * ((central L 6 X + 15 * (m - 1) * c4 * v + 10 * (m - 1) * c3 ^ 2
              + 15 * (m - 1) * (m - 2) * v ^ 3) / m ^ 5)
  <= M / 720 * (central L 6 X + 15 * c4 * v + 10 * c3 ^ 2 + 15 * v ^ 3) / m ^ 3.
Proof.
intros hm; assert (h0 := M_nonneg); assert (hv : 0 <= v) by (apply Var_nonneg, hL).
assert (h4 : 0 <= c4 * v) by (apply Rmult_le_pos; [apply (even_central_nonneg 2) | exact hv]).
assert (h6 : 0 <= central L 6 X) by (apply (even_central_nonneg 3)).
assert (h3 : 0 <= c3 ^ 2) by apply pow2_ge_0.
assert (hv3 : 0 <= v ^ 3) by now apply pow_le.
unfold Rdiv; rewrite (Rmult_assoc (M * / 720)); apply Rmult_le_compat_l; [lra|].
replace (/ m ^ 5) with (/ m ^ 2 * / m ^ 3) by (field; lra); rewrite <- Rmult_assoc.
apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat, pow_lt; lra|].
apply Rmult_le_reg_r with (m ^ 2); [apply pow_lt; lra|].
rewrite Rmult_assoc, Rinv_l, Rmult_1_r by (apply pow_nonzero; lra).
assert (e : forall c x, 0 <= x -> c <= m ^ 2 -> c * x <= x * m ^ 2) by (intros; nra).
assert (e1 := e 1 _ h6 ltac:(nra)); assert (e2 := e (m - 1) _ h4 ltac:(nra)).
assert (e3 := e (m - 1) _ h3 ltac:(nra)).
assert (e4 := e ((m - 1) * (m - 2)) _ hv3 ltac:(nra)); lra.
Qed.

(** E f(mean of m) = f(mu) + f''(mu)/2 Var/m + (f'''(mu)/6 kappa_3 + f''''(mu)/8 Var^2)/m^2, and
    what is left is at most C/m^3. *)
Theorem delta_of_mean m : (0 < m)%nat ->
  Rabs (E (sample m L) (fun l => F 0%nat (average m X l))
        - (F 0%nat mu + first_coefficient / INR m + second_coefficient / INR m ^ 2))
    <= third_constant / INR m ^ 3.
Proof.
intros hm; assert (h1 : 1 <= INR m) by (change 1 with (INR 1); apply le_INR; lia).
assert (h := delta_theorem F 5 D M (sample m L) (average m X) (probability_sample m L hL) hD hF hM).
assert (hs : surely (sample m L) (fun l => D (average m X l))).
{ generalize (surely_and _ _ _ (length_sample m L) (surely_sample m L _ hX)).
  apply surely_imp; intros l [hl hall]; now apply average_in_convex. }
specialize (h hs).
rewrite (E_ext _ (fun l => Rabs (average m X l - mean (sample m L) (average m X)) ^ 6)
           (fun l => (average m X l - mean (sample m L) (average m X)) ^ 6)) in h.
2: { intro l; replace 6%nat with (2 * 3)%nat by reflexivity; rewrite !pow_mult.
     now rewrite pow2_abs. }
change (E (sample m L) (fun l => (average m X l - mean (sample m L) (average m X)) ^ 6))
  with (central (sample m L) 6 (average m X)) in h.
unfold delta_expansion in h; cbn [sum_f_R0] in h; rewrite mean_average in h by assumption.
fold mu in h.
rewrite central_0, central_1 in h by now apply probability_sample.
change (central (sample m L) 2 (average m X)) with (Var (sample m L) (average m X)) in h.
rewrite Var_of_mean, central_3_of_mean, central_4_of_mean, central_5_of_mean, central_6_of_mean
  in h by assumption.
fold v c3 c4 in h.
replace (INR (fact 2)) with 2 in h by (simpl; ring).
replace (INR (fact 3)) with 6 in h by (simpl; ring).
replace (INR (fact 4)) with 24 in h by (simpl; ring).
replace (INR (fact 5)) with 120 in h by (simpl; ring).
replace (INR (fact 6)) with 720 in h by (simpl; ring).
set (n := INR m) in *; clearbody n.
assert (b4 := fourth_piece n h1); assert (b5 := fifth_piece n h1); assert (b6 := sixth_piece n h1).
set (value := E (sample m L) (fun l => F 0%nat (average m X l))) in *.
set (p4 := F 4%nat mu / 24 * ((c4 + 3 * (n - 1) * v ^ 2) / n ^ 3) - F 4%nat mu / 8 * v ^ 2 / n ^ 2)
  in *.
set (p5 := F 5%nat mu / 120 * ((central L 5 X + 10 * (n - 1) * c3 * v) / n ^ 4)) in *.
assert (split : value - (F 0%nat mu + first_coefficient / n + second_coefficient / n ^ 2)
  = value - (F 0%nat mu / INR (fact 0) * 1 + F 1%nat mu / INR (fact 1) * 0
             + F 2%nat mu / 2 * (v / n) + F 3%nat mu / 6 * (c3 / n ^ 2)
             + F 4%nat mu / 24 * ((c4 + 3 * (n - 1) * v ^ 2) / n ^ 3) + p5) + p4 + p5).
{ unfold p4, first_coefficient, second_coefficient; simpl fact; simpl INR; field; lra. }
rewrite split.
eapply Rle_trans; [apply Rabs_triang|]; eapply Rle_trans;
  [apply Rplus_le_compat_r, Rabs_triang|].
replace (third_constant / n ^ 3) with
  (M / 720 * (central L 6 X + 15 * c4 * v + 10 * c3 ^ 2 + 15 * v ^ 3) / n ^ 3
   + Rabs (F 4%nat mu) / 24 * Rabs (c4 - 3 * v ^ 2) / n ^ 3
   + Rabs (F 5%nat mu) / 120 * (Rabs (central L 5 X) + 10 * Rabs c3 * v) / n ^ 3)
  by (unfold third_constant; field; lra).
apply Rplus_le_compat; [apply Rplus_le_compat|]; [|exact b4 | exact b5].
eapply Rle_trans; [exact h | exact b6].
Qed.

(** The jackknife removes the term in 1/m, knowing no derivative: what is left is of order 1/m^2. *)
Theorem jackknife_of_mean m : (1 <= m)%nat ->
  let n := INR (S m) in
  Rabs (E (sample (S m) L)
          (jackknife (S m) (fun l => F 0%nat (average (S m) X l))
                     (fun r l => F 0%nat (average m X (without r l))))
        - F 0%nat mu + second_coefficient / (n * (n - 1)))
    <= third_constant / n ^ 2 + third_constant / (n - 1) ^ 2.
Proof.
intros hm n; assert (e : n - 1 = INR m) by (unfold n; rewrite S_INR; ring).
apply jackknife_order with (a := first_coefficient); [lia | apply delta_of_mean; lia|].
intros r hr; fold n; rewrite e.
rewrite (E_without r m L (fun l => F 0%nat (average m X l)) hL) by lia.
apply delta_of_mean; lia.
Qed.
End MeanOfMicrobatches.
