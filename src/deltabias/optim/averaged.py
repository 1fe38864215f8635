"""The step of optimizers that average one gradient: statistics, generated function, counters."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import MicrobatchStats, StepMoments
from deltabias.microbatch.alignment import fitting_units
from deltabias.optim.base import CorrectedOptimizer, accumulator_dtype
from deltabias.optim.capturable import check_capturable, refuse_uncapturable, run_captured
from deltabias.optim.compiled_step import compiled_form, run_one_pass
from deltabias.optim.fused import (
    SlowStepWarning,
    check_fused,
    refuse_moved,
    refuse_unfit,
    run_fused,
    slow_without,
)
from deltabias.optim.meter import read_meter
from deltabias.optim.shares import check_storage, kept_dtype, read_shares
from deltabias.optim.stepping import by_step_count, parameters_of, run_step, use_foreach

CORRECTIONS = {
    # name of the option: (generated step, highest central moment, tracked with a history)
    "none": "plug_in",
    "delta": "delta",
    "inversion": "inversion",
    "closed_form": "closed_form",
}


def _skew(moments: StepMoments | None) -> float:
    """What a third central moment is multiplied by: generated code divides by (m-1)(m-2).

    Unequal weights want W Σ 1/w - 3m + 2, and two microbatches say nothing about skewness.
    """
    record = None if moments is None else next((m for m in moments if m is not None), None)
    if record is None or record.count < 3:
        return 0.0
    m, spread = record.count, record.weight * record.inverse_weight
    return 1.0 if spread == m * m else (m - 1) * (m - 2) / (spread - 3 * m + 2)


@cache
def _remembered(step: Callable[..., Any], states: tuple[str, ...]) -> tuple[str, ...]:
    """The tensors that a step takes and that are neither a rule's own nor of this step alone."""
    known = ("param", "grad", *states, "c2", "c3", "c4", "unit_of_c", "scalars")
    return tuple(
        name
        for name, p in parameters_of(step).items()
        if p.kind is p.POSITIONAL_OR_KEYWORD and name not in known
    )


