"""`MicrobatchStats`: the object a training loop holds."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from deltabias.microbatch import ranks
from deltabias.microbatch.accumulator import Accumulator
from deltabias.microbatch.agreement import Agreement, describe
from deltabias.microbatch.capture import own_gradients
from deltabias.microbatch.depth import Depth
from deltabias.microbatch.flat import FlatAccumulator, Gathering
from deltabias.microbatch.layout import Layout, checked_weight
from deltabias.microbatch.merging import check_mergeable
from deltabias.microbatch.moments import Moments, StepMoments
from deltabias.one_pass import compiler_missing


class MicrobatchStats(Depth):
    r"""Mean and central moments of the microbatch gradients of one optimizer step.

    .. math:: \bar g = \sum_r w_r g_r / W, \qquad c_k = \sum_r w_r (g_r - \bar g)^k / W,
              \qquad W = \sum_r w_r

    per element, in one pass: no gradient is kept. Nothing waits for the device, except
    `all_reduce`. Memory: ``moments`` tensors of the size of each parameter and of the
    accumulation dtype, for each group.

    Each step is: `add` (or `microbatch`) for every microbatch, `merge` or `all_reduce` where there
    are several ranks, `consume` by the optimizer. The first `add` after `consume` begins the next.

    A parameter without a gradient in some microbatches of a step (``None``) counts as having had
    the gradient zero there, because that is what it contributed to the mean; without one in all of
    them it has no record, as torch gives it no ``.grad``.

    The object copies and pickles with its parameters. It is no part of an optimizer's state.

    Parameters
    ----------
    params
        tensors, or parameter groups as torch.optim takes them. Of a DTensor the local shard is
        followed, and the records are local tensors.
    moments
        highest central moment: 2 (variance of the mean), 3 (covariance with the mean of squares)
        or 4 (variance of the mean of squares). None: what the optimizers need that these are
        attached to, 4 where none is by the first microbatch. One that is attached later, and needs
        more, gets it from the next step on; during a step it is refused.
    groups
        for cross-fitting: microbatches are dealt to this many groups, each in turn to the one that
        has the fewest, and each group's record is kept. The whole is their merge, so `add` costs
        the same; ``groups=1`` costs nothing.
    dtype
        accumulation dtype, fp32 or fp64. Default: fp64 for fp64 parameters, else fp32.
    every
        k: only each k-th step, the first one included, is looked at. In the others `microbatch`
        and `add` count and do nothing else, and `consume` answers a record that says
        ``observed=False``. For optimizers that remember what they saw (``storage=...``).

    Raises
    ------
    TypeError, ValueError
        Complex, sparse or integer tensors, a parameter given twice, no parameters, a value of
        `moments`, `groups` or `dtype` that is not allowed.
    """

    _every = 1
    _gathering: Gathering | None = None  # with a compiled pass
    _unseen = 0  # microbatches of a step that is not looked at

    def __init__(
        self,
        params: Iterable,
        *,
        moments: int | None = None,
        groups: int = 1,
        dtype: torch.dtype | None = None,
        every: int = 1,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise ValueError(f"{every=} is not a number of steps; pass an integer >= 1")
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"{groups=} is not a number of groups; pass an integer >= 1")
        self._layout = Layout(params, dtype)
        super().__init__(moments)
        self._num_groups = groups
        self._every = every
        self._generation = 0
        self._capturing = False
        self.agreement = Agreement()
        self.reset()

    @property
    def params(self) -> tuple[Tensor, ...]:
        """The tensors followed, in the order that `add` expects."""
        return self._layout.params

    @property
    def group_count(self) -> int:
        """How many groups the microbatches are dealt to."""
        return self._num_groups

    @property
    def every(self) -> int:
        """k: each k-th step is looked at."""
        return self._every

    @property
    def is_looking(self) -> bool:
        """Whether the step under way, or the next one where none is, is looked at."""
        under_way = self.count > 0 and not self._consumed
        return (self._generation - under_way) % self._every == 0

    @property
    def count(self) -> int:
        """m, the microbatches of this step so far; kept after `consume` until the next begins."""
        return sum(group.count for group in self._groups) + self._unseen

    def __len__(self) -> int:
        return self.count

    @property
    def is_fresh(self) -> bool:
        """Whether there is something to consume."""
        return self.count > 0 and not self._consumed

    @property
    def generation(self) -> int:
        """How many steps have begun; two records of one step have the same number."""
        return self._generation

    @property
    def finite(self) -> Tensor:
        """0-d bool tensor: no NaN or infinity in this step so far. On the first parameter's device.

        A gradient that is not finite makes the moments of its tensor NaN, for this step only.
        Reading the flag waits for the device; an optimizer should use it in ``torch.where``.
        """
        return torch.stack([group.finite for group in self._groups]).all()

    def fuse(self) -> None:
        """From the next step on one compiled pass per microbatch: on CPUs, with a C++ compiler."""
        on_cpu = all(param.device.type == "cpu" for param in self.params)
        if on_cpu and not compiler_missing() and self._gathering is None:
            # where steps without sums lie between, their memory is not kept for them
            self._gathering = Gathering(self._layout, recycle=self._every == 1)
        if not self.count:
            self.reset()

    def release_memory(self) -> None:
        """Give back to the system what fused sums keep for the next step; no record is touched."""
        if self._gathering is not None:
            self._gathering.memory.release()

    def continue_from(self, generation: int) -> None:
        """Forget this step, and begin the next as statistics of that `generation` would."""
        self.reset()
        self._generation = generation

    def reset(self) -> None:
        """Forget this step. Records handed out before stay valid."""
        self._groups = [self._stream() for _ in range(self._num_groups)]
        self._unseen = 0
        self._consumed = self._reduced = False

    def add(self, grads: Sequence[Tensor | None], weight: float = 1.0) -> None:
        """One microbatch.

        Parameters
        ----------
        grads
            g_r, the microbatch's own *mean* gradient, one tensor per parameter in their order.
            Read once and not kept; None where the parameter has no gradient.
        weight
            w_r > 0, the number of tokens or samples that the mean is over

        Raises
        ------
        TypeError, ValueError
            Wrong number of gradients, a shape, device or kind of tensor that does not fit, a weight
            that is not a positive finite number; nothing has been added then.
        RuntimeError
            After `all_reduce`: this step already speaks for all ranks.
        """
        self._add(grads, checked_weight(weight))

    @contextmanager
    def microbatch(self, weight: float = 1.0) -> Iterator[None]:
        """``with stats.microbatch(weight=n_tokens): loss.backward()`` adds what backward computed.

        ``p.grad`` accumulates over microbatches as without the statement, bit for bit if the block
        calls backward once. What this microbatch adds to it, c_r, is taken as w_r g_r up to a
        factor common to the step, whatever the loss was divided by: then ``p.grad`` is proportional
        to the mean of g_r = c_r / w_r with weights w_r, and `Moments.scaled_to` finds the factor,
        which may also hold that of a gradient scaler or of clipping by norm.

        An exception inside the block adds nothing, and `p.grad` is put back.

        In a single process ``p.grad`` is set aside during the block. With torch.distributed
        initialized hooks take the gradients before any reduction: they are this rank's own, so call
        `all_reduce` before the step, and an exception leaves ``p.grad`` as torch left it. Sharded
        parameters (DTensor, FSDP2) have it set aside always; their gradients are reduced already.

        Raises
        ------
        RuntimeError
            A block inside a block.
        """
        weight = checked_weight(weight)
        if self._capturing:
            raise RuntimeError("microbatch() inside microbatch(): each counts its own backward")
        self._check_open()
        if not self.is_looking:
            yield
            self._begin()
            self._unseen += 1
            return
        self._capturing = True
        try:
            with own_gradients(self.params) as grads:
                yield
        finally:
            self._capturing = False
        self._add(grads, weight, divisor=weight)

    def merge(self, other: "MicrobatchStats") -> None:
        """Add all microbatches of `other`, which is not changed.

        That is adding them here, group by group. `other` may follow other tensors of like shapes.

        Raises
        ------
        ValueError
            Different shapes, dtypes, devices, ``moments`` or ``groups``; merged with itself.
        RuntimeError
            `other` was consumed already, or either speaks for all ranks after `all_reduce`.
        """
        if other is self:
            raise ValueError("merge of statistics with themselves would count everything twice")
        check_mergeable(self, other, (self._layout, other._layout))
        if other._consumed:
            raise RuntimeError("the other statistics were consumed already; merge before consume")
        other._check_open()
        self._check_open()
        if not other.count:
            return
        self._begin()
        self._unseen += other._unseen
        for mine, theirs in zip(self._groups, other._groups, strict=True):
            mine.merge(theirs)

    def all_reduce(
        self,
        process_group: "torch.distributed.ProcessGroup | None" = None,
        *,
        from_grad: bool = False,
    ) -> None:
        """Merge the statistics of all ranks; afterwards all hold the same.

        Every rank must call it once per step, also one that had no microbatch. Ranks are taken
        about their common mean before anything is summed, so nothing cancels. It waits for the
        device once, to learn the counts.

        With ``from_grad=True`` the common mean is read off ``param.grad``, which
        DistributedDataParallel has reduced (up to a factor, so also after clipping by norm), and
        is not communicated. A parameter whose ``grad`` is no multiple of the mean has no usable
        record then: an optimizer takes it uncorrected and counts it as misaligned.

        The first call compares parameters, options and the attached optimizer over ranks.

        Raises
        ------
        RuntimeError
            torch.distributed is not initialized, the step is reduced already, or there is no
            ``grad`` for ``from_grad=True``.
        ValueError
            ``from_grad=True`` with several groups, which have means of their own.
        RanksDisagree, RankLost
            Other parameters or options on another rank; a rank that does not take part.
        """
        ranks.check_call(self._num_groups, from_grad=from_grad)
        self._check_open()
        self.check_ranks(process_group)
        looking, agreement = self.is_looking, self.agreement
        self._begin()
        if not looking:  # the same on every rank, and nothing to merge
            self._unseen = max(self._unseen, 1)  # a rank without any steps with the others
        try:
            for group in self._groups if looking else ():
                ranks.all_reduce(group, process_group, from_grad=from_grad, agreement=agreement)
        except BaseException:
            self.reset()  # merged by halves
            raise
        self._reduced = self.count > 0

    def check_ranks(self, process_group: "torch.distributed.ProcessGroup | None" = None) -> None:
        """Once: raise on every rank, as `check_agreement`, unless all have alike parameters and
        options, and what else is in ``agreement``."""
        options = {"moments": self.moments, "groups": self._num_groups, "every": self._every}
        options |= {"dtype": self._layout.dtypes}
        options |= {"step of the cycle": (self._generation - self.is_fresh) % self._every}
        own = {name: str(value) for name, value in options.items()}
        self.agreement.check(lambda: describe(self.params) | own, process_group)

    def result(self) -> StepMoments:
        """The records of this step so far. They do not change when more is added.

        Raises
        ------
        RuntimeError
            No microbatch was added, or the step was consumed.
        """
        if not self.is_fresh:
            state = "was consumed already" if self._consumed else "has no microbatch yet"
            raise RuntimeError(
                f"the step {state}; call add() or use microbatch() first, and look at is_fresh"
            )
        total, looking = self._total(), self.is_looking
        return StepMoments(
            layout=self._layout,
            moments=tuple(self._records(total, i) for i in range(len(self.params))),
            count=total.count if looking else self.count,
            observed=looking,
            weight=total.weight,
            finite=total.finite,
            generation=self._generation,
        )

    def consume(self) -> StepMoments:
        """`result`, after which the statistics are stale: the next `add` begins a new step."""
        step = self.result()
        self._consumed = True
        return step

    # -- for other sources of observations, within the package --------------------------------

    def position(self, param: Tensor) -> int:
        """Where this very tensor stands among `params`."""
        return self._layout.index(param)

    def group_counts(self) -> list[int]:
        """Microbatches in each group, of the step that comes in next."""
        return [0 if self._consumed else group.count for group in self._groups]

    def empty_streams(self) -> list[Accumulator]:
        """One for each group, to be filled and given to `merge_streams`."""
        return [self._stream() for _ in self._groups]

    def _stream(self) -> Accumulator:
        kept = self._layout, range(2, self.moments + 1)
        return FlatAccumulator(*kept, self._gathering) if self._gathering else Accumulator(*kept)

    def merge_streams(self, streams: Sequence[Accumulator]) -> None:
        """Add what another source has collected, group by group."""
        self._check_open()
        self._begin()
        for mine, theirs in zip(self._groups, streams, strict=True):
            mine.merge(theirs)

    def _add(self, grads: Sequence[Tensor | None], weight: float, divisor: float = 1.0) -> None:
        grads = self._layout.check_gradients(grads)
        self._check_open()
        looking = self.is_looking
        self._begin()
        if not looking:
            self._unseen += 1
            return
        group = min(self._groups, key=lambda group: group.count)  # the first of the smallest
        group.add(grads, weight, divisor)

    def _begin(self) -> None:
        """Called before data come in: a step that was consumed makes room for the next."""
        if self._consumed:
            self.reset()
        if not self.count:
            self._generation += 1
            self._settle()

    def _check_open(self) -> None:
        if self._reduced and not self._consumed:
            raise RuntimeError(
                "all_reduce() made this step speak for all ranks, what is added now would be "
                "counted on one rank only, or twice; consume() or reset() first"
            )

    def _total(self) -> Accumulator:
        """All groups together; the only one itself, whose tensors are then shared, not copied."""
        if self._num_groups == 1:
            return self._groups[0]
        total = self._stream()
        for group in self._groups:
            total.merge(group)
        return total

    def _records(self, total: Accumulator, i: int) -> Moments | None:
        if total.mean[i] is None:
            return None
        split = self._groups if self._num_groups > 1 else []
        return total.moments(i, groups=tuple(group.moments(i) for group in split))
