(** Sums and means of independent variables: how their central moments add and shrink.

    [sample m L] is the law of m independent outcomes of L, as a list. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law.
Import ListNotations.
Open Scope R_scope.

Section Sums.
Context {A B : Type}.
Variables (L : law A) (M : law B) (X : A -> R) (Y : B -> R).
Hypothesis hL : probability L.
Hypothesis hM : probability M.

Let both := product L M.
Let S (p : A * B) : R := X (fst p) + Y (snd p).

Lemma mean_sum : mean both S = mean L X + mean M Y.
Proof. unfold mean, both, S; rewrite E_plus, E_first, E_second by assumption; reflexivity. Qed.

(** The expectation of a product of powers of deviations factors. *)
Lemma E_deviations i j :
  E both (fun p => (X (fst p) - mean L X) ^ i * (Y (snd p) - mean M Y) ^ j)
  = central L i X * central M j Y.
Proof.
exact (E_independent L M (fun a => (X a - mean L X) ^ i) (fun b => (Y b - mean M Y) ^ j)).
Qed.

Lemma central_sum_2 : Var both S = Var L X + Var M Y.
Proof.
unfold Var; rewrite <- (Rmult_1_r (central L 2 X)), <- (central_0 M Y hM).
rewrite <- (Rmult_1_l (central M 2 Y)), <- (central_0 L X hL).
assert (h11 : central L 1 X * central M 1 Y = 0) by (rewrite central_1 by assumption; ring).
rewrite <- (Rplus_0_r (_ + _)), <- (Rmult_0_r 2), <- h11, <- !E_deviations, <- !E_scal, <- !E_plus.
unfold central; rewrite mean_sum; apply E_ext; intro p; unfold S; ring.
Qed.

Lemma central_sum_3 : central both 3 S = central L 3 X + central M 3 Y.
Proof.
rewrite <- (Rmult_1_r (central L 3 X)), <- (central_0 M Y hM).
rewrite <- (Rmult_1_l (central M 3 Y)), <- (central_0 L X hL).
assert (h21 : central L 2 X * central M 1 Y = 0) by (rewrite (central_1 M) by assumption; ring).
assert (h12 : central L 1 X * central M 2 Y = 0) by (rewrite (central_1 L) by assumption; ring).
replace (central L 3 X * central M 0 Y + central L 0 X * central M 3 Y)
  with (central L 3 X * central M 0 Y + central L 0 X * central M 3 Y
        + 3 * (central L 2 X * central M 1 Y) + 3 * (central L 1 X * central M 2 Y))
  by (rewrite h21, h12; ring).
rewrite <- !E_deviations, <- !E_scal, <- !E_plus.
unfold central; rewrite mean_sum; apply E_ext; intro p; unfold S; ring.
Qed.

(** The fourth moment does not add: a product of variances comes in. *)
Lemma central_sum_4 :
  central both 4 S = central L 4 X + 6 * Var L X * Var M Y + central M 4 Y.
Proof.
assert (h31 : central L 3 X * central M 1 Y = 0) by (rewrite (central_1 M) by assumption; ring).
assert (h13 : central L 1 X * central M 3 Y = 0) by (rewrite (central_1 L) by assumption; ring).
replace (central L 4 X + 6 * Var L X * Var M Y + central M 4 Y)
  with (central L 4 X * central M 0 Y + 6 * (central L 2 X * central M 2 Y)
        + central L 0 X * central M 4 Y
        + 4 * (central L 3 X * central M 1 Y) + 4 * (central L 1 X * central M 3 Y))
  by (rewrite h31, h13, (central_0 M), (central_0 L) by assumption; unfold Var; ring).
rewrite <- !E_deviations, <- !E_scal, <- !E_plus.
unfold central; rewrite mean_sum; apply E_ext; intro p; unfold S; ring.
Qed.

Lemma central_sum_5 :
  central both 5 S = central L 5 X + 10 * central L 3 X * Var M Y + 10 * Var L X * central M 3 Y
                     + central M 5 Y.
Proof.
assert (h41 : central L 4 X * central M 1 Y = 0) by (rewrite (central_1 M) by assumption; ring).
assert (h14 : central L 1 X * central M 4 Y = 0) by (rewrite (central_1 L) by assumption; ring).
replace (central L 5 X + 10 * central L 3 X * Var M Y + 10 * Var L X * central M 3 Y
         + central M 5 Y)
  with (central L 5 X * central M 0 Y + 10 * (central L 3 X * central M 2 Y)
        + 10 * (central L 2 X * central M 3 Y) + central L 0 X * central M 5 Y
        + 5 * (central L 4 X * central M 1 Y) + 5 * (central L 1 X * central M 4 Y))
  by (rewrite h41, h14, (central_0 M), (central_0 L) by assumption; unfold Var; ring).
rewrite <- !E_deviations, <- !E_scal, <- !E_plus.
unfold central; rewrite mean_sum; apply E_ext; intro p; unfold S; ring.
Qed.

Lemma central_sum_6 :
  central both 6 S = central L 6 X + 15 * central L 4 X * Var M Y
                     + 20 * central L 3 X * central M 3 Y + 15 * Var L X * central M 4 Y
                     + central M 6 Y.
Proof.
assert (h51 : central L 5 X * central M 1 Y = 0) by (rewrite (central_1 M) by assumption; ring).
assert (h15 : central L 1 X * central M 5 Y = 0) by (rewrite (central_1 L) by assumption; ring).
replace (central L 6 X + 15 * central L 4 X * Var M Y + 20 * central L 3 X * central M 3 Y
         + 15 * Var L X * central M 4 Y + central M 6 Y)
  with (central L 6 X * central M 0 Y + 15 * (central L 4 X * central M 2 Y)
        + 20 * (central L 3 X * central M 3 Y) + 15 * (central L 2 X * central M 4 Y)
        + central L 0 X * central M 6 Y
        + 6 * (central L 5 X * central M 1 Y) + 6 * (central L 1 X * central M 5 Y))
  by (rewrite h51, h15, (central_0 M), (central_0 L) by assumption; unfold Var; ring).
rewrite <- !E_deviations, <- !E_scal, <- !E_plus.
unfold central; rewrite mean_sum; apply E_ext; intro p; unfold S; ring.
Qed.
End Sums.

(** ** m independent observations of one law *)

Fixpoint sample {A} (m : nat) (L : law A) : law (list A) :=
  match m with
  | O => [(1, [])]
  | S m => map (fun q => (fst q, fst (snd q) :: snd (snd q))) (product L (sample m L))
  end.

Fixpoint total {A} (X : A -> R) (l : list A) : R :=
  match l with [] => 0 | a :: l => X a + total X l end.

(** The mean of m observations. *)
Definition average {A} (m : nat) (X : A -> R) (l : list A) : R := / INR m * total X l.

Lemma E_map {A B} (L : law A) (h : A -> B) f :
  E (map (fun q => (fst q, h (snd q))) L) f = E L (fun a => f (h a)).
Proof. induction L as [|[w a] L IH]; simpl; [|rewrite IH]; reflexivity. Qed.

Lemma E_sample_S {A} m (L : law A) f :
  E (sample (S m) L) f = E (product L (sample m L)) (fun q => f (fst q :: snd q)).
Proof.
exact (E_map (product L (sample m L)) (fun q => fst q :: snd q) f).
Qed.

Lemma probability_sample {A} m (L : law A) : probability L -> probability (sample m L).
Proof.
intros hL; induction m as [|m IH].
- split; simpl; [repeat constructor; simpl; lra | ring].
- destruct (probability_product L (sample m L) hL IH) as [hw h1]; split.
  + simpl; apply Forall_forall; intros p hp; apply in_map_iff in hp.
    destruct hp as [q [<- hq]]; simpl; exact (proj1 (Forall_forall _ _) hw q hq).
  + now rewrite E_sample_S.
Qed.

Lemma surely_sample {A} m (L : law A) P : surely L P -> surely (sample m L) (fun l => Forall P l).
Proof.
intros h; induction m as [|m IH]; simpl; [repeat constructor|].
apply Forall_forall; intros p hp; apply in_map_iff in hp; destruct hp as [q [<- hq]]; simpl.
destruct (proj1 (Forall_forall _ _) (surely_product _ _ _ _ h IH) q hq); now constructor.
Qed.

Section Sample.
Context {A : Type}.
Variables (L : law A) (X : A -> R).
Hypothesis hL : probability L.

Let step m (P : list A -> R) := product L (sample m L).

Lemma mean_total_S m : mean (sample (S m) L) (total X)
  = mean (product L (sample m L)) (fun p => X (fst p) + total X (snd p)).
Proof. unfold mean; now rewrite E_sample_S. Qed.

Lemma central_total_S m k : central (sample (S m) L) k (total X)
  = central (product L (sample m L)) k (fun p => X (fst p) + total X (snd p)).
Proof. unfold central; now rewrite E_sample_S, mean_total_S. Qed.

Lemma mean_total m : mean (sample m L) (total X) = INR m * mean L X.
Proof.
induction m as [|m IH]; [unfold mean; simpl; ring|].
rewrite mean_total_S, mean_sum, IH, S_INR by auto using probability_sample; ring.
Qed.

Lemma Var_total m : Var (sample m L) (total X) = INR m * Var L X.
Proof.
induction m as [|m IH]; [unfold Var, central, mean; simpl; ring|].
unfold Var at 1; rewrite central_total_S; fold (Var (product L (sample m L))).
change (central ?N 2 ?Z) with (Var N Z).
rewrite central_sum_2, IH, S_INR by auto using probability_sample; ring.
Qed.

Lemma central_3_total m : central (sample m L) 3 (total X) = INR m * central L 3 X.
Proof.
induction m as [|m IH]; [unfold central, mean; simpl; ring|].
rewrite central_total_S, central_sum_3, IH, S_INR by auto using probability_sample; ring.
Qed.

Lemma central_4_total m : central (sample m L) 4 (total X)
  = INR m * central L 4 X + 3 * INR m * (INR m - 1) * Var L X ^ 2.
Proof.
induction m as [|m IH]; [unfold central, mean; simpl; ring|].
rewrite central_total_S, central_sum_4, IH, Var_total, S_INR by auto using probability_sample; ring.
Qed.

Lemma central_5_total m : central (sample m L) 5 (total X)
  = INR m * central L 5 X + 10 * INR m * (INR m - 1) * central L 3 X * Var L X.
Proof.
induction m as [|m IH]; [unfold central, mean; simpl; ring|].
rewrite central_total_S, central_sum_5, IH, central_3_total, Var_total, S_INR
  by auto using probability_sample; ring.
Qed.

Lemma central_6_total m : central (sample m L) 6 (total X)
  = INR m * central L 6 X + 15 * INR m * (INR m - 1) * central L 4 X * Var L X
    + 10 * INR m * (INR m - 1) * central L 3 X ^ 2
    + 15 * INR m * (INR m - 1) * (INR m - 2) * Var L X ^ 3.
Proof.
induction m as [|m IH]; [unfold central, mean; simpl; ring|].
rewrite central_total_S, central_sum_6, IH, central_4_total, central_3_total, Var_total, S_INR
  by auto using probability_sample; ring.
Qed.

Lemma mean_average m : (0 < m)%nat -> mean (sample m L) (average m X) = mean L X.
Proof.
intros hm; unfold mean, average; rewrite E_scal.
change (E (sample m L) (total X)) with (mean (sample m L) (total X)).
rewrite mean_total; unfold mean; field; apply not_0_INR; lia.
Qed.

Lemma central_average m k : (0 < m)%nat ->
  central (sample m L) k (average m X) = / INR m ^ k * central (sample m L) k (total X).
Proof.
intros hm; unfold central at 1; rewrite mean_average by exact hm.
rewrite (E_ext _ _ (fun l => / INR m ^ k * (total X l - mean (sample m L) (total X)) ^ k)).
- now rewrite E_scal.
- intro l; rewrite mean_total; unfold average.
  rewrite <- pow_inv, <- Rpow_mult_distr; f_equal; field; apply not_0_INR; lia.
Qed.

(** The variance of the mean of m is Var/m. *)
Theorem Var_of_mean m : (0 < m)%nat -> Var (sample m L) (average m X) = Var L X / INR m.
Proof.
intros hm; unfold Var at 1; rewrite central_average by exact hm.
change (central (sample m L) 2 (total X)) with (Var (sample m L) (total X)).
rewrite Var_total; field; apply not_0_INR; lia.
Qed.

(** The third cumulant of the mean of m is kappa_3/m^2. *)
Theorem central_3_of_mean m : (0 < m)%nat ->
  central (sample m L) 3 (average m X) = central L 3 X / INR m ^ 2.
Proof.
intros hm; rewrite central_average, central_3_total by exact hm; field; apply not_0_INR; lia.
Qed.

(** The fourth central moment of the mean of m is (mu_4 + 3 (m-1) Var^2)/m^3. *)
Theorem central_4_of_mean m : (0 < m)%nat ->
  central (sample m L) 4 (average m X)
  = (central L 4 X + 3 * (INR m - 1) * Var L X ^ 2) / INR m ^ 3.
Proof.
intros hm; rewrite central_average, central_4_total by exact hm; field; apply not_0_INR; lia.
Qed.

(** The fifth central moment of the mean of m falls like m^-3 too. *)
Theorem central_5_of_mean m : (0 < m)%nat ->
  central (sample m L) 5 (average m X)
  = (central L 5 X + 10 * (INR m - 1) * central L 3 X * Var L X) / INR m ^ 4.
Proof.
intros hm; rewrite central_average, central_5_total by exact hm; field; apply not_0_INR; lia.
Qed.

(** The sixth central moment of the mean of m falls like m^-3. *)
Theorem central_6_of_mean m : (0 < m)%nat ->
  central (sample m L) 6 (average m X)
  = (central L 6 X + 15 * (INR m - 1) * central L 4 X * Var L X
     + 10 * (INR m - 1) * central L 3 X ^ 2
     + 15 * (INR m - 1) * (INR m - 2) * Var L X ^ 3) / INR m ^ 5.
Proof.
intros hm; rewrite central_average, central_6_total by exact hm; field; apply not_0_INR; lia.
Qed.
End Sample.
