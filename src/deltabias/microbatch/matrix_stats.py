"""`MatrixStats`: microbatch statistics for matrix preconditioners, and the blocks they come in.

>>> import torch
>>> weight = torch.nn.Parameter(torch.zeros(2, 2))
>>> stats = MatrixStats([weight], keep="gradients")
>>> for a in (1.0, 3.0):
...     stats.add([torch.tensor([[a, 0.0], [0.0, 1.0]])])
>>> (block,) = stats.consume()[weight]
>>> block.left_mean  # the mean of diag(1, 1) and diag(9, 1)
tensor([[5., 0.],
        [0., 1.]])
>>> _, left, _ = block.deviations()  # their squares add up to Var of that mean: 32 / 2
>>> left.square().sum(dim=0).round(decimals=4)
tensor([[16.,  0.],
        [ 0.,  0.]])
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist

from deltabias.microbatch import ranks
from deltabias.microbatch.agreement import awaiting
from deltabias.microbatch.layout import local
from deltabias.microbatch.matrix_moments import MatrixBlocks, MatrixStep
from deltabias.microbatch.matrix_streams import KeptStream, SketchStream, Stream
from deltabias.microbatch.matrix_sums import Plan, Signs
from deltabias.microbatch.stats import MicrobatchStats

KEEP = ("sketch", "gradients")
FACTORS = ("left+right", "left", "right")


def blocks(shape: Sequence[int], block_size: int) -> list[tuple[slice, slice]]:
    """Where to cut a matrix into blocks of at most `block_size` in each dimension.

    Rows of blocks first. A dimension is cut into as few pieces as will do, all of one size but the
    last, which may be smaller: 1025 is 513 + 512, not 1024 + 1. Empty matrices have no block.

    Examples
    --------
    >>> blocks((2, 5), 4)
    [(slice(0, 2, None), slice(0, 3, None)), (slice(0, 2, None), slice(3, 5, None))]

    Raises
    ------
    ValueError
        `shape` is not two sizes >= 0, `block_size` not an integer >= 1.
    """
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"{block_size=} is not a size; pass an integer >= 1")
    sizes = tuple(shape)
    if len(sizes) != 2 or any(size < 0 for size in sizes):
        raise ValueError(f"shape={sizes} is not that of a matrix; pass (rows, columns), see "
                         "matrix_shape")  # fmt: skip
    rows, columns = (list(_cuts(size, block_size)) for size in sizes)
    return [(r, c) for r in rows for c in columns]


def _cuts(size: int, limit: int) -> Iterator[slice]:
    if not size:
        return
    step = math.ceil(size / math.ceil(size / limit))
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def matrix_shape(shape: Sequence[int]) -> tuple[int, int] | None:
    """[shape[0], all the rest]; None for what is no matrix: vectors, 0-d and empty tensors.

    >>> matrix_shape((8, 3, 5, 5)), matrix_shape((8,)), matrix_shape((8, 0))
    ((8, 75), None, None)
    """
    sizes = tuple(shape)
    if len(sizes) < 2 or 0 in sizes:
        return None
    return sizes[0], math.prod(sizes[1:])


class MatrixStats(MicrobatchStats):
    r"""Means and deviations of G_r, G_r G_rᵀ and G_rᵀ G_r over the microbatches of one step.

    Used like `MicrobatchStats`, whose life cycle it has: `add` or ``with stats.microbatch(...)``
    for every microbatch, `merge` or `all_reduce` over ranks, `consume` by the optimizer. Records
    are `MatrixBlocks`, see `matrix_moments` for the mathematics. Nothing waits for the device
    except `all_reduce`.

    Parameters of two or more dimensions are matrices [shape[0], rest], of a DTensor its local
    shard; others are known and have no record. A parameter without a gradient in some
    microbatches (None) had the gradient zero there.

    Memory for a parameter [d, n] of one block, with both factors, per group, in the accumulation
    dtype: a sketch ``2 (d n + d² + n²)``, whatever m is; ``keep="gradients"`` ``m d n`` and, while
    a record is read, what the reader asks for. Cost of `add`: 2 d n (d + n) flops, or a copy.

    Parameters
    ----------
    params
        tensors, or parameter groups as torch.optim takes them
    block_size
        matrices are cut into blocks of at most this in each dimension
    keep
        "sketch": streaming, no list of microbatches. "gradients": the list of G_r, for consumers
        that project them first (Qᵀ G_r), and for all m deviations instead of one
    groups
        for cross-fitting: microbatches are dealt to this many groups in turn
    factors
        "left+right", "left" (G Gᵀ only) or "right" (Gᵀ G only)
    seed
        of the random signs. They are drawn anew for each step from (seed, rank, `generation`), so
        a run is repeatable; `state_dict` is for resuming it. Give statistics that will be merged
        within one process different seeds; ranks of torch.distributed differ by themselves.
    dtype
        accumulation dtype, fp32 or fp64. Default: fp64 for fp64 parameters, else fp32.

    Raises
    ------
    TypeError, ValueError
        As `MicrobatchStats`, and for a `block_size`, `keep`, `factors` or `seed` not allowed.
    """

    def __init__(
        self,
        params: Iterable,
        *,
        block_size: int = 1024,
        keep: str = "sketch",
        groups: int = 1,
        factors: str = "left+right",
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, value, allowed in (("keep", keep, KEEP), ("factors", factors, FACTORS)):
            if value not in allowed:
                raise ValueError(f"{name}={value!r} is not known; use one of {allowed}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"{seed=} is not a seed; pass an integer")
        blocks((0, 0), block_size)  # refuse it by name
        self._block_size, self._keep, self._factors, self._seed = block_size, keep, factors, seed
        self._signs = Signs()
        super().__init__(params, moments=2, groups=groups, dtype=dtype)
        self.agreement.add({name: str(value) for name, value in self._options().items()})

    @property
    def moments(self) -> int:
        """0: no elementwise moments, so optimizers that need those refuse these statistics."""
        return 0

    @property
    def block_size(self) -> int:
        """The largest dimension of a block."""
        return self._block_size

    @property
    def keep(self) -> str:
        """What is kept: "sketch" or "gradients"."""
        return self._keep

    @property
    def factors(self) -> str:
        """Which squares are kept: "left+right", "left" or "right"."""
        return self._factors

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs for the same signs; plain numbers."""
        return {"seed": self._seed, "generation": self._generation}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue with the signs that the saved run would have drawn; forgets this step."""
        self.reset()
        self._seed, self._generation = int(state["seed"]), int(state["generation"])

    def reset(self) -> None:
        """Forget this step. Records handed out before stay valid."""
        self._groups: list[Stream] = [self._stream() for _ in range(self._num_groups)]
        self._consumed = False
        self._reduced = False

    def merge(self, other: "MatrixStats") -> None:
        """Add all microbatches of `other`, which is not changed; as `MicrobatchStats.merge`.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As there; other options; sketches whose signs are the same, which would be biased.
        """
        if not isinstance(other, MatrixStats):
            raise TypeError(f"merge takes a MatrixStats, got {type(other).__name__}")
        if other is not self and self._options() != other._options():
            raise ValueError(
                "merge needs the same block_size, keep and factors; got "
                f"{other._options()} for {self._options()}"
            )
        mine = self._sources() | {self._source()}  # also of signs that add() will draw later
        if other is not self and self._keep == "sketch" and mine & other._sources():
            raise ValueError(
                f"both statistics drew their signs from seed={other._seed}, and equal signs make "
                "a sketch biased; pass another seed to one of them"
            )
        super().merge(other)

    def all_reduce(self, process_group: "dist.ProcessGroup | None" = None) -> None:
        """Merge the statistics of all ranks; every rank must call it once per step.

        Sums are communicated for a sketch, every gradient for ``keep="gradients"``; the counts,
        weights and signs in one object first, for which it waits.

        Raises
        ------
        RuntimeError
            torch.distributed is not initialized, or the step is reduced already.
        RanksDisagree, RankLost
            Other parameters or options on another rank; a rank that does not take part.
        """
        ranks.check_initialized()
        self._check_open()
        self.check_ranks(process_group)
        self._begin()
        try:
            with awaiting("the merge of microbatch statistics"):
                for group in self._groups:
                    group.all_reduce(process_group)
        except BaseException:
            self.reset()  # merged by halves
            raise
        self._reduced = self.count > 0

    def result(self) -> MatrixStep:
        """The records of this step so far. They do not change when more is added.

        Raises
        ------
        RuntimeError
            No microbatch was added, or the step was consumed.
        """
        self._check_fresh()
        total = self._total()
        return MatrixStep(
            layout=self._layout,
            blocks=tuple(self._records(total, i) for i in range(len(self.params))),
            count=total.count,
            weight=total.weight,
            finite=total.finite,
            generation=self._generation,
        )

    def consume(self) -> MatrixStep:
        """`result`, after which the statistics are stale: the next `add` begins a new step."""
        step = self.result()
        self._consumed = True
        return step

    def _check_fresh(self) -> None:
        if not self.is_fresh:
            state = "was consumed already" if self._consumed else "has no microbatch yet"
            raise RuntimeError(
                f"the step {state}; call add() or use microbatch() first, and look at is_fresh"
            )

    def _stream(self) -> Stream:
        kind = SketchStream if self._keep == "sketch" else KeptStream
        return kind(self._layout, self._plans(), self._signs)

    def _plans(self) -> dict[int, Plan]:
        plans = {}
        for i, param in enumerate(self.params):
            tensor = local(param)
            if (shape := matrix_shape(tensor.shape)) is not None:
                plans[i] = Plan(
                    shape=tensor.shape,
                    matrix=shape,
                    slices=tuple(blocks(shape, self._block_size)),
                    left="left" in self._factors,
                    right="right" in self._factors,
                    dtype=self._layout.dtypes[i],
                    device=tensor.device,
                )
        return plans

    def _begin(self) -> None:
        begins, source = self._begins(), self._source()
        super()._begin()
        if begins:  # the signs of a step depend on nothing that came before
            digest = hashlib.blake2b(repr(source).encode(), digest_size=8).digest()
            self._signs.start(int.from_bytes(digest, "big") >> 1, source)

    def _begins(self) -> bool:
        """Whether what comes in next begins a step."""
        return self._consumed or not self.count

    def _source(self) -> tuple[int, int, int]:
        """Where the signs of this step come from, or of the next one if none has begun."""
        if not self._begins():
            return self._signs.source
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        return self._seed, rank, self._generation + 1

    def _sources(self) -> set[tuple]:
        """Those of the signs that are in this step's sums already."""
        return set() if self._consumed else set().union(*(g.sources for g in self._groups))

    def _total(self) -> Stream:
        """All groups together; the only one itself, whose tensors are then shared, not copied."""
        if self._num_groups == 1:
            return self._groups[0]
        total = self._stream()
        for group in self._groups:
            total.merge(group)
        return total

    def _records(self, total: Stream, i: int) -> MatrixBlocks | None:
        if not total.has(i):
            return None
        split = self._groups if self._num_groups > 1 else []
        return total.record(i, tuple(group.record(i) for group in split))

    def _options(self) -> dict:
        return {"block_size": self._block_size, "keep": self._keep, "factors": self._factors}
