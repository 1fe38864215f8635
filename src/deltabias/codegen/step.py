"""One optimizer step as straight-line code: states, tracking, direction, parameter.

The operations of the plug-in step are torch's own, in torch's order, so that with the
correction off the result is torch's to the last bit.
"""

import sympy as sp

from deltabias.codegen.ssa import Lowering, Number, Program
from deltabias.correction import Correction
from deltabias.derivation import MICROBATCHES
from deltabias.errors import GenerateError
from deltabias.parser import clip
from deltabias.rule import Ema, State
from deltabias.safe_form import Definition, numerator_of
from deltabias.tracking import RATIO, STEP_MEAN, central

TINY = sp.Rational(1, 2**126)
"""The smallest normal fp32 number: below it a second moment counts as this large."""

RATIO_LIMIT = sp.Integer(10**9)

FINITE = sp.Integer(10**34)
"""A third moment relative to a vanishing state is cut here before it is multiplied."""

LIMIT = 10**18
"""Estimates relative to a vanishing state are cut here, so that no accumulator overflows."""


RELATIVE = {central(k): sp.Symbol(f"relative_c{k}") for k in (2, 3, 4)}
RELATIVE[sp.Symbol("root", positive=True)] = sp.Symbol("root")
"""The step's estimates by the names they have in generated code."""


def step_program(correction: Correction, *, observe: bool = True, apply: bool = True) -> Program:
    """The step of a rule under a correction.

    ``observe`` and ``apply`` split it where statistics and gradient come at different times, as
    Sophia's do: observing updates the preconditioner's state and what is tracked, applying
    updates the numerator's and the parameter.
    """
    return _StepBuilder(correction, observe, apply).build()


def meter_program(correction: Correction) -> Program:
    """What the correction does to the update, from the state alone: (inversion, coupling).

    ``inversion`` is what the update is divided by, less one. ``coupling`` is what is added to
    the average gradient, in units of its root mean square.
    """
    return _MeterBuilder(correction, observe=False, apply=True).build()


