(** The second order of A^(-1/p), for every p: the divided differences of l^(-1/p) in the roots
    x = l^(-1/p), as sums of positive terms, exact where eigenvalues meet. *)

From Coq Require Import Reals Lra Lia.
Open Scope R_scope.

(** [h_n(a, b) = sum of a^i b^j over i + j = n]. *)
Fixpoint h (n : nat) (a b : R) : R :=
  match n with O => 1 | S n => a * h n a b + b ^ S n end.

Lemma h_difference n a b : (a - b) * h n a b = a ^ S n - b ^ S n.
Proof.
induction n as [|n IH]; [simpl; ring|].
change (h (S n) a b) with (a * h n a b + b ^ S n).
replace ((a - b) * (a * h n a b + b ^ S n)) with (a * ((a - b) * h n a b) + (a - b) * b ^ S n) by ring.
rewrite IH; simpl; ring.
Qed.

Lemma h_equal n a : h n a a = INR (S n) * a ^ n.
Proof.
induction n as [|n IH]; [simpl; ring|].
change (h (S n) a a) with (a * h n a a + a ^ S n); rewrite IH, (S_INR (S n)); simpl; ring.
Qed.

Lemma h_sym n a b : h n a b = h n b a.
Proof.
destruct (Req_dec a b) as [-> | hne]; [reflexivity|].
apply Rmult_eq_reg_l with (a - b); [|lra].
rewrite h_difference; replace (a - b) with (- (b - a)) by ring.
rewrite Ropp_mult_distr_l_reverse, h_difference; ring.
Qed.

Lemma h_pos n a b : 0 < a -> 0 < b -> 0 < h n a b.
Proof.
intros ha hb; induction n as [|n IH]; [simpl; lra|].
change (h (S n) a b) with (a * h n a b + b ^ S n).
apply Rplus_lt_0_compat; [now apply Rmult_lt_0_compat | now apply pow_lt].
Qed.

(** [h_(p-1)(a, b) = sum over c < p of a^c b^(p-1-c)]. *)
Lemma h_sum n a b : h n a b = sum_f_R0 (fun c => a ^ c * b ^ (n - c)) n.
Proof.
induction n as [|n IH]; [simpl; ring|].
change (h (S n) a b) with (a * h n a b + b ^ S n); rewrite IH.
rewrite (decomp_sum (fun c => a ^ c * b ^ (S n - c)) (S n)) by lia; simpl pred.
rewrite scal_sum, Rplus_comm; f_equal; [simpl; ring|].
apply sum_eq; intros c _; simpl; ring.
Qed.

(** An eigenvalue from its root: l = x^(-p). *)
Definition eigenvalue (p : nat) (x : R) : R := / x ^ p.

Definition divided_1 (p : nat) (x y : R) : R := (x - y) / (eigenvalue p x - eigenvalue p y).

Definition divided_2 (p : nat) (x z y : R) : R :=
  (divided_1 p x z - divided_1 p z y) / (eigenvalue p x - eigenvalue p y).

(** The form that is computed with: nothing in it is subtracted, nothing vanishes. *)
Definition first_order (p : nat) (x y : R) : R := - ((x * y) ^ p / h (p - 1) x y).

Definition second_order (p : nat) (x z y : R) : R :=
  (x * y) ^ p / h (p - 1) x y
  * sum_f_R0 (fun c => (x * y) ^ (p - 1 - c) * h c x y * z ^ (p + c)) (p - 1)
  / (h (p - 1) x z * h (p - 1) z y).

Lemma pow_injective p x y : (1 <= p)%nat -> 0 < x -> 0 < y -> x ^ p = y ^ p -> x = y.
Proof.
intros hp hx hy e; assert (hd : (x - y) * h (p - 1) x y = 0)
  by (rewrite h_difference; replace (S (p - 1)) with p by lia; rewrite e; ring).
apply Rmult_integral in hd; destruct hd as [hd | hd]; [lra|].
assert (hq := h_pos (p - 1) x y hx hy); lra.
Qed.

