(** 1/(sqrt v + eps): derivatives to fifth order through v = s^2, where they are rational, the
    delta theorem at second and fourth order, and the constant of the remainder on [lo, oo). *)

From Coq Require Import Reals Lra Lia Psatz.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law delta.
Open Scope R_scope.

Section SqrtEps.
Variable eps : R.
Hypothesis heps : 0 <= eps.

(** The k-th derivative in v, written in s = sqrt v. *)
Definition root_form (k : nat) (s : R) : R :=
  match k with
  | 0%nat => / (s + eps)
  | 1%nat => - / (2 * s * (s + eps) ^ 2)
  | 2%nat => (eps + 3 * s) / (4 * s ^ 3 * (s + eps) ^ 3)
  | 3%nat => - (3 * (eps ^ 2 + 4 * eps * s + 5 * s ^ 2)) / (8 * s ^ 5 * (s + eps) ^ 4)
  | 4%nat => 3 * (5 * eps ^ 3 + 25 * eps ^ 2 * s + 47 * eps * s ^ 2 + 35 * s ^ 3)
             / (16 * s ^ 7 * (s + eps) ^ 5)
  | 5%nat => - (15 * (7 * eps ^ 4 + 42 * eps ^ 3 * s + 102 * eps ^ 2 * s ^ 2
                      + 122 * eps * s ^ 3 + 63 * s ^ 4)) / (32 * s ^ 9 * (s + eps) ^ 6)
  | _ => 0
  end.

Definition inverse_sqrt_plus_eps (k : nat) (v : R) : R := root_form k (sqrt v).

(** d/dv = 1/(2 s) d/ds. *)
Lemma through_the_root (r : R -> R) (d v : R) : 0 < v ->
  is_derive r (sqrt v) (2 * sqrt v * d) -> is_derive (fun v => r (sqrt v)) v d.
Proof.
intros hv hr; assert (hs := sqrt_lt_R0 v hv).
assert (hd : is_derive sqrt v (/ (2 * sqrt v)))
  by (apply is_derive_Reals; now apply derivable_pt_lim_sqrt).
evar_last; [exact (is_derive_comp r sqrt v _ _ hr hd)|].
unfold scal; simpl; unfold mult; simpl; in_reals; field; lra.
Qed.

(** Each is the derivative of the one before. *)
Theorem tower_inverse_sqrt_plus_eps : tower inverse_sqrt_plus_eps 5 (fun v => 0 < v).
Proof.
intros k v hk hv; assert (hs := sqrt_lt_R0 v hv).
unfold inverse_sqrt_plus_eps; apply through_the_root; [exact hv|].
set (s := sqrt v) in *; clearbody s.
assert (hne : s + eps <> 0) by lra; assert (hs0 : s <> 0) by lra.
destruct k as [|[|[|[|[|k]]]]]; [| | | | |lia]; unfold root_form;
  (auto_derive; [repeat split; auto; repeat apply Rmult_integral_contrapositive_currified;
                 auto; try lra; repeat apply Rmult_integral_contrapositive_currified; auto; lra
                | in_reals; field; split; assumption]).
Qed.

(** Half the second derivative is (eps + 3 s) / (8 s^3 (s + eps)^3). *)
Theorem sqrt_eps_coefficient v : 0 < v -> let s := sqrt v in
  / 2 * inverse_sqrt_plus_eps 2 v = (eps + 3 * s) / (8 * s ^ 3 * (s + eps) ^ 3).
Proof.
intros hv s; assert (hs := sqrt_lt_R0 v hv); fold s in hs.
unfold inverse_sqrt_plus_eps, root_form; fold s; field; lra.
Qed.

(** Signs alternate: coupling is negative, inversion positive, and so on. *)
Theorem root_form_signs s : 0 < s ->
  root_form 1 s < 0 /\ 0 < root_form 2 s /\ root_form 3 s < 0 /\ 0 < root_form 4 s.
Proof.
intros hs; unfold root_form.
assert (hp : forall n, 0 < (s + eps) ^ n) by (intro; apply pow_lt; lra).
assert (hq : forall n, 0 < s ^ n) by (intro; now apply pow_lt).
repeat split.
- apply Ropp_lt_gt_0_contravar, Rinv_0_lt_compat; specialize (hp 2%nat); nra.
- apply Rdiv_lt_0_compat; [lra|]; specialize (hp 3%nat); specialize (hq 3%nat); nra.
- unfold Rdiv; rewrite Ropp_mult_distr_l_reverse; apply Ropp_lt_gt_0_contravar, Rdiv_lt_0_compat;
    [nra|]; specialize (hp 4%nat); specialize (hq 5%nat); nra.
