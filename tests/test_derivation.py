"""The bias of a rule: the numbers that must come out, over the trajectory and given the history."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from math import factorial, prod

import mpmath
import pytest
import sympy as sp
from tests.reference import finite_law as exact

from deltabias.calculus.cumulants import KAPPA
from deltabias.calculus.expansion import expand
from deltabias.derivation import MAX_ORDER, MICROBATCHES, derive, step_cumulant
from deltabias.errors import DeltabiasError, NotDifferentiableError
from deltabias.parser import parse_expression
from deltabias.rule import MEAN_OF_SQUARES, SQUARE_OF_MEAN, Fresh, UpdateRule
from deltabias.rules import CATALOGUE, get_rule

MU, VARIANCE = KAPPA(1), KAPPA(2)
B1, B2, Q = sp.symbols("beta1 beta2 q", nonnegative=True)


def term(text, name="inversion", order=1):
    """Coefficient of the one term of that name, and the rule's symbols by name."""
    rule = UpdateRule.parse(text)
    (found,) = derive(rule, order).named(name, order)
    return found, {s.name: s for s in (*rule.symbols, *(h.symbol for h in rule.hypers))}


# -- the numbers of the design, §1.6 -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "coefficient"),
    [
        ("1/v", "v**(-3)"),
        ("v**(-1/2)", "3/8*v**(-5/2)"),
        ("v**(-1/4)", "5/32*v**(-9/4)"),
        ("1/(sqrt(v)+eps)", "(eps+3*sqrt(v))/(8*sqrt(v)**3*(sqrt(v)+eps)**3)"),
        ("g/v", "g*v**(-3)"),
        ("g/sqrt(v)", "3/8*g*v**(-5/2)"),
        ("g*v**(-1/4)", "5/32*g*v**(-9/4)"),
    ],
)
def test_the_inversion_terms_of_the_design_come_out(text, coefficient):
    found, symbols = term(text)
    expected = parse_expression(coefficient, symbols.__getitem__)
    assert sp.simplify(found.coefficient - expected) == 0
    assert str(found.moment) == "var(v)"
    # the control: the wrong statistic's coefficient, ½ (1/p)″ Var p with p = √v, is a third short
    if text == "v**(-1/2)":
        assert sp.simplify(found.coefficient / (expected * sp.Rational(2, 3))) == sp.Rational(3, 2)


def test_the_coupling_of_a_gradient_with_its_root_mean_square():
    found, s = term("g/(sqrt(v)+eps)", "coupling")
    v, eps = s["v"], s["eps"]
    expected = -1 / (2 * sp.sqrt(v) * (sp.sqrt(v) + eps) ** 2)
    assert sp.simplify(found.coefficient - expected) == 0
    assert (str(found.moment), found.order) == ("cov(g, v)", 1)


# -- gamma laws: exact expectations in closed form -----------------------------------------------


def gamma_bias(text, order):
    """The delta bias under a gamma law of mean 1 and variance z, whose κ_n is (n-1)! z^(n-1)."""
    rule, z = UpdateRule.parse(text), sp.Symbol("z", positive=True)
    (v,) = rule.symbols
    total = sp.Integer(0)
    for t in derive(rule, order).terms:
        total += t.coefficient.subs(v, 1) * prod(
            factorial(n - 1) * z ** (n - 1) for (n,) in t.cumulants
        )
    return sp.expand(total), z


def test_the_mean_of_an_inverse_gamma_variable_is_a_geometric_series():
    bias, z = gamma_bias("1/v", 3)
    assert bias == z + z**2 + z**3


SHAPES = (2**9, 2**12)


def gamma_gap(power, shape):
    """E X^power - 1 for X ~ Gamma(shape, 1/shape): Γ(k + p) k^-p / Γ(k), to fifty digits."""
    k, p = mpmath.mpf(shape), mpmath.mpf(power.p) / power.q
    return mpmath.gamma(k + p) / mpmath.gamma(k) * k**-p - 1


def remainder_slope(bias, z, power):
    """The log-log slope of |gap - bias| in the variance, over a factor of eight."""
    with mpmath.workdps(50):
        left = []
        for k in SHAPES:
            predicted = sp.N(bias.subs(z, sp.Rational(1, k)), 50)
            left.append(mpmath.log(abs(gamma_gap(power, k) - mpmath.mpf(str(predicted)))))
        return float((left[0] - left[1]) / mpmath.log(mpmath.mpf(SHAPES[1]) / SHAPES[0]))