Lemma eigenvalue_difference p x y : (1 <= p)%nat -> 0 < x -> 0 < y ->
  eigenvalue p x - eigenvalue p y = - ((x - y) * h (p - 1) x y / (x * y) ^ p).
Proof.
intros hp hx hy; rewrite h_difference; replace (S (p - 1)) with p by lia.
unfold eigenvalue; rewrite Rpow_mult_distr; field; split; apply pow_nonzero; lra.
Qed.

(** First order: f[l_i, l_j], wherever the eigenvalues differ. *)
Theorem first_order_is_divided_difference p x y : (1 <= p)%nat -> 0 < x -> 0 < y -> x <> y ->
  divided_1 p x y = first_order p x y.
Proof.
intros hp hx hy hne; unfold divided_1, first_order.
rewrite eigenvalue_difference by assumption.
assert (hh := h_pos (p - 1) x y hx hy).
field; repeat split; try lra; apply pow_nonzero; nra.
Qed.

(** What the numerator of the second difference is, without subtraction. *)
Lemma second_numerator n x z y :
  x ^ S n * h n z y - y ^ S n * h n x z
  = (x - y) * sum_f_R0 (fun c => z ^ c * (x * y) ^ (n - c) * h c x y) n.
Proof.
rewrite (h_sym n x z), !h_sum, !scal_sum, <- minus_sum; apply sum_eq; intros c hc.
replace (z ^ c * (x * y) ^ (n - c) * h c x y * (x - y))
  with (z ^ c * (x * y) ^ (n - c) * ((x - y) * h c x y)) by ring.
rewrite h_difference, Rpow_mult_distr.
replace (S n) with (S c + (n - c))%nat by lia.
rewrite !pow_add; ring.
Qed.

(** Second order: f[l_i, l_k, l_j] for every p, wherever the three eigenvalues differ. *)
Theorem second_order_is_divided_difference p x z y : (1 <= p)%nat -> 0 < x -> 0 < z -> 0 < y ->
  x <> z -> z <> y -> x <> y -> divided_2 p x z y = second_order p x z y.
Proof.
intros hp hx hz hy hxz hzy hxy; unfold divided_2, second_order.
rewrite !first_order_is_divided_difference, eigenvalue_difference by assumption.
unfold first_order.
assert (a := h_pos (p - 1) x z hx hz); assert (b := h_pos (p - 1) z y hz hy).
assert (c := h_pos (p - 1) x y hx hy).
assert (e : sum_f_R0 (fun c => (x * y) ^ (p - 1 - c) * h c x y * z ^ (p + c)) (p - 1)
  = z ^ p * sum_f_R0 (fun c => z ^ c * (x * y) ^ (p - 1 - c) * h c x y) (p - 1)).
{ rewrite scal_sum; apply sum_eq; intros i _; rewrite pow_add; ring. }
assert (k := second_numerator (p - 1) x z y); replace (S (p - 1)) with p in k by lia.
set (s := sum_f_R0 (fun c => z ^ c * (x * y) ^ (p - 1 - c) * h c x y) (p - 1)) in *.
rewrite e; rewrite !Rpow_mult_distr.
assert (hs : s = (x ^ p * h (p - 1) z y - y ^ p * h (p - 1) x z) / (x - y))
  by (rewrite k; field; lra).
rewrite hs; field; repeat split; try lra; apply pow_nonzero; lra.
Qed.

Lemma sum_positive f n : (forall i, 0 < f i) -> 0 < sum_f_R0 f n.
Proof. intros hf; induction n as [|n IH]; simpl; [apply hf|]; specialize (hf (S n)); lra. Qed.

(** Every term is positive: nothing cancels. *)
Theorem second_order_positive p x z y : (1 <= p)%nat -> 0 < x -> 0 < z -> 0 < y ->
  0 < second_order p x z y.