class AveragedOptimizer(CorrectedOptimizer):
    """Chooses the generated step of a group and feeds it."""

    _advised = False

    def attach(self, stats: MicrobatchStats) -> None:
        """As `CorrectedOptimizer.attach`; with ``fused=True`` the statistics are fused, too."""
        super().attach(stats)
        if any(group.get("fused") for group in self.param_groups):
            stats.fuse()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; what is known of the devices is checked here, and again in a step."""
        options = {**self.defaults, **param_group}
        check_fused(options)
        check_capturable(options)
        form, strategy = compiled_form(self._module(options)), self._strategy(options)
        check_storage(type(self).__name__, options, form, strategy)
        first = self.param_groups[0] if self.param_groups else options
        if bool(first.get("capturable")) != bool(options.get("capturable")):
            raise ValueError(
                f"capturable={options.get('capturable')} in one group and "
                f"{first.get('capturable')} in another: a graph records a whole step. Pass it to "
                "the optimizer."
            )
        super().add_param_group(param_group)

    def _refuse_parameter(self, param: Tensor, options: dict[str, Any]) -> None:
        super()._refuse_parameter(param, options)
        if param.is_meta:  # not known yet where it will be
            return
        if options.get("fused"):
            refuse_unfit(param, **self._arithmetic(options))
        if options.get("capturable"):
            refuse_uncapturable(param)

    @staticmethod
    def _arithmetic(group: dict[str, Any]) -> dict[str, bool]:
        """How the fused step computes."""
        names = ("exact", "stochastic_rounding")
        return {name: bool(group.get(name)) for name in names}

    def _module(self, group: dict[str, Any]) -> ModuleType:
        """The generated module of the group's rule."""
        raise NotImplementedError

    def _scalars(self, group: dict[str, Any]) -> dict[str, Any]:
        """Hyperparameters by the rule's names."""
        raise NotImplementedError

    def _strategy(self, group: dict[str, Any]) -> str:
        return CORRECTIONS[group["correction"]]

    def _arguments(self, group: dict[str, Any], strategy: str) -> tuple[str, ...]:
        return tuple(parameters_of(getattr(self._module(group), f"step_{strategy}")))

    def _step_function(self, group: dict[str, Any]) -> Callable[..., Any]:
        """The function whose arguments say what is remembered."""
        strategy = self._strategy(group)
        if self._remembers_shares(group) and strategy != "plug_in":
            return self._function(group, f"{strategy}_spaced", one_pass=True)
        return self._function(group, strategy, one_pass=False)

    def _function(self, group: dict[str, Any], strategy: str, *, one_pass: bool) -> Callable:
        """The generated step of a strategy, plain or in one pass."""
        module = self._module(group)
        if one_pass:
            return getattr(compiled_form(module), f"one_pass_{strategy}")
        return getattr(module, f"step_{strategy}")

    def _remembers_shares(self, group: dict[str, Any]) -> bool:
        return group.get("storage") is not None or super()._remembers_shares(group)

    def _dtype_of(self, name: str, param: Tensor, group: dict[str, Any]) -> torch.dtype:
        if group.get("storage") is not None and name not in self.counters:
            return kept_dtype(name, group["storage"], accumulator_dtype(param))
        return super()._dtype_of(name, param, group)

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return _remembered(self._step_function(group), self.states)

    def _moments_needed(self, group: dict[str, Any]) -> int:
        names = self._arguments(group, self._strategy(group))
        return max((int(n[1]) for n in names if n in ("c2", "c3", "c4")), default=2)

    def _gradients(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """The gradients as the rule sees them."""
        return [-p.grad if group["maximize"] else p.grad for p in params]

    def _decay(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Decoupled weight decay, as torch.optim.AdamW: before the step."""
        if group["weight_decay"] != 0:
            keep = 1 - group["lr"] * group["weight_decay"]
            if use_foreach(group, params):
                torch._foreach_mul_(params, keep)
                return
            for param in params:
                param.mul_(keep)

    def _update_group(
        self, group: dict[str, Any], params: list[Tensor], moments: StepMoments | None
    ) -> None:
        kernel = group.get("fused") or group.get("capturable")
        if kernel and self._is_plain(group, moments) and self._step_as_torch(group, params):
            return
        if not (kernel or self._is_plain(group, moments)):
            self._advise()
        foreach = use_foreach(group, params)
        grads = self._gradients(group, params)
        steps = [self.state[p]["step"] for p in params]
        if group.get("capturable"):
            torch._foreach_add_(steps, 1)  # a launch for all
        else:
            for step in steps:
                step += 1
        if group.get("storage") is not None and moments is not None and moments.observed:
            group["observed"] = group.get("observed", 0) + 1
        if not kernel:
            self._decay(group, params)
        # a graph counts its own steps: nobody here knows them
        counts = {None: range(len(steps))} if group.get("capturable") else by_step_count(steps)
        for count, indices in counts.items():
            chosen = [params[i] for i in indices]
            self._step_together(group, chosen, [grads[i] for i in indices], moments, count, foreach)

    def _advise(self) -> None:
        """Say once where a compiled step would be many times faster; ``fused=False`` knows."""
        if self._advised:
            return
        self._advised = True
        params = [p for g in self.param_groups if g.get("fused") is None for p in g["params"]]
        if advice := slow_without(params):
            self._warn_once(f"{type(self).__name__}: {advice}", SlowStepWarning)

    def _step_together(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        moments: StepMoments | None,
        count: float | None,
        foreach: bool,
    ) -> None:
        strategy = self._strategy_now(group, moments)
        module = self._module(group)
        captured, microbatches = count is None, moments and moments.count
        one_pass = group.get("fused") or captured or strategy.endswith(("_spaced", "_held"))
        names = tuple(parameters_of(self._function(group, strategy, one_pass=bool(one_pass))))
        tensors: dict[str, list[Tensor]] = {"param": params, "grad": grads}
        scalars = partial(self._step_scalars, group, strategy, microbatches)
        skew = {}
        if "unit_of_c" in names:
            highest = max(int(n[1]) for n in names if n in ("c2", "c3", "c4"))
            raw = [-p.grad if group["maximize"] else p.grad for p in params]
            if one_pass and not group.get("exact"):
                tensors |= self._raw_inputs(params, raw, moments, highest)
                skew["skew"] = _skew(moments)
            else:
                tensors |= self._moment_inputs(params, raw, moments, highest)
        kept = (*self.states, *self._accumulators(group))
        for name in names:
            if name in kept:
                tensors[name] = [self.state[p][name] for p in params]
        positional = {n: tensors[n] for n in names if n in tensors}
        step = f"step_{strategy}"
        if captured:
            counts = [self.state[p]["step"] for p in params]
            self._run_captured(
                group, step, positional, counts, lambda t: {**scalars(t), **skew},
                corrected=microbatches is not None,
            )  # fmt: skip
            return
        values = {**scalars(count), **skew}
        if group.get("fused"):
            self._run_fused(group, step, positional, values)
        elif one_pass:
            run_one_pass(compiled_form(module), step, positional, values, compile_it=False)
        else:
            if foreach:
                values["lr"] = float(values["lr"])
            keywords = {n: values[n] for n in names if n not in tensors}
            run_step(module, step, positional, keywords, foreach=foreach)

    def _run_captured(
        self,
        group: dict[str, Any],
        step: str,
        tensors: Mapping[str, list[Tensor]],
        counts: list[Tensor],
        scalars: Callable[[Tensor | None], Mapping[str, Any]],
        *,
        corrected: bool = True,
    ) -> None:
        """A step whose scalars the device works out; of None they are those it starts from."""
        if group.get("fused"):
            values = scalars(None)
            self._run_fused(group, step, tensors, values, steps=counts, corrected=corrected)
            return
        form, decay = compiled_form(self._module(group)), self._decoupled(group)
        run_captured(form, step, tensors, counts, scalars, weight_decay=decay)

    def _run_fused(
        self,
        group: dict[str, Any],
        step: str,
        tensors: Mapping[str, list[Tensor]],
        scalars: Mapping[str, Any],
        **counted: Any,
    ) -> None:
        options: dict[str, Any] = {**self._arithmetic(group), **counted}
        if options["stochastic_rounding"]:
            options["seed"] = self._key(group)
        run_fused(
            self._module(group),
            step,
            tensors,
            scalars,
            weight_decay=self._decoupled(group),
            say_once=self._warn_once,
            **options,
        )

    def _key(self, group: dict[str, Any]) -> int:
        """A key for each group: two of them must not round alike."""
        place = next(i for i, own in enumerate(self.param_groups) if own is group)
        return (group["seed"] + 0x9E3779B1 * place) % 2**31

    def _is_plain(self, group: dict[str, Any], moments: StepMoments | None) -> bool:
        """Whether this step is the rule's own, without any correction."""
        return self._strategy_now(group, moments) == "plug_in"

    def _step_as_torch(self, group: dict[str, Any], params: list[Tensor]) -> bool:
        """Take the whole step with torch's own fused kernel, if there is one; say if it was."""
        return False

    def _decoupled(self, group: dict[str, Any]) -> float:
        """The weight decay that a fused step applies to the parameter."""
        return group["weight_decay"]

    def _strategy_now(self, group: dict[str, Any], moments: StepMoments | None) -> str:
        """The strategy of this step: plain until there is something to correct with."""
        strategy = self._strategy(group)
        if strategy == "plug_in" or (moments is None and not self._had_statistics):
            return "plug_in"  # bit for bit torch's own
        if group.get("storage") is None:
            return strategy
        if moments is None or not (moments.observed or group.get("observed")):
            return "plug_in"
        return f"{strategy}_{'spaced' if moments.observed else 'held'}"

    def _raw_inputs(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        moments: StepMoments | None,
        highest: int,
    ) -> dict[str, list[Tensor]]:
        """As `_moment_inputs`, for steps that clean up themselves: nothing is copied."""
        names = [f"c{k}" for k in range(2, highest + 1)]
        inputs: dict[str, list[Tensor]] = {name: [] for name in (*names, "unit_of_c")}
        records = [None if moments is None else moments[param] for param in params]
        known = [(r, g) for r, g in zip(records, grads, strict=True) if r is not None]
        means, scales = [r.scaled_mean for r, _ in known], [r.scale for r, _ in known]
        units, misfits = fitting_units(means, scales, [g for _, g in known])
        for misfit in misfits:
            self._tally("_misaligned", misfit)
        fitting = iter(units)
        for param, record in zip(params, records, strict=True):
            if record is None:
                zero = torch.zeros_like(param, dtype=accumulator_dtype(param))
                central, unit = dict.fromkeys(range(2, highest + 1), zero), zero.new_zeros(())
            else:
                central, unit = record.scaled_central, next(fitting)
            for k, name in enumerate(names, start=2):
                inputs[name].append(central[k])
            inputs["unit_of_c"].append(unit)
        return inputs

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        return super()._wants_statistics(group) or self._feeds_on_moments(group)

    def _refuse_moved(self) -> None:
        """Raise for parameters that left their state, or any step, since they were given."""
        for group in self.param_groups:
            names = self.states, self._accumulators(group)
            refuse_moved(group, self.state, *names, **self._arithmetic(group))

    def _before_update(self, params: list[Tensor]) -> None:
        super()._before_update(params)
        self._refuse_moved()
        starved = self._stats is None or not self._stats.is_fresh
        if starved and any(map(self._feeds_on_moments, self.param_groups)):
            raise RuntimeError(
                "second_moment='mean_of_squares' averages the squares of the microbatches' "
                "gradients, and this step has no MicrobatchStats to take them from; nothing was "
                "changed. Attach statistics and wrap each backward in stats.microbatch(), or use "
                "second_moment='square_of_mean'."
            )

    def _feeds_on_moments(self, group: dict[str, Any]) -> bool:
        """Whether the rule's own statistic needs the microbatches."""
        return "unit_of_c" in self._arguments(group, "plug_in")

    def _step_scalars(
        self,
        group: dict[str, Any],
        strategy: str,
        microbatches: int | None,
        count: float | Tensor | None,
    ) -> dict[str, Any]:
        """The scalars of a step by its count, of many by a vector; without one what is known."""
        hypers = self._scalars(group)
        function = getattr(self._module(group), f"scalars_{strategy}")
        available: dict[str, Any] = {
            "microbatches": float(microbatches or 2),
            "every": float(getattr(self._stats, "every", 1)),
            "observed": float(group.get("observed", 1)),
            **hypers,
        }
        if count is None:
            return {**available, "lr": group["lr"]}
        available["t"] = count
        scalars = function(*(available[name] for name in parameters_of(function)))
        if microbatches is None and "warm" in scalars:
            # no statistics in this step: take it uncorrected
            scalars |= {n: 0.0 for n in ("warm", "push", "swell") if n in scalars}
        return {**available, **scalars, "lr": group["lr"]}

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        strategy = self._strategy(group)
        if group.get("storage") is not None and strategy != "plug_in":
            scalars = self._step_scalars(group, f"{strategy}_held", 2, float(state["step"]))
            return read_shares(compiled_form(self._module(group)), state, scalars)
        function = getattr(self._module(group), f"meter_{strategy}", None)
        if function is None:
            zero = torch.zeros_like(param, dtype=torch.float32)
            return zero, zero
        microbatches = group.get("microbatches", 2)
        scalars = self._step_scalars(group, strategy, microbatches, float(state["step"]))
        return read_meter(function, {**scalars, **state})
