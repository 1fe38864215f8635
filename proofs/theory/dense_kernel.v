(** Kernels that do not separate: integrals where eigenvalues are close, quotients where they are
    apart, a weighted mean for three points.  All three are the divided differences, exactly.

    f has the derivative [f1], and f1 the derivative 2 [c], for positive eigenvalues. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From deltabias Require Import taylor spectral_map.
Open Scope R_scope.

Section Dense.
Variables f f1 c : R -> R.
Hypothesis slope : forall l, 0 < l -> is_derive f l (f1 l).
Hypothesis curvature : forall l, 0 < l -> is_derive f1 l (2 * c l).
Hypothesis continuous_c : forall l, 0 < l -> continuous c l.

Definition quotient (a b : R) : R := (f b - f a) / (b - a).

(** f[a, b, b] = (f'(b) - f[a, b]) / (b - a). *)
Definition confluent_quotient (a b : R) : R := (f1 b - quotient a b) / (b - a).

Lemma between a b t : 0 < a -> 0 < b -> 0 <= t <= 1 -> 0 < a + t * (b - a).
Proof. intros; replace (a + t * (b - a)) with ((1 - t) * a + t * b) by ring; nra. Qed.

Lemma unit_interval t : Rmin 0 1 <= t <= Rmax 0 1 -> 0 <= t <= 1.
Proof. rewrite Rmin_left, Rmax_right; lra. Qed.

Lemma affine_continuous (a g t : R) : continuous (fun t => a + t * g) t.
Proof.
apply continuity_pt_filterlim, derivable_continuous_pt; exists g; apply is_derive_Reals.
auto_derive; [trivial | ring].
Qed.

Lemma derivative_continuous (h : R -> R) (h' x : R) : is_derive h x h' -> continuous h x.
Proof. intros e; apply (ex_derive_continuous (V := R_NormedModule) h x); now exists h'. Qed.

(** Hermite and Genocchi: f[a, b] is the integral of f'(a + t (b - a)) over 0 < t < 1. *)
Theorem first_integral a b : 0 < a -> 0 < b -> a <> b ->
  is_RInt (fun t => f1 (a + t * (b - a))) 0 1 (quotient a b).
Proof.
intros ha hb hne.
evar_last; [apply (is_RInt_derive (fun t => f (a + t * (b - a)) / (b - a)))|].
- intros t ht; apply unit_interval in ht; assert (p := between a b t ha hb ht).
  evar_last; [apply is_derive_Reals, derivable_pt_lim_div_scal, is_derive_Reals, is_derive_comp;
    [now apply slope | auto_derive; [trivial | reflexivity]]|].
  unfold scal; simpl; unfold mult; simpl; in_reals; field; lra.
- intros t ht; apply unit_interval in ht; assert (p := between a b t ha hb ht).
  apply (continuous_comp (fun t => a + t * (b - a)) f1);
    [apply affine_continuous|].
  now apply (derivative_continuous _ (2 * c (a + t * (b - a)))), curvature.
- unfold minus, plus, opp, quotient; simpl; in_reals.
  replace (a + 1 * (b - a)) with b by ring; replace (a + 0 * (b - a)) with a by ring; field; lra.
Qed.

(** At equal eigenvalues the integrand is f'(a) throughout. *)
Theorem first_integral_at_equal_eigenvalues a :
  is_RInt (fun t => f1 (a + t * (a - a))) 0 1 (f1 a).
Proof.
apply (is_RInt_ext (fun _ => f1 a)).
- intros t _; f_equal; ring.
- evar_last; [apply is_RInt_const|]; unfold scal; simpl; unfold mult; simpl; in_reals; ring.
Qed.

(** f[a, b, b] is the integral of t f''(a + t (b - a)). *)
Theorem confluent_integral a b : 0 < a -> 0 < b -> a <> b ->
  is_RInt (fun t => 2 * t * c (a + t * (b - a))) 0 1 (confluent_quotient a b).
Proof.
intros ha hb hne.
evar_last; [apply (is_RInt_derive
  (fun t => t * f1 (a + t * (b - a)) / (b - a) - f (a + t * (b - a)) / (b - a) / (b - a)))|].
- intros t ht; apply unit_interval in ht; assert (p := between a b t ha hb ht).
  assert (i : is_derive (fun t => a + t * (b - a)) t (b - a))
    by (auto_derive; [trivial | ring]).
  assert (s := is_derive_comp f _ t _ _ (slope _ p) i).
  assert (s' := is_derive_comp f1 _ t _ _ (curvature _ p) i).
  assert (m := is_derive_mult (fun t => t) (fun t => f1 (a + t * (b - a))) t 1 _
    (is_derive_id t) s' Rmult_comm).
  assert (m' := is_derive_scal _ t (/ (b - a)) _ m).
  assert (s'' := is_derive_scal _ t (/ (b - a) * / (b - a)) _ s).
  assert (all := is_derive_minus _ _ t _ _ m' s'').
  eapply is_derive_ext; [|evar_last; [exact all|]].
  + intro y; unfold minus, plus, opp, mult; simpl; in_reals; field; lra.
  + unfold minus, plus, opp, mult, scal; simpl; unfold mult; simpl; in_reals; field; lra.
- intros t ht; apply unit_interval in ht; assert (p := between a b t ha hb ht).
  apply (continuous_mult (fun t => 2 * t)).
  + apply (derivative_continuous _ 2); auto_derive; [trivial | ring].
  + apply (continuous_comp (fun t => a + t * (b - a)) c); [|now apply continuous_c].
    apply affine_continuous.
- unfold minus, plus, opp, confluent_quotient, quotient; simpl; in_reals.
  replace (a + 1 * (b - a)) with b by ring; replace (a + 0 * (b - a)) with a by ring; field; lra.
Qed.

(** There the integrand of the second is 2 t c(a), with the integral c(a) = f''(a)/2. *)
Theorem confluent_integral_at_equal_eigenvalues a :
  is_RInt (fun t => 2 * t * c (a + t * (a - a))) 0 1 (c a).
Proof.
evar_last; [apply (is_RInt_derive (fun t => t ^ 2 * c a))|].
- intros t _; replace (a + t * (a - a)) with a by ring; auto_derive; [trivial | ring].
- intros t _; apply (continuous_ext (fun t => 2 * t * c a)).
  + intro x; f_equal; f_equal; ring.
  + apply (derivative_continuous _ (2 * c a)); auto_derive; [trivial | ring].
- unfold minus, plus, opp; simpl; in_reals; ring.
Qed.

(** ** One kernel, equal eigenvalues included *)

Definition dense_first (a b : R) : R := if Req_EM_T a b then f1 a else quotient a b.
Definition confluent (a b : R) : R := if Req_EM_T a b then c a else confluent_quotient a b.

(** What is computed for three points: a weighted mean of two confluent differences. *)
Definition weighted_mean_of (a k b : R) : R :=
  ((k - a) * confluent a k + (b - k) * confluent b k) / (b - a).

Definition dense_second (a k b : R) : R :=
  if Req_EM_T a b then confluent k a else weighted_mean_of a k b.

(** The weighted mean is f[a, k, b]. *)
Theorem three_points a k b : a <> k -> k <> b -> a <> b ->
  weighted_mean_of a k b = (quotient a k - quotient k b) / (a - b).
Proof.
intros h1 h2 h3; unfold weighted_mean_of, confluent, confluent_quotient, quotient.
destruct (Req_EM_T a k); [lra|]; destruct (Req_EM_T b k); [lra|]; field; lra.
Qed.

(** Together they are the kernel of f. *)
Theorem dense_kernel : kernel 1 f dense_first dense_second.
Proof.
assert (move : forall a b, (a - b) * dense_first a b = f a - f b).
{ intros a b; unfold dense_first, quotient; destruct (Req_EM_T a b); [subst; ring | field; lra]. }
assert (swap : forall a b, dense_first a b = dense_first b a).
{ intros a b; unfold dense_first, quotient.
  destruct (Req_EM_T a b), (Req_EM_T b a); subst; try lra; field; lra. }
assert (pair : forall a b, (a - b) * confluent a b = dense_first a b - f1 b).
{ intros a b; unfold confluent, dense_first, confluent_quotient.
  destruct (Req_EM_T a b); [subst; ring | field; lra]. }
split; intros; rewrite ?pow_1; [apply move | |].
- unfold dense_second; destruct (Req_EM_T a b) as [e|e]; [rewrite e, (swap k b); ring|].
  unfold weighted_mean_of.
  replace ((a - b) * (((k - a) * confluent a k + (b - k) * confluent b k) / (b - a)))
    with ((a - k) * confluent a k - (b - k) * confluent b k) by (field; lra).
  rewrite !pair, (swap k b); ring.
- unfold dense_second; destruct (Req_EM_T a b) as [e|e].
  + subst b; assert (p := pair k a); unfold dense_first at 1.
    destruct (Req_EM_T a a); [lra | congruence].
  + unfold weighted_mean_of; apply Rmult_eq_reg_r with (b - a); [|lra].
    replace ((a - k) * (((k - a) * confluent a k + (b - k) * confluent b k) / (b - a)) * (b - a))
      with (- ((a - k) * ((a - k) * confluent a k - (b - k) * confluent b k))) by (field; lra).
    rewrite !pair.
    assert (m1 := move a k); assert (m2 := move b k); assert (m3 := move a b).
    rewrite (swap k b).
    replace ((dense_first a b - dense_first b k) * (b - a))
      with (- ((a - b) * dense_first a b) - (b - k - (a - k)) * dense_first b k) by ring.
    replace (- ((a - k) * (dense_first a k - f1 k - (dense_first b k - f1 k))))
      with (- ((a - k) * dense_first a k) + (a - k) * dense_first b k) by ring.
    rewrite m3, m1.
    replace (- (f a - f b) - (b - k - (a - k)) * dense_first b k)
      with (- (f a - f b) - (b - k) * dense_first b k + (a - k) * dense_first b k) by ring.
    rewrite m2; ring.
Qed.
End Dense.

(** A map of l + shift that separates: the dense kernels are its own, at the shifted roots. *)
Section Agree.
Variables (q : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R).
Variables (f f1 c : R -> R) (shift : R).
Hypothesis hq : (1 <= q)%nat.
Hypothesis shift_not_negative : 0 <= shift.
Hypothesis K : kernel q value first second.
Let s l := root q (shift + l).
Hypothesis f_is : forall l, 0 < l -> f l = value (s l).
Hypothesis f1_is : forall l, 0 < l -> f1 l = first (s l) (s l).
Hypothesis c_is : forall l, 0 < l -> c l = second (s l) (s l) (s l).

(** First and second order agree, equal eigenvalues included. *)
Theorem kernels_agree a k b : 0 < a -> 0 < k -> 0 < b ->
  dense_first f f1 a b = first (s a) (s b)
  /\ dense_second f f1 c a k b = second (s a) (s k) (s b).
Proof.
intros ha hk hb.
assert (power : forall l, 0 < l -> s l ^ q = shift + l) by (intros; apply root_power; lra || lia).
assert (D := dense_kernel f f1 c).
assert (firsts : forall a b, 0 < a -> 0 < b -> dense_first f f1 a b = first (s a) (s b)).
{ clear a k b ha hk hb; intros a b ha hb; destruct (Req_dec a b) as [<- | hne].
  - unfold dense_first; destruct (Req_EM_T a a); [now apply f1_is | congruence].
  - apply Rmult_eq_reg_l with (a - b); [|lra].
    assert (e := first_difference _ _ _ _ D a b ha hb); rewrite !pow_1 in e; rewrite e, !f_is by assumption.
    rewrite <- (first_difference _ _ _ _ K) by apply root_pos; rewrite !power by assumption; ring. }
split; [now apply firsts|].
destruct (Req_dec a b) as [<- | hne]; [destruct (Req_dec a k) as [<- | hne]|].
- unfold dense_second, confluent; destruct (Req_EM_T a a); [now apply c_is | congruence].
- apply Rmult_eq_reg_l with (a - k); [|lra].
  assert (e := second_difference_inner _ _ _ _ D a k a ha hk ha); rewrite !pow_1 in e.
  rewrite e, !firsts by assumption.
  rewrite <- (second_difference_inner _ _ _ _ K) by apply root_pos.
  rewrite !power by assumption; ring.
- apply Rmult_eq_reg_l with (a - b); [|lra].
  assert (e := second_difference _ _ _ _ D a k b ha hk hb); rewrite !pow_1 in e.
  rewrite e, !firsts by assumption.
  rewrite <- (second_difference _ _ _ _ K) by apply root_pos.
  rewrite !power by assumption; ring.
Qed.
End Agree.