Proof.
intros hp hx hz hy; unfold second_order.
assert (a := h_pos (p - 1) x z hx hz); assert (b := h_pos (p - 1) z y hz hy).
assert (c := h_pos (p - 1) x y hx hy); assert (hxy : 0 < x * y) by now apply Rmult_lt_0_compat.
apply Rdiv_lt_0_compat; [|now apply Rmult_lt_0_compat].
apply Rmult_lt_0_compat; [apply Rdiv_lt_0_compat; [now apply pow_lt | exact c]|].
assert (term : forall i, 0 < (x * y) ^ (p - 1 - i) * h i x y * z ^ (p + i)).
{ intro i; repeat apply Rmult_lt_0_compat; try (now apply pow_lt); now apply h_pos. }
exact (sum_positive _ (p - 1) term).
Qed.

Lemma second_order_sym p x z y : second_order p x z y = second_order p y z x.
Proof.
unfold second_order; rewrite (Rmult_comm y x), (h_sym (p - 1) y x), (h_sym (p - 1) y z).
rewrite (h_sym (p - 1) x z), (Rmult_comm (h (p - 1) z y)); f_equal; f_equal.
apply sum_eq; intros c _; now rewrite (h_sym c y x).
Qed.

(** Where all three meet it is half the second derivative: (p+1)/(2 p^2) x^(2p+1), with
    x^(2p+1) = l^(-1/p-2).  Equal eigenvalues give back 1, 3/8, 2/9, 5/32, ... *)
Theorem second_order_at_equal_eigenvalues p x : (1 <= p)%nat -> 0 < x ->
  second_order p x x x = (INR p + 1) / (2 * INR p ^ 2) * x ^ (2 * p + 1).
Proof.
intros hp hx; unfold second_order; rewrite !h_equal; replace (S (p - 1)) with p by lia.
assert (hP : INR p <> 0) by (apply not_0_INR; lia).
assert (e : sum_f_R0 (fun c => (x * x) ^ (p - 1 - c) * h c x x * x ^ (p + c)) (p - 1)
  = x ^ (p + 2 * (p - 1)) * (INR p * (INR p + 1) / 2)).
{ transitivity (sum_f_R0 (fun c => INR (S c) * x ^ (p + 2 * (p - 1))) (p - 1)).
  - apply sum_eq; intros c hc; rewrite h_equal, Rpow_mult_distr.
    replace (p + 2 * (p - 1))%nat with ((p - 1 - c) + (p - 1 - c) + c + (p + c))%nat by lia.
    rewrite !pow_add; ring.
  - rewrite <- scal_sum; f_equal.
    assert (g : forall n, sum_f_R0 (fun c => INR (S c)) n = INR (S n) * (INR (S n) + 1) / 2).
    { induction n as [|n IH]; [simpl; field|]; rewrite tech5, IH, !S_INR; field. }
    rewrite g; now replace (S (p - 1)) with p by lia. }
rewrite e, Rpow_mult_distr.
replace (2 * p + 1)%nat with (p + p + 1)%nat by lia.
replace (p + 2 * (p - 1))%nat with ((p - 1) + (p - 1) + p)%nat by lia.
assert (hq : x ^ (p - 1) <> 0) by (apply pow_nonzero; lra).
assert (hx1 : x ^ p = x * x ^ (p - 1)) by (replace p with (S (p - 1)) at 1 by lia; reflexivity).
rewrite !pow_add, pow_1, hx1; field; auto.
Qed.

(** Where x and y meet at z it is continuous, so the quotients' limit: one formula for all. *)
Theorem first_order_at_equal_eigenvalues p x : (1 <= p)%nat -> 0 < x ->
  first_order p x x = - (/ INR p * x ^ (p + 1)).
Proof.
intros hp hx; unfold first_order; rewrite h_equal; replace (S (p - 1)) with p by lia.
assert (hP : INR p <> 0) by (apply not_0_INR; lia).
assert (hx1 : x ^ p = x * x ^ (p - 1)) by (replace p with (S (p - 1)) at 1 by lia; reflexivity).
rewrite Rpow_mult_distr, pow_add, pow_1, hx1; field.
repeat split; try assumption; try lra; apply pow_nonzero; lra.
Qed.
