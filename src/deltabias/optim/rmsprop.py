"""RMSprop, corrected: see `deltabias.rules.rmsprop` for its mathematics."""

from types import ModuleType
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from torch.optim.rmsprop import rmsprop as torch_rmsprop

from deltabias.generated import rmsprop, rmsprop_mean_of_squares
from deltabias.optim.averaged import CORRECTIONS, AveragedOptimizer
from deltabias.optim.checks import NONFINITE, check_choice, check_range, refuse_flags

SECOND_MOMENTS: dict[str, ModuleType] = {
    "square_of_mean": rmsprop,
    "mean_of_squares": rmsprop_mean_of_squares,
}


class RMSprop(AveragedOptimizer):
    r"""RMSprop whose mean update is the population update, to second order.

    .. math:: \theta \leftarrow \theta - \eta\,\frac{g + c}{(\sqrt{v} + \epsilon)(1 + q)}

    Parameters
    ----------
    params, lr, alpha, eps, weight_decay, maximize, foreach, capturable
        as `torch.optim.RMSprop`; the decay is coupled (added to the gradient), as torch's
    correction, second_moment, nonfinite, fused, exact, stochastic_rounding, seed
        as `deltabias.optim.AdamW`, ``capturable`` too; torch has no fused RMSprop, so with
        ``fused=True`` and no correction it is the compiled plain step, a few units in the last
        place from torch's
    storage
        as `deltabias.optim.AdamW`: 4 bytes a parameter in int8 for ``delta``, 2 for
        ``closed_form``. The gradient couples with its own step; in between it does so with the
        averages of the noise and the skewness.

    Raises
    ------
    ValueError
        for hyperparameters out of range.
    NotImplementedError
        for momentum, centered and differentiable.

    Sources
    -------
    Tieleman & Hinton, Lecture 6.5 (2012); the correction: `deltabias.tracking`.
    """

    states = ("square_avg",)
    unsupported = ("differentiable", "momentum", "centered")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        correction: str = "delta",
        second_moment: str = "square_of_mean",
        nonfinite: str = "raise",
        fused: bool | None = None,
        exact: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
        storage: str | None = None,
    ):
        refuse_flags(
            "RMSprop",
            {
                "momentum": momentum,
                "centered": centered,
                "differentiable": differentiable,
            },
        )
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "correction": correction,
            "second_moment": second_moment,
            "nonfinite": nonfinite,
            "capturable": capturable,
            "fused": fused,
            "exact": exact,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
            "storage": storage,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group's own options are checked too."""
        options = {**self.defaults, **param_group}
        for name in ("lr", "eps", "weight_decay"):
            check_range(name, options[name])
        check_range("alpha", options["alpha"], 1.0)
        check_choice("correction", options["correction"], CORRECTIONS)
        check_choice("second_moment", options["second_moment"], SECOND_MOMENTS)
        check_choice("nonfinite", options["nonfinite"], NONFINITE)
        super().add_param_group(param_group)

    def _module(self, group: dict[str, Any]) -> ModuleType:
        return SECOND_MOMENTS[group["second_moment"]]

    def _scalars(self, group: dict[str, Any]) -> dict[str, Any]:
        return {"alpha": group["alpha"], "eps": group["eps"]}

    def _step_as_torch(self, group: dict[str, Any], params: list[Tensor]) -> bool:
        """With ``capturable`` torch's step for graphs; a fused one torch does not have."""
        if self._feeds_on_moments(group) or group["fused"]:
            return False
        states = [self.state[p] for p in params]
        torch_rmsprop(
            params,
            [p.grad for p in params],
            [s["square_avg"] for s in states],
            [],
            [],
            [s["step"] for s in states],
            foreach=group["foreach"],
            maximize=group["maximize"],
            capturable=True,
            lr=group["lr"],
            alpha=group["alpha"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            momentum=0,
            centered=False,
        )
        return True

    def _gradients(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        grads = super()._gradients(group, params)
        if group["weight_decay"] == 0:
            return grads
        decay = group["weight_decay"]
        return [g.add(p, alpha=decay) for g, p in zip(grads, params, strict=True)]

    def _decay(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """The decay is in the gradient."""

    def _decoupled(self, group: dict[str, Any]) -> float:
        return 0.0

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        alpha = float(group["alpha"])
        return (1 + alpha) * (1 - alpha**step) / ((1 - alpha) * (1 + alpha**step))
