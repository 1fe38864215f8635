"""The step of optimizers that average one gradient: statistics, generated function, counters."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltabias.microbatch import StepMoments
from deltabias.optim.base import CorrectedOptimizer
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


class AveragedOptimizer(CorrectedOptimizer):
    """Chooses the generated step of a group and feeds it."""

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

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        known = ("param", "grad", *self.states, "c2", "c3", "c4", "unit_of_c")
        step = getattr(self._module(group), f"step_{self._strategy(group)}")
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
        foreach = use_foreach(group, params)
        grads = self._gradients(group, params)
        steps = [self.state[p]["step"] for p in params]
        for step in steps:
            step += 1
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
        strategy = self._strategy(group)
        if moments is None and not self._had_statistics:
            strategy = "plug_in"  # bit for bit torch's own
        module = self._module(group)
        names = self._arguments(group, strategy)
        tensors: dict[str, list[Tensor]] = {"param": params, "grad": grads}
        if "unit_of_c" in names:
            highest = max(int(n[1]) for n in names if n in ("c2", "c3", "c4"))
            raw = [-p.grad if group["maximize"] else p.grad for p in params]
            tensors |= self._moment_inputs(params, raw, moments, highest)
        kept = (*self.states, *self._accumulators(group))
        for name in names:
            if name in kept:
                tensors[name] = [self.state[p][name] for p in params]
        scalars = self._step_scalars(group, strategy, moments and moments.count, count)
        if foreach:
            scalars["lr"] = float(scalars["lr"])
        positional = {n: tensors[n] for n in names if n in tensors}
        keywords = {n: scalars[n] for n in names if n not in tensors}
        run_step(module, f"step_{strategy}", positional, keywords, foreach=foreach)

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
            **hypers,
        }
        scalars = function(*(available[name] for name in parameters_of(function)))
        if microbatches is None and "warm" in scalars:
            scalars["warm"] = 0.0  # no statistics in this step: take it uncorrected
        return {**available, **scalars, "lr": group["lr"]}

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        strategy = self._strategy(group)
        function = getattr(self._module(group), f"meter_{strategy}", None)
        if function is None:
            zero = torch.zeros_like(param, dtype=torch.float32)
            return zero, zero
        microbatches = group.get("microbatches", 2)
        scalars = self._step_scalars(group, strategy, microbatches, float(state["step"]))
        return read_meter(function, {**scalars, **state})