- apply Rdiv_lt_0_compat;
    [|specialize (hp 5%nat); specialize (hq 7%nat); apply Rmult_lt_0_compat; lra].
  assert (h1 := hq 3%nat); assert (h2 := hq 2%nat).
  assert (0 <= eps ^ 3) by now apply pow_le.
  assert (0 <= eps ^ 2) by now apply pow_le.
  assert (0 <= eps ^ 2 * s) by (apply Rmult_le_pos; lra).
  assert (0 <= eps * s ^ 2) by (apply Rmult_le_pos; lra); lra.
Qed.

(** The remainder's constants.  As |eps^i s^j| <= (s + eps)^(i+j), the numerators are at most their
    largest coefficient times a power of s + eps, and what is left falls in s.  They are attained
    as eps -> 0. *)
Lemma falls_in_s c a b s0 s : 0 <= c -> 0 < s0 -> s0 <= s ->
  c / (s ^ a * (s + eps) ^ b) <= c / (s0 ^ a * (s0 + eps) ^ b).
Proof.
intros hc h0 hs; apply Rmult_le_compat_l; [exact hc|].
apply Rinv_le_contravar.
- apply Rmult_lt_0_compat; apply pow_lt; lra.
- apply Rmult_le_compat; try (apply pow_le; lra); apply pow_incr; lra.
Qed.

(** On s >= s0 the third derivative is at most 15/8 / (s0^5 (s0 + eps)^2). *)
Theorem third_derivative_bound s0 s : 0 < s0 -> s0 <= s ->
  Rabs (root_form 3 s) <= 15 / 8 / (s0 ^ 5 * (s0 + eps) ^ 2).
Proof.
intros h0 hs; eapply Rle_trans; [|apply (falls_in_s (15 / 8) 5 2 s0 s); lra].
assert (hsp : 0 < s) by lra; destruct (root_form_signs s hsp) as [_ [_ [hneg _]]].
rewrite Rabs_left by exact hneg; unfold root_form.
replace (- (- (3 * (eps ^ 2 + 4 * eps * s + 5 * s ^ 2)) / (8 * s ^ 5 * (s + eps) ^ 4)))
  with (3 / 8 * (eps ^ 2 + 4 * eps * s + 5 * s ^ 2) * / (s ^ 5 * (s + eps) ^ 4))
  by (field; lra).
replace (15 / 8 / (s ^ 5 * (s + eps) ^ 2))
  with (15 / 8 * (s + eps) ^ 2 * / (s ^ 5 * (s + eps) ^ 4)) by (field; lra).
apply Rmult_le_compat_r; [left; apply Rinv_0_lt_compat, Rmult_lt_0_compat; apply pow_lt; lra|].
nra.
Qed.

(** On s >= s0 the fifth derivative is at most 945/32 / (s0^9 (s0 + eps)^2). *)
Theorem fifth_derivative_bound s0 s : 0 < s0 -> s0 <= s ->
  Rabs (root_form 5 s) <= 945 / 32 / (s0 ^ 9 * (s0 + eps) ^ 2).
Proof.
intros h0 hs; eapply Rle_trans; [|apply (falls_in_s (945 / 32) 9 2 s0 s); lra].
assert (hsp : 0 < s) by lra.
set (N := 7 * eps ^ 4 + 42 * eps ^ 3 * s + 102 * eps ^ 2 * s ^ 2 + 122 * eps * s ^ 3 + 63 * s ^ 4).
assert (p4 : 0 <= eps ^ 4) by now apply pow_le.
assert (p3 : 0 <= eps ^ 3 * s) by (apply Rmult_le_pos; [now apply pow_le | lra]).
assert (p2 : 0 <= eps ^ 2 * s ^ 2) by (apply Rmult_le_pos; apply pow_le; lra).
assert (p1 : 0 <= eps * s ^ 3) by (apply Rmult_le_pos; [exact heps | apply pow_le; lra]).
assert (p0 : 0 <= s ^ 4) by (apply pow_le; lra).
replace (root_form 5 s) with (- (15 / 32 * N * / (s ^ 9 * (s + eps) ^ 6)))
  by (unfold root_form, N; field; lra).
