(** Second-order expansions of matrices, entry by entry, and products taken out of brackets.

    Matrices are functions of two indices, multiplied over inner indices below d.  A rectangular
    matrix is padded with zeros up to d, the largest of all sizes: no product changes.  A product
    keeps its order: nothing here commutes. *)

From Coq Require Import Reals Lra Lia List FunctionalExtensionality.
From deltabias Require Import finite_law estimators matrix_root expansion.
Open Scope R_scope.

Definition matrix_expands (d : nat) (X : R -> matrix) (X0 X1 X2 : matrix) : Prop :=
  forall i j, (i < d)%nat -> (j < d)%nat -> expands (fun t => X t i j) (X0 i j) (X1 i j) (X2 i j).

Definition scale (k : R) (A : matrix) : matrix := fun i j => k * A i j.
Definition transpose (A : matrix) : matrix := fun i j => A j i.

Section Matrices.
Variable d : nat.
Notation "A ** B" := (mul d A B) (at level 40, left associativity).
Implicit Types (X Y : R -> matrix) (A B C : matrix).

Lemma matrix_expands_line A B : matrix_expands d (fun t => add A (scale t B)) A B zero.
Proof. intros i j hi hj; exact (expands_line (A i j) (B i j)). Qed.

Lemma matrix_expands_const A : matrix_expands d (fun _ => A) A zero zero.
Proof. intros i j hi hj; exact (expands_const (A i j)). Qed.

Lemma matrix_expands_add X Y A B C A' B' C' : matrix_expands d X A B C ->
  matrix_expands d Y A' B' C' ->
  matrix_expands d (fun t => add (X t) (Y t)) (add A A') (add B B') (add C C').
Proof. intros h h' i j hi hj; exact (expands_plus _ _ _ _ _ _ _ _ (h i j hi hj) (h' i j hi hj)). Qed.

Lemma matrix_expands_scale k X A B C : matrix_expands d X A B C ->
  matrix_expands d (fun t => scale k (X t)) (scale k A) (scale k B) (scale k C).
Proof. intros h i j hi hj; exact (expands_scale k _ _ _ _ (h i j hi hj)). Qed.

Lemma matrix_expands_transpose X A B C : matrix_expands d X A B C ->
  matrix_expands d (fun t => transpose (X t)) (transpose A) (transpose B) (transpose C).
Proof. intros h i j hi hj; exact (h j i hj hi). Qed.

