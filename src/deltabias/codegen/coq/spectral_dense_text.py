"""The certificate of a map whose kernel does not separate: integrals, quotients, a weighted mean.

What is asked of such an f are its two derivatives, as they are printed; the theory does the rest.
A map of l + c that separates in l + c, such as (l + eps)^(-1/4), is certified through it: its dense
kernels are the separated ones at the shifted roots, and solve the same matrix equation.
"""

import sympy as sp

from deltabias.calculus.spectral import EIGENVALUE, SpectralMap
from deltabias.codegen.coq.certificate import Certificate, Theorem
from deltabias.codegen.coq.spectral_bridge_text import root_steps
from deltabias.codegen.coq.spectral_document import NOT_CERTIFIED, Part, Text, document
from deltabias.codegen.coq.spectral_kernel_text import at_equal_eigenvalues, differences, kernels
from deltabias.codegen.coq.spectral_matrix_text import equation
from deltabias.codegen.coq.spectral_program import functions_of, transcribed
from deltabias.codegen.spectral import kernel_source
from deltabias.errors import CertifyError

_QUADRATURE = (
    "the error of Gauss and Legendre's rule, and the choice between integral and quotient: both "
    "are proved to be the divided difference, not how near 16 nodes come",
)
_NO_EQUATION = (
    "an equation for matrices that the function solves: the kernels are proved to be the divided "
    "differences, that these are its second order (Daleckii and Krein) is cited",
)


def certificate_of_dense_map(spectral: SpectralMap) -> Certificate:
    """The certificate of an analytic map at second order.

    Raises
    ------
    CertifyError
        for functions beyond exp and log, and roots that are not of eigenvalue + constant.
    """
    text = Text(spectral.hypers)
    shifted = _separated_part(spectral)
    parts: list[Part] = []
    if shifted is not None:
        inner, _ = shifted
        parts += [kernels(inner, text), differences(inner), at_equal_eigenvalues(inner)]
        parts += [equation(inner, text)]
    else:
        _check_functions(spectral)
    parts += [_derivatives(spectral, text, shifted), _dense()]
    if shifted is not None:
        parts.append(_agreement(shifted, text))
    parts.append(_programs(spectral, text, shifted))
    extra = _QUADRATURE if shifted is not None else (*_QUADRATURE, *_NO_EQUATION)
    return document(spectral, text, parts, NOT_CERTIFIED + extra)


def _separated_part(spectral: SpectralMap) -> tuple[SpectralMap, sp.Expr] | None:
    """The map that separates, and what is added to the eigenvalue."""
    roots = {
        p.base for p in spectral.expression.atoms(sp.Pow)
        if p.exp.is_Rational and p.exp.q != 1 and EIGENVALUE in p.base.free_symbols
    }  # fmt: skip
    if not roots:
        return None
    (base, *others) = sorted(roots, key=str)
    shift = sp.expand(base - EIGENVALUE)
    if others or EIGENVALUE in shift.free_symbols:
        raise CertifyError(
            f"{spectral.expression}: roots of {', '.join(map(str, roots))}; certified are roots of "
            "the eigenvalue plus a constant, one such sum in a map."
        )
    inner = spectral.expression.subs(base, EIGENVALUE)
    if shift.free_symbols & inner.free_symbols or inner.has(sp.exp, sp.log):
        raise CertifyError(f"{spectral.expression} mixes a root of {base} with other functions.")
    found = SpectralMap(spectral.name, inner)
    if not found.separates:
        raise CertifyError(f"{inner}, the map of {base}, does not separate.")
    return found, shift


def _check_functions(spectral: SpectralMap) -> None:
    allowed = {sp.exp, sp.log}
    if odd := {type(f).__name__ for f in spectral.expression.atoms(sp.Function)
               if type(f) not in allowed}:  # fmt: skip
        raise CertifyError(
            f"{', '.join(sorted(odd))} in {spectral.expression} has no derivative in the theory; "
            "dense maps are certified with exp, log and rational functions."
        )


