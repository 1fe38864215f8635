"""SophiaG, corrected: see `deltabias.rules.sophia` for its mathematics."""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from deltabias.generated import sophia_g
from deltabias.microbatch import StepMoments
from deltabias.optim.averaged import AveragedOptimizer
from deltabias.optim.capturable import refuse_capture
from deltabias.optim.checks import (
    NONFINITE,
    check_betas,
    check_choice,
    check_range,
    refuse_gradient,
)
from deltabias.optim.meter import read_meter
from deltabias.optim.stepping import by_step_count, parameters_of, run_step, use_foreach

CORRECTIONS = ("none", "delta")


class SophiaG(AveragedOptimizer):
    r"""Sophia with the Gauss-Newton-Bartlett curvature, its inverse corrected.

    .. math:: \theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\,\mathrm{clip}\!\left(
              \frac{m}{\max(\rho B h, \epsilon)(1 + q)}, -1, 1\right)

    Every k steps call `update_hessian` with gradients for labels *drawn from the model* in
    ``param.grad``; those are independent of the data's, so only the inversion is biased. Attach
    statistics of *these* gradients' microbatches:

        for batch in microbatches:
            with stats.microbatch():
                (loss_with_drawn_labels(batch) / len(microbatches)).backward()
        optimizer.update_hessian()

    Parameters
    ----------
    params, lr, betas, rho, weight_decay, maximize
        as the published SophiaG; one deviation: ``max(rho B h, eps)`` as in the paper's
        algorithm 3, where the published code adds eps
    eps : float
    batch_size : int
        B, the number of examples (or tokens) a curvature gradient averages over
    correction : {"delta", "none"}
    nonfinite : {"raise", "skip", "ignore"}
    fused : bool, optional
        one compiled pass for each of the two steps; a few units in the last place from the plain
    capturable, exact, stochastic_rounding, seed
        as `deltabias.optim.AdamW`; `step` and `update_hessian` are captured each in a graph of its
        own

    Sources
    -------
    Liu et al., arXiv 2305.14342, algorithms 2 and 3; the correction: `deltabias.tracking`.
    """

    states = ("exp_avg", "hessian")
    counters = ("hessian_step",)
    unsupported = ("differentiable",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float = 1e-1,
        *,
        eps: float = 1e-15,
        batch_size: int = 1,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        correction: str = "delta",
        nonfinite: str = "raise",
        fused: bool | None = None,
        exact: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "weight_decay": weight_decay,
            "eps": eps,
            "batch_size": batch_size,
            "maximize": maximize,
            "foreach": foreach,
            "correction": correction,
            "nonfinite": nonfinite,
            "capturable": capturable,
            "fused": fused,
            "exact": exact,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group's own options are checked too."""
        options = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay", "rho", "batch_size"):
            check_range(name, options[name])
        check_betas(options["betas"])
        check_choice("correction", options["correction"], CORRECTIONS)
        check_choice("nonfinite", options["nonfinite"], NONFINITE)
        super().add_param_group(param_group)

    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        super()._init_state(param, group)
        if "hessian_step" not in self.state[param]:
            place = self._place_of_counts(param, group)
            zero = torch.zeros((), dtype=torch.float32, device=place)
            self.state[param]["hessian_step"] = zero

    def _module(self, group: dict[str, Any]) -> ModuleType:
        return sophia_g

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return () if group["correction"] == "none" else ("noise",)

    def _moments_needed(self, group: dict[str, Any]) -> int:
        return 2

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        return group["correction"] != "none"

    def _feeds_on_moments(self, group: dict[str, Any]) -> bool:
        return False

    def _take_statistics(self) -> StepMoments | None:
        return None  # a step needs none: the curvature's statistics went into update_hessian

    def _before_update(self, params: list[Tensor]) -> None:
        """The data's gradients need no statistics."""
        self._refuse_moved()

    def _scalars(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        rho = group["rho"] * group["batch_size"]
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "rho": rho}

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Average in the squared gradients of drawn labels, and what their microbatches say.

        Raises
        ------
        FloatingPointError
            for a non-finite gradient, before any state is touched (``nonfinite='raise'``).
        """
        refuse_capture(self)
        params = [p for p in self._all_params() if p.grad is not None]
        for param in params:
            refuse_gradient(param)
        if not self._finite(params):
            return
        with self._undone_if_bad(params):
            self._take_curvature(params)

    def _take_curvature(self, params: list[Tensor]) -> None:
        super()._before_update(params)
        moments = None
        if any(map(self._wants_statistics, self.param_groups)):
            moments = super()._take_statistics()
        if moments is not None:
            self._counts["corrected"] += 1
            self._had_statistics = True
        for group in self.param_groups:
            if moments is not None:
                group["microbatches"] = moments.count
            chosen = [p for p in group["params"] if p.grad is not None]
            for param in chosen:
                self._init_state(param, group)
                self.state[param]["hessian_step"] += 1
            if chosen:
                self._observe(group, chosen, moments)

    def _observe(
        self, group: dict[str, Any], params: list[Tensor], moments: StepMoments | None
    ) -> None:
        corrected = group["correction"] != "none" and self._had_statistics
        tensors = {
            "grad": [p.grad for p in params],
            "hessian": [self.state[p]["hessian"] for p in params],
        }
        scalars = {"beta2": group["betas"][1]}
        if corrected:
            tensors["noise"] = [self.state[p]["noise"] for p in params]
            one_pass = group["fused"] or group["capturable"]
            inputs = self._raw_inputs if one_pass else self._moment_inputs
            tensors |= inputs(params, tensors["grad"], moments, 2)
            scalars["microbatches"] = 2.0 if moments is None else float(moments.count)
        name = "step_observe_delta" if corrected else "step_observe_plug_in"
        if group["capturable"]:
            counts = [self.state[p]["hessian_step"] for p in params]
            self._run_captured(group, name, tensors, counts, lambda t: scalars)
        else:
            self._run(group, name, tensors, scalars, foreach=use_foreach(group, params))

    def _run(
        self,
        group: dict[str, Any],
        name: str,
        tensors: dict[str, list[Tensor]],
        scalars: dict[str, Any],
        *,
        foreach: bool,
    ) -> None:
        if group["fused"]:
            self._run_fused(group, name, tensors, scalars)
        else:
            run_step(sophia_g, name, tensors, scalars, foreach=foreach)

    def _step_together(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        moments: StepMoments | None,
        count: float | None,
        foreach: bool,
    ) -> None:
        corrected = group["correction"] != "none" and self._had_statistics
        name = f"step_apply_{'delta' if corrected else 'plug_in'}"
        tensors = {"param": params, "grad": grads}
        for state in (*self.states, *(self._accumulators(group) if corrected else ())):
            tensors[state] = [self.state[p][state] for p in params]
        steps = [self.state[p]["hessian_step"] for p in params]
        if group["capturable"]:
            scalars = partial(self._curvature_scalars, group)
            self._run_captured(group, name, tensors, steps, scalars)
            return
        wanted = parameters_of(getattr(sophia_g, name))
        for seen, indices in by_step_count(steps).items():
            chosen = {n: [column[i] for i in indices] for n, column in tensors.items()}
            scalars = self._curvature_scalars(group, seen)
            keywords = {n: scalars[n] for n in wanted if n not in tensors}
            self._run(group, name, chosen, keywords, foreach=foreach)

    def _curvature_scalars(
        self, group: dict[str, Any], seen: float | Tensor | None
    ) -> dict[str, Any]:
        """Scalars of the number of curvature updates; before the first nothing is known."""
        scalars = {**self._scalars(group), "lr": group["lr"]}
        if group["correction"] == "none" or seen is None:
            return scalars
        t = seen.clamp_min(1) if isinstance(seen, Tensor) else max(seen, 1.0)
        function = sophia_g.scalars_delta
        return scalars | function(*({"t": t, **scalars}[n] for n in parameters_of(function)))

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        scalars = self._curvature_scalars(group, float(state["hessian_step"]))
        return read_meter(sophia_g.meter_delta, {**scalars, **state})

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        beta2 = float(group["betas"][1])
        return (1 + beta2) * (1 - beta2**step) / ((1 - beta2) * (1 + beta2**step))
