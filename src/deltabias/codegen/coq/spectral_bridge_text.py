"""Coq text about the generated functions: line by line they compute the certified kernels."""

from deltabias.calculus.spectral import SpectralMap
from deltabias.codegen.coq.certificate import Theorem
from deltabias.codegen.coq.spectral_document import Part, Text
from deltabias.codegen.coq.spectral_kernel_text import positives
from deltabias.codegen.coq.spectral_program import functions_of, transcribed
from deltabias.codegen.spectral import kernel_source


def programs(spectral: SpectralMap, text: Text) -> Part:
    """The functions of the generated module are the kernels."""
    functions = functions_of(kernel_source(spectral))
    q = spectral.degree
    passed = "".join(f" {n}" for n in text.names.values())
    lines, theorems = ["(** The generated functions, line by line, over the reals. *)"], []
    for name in ("roots", "values", "_step", "_first", "_coefficients", "_weights"):
        lines += transcribed(functions[name], f"program_{name.strip('_')}")
    pair = f"intros ha hb; {positives('ab')}"
    many = range(len(spectral.parts))
    statements = [
        ("roots", "l", f"program_roots l = root {q} l", _roots_proof(q)),
        ("values", "a", f"program_values a{passed} = value a", "intros ha; CLOSE"),
        ("step", "a b", "program_step a b = step a b", f"{pair} CLOSE"),
        ("first", "a b", f"program_first a b{passed} = first a b", f"{pair} CLOSE"),
        (
            "coefficients",
            "a b",
            " /\\ ".join(
                f"program_coefficients_{i} a b{passed} = coefficient_{i} a b" for i in many
            ),
            f"{pair} repeat split; CLOSE",
        ),
        (
            "weights",
            "k",
            " /\\ ".join(f"program_weights_{i} k{passed} = weight_{i} k" for i in many),
            "intros hk; repeat split; CLOSE",
        ),
    ]
    for name, arguments, claim, proof in statements:
        unfold = ", ".join(
            f"program_{name}_{i}" if name in ("coefficients", "weights") else f"program_{name}"
            for i in (many if name in ("coefficients", "weights") else [0])
        )
        close = f"unfold {unfold}; cbv zeta; expose; by_field."
        hypotheses = " -> ".join(f"0 < {x}" for x in arguments.split())
        theorem = f"program_of_{name}"
        lines.append(
            f"Theorem {theorem} {arguments} : {hypotheses} ->\n  {claim}.\n"
            f"Proof. {proof.replace('CLOSE', close)} Qed."
        )
        says = (
            f"The lines of the generated function for {_WORDS[name]} compute them, over the reals."
        )
        theorems.append(Theorem(theorem, says, "bridge"))
    return "\n".join(lines), tuple(theorems)


_WORDS = {
    "roots": "the eigenvalues' roots",
    "values": "the values f",
    "step": "the steps by which perturbations are divided",
    "first": "the first divided differences",
    "coefficients": "the coefficients of the matrix products",
    "weights": "the weights between the perturbations",
}


def _roots_proof(q: int) -> str:
    """Square roots of roots, and one of odd degree, are the root of degree q."""
    if q == 1:
        return "intros hl; unfold program_roots; symmetry; now apply root_1."
    steps = root_steps(q, "l", "assumption")
    return "\n".join(["intros hl; unfold program_roots.", *steps, "reflexivity."])


def root_steps(q: int, point: str, positive: str) -> list[str]:
    """Proof lines that turn nested roots of a point into the one of degree q."""
    steps, degree = [], 1
    while q % (2 * degree) == 0:
        inner = f"(root {degree} {point})" if degree > 1 else point
        steps.append(f"rewrite ?(sqrt_is_root {inner}) by ({positive} || apply root_pos).")
        if degree > 1:
            steps.append(_JOIN.format(positive=positive))
        degree *= 2
    if 1 < degree < q:
        steps.append(_JOIN.format(positive=positive))
    return steps


_JOIN = "rewrite ?root_of_root by (lia || {positive}); cbn [Nat.mul Nat.add]."
