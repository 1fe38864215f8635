(** What the kernels are for matrices: they solve the equation that defines the function.

    S = A^(1/q) is the matrix root: its jet solves S^q = A + t H.  A map rational in the root,
    N(s)/D(s), has a jet X that solves D(S) X = N(S), up to t^3.  And where the true matrix root
    has an expansion at all, its coefficients are the kernels: the equation has one solution. *)

From Coq Require Import Reals Lra Lia List FunctionalExtensionality.
From deltabias Require Import estimators divided matrix_root spectral_map expansion matrix_expansion.
Import ListNotations.
Open Scope R_scope.

Definition same_jet (d : nat) (X Y : jet) : Prop :=
  same d (order0 X) (order0 Y) /\ same d (order1 X) (order1 Y) /\ same d (order2 X) (order2 Y).

Definition jet_add (X Y : jet) : jet :=
  Jet (add (order0 X) (order0 Y)) (add (order1 X) (order1 Y)) (add (order2 X) (order2 Y)).

Definition jet_scale (c : R) (X : jet) : jet :=
  Jet (scale c (order0 X)) (scale c (order1 X)) (scale c (order2 X)).

(** The jet that a kernel gives in the eigenbasis. *)
Definition kernel_jet (d : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R)
    (s : nat -> R) (H : matrix) : jet :=
  Jet (diagonal (fun i => value (s i))) (fun i j => first (s i) (s j) * H i j)
    (fun i j => sum d (fun k => second (s i) (s k) (s j) * (H i k * H k j))).

(** ** The root itself *)

Definition root_first (q : nat) (a b : R) : R := / h (q - 1) a b.
Definition root_second (q : nat) (a k b : R) : R :=
  - (h3 (q - 1) a k b / (h (q - 1) a b * h (q - 1) a k * h (q - 1) k b)).
Definition root_jet d q := kernel_jet d (fun s => s) (root_first q) (root_second q).

(** S^q = A + t H, up to t^3, for every q and every spectrum. *)
Theorem root_jet_power d q s H : (1 <= q)%nat -> (forall i, (i < d)%nat -> 0 < s i) ->
  same_jet d (jet_pow d (root_jet d q s H) q) (Jet (diagonal (fun i => s i ^ q)) H zero).
Proof.
intros hq hs; destruct q as [|n]; [lia|].
set (X1 := fun i j => root_first (S n) (s i) (s j) * H i j).
set (X2 := fun i j => sum d (fun k => root_second (S n) (s i) (s k) (s j) * (H i k * H k j))).
change (root_jet d (S n) s H) with (Jet (diagonal s) X1 X2).
repeat split; intros i j hi hj;
  destruct (power_entries d s X1 X2 n i j hi hj) as [e0 [e1 e2]];
  assert (x := h_pos n (s i) (s j) (hs i hi) (hs j hj)).
- exact e0.
- rewrite e1; cbn [order1]; unfold X1, root_first; replace (S n - 1)%nat with n by lia; field; lra.
- rewrite e2; cbn [order2]; unfold X2 at 1; rewrite <- sum_scal, <- sum_plus; unfold zero; apply sum_zero.
  intros k hk; unfold X1, root_first, root_second; replace (S n - 1)%nat with n by lia.
  assert (y := h_pos n (s i) (s k) (hs i hi) (hs k hk)).
  assert (z := h_pos n (s k) (s j) (hs k hk) (hs j hj)); field; lra.
Qed.

(** ** Polynomials in the root *)

Fixpoint jet_poly_from d (X : jet) n (c : list R) : jet :=
  match c with
  | [] => Jet zero zero zero
  | x :: rest => jet_add (jet_scale x (jet_pow d X n)) (jet_poly_from d X (S n) rest)
  end.

(** c_0 + c_1 X + c_2 X^2 + ... *)
Definition jet_poly d X c := jet_poly_from d X 0 c.

Definition h_below (n : nat) (a b : R) : R := match n with O => 0 | S n => h n a b end.
Definition h3_below (n : nat) (a k b : R) : R := match n with O => 0 | S n => h3 n a k b end.

