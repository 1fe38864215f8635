"""Coq text about matrices: the products that are computed, the equation that the kernels solve."""

import sympy as sp

from deltabias.calculus.spectral import LEFT, SpectralMap
from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.spectral_document import Part, Text
from deltabias.codegen.coq.spectral_kernel_text import inverse_root_degree, positives


def products(spectral: SpectralMap) -> Part:
    count = range(len(spectral.parts))
    terms = "\n     + ".join(
        f"coefficient_{i} (s i) (s j) * sum r (fun e => sum d (fun k =>\n"
        f"         E e i k / step (s i) (s k) * weight_{i} (s k) * (E e j k / step (s j) (s k))))"
        for i in count
    )
    opaque = "".join(f"set (c{i} := coefficient_{i} (s i) (s j)); " for i in count)
    return f"""
(** What is computed is this: each part one product B diag(w) B^T, B = E / step, side by side for r
    symmetric perturbations. *)
Theorem products_are_the_second_order r d (s : nat -> R) (E : nat -> matrix) i j :
  (forall k, 0 < s k) -> (forall e i j, E e i j = E e j i) ->
  {terms}
  = sum r (fun e => sum d (fun k => second (s i) (s k) (s j) * (E e i k * E e k j))).
Proof.
intros hs sym; {opaque}
rewrite <- !sum_scal, <- ?sum_plus; apply sum_ext; intros e _.
rewrite <- !sum_scal, <- ?sum_plus; apply sum_ext; intros k _.
rewrite (step_symmetric (s j) (s k)), (sym e j k).
assert (x := step_positive _ _ (hs i) (hs k)); assert (y := step_positive _ _ (hs k) (hs j)).
unfold second; fold {" ".join(f"c{i}" for i in count)}; field; lra.
Qed.
""", (
        Theorem("products_are_the_second_order",
                "The sum of the matrix products that second_order computes is the sum over k of "
                "f[l_i, l_k, l_j] E_ik E_kj, for any number of perturbations.", "bridge"),
    )  # fmt: skip


def equation(spectral: SpectralMap, text: Text) -> Part:
    p = inverse_root_degree(spectral)
    return _equation_ofinverse_root_degree(p) if p else _equation_of_rational_map(spectral, text)


def _equation_ofinverse_root_degree(p: int) -> Part:
    given = f"""{p - 1} value first second (fun a ha => ltac:(unfold value; reflexivity))
  first_in_general second_in_general d s H hs"""
    body = f"""
(** For matrices, in the eigenbasis: X^{p} (A + t H) = 1 up to t^3. *)
Theorem matrix_equation d s H : (forall i, 0 < s i) ->
  same_jet d (jet_mul d (jet_pow d (kernel_jet d value first second s H) {p})
    (Jet (diagonal (fun i => s i ^ {p})) H zero)) (Jet one zero zero).
Proof. intros hs; exact (inverse_root_equation {given}). Qed.

(** If (A + t H)^(-1/{p}) has an expansion, it is this one. *)
Theorem expansion_is_unique d s H Y Y1 Y2 : (forall i, 0 < s i) ->
  matrix_expands d Y (diagonal (fun i => / s i)) Y1 Y2 ->
  (forall t, same d (mul d (matrix_pow d (Y t) {p})
    (add (diagonal (fun i => s i ^ {p})) (scale t H))) one) ->
  same d Y1 (order1 (kernel_jet d value first second s H))
  /\\ same d Y2 (order2 (kernel_jet d value first second s H)).
Proof. intros hs; exact (inverse_root_has_this_expansion {given} Y Y1 Y2). Qed.
"""
    return body, (
        Theorem("matrix_equation",
                f"For matrices the kernels solve X^{p} (A + t H) = 1 up to t^3, for every "
                "spectrum.", "coefficient"),
        Theorem("expansion_is_unique",
                f"If the matrix (A + t H)^(-1/{p}) has a second-order expansion, its coefficients "
                "are the kernels.", "coefficient"),
    )  # fmt: skip


def _equation_of_rational_map(spectral: SpectralMap, text: Text) -> Part:
    """D(S) X = N(S) for the matrix root S, where the value kernel is N(s)/D(s)."""
    q = spectral.degree
    top, bottom = sp.fraction(sp.together(spectral.value))
    tops, bottoms = (
        "; ".join(text.show(c) for c in reversed(sp.Poly(side, LEFT).all_coeffs()))
        for side in (top, bottom)
    )
    unfolds = (
        "unfold poly, poly_1, poly_2, root_first, root_second; "
        f"replace (h ({q} - 1) a b) with (step a b) by (unfold step; cbn [h Nat.sub]; ring)"
    )
    inner = (
        f"replace (h ({q} - 1) a k) with (step a k) by (unfold step; cbn [h Nat.sub]; ring); "
        f"replace (h ({q} - 1) k b) with (step k b) by (unfold step; cbn [h Nat.sub]; ring)"
    )
    reduce = "cbn [poly_from h_below h3_below h h3 Nat.sub pow]"
    body = f"""
(** For matrices, in the eigenbasis, S = A^(1/{q}) with S^{q} = A + t H: D(S) X = N(S) up to t^3. *)
Theorem matrix_equation d s H : (forall i, (i < d)%nat -> 0 < s i) ->
  same_jet d (jet_pow d (root_jet d {q} s H) {q}) (Jet (diagonal (fun i => s i ^ {q})) H zero)
  /\\ same_jet d
       (jet_mul d (jet_poly d (root_jet d {q} s H) [{bottoms}])
         (kernel_jet d value first second s H))
       (jet_poly d (root_jet d {q} s H) [{tops}]).
Proof.
intros hs; split; [apply root_jet_power; [lia | exact hs]|].
apply rational_map_equation; [| | | exact hs].
- intros a ha; factors a a ha ha; unfold poly; {reduce}; unfold value; by_field.
- intros a b ha hb; {positives("ab")} {unfolds}.
  rewrite (step_factored a b); {reduce}; expose; by_field.
- intros a k b ha hk hb; {positives("akb")} {unfolds}.
  {inner}.
  unfold second; rewrite (step_factored a b), (step_factored a k), (step_factored k b).
  {reduce}; expose; by_field.
Qed.
"""
    says = (
        f"For matrices the kernels solve D(S) X = N(S) up to t^3, S the root of degree {q} of "
        "A + t H and f = N/D in it, for every spectrum."
    )
    return body, (Theorem("matrix_equation", says, "coefficient"),)