class _StepBuilder:
    def __init__(self, correction: Correction, observe: bool, apply: bool):
        self.correction = correction
        self.rule = correction.rule
        self.tracking = correction.tracking
        self.kernel = correction.kernel
        self.observe, self.apply = observe, apply
        numerator = numerator_of(correction.derivation)
        self.first = next((s for s in self.rule.states if s.symbol == numerator), None)
        self.second = next(s for s in self.rule.states if s.symbol != numerator)
        self.corrected = bool(correction.terms)
        self.program = Program(self._name(), self._tensors(), ())
        self.code = Lowering(self.program)

    def _name(self) -> str:
        prefix = "step_" + (
            "" if self.observe and self.apply else "observe_" if self.observe else "apply_"
        )
        return f"{prefix}{self.correction.strategy}".replace("+", "_")

    def _states(self) -> list[State]:
        """The states with a memory that this function updates."""
        mine = [self.second] if self.observe else []
        if self.apply and self.first is not None:
            mine = [self.first, *mine]
        return [s for s in mine if isinstance(s, Ema)]

    def _tensors(self) -> tuple[str, ...]:
        names = ["param"] if self.apply else []
        names.append("grad")
        for state in self.rule.states:
            if isinstance(state, Ema) and (state in self._states() or self.apply):
                names.append(state.name)
        if self.corrected:
            names += [a.name for a in self.tracking.accumulators if a.kept]
        if self.observe and self._needs_moments():
            names += [f"c{k}" for k in range(2, self.tracking.highest + 1)] or ["c2"]
            names.append("unit_of_c")
        return tuple(names)

    def _needs_moments(self) -> bool:
        return self.corrected or self._averages_squares()

    def _averages_squares(self) -> bool:
        statistic = self.second.statistic
        return statistic.outer is None and statistic.sample == statistic.observation**2

    # -- the parts ----------------------------------------------------------------------------

    def build(self) -> Program:
        if self.observe and self.corrected:
            self._assign("old", "clone", self.second.name)
        for state in self._states():
            self._update_state(state)
        if self.corrected:
            self._working_precision()
        if self.observe and self.corrected:
            self._track()
        if self.apply:
            self._move_parameter()
        self._collect_scalars()
        return self.program.prune()

    def _assign(self, name: str, operation: str, *operands: str | Number) -> str:
        return self.code.bind(self.code.emit(operation, *operands), name)

    def _scalar(self, name: str) -> str:
        return self.code.scalar_argument(name)

    def _update_state(self, state: Ema) -> None:
        beta = self._scalar(state.beta.name)
        rest = self.code.emit("sub", Number(sp.Integer(1)), beta)
        statistic = state.statistic
        if statistic.outer is None and statistic.sample == statistic.observation:
            self.code.mutate(state.name, "lerp", "grad", rest)
            return
        self.code.mutate(state.name, "mul", beta)
        self.code.mutate(state.name, "addcmul", "grad", "grad", value=rest)
        if self._averages_squares():  # mean of squares = square of mean + c2
            spread = self._moment_in_gradient_units()
            self.code.mutate(state.name, "add", spread, alpha=rest)

    def _moment_in_gradient_units(self) -> str:
        once = self.code.emit("mul", "c2", "unit_of_c")
        return self.code.emit("mul", once, "unit_of_c")

    def _working_precision(self) -> None:
        """Corrections are computed in the accumulators' precision (fp32 for bf16 states)."""
        kept = next(a.name for a in self.tracking.accumulators if a.kept)
        v = self._assign("second_now", "to_dtype_of", self.second.name, kept)
        self.code.bind(self.code.emit("clamp_min", v, Number(TINY)), "safe_second")
        if self.observe or self._root_is_read():
            self._assign("root", "sqrt", "safe_second")
        if self.observe:
            self._assign("gradient_now", "to_dtype_of", "grad", kept)
        if self.apply and isinstance(self.first, Ema):
            self._assign("average", "to_dtype_of", self.first.name, kept)
        elif self.observe:
            self.code.bind("gradient_now", "average")

    def _root_is_read(self) -> bool:
        definitions = (*self.kernel.definitions, *self.tracking.moments)
        read = set().union(*(d.expression.free_symbols for d in definitions))
        names = {s.name for s in read}
        # any power that is not whole is taken of the root: v^(1/3) = root^(2/3)
        powers = {p for d in definitions for p in d.expression.atoms(sp.Pow)}
        roots = any(p.base == self.second.symbol and not p.exp.is_integer for p in powers)
        return roots or "root_mean_square" in names

    def _track(self) -> None:
        # where v has no memory the ratio has no bound; its powers must not meet a zero decay
        ratio = self.code.emit("div", "old", "safe_second")
        self.code.bind(self.code.emit("clamp_max", ratio, Number(RATIO_LIMIT)), RATIO.name)
        self._assign(STEP_MEAN.name, "div", "gradient_now", "root")
        self._assign("relative_unit", "div", "unit_of_c", "root")
        for k in range(2, self.tracking.highest + 1):
            value = f"c{k}"
            for _ in range(k):
                value = self.code.emit("mul", value, "relative_unit")
            if k > 2:  # a product with a mean of zero follows: infinity times zero is NaN
                value = self.code.emit("clamp_min", value, Number(-FINITE))
                value = self.code.emit("clamp_max", value, Number(FINITE))
            self.code.bind(value, f"relative_c{k}")
        for accumulator in self.tracking.accumulators:
            self._accumulate(accumulator)

    def _accumulate(self, accumulator) -> None:
        increment = self._lower_scaled(accumulator.increment.subs(RELATIVE))
        bounded = self.code.emit("clamp_min", increment, Number(sp.Integer(-LIMIT)))
        bounded = self.code.emit("clamp_max", bounded, Number(sp.Integer(LIMIT)))
        gain = self._lower_scaled(accumulator.gain)
        if not accumulator.kept:
            self.code.bind(self.code.emit("mul", bounded, gain), accumulator.name)
            return
        shrink = self._lower_scaled(accumulator.decay * RATIO**accumulator.power)
        self.code.mutate(accumulator.name, "mul", shrink)
        self.code.mutate(accumulator.name, "add", bounded, alpha=gain)

    def _lower_scaled(self, expression: sp.Expr):
        self._declare(expression)
        return self.code.lower(expression)

    def _declare(self, expression: sp.Expr) -> None:
        """Symbols that no tensor or definition provides are scalar arguments."""
        for symbol in sorted(expression.free_symbols, key=str):
            if not self.code.declares(symbol.name):
                self._scalar(symbol.name)

    def _define(self, definition: Definition) -> None:
        self._declare(definition.expression)
        self.code.define([definition])

    def _move_parameter(self) -> None:
        definitions = self.kernel.definitions
        if self.corrected:
            self._moments()
            if not self._couples():
                definitions = tuple(d for d in definitions if d.name != "numerator")
        else:
            definitions = tuple(d for d in definitions if d.name in ("denominator", "update"))
        by_name = {d.name: d for d in definitions}
        self._define_kernel(by_name)
        update = by_name["update"].expression
        lr = self._scalar("lr")
        if isinstance(update, clip):
            self._clipped(update, lr)
            return
        top = self._first_name()
        if self.corrected:
            top = "numerator" if "numerator" in by_name else "average"
        bottom = "denominator"
        if self.corrected:
            bottom = self.code.emit(
                "mul", "denominator", self.code.emit("add", "inversion", Number(sp.Integer(1)))
            )
        value = lr
        if self.first is not None and self.first.weights.debias:
            value = self.code.emit("div", lr, self._scalar("debias_numerator"))
        self.code.mutate("param", "addcdiv", top, bottom, value=self.code.emit("neg", value))

    def _couples(self) -> bool:
        return "coupling" in self.correction.terms

    def _first_name(self) -> str:
        if self.first is None:
            raise GenerateError(f"rule {self.rule.name!r} has no numerator to step along.")
        return self.first.name if isinstance(self.first, Ema) else "grad"

    def _moments(self) -> None:
        if self.tracking.model in ("closure", "closed_form") and self._uses("root_mean_square"):
            self._define(
                Definition("root_mean_square", sp.Symbol("root") / sp.sqrt(sp.Symbol("unit")))
            )
        hat = sp.Symbol("average")
        if self.first is not None and self.first.weights.debias and self._uses_first():
            self._define(Definition("average_debiased", hat / sp.Symbol("debias_numerator")))
            hat = sp.Symbol("average_debiased")
        skipped = {
            m.name
            for m in self.kernel.moments
            if m.moment.func.__name__ == "cov" and not self._couples()
        }
        for moment in self.tracking.moments:
            if moment.name in skipped:
                continue
            expression = self._as_seen(moment.expression)
            if self.first is not None:
                expression = expression.subs(self.first.symbol, hat)
            self._define(Definition(moment.name, expression, moment.note))

    def _as_seen(self, expression: sp.Expr) -> sp.Expr:
        return expression.subs(RELATIVE)

    def _uses(self, name: str) -> bool:
        return any(
            name in {s.name for s in d.expression.free_symbols} for d in self.tracking.moments
        )

    def _uses_first(self) -> bool:
        return self._uses(self.first.name)

    def _define_kernel(self, by_name: dict[str, Definition]) -> None:
        """The kernel's definitions, with the raw states in place of the debiased ones."""
        second, there = self.second, {}
        raw = sp.Symbol("safe_second" if self.corrected else second.name, positive=True)
        root = sp.Symbol("root_debiased", positive=True)
        if second.weights.debias:
            inner = sp.Symbol("root") if self.corrected else sp.sqrt(raw)
            scale = sp.sqrt(sp.Symbol("debias_preconditioner", positive=True))
            self._define(Definition(root.name, inner / scale))
            there = {sp.sqrt(second.symbol): root}
        elif self.corrected and any(
            d.expression.has(sp.sqrt(second.symbol)) for d in by_name.values()
        ):
            there = {sp.sqrt(second.symbol): sp.Symbol("root")}
        elif self.corrected:
            there = {second.symbol: sp.Symbol("second_now")}
        for name, definition in by_name.items():
            if name == "update":
                continue
            expression = definition.expression.subs(there)
            if name == "numerator":
                expression = self._raw_numerator(expression)
            self._define(Definition(name, expression, definition.note))

    def _raw_numerator(self, expression: sp.Expr) -> sp.Expr:
        """m̂ + c in units of the state that is kept: m + c · (1 - β₁ᵗ)."""
        coupling = expression - self.first.symbol
        if self.first.weights.debias:
            coupling *= sp.Symbol("debias_numerator")
        return sp.Symbol("average") + coupling

    def _clipped(self, update: clip, lr: str) -> None:
        inner, low, high = update.args
        top = sp.Symbol("average" if self.corrected else self._first_name())
        inner = inner.subs(self.first.symbol, top)
        if not self.corrected:
            inner = top / sp.Symbol("denominator")
        self._define(Definition("direction", clip(inner, low, high)))
        self.code.mutate("param", "add", "direction", alpha=self.code.emit("neg", lr))

    def _collect_scalars(self) -> None:
        order = [h.name for h in self.rule.all_hypers]
        order += [d.name for d in self.tracking.scalars] + [
            MICROBATCHES.name,
            "debias_numerator",
            "debias_preconditioner",
            "lr",
        ]
        self.program.scalars = tuple(sorted(set(self.program.scalars), key=order.index))