Fixpoint poly_from (g : nat -> R) (n : nat) (c : list R) : R :=
  match c with [] => 0 | x :: rest => x * g n + poly_from g (S n) rest end.

(** A polynomial in s, and its divided differences in s. *)
Definition poly c a := poly_from (fun n => a ^ n) 0 c.
Definition poly_1 c a b := poly_from (fun n => h_below n a b) 0 c.
Definition poly_2 c a k b := poly_from (fun n => h3_below n a k b) 0 c.

Lemma poly_entries d s X1 X2 c n i j : (i < d)%nat -> (j < d)%nat ->
  let P := jet_poly_from d (Jet (diagonal s) X1 X2) n c in
  order0 P i j = diagonal (fun k => poly_from (fun n => s k ^ n) n c) i j
  /\ order1 P i j = poly_from (fun n => h_below n (s i) (s j)) n c * X1 i j
  /\ order2 P i j = poly_from (fun n => h_below n (s i) (s j)) n c * X2 i j
       + sum d (fun k => poly_from (fun n => h3_below n (s i) (s k) (s j)) n c * (X1 i k * X1 k j)).
Proof.
intros hi hj; revert n; induction c as [|x c IH]; intros n P.
- unfold P; cbn [jet_poly_from poly_from order0 order1 order2]; unfold zero, diagonal.
  rewrite sum_zero by (intros; ring); destruct (Nat.eqb i j); repeat split; ring.
- destruct (IH (S n)) as [e0 [e1 e2]]; unfold P.
  cbn [jet_poly_from poly_from jet_add jet_scale order0 order1 order2]; unfold add, scale.
  rewrite e0, e1, e2; clear - hi hj.
  assert (powers : order0 (jet_pow d (Jet (diagonal s) X1 X2) n) i j
      = diagonal (fun k => s k ^ n) i j
    /\ order1 (jet_pow d (Jet (diagonal s) X1 X2) n) i j = h_below n (s i) (s j) * X1 i j
    /\ order2 (jet_pow d (Jet (diagonal s) X1 X2) n) i j = h_below n (s i) (s j) * X2 i j
         + sum d (fun k => h3_below n (s i) (s k) (s j) * (X1 i k * X1 k j))).
  { destruct n as [|n]; [|exact (power_entries d s X1 X2 n i j hi hj)].
    cbn [jet_pow order0 order1 order2 h_below h3_below]; unfold one, zero, diagonal.
    rewrite sum_zero by (intros; ring); destruct (Nat.eqb i j); repeat split; ring. }
  destruct powers as [p0 [p1 p2]]; rewrite p0, p1, p2; unfold diagonal; repeat split.
  + destruct (Nat.eqb i j); ring.
  + ring.
  + rewrite (sum_ext d (fun k => (x * _ + _) * _) (fun k =>
      x * (h3_below n (s i) (s k) (s j) * (X1 i k * X1 k j))
      + poly_from (fun n => h3_below n (s i) (s k) (s j)) (S n) c * (X1 i k * X1 k j)))
      by (intros; ring).
    rewrite sum_plus, sum_scal; ring.
Qed.

Section Equation.
Variables (q : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R).
Variables top bottom : list R.
Hypothesis equation_0 : forall a, 0 < a -> poly bottom a * value a = poly top a.
Hypothesis equation_1 : forall a b, 0 < a -> 0 < b ->
  poly bottom a * first a b + poly_1 bottom a b * root_first q a b * value b
  = poly_1 top a b * root_first q a b.
Hypothesis equation_2 : forall a k b, 0 < a -> 0 < k -> 0 < b ->
  poly bottom a * second a k b + poly_1 bottom a k * root_first q a k * first k b
  + (poly_1 bottom a b * root_second q a k b
     + poly_2 bottom a k b * (root_first q a k * root_first q k b)) * value b
  = poly_1 top a b * root_second q a k b
    + poly_2 top a k b * (root_first q a k * root_first q k b).

