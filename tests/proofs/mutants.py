"""False versions of the theory's statements: each has to be rejected.

A mutant is one substitution in one file: a coefficient, a sign, an exponent, an index, a bound, or
a hypothesis left out. Its text must occur exactly once, so a mutant that no longer fits the theory
fails its test rather than passing for nothing.
"""

from dataclasses import dataclass

from tests.certify_matrix.theory_mutants import MATRIX_MUTANTS


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in ``file``; ``why`` it is false."""

    file: str
    old: str
    new: str
    why: str

    @property
    def name(self) -> str:
        return f"{self.file}: {self.why}"


def _m(file: str, old: str, new: str, why: str) -> Mutant:
    return Mutant(file, old, new, why)


MUTANTS = (
    # coefficients
    _m(
        "taylor",
        "+ F (S n) z / INR (fact (S n)) * (x - mu) ^ S n.\nProof.\nintros hF.",
        "+ F (S n) z / INR (fact n) * (x - mu) ^ S n.\nProof.\nintros hF.",
        "remainder over n! in place of (n+1)!",
    ),
    _m(
        "delta",
        "- F 0%nat (mean L X) - / 2 * F 2%nat (mean L X) * Var L X)",
        "- F 0%nat (mean L X) - / 3 * F 2%nat (mean L X) * Var L X)",
        "a third of the second derivative",
    ),
    _m(
        "delta",
        "<= M / 6 * E L (fun a => Rabs (X a - mean L X) ^ 3).",
        "<= M / 7 * E L (fun a => Rabs (X a - mean L X) ^ 3).",
        "remainder constant too small",
    ),
    _m("delta", "+ / 24 * F 4%nat (mean L X)", "+ / 12 * F 4%nat (mean L X)", "f''''/12"),
    _m(
        "delta",
        "+ F 1%nat (mean L v) * Cov L g v\n",
        "+ / 2 * F 1%nat (mean L v) * Cov L g v\n",
        "half of the coupling",
    ),
    _m(
        "delta",
        "+ F 1%nat (mean L v) * Cov L g v\n",
        "- F 1%nat (mean L v) * Cov L g v\n",
        "coupling with the wrong sign",
    ),
    _m(
        "delta",
        "\n           + / 2 * F 2%nat (mean L v) * E L (fun a => (g a - mean L g)",
        "\n           + 0 * F 2%nat (mean L v) * E L (fun a => (g a - mean L g)",
        "mixed third moment forgotten",
    ),
    _m(
        "joint_delta",
        "+ T 1%nat 1%nat mx my * Cov L X Y\n           +",
        "+ / 2 * T 1%nat 1%nat mx my * Cov L X Y\n           +",
        "half of the mixed derivative",
    ),
    _m(
        "joint_delta",
        "+ / 2 * T 0%nat 2%nat mx my * Var L Y))\n",
        "+ / 2 * T 0%nat 2%nat mx my * Var L X))\n",
        "variance of the other variable",
    ),
    _m(
        "inverse",
        "- / mu - Var L X / mu ^ 3 = - E L",
        "- / mu - Var L X / mu ^ 3 = E L",
        "sign of the rest of 1/X",
    ),
    _m(
        "inverse",
        "- / mu - Var L X / mu ^ 3 =",
        "- / mu - Var L X / mu ^ 2 =",
        "power of the mean in 1/X",
    ),
    _m(
        "inverse", "/ mu <= E L (fun a => / X a).", "E L (fun a => / X a) <= / mu.", "Jensen turned"
    ),
    _m("power", "falling (- / 2) 2 / 2 = 3 / 8", "falling (- / 2) 2 / 2 = 1 / 4", "1/4 for 3/8"),
    _m(
        "power", "falling (- / 4) 2 / 2 = 5 / 32", "falling (- / 4) 2 / 2 = 5 / 16", "5/16 for 5/32"
    ),
    _m("power", "(p + 1) / (2 * p ^ 2).", "(p - 1) / (2 * p ^ 2).", "p-1 for p+1"),
    _m(
        "power",
        "+ 3 / 8 * Var L X * Rpower (mean L X) (- (5 / 2))",
        "+ 3 / 8 * Var L X * Rpower (mean L X) (- (3 / 2))",
        "exponent of the mean",
    ),
    _m(
        "power",
        "<= 5 / 16 * Rpower lo (- (7 / 2))",
        "<= 5 / 32 * Rpower lo (- (7 / 2))",
        "half of the remainder's constant",
    ),
    _m(
        "power",
        "probability L -> a <= INR (S n) -> 0 < lo ->",
        "probability L -> a <= INR (S (S n)) -> 0 < lo ->",
        "a last derivative that grows",
    ),
    _m(
        "sqrt_eps",
        "| 2%nat => (eps + 3 * s) /",
        "| 2%nat => (eps + 2 * s) /",
        "second derivative of the root",
    ),
    _m(
        "sqrt_eps",
        "(5 * eps ^ 3 + 25 * eps ^ 2 * s + 47 * eps * s ^ 2 + 35 * s ^ 3)\n",
        "(5 * eps ^ 3 + 25 * eps ^ 2 * s + 46 * eps * s ^ 2 + 35 * s ^ 3)\n",
        "one coefficient of the fourth derivative",
    ),
    _m(
        "sqrt_eps",
        "<= 15 / 8 / (s0 ^ 5 * (s0 + eps) ^ 2).",
        "<= 14 / 8 / (s0 ^ 5 * (s0 + eps) ^ 2).",
        "bound of the third derivative",
    ),
    _m(
        "sqrt_eps",
        "<= 5 / 16 / (sqrt lo ^ 5 * (sqrt lo + eps) ^ 2)",
        "<= 5 / 16 / (sqrt lo ^ 5 * (sqrt lo + eps) ^ 3)",
        "exponent in the constant",
    ),
    # estimators
    _m(
        "estimators",
        "Theorem E_scatter : E L scatter = sum m (fun r => (w r - w r ^ 2) * c r).",
        "Theorem E_scatter : E L scatter = sum m (fun r => (w r + w r ^ 2) * c r).",
        "mean's share added",
    ),
    _m(
        "estimators",
        "(forall r, (r < m)%nat -> w r = / INR m) ->\n  E L (fun a => scatter a / (INR m - 1))",
        "(forall r, (r < m)%nat -> w r = / INR m) ->\n  E L (fun a => scatter a / INR m)",
        "over m in place of m-1",
    ),
    _m(
        "estimators",
        "Theorem unbiased_equal_weights : (2 <= m)%nat ->",
        "Theorem unbiased_equal_weights : (1 <= m)%nat ->",
        "one microbatch has a variance",
    ),
    _m(
        "estimators",
        "Hypothesis meanY : forall r, (r < m)%nat -> mean L (Y r) = nu.\n",
        "Hypothesis meanY : mean L (Y 0%nat) = nu.\n",
        "different means",
    ),
    _m(
        "estimators",
        "r <> s ->\n  Cov L (X r) (Y s) = 0.",
        "r <> s -> r = O ->\n  Cov L (X r) (Y s) = 0.",
        "most microbatches correlated",
    ),
    _m(
        "estimators",
        "- target + b / (INR m * (INR m - 1)))\n",
        "- target - b / (INR m * (INR m - 1)))\n",
        "sign of what the jackknife leaves",
    ),
    _m(
        "estimators",
        "(numerator : A -> R) (v : B -> R) f :\n  E (product L M) (fun p => numerator (fst p) *"
        " f (v (snd p)))\n  = E L numerator",
        "(numerator : A -> R) (v : A -> R) f :\n  E (product L M) (fun p => numerator (fst p) *"
        " f (v (fst p)))\n  = E L numerator",
        "one fold for both",
    ),
    # means
    _m(
        "mean_law",
        "= (central L 4 X + 3 * (INR m - 1) * Var L X ^ 2) / INR m ^ 3.",
        "= (central L 4 X + 3 * INR m * Var L X ^ 2) / INR m ^ 3.",
        "fourth moment of a mean",
    ),
    _m(
        "mean_law",
        "average m X) = central L 3 X / INR m ^ 2.",
        "average m X) = central L 3 X / INR m.",
        "third cumulant over m",
    ),
    _m(
        "mean_delta",
        "F 3%nat mu / 6 * c3 + F 4%nat mu / 8 * v ^ 2.",
        "F 3%nat mu / 6 * c3 + F 4%nat mu / 24 * v ^ 2.",
        "1/24 for 1/8 in the second order",
    ),
    _m(
        "mean_delta",
        "- F 0%nat mu + second_coefficient / (n * (n - 1)))",
        "- F 0%nat mu + first_coefficient / (n * (n - 1)))",
        "what the jackknife leaves",
    ),
    _m(
        "coupled_mean",
        "Definition coupling : R := F 1%nat mu * Cov L g v.",
        "Definition coupling : R := F 1%nat mu * Cov L g v / 2.",
        "half of the coupling of a batch",
    ),
    _m(
        "coupled_mean",
        "Definition inversion : R := F 2%nat mu / 2 * mean L g * Var L v.",
        "Definition inversion : R := F 2%nat mu / 2 * Var L v.",
        "inversion without the numerator",
    ),
    _m(
        "coupled_mean",
        "/\\ mixed 2%nat = moment L 1 2 g v / n ^ 2\n",
        "/\\ mixed 2%nat = moment L 1 2 g v / n\n",
        "mixed third moment over m",
    ),
    # matrices
    _m(
        "resolvent",
        "Theorem resolvent_identity : (A + H)^-1 = A^-1 - A^-1 * H * (A + H)^-1.",
        "Theorem resolvent_identity : (A + H)^-1 = A^-1 - H * A^-1 * (A + H)^-1.",
        "factors commuted",
    ),
    _m(
        "resolvent",
        "- A^-1 * H * A^-1 * H * A^-1 * H * (A + H)^-1.\nProof.",
        "+ A^-1 * H * A^-1 * H * A^-1 * H * (A + H)^-1.\nProof.",
        "sign of the third order",
    ),
    _m(
        "resolvent",
        "Hypothesis centered : \\sum_a w a * H a = 0.\n",
        "Hypothesis centered : \\sum_a w a * H a = 1.\n",
        "perturbation with a mean",
    ),
    _m(
        "divided",
        "(x * y) ^ (p - 1 - c) * h c x y * z ^ (p + c)) (p - 1)\n  / (h",
        "(x * y) ^ (p - c) * h c x y * z ^ (p + c)) (p - 1)\n  / (h",
        "exponent in the kernel",
    ),
    _m(
        "divided",
        "second_order p x x x = (INR p + 1) / (2 * INR p ^ 2) * x ^ (2 * p + 1).",
        "second_order p x x x = (INR p + 1) / (2 * INR p) * x ^ (2 * p + 1).",
        "equal eigenvalues",
    ),
    _m(
        "matrix_root",
        "+ first_order p x z * first_order p z y * h3 n x z y\n",
        "- first_order p x z * first_order p z y * h3 n x z y\n",
        "sign of the product of first orders",
    ),
    _m(
        "matrix_root",
        "fun i j => first_order p (x i) (x j) * H i j.",
        "fun i j => first_order p (x i) (x i) * H i j.",
        "eigenvalues of the diagonal alone",
    ),
    # time
    _m(
        "ema",
        "= b1 * b2 * Cov past m v + (1 - b1) * (1 - b2) * Cov step g s.",
        "= b1 * b2 * Cov past m v + (1 - b1 * b2) * Cov step g s.",
        "gain of the covariance",
    ),
    _m(
        "ema",
        "= - A * q + 3 / 2 * B * q - 3 / 4 * B * q ^ 2.",
        "= - A * q + 3 / 2 * B * q - 3 / 8 * B * q ^ 2.",
        "3/8 for 3/4",
    ),
    _m(
        "ema",
        "(1 - b1) * (1 - b2) * (1 - (b1 * b2) ^ S t)\n",
        "(1 - b1) * (1 - b2) * (1 - (b1 * b2) ^ t)\n",
        "one step fewer",
    ),
    # the safe form
    _m(
        "safe_ratio",
        "/ (s + eps) * (rho * share * (1 + 2 * share) / 8)\n",
        "/ (s + eps) * (rho * share * (2 + share) / 8)\n",
        "polynomial of the share",
    ),
    _m(
        "safe_ratio",
        "0 < f -> 0 <= q -> 0 < f / (1 + q) <= f.",
        "0 < f -> 0 < f / (1 + q) <= f.",
        "negative relative variance",
    ),
    _m(
        "safe_ratio",
        "f / (1 + q) = f - f * q + f * q ^ 2 / (1 + q).",
        "f / (1 + q) = f - f * q - f * q ^ 2 / (1 + q).",
        "sign of the second order",
    ),
    # rules as executed
    _m(
        "rules",
        "State (param s * (1 - lr * decay))",
        "State (param s * (1 - decay - lr))",
        "decay not scaled by the learning rate",
    ),
    _m(
        "rules",
        "adam_step (lr / root) 0 b2 (eps / root) t.",
        "adam_step lr 0 b2 eps t.",
        "debiasing not undone",
    ),
    _m(
        "rules",
        "Rpower v (- / 4) * g * Rpower v (- / 4) = g / sqrt v.",
        "Rpower v (- / 2) * g * Rpower v (- / 2) = g / sqrt v.",
        "wrong root",
    ),
    _m(
        "rules",
        "/ (sqrt (v / (1 - b2 ^ t)) + eps)).",
        "/ (sqrt (v / (1 - b2 ^ t) + eps))).",
        "eps inside the root",
    ),
    _m(
        "finite_law",
        "= 2 * mean L X * Var L X + central L 3 X.",
        "= mean L X * Var L X + central L 3 X.",
        "covariance with the square",
    ),
    _m(
        "finite_law",
        "+ central L 4 X - Var L X ^ 2.",
        "+ central L 4 X - 3 * Var L X ^ 2.",
        "cumulant for moment",
    ),
    _m(
        "elementary",
        "v (du / (2 * sqrt (u v))).",
        "v (du / (3 * sqrt (u v))).",
        "a third for half of the root's slope",
    ),
    _m("elementary", "1 < a <= b -> 0 < ln a", "0 < a <= b -> 0 < ln a", "logarithms below one"),
    _m(
        "elementary",
        "0 < b <= a -> 0 <= / a <= / b.",
        "0 <= b <= a -> 0 <= / a <= / b.",
        "an inverse at zero",
    ),
    _m("unit_numerator", "mean L (fun _ => 1) = 1.", "mean L (fun _ => 1) = 2.", "a mean of ones"),
    *(Mutant(*parts) for parts in MATRIX_MUTANTS),
)
QUICK = ("half of the coupling", "over m in place of m-1", "wrong root")
