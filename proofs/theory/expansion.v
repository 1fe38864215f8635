(** Second-order expansions of functions of one real.

    [expands f a b c]: f(t) = a + t b + t^2 c + O(t^3) near 0.  They add, multiply, divide and take
    square roots, their coefficients are unique, and the mean of finitely many is an expansion. *)

From Coq Require Import Reals Lra Lia List.
From deltabias Require Import finite_law estimators.
Open Scope R_scope.

(** ** Near zero *)

Definition near (P : R -> Prop) : Prop := exists r, 0 < r /\ forall t, Rabs t <= r -> P t.

Definition bounded (g : R -> R) : Prop := exists C, near (fun t => Rabs (g t) <= C).

Lemma near_and P Q : near P -> near Q -> near (fun t => P t /\ Q t).
Proof.
intros [r [hr p]] [s [hs q]]; exists (Rmin r s); split; [now apply Rmin_glb_lt|].
intros t ht; assert (a := Rmin_l r s); assert (b := Rmin_r r s).
split; [apply p | apply q]; lra.
Qed.

Lemma near_imp (P Q : R -> Prop) : (forall t, P t -> Q t) -> near P -> near Q.
Proof. intros h [r [hr p]]; exists r; split; auto. Qed.

Lemma near_all (P : R -> Prop) : (forall t, P t) -> near P.
Proof. intros h; exists 1; split; [lra | auto]. Qed.

Lemma bounded_const c : bounded (fun _ => c).
Proof. exists (Rabs c); apply near_all; intros; lra. Qed.

Lemma bounded_id : bounded (fun t => t).
Proof. exists 1, 1; split; [lra | auto]. Qed.

Lemma bounded_plus f g : bounded f -> bounded g -> bounded (fun t => f t + g t).
Proof.
intros [C p] [D q]; exists (C + D); eapply near_imp; [|exact (near_and _ _ p q)]; intros t [a b].
eapply Rle_trans; [apply Rabs_triang | lra].
Qed.

Lemma bounded_mult f g : bounded f -> bounded g -> bounded (fun t => f t * g t).
Proof.
intros [C p] [D q]; exists (C * D); eapply near_imp; [|exact (near_and _ _ p q)].
intros t [a b]; rewrite Rabs_mult; apply Rmult_le_compat; auto using Rabs_pos.
Qed.

Lemma bounded_opp f : bounded f -> bounded (fun t => - f t).
Proof. intros [C p]; exists C; eapply near_imp; [|exact p]; intros t h; now rewrite Rabs_Ropp. Qed.

Lemma bounded_inverse g m : 0 < m -> near (fun t => m <= Rabs (g t)) -> bounded (fun t => / g t).
Proof.
intros hm p; exists (/ m); eapply near_imp; [|exact p]; intros t h.
rewrite Rabs_inv; apply Rinv_le_contravar; assumption.
Qed.

Ltac bounds := repeat first
  [ assumption | apply bounded_plus | apply bounded_mult | apply bounded_opp
  | apply bounded_id | apply bounded_const ].

(** ** Functions of one real *)

Definition expands (f : R -> R) (a b c : R) : Prop :=
  exists g, bounded g /\ near (fun t => f t = a + t * b + t * t * c + t * t * t * g t).

(** The same in the words of an error bound. *)
Theorem expands_bound f a b c : expands f a b c ->
  exists C, near (fun t => Rabs (f t - (a + t * b + t ^ 2 * c)) <= C * Rabs t ^ 3).
Proof.
intros [g [[C p] q]]; exists C; eapply near_imp; [|exact (near_and _ _ p q)].
intros t [hg ->]; replace (_ - _) with (g t * t ^ 3) by ring.
rewrite Rabs_mult, <- RPow_abs; apply Rmult_le_compat_r; [|exact hg].
apply pow_le, Rabs_pos.
Qed.

Lemma expands_eq f a b c a' b' c' : expands f a b c -> a = a' -> b = b' -> c = c' ->
  expands f a' b' c'.
