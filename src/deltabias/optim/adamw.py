"""AdamW, corrected: see `deltabias.rules.adam` for its mathematics."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw
from torch.optim.optimizer import ParamsT

from deltabias.generated import adamw, adamw_mean_of_squares
from deltabias.microbatch import MicrobatchStats, StepMoments
from deltabias.optim.averaged import CORRECTIONS, AveragedOptimizer
from deltabias.optim.checks import (
    NONFINITE,
    check_betas,
    check_choice,
    check_range,
    refuse_flags,
)
from deltabias.optim.compiled_step import lie_alike
from deltabias.optim.cross_fit import CROSS_FITTED, crossed_step, fold_names
from deltabias.optim.stepping import by_device_and_dtype

SECOND_MOMENTS: dict[str, ModuleType] = {
    "square_of_mean": adamw,
    "mean_of_squares": adamw_mean_of_squares,
}


def _as_laid(grad: Tensor, param: Tensor) -> Tensor:
    """A copy of the gradient in the parameter's order in memory."""
    return torch.empty_like(param).copy_(grad)


class AdamW(AveragedOptimizer):
    r"""AdamW whose mean update is the population update, to second order.

    .. math:: \theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\,
              \frac{\hat m + c}{(\sqrt{\hat v} + \epsilon)(1 + q)}

    with c the coupling and q the inversion correction, tracked from the attached
    `MicrobatchStats`; c = q = 0 is `torch.optim.AdamW`, bit for bit.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, maximize, foreach
        as `torch.optim.AdamW`
    capturable
        as torch's: step counts stand on the parameter's device, nothing is read back from there,
        and a CUDA graph may repeat the step, its statistics included. What the host decides is
        frozen with the graph: the number of microbatches, their weights, ``lr`` unless it is a
        tensor on the device; the counts of `validity` that the host keeps are those of its own
        calls. ``nonfinite`` must be 'skip' or 'ignore'; without ``storage``, and not for the
        cross-fitted corrections. Capture after a step or two that had statistics, as torch asks.
    correction : {"delta", "closed_form", "inversion", "cross_fit", "cross_fit+delta", "none"}
        ``delta`` (default) corrects coupling and inversion over the whole trajectory;
        ``closed_form`` is the one-buffer version for normal gradient noise; ``inversion`` corrects
        the inversion alone, which by itself usually makes the bias larger (for comparison).
        ``cross_fit`` and ``cross_fit+delta`` are the published ones, within a step; they need
        ``MicrobatchStats(params, groups=2)`` and keep both averages twice.
    second_moment : {"square_of_mean", "mean_of_squares"}
        what the second moment averages: the squared mean gradient (torch's), or the mean of the
        microbatches' squared gradients. These are two rules with two population updates, best at
        different learning rates.
    fused : bool, optional
        one pass over memory: compiled on a CPU, Triton on a GPU; without a correction torch's own
        fused kernel. Values differ from the plain step by a few units in the last place. Where
        nothing can be compiled it says so once and runs the same step uncompiled. Compiling takes
        seconds at the first step; without it a corrected step is many passes over memory, on a
        CPU ten times slower and more (`python -m validation.benchmarks rivals`).
    exact : bool
        with ``fused=True`` on CUDA: every root and division rounded as IEEE 754 wants it, all
        operations in the order of the step without ``fused``, whose bits it gives; without it they
        are a few units in the last place off. Refused on a CPU, where the step without ``fused``
        is the exact one.
    stochastic_rounding : bool
        with ``fused=True`` on CUDA, for bf16 parameters: each is rounded up or down at random, with
        the right mean, so that updates below half a unit are not lost
    seed : int
        of the rounding; with the step count it settles every bit. It is saved in the group, so a
        checkpoint goes on alike, and must be the same on every rank.
    storage : {None, "float32", "bfloat16", "int8"}
        None tracks the estimates at full precision, in every step. The others remember *shares*
        instead, averages of each estimate relative to its own step's second moment, which is what
        ``MicrobatchStats(params, every=k)`` needs: 6 bytes a parameter in int8 and 12 in bf16 for
        ``delta`` (None: 12), 2 and 4 for ``closed_form`` (None: 4). See `deltabias.optim.shares`.
    nonfinite : {"raise", "skip", "ignore"}
        what to do with a NaN or infinite gradient. The look costs one device synchronization;
        ``ignore`` does not look, as torch. With ``capturable`` the device decides: ``skip`` takes
        the whole step back there, which costs a copy of parameters and state while it lasts.

    Raises
    ------
    ValueError
        for hyperparameters out of range, and options that exclude each other.
    NotImplementedError
        for amsgrad and differentiable.
    RuntimeError
        for parameters on a device, or of a dtype, that ``fused``, ``exact``,
        ``stochastic_rounding`` or ``capturable`` is not made for.

    Sources
    -------
    Loshchilov & Hutter, arXiv 1711.05101, algorithm 2; the correction: `deltabias.tracking`.

    Examples
    --------
    >>> import torch
    >>> from deltabias.microbatch import MicrobatchStats
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = AdamW([weight], lr=0.1)
    >>> stats = MicrobatchStats([weight])
    >>> optimizer.attach(stats)
    >>> for scale in (1.0, 3.0):
    ...     with stats.microbatch():
    ...         (scale * weight.sum() / 2).backward()
    >>> optimizer.step()
    >>> optimizer.validity().corrected
    1
    """

    states = ("exp_avg", "exp_avg_sq")
    unsupported = ("differentiable", "amsgrad")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        correction: str = "delta",
        second_moment: str = "square_of_mean",
        nonfinite: str = "raise",
        storage: str | None = None,
        exact: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
    ):
        refuse_flags("AdamW", {"amsgrad": amsgrad, "differentiable": differentiable})
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "correction": correction,
            "second_moment": second_moment,
            "nonfinite": nonfinite,
            "capturable": capturable,
            "fused": fused,
            "storage": storage,
            "exact": exact,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group's own options are checked too."""
        options = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay"):
            check_range(name, options[name])
        check_betas(options["betas"])
        check_choice("correction", options["correction"], (*CORRECTIONS, *CROSS_FITTED))
        check_choice("second_moment", options["second_moment"], SECOND_MOMENTS)
        check_choice("nonfinite", options["nonfinite"], NONFINITE)
        self._check_implementation(options)
        tensors = [
            n
            for n, v in (
                ("lr", options["lr"]),
                ("betas", options["betas"][0]),
                ("betas", options["betas"][1]),
            )
            if isinstance(v, Tensor)
        ]
        if options["foreach"] and tensors and not options["capturable"]:
            raise ValueError(f"{tensors[0]} in a tensor is not supported with foreach=True.")
        squared = options["second_moment"] == "square_of_mean"
        if options["correction"] in ("closed_form", *CROSS_FITTED) and not squared:
            raise ValueError(
                f"correction={options['correction']!r} is for second_moment='square_of_mean'; use "
                "correction='delta' with second_moment='mean_of_squares'."
            )
        super().add_param_group(param_group)

    @staticmethod
    def _check_implementation(options: dict[str, Any]) -> None:
        """Raise for options of which each is known, but not together."""
        correction = options["correction"]
        if options["fused"] and correction in CROSS_FITTED:
            raise NotImplementedError(
                f"AdamW(fused=True) has no one-pass step for {correction=}; leave fused out."
            )
        if options["capturable"] and correction in CROSS_FITTED:
            raise NotImplementedError(
                f"AdamW(capturable=True) has no step for {correction=}; leave capturable out."
            )

    def _step_as_torch(self, group: dict[str, Any], params: list[Tensor]) -> bool:
        if self._feeds_on_moments(group) or any(self._arithmetic(group).values()):
            return False
        if group["capturable"] and not group["fused"]:
            self._step_captured(group, params)
            return True
        states = [self.state[p] for p in params]
        # torch's kernel walks through memory, and takes it that all tensors lie alike
        plain = all(
            type(p) in (Tensor, torch.nn.Parameter)
            and lie_alike(p, *(s[n] for n in self.states))
            and {p.dtype} == {p.grad.dtype, *(s[n].dtype for n in self.states)}
            for p, s in zip(params, states, strict=True)
        )
        if not plain:
            return False
        for indices in by_device_and_dtype(params):
            chosen = [params[i] for i in indices]
            grads = [p.grad if lie_alike(p, p.grad) else _as_laid(p.grad, p) for p in chosen]
            steps = [states[i]["step"] for i in indices]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                chosen,
                grads,
                [states[i]["exp_avg"] for i in indices],
                [states[i]["exp_avg_sq"] for i in indices],
                [],
                [step.to(chosen[0].device, non_blocking=True) for step in steps],
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
            )
        return True

    def _step_captured(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """torch's own step for graphs, which rounds otherwise than its plain one."""
        states = [self.state[p] for p in params]
        beta1, beta2 = group["betas"]
        torch_adamw(
            params,
            [p.grad for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            foreach=group["foreach"],
            capturable=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )

    def _module(self, group: dict[str, Any]) -> ModuleType:
        return SECOND_MOMENTS[group["second_moment"]]

    def _scalars(self, group: dict[str, Any]) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {"beta1": beta1, "beta2": beta2, "eps": group["eps"]}

    # -- the published correction -------------------------------------------------------------

    def _strategy(self, group: dict[str, Any]) -> str:
        return "plug_in" if self._crosses(group) else super()._strategy(group)

    @staticmethod
    def _crosses(group: dict[str, Any]) -> bool:
        return group["correction"] in CROSS_FITTED

    def _check_statistics(self, stats: MicrobatchStats, group: dict[str, Any]) -> None:
        super()._check_statistics(stats, group)
        if self._crosses(group) and stats.group_count != 2:
            raise ValueError(
                f"correction={group['correction']!r} needs two groups of microbatches, the "
                f"statistics keep groups={stats.group_count}; build MicrobatchStats(params, "
                "groups=2)."
            )

    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        super()._init_state(param, group)
        if self._crosses(group):
            state = self.state[param]
            for own, second in zip(self.states, fold_names(self.states), strict=True):
                if second not in state:  # a checkpoint without folds: both start alike
                    state[second] = state[own].clone()

    def _step_together(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        moments: StepMoments | None,
        count: float | None,
        foreach: bool,
    ) -> None:
        if not self._crosses(group) or (moments is None and not self._had_statistics):
            super()._step_together(group, params, grads, moments, count, foreach)
            self._align_folds(group, params)
            return
        scalars = self._step_scalars(group, "plug_in", moments and moments.count, count)
        delta = group["correction"] == "cross_fit+delta"
        for param, grad in zip(params, grads, strict=True):
            state = self.state[param]
            misfit = crossed_step(
                self._module(group), state, param, grad, moments, scalars, delta=delta
            )
            self._tally("_misaligned", misfit)

    def _remembers(self, state: dict[str, Tensor], group: dict[str, Any]) -> bool:
        folds = (
            zip(self.states, fold_names(self.states), strict=True) if self._crosses(group) else ()
        )
        return super()._remembers(state, group) or any(
            not torch.equal(state[own], state[second]) for own, second in folds
        )

    def _align_folds(self, group: dict[str, Any], params: list[Tensor]) -> None:
        if self._crosses(group):
            for param in params:
                state = self.state[param]
                for own, second in zip(self.states, fold_names(self.states), strict=True):
                    state[second].copy_(state[own])

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        beta2 = float(group["betas"][1])
        return (1 + beta2) * (1 - beta2**step) / ((1 - beta2) * (1 + beta2**step))
