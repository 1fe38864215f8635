"""What a corrected optimizer saves and loads: torch's state dict, with dtypes and flags kept."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from deltabias.optim.checks import IMPLEMENTATION, refuse_flags
from deltabias.optim.cycle import restore_cycle, save_cycle

OWN = (*IMPLEMENTATION, "exact", "stochastic_rounding")
"""Options of a group that a checkpoint does not set: how a step is computed is not its to say."""


class Resumable(Optimizer):
    """Loads what it saved, and what torch's optimizer of the same name saved."""

    def state_dict(self) -> dict[str, Any]:
        """As torch's, and where the statistics are in the cycle of ``every=k``."""
        save_cycle(self.param_groups, self._stats)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and fp32 accumulators of bf16 parameters stay fp32.

        A checkpoint of torch's own optimizer of the same name loads; its missing accumulators
        start at zero, which is no correction. Step counts go where this optimizer keeps them: to
        the parameter's device if it is ``capturable``, else to the host. The seed of
        ``stochastic_rounding`` is the checkpoint's, so that the next steps are the same.

        Raises
        ------
        NotImplementedError
            for a checkpoint with a flag of torch.optim that is not supported and changes the
            update (amsgrad, momentum, centered); nothing is loaded. Flags that only choose an
            implementation (fused, capturable, differentiable) are dropped.
        """
        for saved_group in state_dict["param_groups"]:
            flags = self._flags(saved_group)
            refuse_flags(
                type(self).__name__, {k: v for k, v in flags.items() if k not in IMPLEMENTATION}
            )
        own = [{n: g[n] for n in (*OWN, "seed") if n in g} for g in self.param_groups]
        super().load_state_dict(state_dict)
        for group, flags in zip(self.param_groups, own, strict=True):
            if "seed" in flags:
                group.setdefault("seed", flags.pop("seed"))
            for name in OWN:
                group.pop(name, None)
            group.update(flags)
        restore_cycle(self.param_groups, self._stats)
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        for index, param in zip(saved, self._all_params(), strict=True):
            self._load_param(param, state_dict["state"].get(index, {}))
        self._had_statistics = any(
            self._remembers(self.state[p], self._group_of(p))
            for p in self._all_params()
            if p in self.state
        )

    def _load_param(self, param: Tensor, saved: dict[str, Any]) -> None:
        """What torch has cast to the parameter's dtype, once more and in its own."""
        group, state = self._group_of(param), self.state
        for name in (*self._accumulators(group), *self.counters):
            if saved.get(name) is not None:
                dtype = self._dtype_of(name, param, group)
                state[param][name] = saved[name].to(param.device, dtype, copy=True)
        for name in ("step", *self.counters):
            if param in state and isinstance(state[param].get(name), Tensor):
                place = self._place_of_counts(param, group)
                state[param][name] = state[param][name].to(place, torch.float32)
        if param.requires_grad:
            self._init_state(param, group)

    def _remembers(self, state: dict[str, Tensor], group: dict[str, Any]) -> bool:
        """Whether statistics have left a trace in a parameter's state."""
        return any(bool(state[name].any()) for name in self._accumulators(group))

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        return next(g for g in self.param_groups if any(param is p for p in g["params"]))

    @staticmethod
    def _place_of_counts(param: Tensor, group: dict[str, Any]) -> torch.device:
        """Where step counts live: with the parameter where a graph counts them, else here."""
        return param.device if group.get("capturable") else torch.device("cpu")

    def __getstate__(self) -> dict[str, Any]:
        # statistics belong to a run, not to a checkpoint
        return {**super().__getstate__(), "_had_statistics": self._had_statistics}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_stats", None)
        self.__dict__.setdefault(
            "_counts", dict.fromkeys(("steps", "corrected", "uncorrected", "skipped"), 0)
        )
        self.__dict__.setdefault("_misaligned", 0)
        self.__dict__.setdefault("_skipped", 0)
        self.__dict__.setdefault("_had_statistics", False)
        self.__dict__.setdefault("_warned", set())
        for group in self.param_groups:
            for name, value in self.defaults.items() if hasattr(self, "defaults") else ():
                group.setdefault(name, value)
