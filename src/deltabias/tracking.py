"""What is remembered from step to step so that the moments of the *states* can be estimated.

The newest batch carries only part of a trajectory's bias, so the step estimates are averaged
with the weights that the states' own averages have: a cumulant of states with decays d_i decays
with their product. Everything is stored relative to the preconditioner's state v (a power of v
divides it, and the ratio v_old/v_new rescales it), so that fourth powers of gradients do not
underflow.

Two models of the moments:

direct    for statistics that are means: unbiased estimates of cov and var of the step's means,
          from the central moments of the microbatches.
closure   for the square of a mean, whose relative variance is not small. With ν = var(ḡ),
          κ₃, κ₄ the cumulants of the step's mean gradient ḡ, and q = ν/E ḡ²,
              cov(ḡ, ḡ²) = 2 μ ν + κ₃,
              var(ḡ²)   = E(ḡ²)² (4 q - 2 q²) + 4 μ κ₃ + κ₄,
          and ν, κ₃ and E ḡ k₃ = μ κ₃ + κ₄ are tracked: three bounded ratios instead of products
          of the noisy gradient with itself. ¾·4 μ κ₃ + E ḡ k₃ is the skewness part exactly.

Trust is withdrawn, never bias added, where estimates cannot be good: at the start (`warm`), with
very few microbatches (`enough`), and where one step dominates the average (`settled`). These
three factors do not come out of the expansion; they are chosen, and validation/ measures what
they cost and save.
"""

from dataclasses import dataclass

import sympy as sp

from deltabias.calculus.weights import STEP, Weights, product_sum
from deltabias.derivation import MICROBATCHES, Derivation
from deltabias.rule import State
from deltabias.safe_form import Definition, Kernel, numerator_of

WARM_POWER = 8
SETTLED_SHARE = sp.Rational(2, 5)
SETTLED_POWER = 8
SKEWNESS_LIMIT = 1  # of κ₃ over the cube of the root mean square
SKEW_VARIANCE_LIMIT = 4  # of 4 μ κ₃ + κ₄ over the square: a quarter of real gradients pass 1

RATIO = sp.Symbol("ratio", nonnegative=True)
"""v_old / v_new, the change of the preconditioner's state in this step."""


@dataclass(frozen=True)
class Accumulator:
    """``value = decay * ratio**power * value + gain * increment``, relative to v**power."""

    name: str
    power: sp.Rational
    decay: sp.Expr
    gain: sp.Expr
    increment: sp.Expr
    note: str

    @property
    def symbol(self) -> sp.Symbol:
        return sp.Symbol(self.name, real=True)

    @property
    def kept(self) -> bool:
        """Whether it has a memory, so that a buffer is needed."""
        return self.decay != 0


@dataclass(frozen=True)
class Tracking:
    """Estimates of one step, their accumulators, scalars of the step count, and the moments.

    ``scalars`` depend on t, m and hyperparameters only; ``moments`` turn accumulators into the
    kernel's relative moments. ``highest`` is the highest central moment of the microbatches that
    is needed and ``sums`` how many sums a step keeps for it.
    """

    model: str
    accumulators: tuple[Accumulator, ...] = ()
    scalars: tuple[Definition, ...] = ()
    moments: tuple[Definition, ...] = ()
    highest: int = 0

    @property
    def buffers(self) -> int:
        """Tensors kept from step to step."""
        return sum(a.kept for a in self.accumulators)

    @property
    def sums(self) -> int:
        return max(0, self.highest - 1)


def none() -> Tracking:
    """Nothing is remembered."""
    return Tracking("none")


def central(order: int) -> sp.Symbol:
    """``c2``, ``c3``, ``c4``: mean of (g_r - ḡ)^k over the microbatches, *relative to √v^k*."""
    return sp.Symbol(f"c{order}", real=True)


STEP_MEAN = sp.Symbol("step_mean", real=True)
"""The step's mean gradient relative to √v."""


def step_covariance(first: State, second: State) -> sp.Expr:
    """Unbiased estimate of the covariance of two step means, in `STEP_MEAN` and `central`.

    (mean of products - product of means)/(m - 1), written in central moments, where nothing
    large cancels.
    """
    if first.statistic.opaque or second.statistic.opaque:
        name = "_".join(["step", "var" if first == second else "cov"])
        return sp.Symbol(name, real=True)
    samples = first.statistic.sample, second.statistic.sample
    x = first.statistic.observation
    product = _mean_of(samples[0] * samples[1], x)
    return sp.factor(
        sp.expand(product - _mean_of(samples[0], x) * _mean_of(samples[1], x)) / (MICROBATCHES - 1)
    )


def _mean_of(polynomial: sp.Expr, x: sp.Symbol) -> sp.Expr:
    """The mean over microbatches of a polynomial of the gradient, in central moments."""
    shifted = sp.Poly(polynomial.subs(x, STEP_MEAN + x), x)
    values = {0: sp.Integer(1), 1: sp.Integer(0)}
    return sp.expand(sum(c * values.get(k, central(k)) for (k,), c in shifted.terms()))


