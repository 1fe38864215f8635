"""What every corrected optimizer shares: statistics, refusals, counters, checkpoints."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from deltabias.microbatch import MicrobatchStats, Moments, StepMoments
from deltabias.microbatch.layout import local
from deltabias.optim.capturable import refuse_capture, refuse_reading, undone_where
from deltabias.optim.checkpoint import Resumable
from deltabias.optim.checks import (
    IMPLEMENTATION,
    all_finite,
    described,
    finite_flag,
    refuse_flags,
    refuse_gradient,
    refuse_parameter,
    refuse_sharded,
)
from deltabias.optim.cycle import begin_cycle, restore_cycle
from deltabias.optim.meter import Validity, summarize


def accumulator_dtype(param: Tensor) -> torch.dtype:
    """fp32 for low precision parameters; double stays double."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


class CorrectedOptimizer(Resumable):
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
        self._skipped: Tensor | int = 0  # of which the host has not heard
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
        stats.agreement.follow(self, described)
        if not stats.generation:
            restore_cycle(self.param_groups, stats)

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
        if not stats.has_room_for(needed):
            raise ValueError(
                f"correction={group['correction']!r} needs moments={needed}, the statistics keep "
                f"moments={stats.moments}; build MicrobatchStats(params, moments={needed})."
            )
        every = getattr(stats, "every", 1)
        if every > 1 and not self._remembers_shares(group):
            raise ValueError(
                f"statistics with {every=} are for a step that remembers what it saw; pass "
                "storage='int8' (or 'bfloat16', 'float32') to AdamW or RMSprop with "
                "correction='delta' or 'closed_form', or build MicrobatchStats(params, every=1)."
            )
        stats.make_room_for(needed)

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

    def _warn_once(self, text: str, category: type[Warning] = RuntimeWarning) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(text, category, stacklevel=4)

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
            for sparse and complex gradients, before any state is touched; in a graph that is
            being captured, without ``capturable=True``.
        """
        refuse_capture(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with_grad = [p for p in self._all_params() if p.grad is not None]
        for param in with_grad:
            refuse_gradient(param)
        if not self._finite(with_grad):
            return loss
        with self._undone_if_bad(with_grad):
            self._take_step(with_grad)
        return loss

    def _take_step(self, with_grad: list[Tensor]) -> None:
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

    def _before_update(self, params: list[Tensor]) -> None:
        """A last look before anything is changed."""
        if self._stats is not None and any(map(self._wants_statistics, self.param_groups)):
            self._check_known(self._stats, params)

    @property
    def _captures(self) -> bool:
        """Whether steps are to be recorded in a graph: then nothing is read from the device."""
        return any(group.get("capturable") for group in self.param_groups)

    def _looked_at(self, params: list[Tensor]) -> list[Tensor]:
        """The parameters of the groups that care about what is not finite."""
        groups = [g for g in self.param_groups if g["nonfinite"] != "ignore"]
        wanted = {id(p) for group in groups for p in group["params"]}
        return [p for p in params if id(p) in wanted]

    def _finite(self, params: list[Tensor]) -> bool:
        """Whether the step may be taken; each group has its own policy."""
        if self._captures:
            return True  # decided on the device
        looked_at = self._looked_at(params)
        if not looked_at or all_finite([p.grad for p in looked_at]):
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

    def _undone_if_bad(self, params: list[Tensor]) -> AbstractContextManager[None]:
        """With ``capturable=True`` the whole step is taken back where a gradient is bad."""
        looked_at = self._looked_at(params) if self._captures else []
        if not looked_at:
            return nullcontext()
        bad = ~finite_flag([p.grad for p in looked_at])
        self._tally("_skipped", bad)
        states = [t for p in params for t in self.state[p].values() if isinstance(t, Tensor)]
        return undone_where(bad, [*params, *states])

    def _tally(self, name: str, flag: Tensor) -> None:
        """Count on the device, in place once the count is there: a graph repeats an address."""
        count = getattr(self, name)
        if isinstance(count, Tensor) and count.device == flag.device:
            count.add_(flag.long())
        else:
            setattr(self, name, count + flag.long())

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
        self._tally("_misaligned", ~aligned)
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
        options = {**self.defaults, **param_group}
        given = param_group["params"]
        if not isinstance(given, Tensor | set):  # an iterator is read once; a set torch refuses
            given = list(given)
        items = [given] if isinstance(given, Tensor) else given
        tensors = [item[1] if isinstance(item, tuple) else item for item in items]
        for param in tensors:
            if isinstance(param, Tensor):  # anything else is torch's to refuse
                self._refuse_parameter(param, options)
        if self._stats is not None:
            needing = [p for p in tensors if isinstance(p, Tensor) and p.requires_grad]
            self._check_known(self._stats, needing)
            self._check_statistics(self._stats, options)
        super().add_param_group({**param_group, "params": given})
        group = self.param_groups[-1]
        begin_cycle(group)
        for param in group["params"]:
            if param.requires_grad:
                self._init_state(param, group)

    def _refuse_parameter(self, param: Tensor, options: dict[str, Any]) -> None:
        """Raise for a parameter that this optimizer has no step for, with a group's options."""
        refuse_parameter(param)
        if not self.elementwise:
            refuse_sharded(type(self).__name__, param)

    @classmethod
    def _flags(cls, group: dict[str, Any]) -> dict[str, Any]:
        """The flags of torch.optim in a group that this optimizer does not have."""
        return {name: group[name] for name in cls.unsupported if name in group}

    def _accumulators(self, group: dict[str, Any]) -> tuple[str, ...]:
        raise NotImplementedError

    def _dtype_of(self, name: str, param: Tensor, group: dict[str, Any]) -> torch.dtype:
        """What an accumulator or a counter is kept in, whatever the parameter's dtype."""
        return torch.float32 if name in self.counters else accumulator_dtype(param)

    def _init_state(self, param: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        if "step" not in state:
            place = self._place_of_counts(param, group)
            state["step"] = torch.zeros((), dtype=torch.float32, device=place)
        for name in self.states:
            if name not in state:
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        for name in self._accumulators(group):
            if name not in state:
                dtype = self._dtype_of(name, param, group)
                state[name] = torch.zeros_like(
                    param, dtype=dtype, memory_format=torch.preserve_format
                )

    # -- the meter ----------------------------------------------------------------------------

    def validity(self) -> Validity:
        """How much is corrected and how far the expansion can be trusted; see `Validity`.

        Worked out from the state when asked for, so it costs nothing when not. Of DTensors it is
        about this rank's shards, and nothing is communicated.

        Raises
        ------
        RuntimeError
            while a graph is captured: it reads numbers back from the device.
        """
        refuse_reading("validity()")
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
            **{**self._counts, "skipped": self._counts["skipped"] + int(self._skipped)},
        )

    def _meter(self, group: dict[str, Any], param: Tensor, state: dict[str, Tensor]):
        raise NotImplementedError

    def _effective_steps(self, group: dict[str, Any], step: float) -> float:
        raise NotImplementedError
