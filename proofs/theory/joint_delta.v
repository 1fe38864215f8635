(** The delta theorem for two variables at once, at any order: Taylor along the segment from the
    means to the outcome.

    Partial derivatives are a double tower: [T i j] is d^(i+j) T / dx^i dy^j. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Coq Require Import List.
From deltabias Require Import taylor finite_law delta.
Open Scope R_scope.

Implicit Types (T : nat -> nat -> R -> R -> R) (P : R -> R -> Prop).

(** [T 0 0] has all partial derivatives up to order n on P, in every direction (da, db), and the
    derivative in a direction is linear in it. *)
Definition joint_tower T (n : nat) P : Prop :=
  forall i j x y da db, (i + j < n)%nat -> P x y ->
  is_derive (fun t => T i j (x + t * da) (y + t * db)) 0 (da * T (S i) j x y + db * T i (S j) x y).

(** A set of points of the plane without holes between a point and another. *)
Definition joint_convex P : Prop :=
  forall x y x' y' t, P x y -> P x' y' -> 0 <= t <= 1 -> P (x + t * (x' - x)) (y + t * (y' - y)).

(** [(da d/dx + db d/dy)^k] applied to [T i j]. *)
Fixpoint directional T (da db : R) (k i j : nat) (x y : R) : R :=
  match k with
  | O => T i j x y
  | S k => da * directional T da db k (S i) j x y + db * directional T da db k i (S j) x y
  end.

(** The operators of orders one, two and three, written out. *)
Lemma directional_1 T da db x y :
  directional T da db 1 0 0 x y = da * T 1%nat 0%nat x y + db * T 0%nat 1%nat x y.
Proof. reflexivity. Qed.

Lemma directional_2 T da db x y :
  directional T da db 2 0 0 x y
  = da ^ 2 * T 2%nat 0%nat x y + 2 * (da * db) * T 1%nat 1%nat x y + db ^ 2 * T 0%nat 2%nat x y.
Proof. simpl; ring. Qed.

Lemma directional_3 T da db x y :
  directional T da db 3 0 0 x y
  = da ^ 3 * T 3%nat 0%nat x y + 3 * (da ^ 2 * db) * T 2%nat 1%nat x y
    + 3 * (da * db ^ 2) * T 1%nat 2%nat x y + db ^ 3 * T 0%nat 3%nat x y.
Proof. simpl; ring. Qed.

(** Along a line the operators of rising order are a tower. *)
Lemma directional_derivative T n P x y da db k : joint_tower T n P ->
  forall i j t, (i + j + k < n)%nat -> P (x + t * da) (y + t * db) ->
  is_derive (fun s => directional T da db k i j (x + s * da) (y + s * db)) t
            (directional T da db (S k) i j (x + t * da) (y + t * db)).
Proof.
intros hT; induction k as [|k IH]; intros i j t hk ht.
- assert (h := hT i j (x + t * da) (y + t * db) da db ltac:(lia) ht).
  assert (hs : is_derive (fun s => s - t) t 1) by (auto_derive; [exact I | ring]).
  assert (h' : is_derive (fun u => T i j (x + t * da + u * da) (y + t * db + u * db)) (t - t)
                 (da * T (S i) j (x + t * da) (y + t * db) + db * T i (S j) (x + t * da) (y + t * db)))
    by now replace (t - t) with 0 by ring.
  assert (hc := is_derive_comp
    (fun u => T i j (x + t * da + u * da) (y + t * db + u * db)) (fun s => s - t) t _ _ h' hs).
  unfold scal in hc; simpl in hc; unfold mult in hc; simpl in hc; rewrite Rmult_1_l in hc.
  simpl; revert hc; apply is_derive_ext; intro s; f_equal; ring.
- assert (h1 := IH (S i) j t ltac:(lia) ht).
  assert (h2 := IH i (S j) t ltac:(lia) ht).
  exact (is_derive_plus _ _ _ _ _ (is_derive_scal _ _ da _ h1) (is_derive_scal _ _ db _ h2)).
Qed.

(** [sum over k <= n of (da d/dx + db d/dy)^k T / k!] at the means. *)
Definition joint_polynomial T n (mx my x y : R) : R :=
  sum_f_R0 (fun k => directional T (x - mx) (y - my) k 0 0 mx my / INR (fact k)) n.

Lemma joint_taylor T n P mx my x y B :
  joint_convex P -> joint_tower T (S n) P -> P mx my -> P x y ->
  (forall x' y', P x' y' -> Rabs (directional T (x - mx) (y - my) (S n) 0 0 x' y') <= B) ->
  Rabs (T 0%nat 0%nat x y - joint_polynomial T n mx my x y) <= B / INR (fact (S n)).
Proof.
intros hP hT hm hx hB; set (da := x - mx); set (db := y - my).
assert (h := taylor_remainder_bound
  (fun k t => directional T da db k 0 0 (mx + t * da) (my + t * db)) n (fun t => 0 <= t <= 1) B 0 1
  (convex_interval 0 1)).
cbv beta in h; rewrite !Rmult_1_l, Rminus_0_r, Rabs_R1, pow1, Rmult_1_r in h.
replace (mx + da) with x in h by (unfold da; ring).
replace (my + db) with y in h by (unfold db; ring).
assert (hpol : taylor_polynomial
   (fun k t => directional T da db k 0 0 (mx + t * da) (my + t * db)) n 0 1
   = joint_polynomial T n mx my x y).
{ unfold taylor_polynomial, joint_polynomial; apply sum_eq; intros k _; fold da db.
  rewrite !Rmult_0_l, !Rplus_0_r, Rminus_0_r, pow1; ring. }
rewrite hpol in h.
apply h; [| | lra | lra].
- intros k t hk ht; apply (directional_derivative T (S n) P); [exact hT | lia | now apply hP].
- intros t ht; apply hB; now apply hP.
Qed.

Lemma directional_bound T P M da db x y n :
  P x y -> (forall i j x y, (i + j = n)%nat -> P x y -> Rabs (T i j x y) <= M) ->
  forall k i j, (i + j + k = n)%nat ->
  Rabs (directional T da db k i j x y) <= M * (Rabs da + Rabs db) ^ k.
Proof.
intros hx hM; induction k as [|k IH]; intros i j hk.
- simpl; rewrite Rmult_1_r; apply hM; [lia | exact hx].
- simpl; eapply Rle_trans; [apply Rabs_triang|]; rewrite !Rabs_mult.
  assert (h1 := IH (S i) j ltac:(lia)); assert (h2 := IH i (S j) ltac:(lia)).
  replace (M * ((Rabs da + Rabs db) * (Rabs da + Rabs db) ^ k))
    with (Rabs da * (M * (Rabs da + Rabs db) ^ k) + Rabs db * (M * (Rabs da + Rabs db) ^ k)) by ring.
  apply Rplus_le_compat; apply Rmult_le_compat_l; auto using Rabs_pos.
Qed.

(** E T(X, Y) = sum over k <= n of E ((X - mx) d/dx + (Y - my) d/dy)^k T / k!, and what is left is at
    most M/(n+1)! E (|X - mx| + |Y - my|)^(n+1), M a bound of the partial derivatives of order n+1. *)
Theorem joint_delta_theorem {A} T n P M (L : law A) (X Y : A -> R) :
  probability L -> joint_convex P -> joint_tower T (S n) P ->
  (forall i j x y, (i + j = S n)%nat -> P x y -> Rabs (T i j x y) <= M) ->
  P (mean L X) (mean L Y) -> surely L (fun a => P (X a) (Y a)) ->
  Rabs (E L (fun a => T 0%nat 0%nat (X a) (Y a))
        - E L (fun a => joint_polynomial T n (mean L X) (mean L Y) (X a) (Y a)))
    <= M / INR (fact (S n))
       * E L (fun a => (Rabs (X a - mean L X) + Rabs (Y a - mean L Y)) ^ S n).
Proof.
intros hL hP hT hM hmu hX; rewrite <- E_minus, <- E_scal.
eapply Rle_trans; [apply E_Rabs, hL|]; apply E_le; [exact hL|].
revert hX; apply surely_imp; intros a ha.
eapply Rle_trans.
- apply joint_taylor with (P := P)
    (B := M * (Rabs (X a - mean L X) + Rabs (Y a - mean L Y)) ^ S n);
    [exact hP | exact hT | exact hmu | exact ha|].
  intros x' y' h'; apply directional_bound with (P := P) (n := S n); auto.
- right; unfold Rdiv; ring.
Qed.

(** Second order, term by term: coupling T_xy Cov(X, Y) and both inversions. *)
Corollary joint_second_order {A} T P M (L : law A) (X Y : A -> R) :
  probability L -> joint_convex P -> joint_tower T 3 P ->
  (forall i j x y, (i + j = 3)%nat -> P x y -> Rabs (T i j x y) <= M) ->
  P (mean L X) (mean L Y) -> surely L (fun a => P (X a) (Y a)) ->
  let mx := mean L X in let my := mean L Y in
  Rabs (E L (fun a => T 0%nat 0%nat (X a) (Y a))
        - (T 0%nat 0%nat mx my + T 1%nat 1%nat mx my * Cov L X Y
           + / 2 * T 2%nat 0%nat mx my * Var L X + / 2 * T 0%nat 2%nat mx my * Var L Y))
    <= M / 6 * E L (fun a => (Rabs (X a - mx) + Rabs (Y a - my)) ^ 3).
Proof.
intros hL hP hT hM hmu hX mx my.
assert (h := joint_delta_theorem T 2 P M L X Y hL hP hT hM hmu hX); fold mx my in h.
replace (INR (fact 3)) with 6 in h by (simpl; ring).
eapply Rle_trans; [|exact h]; right; f_equal; f_equal.
assert (zx : E L (fun a => X a - mx) = 0).
{ rewrite E_minus, E_const by assumption; unfold mx, mean; ring. }
assert (zy : E L (fun a => Y a - my) = 0).
{ rewrite E_minus, E_const by assumption; unfold my, mean; ring. }
rewrite (E_ext L (fun a => joint_polynomial T 2 mx my (X a) (Y a)) (fun a =>
  T 0%nat 0%nat mx my + T 1%nat 0%nat mx my * (X a - mx) + T 0%nat 1%nat mx my * (Y a - my)
  + T 1%nat 1%nat mx my * ((X a - mx) * (Y a - my))
  + / 2 * T 2%nat 0%nat mx my * (X a - mx) ^ 2 + / 2 * T 0%nat 2%nat mx my * (Y a - my) ^ 2)).
2: { intro a; unfold joint_polynomial; simpl; field. }
rewrite !E_plus, !E_scal, E_const, zx, zy by assumption.
fold (Cov L X Y); change (E L (fun a => (X a - mx) ^ 2)) with (Var L X).
change (E L (fun a => (Y a - my) ^ 2)) with (Var L Y).
unfold Cov; fold mx my; ring.
Qed.

(** An update [x * f(y)], proportional to its numerator, has this double tower. *)
Definition proportional (F : nat -> R -> R) (i j : nat) (x y : R) : R :=
  match i with O => x * F j y | 1%nat => F j y | _ => 0 end.

(** The partial derivatives of x f(y) are those of f times x, then those of f, then zero. *)
Theorem joint_tower_proportional F n (D : R -> Prop) :
  tower F n D -> joint_tower (proportional F) n (fun _ y => D y).
Proof.
intros hF i j x y da db hk hy.
assert (line : is_derive (fun t => y + t * db) 0 db) by (auto_derive; [exact I | ring]).
assert (numerator : is_derive (fun t => x + t * da) 0 da) by (auto_derive; [exact I | ring]).
assert (inner : forall j, (j < n)%nat -> is_derive (fun t => F j (y + t * db)) 0 (db * F (S j) y)).
{ intros l hl.
  assert (hd : is_derive (F l) (y + 0 * db) (F (S l) y))
    by (replace (y + 0 * db) with y by ring; now apply hF).
  exact (is_derive_comp (F l) (fun t => y + t * db) 0 _ _ hd line). }
destruct i as [|[|i]]; simpl.
- assert (hp := is_derive_mult (fun t => x + t * da) (fun t => F j (y + t * db)) 0 _ _
                  numerator (inner j ltac:(lia)) Rmult_comm).
  evar_last; [exact hp|].
  unfold plus, mult; simpl; in_reals; replace (y + 0 * db) with y by ring; ring.
- evar_last; [exact (inner j ltac:(lia))|]; in_reals; ring.
- evar_last; [apply is_derive_const|]; unfold zero; simpl; in_reals; ring.
Qed.
