(** The kernels of a matrix function: divided differences in the roots s of the eigenvalues
    l = s^q, without quotients, equal eigenvalues included.

    A _kernel_ is what generated code computes: [value], [first], [second] of the roots.  That these
    are f, f[l_i, l_j] and f[l_i, l_k, l_j] is said by multiplying the quotients out, so that it
    says something wherever two of the three eigenvalues differ; where they meet, continuity makes
    them f' and f''/2. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From deltabias Require Import estimators divided matrix_root.
Open Scope R_scope.

Record kernel (q : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R) : Prop :=
  Kernel {
    first_difference : forall a b, 0 < a -> 0 < b ->
      (a ^ q - b ^ q) * first a b = value a - value b;
    second_difference : forall a k b, 0 < a -> 0 < k -> 0 < b ->
      (a ^ q - b ^ q) * second a k b = first a k - first k b;
    second_difference_inner : forall a k b, 0 < a -> 0 < k -> 0 < b ->
      (a ^ q - k ^ q) * second a k b = first a b - first k b }.

(** The root of an eigenvalue. *)
Definition root (q : nat) (l : R) : R := Rpower l (/ INR q).

Lemma root_pos q l : 0 < root q l.
Proof. apply exp_pos. Qed.

Lemma root_power q l : (1 <= q)%nat -> 0 < l -> root q l ^ q = l.
Proof.
intros hq hl; unfold root; rewrite <- Rpower_pow by apply exp_pos.
rewrite Rpower_mult, Rinv_l by (apply not_0_INR; lia); now apply Rpower_1.
Qed.

Lemma root_of_power q s : (1 <= q)%nat -> 0 < s -> root q (s ^ q) = s.
Proof.
intros hq hs; apply (pow_injective q); [exact hq | apply root_pos | exact hs|].
apply root_power; [exact hq | now apply pow_lt].
Qed.

Lemma root_continuous q l : 0 < l -> continuity_pt (root q) l.
Proof.
intros hl; apply derivable_continuous_pt.
exists (/ INR q * Rpower l (/ INR q - 1)); unfold root; apply derivable_pt_lim_power; exact hl.
Qed.

(** A function whose differences are (y - x) G(y), G continuous, has the derivative G(x). *)
Lemma slope_is_derivative (F G : R -> R) x : 0 < x ->
  (forall y, 0 < y -> F y - F x = (y - x) * G y) -> continuity_pt G x -> is_derive F x (G x).
Proof.
intros hx e hG; apply is_derive_Reals; intros eps heps.
destruct (hG eps heps) as [delta [hd w]].
assert (hm : 0 < Rmin delta x) by (apply Rmin_glb_lt; assumption).
exists (mkposreal _ hm); intros h h0 hh; simpl in hh.
assert (l := Rmin_l delta x); assert (l' := Rmin_r delta x).
assert (hp : 0 < x + h) by (assert (z := Rle_abs (- h)); rewrite Rabs_Ropp in z; lra).
rewrite (e (x + h) hp); replace ((x + h - x) * G (x + h) / h) with (G (x + h)) by (field; exact h0).
apply w; split; [split; [exact I | lra]|].
unfold dist; simpl; unfold R_dist; replace (x + h - x) with h by ring; lra.
Qed.

Section AtEqualEigenvalues.
Variables (q : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R).
Hypothesis hq : (1 <= q)%nat.
Hypothesis K : kernel q value first second.

(** The quotients, where the eigenvalues differ. *)
Theorem kernel_first_quotient a b : 0 < a -> 0 < b -> a <> b ->
  first a b = (value a - value b) / (a ^ q - b ^ q).
Proof.
intros ha hb hne; rewrite <- (first_difference _ _ _ _ K) by assumption; field.
intro e; apply hne, (pow_injective q); auto; lra.
Qed.

(** The second order, by the outer pair. *)
Theorem kernel_second_quotient a k b : 0 < a -> 0 < k -> 0 < b -> a <> b ->
  second a k b = (first a k - first k b) / (a ^ q - b ^ q).
Proof.
intros ha hk hb hne; rewrite <- (second_difference _ _ _ _ K) by assumption; field.
intro e; apply hne, (pow_injective q); auto; lra.
Qed.

(** The second order, by an outer root and the inner one: where the outer pair meets. *)
Theorem kernel_second_quotient_inner a k b : 0 < a -> 0 < k -> 0 < b -> a <> k ->
  second a k b = (first a b - first k b) / (a ^ q - k ^ q).
Proof.
intros ha hk hb hne; rewrite <- (second_difference_inner _ _ _ _ K) by assumption; field.
intro e; apply hne, (pow_injective q); auto; lra.
Qed.

(** f': the first kernel at equal eigenvalues is the derivative of the map. *)
Theorem first_kernel_is_derivative (map : R -> R) l : 0 < l ->
  (forall x, 0 < x -> map x = value (root q x)) ->
  continuity_pt (fun b => first b (root q l)) (root q l) ->
  is_derive map l (first (root q l) (root q l)).
Proof.
intros hl hmap hc; apply (slope_is_derivative map (fun y => first (root q y) (root q l))); auto.
- intros y hy; rewrite !hmap by assumption.
  rewrite <- (first_difference _ _ _ _ K) by apply root_pos.
  now rewrite !root_power by assumption.
- apply (continuity_pt_comp (root q) (fun b => first b (root q l))); [|exact hc].
  now apply root_continuous.
Qed.

(** f''/2: the first kernel at equal eigenvalues has twice the second as its derivative. *)
Theorem second_kernel_is_half_derivative l : 0 < l ->
  continuity_pt (fun b => second b b (root q l) + second b (root q l) (root q l)) (root q l) ->
  is_derive (fun x => first (root q x) (root q x)) l
    (2 * second (root q l) (root q l) (root q l)).
Proof.
intros hl hc; set (s := root q l) in *.
replace (2 * second s s s) with (second s s s + second s s s) by ring.
apply (slope_is_derivative (fun x => first (root q x) (root q x))
  (fun y => second (root q y) (root q y) s + second (root q y) s s)); auto.
- intros y hy; set (t := root q y); fold s.
  assert (ht : t ^ q = y) by (now apply root_power).
  assert (hs : s ^ q = l) by (now apply root_power).
  assert (e := second_difference _ _ _ _ K t t s (root_pos _ _) (root_pos _ _) (root_pos _ _)).
  assert (e' := second_difference _ _ _ _ K t s s (root_pos _ _) (root_pos _ _) (root_pos _ _)).
  rewrite ht, hs in e, e'; lra.
- apply (continuity_pt_comp (root q) (fun b => second b b s + second b s s)); [|exact hc].
  now apply root_continuous.
Qed.
End AtEqualEigenvalues.

(** A root of lower degree, in the root. *)
Lemma root_in_root q m k l : (1 <= m)%nat -> (1 <= k)%nat -> q = (m * k)%nat -> 0 < l ->
  root m l = root q l ^ k.
Proof.
intros hm hk -> hl; apply (pow_injective m);
  [exact hm | apply root_pos | apply pow_lt, root_pos |].
assert (h1 : (1 <= m * k)%nat) by nia.
now rewrite <- pow_mult, (Nat.mul_comm k m), !root_power.
Qed.

Lemma sqrt_in_root q k l : (1 <= k)%nat -> q = (2 * k)%nat -> 0 < l -> sqrt l = root q l ^ k.
Proof.
intros hk e hl; rewrite <- (root_in_root q 2 k l) by (lia || assumption).
unfold root; simpl INR; now rewrite Rpower_sqrt.
Qed.

Lemma root_1 l : 0 < l -> root 1 l = l.
Proof. intros hl; rewrite <- (pow_1 (root 1 l)); now apply root_power. Qed.

Lemma sqrt_is_root l : 0 < l -> sqrt l = root 2 l.
Proof. intros hl; rewrite (sqrt_in_root 2 1 l) by (lia || assumption); ring. Qed.

Lemma root_of_root m n l : (1 <= m)%nat -> (1 <= n)%nat -> 0 < l ->
  root m (root n l) = root (n * m) l.
Proof.
intros hm hn hl; rewrite (root_in_root (n * m) n m l) by (lia || assumption).
apply root_of_power; [exact hm | apply root_pos].
Qed.

Lemma continuity_pt_power (f : R -> R) n x : continuity_pt f x -> continuity_pt (fun y => f y ^ n) x.
Proof.
intros hf; induction n as [|n IH]; [now apply continuity_pt_const|].
now apply (continuity_pt_mult f (fun y => f y ^ n)).
Qed.

(** ** Inverse roots: [divided.v] in the roots s = 1/x *)

Lemma h_reciprocal n a b : 0 < a -> 0 < b -> h n (/ a) (/ b) = h n a b / (a * b) ^ n.
Proof.
intros ha hb; induction n as [|n IH]; [simpl; field|].
change (h (S n) (/ a) (/ b)) with (/ a * h n (/ a) (/ b) + (/ b) ^ S n).
rewrite IH, h_peel_right, !Rpow_mult_distr, pow_inv; simpl pow.
field; repeat split; try lra; apply pow_nonzero; lra.
Qed.

Lemma h3_as_sum n a k b : sum_f_R0 (fun c => h c a b * k ^ (n - c)) n = h3 (S n) a k b.
Proof.
induction n as [|n IH]; [simpl; ring|].
rewrite tech5, Nat.sub_diag, h3_peel_middle, <- IH, scal_sum.
f_equal; [|simpl; ring]; apply sum_eq; intros c hc.
replace (S n - c)%nat with (S (n - c)) by lia; simpl; ring.
Qed.

(** f[l_i, l_j] of l^(-1/p). *)
Theorem first_order_in_roots n a b : 0 < a -> 0 < b ->
  first_order (S n) (/ a) (/ b) = - / (a * b * h n a b).
Proof.
intros ha hb; unfold first_order; replace (S n - 1)%nat with n by lia.
rewrite h_reciprocal by assumption; assert (x := h_pos n a b ha hb).
rewrite <- Rinv_mult, pow_inv; simpl pow.
field; repeat split; try lra; apply pow_nonzero; nra.
Qed.

(** f[l_i, l_k, l_j] of l^(-1/p): one complete homogeneous sum over three others. *)
Theorem second_order_in_roots n a k b : 0 < a -> 0 < k -> 0 < b ->
  second_order (S n) (/ a) (/ k) (/ b)
  = h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b)).
Proof.
intros ha hk hb; unfold second_order; replace (S n - 1)%nat with n by lia.
rewrite !h_reciprocal by assumption.
assert (x := h_pos n a b ha hb); assert (y := h_pos n a k ha hk); assert (z := h_pos n k b hk hb).
rewrite (sum_eq _ (fun c => h c a b * k ^ (n - c) * (/ (a * b) ^ n / k ^ (S (2 * n))))).
2: { intros c hc; rewrite h_reciprocal, <- Rinv_mult, !pow_inv by assumption.
     replace (S (2 * n)) with ((n - c) + (S n + c))%nat by lia.
     replace ((a * b) ^ n) with ((a * b) ^ (n - c) * (a * b) ^ c)
       by (rewrite <- pow_add; f_equal; lia).
     rewrite (pow_add k (n - c)); field.
     repeat split; try lra; apply pow_nonzero; nra. }
rewrite <- scal_sum, h3_as_sum, <- Rinv_mult, pow_inv.
replace (S (2 * n)) with (1 + n + n)%nat by lia; rewrite !Rpow_mult_distr, !pow_add; simpl pow.
field; repeat split; try lra; apply pow_nonzero; lra.
Qed.

Lemma h_swap_difference n a k b : (a - b) * h3 (S n) a k b = a * h n a k - b * h n k b.
Proof.
induction n as [|n IH]; [simpl; ring|].
rewrite h3_peel_middle, Rmult_plus_distr_l, h_difference.
rewrite (h_peel_right n a k); change (h (S n) k b) with (k * h n k b + b ^ S n).
replace ((a - b) * (k * h3 (S n) a k b)) with (k * ((a - b) * h3 (S n) a k b)) by ring.
rewrite IH; simpl pow; ring.
Qed.

Lemma h3_swap n a k b : h3 n a k b = h3 n a b k.
Proof.
induction n as [|n IH]; [reflexivity|].
change (h3 (S n) a k b) with (a * h3 n a k b + h n k b).
change (h3 (S n) a b k) with (a * h3 n a b k + h n b k); now rewrite IH, h_sym.
Qed.

(** l^(-1/p) has these kernels, for every p. *)
Theorem inverse_root_kernel n :
  kernel (S n) (fun s => / s) (fun a b => - / (a * b * h n a b))
    (fun a k b => h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b))).