@pytest.mark.parametrize("power", [sp.Rational(-1), sp.Rational(-1, 2), sp.Rational(-1, 4)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_remainder_falls_one_power_faster_than_what_was_derived(power, order):
    bias, z = gamma_bias(f"v**({power})", order)
    assert remainder_slope(bias, z, power) == pytest.approx(order + 1, abs=0.05)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_wrong_coefficient_shows_in_the_slope(order):
    power = sp.Rational(-1, 2)
    bias, z = gamma_bias("v**(-1/2)", order)
    wrong = bias + z**order / 1000
    assert remainder_slope(wrong, z, power) < order + 0.6
    assert remainder_slope(sp.Integer(0), z, power) == pytest.approx(1, abs=0.05)


# -- trajectories --------------------------------------------------------------------------------

# skewed, and with a mean, so that every cumulant that could enter does
LAW = [(Fraction(-1), Fraction(1, 3)), (Fraction(2), Fraction(2, 3))]
ALPHA = {"beta1": Fraction(9, 10), "beta2": Fraction(19, 20), "alpha": Fraction(4, 5)}


def rational(x):
    return sp.Rational(x.numerator, x.denominator)


def explicit_weights(state, t):
    decay = (
        {0: Fraction(0), 1: Fraction(1)}.get(state.weights.decay)
        if (state.weights.decay.is_number)
        else ALPHA[state.beta.name]
    )
    gain = Fraction(1) if state.weights.gain == 1 else 1 - decay
    norm = 1 - decay**t if state.weights.debias else Fraction(1)
    return [gain * decay**age / norm for age in range(t)]


def contribution(state, xs):
    if state.statistic.outer is not None:
        return exact.mean(xs) ** 2
    return exact.mean([x**2 for x in xs] if state.statistic.positive else xs)


def law_of_states(rule, t, m, random_ages):
    """Means of the two states, and their law, over every sample of every step that is random."""
    steps = list(exact.samples(LAW, m))
    weights = [explicit_weights(s, t) for s in rule.states]
    mean = [
        sum(w) * sum(p * contribution(s, xs) for xs, p in steps)
        for s, w in zip(rule.states, weights, strict=True)
    ]
    law = []
    for outcome in product(steps, repeat=random_ages):
        values = tuple(
            sum(w[age] * contribution(s, xs) for age, (xs, _) in enumerate(outcome))
            for s, w in zip(rule.states, weights, strict=True)
        )
        law.append((values, prod(p for _, p in outcome)))
    return mean, law


def exact_bias(derivation, law):
    """Σ coefficient × the exact joint cumulants of the states."""
    coordinates = (lambda x: x[0]), (lambda x: x[1])

    @cache
    def cumulant(index):
        functions = [f for f, n in zip(coordinates, index, strict=True) for _ in range(n)]
        return rational(exact.joint_cumulant(law, functions))

    return sp.Add(*(t.coefficient * prod(map(cumulant, t.cumulants)) for t in derivation.terms))


TRAJECTORY_RULES = [
    "adamw",
    "adamw_mean_of_squares",
    "rmsprop",
    "rmsprop_mean_of_squares",
    "adagrad",
]


@pytest.mark.parametrize("name", TRAJECTORY_RULES)
@pytest.mark.parametrize(("t", "conditional"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("order", [1, 3])
def test_the_bias_at_a_step_has_the_exact_moments_of_the_states(name, t, conditional, order):
    rule, m = get_rule(name), 2
    derivation = derive(rule, order)
    mean, law = law_of_states(rule, t, m, 1 if conditional else t)
    there = {h.symbol: rational(ALPHA.get(h.name, Fraction(1, 10))) for h in rule.all_hypers}
    kappas = exact.cumulants(LAW, 8)
    found = derivation.at(t, conditional=conditional, microbatches=m)
    found = found.replace(KAPPA, lambda n: rational(kappas[int(n)]))
    means = {s: rational(v) for s, v in zip(rule.symbols, mean, strict=True)}
    truth = exact_bias(derivation, law)
    difference = (found - truth).subs(there).subs(means)
    assert abs(sp.N(difference, 40)) < 1e-30
    for name_, value in derivation.means(t, microbatches=m).items():
        value = value.subs(there).replace(KAPPA, lambda n: rational(kappas[int(n)]))
        assert value == means[name_]
    if t > 1:  # the control: the moments given the history are not those over the trajectory
        _, other = law_of_states(rule, t, m, t if conditional else 1)
        wrong = (found - exact_bias(derivation, other)).subs(there).subs(means)
        assert abs(sp.N(wrong)) > 1e-6


def only(derivation, name):
    return replace(derivation, terms=derivation.named(name))


def test_a_step_carries_a_seventh_of_the_coupling_and_a_tenth_of_the_inversion():
    derivation = derive(get_rule("adamw"))
    shares = {}
    for name in ("coupling", "inversion"):
        part = only(derivation, name)
        shares[name] = sp.simplify(part.at(sp.oo, conditional=True) / part.at(sp.oo))
    assert sp.expand(shares["coupling"] - (1 - B1 * B2)) == 0
    assert sp.expand(shares["inversion"] - (1 - B2**2)) == 0
    at = {B1: sp.Rational(9, 10), B2: sp.Rational(95, 100)}
    assert shares["coupling"].subs(at) == sp.Rational(145, 1000)  # 14.5 %
    assert shares["inversion"].subs(at) == sp.Rational(975, 10000)  # 9.8 %


def relative_bias_in_noise_share(name, step):
    """(E u - u*)/u* for normal gradients, eps = 0, in q = (σ²/m) / (μ² + σ²/m)."""
    found = derive(get_rule(name)).relative_bias(step).subs(sp.Symbol("eps", nonnegative=True), 0)
    found = found.subs(VARIANCE, Q * MU**2 * MICROBATCHES / (1 - Q))
    return sp.simplify(found)


def test_the_steady_state_formula_comes_out():
    a = (1 - B1) * (1 - B2) / (1 - B1 * B2)
    b = (1 - B2) / (1 + B2)
    formula = -a * Q + sp.Rational(3, 2) * b * Q - sp.Rational(3, 4) * b * Q**2
    found = relative_bias_in_noise_share("adamw", sp.oo)
    assert sp.simplify(found - formula) == 0
    assert sp.simplify(found - formula - b * Q**2 / 100) != 0
    at = {B1: sp.Rational(9, 10), Q: 1}
    assert float(found.subs({B2: sp.Rational(95, 100)} | at)) == pytest.approx(-0.0153, abs=5e-5)
    assert float(found.subs({B2: sp.Rational(999, 1000)} | at)) == pytest.approx(-0.0006, abs=5e-5)


def test_the_first_step_has_a_quarter_of_bias_at_pure_noise():
    found = relative_bias_in_noise_share("adamw", 1)
    assert sp.simplify(found + Q * (3 * Q - 2) / 4) == 0
    assert found.subs(Q, 1) == sp.Rational(-1, 4)
    # the truth there: E sign(ḡ) over μ/σ goes to √(2/π), 20 % below one
    assert float(mpmath.sqrt(2 / mpmath.pi)) - 1 == pytest.approx(-0.20, abs=0.003)


def test_the_transient_falls_like_one_over_the_step():
    at = {B1: sp.Rational(9, 10), B2: sp.Rational(999, 1000), Q: 1}
    derivation = derive(get_rule("adamw"))
    values = []
    for t in (2, 4, 8):
        found = derivation.relative_bias(t).subs(sp.Symbol("eps", nonnegative=True), 0)
        found = found.subs(VARIANCE, Q * MU**2 * MICROBATCHES / (1 - Q))
        values.append(float(sp.simplify(found.subs({B1: at[B1], B2: at[B2]})).subs(Q, 1)))
    ratios = [a / b for a, b in pairwise(values)]
    assert all(1.8 < r < 2.2 for r in ratios), values


def test_feeding_one_convention_and_measuring_the_other_is_off_by_the_microbatches():
    pair = [get_rule(n) for n in ("adamw", "adamw_mean_of_squares")]
    variances = [step_cumulant([r.states[1]] * 2, MICROBATCHES) for r in pair]
    ratio = [v.subs(MU, 0).replace(KAPPA, lambda n: VARIANCE if n == 2 else 0) for v in variances]
    assert sp.simplify(ratio[1] / ratio[0]) == MICROBATCHES


# -- domains, names, errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("adamw", {"exp_avg_sq > 0"}),
        ("inverse", {"h > 0"}),
        ("sophia", {"-1 < exp_avg/(hessian*rho)", "exp_avg/(hessian*rho) < 1", "eps < hessian*rho",
                    "hessian > 0"}),
    ],
)  # fmt: skip
def test_a_derivation_states_its_domain(name, domain):
    found = {str(c.canonical if c.lts == c.rhs and "eps" in str(c) else c)
             for c in derive(get_rule(name)).domain}  # fmt: skip
    assert found == domain


def test_the_published_sophia_has_no_coupling_because_its_labels_are_others():
    assert [t.name for t in derive(get_rule("sophia_g")).terms] == ["inversion"]
    assert {t.name for t in derive(get_rule("sophia")).terms} == {"inversion", "coupling"}
    # at higher orders a product of separate cumulants does involve both states
    for t in derive(get_rule("sophia_g"), 3).terms:
        assert all(sum(k > 0 for k in index) == 1 for index in t.cumulants)


@pytest.mark.parametrize("name", CATALOGUE)
def test_terms_are_complete_through_third_order_and_nested(name):
    by_order = {order: derive(get_rule(name), order) for order in (1, 2, 3)}
    for order in (1, 2, 3):
        for lower in range(1, order + 1):
            assert by_order[order].by_order(lower) == by_order[lower].by_order(lower)
        assert max(t.order for t in by_order[order].terms) == order
    assert by_order[3].delta_bias == sp.Add(*(t.value for t in by_order[3].terms))


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("order", [1, 2])
def test_a_printed_coefficient_reads_back_as_the_same_expression(name, order):
    rule = get_rule(name)
    symbols = {s.name: s for s in (*rule.symbols, *(h.symbol for h in rule.hypers))}
    for t in derive(rule, order).terms:
        text = str(t.coefficient)
        assert sp.simplify(sp.sympify(text, locals=symbols) - t.coefficient) == 0
        # and through the rule language's own whitelist
        assert sp.simplify(parse_expression(text, symbols.__getitem__) - t.coefficient) == 0


# once a defect: the derivative of a sign of 1/eps - |h| is left as Derivative(sign(…), h)
@pytest.mark.parametrize(
    "text", ["abs(1/eps - abs(h))*g", "h*sign(1/eps + abs(h))", "abs(g - abs(h))"]
)
def test_kinks_within_kinks_leave_no_derivative_in_a_coefficient(text):
    for t in derive(UpdateRule.parse(text), 2).terms:
        assert not t.coefficient.has(sp.Derivative, sp.DiracDelta, sp.Subs), t.moment


def test_the_steps_of_a_derivation_lead_to_its_result():
    derivation = derive(get_rule("inverse"), 2)
    steps = derivation.steps
    assert steps[0].equation.rhs == derivation.smooth
    assert steps[-1].equation.rhs == derivation.delta_bias
    printed = [s.equation for s in steps]
    assert all(t.value in printed for t in derivation.terms)
    derivatives = [s.equation for s in steps if s.text == "A partial derivative"]
    assert len(derivatives) == len({t.derivative for t in derivation.terms})
    for equation in derivatives:
        pairs = equation.lhs.variables
        assert sp.simplify(sp.diff(derivation.smooth, *pairs) - equation.rhs) == 0


@pytest.mark.parametrize("order", [0, -1, 4, 1.5, "1"])
def test_an_order_that_is_not_supported_is_refused(order):
    message = rf"order={order!r} is not supported; use 1 to {MAX_ORDER}"
    with pytest.raises(DeltabiasError, match=message):
        derive(get_rule("inverse"), order)


def test_two_branches_of_statistics_cannot_be_derived():
    with pytest.raises(NotDifferentiableError, match="2 branches that depend on statistics"):
        derive(UpdateRule.parse("g/max(v, w)"))


def test_a_coefficient_that_is_not_finite_is_refused(monkeypatch):
    # no rule of the language is singular at a symbolic mean, so the infinity is planted
    def infinite(differentiate, variables, power):
        return [(c, sp.zoo) for c, _ in expand(differentiate, variables, power)]

    monkeypatch.setattr("deltabias.derivation.expand", infinite)
    with pytest.raises(NotDifferentiableError, match=r"the coefficient of cov\(g, h\) is zoo"):
        derive(get_rule("inverse"))


def test_a_square_of_a_mean_next_to_a_mean_of_squares_has_no_known_joint_law():
    states = (Fresh("a", SQUARE_OF_MEAN), Fresh("b", MEAN_OF_SQUARES))
    with pytest.raises(DeltabiasError, match="mix functions of a mean with means of functions"):
        derive(UpdateRule("mixed", "a/b", states)).at(1)


def test_a_running_total_has_no_steady_state():
    with pytest.raises(ValueError, match="no steady state"):
        derive(get_rule("adagrad")).at(sp.oo)


@pytest.mark.parametrize("step", [0, -1, 2.5])
def test_a_step_count_that_is_none_is_refused(step):
    with pytest.raises(ValueError, match="step"):
        derive(get_rule("adamw")).at(step)