def _derivatives(spectral: SpectralMap, text: Text, shifted) -> Part:
    lines = [
        "\n(** The map, f' and f''/2 as they are printed. *)",
        text.define("dense_map", "l", spectral.expression),
        text.define("slope", "a", spectral.slope),
        text.define("curvature", "a", spectral.curvature),
    ]
    proofs = _by_auto_derive() if shifted is None else _by_shift(*shifted, text)
    lines += [
        *proofs[0],
        "Theorem slope_is_the_derivative l : 0 < l -> is_derive dense_map l (slope l).",
        f"Proof.\n{proofs[1]}\nQed.",
        "Theorem curvature_is_half_the_second_derivative l : 0 < l ->\n"
        "  is_derive slope l (2 * curvature l).",
        f"Proof.\n{proofs[2]}\nQed.",
        "Lemma curvature_is_continuous l : 0 < l -> continuous curvature l.",
        "Proof. intros hl; apply continuity_pt_filterlim; unfold curvature; is_continuous. Qed.",
    ]
    return "\n".join(lines), (
        Theorem("slope_is_the_derivative", "The printed slope is the derivative of the map.",
                "derivative"),
        Theorem("curvature_is_half_the_second_derivative",
                "The printed curvature is half of the second derivative of the map.",
                "derivative"),
    )  # fmt: skip


def _by_auto_derive() -> tuple[list[str], str, str]:
    close = "auto_derive; [repeat split; positive || not_zero || trivial | by_ring_or_field]."
    tactic = "Ltac by_ring_or_field := same_arguments; first [reflexivity | ring | by_field]."
    return (
        [tactic],
        f"intros hl; unfold dense_map, slope; {close}",
        f"intros hl; unfold slope, curvature; {close}",
    )


def _by_shift(inner: SpectralMap, shift: sp.Expr, text: Text) -> tuple[list[str], str, str]:
    """Through the derivatives of the map that separates."""
    q, c = inner.degree, text.show.argument(shift)
    at = f"root {q} ({c} + l)"
    given = f"""intros hl; assert (hc : 0 < {c} + l) by positive.
assert (e := root_power {q} ({c} + l) ltac:(lia) hc); assert (hs := root_pos {q} ({c} + l))."""
    close = f"""rewrite ?(sqrt_is_root ({c} + l)) by assumption.
set (s := root {q} ({c} + l)) in *; clearbody s; factors s s hs hs.
rewrite <- ?e; expose; by_field."""
    moved = f"assert (i : is_derive (fun l => {c} + l) l 1) by (auto_derive; [trivial | ring])."
    lemmas = [
        f"Lemma dense_map_is_shifted l : dense_map l = map ({c} + l).",
        f"Proof. unfold dense_map, map; rewrite ?(Rplus_comm l {c}).",
        "first [reflexivity | ring]. Qed.",
        f"Lemma slope_is_the_kernel l : 0 < l -> slope l = first ({at}) ({at}).",
        f"Proof.\n{given}\nunfold slope; {close}\nQed.",
        f"Lemma curvature_is_the_kernel l : 0 < l -> curvature l = second ({at}) ({at}) ({at}).",
        f"Proof.\n{given}\nunfold curvature; {close}\nQed.",
    ]
    first = f"""intros hl; assert (hc : 0 < {c} + l) by positive.
rewrite slope_is_the_kernel by assumption.
{moved}
assert (j := is_derive_comp map (fun l => {c} + l) l _ _ (first_at_equal_eigenvalues _ hc) i).
apply (is_derive_ext (fun l => map ({c} + l))); [intro; symmetry; apply dense_map_is_shifted|].
evar_last; [exact j|]; unfold scal; simpl; unfold mult; simpl; in_reals; ring."""
    second = f"""intros hl; assert (hc : 0 < {c} + l) by positive.
rewrite curvature_is_the_kernel by assumption.
{moved}
assert (j := is_derive_comp (fun x => first (root {q} x) (root {q} x)) (fun l => {c} + l) l _ _
  (second_at_equal_eigenvalues _ hc) i).
apply (is_derive_ext_loc (fun l => first ({at}) ({at}))).
- exists (mkposreal l hl); intros y hy; symmetry; apply slope_is_the_kernel.
  assert (z := Rle_abs (l - y)); unfold ball in hy; simpl in hy; unfold AbsRing_ball in hy.
  simpl in hy; unfold abs, minus, plus, opp in hy; simpl in hy.
  replace (y + - l) with (- (l - y)) in hy by ring; rewrite Rabs_Ropp in hy; lra.
- evar_last; [exact j|]; unfold scal; simpl; unfold mult; simpl; in_reals; ring."""
    return lemmas, first, second


