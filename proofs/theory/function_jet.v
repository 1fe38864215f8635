(** Functions of matrices inside an update: what is asked of them, and what follows for its mean.

    [function_jet f A P F1 F2]: along every path that starts at A, f has the second order that the
    chain rule gives, F1 linear and F2 quadratic.  It is a hypothesis where F1 and F2 are the kernels
    of a spectral map (its certificate is about them), and proved for the Frobenius norm. *)

From Coq Require Import Reals Lra Lia List FunctionalExtensionality.
From deltabias Require Import finite_law estimators matrix_root expansion matrix_expansion.
Open Scope R_scope.

Record function_jet (d : nat) (f : matrix -> matrix) (A P : matrix) (F1 F2 : matrix -> matrix) : Prop :=
  FunctionJet {
    jet_expands : forall X A1 A2, matrix_expands d X A A1 A2 ->
      matrix_expands d (fun t => f (X t)) P (F1 A1) (add (F1 A2) (F2 A1));
    jet_add_linear : forall E G, F1 (add E G) = add (F1 E) (F1 G);
    jet_scale_linear : forall c E, F1 (scale c E) = scale c (F1 E) }.

Lemma scale_zero c : scale c zero = zero.
Proof. apply same_matrix; intros; unfold scale, zero; ring. Qed.

Lemma scale_0 A : scale 0 A = zero.
Proof. apply same_matrix; intros; unfold scale, zero; ring. Qed.

Lemma jet_of_zero d f A P F1 F2 : function_jet d f A P F1 F2 -> F1 zero = zero.
Proof.
intros h; transitivity (F1 (scale 0 zero)); [now rewrite scale_0|].
rewrite (jet_scale_linear _ _ _ _ _ _ h); apply scale_0.
Qed.

(** ** Deviations of all matrices of a rule, at once *)

Definition direction := nat -> matrix.

Definition linear (F : direction -> matrix) : Prop :=
  (forall x y, F (fun n => add (x n) (y n)) = add (F x) (F y))
  /\ (forall c x, F (fun n => scale c (x n)) = scale c (F x)).

(** A linear map of deviations of mean zero has mean zero. *)
Theorem mean_of_linear {A} (L : law A) (F : direction -> matrix) (delta : A -> direction) :
  linear F -> (forall n i j, E L (fun a => delta a n i j) = 0) ->
  forall i j, E L (fun a => F (delta a) i j) = 0.
Proof.
intros [hadd hscale] h i j.
assert (zero_dir : F (fun _ => zero) = zero).
{ transitivity (F (fun _ => scale 0 zero)); [now rewrite scale_0|].
  rewrite (hscale 0 (fun _ => zero)); apply scale_0. }
assert (inside : forall i j, E L (fun a => F (delta a) i j)
    = F (fun n i j => E L (fun a => delta a n i j)) i j).
{ clear h i j; induction L as [|[w a] L IH]; intros i j; simpl.
  - change (fun (_ _ _ : nat) => 0) with (fun _ : nat => zero); now rewrite zero_dir.
  - rewrite IH.
    change (fun n i j => w * delta a n i j + E L (fun b => delta b n i j))
      with (fun n => add (scale w (delta a n)) (fun i j => E L (fun b => delta b n i j))).
    rewrite (hadd (fun n => scale w (delta a n))), hscale; reflexivity. }
rewrite inside.
replace (fun n i j => E L (fun a => delta a n i j)) with (fun _ : nat => zero);
  [now rewrite zero_dir|].
do 3 (apply functional_extensionality; intro); now rewrite h.
Qed.

(** The mean of a product of two deviations, one through a kernel, is made of covariances. *)
Theorem mean_of_product_is_covariance {A} (L : law A) d (K : matrix) (X Y : A -> matrix) i j :
  (forall i j, E L (fun a => X a i j) = 0) -> (forall i j, E L (fun a => Y a i j) = 0) ->
  E L (fun a => mul d (fun i j => K i j * X a i j) (Y a) i j)
  = sum d (fun k => K i k * Cov L (fun a => X a i k) (fun a => Y a k j)).
Proof.
intros hX hY; unfold mul; rewrite E_sum_n; apply sum_ext; intros k _.
unfold Cov, mean; rewrite <- E_scal; apply E_ext; intro a; rewrite hX, hY; ring.
Qed.

(** ** Kernels in an eigenbasis Q are linear, whatever they are *)

