(** A^(-1/p) for matrices, to second order in a perturbation, for every p.

    A = Q diag(x^(-p)) Q^T is looked at in its eigenbasis, x the roots l^(-1/p) of its eigenvalues.
    With A + t H, the matrix X(t) = diag(x) + t X1 + t^2 X2 made of the kernels of [divided.v]
    solves X(t)^p (A + t H) = 1 up to terms in t^3, whatever the eigenvalues, equal ones included:
    X1 and X2 are the first and second order of (A + t H)^(-1/p).  Matrices are functions of two
    indices below d; a polynomial in t cut after t^2 is the triple of its coefficients. *)

From Coq Require Import Reals Lra Lia.
From deltabias Require Import estimators divided.
Open Scope R_scope.

(** ** The polynomials: h of three points *)

(** [h_(n-1)(x, z, y)], zero for n = 0. *)
Fixpoint h3 (n : nat) (x z y : R) : R :=
  match n with O => 0 | S n => x * h3 n x z y + h n z y end.

Lemma h_peel_right n a b : h (S n) a b = b * h n a b + a ^ S n.
Proof.
rewrite h_sym; change (h (S n) b a) with (b * h n b a + a ^ S n); now rewrite (h_sym n b a).
Qed.

Lemma h3_peel_middle n x z y : h3 (S n) x z y = z * h3 n x z y + h n x y.
Proof.
induction n as [|n IH]; [simpl; ring|].
change (h3 (S (S n)) x z y) with (x * h3 (S n) x z y + h (S n) z y).
rewrite IH at 1.
change (h (S n) z y) with (z * h n z y + y ^ S n).
change (h (S n) x y) with (x * h n x y + y ^ S n).
change (h3 (S n) x z y) with (x * h3 n x z y + h n z y); ring.
Qed.

Lemma h_of_two_from_three n x z y :
  x * h n x z + y * h n z y + z ^ S n - z * h3 (S n) x z y + x * y * h3 n x z y = h (S n) x y.
