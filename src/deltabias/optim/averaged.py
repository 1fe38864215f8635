"""The step of optimizers that average one gradient: statistics, generated function, counters."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import MicrobatchStats, StepMoments
from deltabias.optim.base import CorrectedOptimizer, accumulator_dtype
from deltabias.optim.compiled_step import compiler_missing, run_one_pass
from deltabias.optim.fused import check_states, refuse_unfit, run_fused
from deltabias.optim.shares import kept_dtype, read_shares
from deltabias.optim.stepping import by_step_count, parameters_of, run_step, use_foreach

CORRECTIONS = {
    # name of the option: (generated step, highest central moment, tracked with a history)
    "none": "plug_in",
    "delta": "delta",
    "inversion": "inversion",
    "closed_form": "closed_form",
}


def read_meter(function: Callable[..., Any], values: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """A generated meter's inversion and coupling; a coupling that is nowhere is zero."""
    arguments = parameters_of(function)
    inversion, coupling = function(
        *(values[n] for n, p in arguments.items() if p.kind is not p.KEYWORD_ONLY),
        **{n: values[n] for n, p in arguments.items() if p.kind is p.KEYWORD_ONLY},
    )
    return inversion, torch.as_tensor(coupling, dtype=inversion.dtype).expand_as(inversion)


def _skew(moments: StepMoments | None) -> float:
    """What a third central moment is multiplied by: generated code divides by (m-1)(m-2).

    Unequal weights want W Σ 1/w - 3m + 2, and two microbatches say nothing about skewness.
    """
    record = None if moments is None else next((m for m in moments if m is not None), None)
    if record is None or record.count < 3:
        return 0.0
    m, spread = record.count, record.weight * record.inverse_weight
    return 1.0 if spread == m * m else (m - 1) * (m - 2) / (spread - 3 * m + 2)


