"""The relative bias (E u - u*)/u* without drawing anything: derived, or integrated exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import mpmath
import sympy as sp

from deltabias.calculus.cumulants import KAPPA
from deltabias.calculus.weights import STEP
from deltabias.derivation import MAX_ORDER, derive
from deltabias.report.existence import has_moment
from deltabias.report.scenario import Scenario
from deltabias.rule import State, UpdateRule
from deltabias.safe_form import numerator_of
from deltabias.truth import (
    FiniteLaw,
    Law,
    MomentDoesNotExist,
    Normal,
    NotConverged,
    TooManySamples,
    adam_population_update,
    adam_update_mean_float64,
    steps_to_steady_state,
)

SYMMETRIC_LAWS = ("normal", "laplace", "student_t", "two_point")
HIGHEST_CUMULANT = 64
DIGITS = 120
VANISHING = mpmath.mpf(10) ** -40
"""A mean gradient for q = 1. The relative bias is even in it for a symmetric law: error 10⁻⁸⁰."""

LONGEST_NODES = 400
"""Steps up to which laws other than the normal and finite ones are integrated exactly."""

STEADY = "1e-8"
"""What an exact steady state leaves out, relative to the bias."""


@dataclass(frozen=True)
class Prediction:
    """Relative biases. `series` is through third order, `best` what to believe, `method` why.

    ``last_term`` is the size of the last term of a series that `best` is, a guide to its error.
    """

    leading_order: float | None
    series: float | None
    exact: float | None
    best: float | None
    method: str
    last_term: float | None = None


@dataclass
class Predictor:
    """Predicts the relative bias of one scenario, step by step and in the steady state."""

    scene: Scenario

    def __call__(self, noise_share: float, steps: int | None) -> Prediction:
        """The prediction after so many steps; None is the steady state."""
        law = self.scene.gradient_law(noise_share)
        sums = self._partial_sums(law, steps)
        if has_moment(self.scene, steps or self.scene.memory, 1):
            exact = self._exact(law, noise_share, steps)
            best = _best(sums, exact)
        else:
            exact, best = None, (None, "none: E u is infinite")
        third = sums[2] if len(sums) == MAX_ORDER else None
        return Prediction(sums[0] if sums else None, third, exact, *best)

    # -- the expansion ----------------------------------------------------------------------------

    def _partial_sums(self, law: Law, steps: int | None) -> list[float]:
        """The expansion through order 1, 2, …, as far as the law has the moments."""
        sums = []
        for order in range(1, MAX_ORDER + 1):
            orders, function = _expansion(
                self.scene.rule, order, self.scene.microbatches, self.scene.law_name, steps is None
            )
            try:
                with mpmath.workdps(DIGITS):
                    cumulants = [_mpf(law.cumulant(n)) for n in orders]
                    if cumulants and orders[0] == 1 and cumulants[0] == 0:
                        cumulants[0] = VANISHING
                    values = [mpmath.mpf(v) for v in self.scene.hypers.values()]
                    sums.append(float(function(mpmath.mpf(steps or 1), *values, *cumulants)))
            except MomentDoesNotExist:
                break
        return sums

    # -- exact ------------------------------------------------------------------------------------

    def _exact(self, law: Law, noise_share: float, steps: int | None) -> float | None:
        form = self._laplace_form
        if form is None or (noise_share == 1 and not isinstance(law, Normal)):
            return None
        first, second, keywords = form
        length = steps or steps_to_steady_state(
            *map(self.scene.decay, (first, second)), truncation=STEADY
        )
        if length > LONGEST_NODES and not isinstance(law, Normal | FiniteLaw):
            return None  # seconds of work, where the series is good
        weights = [self.scene.weights(s, length).tolist() for s in (first, second)]
        if noise_share == 1:  # the mean gradient's sign and size cancel; only zero is excluded
            law = Normal(1e-12, law.sd)
        keywords = {**keywords, "microbatches": self.scene.microbatches}
        try:
            mean = adam_update_mean_float64(law, *weights, **keywords).value
        except (NotConverged, TypeError, TooManySamples):  # a law without transforms
            return None
        return float(mean / adam_population_update(law, *weights, **keywords) - 1)

    @cached_property
    def _laplace_form(self) -> tuple[State, State, dict] | None:
        """Numerator, preconditioner, and the arguments of the exact integral, if it applies.

        It does for one gradient average times (√v + ε)⁻¹ or (v + ε)⁻ᵖ, v fed with squares of the
        same gradients.
        """
        rule = self.scene.rule
        numerator = numerator_of(derive(rule, 1))
        first = [s for s in rule.states if s.symbol == numerator]
        second = [s for s in rule.states if s.symbol != numerator]
        if len(first) != 1 or len(second) != 1:
            return None
        statistic = _square_statistic(first[0], second[0])
        v = second[0].symbol
        divided = _preconditioner_form(1 / sp.diff(self.scene.smooth, numerator), v)
        if statistic is None or divided is None:
            return None
        return first[0], second[0], {"statistic": statistic, **divided}


@lru_cache(maxsize=64)
def _expansion(
    rule: UpdateRule, order: int, microbatches: int, law_name: str, steady: bool
) -> tuple[list[int], Callable]:
    """The cumulants' orders that occur, and the relative bias as a function for mpmath.

    The expansion is derived once, symbolically; the function takes the step, the hyperparameters
    and those cumulants.
    """

    def named(n: sp.Integer) -> sp.Expr:
        """kappa(n), or 0 where no law of this name has one: that keeps it short."""
        vanishes = n > 2 and (law_name == "normal" or (law_name in SYMMETRIC_LAWS and n % 2 == 1))
        return sp.Integer(0) if vanishes else sp.Symbol(f"kappa_{n}", real=True)

    bias = derive(rule, order).relative_bias(
        sp.oo if steady else STEP,
        microbatches=microbatches,
        law=lambda expression: expression.replace(KAPPA, named),
    )
    present = {str(s) for s in bias.free_symbols}
    orders = [n for n in range(1, HIGHEST_CUMULANT + 1) if f"kappa_{n}" in present]
    arguments = [STEP, *(h.symbol for h in rule.all_hypers), *(named(n) for n in orders)]
    return orders, sp.lambdify(arguments, bias, modules="mpmath")


def _square_statistic(first: State, second: State) -> str | None:
    """What v is fed with, in the words of the exact integral."""
    x = first.statistic.observation
    if (first.statistic.sample, first.statistic.outer) != (x, None):
        return None
    if second.statistic.sample == x**2 and second.statistic.outer is None:
        return "mean_of_squares"
    outer = second.statistic.outer
    if second.statistic.sample == x and outer is not None:
        (mean,) = outer.free_symbols
        return "square_of_mean" if outer == mean**2 else None
    return None


def _preconditioner_form(denominator: sp.Expr, v: sp.Symbol) -> dict | None:
    """The arguments ``eps``, ``eps_root``, ``power`` of a denominator; a factor does not matter."""
    root = sp.Symbol("root", positive=True)
    linear = sp.expand(denominator.subs(v, root**2))
    if linear.is_polynomial(root) and sp.degree(linear, root) == 1:
        slope, offset = sp.Poly(linear, root).all_coeffs()
        return {"eps": float(offset / slope)} if offset / slope >= 0 else None
    _, powers = sp.factor_terms(denominator).as_independent(v)
    base, power = powers.as_base_exp()
    if not (base.is_polynomial(v) and sp.degree(base, v) == 1 and power.is_Rational and power > 0):
        return None
    slope, offset = sp.Poly(base, v).all_coeffs()
    if offset / slope < 0:
        return None
    return {"eps_root": float(offset / slope), "power": str(power)}


def _mpf(number) -> mpmath.mpf:
    if isinstance(number, mpmath.mpf):
        return number
    return mpmath.mpf(number.numerator) / number.denominator


def _best(sums: Sequence[float], exact: float | None) -> tuple[float | None, str, float | None]:
    """What to believe: the exact value, else the series for as long as its terms shrink."""
    if exact is not None:
        return exact, "exact", None
    if not sums:
        return None, "none: the law has too few moments", None
    sizes = [abs(b - a) for a, b in zip([0.0, *sums], sums, strict=False)]
    kept = len(sums)
    while kept > 1 and sizes[kept - 1] > sizes[kept - 2]:
        kept -= 1
    why = ""
    if kept < len(sums):
        why = " (higher terms grow)"
    elif kept < MAX_ORDER:
        why = " (higher moments do not exist)"
    return sums[kept - 1], f"series, order {kept}{why}", sizes[kept - 1]