(** The product: (X Y)_2 = X_0 Y_2 + X_1 Y_1 + X_2 Y_0. *)
Theorem matrix_expands_mul X Y A B C A' B' C' : matrix_expands d X A B C ->
  matrix_expands d Y A' B' C' ->
  matrix_expands d (fun t => X t ** Y t) (A ** A') (add (A ** B') (B ** A'))
    (add (add (A ** C') (B ** B')) (C ** A')).
Proof.
intros h h' i j hi hj; unfold add, mul; rewrite <- !sum_plus; apply expands_sum.
intros k hk; apply expands_mult; auto.
Qed.

(** Only the entries of the coefficients count. *)
Lemma matrix_expands_same X A B C A' B' C' : matrix_expands d X A B C ->
  same d A A' -> same d B B' -> same d C C' -> matrix_expands d X A' B' C'.
Proof. intros h ha hb hc i j hi hj; eapply expands_eq; eauto. Qed.

Lemma matrix_expands_unique X A B C A' B' C' : matrix_expands d X A B C ->
  matrix_expands d X A' B' C' -> same d A A' /\ same d B B' /\ same d C C'.
Proof.
intros h h'.
repeat split; intros i j hi hj; destruct (expands_unique _ _ _ _ _ _ _ (h i j hi hj) (h' i j hi hj))
  as [e0 [e1 e2]]; assumption.
Qed.

(** ** Words: products out of brackets, so that both sides are sums of the same words *)

Lemma same_matrix A B : (forall i j, A i j = B i j) -> A = B.
Proof. intros h; do 2 (apply functional_extensionality; intro); apply h. Qed.

Lemma mul_add_l A B C : (add A B) ** C = add (A ** C) (B ** C).
Proof.
apply same_matrix; intros; unfold mul, add; rewrite <- sum_plus; apply sum_ext; intros; ring.
Qed.

Lemma mul_add_r A B C : A ** (add B C) = add (A ** B) (A ** C).
Proof.
apply same_matrix; intros; unfold mul, add; rewrite <- sum_plus; apply sum_ext; intros; ring.
Qed.

Lemma mul_scale_l k A B : (scale k A) ** B = scale k (A ** B).
Proof.
apply same_matrix; intros; unfold mul, scale; rewrite <- sum_scal; apply sum_ext; intros; ring.
Qed.

Lemma mul_scale_r k A B : A ** (scale k B) = scale k (A ** B).
Proof.
apply same_matrix; intros; unfold mul, scale; rewrite <- sum_scal; apply sum_ext; intros; ring.
Qed.

Lemma mul_zero_l A : zero ** A = zero.
Proof. apply same_matrix; intros; unfold mul, zero; apply sum_zero; intros; ring. Qed.

Lemma mul_zero_r A : A ** zero = zero.
Proof. apply same_matrix; intros; unfold mul, zero; apply sum_zero; intros; ring. Qed.

Lemma sum_swap n m (f : nat -> nat -> R) :
  sum n (fun i => sum m (f i)) = sum m (fun j => sum n (fun i => f i j)).
Proof.
induction n as [|n IH]; simpl; [now rewrite sum_zero|]; now rewrite IH, <- sum_plus.
Qed.

Lemma mul_assoc A B C : A ** (B ** C) = A ** B ** C.
Proof.
apply same_matrix; intros i j; unfold mul.
transitivity (sum d (fun k => sum d (fun l => A i k * (B k l * C l j)))).
{ apply sum_ext; intros; now rewrite sum_scal. }
rewrite sum_swap; apply sum_ext; intros l _; rewrite <- sum_scal_r; apply sum_ext; intros; ring.
Qed.

Lemma transpose_mul A B : transpose (A ** B) = (transpose B) ** (transpose A).
Proof.
apply same_matrix; intros; unfold transpose, mul; apply sum_ext; intros; ring.
Qed.

Lemma transpose_add A B : transpose (add A B) = add (transpose A) (transpose B).
Proof. reflexivity. Qed.

Lemma transpose_scale k A : transpose (scale k A) = scale k (transpose A).
Proof. reflexivity. Qed.

Lemma transpose_transpose A : transpose (transpose A) = A.
Proof. reflexivity. Qed.

Lemma transpose_zero : transpose zero = zero.
Proof. reflexivity. Qed.
End Matrices.

(** Brackets opened, scalars and transposes moved. *)
Ltac distribute :=
  rewrite ?mul_add_l, ?mul_add_r, ?mul_scale_l, ?mul_scale_r, ?mul_zero_l, ?mul_zero_r, ?mul_assoc,
    ?transpose_mul, ?transpose_add, ?transpose_scale, ?transpose_transpose, ?transpose_zero.

(** Both sides as sums of words, then [ring] over their entries. *)
Ltac words := intros ? ? _ _; repeat progress distribute; unfold add, scale, zero; ring.

(** The mean over a finite law: the value, plus t^2 times the mean of the second orders. *)
Theorem mean_matrix_expands {A} (L : law A) d (X : A -> R -> matrix) (X0 : matrix)
  (X1 X2 : A -> matrix) :
  probability L -> surely L (fun a => matrix_expands d (X a) X0 (X1 a) (X2 a)) ->
  (forall i j, E L (fun a => X1 a i j) = 0) ->
  matrix_expands d (fun t i j => E L (fun a => X a t i j)) X0 zero
    (fun i j => E L (fun a => X2 a i j)).
Proof.
intros hL h hz i j hi hj.
apply (mean_expands L (fun a t => X a t i j) (X0 i j) (fun a => X1 a i j) (fun a => X2 a i j));
  [exact hL | | apply hz].
revert h; apply surely_imp; intros a h; exact (h i j hi hj).
Qed.
