(** What a certificate needs of elementary functions: roots, derivatives of what is nested, signs and
    bounds that follow from the form of an expression alone.

    A certificate is generated; its proofs are calls of the tactics at the end of this file, so that
    they look the same for every rule. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From deltabias Require Import taylor.
Open Scope R_scope.

(** ** Roots *)

(** The c-th root of a positive number; programs write [root(v, 3)]. *)
Definition root (c v : R) : R := Rpower v (/ c).

Lemma root_positive c v : 0 < root c v.
Proof. apply exp_pos. Qed.

Lemma sqrt_positive v : 0 < v -> 0 < sqrt v.
Proof. apply sqrt_lt_R0. Qed.

Lemma root_power n c v : INR (S n) = c -> 0 < v -> root c v ^ S n = v.
Proof.
intros hc hv; unfold root; rewrite <- Rpower_pow by apply exp_pos; rewrite Rpower_mult, hc.
rewrite Rinv_l, Rpower_1; [reflexivity | exact hv | rewrite <- hc; apply not_0_INR; lia].
Qed.

Lemma sqrt_power v : 0 < v -> sqrt v ^ 2 = v.
Proof. intros hv; simpl; rewrite Rmult_1_r; apply sqrt_def; lra. Qed.

(** A root of a power whose exponent it divides. *)
Lemma root_of_power n j c s : INR (S n) = c -> 0 < s -> root c (s ^ (S n * j)) = s ^ j.
Proof.
intros hc hs; unfold root; rewrite <- !Rpower_pow by exact hs; rewrite Rpower_mult.
f_equal; rewrite mult_INR, hc; field; rewrite <- hc; apply not_0_INR; lia.
Qed.

Lemma sqrt_of_power j s : 0 < s -> sqrt (s ^ (2 * j)) = s ^ j.
Proof.
intros hs; rewrite Nat.mul_comm, pow_mult; replace ((s ^ j) ^ 2) with (Rsqr (s ^ j))
  by (unfold Rsqr; ring).
apply sqrt_Rsqr; left; now apply pow_lt.
Qed.

Lemma root_rises c lo v : 0 < c -> 0 < lo -> lo <= v -> root c lo <= root c v.
Proof.
intros hc h0 [hv | <-]; [|apply Rle_refl].
left; unfold root, Rpower; apply exp_increasing, Rmult_lt_compat_l;
  [now apply Rinv_0_lt_compat | now apply ln_increasing].
Qed.

(** ** Derivatives of nested functions *)
Section Nested.
Variables (u : R -> R) (v du : R).
Hypothesis hu : is_derive u v du.

Lemma derive_root n c : INR (S n) = c -> 0 < u v ->
  is_derive (fun v => root c (u v)) v (du / (c * root c (u v) ^ n)).
Proof.
intros hc hp.
assert (h0 : c <> 0) by (rewrite <- hc; apply not_0_INR; lia).
assert (hr : is_derive (root c) (u v) (/ c * Rpower (u v) (/ c - 1)))
  by (apply is_derive_Reals; now apply derivable_pt_lim_power).
evar_last; [exact (is_derive_comp (root c) u v _ _ hr hu)|].
unfold scal; simpl; unfold mult; simpl; in_reals.
assert (e : Rpower (u v) (/ c - 1) * root c (u v) ^ n = 1).
{ unfold root; rewrite <- Rpower_pow by apply exp_pos; rewrite Rpower_mult, <- Rpower_plus.
  replace (/ c - 1 + / c * INR n) with 0; [now apply Rpower_O|].
  rewrite <- hc, S_INR; field; rewrite <- S_INR; apply not_0_INR; lia. }
assert (hn : root c (u v) ^ n <> 0) by (apply pow_nonzero, Rgt_not_eq, root_positive).
replace (Rpower (u v) (/ c - 1)) with (/ root c (u v) ^ n); [field; split; assumption|].
apply Rmult_eq_reg_r with (root c (u v) ^ n); [rewrite e; field; exact hn | exact hn].
Qed.

Lemma derive_sqrt : 0 < u v -> is_derive (fun v => sqrt (u v)) v (du / (2 * sqrt (u v))).
Proof.
intros hp; assert (hs := sqrt_lt_R0 _ hp).
assert (hr : is_derive sqrt (u v) (/ (2 * sqrt (u v))))
  by (apply is_derive_Reals; now apply derivable_pt_lim_sqrt).
evar_last; [exact (is_derive_comp sqrt u v _ _ hr hu)|].
unfold scal; simpl; unfold mult; simpl; in_reals; field; lra.
Qed.

Lemma derive_exp : is_derive (fun v => exp (u v)) v (du * exp (u v)).
Proof. exact (is_derive_comp exp u v _ _ (is_derive_exp (u v)) hu). Qed.

Lemma derive_ln : 0 < u v -> is_derive (fun v => ln (u v)) v (du / u v).
Proof. intros hp; exact (is_derive_comp ln u v _ _ (is_derive_ln (u v) hp) hu). Qed.

Lemma derive_atan : is_derive (fun v => atan (u v)) v (du / (1 + u v ^ 2)).
Proof.
assert (hr : is_derive atan (u v) (/ (1 + (u v) ^ 2))).
{ apply is_derive_Reals; evar_last; [apply derivable_pt_lim_atan | unfold Rsqr; field; nra]. }
exact (is_derive_comp atan u v _ _ hr hu).
Qed.

(** The standard library's tanh is sinh/cosh; this one is bounded by interval arithmetic too. *)
Definition tanh_ (x : R) : R := 1 - 2 / (exp (2 * x) + 1).

Lemma tanh_is_tanh x : tanh_ x = tanh x.
Proof.
unfold tanh_, tanh, sinh, cosh; replace (2 * x) with (x + x) by ring.
rewrite exp_plus, exp_Ropp; assert (0 < exp x) by apply exp_pos; field; split; nra.
Qed.

Lemma derive_tanh : is_derive (fun v => tanh_ (u v)) v (du * (1 - tanh_ (u v) ^ 2)).
Proof.
assert (hr : is_derive tanh_ (u v) (1 - tanh_ (u v) ^ 2)).
{ unfold tanh_; assert (0 < exp (2 * u v)) by apply exp_pos.
  auto_derive; [lra | in_reals; field; lra]. }
exact (is_derive_comp tanh_ u v _ _ hr hu).
Qed.
End Nested.

Lemma derive_self v : is_derive (fun v : R => v) v 1.
Proof. exact (is_derive_id v). Qed.

Lemma exp_multiple n c u : INR n = c -> exp (c * u) = exp u ^ n.
Proof.
intros <-; induction n as [|n IH]; [simpl; now rewrite Rmult_0_l, exp_0|].
rewrite S_INR, Rmult_plus_distr_r, Rmult_1_l, exp_plus, IH; simpl; ring.
Qed.

(** ** Bounds by form: [0 <= part <= bound] of what is made of sums, products, powers, inverses *)

Lemma between_plus a b c d : 0 <= a <= b -> 0 <= c <= d -> 0 <= a + c <= b + d.
Proof. lra. Qed.

Lemma between_mult a b c d : 0 <= a <= b -> 0 <= c <= d -> 0 <= a * c <= b * d.
Proof.
intros [h1 h2] [h3 h4]; split; [now apply Rmult_le_pos | now apply Rmult_le_compat].
Qed.

Lemma between_pow n a b : 0 <= a <= b -> 0 <= a ^ n <= b ^ n.
Proof. intros [h1 h2]; split; [now apply pow_le | now apply pow_incr]. Qed.

Lemma between_inv a b : 0 < b <= a -> 0 <= / a <= / b.
Proof.
intros [h1 h2]; split; [left; apply Rinv_0_lt_compat; lra | now apply Rinv_le_contravar].
Qed.

Lemma between_exp a b : a <= b -> 0 <= exp a <= exp b.
Proof.
intros [h | ->]; split; try (left; apply exp_pos); [left; now apply exp_increasing | apply Rle_refl].
Qed.

Lemma above_plus_l a b c d : 0 < a <= b -> 0 <= c <= d -> 0 < a + c <= b + d.
Proof. lra. Qed.

Lemma above_plus_r a b c d : 0 <= a <= b -> 0 < c <= d -> 0 < a + c <= b + d.
Proof. lra. Qed.

Lemma above_mult a b c d : 0 < a <= b -> 0 < c <= d -> 0 < a * c <= b * d.
Proof.
intros [h1 h2] [h3 h4]; split; [now apply Rmult_lt_0_compat | apply Rmult_le_compat; lra].
Qed.

Lemma above_pow n a b : 0 < a <= b -> 0 < a ^ n <= b ^ n.
Proof. intros [h1 h2]; split; [now apply pow_lt | apply pow_incr; lra]. Qed.

Lemma above_inv a b : 0 < b <= a -> 0 < / a <= / b.
Proof. intros [h1 h2]; split; [apply Rinv_0_lt_compat; lra | now apply Rinv_le_contravar]. Qed.

Lemma above_root c a b : 0 < c -> 0 < a <= b -> 0 < root c a <= root c b.
Proof. intros hc [h1 h2]; split; [apply root_positive | now apply root_rises]. Qed.

Lemma above_sqrt a b : 0 < a <= b -> 0 < sqrt a <= sqrt b.
Proof. intros [h1 h2]; split; [now apply sqrt_lt_R0 | now apply sqrt_le_1_alt]. Qed.

Lemma above_exp a b : a <= b -> 0 < exp a <= exp b.
Proof. intros h; split; [apply exp_pos | now apply between_exp]. Qed.

Lemma above_ln a b : 1 < a <= b -> 0 < ln a <= ln b.
Proof.
intros [h1 h2]; split; [rewrite <- ln_1; apply ln_increasing; lra|].
destruct h2 as [h2 | ->]; [left; apply ln_increasing; lra | apply Rle_refl].
Qed.

(** A sum is bounded term by term: [c] times what lies in [[0, b]]. *)
Lemma bounded_term c d a b : Rabs c <= d -> 0 <= a <= b -> Rabs (c * a) <= d * b.
Proof.
intros hc [h1 h2]; rewrite Rabs_mult, (Rabs_pos_eq a) by exact h1.
apply Rmult_le_compat; auto using Rabs_pos.
Qed.

Lemma bounded_plus a b c d : Rabs a <= b -> Rabs c <= d -> Rabs (a + c) <= b + d.
Proof. intros h k; eapply Rle_trans; [apply Rabs_triang | now apply Rplus_le_compat]. Qed.

(** ** Tactics *)

(** [0 < e], [0 <= e] and [e <> 0] by the form of e, from hypotheses about its atoms. *)
Ltac positive := lazymatch goal with
  | |- _ /\ _ => split; positive
  | |- _ <> 0 => first [assumption | apply Rgt_not_eq; red; positive | lra]
  | |- 0 < ?a * ?b => apply Rmult_lt_0_compat; positive
  | |- 0 < ?a / ?b => apply Rdiv_lt_0_compat; positive
  | |- 0 < / _ => apply Rinv_0_lt_compat; positive
  | |- 0 < _ ^ _ => apply pow_lt; positive
  | |- 0 < exp _ => apply exp_pos
  | |- 0 < root _ _ => apply root_positive
  | |- 0 < sqrt _ => apply sqrt_lt_R0; positive
  | |- 0 < Rmax ?a ?b => first
      [ apply Rlt_le_trans with (2 := Rmax_l a b); positive
      | apply Rlt_le_trans with (2 := Rmax_r a b); positive ]
  | |- 0 < ln _ => rewrite <- ln_1; apply ln_increasing; [lra|]; above_one
  | |- 0 < _ + _ => first [assumption | lra
                          | apply Rplus_lt_le_0_compat; positive
                          | apply Rplus_le_lt_0_compat; positive]
  | |- 0 <= _ * _ => apply Rmult_le_pos; positive
  | |- 0 <= _ / _ => apply Rmult_le_pos; positive
  | |- 0 <= _ + _ => first [lra | apply Rplus_le_le_0_compat; positive]
  | |- 0 <= _ ^ _ => first [apply pow_le; positive | apply pow2_ge_0]
  | |- 0 <= / _ => left; apply Rinv_0_lt_compat; positive
  | |- 0 <= _ => first [assumption | lra | left; positive]
  | |- _ => first [assumption | lra]
  end
with above_one := first [lra | lazymatch goal with
  | |- 1 < 1 + ?a => cut (0 < a); [lra | positive]
  | |- 1 < ?a + 1 => cut (0 < a); [lra | positive]
  end].

(** [0 <= a <= b] and [0 < a <= b] where b has the form of a with other atoms. *)
Ltac between := first [assumption | lazymatch goal with
  | |- 0 <= ?a <= ?a => split; [positive | apply Rle_refl]
  | |- 0 < ?a <= ?a => split; [positive | apply Rle_refl]
  | |- 0 <= _ * _ <= _ * _ => apply between_mult; between
  | |- 0 <= _ + _ <= _ + _ => apply between_plus; between
  | |- 0 <= _ ^ _ <= _ ^ _ => apply between_pow; between
  | |- 0 <= / _ <= / _ => apply between_inv; between
  | |- 0 <= exp _ <= exp _ => apply between_exp; rises
  | |- 0 < _ * _ <= _ * _ => apply above_mult; between
  | |- 0 < _ + _ <= _ + _ => first [apply above_plus_l; between | apply above_plus_r; between]
  | |- 0 < _ ^ _ <= _ ^ _ => apply above_pow; between
  | |- 0 < / _ <= / _ => apply above_inv; between
  | |- 0 < root _ _ <= root _ _ => apply above_root; [lra | between]
  | |- 0 < sqrt _ <= sqrt _ => apply above_sqrt; between
  | |- 0 < exp _ <= exp _ => apply above_exp; rises
  | |- 0 < ln _ <= ln _ => apply above_ln; split; [above_one | rises]
  | |- 0 <= ?a <= ?b => let h := fresh in
      assert (h : 0 < a <= b) by between; lra
  | |- _ => lra
  end]
with rises := first [lra | lazymatch goal with
  | |- ?a <= ?b => apply (fun h : 0 <= a <= b => proj2 h); between
  end].

(** [Rabs (sum of c_i * part_i) <= sum of d_i * bound_i]. *)
Ltac bounded := lazymatch goal with
  | |- Rabs (_ + _) <= _ + _ => apply bounded_plus; bounded
  | |- Rabs (_ * _) <= _ * _ =>
      apply bounded_term; [unfold Rabs; destruct (Rcase_abs _); lra | between]
  end.

(** What a certificate on a box puts here is tried where the form shows nothing. *)
Ltac last_resort := fail.
Ltac side := lazymatch goal with
  | |- _ /\ _ => split; side
  | |- _ => first [positive | last_resort]
  end.
Ltac within := repeat split; lra.

(** A step of a tower: the derivatives of the atoms are hypotheses, the rest is a rational identity. *)
Ltac differentiate := auto_derive;
  [ repeat split; first [exact I | eexists; eassumption | side]
  | repeat match goal with h : is_derive ?a ?x ?d |- _ =>
      change (fun y => a y) with a; try rewrite (is_derive_unique a x d h); clear h
    end; in_reals; try field; side ].

(** Roots of powers of one positive number are powers of it. *)
Ltac roots := repeat match goal with
  | |- context [sqrt (?a ^ ?n)] =>
      let j := eval compute in (Nat.div2 n) in
      change (sqrt (a ^ n)) with (sqrt (a ^ (2 * j))); rewrite (sqrt_of_power j a) by positive
  | |- context [root (IZR ?z) (?a ^ ?n)] =>
      let p := eval compute in (pred (Z.to_nat z)) in
      let j := eval compute in (Nat.div n (S p)) in
      change (root (IZR z) (a ^ n)) with (root (IZR z) (a ^ (S p * j)));
      rewrite (root_of_power p j (IZR z) a) by (first [simpl; lra | positive])
  end.

(** Exponentials of multiples are powers. *)
Ltac exponentials := repeat match goal with
  | |- context [exp (?u * IZR ?z)] => rewrite (Rmult_comm u (IZR z))
  | |- context [exp (IZR ?z * ?u)] =>
      let n := eval compute in (Z.to_nat z) in
      rewrite (exp_multiple n (IZR z) u) by (simpl; lra)
  end.

(** The argument of a function in the form that the certificate states it in. *)
Ltac argument_of h x := repeat match goal with
  | |- context [h ?y] => tryif constr_eq x y then fail else replace y with x by ring
  end.

(** Away from its kinks a maximum or minimum is one of its arguments; the innermost first. *)
Ltac unkink := repeat match goal with h : _ /\ _ |- _ => destruct h end;
  unfold Rmin, Rmax in *;
  repeat match goal with
  | |- context [if Rle_dec ?a ?b then _ else _] =>
      lazymatch a with context [Rle_dec] => fail | _ => lazymatch b with
        context [Rle_dec] => fail | _ => destruct (Rle_dec a b) end end
  end; first [reflexivity | lra | exfalso; lra].

(** The same maximum is written the same way. *)
Ltac rekink := repeat match goal with
  | |- context [Rmax ?a ?b] => lazymatch goal with
      |- context [Rmax b a] => tryif constr_eq a b then fail else rewrite (Rmax_comm a b) end
  | |- context [Rmin ?a ?b] => lazymatch goal with
      |- context [Rmin b a] => tryif constr_eq a b then fail else rewrite (Rmin_comm a b) end
  end.

(** Under maxima and minima, argument by argument. *)
Ltac peel finish := first [reflexivity | lazymatch goal with
  | |- Rmax ?a ?b = Rmax _ _ =>
      first [apply (f_equal2 Rmax); peel finish
            | rewrite (Rmax_comm a b); apply (f_equal2 Rmax); peel finish]
  | |- Rmin ?a ?b = Rmin _ _ =>
      first [apply (f_equal2 Rmin); peel finish
            | rewrite (Rmin_comm a b); apply (f_equal2 Rmin); peel finish]
  | |- _ => finish
  end].

(** An equality of rational functions of the atoms, modulo what the powers of roots are. *)
Ltac decide_field := lazymatch goal with
  | p : _ ^ _ = _, q : _ ^ _ = _, r : _ ^ _ = _ |- _ => field [p q r]
  | p : _ ^ _ = _, q : _ ^ _ = _ |- _ => field [p q]
  | p : _ ^ _ = _ |- _ => field [p]
  | |- _ => field
  end.