def _states(derivation: Derivation) -> tuple[State | None, State]:
    numerator = numerator_of(derivation)
    first = next((s for s in derivation.rule.states if s.symbol == numerator), None)
    second = next(s for s in derivation.rule.states if s is not first)
    return first, second


def effective(weights: Weights, step: sp.Expr = STEP) -> sp.Expr:
    """Sum of squared weights over the squared sum: one over the effective number of steps."""
    squares = product_sum([weights, weights], step)
    return sp.factor(sp.simplify(squares / product_sum([weights], step) ** 2))


def _warm(weights: Weights) -> sp.Expr:
    """0 at the first step, 1 in the steady state: ((1 - spread_t)/(1 - spread_oo))**8.

    With spread = (1-β)(1+βᵗ)/((1+β)(1-βᵗ)) the ratio is (1 - βᵗ⁻¹)/(1 - βᵗ).
    """
    if weights.decay == 1:
        return (1 - 1 / STEP) ** WARM_POWER
    return ((1 - weights.decay ** (STEP - 1)) / (1 - weights.decay**STEP)) ** WARM_POWER


def direct(derivation: Derivation, form: Kernel) -> Tracking:
    """Track unbiased estimates of the states' covariance and variance."""
    first, second = _states(derivation)
    pairs = {m.moment.func.__name__: m for m in form.moments}
    if len(derivation.rule.states) > 2 or (first is None and len(derivation.rule.states) > 1):
        return _within_step(derivation, form)
    forgets = second.weights.decay != 0
    accumulators, moments = [], []
    trust = sp.Integer(1)
    if forgets:
        settled = 1 / (1 + ((1 - second.weights.decay * RATIO) / SETTLED_SHARE) ** SETTLED_POWER)
        moments.append(
            Definition(
                "trust",
                sp.Symbol("warm") * sp.Symbol("enough") * settled,
                "withdrawn at the start and where one step dominates",
            )
        )
        trust = moments[0].symbol
    layout = (
        ("cov", "covariance", first, 1),
        ("var", "variance", second, 2),
    )
    for key, name, state, power in layout:
        if key not in pairs:
            continue
        gain = state.weights.gain * second.weights.gain
        # a covariance keeps the gradient's unit: it is relative to v, its estimate to √v³
        unit = sp.Symbol("root", positive=True) if key == "cov" and not _opaque(first) else 1
        accumulators.append(
            Accumulator(
                name,
                sp.Integer(power),
                state.weights.decay * second.weights.decay,
                gain,
                unit * step_covariance(state, second),
                f"{key} of the states, relative to the preconditioner's state",
            )
        )
        value = accumulators[-1].symbol
        if key == "cov" and state.weights.debias:
            value = value / sp.Symbol("debias_numerator")
        moments.append(Definition(pairs[key].name, trust * value))
    scalars = _debias_scalars(first, second)
    if forgets:
        scalars += [
            Definition("warm", _warm(second.weights), "no trust before there is a history"),
            Definition("enough", 1 - (2 / MICROBATCHES) ** 3, "nor with two microbatches"),
        ]
    highest = 0 if _opaque(second) else 4
    return Tracking("direct", tuple(accumulators), tuple(scalars), tuple(moments), highest)


def _opaque(state: State | None) -> bool:
    return state is not None and state.statistic.opaque


def _within_step(derivation: Derivation, form: Kernel) -> Tracking:
    """Several preconditioners: the step's own moments are passed in by name."""
    if any(s.weights.decay != 0 for s in derivation.rule.states):
        return Tracking("step")
    return Tracking("step", highest=2)


def _debias_scalars(first: State | None, second: State) -> list[Definition]:
    scalars = []
    if first is not None and first.weights.debias:
        scalars.append(Definition("debias_numerator", first.weights.normalizer(STEP)))
    if second.weights.debias:
        scalars.append(Definition("debias_preconditioner", second.weights.normalizer(STEP)))
    return scalars


def closure(derivation: Derivation, form: Kernel, *, skewness: bool) -> Tracking:
    """Track the noise of the mean gradient and, with `skewness`, its third cumulant."""
    first, second = _states(derivation)
    if first is not None and first.statistic.observation != second.statistic.observation:
        first = None  # nothing couples
    wanted = _step_estimates() if skewness else _step_estimates()[:1]
    memories = {name: _memory(first, second, power) for name, power, _, _ in wanted}
    accumulators = tuple(
        Accumulator(name, power, memories[name].decay, memories[name].gain, increment, note)
        for name, power, increment, note in wanted
    )
    scalars = _debias_scalars(*_states(derivation)) + _closure_scalars(first, second, memories)
    return Tracking(
        "closure" if skewness else "closed_form",
        accumulators,
        tuple(scalars),
        tuple(_closure_moments(_states(derivation)[0], form, skewness=skewness)),
        highest=3 if skewness else 2,
    )


