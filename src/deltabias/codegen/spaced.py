"""Statistics every k-th step: a step that observes, and the cheap one in between.

What the closure model tracks is remembered here as a *share*: the average of each estimate
relative to the debiased second moment of its own step,

    s ← s + w (ŝ - s),   w = (1 - dᵏ)/(1 - dᵏⁿ)   at the n-th observation,

with d the decay per step that the plain step has. A share has no unit and a known range, so eight
bits hold it, and it needs no ratio v_old/v_new. The plain step instead averages the estimates
themselves and divides by the newest second moment: both are right for gradients that are
stationary over the memory of the averages, which the closure model assumes; they differ in second
order of the fluctuations of v.

In between, what observing has worked out is read again and nothing of it is written:

    delta        N = ν s, K = κ₃ s/2 and I = q, without the factors of t; the step is
                 (m (1 + N · push) + K √v · push) / (d (1 + I · swell))
    closed_form  f = (ν s - I spread/overlap)/(1 + I · swell);   (m/d)(1 + f · push)

A numerator without a memory (RMSprop's) couples with its own step alone: c = (2 g ν + κ₃)/(2√v)
per share s. Where a step observes it takes its own estimates, as the plain step does; in between
the averages ν̄ and κ̄₃, which are independent of its gradient, so that E g ν̄ = μ ν:

    delta        (g + (g ν̄ + κ̄₃ √v̂/2) s · push) / (d (1 + I · swell))

with push = Σ w w' · warm, swell = Σ w² · warm of the *current* t: the factor of the closed form is
the quotient of the numerator's 1 + ν s push and the denominator's 1 + I swell, less one.
"""

import sympy as sp

from deltabias.calculus.weights import STEP
from deltabias.codegen.ssa import Number, Program, lower
from deltabias.codegen.step import LIMIT, RELATIVE, TINY
from deltabias.codegen.step import _StepBuilder as StepBuilder
from deltabias.correction import Correction
from deltabias.derivation import MICROBATCHES
from deltabias.rule import Ema
from deltabias.safe_form import Definition
from deltabias.tracking import SKEWNESS_LIMIT, Accumulator

EVERY = sp.Symbol("every", positive=True)
"""k: one step in so many has statistics."""

OBSERVED = sp.Symbol("observed", positive=True)
"""n: how many steps have had them, this one included."""

STRATEGIES = ("delta", "closed_form")
HELD = ("noise_kept", "skewness_kept", "inversion_kept")


def spaced_programs(correction: Correction) -> list[Program]:
    """The observing step and the one in between; none where the model has no shares."""
    if not has_shares(correction):
        return []
    return [_SpacedBuilder(correction, looks).build() for looks in (True, False)]


def spaced_scalars(correction: Correction) -> list[Program]:
    """The scalars of both, of the step count t and of `EVERY` and `OBSERVED`."""
    if not has_shares(correction):
        return []
    known = [d for d in correction.tracking.scalars if not d.name.startswith("remembered_")]
    overlap, spread, warm = sp.symbols("overlap spread warm")
    known += [Definition("push", overlap * warm), Definition("swell", spread * warm)]
    if correction.strategy == "closed_form":
        known.append(Definition("relative_spread", spread / overlap))
    return [
        _scalar_program(correction, known + _weights(correction), "spaced"),
        _scalar_program(correction, known, "held"),
    ]


def has_shares(correction: Correction) -> bool:
    """Whether the correction averages estimates of the closure model, of one kind of gradient.

    Estimates of the direct model are not bounded, and Adagrad's are never forgotten.
    """
    return (
        correction.strategy in STRATEGIES
        and correction.tracking.model in ("closure", "closed_form")
        and len({s.statistic.observation for s in correction.rule.states}) == 1
        and all(a.kept and a.decay != 1 for a in correction.tracking.accumulators)
    )


def share_name(accumulator: Accumulator) -> str:
    """The state that holds an accumulator's share."""
    return f"{accumulator.name}_share_kept"


def held_names(correction: Correction) -> tuple[str, ...]:
    """The states that a step without statistics reads."""
    if correction.strategy == "closed_form":
        return ("factor_kept",)
    # a fresh gradient couples anew with averages that are kept already
    return ("inversion_kept",) if _is_fresh(correction) else HELD


