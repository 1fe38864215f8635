"""False versions of certificates: one change in one text, each to be rejected by Coq.

A coefficient, a sign, an exponent, an index, a factor's place, a hypothesis, an operation of a
printed program. The text that is changed must occur exactly once.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the certificate of ``subject``; ``why`` it is false."""

    subject: str
    old: str
    new: str
    why: str

    @property
    def name(self) -> str:
        return f"{self.subject}: {self.why}"


MUTANTS = (
    # kernels of maps
    Mutant(
        "inverse_sqrt_plus_eps",
        "R := (eps + a + b) / (",
        "R := (eps + a + 2 * b) / (",
        "a coefficient of the second order doubled in one root",
    ),
    Mutant(
        "inverse_sqrt_plus_eps",
        "(k : R) : R := k / (eps + k).",
        "(k : R) : R := k / (eps + k) ^ 2.",
        "an exponent in a weight",
    ),
    Mutant(
        "inverse_sqrt_plus_eps",
        "first (a b : R) : R := - / (",
        "first (a b : R) : R := / (",
        "the first order with the wrong sign",
    ),
    Mutant(
        "inverse_sqrt_plus_eps",
        "Definition map (l : R) : R := / (sqrt l + eps).",
        "Definition map (l : R) : R := / sqrt (l + eps).",
        "eps inside the root",
    ),
    Mutant(
        "inverse_sqrt_plus_eps",
        "Hypothesis eps_not_negative : 0 <= eps.",
        "Hypothesis eps_not_negative : - 1 <= eps.",
        "a negative eps, where denominators vanish",
    ),
    Mutant(
        "inverse_sqrt_plus_eps",
        "coefficient_1 a b * weight_1 k) / (step a k * step k b)",
        "coefficient_1 a b * weight_1 k) / (step a k * step a b)",
        "divided by the step of another pair",
    ),
    Mutant(
        "inverse_root_2",
        "kernel 2 value first second",
        "kernel 3 value first second",
        "kernels of a square root called those of a cube root",
    ),
    Mutant(
        "inverse_root_2",
        "X^2 (A + t H) = 1 up to t^3. *)\nTheorem matrix_equation d s H : (forall i, 0 < s i) ->\n"
        "  same_jet d (jet_mul d (jet_pow d (kernel_jet d value first second s H) 2)",
        "X^2 (A + t H) = 1 up to t^3. *)\nTheorem matrix_equation d s H : (forall i, 0 < s i) ->\n"
        "  same_jet d (jet_mul d (jet_pow d (kernel_jet d value first second s H) 1)",
        "X in place of X^2 in the equation of the square root",
    ),
    Mutant(
        "inverse_root_2",
        "\n    (2 * second (root 2 l) (root 2 l) (root 2 l)).",
        "\n    (second (root 2 l) (root 2 l) (root 2 l)).",
        "f'' in place of f''/2",
    ),
    # programs of maps
    Mutant(
        "inverse_sqrt_plus_eps",
        "Definition program_values (root_ eps : R) : R :=\n  (/ (root_ + eps)).",
        "Definition program_values (root_ eps : R) : R :=\n  (/ (root_ - eps)).",
        "a subtraction in the printed values",
    ),
    Mutant(
        "inverse_root_2",
        "Definition program_step (left right : R) : R :=\n  (left + right).",
        "Definition program_step (left right : R) : R :=\n  (left * right).",
        "a product in the printed step",
    ),
    # dense maps
    Mutant(
        "heat_kernel",
        "curvature (a : R) : R := exp (- a) / 2.",
        "curvature (a : R) : R := exp (- a).",
        "the whole second derivative",
    ),
    Mutant(
        "heat_kernel",
        "(fun t => 2 * t * curvature (a + t * (b - a))) 0 1\n       (confluent",
        "(fun t => t * curvature (a + t * (b - a))) 0 1\n       (confluent",
        "half of an integrand",
    ),
    Mutant(
        "shifted_root_4",
        "curvature (a : R) : R := 5 / (32 * ",
        "curvature (a : R) : R := 5 / (16 * ",
        "twice the curvature",
    ),
    # rules
    Mutant(
        "shampoo",
        "Definition cross_1 (delta : direction) : matrix :=\n  ((D_P_L (delta 0%nat)) ** mean_M ** "
        "(D_P_R (delta 2%nat))).",
        "Definition cross_1 (delta : direction) : matrix :=\n  (scale 2 ((D_P_L (delta 0%nat)) ** "
        "mean_M ** (D_P_R (delta 2%nat)))).",
        "the cross term doubled",
    ),
    Mutant(
        "shampoo",
        "(P_L ** (delta 1%nat) ** (D_P_R (delta 2%nat)))",
        "(P_L ** (D_P_R (delta 2%nat)) ** (delta 1%nat))",
        "two factors that do not commute exchanged",
    ),
    Mutant(
        "shampoo_one_sided",
        "((DD_P_L (delta 0%nat)) ** mean_M)",
        "((D_P_L (delta 0%nat)) ** mean_M)",
        "a first order for the inversion",
    ),
    Mutant(
        "shampoo_one_sided",
        " -> (forall n i j, E law (fun a => delta a n i j) = 0) ->",
        " ->",
        "deviations whose mean is not zero",
    ),
    Mutant(
        "full_matrix_adagrad",
        "E law (fun a => coupling_1 (delta a) i j) + ",
        "",
        "the bias without its coupling",
    ),
    Mutant(
        "muon_polar",
        "((delta 0%nat) ** (D_P_1 ((transpose (delta 0%nat)) ** mean_M)))",
        "((delta 0%nat) ** (D_P_1 ((delta 0%nat) ** mean_M)))",
        "a transpose forgotten",
    ),
    Mutant(
        "soap",
        "=> / 2 * F_1_vv ",
        "=> / 3 * F_1_vv ",
        "a third of the second derivative",
    ),
    Mutant(
        "soap",
        "F_1_mv (m_ v : R) : R := - / (2 * sqrt v * (",
        "F_1_mv (m_ v : R) : R := - / (2 * sqrt v * eps * (",
        "a factor too many in the mixed derivative",
    ),
    Mutant(
        "soap",
        "Hypothesis positive_F_1_v : forall i j, (i < d)%nat -> (j < d)%nat ->\n  0 < value",
        "Hypothesis positive_F_1_v : forall i j, (i < d)%nat -> (j < d)%nat ->\n  0 <= value",
        "a second moment of zero",
    ),
    Mutant(
        "soap",
        "((/ (t_x0 * (t_x1 * t_x1))) * (- (1 / 2)))",
        "((/ (t_x0 * (t_x1 * t_x1))) * (1 / 2))",
        "a sign in the printed mixed derivative",
    ),
)