assert (hi : 0 <= / (s ^ 9 * (s + eps) ^ 6))
  by (left; apply Rinv_0_lt_compat, Rmult_lt_0_compat; apply pow_lt; lra).
rewrite Rabs_Ropp, Rabs_pos_eq by (apply Rmult_le_pos; [unfold N; lra | exact hi]).
replace (945 / 32 / (s ^ 9 * (s + eps) ^ 2))
  with (945 / 32 * (s + eps) ^ 4 * / (s ^ 9 * (s + eps) ^ 6)) by (field; lra).
apply Rmult_le_compat_r; [exact hi|].
replace ((s + eps) ^ 4)
  with (eps ^ 4 + 4 * (eps ^ 3 * s) + 6 * (eps ^ 2 * s ^ 2) + 4 * (eps * s ^ 3) + s ^ 4) by ring.
unfold N; lra.
Qed.

Lemma root_of_lo lo v : 0 < lo -> lo <= v -> 0 < sqrt lo /\ sqrt lo <= sqrt v.
Proof. intros h0 hv; split; [now apply sqrt_lt_R0 | now apply sqrt_le_1_alt]. Qed.

(** Second order, for any law on [lo, oo). *)
Theorem delta_sqrt_eps {A} lo (L : law A) (X : A -> R) :
  probability L -> 0 < lo -> surely L (fun a => lo <= X a) ->
  let s := sqrt (mean L X) in
  Rabs (E L (fun a => / (sqrt (X a) + eps))
        - (/ (s + eps) + Var L X * ((eps + 3 * s) / (8 * s ^ 3 * (s + eps) ^ 3))))
    <= 5 / 16 / (sqrt lo ^ 5 * (sqrt lo + eps) ^ 2) * E L (fun a => Rabs (X a - mean L X) ^ 3).
Proof.
intros hL hlo hX s.
assert (hmu : lo <= mean L X) by now apply mean_ge.
assert (h := delta_second_order inverse_sqrt_plus_eps (fun v => lo <= v)
  (15 / 8 / (sqrt lo ^ 5 * (sqrt lo + eps) ^ 2)) L X hL (convex_half_line lo)).
destruct (root_of_lo lo lo hlo (Rle_refl lo)) as [hs0 _].
rewrite Rmult_assoc, (Rmult_comm _ (Var L X)), <- Rmult_assoc in h.
rewrite (Rmult_comm (/ 2)), Rmult_assoc, sqrt_eps_coefficient in h by lra; fold s in h.
eapply Rle_trans; [|eapply Rle_trans; [apply h|]].
- right; f_equal; unfold inverse_sqrt_plus_eps, root_form; fold s; ring.
- intros k t hk ht; apply tower_inverse_sqrt_plus_eps; [lia | lra].
- intros t ht; destruct (root_of_lo lo t hlo ht); now apply third_derivative_bound.
- exact hX.
- right; field; split; lra.
Qed.

(** Fourth order. *)
Theorem delta_sqrt_eps_fourth_order {A} lo (L : law A) (X : A -> R) :
  probability L -> 0 < lo -> surely L (fun a => lo <= X a) ->
  let s := sqrt (mean L X) in
  Rabs (E L (fun a => / (sqrt (X a) + eps))
        - (root_form 0 s + / 2 * root_form 2 s * Var L X
           + / 6 * root_form 3 s * central L 3 X + / 24 * root_form 4 s * central L 4 X))
    <= 63 / 256 / (sqrt lo ^ 9 * (sqrt lo + eps) ^ 2) * E L (fun a => Rabs (X a - mean L X) ^ 5).
Proof.
intros hL hlo hX s.
destruct (root_of_lo lo lo hlo (Rle_refl lo)) as [hs0 _].
assert (h := delta_fourth_order inverse_sqrt_plus_eps (fun v => lo <= v)
  (945 / 32 / (sqrt lo ^ 9 * (sqrt lo + eps) ^ 2)) L X hL (convex_half_line lo)).
eapply Rle_trans; [|eapply Rle_trans; [apply h|]].
- right; reflexivity.
- intros k t hk ht; apply tower_inverse_sqrt_plus_eps; [lia | lra].
- intros t ht; destruct (root_of_lo lo t hlo ht); now apply fifth_derivative_bound.
- exact hX.
- right; field; split; lra.
Qed.
End SqrtEps.
