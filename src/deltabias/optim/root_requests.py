"""Inverse roots that a step needs: asked for together, computed here or shared by ranks.

A step collects a `Request` for every factor of every stack of blocks before it changes anything.
On several ranks with replicated parameters each of them would decompose the same matrices; with
`solve_shared` each takes its share, by cost, and one gather brings the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.distributed as dist
from torch import Tensor

from deltabias.microbatch.agreement import Group, awaiting
from deltabias.optim.eigen import MatrixError, eigendecompose
from deltabias.optim.root_iteration import iterate_root

Answer = tuple[Tensor, ...]


@dataclass(frozen=True)
class Request:
    """The (average + damping I) of equal blocks, [B, d, d], to be taken apart.

    ``solver`` "eigh" is answered by eigenvalues [B, d] and basis [B, d, d], "iteration" by the
    inverse root [B, d, d], its error [B] and whether that missed [B]; see `CertifiedRoot`.
    """

    average: Tensor
    damping: float
    power: Fraction
    name: str
    solver: str = "eigh"
    tolerance: float = 1e-4
    precision: str = "fp32"

    def solve(self) -> Answer:
        """The answer. Raises what `eigendecompose` raises."""
        if self.solver == "eigh":
            return eigendecompose(self.average, damping=self.damping, name=self.name)
        root = iterate_root(
            self.average,
            int(self.power),
            damping=self.damping,
            tolerance=self.tolerance,
            precision=self.precision,
            name=self.name,
        )
        return root.inverse_root, root.error.to(self.average.dtype), root.missed

    def part(self, chosen: list[int]) -> "Request":
        """The same of some blocks."""
        return replace(self, average=self.average[chosen])

    def empty_answer(self) -> Answer:
        """Tensors to be filled, one entry for each block."""
        b, d, _ = self.average.shape
        new = self.average.new_empty
        if self.solver == "eigh":
            return new(b, d), new(b, d, d)
        return new(b, d, d), new(b), torch.empty(b, dtype=torch.bool, device=self.average.device)


def fallbacks(answer: Answer, solver: str) -> int:
    """How many of an answer's roots no iteration could prove."""
    return 0 if solver == "eigh" else int(answer[2].sum())


def assigned(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank that solves each matrix: the largest first, to whoever has the least to do.

    Costs are cubes of the sizes. All ranks come to the same answer, without speaking.

    >>> assigned([8, 8, 4, 4, 4], 2)
    [0, 1, 0, 1, 0]
    """
    load, owner = [0] * ranks, [0] * len(sizes)
    for k in sorted(range(len(sizes)), key=lambda k: (-sizes[k], k)):
        owner[k] = load.index(min(load))
        load[owner[k]] += sizes[k] ** 3
    return owner


def solve_shared(requests: Sequence[Request], group: Group) -> list[Answer]:
    """Every request's answer, each matrix solved by one rank of `group`.

    Every rank must bring the same requests: factors of parameters that are replicated. LAPACK
    takes a batch one matrix at a time, so on a CPU the answers are those of one process, bit for
    bit.

    Raises
    ------
    MatrixError and its kin
        on every rank, also those whose own share was solved.
    RankLost
        a rank does not take part.
    """
    items = [(r, b) for r, request in enumerate(requests) for b in range(len(request.average))]
    owner = assigned([requests[r].average.shape[-1] for r, _ in items], dist.get_world_size(group))
    rank = dist.get_rank(group)
    answers = [request.empty_answer() for request in requests]
    error = None
    try:
        mine = [item for item, who in zip(items, owner, strict=True) if who == rank]
        _fill(answers, requests, mine)
    except MatrixError as found:
        error = found
    with awaiting("the exchange of inverse roots"):
        _check_all_solved(error, group)
        for kind in dict.fromkeys((a.device, a.dtype) for a in map(_first, answers)):
            chosen = [k for k, a in enumerate(answers) if (a[0].device, a[0].dtype) == kind]
            _exchange(answers, set(chosen), items, owner, group)
    return answers


def _first(answer: Answer) -> Tensor:
    return answer[0]


def _fill(answers: list[Answer], requests: Sequence[Request], items: list[tuple]) -> None:
    for r, request in enumerate(requests):
        if chosen := [b for which, b in items if which == r]:
            for whole, part in zip(answers[r], request.part(chosen).solve(), strict=True):
                whole[chosen] = part


def _check_all_solved(error: MatrixError | None, group: Group) -> None:
    """Raise on every rank if one could not solve its share."""
    flags: list = [None] * dist.get_world_size(group)
    dist.all_gather_object(flags, None if error is None else (type(error), str(error)), group=group)
    if error is not None:
        raise error
    for rank, found in enumerate(flags):
        if found is not None:
            raise found[0](f"on rank {rank}: {found[1]}")


def _exchange(
    answers: list[Answer], chosen: set[int], items: list[tuple], owner: list[int], group: Group
) -> None:
    """All ranks' parts of answers of one device and dtype, in one gather of equal sizes."""
    ranks, mine = dist.get_world_size(group), dist.get_rank(group)
    shares = [
        [t[b] for (r, b), who in zip(items, owner, strict=True) if who == rank and r in chosen
         for t in answers[r]]
        for rank in range(ranks)
    ]  # fmt: skip
    longest = max(sum(t.numel() for t in share) for share in shares)
    kind = answers[next(iter(chosen))][0]
    flat = kind.new_zeros(longest)
    if shares[mine]:
        own = torch.cat([t.reshape(-1).to(flat.dtype) for t in shares[mine]])
        flat[: len(own)] = own
    received = [torch.empty_like(flat) for _ in range(ranks)]
    dist.all_gather(received, flat, group=group)
    for share, values in zip(shares, received, strict=True):
        sizes = [t.numel() for t in share]
        parts = values[: sum(sizes)].split(sizes)
        for target, part in zip(share, parts, strict=True):
            target.copy_(part.view(target.shape))
