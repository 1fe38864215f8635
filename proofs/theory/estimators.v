(** Estimators: unbiasedness of the variance and covariance of a weighted mean, independence of
    folds, and the order of the jackknife. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law.
Open Scope R_scope.

(** ** The U-statistic for Cov(mean X, mean Y)

    Microbatches r = 0 ... m-1 have weights w_r > 0 of sum one, statistics X_r and Y_r, each of one
    mean, uncorrelated between microbatches (independent ones are).  Nothing else is assumed: each
    may have its own variance. *)

Fixpoint sum (m : nat) (f : nat -> R) : R :=
  match m with O => 0 | S m => sum m f + f m end.

Lemma sum_ext m f g : (forall r, (r < m)%nat -> f r = g r) -> sum m f = sum m g.
Proof. intros h; induction m as [|m IH]; simpl; [reflexivity|]; rewrite IH, h; auto. Qed.

Lemma sum_plus m f g : sum m (fun r => f r + g r) = sum m f + sum m g.
Proof. induction m as [|m IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_minus m f g : sum m (fun r => f r - g r) = sum m f - sum m g.
Proof. induction m as [|m IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_scal m c f : sum m (fun r => c * f r) = c * sum m f.
Proof. induction m as [|m IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_scal_r m c f : sum m (fun r => f r * c) = sum m f * c.
Proof. induction m as [|m IH]; simpl; [|rewrite IH]; ring. Qed.

Lemma sum_const m c : sum m (fun _ => c) = INR m * c.
Proof. induction m as [|m IH]; [simpl; ring|]; rewrite S_INR; simpl; rewrite IH; ring. Qed.

Lemma sum_zero m f : (forall r, (r < m)%nat -> f r = 0) -> sum m f = 0.
Proof. intros h; rewrite (sum_ext m f (fun _ => 0) h), sum_const; ring. Qed.

Lemma sum_bound m f B : (forall r, (r < m)%nat -> Rabs (f r) <= B) -> Rabs (sum m f) <= INR m * B.
Proof.
intros h; induction m as [|m IH]; [simpl; rewrite Rabs_R0; lra|]; rewrite S_INR; simpl.
eapply Rle_trans; [apply Rabs_triang|].
assert (Rabs (sum m f) <= INR m * B) by (apply IH; intros; apply h; lia).
assert (Rabs (f m) <= B) by (apply h; lia); lra.
Qed.

Lemma E_sum_n {A} (L : law A) m (f : nat -> A -> R) :
  E L (fun a => sum m (fun r => f r a)) = sum m (fun r => E L (f r)).
Proof.
induction m as [|m IH]; simpl; [|now rewrite E_plus, IH].
rewrite (E_ext L _ (fun a => 0 * 0)), E_scal; [ring | intro; ring].
Qed.

(** Of a double sum only the diagonal is left. *)
Lemma sum_diagonal m c r : (r < m)%nat -> (forall s, (s < m)%nat -> s <> r -> c s = 0) ->
  sum m c = c r.
Proof.
induction m as [|m IH]; intros hr h; [lia|]; simpl.
destruct (Nat.eq_dec r m) as [-> | hne].
- rewrite sum_zero; [ring|]; intros s hs; apply h; lia.
- rewrite IH by (lia || (intros; apply h; lia)); rewrite (h m) by lia; ring.
Qed.

Section UStatistic.
Context {A : Type}.
Variables (L : law A) (m : nat) (w : nat -> R) (X Y : nat -> A -> R) (mu nu : R).
Hypothesis hL : probability L.
Hypothesis weights : sum m w = 1.
Hypothesis meanX : forall r, (r < m)%nat -> mean L (X r) = mu.
Hypothesis meanY : forall r, (r < m)%nat -> mean L (Y r) = nu.
Hypothesis uncorrelated : forall r s, (r < m)%nat -> (s < m)%nat -> r <> s ->
  Cov L (X r) (Y s) = 0.

Definition weighted_mean (Z : nat -> A -> R) (a : A) : R := sum m (fun r => w r * Z r a).

Let c r := Cov L (X r) (Y r).

Lemma Cov_sum_r Z V (n : nat) (u : nat -> R) :
  Cov L Z (fun a => sum n (fun r => u r * V r a)) = sum n (fun r => u r * Cov L Z (V r)).
Proof.
induction n as [|n IH]; simpl.
- rewrite Cov_moments by exact hL; unfold mean; rewrite E_scal_r, E_const by exact hL; ring.
- now rewrite Cov_plus_r, Cov_scal_r, IH by exact hL.
Qed.

Lemma mean_weighted : mean L (weighted_mean X) = mu /\ mean L (weighted_mean Y) = nu.
Proof.
split; unfold mean, weighted_mean; rewrite E_sum_n.
- rewrite (sum_ext m _ (fun r => w r * mu)), sum_scal_r, weights; [ring|].
  intros r hr; rewrite E_scal; f_equal; now apply meanX.
- rewrite (sum_ext m _ (fun r => w r * nu)), sum_scal_r, weights; [ring|].
  intros r hr; rewrite E_scal; f_equal; now apply meanY.
Qed.

(** One microbatch against the mean: only its own share counts. *)
Lemma Cov_one_and_mean r : (r < m)%nat -> Cov L (X r) (weighted_mean Y) = w r * c r.
Proof.
intros hr; unfold weighted_mean; rewrite Cov_sum_r.
apply (sum_diagonal m (fun s => w s * Cov L (X r) (Y s)) r hr).
intros s hs hne; rewrite uncorrelated by auto; ring.
Qed.

Lemma Cov_mean_and_one r : (r < m)%nat -> Cov L (weighted_mean X) (Y r) = w r * c r.
Proof.
intros hr; rewrite Cov_sym; unfold weighted_mean; rewrite Cov_sum_r.
rewrite (sum_diagonal m (fun s => w s * Cov L (Y r) (X s)) r hr).
- unfold c; now rewrite Cov_sym.
- intros s hs hne; rewrite Cov_sym, uncorrelated by auto; ring.
Qed.

(** Cov(mean X, mean Y) = sum of w_r^2 Cov(X_r, Y_r). *)
Theorem Cov_of_means :
  Cov L (weighted_mean X) (weighted_mean Y) = sum m (fun r => w r ^ 2 * c r).
Proof.
rewrite Cov_sym; unfold weighted_mean at 2; rewrite Cov_sum_r; apply sum_ext; intros r hr.
rewrite Cov_sym, Cov_one_and_mean by exact hr; ring.
Qed.

(** [sum of w_r (X_r - mean X)(Y_r - mean Y)]. *)
Definition scatter (a : A) : R :=
  sum m (fun r => w r * ((X r a - weighted_mean X a) * (Y r a - weighted_mean Y a))).

Lemma E_cross Z V z v : mean L Z = z -> mean L V = v -> z = mu -> v = nu ->
  E L (fun a => (Z a - mu) * (V a - nu)) = Cov L Z V.
Proof. intros hz hv -> ->; unfold Cov; now rewrite hz, hv. Qed.

(** What the scatter estimates, whatever the weights and the variances. *)
Theorem E_scatter : E L scatter = sum m (fun r => (w r - w r ^ 2) * c r).
Proof.
destruct mean_weighted as [hx hy].
assert (e : forall a, scatter a = sum m (fun r => w r * ((X r a - mu) * (Y r a - nu)))
             - (weighted_mean X a - mu) * (weighted_mean Y a - nu)).
{ intro a; set (x := weighted_mean X a); set (y := weighted_mean Y a); unfold scatter; fold x y.
  rewrite (sum_ext m _ (fun r => w r * ((X r a - mu) * (Y r a - nu))
     - (y - nu) * (w r * X r a) - (x - mu) * (w r * Y r a)
     + ((y - nu) * mu + (x - mu) * nu + (x - mu) * (y - nu)) * w r)) by (intros; ring).
  rewrite sum_plus, !sum_minus, !sum_scal, weights.
  change (sum m (fun r => w r * X r a)) with x; change (sum m (fun r => w r * Y r a)) with y; ring. }
rewrite (E_ext L _ _ e), E_minus, E_sum_n, (E_cross _ _ mu nu hx hy eq_refl eq_refl), Cov_of_means.
rewrite <- sum_minus; apply sum_ext; intros r hr; rewrite E_scal.
rewrite (E_cross (X r) (Y r) mu nu) by auto; fold (c r); ring.
Qed.

(** Equal weights, any variances: scatter/(m-1) is unbiased for the covariance of the means. *)
Theorem unbiased_equal_weights : (2 <= m)%nat -> (forall r, (r < m)%nat -> w r = / INR m) ->
  E L (fun a => scatter a / (INR m - 1)) = Cov L (weighted_mean X) (weighted_mean Y).
Proof.
intros hm hw; assert (2 <= INR m) by (change 2 with (INR 2); now apply le_INR).
unfold Rdiv; rewrite E_scal_r, E_scatter, Cov_of_means, <- sum_scal_r; apply sum_ext.
intros r hr; rewrite hw by exact hr; field; lra.
Qed.

(** Any weights, covariances c/w_r (microbatch r is the mean over w_r tokens): the same formula. *)
Theorem unbiased_token_weights c0 : (2 <= m)%nat ->
  (forall r, (r < m)%nat -> w r <> 0 /\ Cov L (X r) (Y r) = c0 / w r) ->
  E L (fun a => scatter a / (INR m - 1)) = Cov L (weighted_mean X) (weighted_mean Y).
Proof.
intros hm hw; assert (2 <= INR m) by (change 2 with (INR 2); now apply le_INR).
unfold Rdiv; rewrite E_scal_r, E_scatter, Cov_of_means.
rewrite (sum_ext m _ (fun r => c0 - c0 * w r)).
2: { intros r hr; destruct (hw r hr) as [h0 hc]; unfold c; rewrite hc; field; exact h0. }
rewrite (sum_ext m (fun r => w r ^ 2 * c r) (fun r => c0 * w r)).
2: { intros r hr; destruct (hw r hr) as [h0 hc]; unfold c; rewrite hc; field; exact h0. }
rewrite sum_minus, sum_const, sum_scal, weights; field; lra.
Qed.
End UStatistic.

(** ** Folds

    Cross-fitting takes the numerator from one fold and the preconditioner from another. *)

(** Folds are independent, so the expectation factors: coupling vanishes exactly. *)
Theorem cross_fit_factors {A B} (L : law A) (M : law B) (numerator : A -> R) (v : B -> R) f :
  E (product L M) (fun p => numerator (fst p) * f (v (snd p)))
  = E L numerator * E M (fun b => f (v b)).
Proof. exact (E_independent L M numerator (fun b => f (v b))). Qed.

(** What is left is inversion alone, at the size of the fold that feeds the preconditioner. *)
Theorem cross_fit_bias {A B} (L : law A) (M : law B) (numerator : A -> R) (v : B -> R) f :
  E (product L M) (fun p => numerator (fst p) * f (v (snd p))) - mean L numerator * f (mean M v)
  = mean L numerator * (E M (fun b => f (v b)) - f (mean M v)).
Proof. rewrite cross_fit_factors; unfold mean; ring. Qed.

(** Both directions, averaged. *)
Theorem cross_fit_two_folds {A} (L : law A) (M : law A) (g v : A -> R) f :
  mean L g = mean M g ->
  E (product L M) (fun p => (g (fst p) * f (v (snd p)) + g (snd p) * f (v (fst p))) / 2)
  = mean L g * ((E L (fun a => f (v a)) + E M (fun a => f (v a))) / 2).
Proof.
intros hg; unfold Rdiv; rewrite E_scal_r, E_plus.
rewrite cross_fit_factors.
rewrite (E_ext (product L M) (fun p => g (snd p) * f (v (fst p)))
          (fun p => f (v (fst p)) * g (snd p))) by (intro; ring).
rewrite (E_independent L M (fun a => f (v a)) g).
change (E M g) with (mean M g); rewrite <- hg; unfold mean; ring.
Qed.

(** ** The jackknife *)

(** m u_m - (m-1) (mean of the u without one observation). *)
Definition jackknife {A} (m : nat) (u : A -> R) (without : nat -> A -> R) (a : A) : R :=
  INR m * u a - (INR m - 1) * (/ INR m * sum m (fun r => without r a)).

(** An expectation u + a/m + b/m^2 + r_m: the term 1/m is removed, and what is left is of second
    order where |r_m| <= C/m^3. *)
Theorem jackknife_order {A} (L : law A) m u without target a b C :
  (2 <= m)%nat ->
  Rabs (E L u - (target + a / INR m + b / INR m ^ 2)) <= C / INR m ^ 3 ->
  (forall r, (r < m)%nat ->
     Rabs (E L (without r) - (target + a / (INR m - 1) + b / (INR m - 1) ^ 2))
       <= C / (INR m - 1) ^ 3) ->
  Rabs (E L (jackknife m u without) - target + b / (INR m * (INR m - 1)))
    <= C / INR m ^ 2 + C / (INR m - 1) ^ 2.
Proof.
intros hm hu hw; assert (h2 : 2 <= INR m) by (change 2 with (INR 2); now apply le_INR).
set (n := INR m) in *; unfold jackknife; fold n.
rewrite E_minus, !E_scal, E_sum_n.
set (t := target + a / (n - 1) + b / (n - 1) ^ 2) in *.
assert (hs : Rabs (/ n * sum m (fun r => E L (without r)) - t) <= C / (n - 1) ^ 3).
{ replace (/ n * sum m (fun r => E L (without r)) - t)
    with (/ n * sum m (fun r => E L (without r) - t))
    by (rewrite sum_minus, sum_const; fold n; field; lra).
  rewrite Rabs_mult, Rabs_pos_eq by (left; apply Rinv_0_lt_compat; lra).
  apply Rmult_le_reg_l with n; [lra|]; rewrite <- Rmult_assoc, Rinv_r, Rmult_1_l by lra.
  now apply sum_bound. }
replace (n * E L u - (n - 1) * (/ n * sum m (fun r => E L (without r))) - target + b / (n * (n - 1)))
  with (n * (E L u - (target + a / n + b / n ^ 2))
        - (n - 1) * (/ n * sum m (fun r => E L (without r)) - t))
  by (unfold t; field; lra).
eapply Rle_trans; [apply Rabs_triang|]; rewrite Rabs_Ropp, !Rabs_mult.
rewrite (Rabs_pos_eq n), (Rabs_pos_eq (n - 1)) by lra.
apply Rplus_le_compat.
- replace (C / n ^ 2) with (n * (C / n ^ 3)) by (field; lra).
  apply Rmult_le_compat_l; [lra | exact hu].
- replace (C / (n - 1) ^ 2) with ((n - 1) * (C / (n - 1) ^ 3)) by (field; lra).
  apply Rmult_le_compat_l; [lra | exact hs].
Qed.