def _step_estimates() -> tuple[tuple[str, sp.Rational, sp.Expr, str], ...]:
    """Name, power of v, unbiased estimate from one step, meaning."""
    m = MICROBATCHES
    third = central(3) / ((m - 1) * sp.Max(m - 2, 1))  # two microbatches have c3 = 0
    return (
        ("noise", sp.Integer(1), central(2) / (m - 1), "var(ḡ)/v"),
        ("third", sp.Rational(3, 2), third, "third cumulant of ḡ, relative to √v³"),
        ("third_mean", sp.Integer(2), STEP_MEAN * third, "E ḡ k₃, relative to v²"),
    )


def _memory(first: State | None, second: State, power: sp.Rational) -> Weights:
    """How long an estimate is remembered: as long as the coupling's sum, where there is one.

    And no longer than v**power itself lasts: its ratio to v**power would grow without end once
    the gradients vanish.
    """
    lasts = second.weights.decay**power
    if first is None or first.weights.decay == 0:
        decay = lasts
    elif power == 1:
        decay = first.weights.decay * second.weights.decay
    else:
        decay = sp.Min(first.weights.decay * second.weights.decay, lasts)
    return Weights(decay) if decay == 1 else Weights(decay, 1 - decay)


def _closure_scalars(
    first: State | None, second: State, memories: dict[str, Weights]
) -> list[Definition]:
    raw = Weights(second.weights.decay, second.weights.gain)
    scalars = [
        Definition("unit", sp.simplify(product_sum([raw])), "sum of the weights of the raw state v")
    ]
    for name, memory in memories.items():
        kept = STEP if memory.decay == 1 else 1 - memory.decay**STEP
        scalars.append(Definition(f"remembered_{name}", kept, "sum of the accumulator's weights"))
    if first is not None:
        joint = product_sum([first.weights, second.weights])
        apart = product_sum([first.weights]) * product_sum([second.weights])
        overlap = sp.simplify(joint / apart)
        scalars.append(Definition("overlap", overlap, "Σ w w' of both averages"))
    return [
        *scalars,
        Definition("spread", effective(second.weights), "Σ w² of the preconditioner's average"),
        Definition("warm", _warm(second.weights), "no trust before there is a history"),
    ]


def _closure_moments(first: State | None, form: Kernel, *, skewness: bool) -> list[Definition]:
    noise, third, mixed = (_average(*row[:2]) for row in _step_estimates())
    spread, overlap, warm = sp.symbols("spread overlap warm")
    share, signal = sp.symbols("noise_share signal", real=True)
    moments = [Definition("noise_share", sp.Min(noise, 1), "q, at most everything is noise")]
    relative, skew = share * (4 - 2 * share), sp.Integer(0)
    if skewness:
        moments += [
            Definition("signal", _signal(first), "mean gradient over its root mean square"),
            Definition(
                "skew_variance",
                _bounded(3 * signal * third + mixed, SKEW_VARIANCE_LIMIT),
                "4 μ κ₃ + κ₄, relative",
            ),
            Definition("skewness", _bounded(third, SKEWNESS_LIMIT), "κ₃ over the cube of the root"),
        ]
        relative = sp.Max(relative + moments[-2].symbol, 0)
        skew = moments[-1].symbol
    for moment in form.moments:
        if moment.moment.func.__name__ == "cov":
            value = warm * overlap * _coupling(first, share, skew, skewness=skewness)
        else:
            value = warm * spread * relative
        moments.append(Definition(moment.name, value))
    return moments


def _average(name: str, power: sp.Rational) -> sp.Expr:
    """The debiased average of an accumulator, relative to the debiased v**power."""
    unit = sp.Symbol("unit")
    return sp.Symbol(name, real=True) * unit**power / sp.Symbol(f"remembered_{name}")


def _coupling(first: State, share: sp.Expr, skew: sp.Expr, *, skewness: bool) -> sp.Expr:
    """cov(ḡ, ḡ²)/v, in the unit of the gradient.

    2 μ ν + κ₃ from averages. A numerator without memory couples with its own step alone, where
    E ḡ ν̂ = μ ν + κ₃: the same covariance is 2 ḡ ν̂ - k₃ of that step, and zero with its gradient.
    """
    root = sp.Symbol("root_mean_square", positive=True)
    if first.weights.decay != 0:
        return 2 * first.symbol * share + skew * root
    unit = sp.Symbol("unit")
    noise, third, _ = (row[2] * unit ** row[1] for row in _step_estimates())
    newest = 2 * first.symbol * sp.Min(noise, 1)
    return newest - _bounded(third, SKEWNESS_LIMIT) * root if skewness else newest


def _signal(first: State | None) -> sp.Expr:
    # without a numerator the step's own mean stands in for the average gradient
    top = first.symbol if first is not None else STEP_MEAN
    return top / sp.Symbol("root_mean_square", positive=True)


def _bounded(expression: sp.Expr, limit: int) -> sp.Expr:
    return sp.Max(sp.Min(expression, limit), -limit)