class _MeterBuilder(_StepBuilder):
    """The corrected kernel without any update in place."""

    def _name(self) -> str:
        return f"meter_{self.correction.strategy}"

    def _states(self) -> list[State]:
        return []

    def _tensors(self) -> tuple[str, ...]:
        states = [s.name for s in self.rule.states if isinstance(s, Ema)]
        return (*states, *(a.name for a in self.tracking.accumulators if a.kept))

    def _root_is_read(self) -> bool:
        return self._couples_over_steps() or super()._root_is_read()

    def _couples_over_steps(self) -> bool:
        """Whether the coupling is part of what is reported, in units of the root."""
        names = {d.name for d in self.kernel.definitions}
        return "numerator" in names and isinstance(self.first, Ema) and self._couples()

    def _as_seen(self, expression: sp.Expr) -> sp.Expr:
        # how much of v the newest step is, and the newest covariance, went with the step
        gone = {RATIO: 1, **{central(k): 0 for k in (2, 3, 4)}}
        if self.first is not None and not isinstance(self.first, Ema):
            gone[self.first.symbol] = 0
        gone |= {a.symbol: 0 for a in self.tracking.accumulators if not a.kept}
        return expression.subs(gone)

    def _move_parameter(self) -> None:
        self._moments()
        by_name = {d.name: d for d in self.kernel.definitions}
        if not self._couples_over_steps():
            by_name.pop("numerator", None)  # what a fresh numerator coupled with went with its step
        self._define_kernel(by_name)
        coupling = sp.Integer(0)
        if "numerator" in by_name:
            coupling = (sp.Symbol("numerator") - sp.Symbol("average")) / sp.Symbol("root")
        self._define(Definition("coupling", coupling))
        self.program.results = ("inversion", "coupling")
