"""The relative bias (E u - u*)/u* without drawing anything: derived, or integrated exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import mpmath
import sympy as sp

from deltabias.calculus.cumulants import KAPPA
from deltabias.calculus.weights import STEP
from deltabias.derivation import MAX_ORDER, derive
from deltabias.report.existence import has_moment
from deltabias.report.scenario import Scenario
from deltabias.rule import State
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
    """Predicts the relative bias of one scenario, step by step and in the steady state.

    The expansion is derived once per order, symbolically in the step, the hyperparameters and the
    law's cumulants, and then evaluated at `DIGITS` digits.
    """

    scene: Scenario
    _compiled: dict = field(default_factory=dict)

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
            orders, function = self._expansion(order, steadily=steps is None)
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

    def _expansion(self, order: int, *, steadily: bool) -> tuple[list[int], Callable]:
        """The cumulants' orders that occur, and a function of step, hypers and cumulants."""
        key = order, steadily
        if key not in self._compiled:
            rule = self.scene.rule
            bias = derive(rule, order).relative_bias(
                sp.oo if steadily else STEP,
                microbatches=self.scene.microbatches,
                law=self._law_in_symbols,
            )
            named = sorted(
                (s for s in bias.free_symbols if s in self._cumulant_orders),
                key=self._cumulant_orders.get,
            )
            arguments = [STEP, *(h.symbol for h in rule.all_hypers), *named]
            function = sp.lambdify(arguments, bias, modules="mpmath")
            self._compiled[key] = [self._cumulant_orders[s] for s in named], function
        return self._compiled[key]

    @cached_property
    def _cumulant_orders(self) -> dict[sp.Symbol, int]:
        return {sp.Symbol(f"kappa_{n}", real=True): n for n in range(1, 33)}

    def _law_in_symbols(self, expression: sp.Expr) -> sp.Expr:
        """kappa(n) as a symbol, or 0 where every law of this name has none: keeps it short."""
        symbol = {n: s for s, n in self._cumulant_orders.items()}
        name = self.scene.law_name
        odd = name in ("normal", "laplace", "student_t", "two_point")

        def named(n: sp.Integer) -> sp.Expr:
            vanishes = n > 2 and (name == "normal" or (odd and n % 2 == 1))
            return sp.Integer(0) if vanishes else symbol[int(n)]

        return expression.replace(KAPPA, named)

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
