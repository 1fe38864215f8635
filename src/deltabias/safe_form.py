"""A corrected update that cannot do harm, found symbolically.

Subtracting the delta bias can overshoot and flip a sign; dividing cannot. For an update that is
linear in one statistic n, T = n f(v, …), with

    coupling    T_nv cov(n, v)    joins the numerator,  n -> n + sum_v a_v cov(n, v)/v
    inversion   ½ T_vv var(v)     divides,              f -> f / (1 + sum_v c_v var(v)/v²)

the two agree with the subtraction to second order, and with non-negative a_v and c_v nothing
cancels. The coefficients a_v = -v f_v/f and c_v = ½ v² f_vv/f are dimensionless, so they become
polynomials in a share t in (0, 1] once a stabilizer eps is written as s (1 - t)/t with
t = s/(s + eps), s the root of v: non-negative coefficients of t are then visible. Moments enter
relative to the statistic (cov/v, var/v²), because var(v) underflows where v does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import sympy as sp

from deltabias.calculus.derivatives import root_degree
from deltabias.derivation import Derivation
from deltabias.errors import StrategyError
from deltabias.parser import clip

SHARE = sp.Symbol("share", positive=True)


@dataclass(frozen=True)
class Definition:
    """One named value of a formula, in the order of evaluation."""

    name: str
    expression: sp.Expr
    note: str = ""

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)


@dataclass(frozen=True)
class RelativeMoment:
    """An argument of a kernel: a moment over powers of the preconditioner's statistic.

    ``divisor`` is v for a covariance with the numerator (left in the numerator's unit) and v² (or
    v w) between preconditioner statistics (left dimensionless).
    """

    name: str
    moment: sp.Expr
    divisor: sp.Expr

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)


@dataclass(frozen=True)
class Kernel:
    """A corrected update as a pure formula of states, relative moments and hyperparameters.

    ``safe`` says that it is a ratio without subtraction: positive wherever the plug-in
    preconditioner is, for non-negative variances. ``numerator`` and ``denominator`` are set then.
    """

    derivation: Derivation
    moments: tuple[RelativeMoment, ...]
    definitions: tuple[Definition, ...]
    safe: bool

    @property
    def update(self) -> sp.Expr:
        """The corrected update written out, without intermediate names."""
        expression = self.definitions[-1].expression
        for definition in reversed(self.definitions[:-1]):
            expression = expression.subs(definition.symbol, definition.expression)
        return expression


def kernel(derivation: Derivation) -> Kernel:
    """The safest form of ``T - delta_bias`` at order 1 that can be found.

    >>> from deltabias.rule import UpdateRule
    >>> from deltabias.derivation import derive
    >>> form = kernel(derive(UpdateRule.parse("g/(sqrt(v)+eps)")))
    >>> for definition in form.definitions:
    ...     print(definition.name, "=", definition.expression)
    denominator = eps + sqrt(v)
    share = sqrt(v)/denominator
    numerator = g + relative_cov_g_v*share/2
    inversion = relative_var_v*share*(2*share + 1)/8
    update = numerator/(denominator*(inversion + 1))
    """
    form = _ratio(derivation) or _subtraction(derivation)
    return replace(form, definitions=_with_kinks(derivation, form.definitions))


def _with_kinks(
    derivation: Derivation, definitions: tuple[Definition, ...]
) -> tuple[Definition, ...]:
    """Put floors and the outermost kink back: outside the domain the rule itself rules."""
    update, floors = derivation.rule.update, dict(derivation.floors)
    kinked = [replace(d, expression=d.expression.subs(floors)) for d in definitions]
    inside = [n for n in update.atoms(clip, sp.Max, sp.Min) if n != update]
    lost = [n for n in inside if not any(d.expression.has(n) for d in kinked)]
    if lost:
        raise StrategyError(
            f"rule {derivation.rule.name!r}: {lost[0]} stands inside the update and cannot be put "
            "back into its corrected form. Write the kink outermost, as clip(…, -1, 1), or leave "
            "it out; `derive` gives the bias where the update is smooth."
        )
    last, branch = kinked[-1], floors_of(update, floors)
    if isinstance(update, clip):
        kinked[-1] = replace(last, expression=clip(last.expression, *update.args[1:]))
    elif branch is not None:
        others = [a for a in update.args if a != branch]
        kinked[-1] = replace(last, expression=update.func(definitions[-1].expression, *others))
    return tuple(kinked)


def floors_of(update: sp.Expr, floors: dict[sp.Expr, sp.Expr]) -> sp.Expr | None:
    """The branch that the update itself is a maximum or minimum of."""
    return next((branch for branch, node in floors.items() if node == update), None)


def relative_moment(moment: sp.Expr, numerator: sp.Symbol | None) -> RelativeMoment:
    """The relative version of an order-1 moment; see `RelativeMoment`."""
    arguments = moment.args if len(moment.args) == 2 else moment.args * 2
    name = "_".join(["relative", moment.func.__name__, *(a.name for a in moment.args)])
    divisor = sp.Mul(*(a for a in arguments if a != numerator))
    return RelativeMoment(name, moment, divisor)


def numerator_of(derivation: Derivation) -> sp.Symbol | None:
    """The first statistic that the smooth update is proportional to, if there is one."""
    for symbol in derivation.rule.symbols:
        slope = sp.diff(derivation.smooth, symbol)
        if slope != 0 and not slope.has(symbol) and derivation.smooth.subs(symbol, 0) == 0:
            return symbol
    return None


def _algebraic(expression: sp.Expr) -> bool:
    """Whether it is made of sums, products and rational powers alone."""
    powers = expression.atoms(sp.Pow)
    return not expression.atoms(sp.Function) and all(p.exp.is_Rational for p in powers)


def _ratio(derivation: Derivation) -> Kernel | None:
    if not _algebraic(derivation.smooth):  # no power of v makes such a map rational
        return None
    numerator = numerator_of(derivation)
    others = [s for s in derivation.rule.symbols if s != numerator]
    if len(others) != 1:
        return None
    factor = derivation.smooth if numerator is None else sp.diff(derivation.smooth, numerator)
    coefficients, moments = {}, {}
    for term in derivation.by_order(1):
        moment = relative_moment(term.moment, numerator)
        moments[term.name] = moment
        scale = -1 / factor if term.name == "coupling" else 1 / derivation.smooth
        coefficients[term.name] = _tidy(term.coefficient * moment.divisor * scale)
    found = _as_shares(coefficients, others[0])
    if found is None or "inversion" not in moments:
        return None
    share, polynomials = found
    definitions = _ratio_definitions(numerator, factor, share, polynomials, moments)
    return Kernel(derivation, tuple(moments.values()), definitions, safe=True)


def _ratio_definitions(numerator, factor, share, polynomials, moments) -> tuple[Definition, ...]:
    denominator = sp.powdenest(sp.expand_power_base(1 / factor), force=True)
    definitions = [Definition("denominator", denominator, "what the plug-in update divides by")]
    bottom = definitions[0].symbol
    if share is not None:
        reused = share.subs(sp.denom(share), bottom) if sp.denom(share) == denominator else share
        definitions.append(
            Definition("share", reused, "1 where eps is negligible, 0 where it rules")
        )
    t = sp.Symbol("share", real=True)
    top = sp.Integer(1) if numerator is None else numerator
    if "coupling" in moments:
        coupling = polynomials["coupling"].subs(SHARE, t) * moments["coupling"].symbol
        definitions.append(Definition("numerator", top + coupling, "coupling joins the numerator"))
        top = definitions[-1].symbol
    inversion = sp.factor(polynomials["inversion"].subs(SHARE, t)) * moments["inversion"].symbol
    definitions.append(
        Definition("inversion", inversion, "inversion divides: positive, subtraction-free")
    )
    ratio = definitions[-1].symbol
    definitions.append(Definition("update", top / (bottom * (1 + ratio))))
    return tuple(definitions)


def _tidy(expression: sp.Expr) -> sp.Expr:
    return sp.factor(sp.simplify(expression))


def _as_shares(coefficients: dict[str, sp.Expr], statistic: sp.Symbol):
    """The coefficients as polynomials in one share with non-negative coefficients, or None."""
    if all(c.is_number for c in coefficients.values()):
        return (None, coefficients) if all(c >= 0 for c in coefficients.values()) else None
    if not statistic.is_positive:  # a share of something that changes sign is no share
        return None
    for share, in_shares in _candidate_shares(coefficients, statistic):
        polynomials = {k: sp.simplify(c.subs(in_shares)) for k, c in coefficients.items()}
        if any(p.free_symbols - {SHARE} for p in polynomials.values()):
            continue
        if all(_non_negative(p) for p in polynomials.values()):
            return share, {k: sp.expand(p) for k, p in polynomials.items()}
    return None


def _candidate_shares(coefficients, statistic) -> Iterator[tuple[sp.Expr, dict]]:
    """Pairs (t, {stabilizer: its value in t}) with t = power of v / (power of v + stabilizer)."""
    hypers = set().union(*(c.free_symbols for c in coefficients.values())) - {statistic}
    degree = max(root_degree(c, statistic) for c in coefficients.values())
    for hyper in sorted(hypers, key=str):
        for j in range(1, 2 * degree + 1):
            part = statistic ** sp.Rational(j, degree)
            yield part / (part + hyper), {hyper: part * (1 - SHARE) / SHARE}


def _non_negative(polynomial: sp.Expr) -> bool:
    if not polynomial.is_polynomial(SHARE):
        return False
    return all(c >= 0 for c in sp.Poly(polynomial, SHARE).all_coeffs())


def _subtraction(derivation: Derivation) -> Kernel:
    """``T - sum coefficient * moment``, for maps without a ratio form; it can overshoot."""
    numerator = numerator_of(derivation)
    moments, total = [], sp.Integer(0)
    for term in derivation.by_order(1):
        moment = relative_moment(term.moment, numerator)
        moments.append(moment)
        total += term.coefficient * moment.divisor * moment.symbol
    plug_in, bias = Definition("plug_in", derivation.smooth), Definition("delta_bias", total)
    update = Definition("update", plug_in.symbol - bias.symbol)
    return Kernel(derivation, tuple(moments), (plug_in, bias, update), safe=False)