Proof.
induction n as [|n IH]; [simpl; ring|].
assert (e := h_peel_right n x y); assert (e' := h_peel_right n x z).
change (h (S n) x y) with (x * h n x y + y ^ S n) in *.
change (h (S (S n)) x y) with (x * (x * h n x y + y ^ S n) + y ^ S (S n)).
change (h (S n) z y) with (z * h n z y + y ^ S n).
rewrite (h3_peel_middle (S n)), (h3_peel_middle n) in *; rewrite e'.
change (h (S n) x y) with (x * h n x y + y ^ S n).
apply (f_equal (Rmult z)) in IH; apply (f_equal (Rmult x)) in e.
simpl pow in *; lra.
Qed.

(** The sum of positive terms in the second order, as a product of first orders. *)
Lemma kernel_sum n x z y :
  sum_f_R0 (fun c => (x * y) ^ (n - c) * h c x y * z ^ c) n
  = h n x z * h n z y - z ^ S n * h3 n x z y.
Proof.
induction n as [|n IH]; [simpl; ring|].
rewrite tech5, Nat.sub_diag.
rewrite (sum_eq _ (fun c => (x * y) ^ (n - c) * h c x y * z ^ c * (x * y))).
2: { intros c hc; replace (S n - c)%nat with (S (n - c)) by lia; simpl; ring. }
rewrite <- scal_sum, IH, <- (h_of_two_from_three n x z y).
change (h (S n) x z) with (x * h n x z + z ^ S n).
rewrite (h_peel_right n z y); simpl pow; ring.
Qed.

(** The equation that the second order of X^p A = 1 is, for one inner index. *)
Theorem second_order_equation n x z y : 0 < x -> 0 < z -> 0 < y -> let p := S n in
  second_order p x z y * h n x y + first_order p x z * first_order p z y * h3 n x z y
  + h n x z * first_order p x z * y ^ p = 0.
Proof.
intros hx hz hy p; unfold second_order, first_order, p; replace (S n - 1)%nat with n by lia.
assert (a := h_pos n x z hx hz); assert (b := h_pos n z y hz hy); assert (c := h_pos n x y hx hy).
rewrite (sum_eq _ (fun c => (x * y) ^ (n - c) * h c x y * z ^ c * z ^ S n)).
2: { intros i hi; rewrite pow_add; ring. }
rewrite <- scal_sum, kernel_sum, !Rpow_mult_distr; field; lra.
Qed.

(** ** Matrices and their jets *)
Section Matrices.
Variable d : nat.

Definition matrix := nat -> nat -> R.
Definition mul (A B : matrix) : matrix := fun i j => sum d (fun k => A i k * B k j).
Definition add (A B : matrix) : matrix := fun i j => A i j + B i j.
Definition diagonal (x : nat -> R) : matrix := fun i j => if Nat.eqb i j then x i else 0.

(** Equal entries below d. *)
Definition same (A B : matrix) : Prop := forall i j, (i < d)%nat -> (j < d)%nat -> A i j = B i j.

(** A0 + t A1 + t^2 A2, cut there. *)
Record jet := Jet { order0 : matrix; order1 : matrix; order2 : matrix }.

Definition jet_mul (A B : jet) : jet :=
  Jet (mul (order0 A) (order0 B))
      (add (mul (order0 A) (order1 B)) (mul (order1 A) (order0 B)))
      (add (add (mul (order0 A) (order2 B)) (mul (order1 A) (order1 B)))
           (mul (order2 A) (order0 B))).

Definition zero : matrix := fun _ _ => 0.
Definition one : matrix := diagonal (fun _ => 1).

Fixpoint jet_pow (A : jet) (p : nat) : jet :=
  match p with O => Jet one zero zero | S p => jet_mul A (jet_pow A p) end.

Lemma mul_diagonal_l x A i j : (i < d)%nat -> mul (diagonal x) A i j = x i * A i j.
Proof.
intros hi; unfold mul; rewrite (sum_diagonal d (fun k => diagonal x i k * A k j) i hi).
- unfold diagonal; now rewrite Nat.eqb_refl.
- intros k _ hk; unfold diagonal; destruct (Nat.eqb_spec i k); [congruence | ring].
Qed.

Lemma mul_diagonal_r x A i j : (j < d)%nat -> mul A (diagonal x) i j = A i j * x j.
Proof.
intros hj; unfold mul; rewrite (sum_diagonal d (fun k => A i k * diagonal x k j) j hj).
- unfold diagonal; now rewrite Nat.eqb_refl.
- intros k _ hk; unfold diagonal; destruct (Nat.eqb_spec k j); [congruence | ring].
Qed.

Variable x : nat -> R.
Variables X1 X2 : matrix.

(** The powers of diag(x) + t X1 + t^2 X2, entry by entry. *)
Lemma power_entries n i j : (i < d)%nat -> (j < d)%nat ->
  let P := jet_pow (Jet (diagonal x) X1 X2) (S n) in
  order0 P i j = diagonal (fun k => x k ^ S n) i j
  /\ order1 P i j = h n (x i) (x j) * X1 i j
  /\ order2 P i j = h n (x i) (x j) * X2 i j
       + sum d (fun k => h3 n (x i) (x k) (x j) * (X1 i k * X1 k j)).
Proof.
revert i j; induction n as [|n IH]; intros i j hi hj P.
- unfold P; cbn [jet_pow jet_mul order0 order1 order2]; unfold add, one.
  rewrite !mul_diagonal_l, !mul_diagonal_r by assumption; unfold zero; repeat split.
  + unfold diagonal; destruct (Nat.eqb i j); simpl; ring.
  + simpl; ring.
  + rewrite (sum_zero d (fun k => h3 0 (x i) (x k) (x j) * _)) by (intros; simpl; ring).
    unfold mul at 1; rewrite (sum_zero d (fun k => X1 i k * 0)) by (intros; ring); simpl; ring.
- set (Q := jet_pow (Jet (diagonal x) X1 X2) (S n)) in *.
  destruct (IH i j hi hj) as [e0 [e1 e2]].
  assert (row : forall Z, mul Z (order0 Q) i j = Z i j * x j ^ S n).
  { intro Z; rewrite <- (mul_diagonal_r (fun k => x k ^ S n)) by exact hj; unfold mul.
    apply sum_ext; intros k hk; now rewrite (proj1 (IH k j hk hj)). }
  unfold P; change (jet_pow _ (S (S n))) with (jet_mul (Jet (diagonal x) X1 X2) Q).
  cbn [jet_mul order0 order1 order2]; unfold add.
  rewrite !mul_diagonal_l, !row, e0, e1, e2 by exact hi; repeat split.
  + unfold diagonal; destruct (Nat.eqb i j); simpl; ring.
  + change (h (S n) (x i) (x j)) with (x i * h n (x i) (x j) + x j ^ S n); ring.
  + change (h (S n) (x i) (x j)) with (x i * h n (x i) (x j) + x j ^ S n).
    unfold mul; rewrite (sum_ext d (fun k => X1 i k * order1 Q k j)
      (fun k => h n (x k) (x j) * (X1 i k * X1 k j))).
    2: { intros k hk; rewrite (proj1 (proj2 (IH k j hk hj))); ring. }
    rewrite (sum_ext d (fun k => h3 (S n) (x i) (x k) (x j) * (X1 i k * X1 k j))
      (fun k => x i * (h3 n (x i) (x k) (x j) * (X1 i k * X1 k j))
                + h n (x k) (x j) * (X1 i k * X1 k j))) by (intros; simpl; ring).
    rewrite sum_plus, sum_scal; ring.
Qed.
End Matrices.

(** ** The theorem *)

Definition first_kernel (p : nat) (x : nat -> R) (H : matrix) : matrix :=
  fun i j => first_order p (x i) (x j) * H i j.

Definition second_kernel (d p : nat) (x : nat -> R) (H : matrix) : matrix :=
  fun i j => sum d (fun k => second_order p (x i) (x k) (x j) * (H i k * H k j)).

(** X(t)^p (A + t H) = 1 + O(t^3): the kernels are the first and second order of
    (A + t H)^(-1/p), for every p, every H and every spectrum. *)
Theorem inverse_root_to_second_order d p x H : (1 <= p)%nat ->
  (forall i, (i < d)%nat -> 0 < x i) ->
  let X := Jet (diagonal x) (first_kernel p x H) (second_kernel d p x H) in
  let A := Jet (diagonal (fun i => eigenvalue p (x i))) H zero in
  let product := jet_mul d (jet_pow d X p) A in
  same d (order0 product) one /\ same d (order1 product) zero /\ same d (order2 product) zero.
Proof.
intros hp hx X A; destruct p as [|n]; [lia|]; intro product.
set (P := jet_pow d X (S n)).
assert (entries : forall i j, (i < d)%nat -> (j < d)%nat -> _) by
  exact (fun i j hi hj => power_entries d x (first_kernel (S n) x H) (second_kernel d (S n) x H)
                            n i j hi hj).
cbv zeta in entries; fold X P in entries.
assert (inverse : forall i, (i < d)%nat -> x i ^ S n * eigenvalue (S n) (x i) = 1).
{ intros i hi; unfold eigenvalue; apply Rinv_r, pow_nonzero; specialize (hx i hi); lra. }
assert (left_mul : forall Z i j, (i < d)%nat -> (j < d)%nat ->
          mul d (order0 P) Z i j = x i ^ S n * Z i j).
{ intros Z i j hi hj; rewrite <- (mul_diagonal_l d (fun k => x k ^ S n)) by exact hi; unfold mul.
  apply sum_ext; intros k hk; now rewrite (proj1 (entries i k hi hk)). }
unfold product; fold P; cbn [jet_mul order0 order1 order2 A]; unfold add.
repeat split; intros i j hi hj; rewrite ?mul_diagonal_r, ?left_mul by assumption.
- rewrite (proj1 (entries i j hi hj)); unfold one, diagonal.
  destruct (Nat.eqb_spec i j); [subst; now apply inverse | ring].
- rewrite (proj1 (proj2 (entries i j hi hj))); unfold first_kernel, first_order, zero.
  replace (S n - 1)%nat with n by lia; rewrite Rpow_mult_distr.
  assert (hh := h_pos n (x i) (x j) (hx i hi) (hx j hj)).
  replace (x i ^ S n * H i j + _) with (x i ^ S n * H i j * (1 - x j ^ S n * eigenvalue (S n) (x j)))
    by (field; lra).
  rewrite inverse by exact hj; ring.
- rewrite (proj2 (proj2 (entries i j hi hj))); unfold zero at 1, mul.
  rewrite (sum_ext d (fun k => order1 P i k * H k j) (fun k =>
    - eigenvalue (S n) (x j) * (- (h n (x i) (x k) * first_order (S n) (x i) (x k) * x j ^ S n)
                              * (H i k * H k j)))).
  2: { intros k hk; rewrite (proj1 (proj2 (entries i k hi hk))); unfold first_kernel.
       transitivity (h n (x i) (x k) * first_order (S n) (x i) (x k)
                     * (x j ^ S n * eigenvalue (S n) (x j)) * (H i k * H k j));
         [rewrite inverse by exact hj|]; ring. }
  rewrite sum_scal.
  rewrite (sum_ext d (fun k => h3 n (x i) (x k) (x j) * (first_kernel (S n) x H i k
                                * first_kernel (S n) x H k j)) (fun k =>
    - (h n (x i) (x k) * first_order (S n) (x i) (x k) * x j ^ S n) * (H i k * H k j)
    - h n (x i) (x j) * (second_order (S n) (x i) (x k) (x j) * (H i k * H k j)))).
  2: { intros k hk; unfold first_kernel.
       assert (e := second_order_equation n (x i) (x k) (x j) (hx i hi) (hx k hk) (hx j hj)).
       cbv zeta in e; apply (f_equal (Rmult (H i k * H k j))) in e; lra. }
  rewrite sum_minus, sum_scal; fold (second_kernel d (S n) x H i j); unfold zero; ring.
Qed.
