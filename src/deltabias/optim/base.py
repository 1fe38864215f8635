"""What every corrected optimizer shares: statistics, refusals, counters, checkpoints."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from deltabias.microbatch import MicrobatchStats, Moments, StepMoments
from deltabias.microbatch.layout import local
from deltabias.optim.checks import (
    all_finite,
    described,
    refuse_flags,
    refuse_gradient,
    refuse_parameter,
    refuse_sharded,
)
from deltabias.optim.meter import Validity, summarize

IMPLEMENTATION = ("capturable", "differentiable", "fused")
"""Flags of torch.optim that choose how a step is computed, not what it is."""


def accumulator_dtype(param: Tensor) -> torch.dtype:
    """fp32 for low precision parameters; double stays double."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class CorrectedOptimizer(Optimizer):
    """A shell: collects tensors, hands them to generated functions, counts what happened.

    Subclasses set ``states`` (the rule's own, in the parameter's dtype), give the names of the
    correction's accumulators (at least fp32) and implement `_update_group`.
    """

    plain: str = "none"  # the correction that does nothing
    states: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = IMPLEMENTATION
    elementwise: bool = True  # else shards of a parameter are refused

    def __init__(self, params: ParamsT, defaults: dict[str, Any]):
        self._stats: MicrobatchStats | None = None
        self._counts = {"steps": 0, "corrected": 0, "uncorrected": 0, "skipped": 0}
        self._misaligned: Tensor | int = 0
        self._had_statistics = False
        self._warned: set[str] = set()
        super().__init__(params, defaults)

    # -- statistics ---------------------------------------------------------------------------

    def attach(self, stats: MicrobatchStats) -> None:
        """Use these microbatch statistics from the next step on. Once, before any wrapper.

        Raises
        ------
        TypeError, ValueError
            for something else, or statistics that keep too few moments or other parameters.
        """
        if not isinstance(stats, MicrobatchStats):
            raise TypeError(f"attach takes a MicrobatchStats, got {type(stats).__name__}.")
        self._check_known(stats, [p for p in self._all_params() if p.requires_grad])
        for group in self.param_groups:
            self._check_statistics(stats, group)
        self._stats = stats
        stats.agreement.add(described(self))

    @staticmethod
    def _check_known(stats: MicrobatchStats, params: list[Tensor]) -> None:
        known = {id(p) for p in stats.params}
        if missing := [p for p in params if id(p) not in known]:
            raise ValueError(
                f"the statistics do not know {len(missing)} of this optimizer's parameters, the "
                f"first of shape {tuple(missing[0].shape)}; build MicrobatchStats from the same "
                "parameters."
            )

    def _check_statistics(self, stats: MicrobatchStats, group: dict[str, Any]) -> None:
        needed = self._moments_needed(group)
        if stats.moments < needed:
            raise ValueError(
                f"correction={group['correction']!r} needs moments={needed}, the statistics keep "
                f"moments={stats.moments}; build MicrobatchStats(params, moments={needed})."
            )
        every = getattr(stats, "every", 1)
        if every > 1 and not self._remembers_shares(group):
            raise ValueError(
                f"statistics with {every=} are for a step that remembers what it saw; pass "
                "storage='int8' (or 'bfloat16', 'float32') to AdamW with correction='delta' or "
                "'closed_form', or build MicrobatchStats(params, every=1)."
            )

    def _remembers_shares(self, group: dict[str, Any]) -> bool:
        """Whether the group's correction works without statistics in between."""
        return group["correction"] == "none"

    def _moments_needed(self, group: dict[str, Any]) -> int:
        raise NotImplementedError

    def _all_params(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def _take_statistics(self) -> StepMoments | None:
        """This step's statistics, or None with one warning and a count."""
        if not any(self._wants_statistics(group) for group in self.param_groups):
            return None
        stats = self._stats
        if stats is None:
            return self._without("no MicrobatchStats is attached; call optimizer.attach(stats)")
        if not stats.is_fresh:
            return self._without(
                "the attached MicrobatchStats saw no microbatch since the last step; wrap each "
                "backward in stats.microbatch()"
            )
        taken = stats.consume()
        if taken.observed and taken.count < 2:
            return self._without(
                f"microbatches={taken.count} gives no variance estimate; need at least 2, or "
                f"pass correction={self.plain!r}"
            )
        return taken

    def _wants_statistics(self, group: dict[str, Any]) -> bool:
        return group["correction"] != "none"

    def _without(self, reason: str) -> None:
        self._counts["uncorrected"] += 1
        self._warn_once(f"{type(self).__name__}: uncorrected step: {reason}.")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, RuntimeWarning, stacklevel=4)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's; statistics that no step has used go with the gradients."""
        super().zero_grad(set_to_none)
        if self._stats is not None and self._stats.is_fresh:
            self._stats.reset()

    # -- the step -----------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. With ``nonfinite='raise'`` or ``'skip'`` a bad gradient changes nothing.

        Raises
        ------
        FloatingPointError
            for a gradient with a NaN or an infinity (``nonfinite='raise'``, the default), before
            any state is touched.
        RuntimeError
            for sparse and complex gradients, before any state is touched.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with_grad = [p for p in self._all_params() if p.grad is not None]
        for param in with_grad:
            refuse_gradient(param)
        if not self._finite(with_grad):
            return loss
        self._before_update(with_grad)
        moments = self._take_statistics()
        self._counts["steps"] += 1
        if moments is not None:
            self._counts["corrected"] += 1
            self._had_statistics = self._had_statistics or moments.observed
        for group in self.param_groups:
            if moments is not None and moments.observed:
                group["microbatches"] = moments.count  # kept with the group for the meter
            params = [p for p in group["params"] if p.grad is not None]
            for param in params:
                self._init_state(param, group)
            if params:
                self._update_group(group, params, moments)
        return loss

    def _before_update(self, params: list[Tensor]) -> None:
        """A last look before anything is changed."""
        if self._stats is not None and any(map(self._wants_statistics, self.param_groups)):
            self._check_known(self._stats, params)

    def _finite(self, params: list[Tensor]) -> bool:
        """Whether the step may be taken; each group has its own policy."""
        wanted = {
            id(p)
            for group in self.param_groups
            if group["nonfinite"] != "ignore"
            for p in group["params"]
        }
        looked_at = [p for p in params if id(p) in wanted]
        if all_finite([p.grad for p in looked_at]):
            return True
        bad = next(p for p in looked_at if not all_finite([p.grad]))
        if self._group_of(bad)["nonfinite"] == "raise":
            raise FloatingPointError(
                f"the gradient of a parameter of shape {tuple(bad.shape)} is not finite; nothing "
                "was changed. Pass nonfinite='skip' to leave such steps out and count them."
            )
        self._counts["skipped"] += 1
        if self._stats is not None:
            self._stats.reset()
        self._warn_once(f"{type(self).__name__}: a step with a non-finite gradient was skipped.")
        return False

    def _update_group(
        self, group: dict[str, Any], params: list[Tensor], moments: StepMoments | None
    ) -> None:
        raise NotImplementedError

    def _moment_inputs(
        self, params: list[Tensor], grads: list[Tensor], moments: StepMoments | None, highest: int
    ) -> dict[str, list[Tensor]]:
        """c2 … c_highest and their unit, per parameter; zero where there is no estimate."""
        names = [f"c{k}" for k in range(2, highest + 1)]
        inputs: dict[str, list[Tensor]] = {name: [] for name in (*names, "unit_of_c")}
        for param, grad in zip(params, grads, strict=True):
            record = None if moments is None else moments[param]
            if record is None:
                zero = torch.zeros_like(param, dtype=accumulator_dtype(param))
                central, unit = dict.fromkeys(range(2, highest + 1), zero), zero.new_zeros(())
            else:
                central, unit = self._aligned(record, grad)
            for k, name in enumerate(names, start=2):
                inputs[name].append(central[k])
            inputs["unit_of_c"].append(unit)
        return inputs

    def _aligned(self, record: Moments, grad: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """The record in the gradient's scale; unit 0 where it does not belong to the gradient."""
        scaled, aligned = record.scaled_to(grad)
        self._misaligned = self._misaligned + (~aligned).long()
        # torch.where, not a product: NaN times zero is NaN
        central = {
            k: torch.where(aligned, c, torch.zeros_like(c))
            for k, c in scaled.scaled_central.items()
        }
        m, spread = scaled.count, scaled.weight * scaled.inverse_weight
        if 3 in central and m == 2:  # two microbatches say nothing about skewness
            central[3] = torch.zeros_like(central[3])
        elif 3 in central and spread != m * m:
            # generated code divides by (m-1)(m-2); unequal weights want W Σ 1/w - 3m + 2
            central[3] = central[3] * ((m - 1) * (m - 2) / (spread - 3 * m + 2))
        return central, torch.where(aligned, scaled.scale, torch.zeros_like(scaled.scale))

    # -- state --------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; state is complete from here on."""
        refuse_flags(type(self).__name__, self._flags(param_group))
        given = param_group["params"]
        if not isinstance(given, Tensor | set):  # an iterator is read once; a set torch refuses
            given = list(given)
        items = [given] if isinstance(given, Tensor) else given
        tensors = [item[1] if isinstance(item, tuple) else item for item in items]
        for param in tensors:
            if isinstance(param, Tensor):  # anything else is torch's to refuse
                refuse_parameter(param)
                if not self.elementwise:
                    refuse_sharded(type(self).__name__, param)
        if self._stats is not None:
            needing = [p for p in tensors if isinstance(p, Tensor) and p.requires_grad]
            self._check_known(self._stats, needing)
            self._check_statistics(self._stats, {**self.defaults, **param_group})
        super().add_param_group({**param_group, "params": given})
        group = self.param_groups[-1]
        for param in group["params"]:
            if param.requires_grad:
                self._init_state(param, group)

    @classmethod
    def _flags(cls, group: dict[str, Any]) -> dict[str, Any]:
        """The flags of torch.optim in a group that this optimizer does not have."""
        return {name: group[name] for name in cls.unsupported if name in group}

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        raise NotImplementedError

    def _dtype_of(self, name: str, param: Tensor, group: dict[str, Any]) -> torch.dtype:
        """What an accumulator or a counter is kept in, whatever the parameter's dtype."""
        return torch.float32 if name in self.counters else accumulator_dtype(param)

    @torch.no_grad()
    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if "step" not in state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
        for name in self.states:
            if name not in state:
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        for name in self._accumulators(group):
            if name not in state:
                dtype = self._dtype_of(name, param, group)
                state[name] = torch.zeros_like(
                    param, dtype=dtype, memory_format=torch.preserve_format
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, and fp32 accumulators of bf16 parameters stay fp32.

        A checkpoint of torch's own optimizer of the same name loads; its missing accumulators
        start at zero, which is no correction.

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
        own = [{n: g[n] for n in IMPLEMENTATION if n in g} for g in self.param_groups]
        super().load_state_dict(state_dict)
        for group, flags in zip(self.param_groups, own, strict=True):
            for name in IMPLEMENTATION:  # how a step is computed is not the checkpoint's to say
                group.pop(name, None)
            group.update(flags)
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        for index, param in zip(saved, self._all_params(), strict=True):
            group = self._group_of(param)
            for name in (*self._accumulators(group), *self.counters):
                value = state_dict["state"].get(index, {}).get(name)
                if value is not None:
                    dtype = self._dtype_of(name, param, group)
                    self.state[param][name] = value.to(param.device, dtype, copy=True)
            if param.requires_grad:
                self._init_state(param, group)
        self._had_statistics = any(
            self._remembers(self.state[p], self._group_of(p))
            for p in self._all_params()
            if p in self.state
        )

    def _remembers(self, state: dict[str, Tensor], group: dict[str, Any]) -> bool:
        """Whether statistics have left a trace in a parameter's state."""
        return any(bool(state[name].any()) for name in self._accumulators(group))

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        return next(g for g in self.param_groups if any(param is p for p in g["params"]))

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
        self.__dict__.setdefault("_had_statistics", False)
        self.__dict__.setdefault("_warned", set())
        for group in self.param_groups:
            for name, value in self.defaults.items() if hasattr(self, "defaults") else ():
                group.setdefault(name, value)

    # -- the meter ----------------------------------------------------------------------------

    def validity(self) -> Validity:
        """How much is corrected and how far the expansion can be trusted; see `Validity`.

        Worked out from the state when asked for, so it costs nothing when not. Of DTensors it is
        about this rank's shards, and nothing is communicated.
        """
        pairs, effective = [], 1.0
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state.get(param)
                if not state or state["step"] == 0 or group["correction"] == "none":
                    continue
                shards = {name: local(value) for name, value in state.items()}
                pairs.append(self._meter(group, local(param), shards))
                effective = max(effective, self._effective_steps(group, float(state["step"])))
        mean, worst, coupling, outside = summarize(pairs)
        return Validity(
            mean,
            worst,
            coupling,
            outside,
            effective,
            misaligned=int(self._misaligned),
            **self._counts,
        )

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        raise NotImplementedError

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        raise NotImplementedError