(** D(S) X = N(S), up to t^3. *)
Theorem rational_map_equation d s H : (forall i, (i < d)%nat -> 0 < s i) ->
  same_jet d (jet_mul d (jet_poly d (root_jet d q s H) bottom) (kernel_jet d value first second s H))
    (jet_poly d (root_jet d q s H) top).
Proof.
intros hs; set (X1 := fun i j => root_first q (s i) (s j) * H i j).
set (X2 := fun i j => sum d (fun k => root_second q (s i) (s k) (s j) * (H i k * H k j))).
unfold jet_poly; change (root_jet d q s H) with (Jet (diagonal s) X1 X2).
set (P := jet_poly_from d _ 0 bottom); set (N := jet_poly_from d _ 0 top).
assert (eP : forall i j, (i < d)%nat -> (j < d)%nat -> _) by
  exact (fun i j hi hj => poly_entries d s X1 X2 bottom 0 i j hi hj).
assert (eN : forall i j, (i < d)%nat -> (j < d)%nat -> _) by
  exact (fun i j hi hj => poly_entries d s X1 X2 top 0 i j hi hj).
cbv zeta in eP, eN; fold P in eP; fold N in eN.
assert (left_mul : forall Z i j, (i < d)%nat -> (j < d)%nat ->
          mul d (order0 P) Z i j = poly bottom (s i) * Z i j).
{ intros Z i j hi hj.
  rewrite <- (mul_diagonal_l d (fun k => poly bottom (s k))) by exact hi; unfold mul.
  apply sum_ext; intros k hk; now rewrite (proj1 (eP i k hi hk)). }
repeat split; intros i j hi hj; destruct (eN i j hi hj) as [n0 [n1 n2]];
  unfold kernel_jet; cbn [jet_mul order0 order1 order2]; unfold add;
  rewrite ?left_mul, ?mul_diagonal_r by assumption.
- rewrite n0; unfold diagonal; destruct (Nat.eqb_spec i j); [|ring].
  now apply equation_0, hs.
- rewrite n1, (proj1 (proj2 (eP i j hi hj))); unfold X1.
  assert (e := equation_1 (s i) (s j) (hs i hi) (hs j hj)); unfold poly_1 in e.
  apply (f_equal (Rmult (H i j))) in e; lra.
- rewrite n2, (proj2 (proj2 (eP i j hi hj))); unfold mul, X2; rewrite <- !sum_scal, <- !sum_plus.
  rewrite <- sum_scal_r, <- sum_plus; apply sum_ext; intros k hk.
  rewrite (proj1 (proj2 (eP i k hi hk))); unfold X1.
  assert (e := equation_2 (s i) (s k) (s j) (hs i hi) (hs k hk) (hs j hj)).
  unfold poly_1, poly_2 in e; apply (f_equal (Rmult (H i k * H k j))) in e; lra.
Qed.
End Equation.

(** ** One solution *)

Lemma power_determines d n s Y1 Y2 Z1 Z2 : (forall i, (i < d)%nat -> 0 < s i) ->
  same_jet d (jet_pow d (Jet (diagonal s) Y1 Y2) (S n)) (jet_pow d (Jet (diagonal s) Z1 Z2) (S n)) ->
  same d Y1 Z1 /\ same d Y2 Z2.
Proof.
intros hs [_ [e1 e2]].
assert (first : same d Y1 Z1).
{ intros i j hi hj; specialize (e1 i j hi hj).
  rewrite (proj1 (proj2 (power_entries d s Y1 Y2 n i j hi hj))) in e1.
  rewrite (proj1 (proj2 (power_entries d s Z1 Z2 n i j hi hj))) in e1.
  apply Rmult_eq_reg_l in e1; [exact e1|].
  assert (x := h_pos n (s i) (s j) (hs i hi) (hs j hj)); lra. }
split; [exact first|]; intros i j hi hj; specialize (e2 i j hi hj).
rewrite (proj2 (proj2 (power_entries d s Y1 Y2 n i j hi hj))) in e2.
rewrite (proj2 (proj2 (power_entries d s Z1 Z2 n i j hi hj))) in e2.
rewrite (sum_ext d (fun k => _ * (Y1 i k * Y1 k j))
  (fun k => h3 n (s i) (s k) (s j) * (Z1 i k * Z1 k j))) in e2
  by (intros k hk; now rewrite first, first by assumption).
