"""Coq text about the kernels of a map that separates: divided differences, derivatives, signs.

All of it is about rational functions of the roots: `field` decides it once no denominator vanishes.
"""

from collections.abc import Sequence

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, LEFT, RIGHT, SpectralMap
from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.spectral_document import Part, Text
from deltabias.errors import CertifyError


def kernels(spectral: SpectralMap, text: Text) -> Part:
    """The definitions: what the derivation found."""
    total = " + ".join(f"coefficient_{i} a b * weight_{i} k" for i in range(len(spectral.parts)))
    lines = [
        "(** The map, and its kernels in the roots a, k, b of the eigenvalues. *)",
        text.define("map", "l", spectral.expression),
        text.define("value", "a", spectral.value),
        text.define("step", "a b", spectral.step),
        text.define("first", "a b", spectral.first()),
    ]
    for i, part in enumerate(spectral.parts):
        lines += [
            text.define(f"coefficient_{i}", "a b", part.coefficient),
            text.define(f"weight_{i}", "k", part.weight),
        ]
    lines += [
        f"Definition second (a k b : R) : R := ({total}) / (step a k * step k b).",
        "Ltac expose := unfold second, first, value, "
        + "".join(f"coefficient_{i}, weight_{i}, " for i in range(len(spectral.parts)))
        + "step.",
    ]
    return "\n".join(lines) + "\n" + _factors(spectral, text), ()


def _factors(spectral: SpectralMap, text: Text) -> str:
    """Factors of denominators are positive; those with a minus in them by a multiple without."""
    lines, poses = [], []
    for i, factor in enumerate(_mixed_factors(spectral)):
        multiplier = _without_minus(factor)
        body = text.show(factor)
        lines += [
            f"Lemma factor_{i}_positive a b : 0 < a -> 0 < b -> 0 < {body}.",
            "Proof.",
            f"intros ha hb; apply Rmult_lt_reg_r with {text.show.argument(multiplier)}; "
            "[positive|]; rewrite Rmult_0_l.",
            f"replace (({body}) * {text.show.argument(multiplier)}) with "
            f"({text.show(sp.expand(factor * multiplier))}) by ring; positive.",
            "Qed.",
        ]
        poses.append(f"pose proof (factor_{i}_positive a b ha hb)")
    factored = text.show(sp.factor(spectral.step))
    lines += [
        f"Lemma step_factored a b : step a b = {factored}.",
        "Proof. unfold step; ring. Qed.",
        "Lemma step_positive a b : 0 < a -> 0 < b -> 0 < step a b.",
        "Proof. intros ha hb; unfold step; positive. Qed.",
        "Lemma step_symmetric a b : step a b = step b a.",
        "Proof. unfold step; ring. Qed.",
        f"Ltac factors a b ha hb := {'; '.join(poses) or 'idtac'}.",
    ]
    return "\n".join(lines) + "\n"


def _mixed_factors(spectral: SpectralMap) -> list[sp.Expr]:
    """Factors of the kernels' denominators with a negative coefficient, in a and b."""
    found: dict[sp.Expr, None] = {}
    for e in (spectral.step, spectral.first(), *(p.coefficient for p in spectral.parts)):
        for side in sp.fraction(sp.together(e)):
            for factor, _ in sp.factor_list(side)[1]:
                if any(c < 0 for c in sp.Poly(factor).coeffs()):
                    found[factor] = None
    return list(found)


def _without_minus(factor: sp.Expr) -> sp.Expr:
    """A power of left + right that leaves no negative coefficient in the product."""
    for n in range(1, 24):
        multiplier = (LEFT + RIGHT) ** n
        if all(c > 0 for c in sp.Poly(sp.expand(factor * multiplier)).coeffs()):
            return multiplier
    raise CertifyError(f"{factor} in a denominator is not seen to be positive.")


def positives(variables: Sequence[str]) -> str:
    pairs = [(x, y) for i, x in enumerate(variables) for y in variables[i:]]
    return " ".join(f"factors {x} {y} h{x} h{y}." for x, y in pairs)


def differences(spectral: SpectralMap) -> Part:
    q = spectral.degree
    count = inverse_root_degree(spectral)
    body = _closed_forms(spectral, count) if count else ""
    if count:
        proof = _kernel_by_theory(count)
    else:
        second = f"""intros a k b ha hk hb; {positives("akb")}
  unfold second; rewrite (step_factored a k), (step_factored k b); expose; by_field."""
        proof = f"""split.
- intros a b ha hb; {positives("ab")} expose; by_field.
- {second}
- {second}"""
    body += f"""
(** (l_a - l_b) f[l_a, l_b] = f(l_a) - f(l_b), and the same of second differences. *)
Theorem kernels_are_divided_differences : kernel {q} value first second.
Proof.
{proof}
Qed.
"""
    says = (
        "For all positive eigenvalues the kernels are the first and second divided differences of "
        "the map, the quotients multiplied out."
    )
    return body, (Theorem("kernels_are_divided_differences", says, "coefficient"),)


def inverse_root_degree(spectral: SpectralMap) -> int:
    """p of l^(-1/p), 0 for other maps."""
    base, exponent = spectral.expression.as_base_exp()
    inverse = base == EIGENVALUE and exponent.is_Rational and exponent.p == -1
    return int(exponent.q) if inverse else 0