def _dense() -> Part:
    body = """
(** Where eigenvalues are close: Hermite and Genocchi's integrals are the divided differences. *)
Theorem integrals_are_divided_differences a b : 0 < a -> 0 < b -> a <> b ->
  is_RInt (fun t => slope (a + t * (b - a))) 0 1 (quotient dense_map a b)
  /\\ is_RInt (fun t => 2 * t * curvature (a + t * (b - a))) 0 1
       (confluent_quotient dense_map slope a b).
Proof.
intros ha hb hne; split.
- exact (first_integral dense_map slope curvature slope_is_the_derivative
    curvature_is_half_the_second_derivative a b ha hb hne).
- exact (confluent_integral dense_map slope curvature slope_is_the_derivative
    curvature_is_half_the_second_derivative curvature_is_continuous a b ha hb hne).
Qed.

(** At equal eigenvalues they are f' and f''/2. *)
Theorem integrals_at_equal_eigenvalues a :
  is_RInt (fun t => slope (a + t * (a - a))) 0 1 (slope a)
  /\\ is_RInt (fun t => 2 * t * curvature (a + t * (a - a))) 0 1 (curvature a).
Proof.
split; [apply first_integral_at_equal_eigenvalues | apply confluent_integral_at_equal_eigenvalues].
Qed.

(** Three points: the weighted mean of two confluent differences is f[a, k, b]. *)
Theorem dense_kernels_are_divided_differences :
  kernel 1 dense_map (dense_first dense_map slope) (dense_second dense_map slope curvature).
Proof. exact (dense_kernel dense_map slope curvature). Qed.
"""
    return body, (
        Theorem("integrals_are_divided_differences",
                "The integrals of f' and t f'' that are taken where eigenvalues are close are the "
                "quotients f[a, b] and f[a, b, b].", "closed_form"),
        Theorem("integrals_at_equal_eigenvalues",
                "At equal eigenvalues the integrals are f' and f''/2.", "closed_form"),
        Theorem("dense_kernels_are_divided_differences",
                "For all positive eigenvalues the kernels that are put together from f, f', f''/2, "
                "quotients and weighted means are the divided differences.", "coefficient"),
    )  # fmt: skip


def _agreement(shifted: tuple[SpectralMap, sp.Expr], text: Text) -> Part:
    inner, shift = shifted
    q, c = inner.degree, text.show.argument(shift)
    s = "(root {q} ({c} + {x}))"
    a, k, b = (s.format(q=q, c=c, x=x) for x in "akb")
    body = f"""
(** They are the separated kernels at the shifted roots, which solve the matrix equation. *)
Theorem dense_kernels_are_the_separated_ones a k b : 0 < a -> 0 < k -> 0 < b ->
  dense_first dense_map slope a b = first {a} {b}
  /\\ dense_second dense_map slope curvature a k b = second {a} {k} {b}.
Proof.
apply (kernels_agree {q} value first second dense_map slope curvature {c});
  [lia | positive | exact kernels_are_divided_differences | |
   exact slope_is_the_kernel | exact curvature_is_the_kernel].
intros l hl; rewrite dense_map_is_shifted; apply value_is_the_map; positive.
Qed.
"""
    says = (
        "The dense kernels are the separated ones of the shifted eigenvalues, so they solve the "
        "same matrix equation."
    )
    return body, (Theorem("dense_kernels_are_the_separated_ones", says, "coefficient"),)


def _programs(spectral: SpectralMap, text: Text, shifted) -> Part:
    functions = functions_of(kernel_source(spectral))
    passed = "".join(f" {n}" for n in text.names.values())
    lines, theorems = ["(** The generated functions, line by line, over the reals. *)"], []
    for name, meant, words in (
        ("values", "dense_map", "the values f"),
        ("_slope", "slope", "the slope f'"),
        ("_curvature", "curvature", "the curvature f''/2"),
    ):
        program = f"program_{name.strip('_')}"
        lines += transcribed(functions[name], program)
        arguments = [a.arg for a in functions[name].args.kwonlyargs]
        call = passed if arguments else ""
        theorem = f"program_of_{name.strip('_')}"
        lines.append(
            f"Theorem {theorem} a : 0 < a -> {program} a{call} = {meant} a.\n"
            f"Proof.\nintros ha; unfold {program}, {meant}; cbv zeta.\n"
            f"{_close(shifted, text)}\nQed."
        )
        says = f"The lines of the generated function for {words} compute it, over the reals."
        theorems.append(Theorem(theorem, says, "bridge"))
    return "\n".join(lines), tuple(theorems)


def _close(shifted, text: Text) -> str:
    if shifted is None:
        return "by_ring_or_field."
    inner, shift = shifted
    q, c = inner.degree, text.show.argument(shift)
    point = f"({c} + a)"
    swap = f"rewrite ?(Rplus_comm a {c})."
    return "\n".join(
        [
            f"{swap} assert (hc : 0 < {c} + a) by positive.",
            *root_steps(q, point, "exact hc"),
            f"assert (e := root_power {q} {point} ltac:(lia) hc).",
            f"assert (hs := root_pos {q} {point}).",
            f"set (s := root {q} {point}) in *; clearbody s; rewrite <- ?e; by_field.",
        ]
    )