Proof. now intros h <- <- <-. Qed.

Lemma expands_ext f g a b c : (forall t, f t = g t) -> expands f a b c -> expands g a b c.
Proof.
intros e [r [hr q]]; exists r; split; [exact hr|].
eapply near_imp; [|exact q]; intros t h; now rewrite <- e.
Qed.

Lemma expands_bounded f a b c : expands f a b c -> bounded f.
Proof.
intros [g [hg q]].
assert (h : bounded (fun t => a + t * b + t * t * c + t * t * t * g t)) by bounds.
destruct h as [C p]; exists C; eapply near_imp; [|exact (near_and _ _ p q)].
intros t [h1 h2]; now rewrite h2.
Qed.

Lemma expands_const a : expands (fun _ => a) a 0 0.
Proof. exists (fun _ => 0); split; [bounds | apply near_all; intros; ring]. Qed.

(** What moves along a direction. *)
Lemma expands_line a b : expands (fun t => a + t * b) a b 0.
Proof. exists (fun _ => 0); split; [bounds | apply near_all; intros; ring]. Qed.

Lemma expands_plus f g a b c a' b' c' : expands f a b c -> expands g a' b' c' ->
  expands (fun t => f t + g t) (a + a') (b + b') (c + c').
Proof.
intros [u [hu p]] [v [hv q]]; exists (fun t => u t + v t); split; [bounds|].
eapply near_imp; [|exact (near_and _ _ p q)]; intros t [-> ->]; ring.
Qed.

Lemma expands_scale k f a b c : expands f a b c -> expands (fun t => k * f t) (k * a) (k * b) (k * c).
Proof.
intros [u [hu p]]; exists (fun t => k * u t); split; [bounds|].
eapply near_imp; [|exact p]; intros t ->; ring.
Qed.

Lemma expands_mult f g a b c a' b' c' : expands f a b c -> expands g a' b' c' ->
  expands (fun t => f t * g t) (a * a') (a * b' + b * a') (a * c' + b * b' + c * a').
Proof.
intros hf hg; assert (bg := expands_bounded _ _ _ _ hg).
destruct hf as [u [hu p]], hg as [v [hv q]].
exists (fun t => u t * g t + (b * c' + c * b' + t * (c * c')) + v t * (a + t * b + t * t * c)).
split; [bounds|].
eapply near_imp; [|exact (near_and _ _ p q)]; intros t [hf hg].
rewrite hf; rewrite hg; ring.
Qed.

Lemma expands_sum n (f : nat -> R -> R) a b c :
  (forall k, (k < n)%nat -> expands (f k) (a k) (b k) (c k)) ->
  expands (fun t => sum n (fun k => f k t)) (sum n a) (sum n b) (sum n c).
Proof.
intros h; induction n as [|n IH]; [exact (expands_const 0)|]; cbn [sum].
apply expands_plus; [apply IH; intros; apply h; lia | apply h; lia].
Qed.

(** What is positive stays positive, what is not zero stays away from it. *)
Lemma expands_above f a b c : expands f a b c -> 0 < a -> near (fun t => a / 2 <= f t).
Proof.
intros [g [hg e]] ha.
assert (w : bounded (fun t => b + t * c + t * t * g t)) by bounds.
destruct w as [C p]; set (r := a / (2 * (Rabs C + 1))).
assert (hC : 0 < Rabs C + 1) by (assert (x := Rabs_pos C); lra).
assert (hr : 0 < r) by (apply Rdiv_lt_0_compat; lra).
assert (small : near (fun t => Rabs t <= r)) by (exists r; auto).
eapply near_imp; [|exact (near_and _ _ small (near_and _ _ p e))]; intros t [ht [hb ->]].
assert (step : Rabs (t * (b + t * c + t * t * g t)) <= a / 2).
{ rewrite Rabs_mult; apply Rle_trans with (r * (Rabs C + 1)).
  - apply Rmult_le_compat; auto using Rabs_pos.
    eapply Rle_trans; [exact hb|]; assert (x := Rle_abs C); lra.
  - unfold r; apply Req_le; field; lra. }
assert (x := Rle_abs (- (t * (b + t * c + t * t * g t)))); rewrite Rabs_Ropp in x; lra.
Qed.

Lemma expands_away f a b c : expands f a b c -> a <> 0 -> near (fun t => Rabs a / 2 <= Rabs (f t)).
Proof.
intros hf ha; destruct (Rlt_or_le 0 a) as [h | h].
- eapply near_imp; [|exact (expands_above _ _ _ _ hf h)]; intros t x.
  rewrite Rabs_pos_eq by lra; assert (y := Rle_abs (f t)); lra.
- assert (hm := expands_scale (-1) _ _ _ _ hf); apply expands_above in hm; [|lra].
  eapply near_imp; [|exact hm]; intros t x; cbv beta in x.
  rewrite Rabs_left by lra; assert (y := Rle_abs (- f t)); rewrite Rabs_Ropp in y; lra.
Qed.

(** 1/f. *)
Theorem expands_inverse f a b c : expands f a b c -> a <> 0 ->
  expands (fun t => / f t) (/ a) (- (b / a ^ 2)) (b ^ 2 / a ^ 3 - c / a ^ 2).
Proof.
intros hf ha; assert (away := expands_away _ _ _ _ hf ha); assert (pa := Rabs_pos_lt a ha).
assert (hi : bounded (fun t => / f t)) by (apply (bounded_inverse f (Rabs a / 2)); [lra | exact away]).
destruct hf as [g [hg q]].
set (q1 := - (b / a ^ 2)); set (q2 := b ^ 2 / a ^ 3 - c / a ^ 2).
exists (fun t => - (/ a * g t + q1 * (c + t * g t) + q2 * (b + t * c + t * t * g t)) * / f t).
split; [bounds|].
eapply near_imp; [|exact (near_and _ _ away q)]; intros t [hn e].
assert (h0 : f t <> 0) by (intro z; rewrite z, Rabs_R0 in hn; lra).
apply Rmult_eq_reg_r with (f t); [|exact h0]; rewrite Rinv_l by exact h0.
transitivity ((/ a + t * q1 + t * t * q2) * f t
  - t * t * t * (/ a * g t + q1 * (c + t * g t) + q2 * (b + t * c + t * t * g t)) * (/ f t * f t));
  [|ring].
rewrite Rinv_l, e by exact h0; unfold q1, q2; field; exact ha.
Qed.

(** The square root. *)
Theorem expands_sqrt f a b c : expands f a b c -> 0 < a ->
  expands (fun t => sqrt (f t)) (sqrt a) (b / (2 * sqrt a))
    (c / (2 * sqrt a) - b ^ 2 / (8 * sqrt a ^ 3)).
Proof.
intros hf ha; assert (hs := sqrt_lt_R0 a ha); assert (hss := sqrt_sqrt a (Rlt_le _ _ ha)).
set (s := sqrt a) in *.
set (q1 := b / (2 * s)); set (q2 := c / (2 * s) - b ^ 2 / (8 * s ^ 3)).
set (q := fun t => s + t * q1 + t * t * q2).
assert (hq : expands q s q1 q2).
{ exists (fun _ => 0); split; [bounds | apply near_all; intros; unfold q; ring]. }
assert (pos : near (fun t => 0 < q t /\ 0 <= f t /\ s / 2 <= q t)).
{ assert (p1 := expands_above _ _ _ _ hf ha); assert (p2 := expands_above _ _ _ _ hq hs).
  eapply near_imp; [|exact (near_and _ _ p1 p2)]; intros t [x y]; lra. }
assert (hi : bounded (fun t => / (sqrt (f t) + q t))).
{ apply (bounded_inverse _ (s / 2)); [lra|].
  eapply near_imp; [|exact pos]; intros t [x [y z]]; assert (w := sqrt_pos (f t)).
  rewrite Rabs_pos_eq; lra. }
destruct hf as [g [hg e]].
exists (fun t => (g t - (2 * q1 * q2 + t * q2 * q2)) * / (sqrt (f t) + q t)); split; [bounds|].
eapply near_imp; [|exact (near_and _ _ pos e)]; intros t [[x [y z]] ef].
assert (w := sqrt_pos (f t)); assert (ww := sqrt_sqrt (f t) y).
assert (hn : sqrt (f t) + q t <> 0) by lra.
apply Rmult_eq_reg_r with (sqrt (f t) + q t); [|exact hn].
transitivity (f t + sqrt (f t) * q t); [rewrite Rmult_plus_distr_l, ww; reflexivity|].
transitivity (q t * (sqrt (f t) + q t)
  + t * t * t * (g t - (2 * q1 * q2 + t * q2 * q2)) * (/ (sqrt (f t) + q t) * (sqrt (f t) + q t)));
  [|unfold q; ring].
rewrite Rinv_l by exact hn; rewrite ef; unfold q, q1, q2.
rewrite <- hss; field; lra.
Qed.

(** A constant that is t times something bounded is zero. *)
Lemma vanishes x h : bounded h -> near (fun t => t <> 0 -> x = t * h t) -> x = 0.
Proof.
intros [C q] e; destruct (Req_dec x 0) as [|hx]; [assumption | exfalso].
destruct (near_and _ _ q e) as [r [hr w]]; assert (px := Rabs_pos_lt x hx).
assert (hC : 0 < Rabs C + 1) by (assert (z := Rabs_pos C); lra).
set (s := Rabs x / (2 * (Rabs C + 1))) in *.
assert (ht : 0 < Rmin r s) by (apply Rmin_glb_lt; [lra | apply Rdiv_lt_0_compat; lra]).
assert (l := Rmin_l r s); assert (l' := Rmin_r r s); set (t := Rmin r s) in *.
destruct (w t) as [w1 w2]; [rewrite Rabs_pos_eq; lra|].
specialize (w2 (Rgt_not_eq _ _ ht)).
apply (f_equal Rabs) in w2; rewrite Rabs_mult, (Rabs_pos_eq t) in w2 by lra.
assert (z := Rle_abs C).
assert (k : t * Rabs (h t) <= s * (Rabs C + 1)).
{ apply Rmult_le_compat; auto using Rabs_pos; lra. }
replace (s * (Rabs C + 1)) with (Rabs x / 2) in k by (unfold s; field; lra); lra.
Qed.

(** An expansion has one set of coefficients. *)
Theorem expands_unique f a b c a' b' c' : expands f a b c -> expands f a' b' c' ->
  a = a' /\ b = b' /\ c = c'.
Proof.
intros [g [hg p]] [g' [hg' p']]; assert (both := near_and _ _ p p').
assert (ha : a - a' = 0).
{ apply (vanishes _ (fun t => (b' - b) + t * (c' - c) + t * t * (g' t + - g t))); [bounds|].
  eapply near_imp; [|exact both]; intros t [e e'] _; lra. }
assert (hb : b - b' = 0).
{ apply (vanishes _ (fun t => (c' - c) + t * (g' t + - g t))); [bounds|].
  eapply near_imp; [|exact both]; intros t [e e'] ht; apply Rmult_eq_reg_l with t; lra. }
assert (hc : c - c' = 0).
{ apply (vanishes _ (fun t => g' t + - g t)); [bounds|].
  eapply near_imp; [|exact both]; intros t [e e'] ht.
  replace b' with b in e' by lra; replace a' with a in e' by lra.
  apply Rmult_eq_reg_l with (t * t); [lra | nra]. }
repeat split; lra.
Qed.

(** ** The mean over a finite law *)

(** If the first orders have mean zero, the mean is the value plus t^2 times the mean of the second
    orders, and O(t^3). *)
Theorem mean_expands {A} (L : law A) (f : A -> R -> R) (value : R) (b c : A -> R) :
  probability L -> surely L (fun a => expands (f a) value (b a) (c a)) -> E L b = 0 ->
  expands (fun t => E L (fun a => f a t)) value 0 (E L c).
Proof.
intros [_ total] h hb.
assert (g : expands (fun t => E L (fun a => f a t)) (E L (fun _ => value)) (E L b) (E L c)).
{ clear - h; induction h as [|[w a] L h _ IH]; simpl in *; [exact (expands_const 0)|].
  apply expands_plus; [now apply expands_scale | exact IH]. }
eapply expands_eq; [exact g | | exact hb | reflexivity].
transitivity (E L (fun _ => value * 1)); [apply E_ext; intro; ring | rewrite E_scal, total; ring].
Qed.

(** ** Maps made of sums, products, quotients and square roots, piece by piece *)

Lemma expands_opp f a b c : expands f a b c -> expands (fun t => - f t) (- a) (- b) (- c).
Proof.
intros h; apply (expands_ext (fun t => (-1) * f t)); [intro; ring|].
eapply expands_eq; [exact (expands_scale (-1) _ _ _ _ h) | ring | ring | ring].
Qed.

Lemma expands_minus f g a b c a' b' c' : expands f a b c -> expands g a' b' c' ->
  expands (fun t => f t - g t) (a - a') (b - b') (c - c').
Proof. intros h h'; exact (expands_plus _ _ _ _ _ _ _ _ h (expands_opp _ _ _ _ h')). Qed.

Lemma expands_pow f a b c n : expands f a b c ->
  expands (fun t => f t ^ S (S n)) (a ^ S (S n)) (INR (S (S n)) * a ^ S n * b)
    (INR (S (S n)) * a ^ S n * c + INR (S (S n)) * INR (S n) / 2 * a ^ n * b ^ 2).
Proof.
intros h; induction n as [|n IH].
- apply (expands_ext (fun t => f t * f t)); [intro; ring|].
  eapply expands_eq; [exact (expands_mult _ _ _ _ _ _ _ _ h h) | | |]; simpl; field.
- apply (expands_ext (fun t => f t * f t ^ S (S n))); [reflexivity|].
  eapply expands_eq; [exact (expands_mult _ _ _ _ _ _ _ _ h IH) | reflexivity | |];
    rewrite !S_INR; simpl pow; field.
Qed.

(** Leaves goals that say which denominators do not vanish, which radicands are positive. *)
Ltac expand :=
  lazymatch goal with
  | |- expands (fun _ => ?c) _ _ _ => apply (expands_const c)
  | |- expands (fun t => @?f t + @?g t) _ _ _ => eapply (expands_plus f g); expand
  | |- expands (fun t => @?f t - @?g t) _ _ _ => eapply (expands_minus f g); expand
  | |- expands (fun t => @?f t * @?g t) _ _ _ => eapply (expands_mult f g); expand
  | |- expands (fun t => @?f t / @?g t) _ _ _ =>
      eapply (expands_mult f (fun t => / g t)); [expand | eapply (expands_inverse g); [expand|]]
  | |- expands (fun t => - @?f t) _ _ _ => eapply (expands_opp f); expand
  | |- expands (fun t => / @?f t) _ _ _ => eapply (expands_inverse f); [expand|]
  | |- expands (fun t => sqrt (@?f t)) _ _ _ => eapply (expands_sqrt f); [expand|]
  | |- expands (fun t => @?f t ^ 1) _ _ _ =>
      eapply (expands_ext f); [intro; symmetry; apply pow_1 | expand]
  | |- expands (fun t => @?f t ^ S (S ?n)) _ _ _ => eapply (expands_pow f); expand
  | |- expands _ _ _ _ => eassumption
  end.
