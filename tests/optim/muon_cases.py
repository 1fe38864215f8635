"""How Muon's tests build and feed it: one entry for each way to correct."""

import torch
from tests.optim.cases import draw, generator, quietly
from torch.nn import Parameter

from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Muon

SHAPES = [(4, 6), (6, 4), (1, 5), (5, 1), (1, 1), (20, 24)]
# what each correction needs: (options, statistics)
MODES = {
    "plug_in": ({}, None),
    "full": ({"correction": "full"}, None),
    "full-microbatches": ({"correction": "full", "spread": "microbatches"}, {"keep": "gradients"}),
    "sketch": ({"correction": "sketch", "spread": "microbatches"}, {"keep": "sketch"}),
    "exact": ({"polar": "exact"}, None),
    "exact-full": ({"polar": "exact", "correction": "full"}, None),
    "diagonal": ({"polar": "exact", "correction": "diagonal"}, None),
    "eigenvalue_only": ({"polar": "exact", "correction": "eigenvalue_only"}, None),
    "cross_fit": ({"polar": "exact", "correction": "cross_fit"}, {"groups": 2}),
}


def attached(params, mode: str, **more):
    options, needs = MODES[mode]
    optimizer = Muon(params, **{**options, **more})
    stats = None if needs is None else MatrixStats(params, **needs)
    if stats is not None:
        optimizer.attach(stats)
    return optimizer, stats


def step(optimizer, stats, params, gen, m: int = 4) -> None:
    """One step with m microbatches; their mean is the gradient."""
    batches = [[(0.5 + draw(p.shape, gen)).to(p.dtype) for p in params] for _ in range(m)]
    for batch in batches:
        if stats is not None:
            stats.add(batch)
    for i, p in enumerate(params):
        p.grad = (sum(batch[i].double() for batch in batches) / m).to(p.dtype)
    with quietly():
        optimizer.step()


def pair(shape, dtype=torch.float32, turned: bool = False, ours=None, **options):
    start = draw(shape, generator(1), dtype)
    start = start.t().contiguous().t() if turned else start
    mine, theirs = Parameter(start.clone()), Parameter(start.clone())
    return (
        mine,
        theirs,
        Muon([mine], **options, **(ours or {})),
        torch.optim.Muon([theirs], **options),
    )


def both(mine, theirs, ours, reference, gradient) -> bool:
    mine.grad, theirs.grad = gradient.clone(), gradient.clone()
    ours.step()
    reference.step()
    return torch.equal(mine, theirs)