def _closed_forms(spectral: SpectralMap, p: int) -> str:
    n, count = p - 1, len(spectral.parts)
    rewrites = "\n".join(
        f"assert (c{i} : coefficient_{i} a b = h {i2} a b / (a * b * h {n} a b)) by\n"
        f"  (unfold coefficient_{i}; cbn [h]; by_field); rewrite c{i}; clear c{i}."
        for i, i2 in enumerate(range(count))
    )
    return f"""
(** The general forms of an inverse root, here with p = {p}. *)
Lemma step_is_h a b : step a b = h {n} a b.
Proof. unfold step; cbn [h]; ring. Qed.
Lemma first_in_general a b : 0 < a -> 0 < b -> first a b = - / (a * b * h {n} a b).
Proof. intros ha hb; {positives("ab")} unfold first; cbn [h]; by_field. Qed.
Lemma second_in_general a k b : 0 < a -> 0 < k -> 0 < b ->
  second a k b = h3 {p} a k b / (a * k * b * (h {n} a b * h {n} a k * h {n} k b)).
Proof.
intros ha hk hb; {positives("ab")} unfold second; rewrite (step_is_h a k), (step_is_h k b).
{rewrites}
assert (x := h_pos {n} a b ha hb); assert (y := h_pos {n} a k ha hk).
assert (z := h_pos {n} k b hk hb).
rewrite <- (h3_as_sum {n}); cbn [sum_f_R0].
set (u := h {n} a k) in *; set (v := h {n} k b) in *; clearbody u v.
{"".join(f"set (h{c} := h {c} a b) in *; " for c in range(count))}
clearbody {" ".join(f"h{c}" for c in range(count))}.
unfold {", ".join(f"weight_{i}" for i in range(count))}.
cbn [Nat.sub]; field; lra.
Qed.
"""


def _kernel_by_theory(p: int) -> str:
    return f"""destruct (inverse_root_kernel {p - 1}) as [d1 d2 d3]; split.
- intros a b ha hb; rewrite first_in_general by assumption; unfold value.
  etransitivity; [now apply (d1 a b) | cbv beta; by_field].
- intros a k b ha hk hb; rewrite second_in_general, !first_in_general by assumption.
  now apply d2.
- intros a k b ha hk hb; rewrite second_in_general, !first_in_general by assumption.
  now apply d3."""


def at_equal_eigenvalues(spectral: SpectralMap) -> Part:
    q = spectral.degree
    rewrites = "".join(_root_rewrites(spectral))
    body = f"""
(** The map is the value kernel at the root. *)
Theorem value_is_the_map l : 0 < l -> map l = value (root {q} l).
Proof.
intros hl; unfold map, value.{rewrites}
assert (e := root_power {q} l ltac:(lia) hl); assert (hs := root_pos {q} l).
set (s := root {q} l) in *; clearbody s; subst l; by_field.
Qed.

(** At equal eigenvalues the first kernel is f', and the second f''/2. *)
Theorem first_at_equal_eigenvalues l : 0 < l ->
  is_derive map l (first (root {q} l) (root {q} l)).
Proof.
intros hl; apply (first_kernel_is_derivative {q} value first second);
  [lia | exact kernels_are_divided_differences | exact hl | exact value_is_the_map |].
assert (hs := root_pos {q} l).
set (s := root {q} l) in *; clearbody s; factors s s hs hs; unfold first; is_continuous.
Qed.

Theorem second_at_equal_eigenvalues l : 0 < l ->
  is_derive (fun x => first (root {q} x) (root {q} x)) l
    (2 * second (root {q} l) (root {q} l) (root {q} l)).
Proof.
intros hl; apply (second_kernel_is_half_derivative {q} value first second);
  [lia | exact kernels_are_divided_differences | exact hl |].
assert (hs := root_pos {q} l).
set (s := root {q} l) in *; clearbody s; factors s s hs hs; assert (z := step_positive s s hs hs).
expose; unfold step in z; is_continuous.
Qed.
"""
    return body, (
        Theorem("value_is_the_map", "The value kernel at the eigenvalue's root is the map.",
                "closed_form"),
        Theorem("first_at_equal_eigenvalues",
                "At equal eigenvalues the first kernel is the derivative of the map.",
                "derivative"),
        Theorem("second_at_equal_eigenvalues",
                "At equal eigenvalues the second kernel is half of the second derivative.",
                "derivative"),
    )  # fmt: skip


def _root_rewrites(spectral: SpectralMap) -> list[str]:
    """Each root in the map, as a power of the one whose degree is the least common multiple."""
    q, lines = spectral.degree, []
    degrees = {p.exp.q for p in spectral.expression.atoms(sp.Pow) if p.base == EIGENVALUE}
    for m in sorted(degrees - {1}):
        k = q // m
        if m == 2:
            lines.append(f"\nrewrite (sqrt_in_root {q} {k} l) by (lia || assumption).")
        elif k > 1:
            lines.append(f"\nrewrite (root_in_root {q} {m} {k} l) by (lia || assumption).")
    return lines


def positivity(spectral: SpectralMap) -> Part:
    if not spectral.is_positive:
        return "", ()
    unfolds = [f"unfold coefficient_{i}, weight_{i}; " for i in range(len(spectral.parts))]
    body = f"""
(** Nothing cancels. *)
Theorem second_is_positive a k b : 0 < a -> 0 < k -> 0 < b -> 0 < second a k b.
Proof.
intros ha hk hb; {positives("ab")}
assert (x := step_positive a k ha hk); assert (y := step_positive k b hk hb).
unfold second; {"".join(unfolds)}
positive.
Qed.
"""
    says = "The second kernel is positive for all positive eigenvalues: nothing cancels in it."
    return body, (Theorem("second_is_positive", says, "bound"),)