apply Rplus_eq_reg_r, Rmult_eq_reg_l in e2; [exact e2|].
assert (x := h_pos n (s i) (s j) (hs i hi) (hs j hj)); lra.
Qed.

(** Y^p (A + t H) = 1 up to t^3 has one solution that starts with diag(x). *)
Theorem inverse_root_is_unique d p x H Y1 Y2 : (1 <= p)%nat ->
  (forall i, (i < d)%nat -> 0 < x i) ->
  same_jet d (jet_mul d (jet_pow d (Jet (diagonal x) Y1 Y2) p)
    (Jet (diagonal (fun i => eigenvalue p (x i))) H zero)) (Jet one zero zero) ->
  same d Y1 (first_kernel p x H) /\ same d Y2 (second_kernel d p x H).
Proof.
intros hp hx e; assert (k := inverse_root_to_second_order d p x H hp hx); cbv zeta in k.
destruct p as [|n]; [lia|].
apply (power_determines d n x _ _ _ _ hx).
set (P := jet_pow d (Jet (diagonal x) Y1 Y2) (S n)) in *.
set (Q := jet_pow d (Jet (diagonal x) (first_kernel (S n) x H) (second_kernel d (S n) x H)) (S n))
  in *.
assert (ev : forall j, (j < d)%nat -> eigenvalue (S n) (x j) <> 0).
{ intros j hj; unfold eigenvalue; apply Rinv_neq_0_compat, pow_nonzero.
  specialize (hx j hj); lra. }
destruct e as [_ [e1 e2]], k as [_ [k1 k2]]; cbn [jet_mul order0 order1 order2] in *.
assert (same0 : same d (order0 P) (order0 Q)).
{ intros i j hi hj; transitivity (diagonal (fun k => x k ^ S n) i j).
  - exact (proj1 (power_entries d x Y1 Y2 n i j hi hj)).
  - symmetry; exact (proj1 (power_entries d x (first_kernel (S n) x H) (second_kernel d (S n) x H)
      n i j hi hj)). }
assert (same1 : same d (order1 P) (order1 Q)).
{ intros i j hi hj; specialize (e1 i j hi hj); specialize (k1 i j hi hj); unfold add in *.
  rewrite mul_diagonal_r in e1, k1 by assumption.
  assert (z : mul d (order0 P) H i j = mul d (order0 Q) H i j)
    by (unfold mul; apply sum_ext; intros; now rewrite same0).
  apply Rmult_eq_reg_r with (eigenvalue (S n) (x j)); [lra | now apply ev]. }
repeat split; try assumption.
intros i j hi hj; specialize (e2 i j hi hj); specialize (k2 i j hi hj); unfold add in *.
rewrite mul_diagonal_r in e2, k2 by assumption.
assert (z : mul d (order0 P) zero i j = mul d (order0 Q) zero i j)
  by (unfold mul; apply sum_ext; intros; now rewrite same0).