def _is_fresh(correction: Correction) -> bool:
    return not isinstance(correction.rule.states[0], Ema)


def _weights(correction: Correction) -> list[Definition]:
    return [
        Definition(f"weight_{a.name}", (1 - a.decay**EVERY) / (1 - a.decay ** (EVERY * OBSERVED)))
        for a in correction.tracking.accumulators
    ]


def _scalar_program(correction: Correction, definitions: list[Definition], kind: str) -> Program:
    hypers = [h.name for s in correction.rule.states for h in s.hypers]
    arguments = [STEP.name, *hypers]
    if kind == "spaced":
        arguments += [EVERY.name, OBSERVED.name]
    return lower(
        f"scalars_{correction.strategy}_{kind}",
        definitions,
        (),
        arguments,
        results=[d.name for d in definitions],
    )


class _SpacedBuilder(StepBuilder):
    """The plain step's parts, with shares in place of accumulators."""

    def __init__(self, correction: Correction, looks: bool):
        self.looks = looks
        super().__init__(correction, observe=True, apply=True)

    def _name(self) -> str:
        return f"step_{self.correction.strategy}_{'spaced' if self.looks else 'held'}"

    def _tensors(self) -> tuple[str, ...]:
        names = ["param", "grad", *(s.name for s in self.rule.states if isinstance(s, Ema))]
        read = None if self.looks else self._read_in_between()
        names += [
            share_name(a) for a in self.tracking.accumulators if read is None or a.name in read
        ]
        names += held_names(self.correction)
        if self.looks:
            names += [f"c{k}" for k in range(2, self.tracking.highest + 1)] + ["unit_of_c"]
        return tuple(names)

    def _read_in_between(self) -> tuple[str, ...]:
        """Accumulators whose shares a step without statistics reads."""
        couples_anew = _is_fresh(self.correction) and self.correction.strategy == "delta"
        return ("noise", "third") if couples_anew else ()

    def build(self) -> Program:
        for state in self._states():
            self._update_state(state)
        self._working_precision()
        if self.looks:
            self._track()
            self._moments()
        self._define_kernel({d.name: d for d in self._wanted()})
        if self.looks:
            self._keep()
        self._move()
        self._collect_scalars()
        return self.program.prune()

    def _wanted(self) -> list[Definition]:
        """Of the kernel the denominator and, where there are moments, the inversion."""
        names = {"denominator", "share", "inversion"} if self.looks else {"denominator"}
        return [d for d in self.kernel.definitions if d.name in names]

    def _keep(self) -> None:
        """What the steps in between will read."""
        inversion, share, spread = sp.symbols("inversion share relative_spread")
        if self.correction.strategy == "closed_form":  # cov = 2 m̂ ν
            top = sp.Symbol("noise_share") * share - inversion * spread
            now = {"factor_kept": top / (1 + inversion * sp.Symbol("swell"))}
        else:
            noise, skewness = (sp.Symbol(n, real=True) for n in ("noise_share", "skewness"))
            now = dict(zip(HELD, (noise * share, skewness * share / 2, inversion), strict=True))
            now = {name: now[name] for name in held_names(self.correction)}
        for name, expression in now.items():
            self._define(Definition(f"{name}_now", expression))
            self.code.mutate(name, "copy", f"{name}_now")

    def _move(self) -> None:
        lr, push = self._scalar("lr"), sp.Symbol("push")
        average, bottom = sp.Symbol("average"), sp.Symbol("denominator")
        if self.correction.strategy == "closed_form":
            top = average * (1 + self._kept("factor_kept") * push)
        else:
            top = average + (self._anew() if _is_fresh(self.correction) else self._as_kept())
            # d (1 + I swell), of which one product and one sum wait for the inversion
            self._define(Definition("swollen", bottom * sp.Symbol("swell")))
            bottom = bottom + self._kept("inversion_kept") * sp.Symbol("swollen")
        self._define(Definition("numerator", top, "coupling joins the numerator"))
        self._define(Definition("divisor", bottom))
        if self.first.weights.debias:
            lr = self.code.emit("div", lr, self._scalar("debias_numerator"))
        self.code.mutate(
            "param", "addcdiv", "numerator", "divisor", value=self.code.emit("neg", lr)
        )

    def _as_kept(self) -> sp.Expr:
        """The coupling in units of the numerator's raw average.

        The noise couples with the average of *now*, which may have another sign or size than at
        the last look; of the skewness's part nothing newer is known.
        """
        push = sp.Symbol("push")
        scale = sp.Symbol("debias_numerator") / sp.sqrt(sp.Symbol("debias_preconditioner"))
        self._define(Definition("push_root", push * scale))
        skewness = self._kept("skewness_kept") * sp.Symbol("push_root") * sp.Symbol("root")
        return sp.Symbol("average") * self._kept("noise_kept") * push + skewness

    def _anew(self) -> sp.Expr:
        """The coupling of this step's own gradient."""
        average, share = sp.Symbol("average"), sp.Symbol("share")
        if self.looks:
            cov = next(m.name for m in self.kernel.moments if m.moment.func.__name__ == "cov")
            return sp.Symbol(cov) * share / 2 * sp.Symbol("push")
        self._define(Definition(share.name, sp.Symbol("root") / sp.Symbol("denominator")))
        rms = sp.Symbol("root") / sp.sqrt(sp.Symbol("unit"))
        noise = sp.Min(1, sp.Symbol("noise_share_kept", real=True))
        skewness = sp.Symbol("third_share_kept", real=True)
        skewness = sp.Max(-SKEWNESS_LIMIT, sp.Min(SKEWNESS_LIMIT, skewness))
        return (average * noise + rms * skewness / 2) * share * sp.Symbol("push")

    def _kept(self, name: str) -> sp.Symbol:
        return sp.Symbol(f"{name}_now" if self.looks else name, real=True)

    def _working_precision(self) -> None:
        # a one-pass step works in the dtype of its scalars: no cast is printed
        if not self.looks:  # nothing is divided by the root
            self._assign("root", "sqrt", self.second.name)
            self.code.bind(self._first_name(), "average")
            return
        self.code.bind(self.code.emit("clamp_min", self.second.name, Number(TINY)), "safe_second")
        self._assign("root", "sqrt", "safe_second")
        self.code.bind(self._first_name(), "average")

    def _track(self) -> None:
        self._assign("step_mean", "div", "grad", "root")
        self._assign("relative_unit", "div", "unit_of_c", "root")
        for k in range(2, self.tracking.highest + 1):
            value = f"c{k}"
            for _ in range(k):
                value = self.code.emit("mul", value, "relative_unit")
            # cut before it meets the step's mean: where v vanishes, infinity times zero is NaN
            value = self.code.emit("clamp_min", value, Number(sp.Integer(-LIMIT)))
            value = self.code.emit("clamp_max", value, Number(sp.Integer(LIMIT)))
            self.code.bind(value, f"relative_c{k}")
        for accumulator in self.tracking.accumulators:
            self._average_share(accumulator)

    def _average_share(self, accumulator: Accumulator) -> None:
        estimate = accumulator.increment.subs(RELATIVE) * sp.Symbol("unit") ** accumulator.power
        weight = self._scalar(f"weight_{accumulator.name}")
        self.code.mutate(share_name(accumulator), "lerp", self._lower_scaled(estimate), weight)

    def _as_seen(self, expression: sp.Expr) -> sp.Expr:
        """The moments in terms of shares, which are debiased and relative to v̂ already.

        The factors of the step count are left to `push` and `swell`.
        """
        unit = sp.Symbol("unit")
        expression = expression.subs(dict.fromkeys(sp.symbols("overlap spread warm"), 1))
        for a in self.tracking.accumulators:
            average = unit**a.power / sp.Symbol(f"remembered_{a.name}")
            expression = expression.subs(a.symbol, sp.Symbol(share_name(a), real=True) / average)
        return super()._as_seen(sp.simplify(expression) if expression.has(unit) else expression)

    def _collect_scalars(self) -> None:
        order = [h.name for h in self.rule.all_hypers]
        order += [d.name for d in self.tracking.scalars] + ["push", "swell", "relative_spread"]
        order += [f"weight_{a.name}" for a in self.tracking.accumulators]
        order += [MICROBATCHES.name, "debias_numerator", "debias_preconditioner", "lr"]
        self.program.scalars = tuple(sorted(set(self.program.scalars), key=order.index))
