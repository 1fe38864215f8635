"""The coefficients and moments that must come out: symbolically, and against exact expectations.

Coefficients are compared as expressions: the difference is simplified to zero. Moments of gamma
laws are compared in closed form with what ball arithmetic encloses, and with the expansion.
"""

from fractions import Fraction

import mpmath
import sympy as sp

from deltabias.calculus.cumulants import KAPPA
from deltabias.derivation import derive
from deltabias.rule import GRADIENT, MEAN, Fresh, Statistic, UpdateRule
from deltabias.truth import Gamma, enclose, inverse_moment, inverse_power
from validation.study import Findings, Progress, Row, Study, no_progress

v = sp.Symbol("v", positive=True)
eps = sp.Symbol("eps", nonnegative=True)
z = sp.Symbol("z", positive=True)
s = sp.sqrt(v)

COEFFICIENTS = {
    "1/v": v**-3,
    "v**(-1/2)": sp.Rational(3, 8) * v ** sp.Rational(-5, 2),
    "1/(sqrt(v)+eps)": (eps + 3 * s) / (8 * s**3 * (s + eps) ** 3),
    "v**(-1/4)": sp.Rational(5, 32) * v ** sp.Rational(-9, 4),
}
"""Map -> the coefficient of Var v in its inversion term."""

POWERS = ("1", "1/2", "1/4")
SHAPES = ("2", "5", "33/2", "400")
DIGITS = 40


def coefficient_row(text: str, expected: sp.Expr) -> Row:
    """The derived coefficient of Var v, and the wrong one that must not pass."""
    (term,) = derive(UpdateRule.parse(text)).terms
    # in "1/v" nothing says that v is positive; its symbol only has the same name
    found = term.coefficient.subs({x: v for x in term.coefficient.free_symbols if x.name == "v"})
    equal = sp.simplify(found - expected) == 0
    planted = sp.simplify(found - sp.Rational(2, 3) * expected) == 0
    return Row(
        f"the coefficient of Var v in the bias of {text}",
        str(found),
        str(expected),
        passed=bool(equal and not planted and str(term.moment) == "var(v)"),
        note="as expressions; two thirds of it is told apart",
    )


def wrong_statistic_row() -> Row:
    """Expanding 1/p in p = sqrt(v) keeps two thirds of the term: ¼ where 3/8 is right."""
    p = sp.Symbol("p", positive=True)
    var_of_p = 1 / (4 * v)  # of √v̄, per unit of Var v
    wrong = (sp.diff(1 / p, p, 2) / 2).subs(p, s) * var_of_p
    (term,) = derive(UpdateRule.parse("v**(-1/2)")).terms
    share = sp.simplify(1 - wrong / term.coefficient)
    return Row(
        "expanding in √v instead of v leaves a third of the bias",
        str(share),
        "1/3",
        passed=share == sp.Rational(1, 3),
    )


def square_of_mean_row() -> Row:
    """Var(ḡ²) through fourth order in the cumulants of one microbatch."""
    statistic = Statistic("v", GRADIENT, outer=MEAN**2, positive=True)
    rule = UpdateRule("square", "v**(-1/2)", (Fresh("v", statistic),))
    m = sp.Symbol("m", integer=True, positive=True)
    derivation = derive(rule)
    (term,) = derivation.terms
    variance = sp.expand(derivation.at(1, microbatches=m) / term.coefficient)
    k1, k2, k3, k4 = (KAPPA(n) for n in (1, 2, 3, 4))
    expected = 4 * k1**2 * k2 / m + 2 * k2**2 / m**2 + 4 * k1 * k3 / m**2 + k4 / m**3
    return Row(
        "Var(ḡ²) = 4μ²σ²/m + 2σ⁴/m² + third and fourth cumulants",
        str(variance),
        str(expected),
        passed=sp.simplify(variance - expected) == 0,
    )


def gamma_series(order: int = 3) -> sp.Expr:
    """E 1/X of Gamma(k, 1/k) as the expansion has it, in z = 1/k: cumulants (n-1)! z^(n-1)."""
    x = Statistic("x", GRADIENT, positive=True)
    rule = UpdateRule("inverse_mean", "1/x", (Fresh("x", x),))
    derivation = derive(rule, order)
    bias = derivation.at(1, microbatches=1).subs(derivation.means(1, microbatches=1))
    law = bias.replace(KAPPA, lambda n: sp.factorial(n - 1) * z ** (n - 1))
    return sp.expand(1 + law)


def series_row(order: int = 3) -> Row:
    """1/x under Gamma(k, 1/k): every coefficient of the geometric series through z³."""
    found = sp.Poly(gamma_series(order), z).all_coeffs()[::-1][: order + 1]
    return Row(
        "1/x under Gamma(k, 1/k) is 1 + z + z² + z³ + …, z = 1/k",
        " ".join(map(str, found)),
        " ".join(["1"] * (order + 1)),
        passed=found == [1] * (order + 1),
        note=f"derive(order={order}); terms beyond z^{order} are dropped",
    )


def moment_row(power: str, shape: str) -> Row:
    """E X^-p of Gamma(k, 1/k): closed form inside the rigorous enclosure."""
    law = Gamma(shape, 1 / Fraction(shape))
    closed = inverse_moment(law, power, DIGITS)
    ball = enclose(inverse_power(power), law, digits=DIGITS)
    middle = mpmath.mpf(ball.str(DIGITS + 5, radius=False))
    error = abs(closed / middle - 1)
    return Row(
        f"E X^-{power} under Gamma({shape}, 1/{shape}): closed form and ball agree to 35 digits",
        float(closed),
        float(middle),
        passed=bool(error < mpmath.mpf(10) ** -35),
        note=f"relative difference {mpmath.nstr(error, 2)}",
    )


def study(*, workers: int = 1, progress: Progress = no_progress) -> Findings:
    """Every number of the design, as rows."""
    makers = [lambda t=t, e=e: coefficient_row(t, e) for t, e in COEFFICIENTS.items()]
    makers += [wrong_statistic_row, square_of_mean_row, series_row]
    makers += [lambda p=p, k=k: moment_row(p, k) for p in POWERS for k in SHAPES]
    rows = []
    with mpmath.workdps(DIGITS + 5):
        for make in makers:
            rows.append(make())
            progress(len(rows), len(makers))
    return Findings(rows)


STUDY = Study(
    "design_numbers",
    "the coefficients of 1/v, v^-1/2, 1/(√v+ε), v^-1/4, and the moments of gamma laws",
    study,
)
