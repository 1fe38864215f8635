(** Exponential moving averages: the geometric sums of their weights, the recursion of their
    cumulants, and the steady-state bias of an update fed with the square of the mean. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import finite_law.
Open Scope R_scope.

(** ** Weights *)

(** [sum of r^k over the ages 0 ... t-1]. *)
Fixpoint ages (r : R) (t : nat) : R := match t with O => 0 | S t => ages r t + r ^ t end.

(** 1 + r + ... + r^(t-1), whatever r but one. *)
Theorem geometric_sum r t : r <> 1 -> ages r t = (1 - r ^ t) / (1 - r).
Proof.
intros hr; induction t as [|t IH]; simpl; [field; lra|]; rewrite IH; field; lra.
Qed.

(** The weight of age k in an average that is divided by 1 - beta^t. *)
Definition weight (b : R) (t k : nat) : R := (1 - b) * b ^ k / (1 - b ^ t).

Lemma pow_lt_1 b t : 0 <= b < 1 -> (0 < t)%nat -> b ^ t < 1.
Proof. intros [h0 h1] ht; apply pow_lt_1_compat; [split; assumption | exact ht]. Qed.

Lemma ages_scal c r t : sum_f_R0 (fun k => c * r ^ k) t = c * ages r (S t).
Proof. induction t as [|t IH]; [simpl; ring|]; rewrite tech5, IH; simpl; ring. Qed.

(** Debiased weights sum to one: the average of a constant is that constant. *)
Theorem weights_sum_to_one b t : 0 <= b < 1 -> sum_f_R0 (weight b (S t)) t = 1.
Proof.
intros hb; assert (h1 := pow_lt_1 b (S t) hb ltac:(lia)).
unfold weight; rewrite (sum_eq _ (fun k => (1 - b) / (1 - b ^ S t) * b ^ k))
  by (intros; field; lra).
rewrite ages_scal, geometric_sum by lra; field; lra.
Qed.

(** The sum of the products of two averages' weights: what the covariance of a step is times. *)
Theorem weight_products b1 b2 t : 0 <= b1 < 1 -> 0 <= b2 < 1 ->
  sum_f_R0 (fun k => weight b1 (S t) k * weight b2 (S t) k) t
  = (1 - b1) * (1 - b2) * (1 - (b1 * b2) ^ S t)
    / ((1 - b1 * b2) * (1 - b1 ^ S t) * (1 - b2 ^ S t)).
Proof.
intros h1 h2; assert (p1 := pow_lt_1 b1 (S t) h1 ltac:(lia)).
assert (p2 := pow_lt_1 b2 (S t) h2 ltac:(lia)).
assert (hb : b1 * b2 < 1) by nra.
unfold weight; rewrite (sum_eq _ (fun k =>
  (1 - b1) * (1 - b2) / ((1 - b1 ^ S t) * (1 - b2 ^ S t)) * (b1 * b2) ^ k)).
- rewrite ages_scal, geometric_sum by lra; field; lra.
- intros k _; rewrite Rpow_mult_distr; field; lra.
Qed.

(** In the steady state: A = (1-b1)(1-b2)/(1-b1 b2), and B = (1-b2)/(1+b2) for a square. *)
Theorem weight_products_steady_state b1 b2 : 0 <= b1 < 1 -> 0 <= b2 < 1 ->
  is_lim_seq (fun t => sum_f_R0 (fun k => weight b1 (S t) k * weight b2 (S t) k) t)
             ((1 - b1) * (1 - b2) / (1 - b1 * b2)).
Proof.
intros h1 h2; assert (hb : 0 <= b1 * b2 < 1) by nra.
assert (vanishes : forall b, 0 <= b < 1 -> is_lim_seq (fun t => b ^ S t) 0).
{ intros b hb'; apply (is_lim_seq_incr_1 (fun t => b ^ t)), is_lim_seq_geom.
  rewrite Rabs_pos_eq; lra. }
eapply is_lim_seq_ext; [intro t; symmetry; now apply weight_products|].
replace (Finite ((1 - b1) * (1 - b2) / (1 - b1 * b2)))
  with (Finite ((1 - b1) * (1 - b2) * (1 - 0) / ((1 - b1 * b2) * (1 - 0) * (1 - 0))))
  by (f_equal; field; lra).
apply is_lim_seq_div'.
- apply is_lim_seq_mult'; [apply is_lim_seq_const|].
  apply is_lim_seq_minus'; [apply is_lim_seq_const | now apply vanishes].
- apply is_lim_seq_mult'; [apply is_lim_seq_mult'|]; try apply is_lim_seq_const;
    apply is_lim_seq_minus'; try apply is_lim_seq_const; now apply vanishes.
- rewrite Rminus_0_r, !Rmult_1_r; lra.
Qed.

(** One average with itself: B = (1-b)/(1+b). *)
Theorem square_of_one_average b : 0 <= b < 1 -> (1 - b) * (1 - b) / (1 - b * b) = (1 - b) / (1 + b).
Proof. intros hb; field; nra. Qed.

(** Share of the newest step in the steady state: 1 - b1 b2. *)
Theorem newest_share b1 b2 : b1 * b2 <> 1 -> (1 - b1) * (1 - b2) <> 0 ->
  (1 - b1) * (1 - b2) / ((1 - b1) * (1 - b2) / (1 - b1 * b2)) = 1 - b1 * b2.
Proof.
intros h h'.
assert (1 - b1 <> 0) by (intro e; apply h'; rewrite e; ring).
assert (1 - b2 <> 0) by (intro e; apply h'; rewrite e; ring).
field; repeat split; lra.
Qed.

(** ** The recursion of cumulants

    A state moves by m' = b m + (1 - b) s, the new statistic independent of the past. *)
Section Recursion.
Context {A B : Type}.
Variables (past : law A) (step : law B).
Hypothesis hpast : probability past.
Hypothesis hstep : probability step.

Definition moved (b : R) (m : A -> R) (s : B -> R) (p : A * B) : R :=
  b * m (fst p) + (1 - b) * s (snd p).

(** C' = b1 b2 C + (1 - b1)(1 - b2) Cov of the step; V' with b1 = b2. *)
Theorem covariance_recursion b1 b2 (m v : A -> R) (g s : B -> R) :
  Cov (product past step) (moved b1 m g) (moved b2 v s)
  = b1 * b2 * Cov past m v + (1 - b1) * (1 - b2) * Cov step g s.
Proof.
assert (hp := probability_product past step hpast hstep).
assert (first : Cov (product past step) (fun p => m (fst p)) (fun p => v (fst p)) = Cov past m v).
{ rewrite !Cov_moments by assumption; unfold mean; rewrite !(E_first past step) by exact hstep.
  now rewrite (E_first past step (fun a => m a * v a)). }
assert (second : Cov (product past step) (fun p => g (snd p)) (fun p => s (snd p)) = Cov step g s).
{ rewrite !Cov_moments by assumption; unfold mean; rewrite !(E_second past step) by exact hpast.
  now rewrite (E_second past step (fun a => g a * s a)). }
unfold moved.
rewrite Cov_plus_l, !Cov_plus_r, !Cov_scal_l, !Cov_scal_r by exact hp.
rewrite first, second, (Cov_independent past step m s) by assumption.
rewrite (Cov_sym _ (fun p => g (snd p))), (Cov_independent past step v g) by assumption; ring.
Qed.

(** The mean follows the state's own recursion. *)
Theorem mean_recursion b (m : A -> R) (g : B -> R) :
  mean (product past step) (moved b m g) = b * mean past m + (1 - b) * mean step g.
Proof.
unfold mean, moved; rewrite E_plus, !E_scal.
now rewrite (E_first past step m hstep), (E_second past step g hpast).
Qed.
End Recursion.

(** What the recursion sums to, from zero: the geometric weights times constant step cumulants. *)
Fixpoint tracked (r gain c : R) (t : nat) : R :=
  match t with O => 0 | S t => r * tracked r gain c t + gain * c end.

(** A recursion r C + gain c from zero has summed the geometric weights after t steps. *)
Theorem tracked_sum r gain c t : r <> 1 -> tracked r gain c t = gain * c * ((1 - r ^ t) / (1 - r)).
Proof.
intros hr; induction t as [|t IH]; simpl; [field; lra|]; rewrite IH; field; lra.
Qed.

(** ** An update m/sqrt v fed with the square of the mean, normal noise

    mu is the mean gradient, n the variance of a step's mean, V = mu^2 + n its second moment,
    q = n/V.  Then Cov(g, g^2) = 2 mu n and Var g^2 = 4 mu^2 n + 2 n^2 (no third or fourth
    cumulant). *)
Theorem steady_state_relative_bias A B mu n : mu <> 0 -> 0 < mu ^ 2 + n ->
  let V := mu ^ 2 + n in let q := n / V in
  (* coupling f'(V) Cov + inversion mu f''(V)/2 Var, over mu f(V), for f = v^(-1/2) *)
  let f1 := - / (2 * V) in let f2 := 3 / (4 * V ^ 2) in
  (f1 * (A * (2 * mu * n)) + mu * (f2 / 2) * (B * (4 * mu ^ 2 * n + 2 * n ^ 2))) / mu
  = - A * q + 3 / 2 * B * q - 3 / 4 * B * q ^ 2.
Proof. intros hmu hV V q f1 f2; unfold q, f1, f2, V; field; lra. Qed.

(** At the first step A = B = 1. *)
Corollary first_step_relative_bias q : - 1 * q + 3 / 2 * 1 * q - 3 / 4 * 1 * q ^ 2 = - q * (3 * q - 2) / 4.
Proof. field. Qed.