Proof.
split.
- intros a b ha hb; assert (x := h_pos n a b ha hb); rewrite <- h_difference; field; lra.
- intros a k b ha hk hb.
  assert (x := h_pos n a b ha hb); assert (y := h_pos n a k ha hk); assert (z := h_pos n k b hk hb).
  rewrite <- h_difference.
  replace ((a - b) * h n a b * (h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b))))
    with ((a - b) * h3 (S n) a k b / (a * k * b * (h n a k * h n k b))) by (field; lra).
  rewrite h_swap_difference; field; lra.
- intros a k b ha hk hb.
  assert (x := h_pos n a b ha hb); assert (y := h_pos n a k ha hk); assert (z := h_pos n k b hk hb).
  rewrite <- h_difference.
  replace ((a - k) * h n a k * (h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b))))
    with ((a - k) * h3 (S n) a k b / (a * k * b * (h n a b * h n k b))) by (field; lra).
  rewrite h3_swap, h_swap_difference, (h_sym n b k); field; lra.
Qed.

(** ** Positivity of what denominators are made of *)

Ltac positive :=
  first
  [ assumption
  | lra
  | lazymatch goal with
    | |- 0 < _ * _ => apply Rmult_lt_0_compat; positive
    | |- 0 < _ ^ _ => apply pow_lt; positive
    | |- 0 < / _ => apply Rinv_0_lt_compat; positive
    | |- 0 < _ / _ => apply Rdiv_lt_0_compat; positive
    | |- 0 < exp _ => apply exp_pos
    | |- 0 < sqrt _ => apply sqrt_lt_R0; positive
    | |- 0 < root _ _ => apply root_pos
    | |- 0 < _ + _ =>
        first [ apply Rplus_lt_le_0_compat; [positive | not_negative]
              | apply Rplus_le_lt_0_compat; [not_negative | positive] ]
    end ]
