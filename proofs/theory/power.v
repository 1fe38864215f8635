(** Powers v^a for any real a, and the towers of derivatives of the catalogue's maps. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law delta.
Open Scope R_scope.

(** [a (a-1) ... (a-k+1)]. *)
Fixpoint falling (a : R) (k : nat) : R :=
  match k with O => 1 | S k => falling a k * (a - INR k) end.

(** The k-th derivative of v^a. *)
Definition power_tower (a : R) (k : nat) (v : R) : R := falling a k * Rpower v (a - INR k).

Lemma is_derive_Rpower a v : 0 < v -> is_derive (fun v => Rpower v a) v (a * Rpower v (a - 1)).
Proof. intros hv; apply is_derive_Reals; now apply derivable_pt_lim_power. Qed.

(** Every order at once, on v > 0. *)
Theorem tower_power a n : tower (power_tower a) n (fun v => 0 < v).
Proof.
intros k v _ hv; unfold power_tower.
evar_last; [apply is_derive_scal, is_derive_Rpower, hv|].
simpl falling; rewrite S_INR; unfold scal; simpl; unfold mult; simpl; in_reals.
replace (a - (INR k + 1)) with (a - INR k - 1) by ring; ring.
Qed.

Lemma power_tower_0 a v : power_tower a 0 v = Rpower v a.
Proof. unfold power_tower; simpl; rewrite Rminus_0_r; ring. Qed.

(** A negative power falls: on [lo, oo) it is largest at lo. *)
Lemma Rpower_decreasing a lo v : a <= 0 -> 0 < lo -> lo <= v -> Rpower v a <= Rpower lo a.
Proof.
intros ha hlo hv; unfold Rpower; destruct (Req_dec (a * ln v) (a * ln lo)) as [h | h];
  [rewrite h; lra|].
left; apply exp_increasing.
assert (ln lo <= ln v) by (destruct hv as [hv | hv]; [left; now apply ln_increasing | subst; lra]).
nra.
Qed.

(** The constant of the remainder on [lo, oo). *)
Theorem power_remainder_constant a n lo v : a <= INR n -> 0 < lo -> lo <= v ->
  Rabs (power_tower a n v) <= Rabs (falling a n) * Rpower lo (a - INR n).
Proof.
intros ha hlo hv; unfold power_tower; rewrite Rabs_mult.
apply Rmult_le_compat_l; [apply Rabs_pos|].
rewrite Rabs_pos_eq; [apply Rpower_decreasing; lra | left; apply exp_pos].
Qed.

(** The delta theorem for v^a at any order n with a <= n + 1 (every negative power; the square root
    too), for any law on [lo, oo), lo > 0. *)
Theorem delta_power {A} a n lo (L : law A) (X : A -> R) :
  probability L -> a <= INR (S n) -> 0 < lo -> surely L (fun w => lo <= X w) ->
  Rabs (E L (fun w => Rpower (X w) a) - delta_expansion (power_tower a) n L X)
    <= Rabs (falling a (S n)) * Rpower lo (a - INR (S n)) / INR (fact (S n))
       * E L (fun w => Rabs (X w - mean L X) ^ S n).
Proof.
intros hL ha hlo hX.
rewrite (E_ext L (fun w => Rpower (X w) a) (fun w => power_tower a 0 (X w)))
  by (intro; now rewrite power_tower_0).
apply (delta_theorem (power_tower a) n (fun v => lo <= v));
  [exact hL | apply convex_half_line | | | exact hX].
- intros k t hk ht; apply (tower_power a (S n)); [exact hk | lra].
- intros t ht; now apply power_remainder_constant.
Qed.

(** ** The coefficients of the catalogue: f''/2, f'''/6, f''''/24 over the power of v *)

(** v^(-1/2): 3/8, -5/16, 35/128. *)
Theorem inverse_sqrt_coefficients :
  falling (- / 2) 2 / 2 = 3 / 8 /\ falling (- / 2) 3 / 6 = - (5 / 16)
  /\ falling (- / 2) 4 / 24 = 35 / 128.
Proof. simpl; repeat split; field. Qed.

(** v^(-1/4): 5/32, -15/128, 195/2048. *)
Theorem inverse_fourth_root_coefficients :
  falling (- / 4) 2 / 2 = 5 / 32 /\ falling (- / 4) 3 / 6 = - (15 / 128)
  /\ falling (- / 4) 4 / 24 = 195 / 2048.
Proof. simpl; repeat split; field. Qed.

(** 1/v: 1, -1, 1. *)
Theorem inverse_coefficients :
  falling (-1) 2 / 2 = 1 /\ falling (-1) 3 / 6 = -1 /\ falling (-1) 4 / 24 = 1.
Proof. simpl; repeat split; field. Qed.

(** f''/2 of v^(-1/p) is (p+1)/(2 p^2): 1, 3/8, 2/9, 5/32, ... *)
Theorem inverse_root_coefficient p : p <> 0 -> falling (- / p) 2 / 2 = (p + 1) / (2 * p ^ 2).
Proof. intros hp; simpl; field; exact hp. Qed.

(** E v^(-1/2) = mu^(-1/2) + 3/8 Var mu^(-5/2), and what is left. *)
Theorem delta_inverse_sqrt {A} lo (L : law A) (X : A -> R) :
  probability L -> 0 < lo -> surely L (fun w => lo <= X w) ->
  Rabs (E L (fun w => Rpower (X w) (- / 2)) - (Rpower (mean L X) (- / 2)
          + 3 / 8 * Var L X * Rpower (mean L X) (- (5 / 2))))
    <= 5 / 16 * Rpower lo (- (7 / 2)) * E L (fun w => Rabs (X w - mean L X) ^ 3).
Proof.
intros hL hlo hX; assert (h := delta_power (- / 2) 2 lo L X hL ltac:(simpl; lra) hlo hX).
unfold delta_expansion, power_tower in h; simpl sum_f_R0 in h; simpl falling in h.
rewrite central_0, central_1 in h by exact hL.
simpl INR in h; simpl fact in h; simpl INR in h.
replace (- / 2 - 0) with (- / 2) in h by ring.
replace (- / 2 - (1 + 1)) with (- (5 / 2)) in h by field.
replace (- / 2 - (1 + 1 + 1)) with (- (7 / 2)) in h by field.
rewrite (Rabs_left (1 * _ * _ * _)) in h by lra.
eapply Rle_trans; [|eapply Rle_trans; [exact h|]]; right; [f_equal; unfold Var|]; field.
Qed.

(** E v^(-1/4) = mu^(-1/4) + 5/32 Var mu^(-9/4), and what is left. *)
Theorem delta_inverse_fourth_root {A} lo (L : law A) (X : A -> R) :
  probability L -> 0 < lo -> surely L (fun w => lo <= X w) ->
  Rabs (E L (fun w => Rpower (X w) (- / 4)) - (Rpower (mean L X) (- / 4)
          + 5 / 32 * Var L X * Rpower (mean L X) (- (9 / 4))))
    <= 15 / 128 * Rpower lo (- (13 / 4)) * E L (fun w => Rabs (X w - mean L X) ^ 3).
Proof.
intros hL hlo hX; assert (h := delta_power (- / 4) 2 lo L X hL ltac:(simpl; lra) hlo hX).
unfold delta_expansion, power_tower in h; simpl sum_f_R0 in h; simpl falling in h.
rewrite central_0, central_1 in h by exact hL.
simpl INR in h; simpl fact in h; simpl INR in h.
replace (- / 4 - 0) with (- / 4) in h by ring.
replace (- / 4 - (1 + 1)) with (- (9 / 4)) in h by field.
replace (- / 4 - (1 + 1 + 1)) with (- (13 / 4)) in h by field.
rewrite (Rabs_left (1 * _ * _ * _)) in h by lra.
eapply Rle_trans; [|eapply Rle_trans; [exact h|]]; right; [f_equal; unfold Var|]; field.
Qed.

(** The powers are the roots that programs compute. *)
Lemma Rpower_inverse_sqrt v : 0 < v -> Rpower v (- / 2) = / sqrt v.
Proof. intros hv; now rewrite Rpower_Ropp, Rpower_sqrt. Qed.
