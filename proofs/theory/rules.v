(** Relations between rules as they are executed: whole trajectories, over real numbers.

    A run feeds gradients one after another to a step function of the state.  These are the steps
    that torch.optim writes (bias_correction1, bias_correction2, denom, step_size), not the
    textbook's. *)

From Coq Require Import Reals Lra Lia List.
Import ListNotations.
Open Scope R_scope.

(** Feed gradients to a step; [t] counts from 1. *)
Fixpoint run {S : Type} (step : nat -> S -> R -> S) (t : nat) (s : S) (gradients : list R) : S :=
  match gradients with [] => s | g :: rest => run step (Datatypes.S t) (step t s g) rest end.

(** Steps that agree keep a relation between states over every trajectory. *)
Theorem same_run {S S'} (step : nat -> S -> R -> S) (step' : nat -> S' -> R -> S') rel :
  (forall t s s' g, (1 <= t)%nat -> rel s s' -> rel (step t s g) (step' t s' g)) ->
  forall gradients t s s', (1 <= t)%nat -> rel s s' ->
  rel (run step t s gradients) (run step' t s' gradients).
Proof.
intros h gradients; induction gradients as [|g l IH]; simpl; intros t s s' ht hs; [exact hs|].
apply IH; [lia | now apply h].
Qed.

(** parameter, exp_avg, exp_avg_sq *)
Record state := State { param : R; exp_avg : R; exp_avg_sq : R }.

Section Rules.
Variables lr b1 b2 eps : R.

(** torch.optim.Adam, single tensor. *)
Definition adam_step (t : nat) (s : state) (g : R) : state :=
  let m := b1 * exp_avg s + (1 - b1) * g in
  let v := b2 * exp_avg_sq s + (1 - b2) * (g * g) in
  let bias_correction1 := 1 - b1 ^ t in
  let bias_correction2 := 1 - b2 ^ t in
  let step_size := lr / bias_correction1 in
  let denom := sqrt v / sqrt bias_correction2 + eps in
  State (param s - step_size * (m / denom)) m v.

(** torch.optim.AdamW: decay of the parameter first. *)
Definition adamw_step (decay : R) (t : nat) (s : state) (g : R) : state :=
  adam_step t (State (param s * (1 - lr * decay)) (exp_avg s) (exp_avg_sq s)) g.

(** torch.optim.RMSprop without momentum, not centered; alpha is b2.  It does not debias. *)
Definition rmsprop_step (t : nat) (s : state) (g : R) : state :=
  let v := b2 * exp_avg_sq s + (1 - b2) * (g * g) in
  State (param s - lr * (g / (sqrt v + eps))) (exp_avg s) v.

(** torch.optim.Adagrad without decay. *)
Definition adagrad_step (t : nat) (s : state) (g : R) : state :=
  let v := exp_avg_sq s + g * g in
  State (param s - lr * (g / (sqrt v + eps))) (exp_avg s) v.
End Rules.

(** AdamW without decay is Adam, on every trajectory. *)
Theorem adamw_without_decay_is_adam lr b1 b2 eps gradients t s :
  run (adamw_step lr b1 b2 eps 0) t s gradients = run (adam_step lr b1 b2 eps) t s gradients.
Proof.
revert t s; induction gradients as [|g l IH]; intros t s; simpl; [reflexivity|].
rewrite IH; f_equal; unfold adamw_step; f_equal; destruct s as [p m v]; simpl; f_equal; ring.
Qed.

(** AdamW's decay does not touch the direction: the step is decay, then Adam's update. *)
Theorem adamw_direction lr b1 b2 eps decay t s g :
  param (adamw_step lr b1 b2 eps decay t s g)
  = param (adam_step lr b1 b2 eps t s g) - lr * decay * param s.
Proof. unfold adamw_step, adam_step; simpl; ring. Qed.

(** What torch writes is the textbook's m^ / (sqrt v^ + eps). *)
Theorem adam_as_written lr b1 b2 eps t s g :
  (1 <= t)%nat -> 0 <= b1 < 1 -> 0 <= b2 < 1 ->
  let m := b1 * exp_avg s + (1 - b1) * g in
  let v := b2 * exp_avg_sq s + (1 - b2) * (g * g) in
  0 <= v ->
  param (adam_step lr b1 b2 eps t s g)
  = param s - lr * ((m / (1 - b1 ^ t)) / (sqrt (v / (1 - b2 ^ t)) + eps)).
Proof.
intros ht h1 h2 m v hv; unfold adam_step; simpl; fold m v.
assert (p1 : b1 ^ t < 1) by (apply pow_lt_1_compat; [exact h1 | lia]).
assert (p2 : b2 ^ t < 1) by (apply pow_lt_1_compat; [exact h2 | lia]).
rewrite sqrt_div by (exact hv || lra); unfold Rdiv; ring.
Qed.

(** RMSprop is Adam with b1 = 0, whose learning rate and eps undo the debiasing at each step.  Equal
    states before give equal parameters and second moments after. *)
Definition same_but_momentum (s s' : state) : Prop :=
  param s = param s' /\ exp_avg_sq s = exp_avg_sq s'.

Definition rmsprop_as_adam (lr b2 eps : R) (t : nat) : state -> R -> state :=
  let root := sqrt (1 - b2 ^ t) in adam_step (lr / root) 0 b2 (eps / root) t.

(** Over whole trajectories, RMSprop and that Adam have equal parameters and second moments. *)
Theorem rmsprop_is_adam_without_momentum lr b2 eps gradients t s s' :
  0 <= b2 < 1 -> 0 < eps -> (1 <= t)%nat -> same_but_momentum s s' ->
  same_but_momentum (run (rmsprop_step lr b2 eps) t s gradients)
                    (run (rmsprop_as_adam lr b2 eps) t s' gradients).
Proof.
intros hb he; apply (same_run _ _ same_but_momentum); clear gradients t s s'.
intros t s s' g ht [hp hv].
unfold rmsprop_as_adam, rmsprop_step, adam_step, same_but_momentum; simpl; rewrite hp, hv.
split; [|reflexivity].
assert (p2 : b2 ^ t < 1) by (apply pow_lt_1_compat; [exact hb | lia]).
assert (hr : 0 < sqrt (1 - b2 ^ t)) by (apply sqrt_lt_R0; lra).
set (root := sqrt (1 - b2 ^ t)) in *.
set (d := sqrt (b2 * exp_avg_sq s' + (1 - b2) * (g * g))).
assert (hd : 0 <= d) by apply sqrt_pos.
rewrite (pow_i t) by lia; f_equal; field.
repeat split; try lra.
Qed.

(** With an undebiased Adam nothing has to be undone. *)
Theorem rmsprop_step_is_undebiased lr b2 eps t s g :
  param (rmsprop_step lr b2 eps t s g)
  = param s - lr * ((0 * exp_avg s + (1 - 0) * g)
                    / (sqrt (b2 * exp_avg_sq s + (1 - b2) * (g * g)) + eps)).
Proof. unfold rmsprop_step; simpl; do 2 f_equal; unfold Rdiv; ring. Qed.

(** ** Shampoo in one dimension

    L^(-1/4) G R^(-1/4) with L = R = v, the sum of the squares: g/sqrt v, Adagrad without eps. *)
Theorem shampoo_1d_direction v g : 0 < v ->
  Rpower v (- / 4) * g * Rpower v (- / 4) = g / sqrt v.
Proof.
intros hv; rewrite <- Rpower_sqrt by exact hv; unfold Rdiv; rewrite <- Rpower_Ropp.
replace (Rpower v (- / 4) * g * Rpower v (- / 4)) with (g * (Rpower v (- / 4) * Rpower v (- / 4)))
  by ring.
rewrite <- Rpower_plus; do 2 f_equal; field.
Qed.

Definition shampoo_1d_step (lr : R) (t : nat) (s : state) (g : R) : state :=
  let v := exp_avg_sq s + g * g in
  State (param s - lr * (Rpower v (- / 4) * g * Rpower v (- / 4))) (exp_avg s) v.

Lemma shampoo_step_is_adagrad lr t s g : 0 < exp_avg_sq s ->
  shampoo_1d_step lr t s g = adagrad_step lr 0 t s g /\ 0 < exp_avg_sq (adagrad_step lr 0 t s g).
Proof.
intros hv; assert (0 <= g * g) by (apply Rle_0_sqr).
unfold shampoo_1d_step, adagrad_step; simpl; split; [|lra].
f_equal; rewrite shampoo_1d_direction, Rplus_0_r by lra; reflexivity.
Qed.

(** Started from a positive statistic, the whole runs agree. *)
Theorem shampoo_1d_is_adagrad lr gradients t s : 0 < exp_avg_sq s ->
  run (shampoo_1d_step lr) t s gradients = run (adagrad_step lr 0) t s gradients.
Proof.
revert t s; induction gradients as [|g l IH]; intros t s hv; simpl; [reflexivity|].
destruct (shampoo_step_is_adagrad lr t s g hv) as [e hpos]; rewrite e; now apply IH.
Qed.

(** One-sided Shampoo, L^(-1/2) G, is the same in one dimension. *)
Theorem shampoo_one_sided_1d v g : 0 < v -> Rpower v (- / 2) * g = g / sqrt v.
Proof.
intros hv; rewrite <- Rpower_sqrt by exact hv; unfold Rdiv; rewrite <- Rpower_Ropp; ring.
Qed.

(** ** foreach is single

    A foreach kernel applies one operation after another, each to the whole list; the single-tensor
    loop applies all of them to one element after another. *)
Definition for_each {A} (operations : list (A -> A)) (l : list A) : list A :=
  fold_left (fun l op => map op l) operations l.

Definition single {A} (operations : list (A -> A)) (a : A) : A :=
  fold_left (fun a op => op a) operations a.

(** Both orders of the two loops give the same list. *)
Theorem foreach_is_single {A} (operations : list (A -> A)) l :
  for_each operations l = map (single operations) l.
Proof.
revert l; induction operations as [|op ops IH]; intros l; simpl; [now rewrite map_id|].
unfold for_each in *; simpl; rewrite IH, map_map; reflexivity.
Qed.