class AveragedOptimizer(CorrectedOptimizer):
    """Chooses the generated step of a group and feeds it."""

    def attach(self, stats: MicrobatchStats) -> None:
        """As `CorrectedOptimizer.attach`; with ``fused=True`` the statistics are fused, too."""
        super().attach(stats)
        if any(group.get("fused") for group in self.param_groups):
            stats.fuse()

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

    def _step_name(self, group: dict[str, Any]) -> str:
        """The function whose arguments say what is remembered."""
        strategy = self._strategy(group)
        if self._remembers_shares(group) and strategy != "plug_in":
            return f"one_pass_{strategy}_spaced"
        return f"step_{strategy}"

    def _remembers_shares(self, group: dict[str, Any]) -> bool:
        return group.get("storage") is not None or super()._remembers_shares(group)

    def _dtype_of(self, name: str, param: Tensor, group: dict[str, Any]) -> torch.dtype:
        if group.get("storage") is not None and name not in self.counters:
            return kept_dtype(name, group["storage"], accumulator_dtype(param))
        return super()._dtype_of(name, param, group)

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        known = ("param", "grad", *self.states, "c2", "c3", "c4", "unit_of_c", "scalars")
        step = getattr(self._module(group), self._step_name(group))
        return tuple(
            name
            for name, p in parameters_of(step).items()
            if p.kind is p.POSITIONAL_OR_KEYWORD and name not in known
        )

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
        if group.get("fused"):
            for param in params:
                refuse_unfit(param)
                own = (*self.states, *self._accumulators(group))
                check_states(param, {name: self.state[param][name] for name in own})
            if self._is_plain(group, moments) and self._step_as_torch(group, params):
                return
        foreach = use_foreach(group, params)
        grads = self._gradients(group, params)
        steps = [self.state[p]["step"] for p in params]
        for step in steps:
            step += 1
        if group.get("storage") is not None and moments is not None and moments.observed:
            group["observed"] = group.get("observed", 0) + 1
        if not group.get("fused"):
            self._decay(group, params)
        for count, indices in by_step_count(steps).items():
            chosen = [params[i] for i in indices]
            self._step_together(group, chosen, [grads[i] for i in indices], moments, count, foreach)

    def _step_together(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        moments: StepMoments | None,
        count: float,
        foreach: bool,
    ) -> None:
        strategy = self._strategy_now(group, moments)
        module = self._module(group)
        one_pass = group.get("fused") or strategy.endswith(("_spaced", "_held"))
        prefix = "one_pass" if one_pass else "step"
        names = tuple(parameters_of(getattr(module, f"{prefix}_{strategy}")))
        tensors: dict[str, list[Tensor]] = {"param": params, "grad": grads}
        scalars = self._step_scalars(group, strategy, moments and moments.count, count)
        if "unit_of_c" in names:
            highest = max(int(n[1]) for n in names if n in ("c2", "c3", "c4"))
            raw = [-p.grad if group["maximize"] else p.grad for p in params]
            if one_pass:
                fused = bool(group.get("fused")) and not compiler_missing()
                tensors |= self._raw_inputs(params, raw, moments, highest, fused=fused)
                scalars["skew"] = _skew(moments)
            else:
                tensors |= self._moment_inputs(params, raw, moments, highest)
        kept = (*self.states, *self._accumulators(group))
        for name in names:
            if name in kept:
                tensors[name] = [self.state[p][name] for p in params]
        positional = {n: tensors[n] for n in names if n in tensors}
        if group.get("fused"):
            run_fused(
                module,
                f"step_{strategy}",
                positional,
                scalars,
                weight_decay=self._decoupled(group),
                say_once=self._warn_once,
            )
            return
        if one_pass:
            run_one_pass(module, f"step_{strategy}", positional, scalars, compile_it=False)
            return
        if foreach:
            scalars["lr"] = float(scalars["lr"])
        keywords = {n: scalars[n] for n in names if n not in tensors}
        run_step(module, f"step_{strategy}", positional, keywords, foreach=foreach)

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
        *,
        fused: bool = False,
    ) -> dict[str, list[Tensor]]:
        """As `_moment_inputs`, for steps that clean up themselves: nothing is copied."""
        names = [f"c{k}" for k in range(2, highest + 1)]
        inputs: dict[str, list[Tensor]] = {name: [] for name in (*names, "unit_of_c")}
        for param, grad in zip(params, grads, strict=True):
            record = None if moments is None else moments[param]
            if record is None:
                zero = torch.zeros_like(param, dtype=accumulator_dtype(param))
                central, unit = dict.fromkeys(range(2, highest + 1), zero), zero.new_zeros(())
            else:
                scale, aligned = record.alignment(grad, fused=fused and grad.device.type == "cpu")
                self._misaligned = self._misaligned + (~aligned).long()
                central = record.scaled_central
                unit = torch.where(aligned, scale, torch.zeros_like(scale))
            for k, name in enumerate(names, start=2):
                inputs[name].append(central[k])
            inputs["unit_of_c"].append(unit)
        return inputs

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        return super()._wants_statistics(group) or self._feeds_on_moments(group)

    def _before_update(self, params: list[Tensor]) -> None:
        super()._before_update(params)
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
        count: float,
    ) -> dict[str, Any]:
        hypers = self._scalars(group)
        function = getattr(self._module(group), f"scalars_{strategy}")
        available: Mapping[str, Any] = {
            "t": count,
            "microbatches": float(microbatches or 2),
            "every": float(getattr(self._stats, "every", 1)),
            "observed": float(group.get("observed", 1)),
            **hypers,
        }
        scalars = function(*(available[name] for name in parameters_of(function)))
        if microbatches is None and "warm" in scalars:
            # no statistics in this step: take it uncorrected
            scalars |= {n: 0.0 for n in ("warm", "push", "swell") if n in scalars}
        return {**available, **scalars, "lr": group["lr"]}

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        strategy = self._strategy(group)
        if group.get("storage") is not None and strategy != "plug_in":
            scalars = self._step_scalars(group, f"{strategy}_held", 2, float(state["step"]))
            return read_shares(self._module(group), state, scalars)
        function = getattr(self._module(group), f"meter_{strategy}", None)
        if function is None:
            zero = torch.zeros_like(param, dtype=torch.float32)
            return zero, zero
        microbatches = group.get("microbatches", 2)
        scalars = self._step_scalars(group, strategy, microbatches, float(state["step"]))
        return read_meter(function, {**scalars, **state})