with not_negative :=
  first
  [ assumption
  | lra
  | lazymatch goal with
    | |- 0 <= _ * _ => apply Rmult_le_pos; not_negative
    | |- 0 <= _ ^ _ => apply pow_le; not_negative
    | |- 0 <= _ + _ => apply Rplus_le_le_0_compat; not_negative
    end
  | left; positive ].

Ltac not_zero := repeat split; try (apply Rgt_not_eq; unfold Rgt; positive).
Ltac by_field := field; not_zero.

(** exp and ln of equal arguments are written alike. *)
Ltac same_arguments :=
  repeat match goal with
  | |- context [exp ?x] => match goal with |- context [exp ?y] =>
      lazymatch x with y => fail | _ => replace (exp x) with (exp y) by (f_equal; ring) end end
  | |- context [ln ?x] => match goal with |- context [ln ?y] =>
      lazymatch x with y => fail | _ => replace (ln x) with (ln y) by (f_equal; ring) end end
  end.

(** Continuity of a rational function where no denominator vanishes, piece by piece. *)
Ltac is_continuous :=
  lazymatch goal with
  | |- continuity_pt (fun _ => ?c) _ => now apply continuity_pt_const
  | |- continuity_pt (fun x => x) _ => apply continuity_pt_id
  | |- continuity_pt (fun x => @?f x + @?g x) _ => apply (continuity_pt_plus f g); is_continuous
  | |- continuity_pt (fun x => @?f x - @?g x) _ => apply (continuity_pt_minus f g); is_continuous
  | |- continuity_pt (fun x => @?f x * @?g x) _ => apply (continuity_pt_mult f g); is_continuous
  | |- continuity_pt (fun x => - @?f x) _ => apply (continuity_pt_opp f); is_continuous
  | |- continuity_pt (fun x => @?f x ^ ?n) _ => apply (continuity_pt_power f n); is_continuous
  | |- continuity_pt (fun x => / @?f x) _ =>
      apply (continuity_pt_inv f); [is_continuous | cbv beta; not_zero]
  | |- continuity_pt (fun x => @?f x / @?g x) _ =>
      apply (continuity_pt_div f g); [is_continuous | is_continuous | cbv beta; not_zero]
  | |- continuity_pt (fun x => sqrt (@?f x)) _ =>
      apply (continuity_pt_comp f sqrt);
      [is_continuous | apply continuity_pt_sqrt; left; cbv beta; positive]
  | |- continuity_pt (fun x => exp (@?f x)) _ =>
      apply (continuity_pt_comp f exp); [is_continuous | apply derivable_continuous_pt, derivable_pt_exp]
  | |- continuity_pt (fun x => ln (@?f x)) _ =>
      apply (continuity_pt_comp f ln);
      [is_continuous | apply derivable_continuous_pt; eexists; apply derivable_pt_lim_ln; cbv beta; positive]
  | |- continuity_pt (fun x => root ?q (@?f x)) _ =>
      apply (continuity_pt_comp f (root q)); [is_continuous | apply root_continuous; cbv beta; positive]
  end.