assert (z' : mul d (order1 P) H i j = mul d (order1 Q) H i j)
  by (unfold mul; apply sum_ext; intros; now rewrite same1).
apply Rmult_eq_reg_r with (eigenvalue (S n) (x j)); [lra | now apply ev].
Qed.

Fixpoint matrix_pow d (X : matrix) p : matrix :=
  match p with O => one | S p => mul d X (matrix_pow d X p) end.

Lemma matrix_expands_pow d Y (J : jet) p :
  matrix_expands d Y (order0 J) (order1 J) (order2 J) ->
  let P := jet_pow d J p in
  matrix_expands d (fun t => matrix_pow d (Y t) p) (order0 P) (order1 P) (order2 P).
Proof.
intros h; induction p as [|p IH]; [exact (matrix_expands_const d one)|].
exact (matrix_expands_mul d _ _ _ _ _ _ _ _ h IH).
Qed.

(** If the true (A + t H)^(-1/p) has an expansion, its coefficients are the kernels. *)
Theorem inverse_root_expansion d p x H Y Y1 Y2 : (1 <= p)%nat ->
  (forall i, (i < d)%nat -> 0 < x i) -> matrix_expands d Y (diagonal x) Y1 Y2 ->
  (forall t, same d (mul d (matrix_pow d (Y t) p)
    (add (diagonal (fun i => eigenvalue p (x i))) (scale t H))) one) ->
  same d Y1 (first_kernel p x H) /\ same d Y2 (second_kernel d p x H).
Proof.
intros hp hx hY e; apply inverse_root_is_unique; [exact hp | exact hx|].
assert (u := matrix_expands_mul d _ _ _ _ _ _ _ _
  (matrix_expands_pow d Y (Jet (diagonal x) Y1 Y2) p hY)
  (matrix_expands_line d (diagonal (fun i => eigenvalue p (x i))) H)).
apply (matrix_expands_unique d _ _ _ _ _ _ _ u).
intros i j hi hj; apply expands_ext with (fun _ => one i j); [|apply expands_const].
intro t; symmetry; now apply e.
Qed.

(** ** The inverse root in the roots of the eigenvalues *)
Section InverseRoot.
Variables (n : nat) (value : R -> R) (first : R -> R -> R) (second : R -> R -> R -> R).
Hypothesis value_is : forall a, 0 < a -> value a = / a.
Hypothesis first_is : forall a b, 0 < a -> 0 < b -> first a b = - / (a * b * h n a b).
Hypothesis second_is : forall a k b, 0 < a -> 0 < k -> 0 < b ->
  second a k b = h3 (S n) a k b / (a * k * b * (h n a b * h n a k * h n k b)).
Variables (d : nat) (s : nat -> R) (H : matrix).
Hypothesis hs : forall i, 0 < s i.

Let x i := / s i.

Lemma reciprocal_roots : (forall i, 0 < x i) /\ (fun i => eigenvalue (S n) (x i)) = (fun i => s i ^ S n)
  /\ kernel_jet d value first second s H
      = Jet (diagonal x) (first_kernel (S n) x H) (second_kernel d (S n) x H).
Proof.
repeat split.
- intro i; now apply Rinv_0_lt_compat.
- apply functional_extensionality; intro i; unfold eigenvalue, x; now rewrite pow_inv, Rinv_inv.
- unfold kernel_jet; f_equal; do 2 (apply functional_extensionality; intro);
    unfold diagonal, first_kernel, second_kernel, x.
  + now rewrite value_is.
  + now rewrite first_order_in_roots, first_is.
  + apply sum_ext; intros k _; now rewrite second_order_in_roots, second_is.
Qed.

(** X^p (A + t H) = 1, up to t^3. *)
Theorem inverse_root_equation :
  same_jet d (jet_mul d (jet_pow d (kernel_jet d value first second s H) (S n))
    (Jet (diagonal (fun i => s i ^ S n)) H zero)) (Jet one zero zero).
Proof.
destruct reciprocal_roots as [hx [<- ->]].
exact (inverse_root_to_second_order d (S n) x H ltac:(lia) (fun i _ => hx i)).
Qed.

(** If (A + t H)^(-1/p) has an expansion, it is this one. *)
Theorem inverse_root_has_this_expansion Y Y1 Y2 :
  matrix_expands d Y (diagonal (fun i => / s i)) Y1 Y2 ->
  (forall t, same d (mul d (matrix_pow d (Y t) (S n))
    (add (diagonal (fun i => s i ^ S n)) (scale t H))) one) ->
  same d Y1 (order1 (kernel_jet d value first second s H))
  /\ same d Y2 (order2 (kernel_jet d value first second s H)).
Proof.
destruct reciprocal_roots as [hx [<- ->]]; intros hY e.
exact (inverse_root_expansion d (S n) x H Y Y1 Y2 ltac:(lia) (fun i _ => hx i) hY e).
Qed.
End InverseRoot.
