(** The form that cannot do harm: dividing by 1 + q in place of subtracting f q. *)

From Coq Require Import Reals Lra.
Open Scope R_scope.

(** The ratio is the subtraction up to second order, exactly. *)
Theorem ratio_is_subtraction_to_second_order f q : 1 + q <> 0 ->
  f / (1 + q) = f - f * q + f * q ^ 2 / (1 + q).
Proof. intros h; field; exact h. Qed.

(** Their difference is at most f q^2. *)
Theorem ratio_minus_subtraction f q : 0 <= f -> 0 <= q ->
  0 <= f / (1 + q) - (f - f * q) <= f * q ^ 2.
Proof.
intros hf hq; rewrite ratio_is_subtraction_to_second_order by lra.
replace (f - f * q + f * q ^ 2 / (1 + q) - (f - f * q)) with (f * q ^ 2 / (1 + q)) by (field; lra).
assert (h : 0 <= f * q ^ 2) by (apply Rmult_le_pos; [exact hf | apply pow2_ge_0]).
split; [apply Rmult_le_pos; [exact h | left; apply Rinv_0_lt_compat; lra]|].
apply Rmult_le_reg_r with (1 + q); [lra|].
unfold Rdiv; rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra; nra.
Qed.

(** It stays positive and never exceeds what it corrects, however large the variance is. *)
Theorem ratio_positive f q : 0 < f -> 0 <= q -> 0 < f / (1 + q) <= f.
Proof.
intros hf hq; split; [apply Rdiv_lt_0_compat; lra|].
apply Rmult_le_reg_r with (1 + q); [lra|].
unfold Rdiv; rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra; nra.
Qed.

(** The subtraction does turn negative. *)
Theorem subtraction_flips_sign f q : 0 < f -> 1 < q -> f - f * q < 0.
Proof. intros hf hq; nra. Qed.

(** ** The relative variance's coefficient, rule by rule: f q = f''/2 Var *)
Section Shares.
Variables s eps var cov g : R.
Hypothesis hs : 0 < s.
Hypothesis heps : 0 <= eps.
Let v := s ^ 2.
Let share := s / (s + eps).
Let rho := var / v ^ 2.

(** 1/(sqrt v + eps): q = rho t (1 + 2 t)/8. *)
Theorem safe_inverse_sqrt_plus_eps :
  / (s + eps) * (rho * share * (1 + 2 * share) / 8)
  = var * ((eps + 3 * s) / (8 * s ^ 3 * (s + eps) ^ 3)).
Proof. unfold rho, share, v; field; lra. Qed.

(** Its coupling joins the numerator: f (g + (cov/v) t/2) = f g - f' cov. *)
Theorem safe_coupling :
  / (s + eps) * (g + cov / v * share / 2) = / (s + eps) * g - (- / (2 * s * (s + eps) ^ 2)) * cov.
Proof. unfold share, v; field; lra. Qed.

(** v^(-1/2) = 1/s: q = 3 rho/8. *)
Theorem safe_inverse_sqrt : / s * (3 / 8 * rho) = 3 / 8 * var / s ^ 5.
Proof. unfold rho, v; field; lra. Qed.

(** 1/v: q = rho. *)
Theorem safe_inverse : / v * rho = var / v ^ 3.
Proof. unfold rho, v; field; lra. Qed.

(** v^(-1/4) = 1/r with v = r^4: q = 5 rho/32. *)
Theorem safe_inverse_fourth_root r : 0 < r ->
  / r * (5 / 32 * (var / (r ^ 4) ^ 2)) = 5 / 32 * var / r ^ 9.
Proof. intros hr; field; lra. Qed.

(** The share lies in (0, 1], and is one without eps. *)
Theorem share_range : 0 < share <= 1.
Proof.
unfold share; split; [apply Rdiv_lt_0_compat; lra|].
apply Rmult_le_reg_r with (s + eps); [lra|]; unfold Rdiv; rewrite Rmult_assoc, Rinv_l; lra.
Qed.

(** So the correction's divisor lies between one and the one without eps. *)
Theorem safe_divisor_bounded : 0 <= var ->
  0 <= rho * share * (1 + 2 * share) / 8 <= 3 / 8 * rho.
Proof.
intros hv; destruct share_range as [h0 h1].
assert (hr : 0 <= rho).
{ unfold rho, v, Rdiv; apply Rmult_le_pos; [exact hv|]; left; apply Rinv_0_lt_compat.
  apply pow_lt, pow_lt, hs. }
generalize dependent share; intros t h0 h1; generalize dependent rho; intros r hr.
assert (0 <= r * t) by (apply Rmult_le_pos; lra); nra.
Qed.
End Shares.
