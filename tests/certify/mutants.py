"""False versions of certificates: each has to be rejected by Coq.

A mutant is one substitution in one certificate: a coefficient, a sign, an exponent, a domain, an
operation of a printed program, a remainder's constant. Its text must occur exactly once.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the certificate of ``rule``; ``why`` that is false."""

    rule: str
    old: str
    new: str
    why: str
    order: int = 2

    @property
    def name(self) -> str:
        return f"{self.rule}: {self.why}"


ROOT, LOG, FLAT = "g/(sqrt(v)+eps)", "g/log(1+v)", "g*tanh(v)"
FOURTH = "v**(-1/2)"


def _m(rule: str, old: str, new: str, why: str, order: int = 2) -> Mutant:
    return Mutant(rule, old, new, why, order)


MUTANTS = (
    # coefficients, signs and exponents of what was derived
    _m("inverse", "R := - / h ^ 2.\n(**", "R := / h ^ 2.\n(**", "coupling of the other sign"),
    _m("inverse", "R := g / h ^ 3.", "R := g / (2 * h ^ 3).", "half of the inversion"),
    _m("inverse", "R := g / h ^ 3.", "R := g / h ^ 2.", "inversion with another power"),
    _m("inverse_sqrt", "3 * g / (8 *", "3 * g / (6 *", "3/6 in place of 3/8"),
    _m(
        ROOT,
        "inversion_coefficient (g v : R) : R := g * (eps + 3 * sqrt v)",
        "inversion_coefficient (g v : R) : R := g * (eps + 2 * sqrt v)",
        "2 s in place of 3 s",
    ),
    _m(
        ROOT,
        "coupling_coefficient (g v : R) : R := - / (2 *",
        "coupling_coefficient (g v : R) : R := - / (4 *",
        "half of the coupling",
    ),
    _m(
        LOG,
        "inversion_coefficient (g v : R) : R := g / (2 *",
        "inversion_coefficient (g v : R) : R := g / (3 *",
        "a third of one part",
    ),
    _m(
        FOURTH,
        "skewness_coefficient (v : R) : R := - (5 /",
        "skewness_coefficient (v : R) : R := - (4 /",
        "third cumulant with 4/16",
        4,
    ),
    _m(
        FOURTH,
        "square_coefficient (v : R) : R := 105 / (128",
        "square_coefficient (v : R) : R := 35 / (128",
        "squared variance over 24 in place of 8",
        4,
    ),
    # derivatives
    _m(
        "inverse",
        "Definition f_3 (h : R) : R := - (6 /",
        "Definition f_3 (h : R) : R := - (5 /",
        "a wrong third derivative",
    ),
    _m(
        "inverse",
        "Definition f_4 (h : R) : R := 24 / h ^ 5",
        "Definition f_4 (h : R) : R := 24 / h ^ 4",
        "a wrong power in the fourth",
    ),
    _m(ROOT, "Definition f_1 (v : R) : R := -", "Definition f_1 (v : R) : R :=", "a rising map"),
    _m(
        LOG,
        "Definition f_2 (v : R) : R := (atom_1 v + 2)",
        "Definition f_2 (v : R) : R := (atom_1 v + 1)",
        "a wrong second derivative",
    ),
    _m(
        LOG,
        "is_derive atom_1 v (/ (v + 1))",
        "is_derive atom_1 v (/ v)",
        "another logarithm's slope",
    ),
    _m(
        FLAT,
        "Definition f_2 (v : R) : R := 2 *",
        "Definition f_2 (v : R) : R := 3 *",
        "a wrong curvature of tanh",
    ),
    # domains
    _m(
        "inverse",
        "tower f 4 (fun h => 0 < h)",
        "tower f 4 (fun h => 0 <= h)",
        "derivatives at zero",
    ),
    _m(
        "inverse",
        "derivative lo h : 0 < lo -> lo <= h ->\n  Rabs (f_3 h)",
        "derivative lo h : 0 <= lo -> lo <= h ->\n  Rabs (f_3 h)",
        "a bound at zero",
    ),
    _m(
        "inverse",
        "derivative lo h : 0 < lo -> lo <= h ->\n  Rabs (f_3 h)",
        "derivative lo h : 0 < lo -> 0 < h ->\n  Rabs (f_3 h)",
        "a bound below the lower end",
    ),
    _m(
        ROOT,
        "Hypothesis eps_range : 0 <= eps.",
        "Hypothesis eps_range : 0 - 1 <= eps.",
        "a negative stabilizer",
    ),
    _m(
        "sophia",
        "Hypothesis rho_range : 0 < rho.",
        "Hypothesis rho_range : 0 <= rho.",
        "a divisor that may be zero",
    ),
    _m(
        "sophia",
        "Definition inside (exp_avg hessian : R) : Prop :=\n  hessian * rho > eps /\\",
        "Definition inside (exp_avg hessian : R) : Prop :=\n  hessian * rho > 0 /\\",
        "smooth below the floor",
    ),
    # bounds and remainders
    _m("inverse", "  6 * (/ (lo ^ 4))", "  5 * (/ (lo ^ 4))", "a bound that the lower end exceeds"),
    _m("inverse", "  24 * (/ (lo ^ 5))", "  24 * (/ (lo ^ 6))", "a bound with another power"),
    _m(
        LOG,
        "  2 * (/ (atom_1 lo ^ 2 * (lo + 1) ^ 3)) +",
        "  1 * (/ (atom_1 lo ^ 2 * (lo + 1) ^ 3)) +",
        "a bound short of one part",
    ),
    _m(
        FLAT,
        "Definition bound_3 : R := 21 / 10.",
        "Definition bound_3 : R := 19 / 10.",
        "a bound below the derivative",
    ),
    _m("inverse", "<= bound_3 lo / 6 *", "<= bound_3 lo / 7 *", "a remainder over 7"),
    _m(
        "inverse",
        "lo) limit L G V / INR m ^ 2",
        "lo) limit L G V / INR m ^ 3",
        "a batch's remainder of third order",
    ),
    _m(FOURTH, "<= bound_5 lo / 120 *", "<= bound_5 lo / 720 *", "a remainder over 6!", 4),
    # what is said of the bias
    _m(
        "inverse",
        "coupling_coefficient g h * Cov L G V\n",
        "2 * coupling_coefficient g h * Cov L G V\n",
        "coupling twice",
    ),
    _m(
        "inverse",
        "           + inversion_coefficient g h * Var L V\n",
        "           - inversion_coefficient g h * Var L V\n",
        "inversion subtracted",
    ),
    # programs
    _m("inverse", "let update_ := g / h in", "let update_ := g * h in", "a product for a quotient"),
    _m(
        ROOT,
        "let t_1 := t_0 + eps in\n  let update_",
        "let t_1 := t_0 - eps in\n  let update_",
        "the stabilizer subtracted",
    ),
    _m(
        ROOT, "let t_6 := share * 2 in", "let t_6 := share * 3 in", "another share of the inversion"
    ),
    _m(
        ROOT,
        "let inversion := t_9 * (1 / 8) in",
        "let inversion := t_9 * (1 / 4) in",
        "a printed constant",
    ),
    _m(
        ROOT,
        "let numerator := g + t_4 in",
        "let numerator := g - t_4 in",
        "coupling leaves the numerator",
    ),
    _m(
        ROOT,
        "let t_12 := denominator * t_11 in",
        "let t_12 := denominator + t_11 in",
        "a sum for a product",
    ),
    _m("inverse_sqrt", "let t_0 := sqrt v in", "let t_0 := v in", "the root forgotten"),
    _m(
        "sophia",
        "let t_1 := Rmax t_0 eps in",
        "let t_1 := Rmin t_0 eps in",
        "a ceiling for a floor",
    ),
    # the corrected form
    _m(ROOT, "n * q ^ 2 / (1 + q)", "n * q ^ 3 / (1 + q)", "agreement to third order"),
    _m(ROOT, "0 < c <= f_0 v", "0 < c <= f_0 v / 2", "a factor that always halves"),
    _m(LOG, "\n  = update g v - coupling", "\n  = update g v + coupling", "the bias added"),
)
