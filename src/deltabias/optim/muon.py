"""Muon, corrected: orthogonalized momentum, and what its noise does to the mean update."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.matrix_moments import MatrixStep
from deltabias.optim.base import CorrectedOptimizer, accumulator_dtype
from deltabias.optim.cross_fit import fold_names
from deltabias.optim.muon_average import MomentumWeights, gradient_deviations, whole
from deltabias.optim.muon_options import TRACKED, check_group, check_statistics, needs_statistics
from deltabias.optim.orthogonal import (
    NS_COEFFICIENTS,
    NS_STEPS,
    adjusted_lr,
    crossed_polar_factor,
    newton_schulz,
    polar_factor,
    refuse_deficient,
    update_bias,
)
from deltabias.optim.shampoo_meter import MatrixValidity
from deltabias.optim.tracked_spread import bounded

LONG_RUN = 10**6
"""The age of a momentum buffer that comes without one: older than any memory."""


class Muon(CorrectedOptimizer):
    r"""Muon whose mean update comes nearer to the update of the mean gradient, where it can.

    .. math:: W \leftarrow (1-\eta\lambda) W - \eta' \left(T(N_t) - f\,C_t\right)

    with N_t the (Nesterov) momentum and T its orthogonalization. Noise in N_t makes E T(N_t) ≠
    T(E N_t). The difference is estimated to second order for each step of the average, and summed
    with its squared weight there, one step's term cut to the size of the update:

    .. math:: C_t = (1-a_t)^2 K_{t-1} + a_t^2 X_t, \quad
              K_t = (1-b_t)^2 K_{t-1} + b_t^2 X_t, \quad
              X_t = \tfrac12 \sum_r D^2 T(\hat N_t)[\delta_r, \delta_r]

    a_t, b_t: `MomentumWeights`. **It helps where the noise of N_t is below its smallest singular
    values, and there the bias is small.** Beyond, the expansion says nothing and adds its own
    noise, so C_t is withdrawn by f = 1/(1 + (q/trust)²), q = ‖C_t‖/‖T‖: what is left of it is at
    most trust/2 of the update. The default is the plug-in, `torch.optim.Muon` bit for bit. (But
    bf16 parameters with ``nesterov=False``: torch 2.13 then normalizes the momentum buffer
    itself, by an in-place division; this does not.)

    Measured with ``full`` from the history, steady state, 3000 runs (4 × 6 and 8 × 6, condition 3
    to 30, noise 0.1 to 10 times the gradient): left of the exact polar factor's bias are 10 % where
    it is 2 % of the update, 50 % at 7 %, 90 % at 20 %, 99 % at 40 %; of Newton-Schulz's 10 to 70 %
    up to 3 %, 80 % at 4 to 7 %, 90 % or more above 10 %. No case has a larger bias; the
    root-mean-square error of a step grows by up to 4 % (exact) and 10 % (Newton-Schulz).

    Parameters
    ----------
    params, lr, weight_decay, momentum, nesterov, ns_coefficients, eps, ns_steps, adjust_lr_fn
        as `torch.optim.Muon`: matrices only, others belong to another optimizer
    correction : {"plug_in", "cross_fit", "sketch", "full", "eigenvalue_only", "diagonal"}
        For [d, n] with r deviations a step, beyond the momentum d n and the time of T:
        ``plug_in`` nothing;
        ``full`` one buffer d n, in fp32, and about 4 + 3 r times T's time in fp32;
        ``sketch`` the same with r = 1, one random direction of the microbatches;
        ``diagonal``, ``eigenvalue_only`` (exact only, to compare) the buffer, the inversion of
        (MᵀM)^-½ by the diagonal of its second-order part, or as published, ½ f″ Var λ. Without
        the coupling the diagonal makes the bias 1.0 to 1.3 times what it was;
        ``cross_fit`` (exact only) numerator from one group of microbatches, (MᵀM)^-½ from the
        other, both folds averaged and kept at most the update's norm away from the plug-in:
        another buffer and three eigendecompositions. Leaves 40–95 %, at 1.0–1.6 times the error
    polar : {"newton_schulz", "exact"}
        T: torch's quintic iteration, or the polar factor M (MᵀM)^-½ on the short side, in fp64;
        zero for a zero matrix. Large square matrices come near to rank-deficiency by chance
    spread : {"history", "microbatches"}
        δ: the gradient's deviation from the average before it (one; stationary gradients), or
        those of the microbatches, from an attached `MatrixStats` (keep="gradients", or "sketch")
    trust
        the relative size of C_t at which half of it is withdrawn; inf withdraws nothing
    ns_dtype
        dtype of the Newton-Schulz iteration. The correction is in fp32 (fp64 parameters: fp64)
    nonfinite : {"raise", "skip", "ignore"}
        what to do with a NaN or infinite gradient. The look costs one device synchronization;
        ``ignore`` does not look, as torch.

    Raises
    ------
    ValueError, TypeError
        for options out of range, not known or not going together, and parameters not 2-D.
    SingularPreconditioner
        by `step` with ``polar="exact"``, before anything is changed: a rank-deficient average.

    Sources
    -------
    K. Jordan et al., Muon (2024); `torch.optim.Muon`; the second order: `deltabias.rules.muon`.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(2, 2))
    >>> optimizer = Muon([weight], lr=0.5, polar="exact", correction="full")
    >>> weight.grad = torch.diag(torch.tensor([4.0, 1.0]))
    >>> optimizer.step()  # every singular value of the update is 1
    >>> weight.detach()
    tensor([[-0.5000,  0.0000],
            [ 0.0000, -0.5000]])
    """

    plain = "plug_in"
    states = ("momentum_buffer",)
    elementwise = False
    unsupported = (*CorrectedOptimizer.unsupported, "maximize", "foreach")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = NS_COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = NS_STEPS,
        adjust_lr_fn: str | None = None,
        *,
        correction: str = "plug_in",
        polar: str = "newton_schulz",
        spread: str = "history",
        trust: float = 0.1,
        ns_dtype: torch.dtype = torch.bfloat16,
        nonfinite: str = "raise",
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
            "correction": correction,
            "polar": polar,
            "spread": spread,
            "trust": trust,
            "ns_dtype": ns_dtype,
            "nonfinite": nonfinite,
        }
        self._clamped: Tensor | int = 0
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group's own options are checked too."""
        check_group({**self.defaults, **param_group})
        given = param_group["params"]
        if not isinstance(given, Tensor | set):  # an iterator is read once; a set torch refuses
            given = list(given)
        for item in [given] if isinstance(given, Tensor) else given:
            param = item[1] if isinstance(item, tuple) else item
            if isinstance(param, Tensor) and param.ndim != 2:
                raise ValueError(
                    f"Muon only supports 2D parameters, got one of shape {tuple(param.shape)}; "
                    "give vectors to AdamW, and store a convolution's kernel as a matrix "
                    "[out, in * height * width], or give it to Shampoo."
                )
        super().add_param_group({**param_group, "params": given})

    # -- statistics ---------------------------------------------------------------------------

    def _check_statistics(self, stats: MicrobatchStats, group: dict[str, Any]) -> None:
        check_statistics(stats, group)

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        return needs_statistics(group)

    def _take_statistics(self) -> MatrixStep | None:
        taken = super()._take_statistics()
        if taken is None and any(
            g["correction"] in TRACKED and g["spread"] == "history" for g in self.param_groups
        ):
            self._counts["corrected"] += 1
        return taken

    def _record(self, param: Tensor, moments: MatrixStep | None) -> tuple[Any, Tensor]:
        """The record in the gradient's scale, and whether it belongs to it (None, False: none)."""
        record = None if moments is None else moments[param]
        if record is None:
            return None, torch.zeros((), dtype=torch.bool, device=param.device)
        return record.scaled_to(param.grad)

    def _deviations(
        self, param: Tensor, group: dict[str, Any], moments: MatrixStep | None, w: MomentumWeights
    ) -> Tensor | None:
        """δ [r, d, n] of this step's gradient; None where there is no estimate."""
        dtype = accumulator_dtype(param)
        if group["spread"] == "history":
            if w.debias_before == 0:
                return None
            old = self.state[param]["momentum_buffer"].to(dtype) / w.debias_before
            return (param.grad.to(dtype) - old).unsqueeze(0) / (1 + w.squares_before) ** 0.5
        record, aligned = self._record(param, moments)
        if record is None:
            return None
        self._misaligned = self._misaligned + (~aligned).long()
        deviations = whole(record, [gradient_deviations(block) for block in record]).to(dtype)
        # torch.where, not a product: NaN times zero is NaN
        return torch.where(aligned, deviations, torch.zeros_like(deviations))

    def _fold_gradients(self, param: Tensor, moments: MatrixStep | None) -> list[Tensor]:
        """Both groups' mean gradients; the gradient itself where they are not to be had."""
        record, aligned = self._record(param, moments)
        if record is None or any(not g.count for fold in record.groups for g in fold):
            return [param.grad, param.grad]
        means = [whole(fold, [block.mean for block in fold]) for fold in record.groups]
        return [torch.where(aligned, mean.to(param.dtype), param.grad) for mean in means]

    # -- the step -----------------------------------------------------------------------------

    def _before_update(self, params: list[Tensor]) -> None:
        """With exact polar factors, look whether they exist while nothing has changed."""
        super()._before_update(params)
        exact = [p for p in params if p.numel() and self._group_of(p)["polar"] == "exact"]
        crossed = any(group["correction"] == "cross_fit" for group in self.param_groups)
        fresh = self._stats is not None and self._stats.is_fresh and self._stats.count > 1
        moments = self._stats.result() if crossed and fresh else None
        for param in exact:
            group = self._group_of(param)
            self._init_state(param, group)
            averages = []
            for name, gradient in self._inputs(param, group, moments):
                buffer = self.state[param][name].lerp(gradient, 1 - group["momentum"])
                averages.append(_update_of(buffer, gradient, group))
                refuse_deficient(averages[-1])
            if len(averages) == 2:  # and the mean of the folds, for the plug-in
                refuse_deficient(sum(averages) / 2)

    def _inputs(
        self, param: Tensor, group: dict[str, Any], moments: MatrixStep | None
    ) -> list[tuple[str, Tensor]]:
        """The momentum buffers' names and what goes into each."""
        if group["correction"] != "cross_fit":
            return [(self.states[0], param.grad)]
        names = (*self.states, *fold_names(self.states))
        return list(zip(names, self._fold_gradients(param, moments), strict=True))

    def _update_group(
        self, group: dict[str, Any], params: list[Tensor], moments: MatrixStep | None
    ) -> None:
        lr = group["lr"]
        if isinstance(lr, Tensor):  # as torch: stays a tensor, of no dimension
            lr = lr.squeeze()
        for param in params:
            self.state[param]["step"] += 1
            if not param.numel():
                continue
            update = self._update(param, group, moments)
            param.mul_(1 - lr * group["weight_decay"])
            param.add_(update, alpha=-adjusted_lr(lr, group["adjust_lr_fn"], param.shape))

    def _update(self, param: Tensor, group: dict[str, Any], moments: MatrixStep | None) -> Tensor:
        """Advance the averages; the corrected update, before the learning rate."""
        tracked = group["correction"] in TRACKED
        if tracked:
            momentum, nesterov = float(group["momentum"]), group["nesterov"]
            weights = MomentumWeights.at(int(self.state[param]["step"]), momentum, nesterov)
            deviations = self._deviations(param, group, moments, weights)
        averages = []
        for name, gradient in self._inputs(param, group, moments):
            buffer = self.state[param][name].lerp_(gradient, 1 - group["momentum"])
            averages.append(_update_of(buffer, gradient, group))
        if group["correction"] == "cross_fit":
            return self._crossed(*averages)
        update = _orthogonalized(averages[0], group)
        if not tracked:
            return update
        average = averages[0].to(accumulator_dtype(param)) / weights.debias
        return self._corrected(update.to(average.dtype), average, deviations, param, group, weights)

    def _corrected(
        self,
        update: Tensor,
        average: Tensor,
        deviations: Tensor | None,
        param: Tensor,
        group: dict[str, Any],
        w: MomentumWeights,
    ) -> Tensor:
        """The update less its tracked bias, as far as that is to be trusted."""
        bias, size = self.state[param]["update_bias"], torch.linalg.vector_norm(update)
        total = bias * (1 - w.newest) ** 2
        bias.mul_((1 - w.newest_buffer) ** 2)
        if deviations is not None:
            term = update_bias(average, deviations * w.newest, group["polar"], group["correction"])
            if group["polar"] == "newton_schulz":  # below eps torch does not normalize
                small = torch.linalg.vector_norm(average.double()) * w.debias <= group["eps"]
                term = torch.where(small, torch.zeros_like(term), term)
            term = self._bounded(term, size)
            total = total + term
            bias.add_(term, alpha=(w.newest_buffer / w.newest) ** 2)
        if group["spread"] == "history":  # the first step has nothing to deviate from
            total = total * w.startup
        total = self._bounded(total, size)
        share = torch.linalg.vector_norm(total) / torch.where(size > 0, size, 1)
        return update - total / (1 + (share / group["trust"]) ** 2)

    def _crossed(self, first: Tensor, second: Tensor) -> Tensor:
        """The cross-fitted update, at most its own norm away from the plug-in."""
        work = torch.promote_types(first.dtype, torch.float32)
        first, second = first.to(work), second.to(work)
        plug_in = _exact((first + second) / 2)
        if not bool(first.any()) or not bool(second.any()):
            return plug_in
        away = plug_in - crossed_polar_factor(first, second)
        return plug_in - self._bounded(away, torch.linalg.vector_norm(plug_in))

    def _bounded(self, term: Tensor, limit: Tensor) -> Tensor:
        kept, cut = bounded(term.unsqueeze(0), limit.unsqueeze(0))
        self._clamped = self._clamped + cut
        return kept.squeeze(0)

    # -- state --------------------------------------------------------------------------------

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("update_bias",) if group["correction"] in TRACKED else ()

    @torch.no_grad()
    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if "step" not in state and "momentum_buffer" in state:  # a checkpoint of torch's
            state["step"] = torch.tensor(float(LONG_RUN), dtype=torch.float32)
        super()._init_state(param, group)
        if group["correction"] == "cross_fit":
            for own, second in zip(self.states, fold_names(self.states), strict=True):
                if second not in state:
                    state[second] = state[own].clone()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_clamped": self._clamped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_clamped", 0)

    # -- the meter ----------------------------------------------------------------------------

    def validity(self) -> MatrixValidity:
        """How much is corrected; ``inversion`` is ‖K_t‖/√min(d, n) of each parameter.

        Before it is withdrawn: `outside` is the share of parameters where it is above 0.3.
        """
        return MatrixValidity(**vars(super().validity()), clamped=int(self._clamped))

    def _meter(
        self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        if group["correction"] not in TRACKED or not param.numel():
            return torch.zeros(0), torch.zeros(0)
        share = torch.linalg.vector_norm(state["update_bias"]) / min(param.shape) ** 0.5
        return share.cpu().reshape(1), torch.zeros(1)

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        momentum = float(group["momentum"])
        if momentum >= 1:  # the plug-in allows it, as torch
            return step
        return 1 / MomentumWeights.at(int(step) + 1, momentum, group["nesterov"]).squares_before


def _update_of(buffer: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """N_t."""
    return gradient.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer


def _orthogonalized(average: Tensor, group: dict[str, Any]) -> Tensor:
    if group["polar"] == "exact":
        return _exact(average.to(torch.promote_types(average.dtype, torch.float32)))
    coefficients, steps = group["ns_coefficients"], group["ns_steps"]
    return newton_schulz(average, coefficients, steps, group["eps"], group["ns_dtype"])


def _exact(average: Tensor) -> Tensor:
    return polar_factor(average) if bool(average.any()) else torch.zeros_like(average)