Definition in_basis (d : nat) (Q K E : matrix) : matrix :=
  mul d (mul d Q (fun i j => K i j * mul d (mul d (transpose Q) E) Q i j)) (transpose Q).

(** F1 of a spectral map, Q (K o (Q^T E Q)) Q^T. *)
Theorem kernel_is_linear d Q K :
  (forall E G, in_basis d Q K (add E G) = add (in_basis d Q K E) (in_basis d Q K G))
  /\ (forall c E, in_basis d Q K (scale c E) = scale c (in_basis d Q K E)).
Proof.
split; intros; unfold in_basis.
- rewrite <- mul_add_l, <- mul_add_r; do 2 f_equal; apply same_matrix; intros i j.
  rewrite mul_add_r, mul_add_l; unfold add; ring.
- rewrite <- mul_scale_l, <- mul_scale_r; do 2 f_equal; apply same_matrix; intros i j.
  rewrite mul_scale_r, mul_scale_l; unfold scale; ring.
Qed.

(** ** The Frobenius norm *)

Definition inner (d : nat) (A B : matrix) : R := sum d (fun i => sum d (fun j => A i j * B i j)).

Definition frobenius d A : R := sqrt (inner d A A).
Definition normalized d A : matrix := scale (/ frobenius d A) A.

(** The first and second order of X/|X|, as they are computed. *)
Definition normalized_first d A E : matrix := fun i j =>
  (E i j - A i j * (inner d A E / frobenius d A ^ 2)) / frobenius d A.

Definition normalized_second d A E : matrix := fun i j =>
  let a := inner d A E / frobenius d A ^ 2 in
  let b := inner d E E / frobenius d A ^ 2 in
  (A i j * (3 / 2 * a * a - 1 / 2 * b) - E i j * a) / frobenius d A.

Lemma inner_add d A E G : inner d A (add E G) = inner d A E + inner d A G.
Proof.
unfold inner; rewrite <- sum_plus; apply sum_ext; intros; rewrite <- sum_plus; apply sum_ext.
intros; unfold add; ring.
Qed.

Lemma inner_scale d c A E : inner d A (scale c E) = c * inner d A E.
Proof.
unfold inner; rewrite <- sum_scal; apply sum_ext; intros; rewrite <- sum_scal; apply sum_ext.
intros; unfold scale; ring.
Qed.

Lemma inner_swap d A B : inner d A B = inner d B A.
Proof. unfold inner; apply sum_ext; intros; apply sum_ext; intros; ring. Qed.

Lemma inner_expands d X A A1 A2 : matrix_expands d X A A1 A2 ->
  expands (fun t => inner d (X t) (X t)) (inner d A A) (2 * inner d A A1)
    (2 * inner d A A2 + inner d A1 A1).
Proof.
intros h; eapply expands_eq.
- unfold inner; apply expands_sum; intros i hi; apply expands_sum; intros j hj.
  exact (expands_mult _ _ _ _ _ _ _ _ (h i j hi hj) (h i j hi hj)).
- reflexivity.
- unfold inner; rewrite <- sum_scal; apply sum_ext; intros; rewrite <- sum_scal; apply sum_ext.
  intros; ring.
- unfold inner; rewrite <- sum_scal, <- sum_plus; apply sum_ext; intros.
  rewrite <- sum_scal, <- sum_plus; apply sum_ext; intros; ring.
Qed.

(** X/|X| has this second order, for every matrix but zero. *)
Theorem normalized_jet d A : 0 < inner d A A ->
  function_jet d (normalized d) A (normalized d A) (normalized_first d A) (normalized_second d A).
Proof.
intros hA; split.
- intros X A1 A2 h i j hi hj.
  assert (hs := expands_sqrt _ _ _ _ (inner_expands d X A A1 A2 h) hA).
  assert (hn := sqrt_lt_R0 _ hA); assert (hn0 : sqrt (inner d A A) <> 0) by lra.
  assert (hr := expands_inverse _ _ _ _ hs hn0).
  eapply expands_eq; [exact (expands_mult _ _ _ _ _ _ _ _ hr (h i j hi hj)) | reflexivity | |];
    unfold normalized_first, normalized_second, frobenius, add;
    set (n := sqrt (inner d A A)) in *; cbv zeta; field; lra.
- intros E G; apply same_matrix; intros i j; unfold normalized_first.
  rewrite inner_add; unfold add, Rdiv; ring.
- intros c E; apply same_matrix; intros i j; unfold normalized_first.
  rewrite inner_scale; unfold scale, Rdiv; ring.
Qed.
