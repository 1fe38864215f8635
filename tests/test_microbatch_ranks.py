"""Statistics over processes: two ranks on the gloo backend, in one spawn."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from deltabias.microbatch import MicrobatchStats

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch without gloo"
)
RANKS = 2


def _microbatches():
    """(rank, gradients, weight): three on rank 0, two on rank 1, a tensor seen by one rank only."""
    generator = torch.Generator().manual_seed(5)
    for r, rank in enumerate([0, 0, 0, 1, 1]):
        a = 1e-9 * (1e3 + torch.randn(3, 2, generator=generator)) * (1e4 if rank else 1.0)
        b = torch.randn((), generator=generator)
        yield rank, [a, b if rank else None, None, torch.zeros(0)], 1.0 + r


def _statistics(ranks, **options) -> MicrobatchStats:
    shapes = [(3, 2), (), (2,), (0,)]
    stats = MicrobatchStats([torch.zeros(shape) for shape in shapes], **options)
    for rank, grads, weight in _microbatches():
        if rank in ranks:
            stats.add(grads, weight)
    return stats


def _numbers(stats: MicrobatchStats) -> dict:
    step = stats.result()
    out = {"count": step.count, "weight": step.weight, "finite": bool(step.finite)}
    for i, moments in enumerate(step):
        if moments is None:
            continue
        out["power of two", i] = bool(torch.frexp(moments.scale)[0] == 0.5)
        unit = moments.relative_to(1e-6 if i == 0 else 1.0)
        out[i] = [unit.mean, *unit.central.values(), unit.third_cumulant_of_mean()]
        out[i] += [group.mean for group in unit.groups]
    return out


def _plain(rank: int) -> dict:
    stats = _statistics([rank])
    stats.all_reduce()
    with pytest.raises(RuntimeError, match="speak for all ranks"):
        stats.add([None] * 4)
    with pytest.raises(RuntimeError, match="speak for all ranks"):
        stats.all_reduce()
    numbers = _numbers(stats)
    stats.consume()
    stats.add([None] * 4)  # the next step is this rank's own again
    assert (stats.count, stats.generation) == (1, 2)
    return numbers


def _idle(rank: int) -> dict:
    """Rank 1 has no microbatch in this step, and stale statistics of the one before."""
    stats = _statistics([rank])
    if rank == 1:
        stats.consume()
    stats.all_reduce()
    return _numbers(stats)


def _not_finite(rank: int) -> bool:
    stats = _statistics([rank])
    bad = torch.full((), float("nan")) if rank else None
    stats.add([None, bad, None, None])
    stats.all_reduce()
    return bool(stats.finite)


def _ddp(rank: int) -> dict:
    """Accumulation under no_sync: p.grad bit for bit, and each microbatch's own gradient."""

    def run(watched: bool):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        wrapped = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
        stats = MicrobatchStats(net.parameters())
        for r in range(3):
            x = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * rank + r))
            sync = wrapped.no_sync() if r < 2 else torch.enable_grad()
            with sync, stats.microbatch() if watched else torch.enable_grad():
                wrapped(x).square().mean().backward()
        return net, stats

    net, stats = run(watched=True)
    plain, _ = run(watched=False)
    equal = all(
        torch.equal(p.grad, q.grad)
        for p, q in zip(net.parameters(), plain.parameters(), strict=True)
    )
    local_aligned = stats.result()[net.weight].scaled_to(net.weight.grad)[1]
    stats.all_reduce()
    aligned = stats.result()[net.weight].scaled_to(net.weight.grad)[1]
    return {
        "equal": equal,
        "local_aligned": bool(local_aligned),
        "aligned": bool(aligned),
        "count": stats.count,
        "var": stats.result()[net.weight].var_of_mean(),
    }


def _hooks_count_backward_only(rank: int) -> bool:
    """Two backward passes in a block are summed; torch.autograd.grad is not counted."""
    weight = nn.Parameter(torch.ones(2))
    stats = MicrobatchStats([weight])
    with stats.microbatch():
        torch.autograd.grad((7 * weight).sum(), weight)
        (2 * weight).sum().backward()
        (3 * weight).sum().backward()
    (100 * weight).sum().backward()  # outside
    seen = stats.result()[weight].mean

    def interrupted():
        with stats.microbatch():
            weight.sum().backward()
            raise KeyError("from the block")

    with pytest.raises(KeyError, match="from the block"):
        interrupted()
    return seen.tolist() == [5.0, 5.0] and stats.count == 1 and weight.grad[0].item() == 106.0


def _sharded(rank: int) -> bool:
    """A DTensor's local shard is followed."""
    from torch.distributed.tensor import DTensor, Shard, init_device_mesh

    mesh = init_device_mesh("cpu", (RANKS,))
    full = torch.arange(8.0).reshape(4, 2)
    weight = nn.Parameter(DTensor.from_local(full[2 * rank : 2 * rank + 2], mesh, [Shard(0)]))
    stats = MicrobatchStats([weight])
    running = 0
    for factor in (1.0, 3.0):
        with stats.microbatch():
            (factor * weight * weight).sum().backward()
        running = running + 2 * factor * full[2 * rank : 2 * rank + 2]
    moments, aligned = stats.consume()[weight].scaled_to(weight.grad)
    same = torch.equal(weight.grad.to_local(), running)
    return same and bool(aligned) and torch.allclose(moments.mean, running)


CASES = [_plain, _idle, _not_finite, _ddp, _hooks_count_backward_only, _sharded]


def _rank_main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS
    )
    results = {case.__name__: case(rank) for case in CASES}
    grouped = _statistics([rank], groups=2)
    grouped.all_reduce()
    results["_groups"] = _numbers(grouped)
    torch.save(results, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    folder = str(tmp_path_factory.mktemp("ranks"))
    torch.multiprocessing.spawn(_rank_main, args=(folder,), nprocs=RANKS)
    return [torch.load(Path(folder) / f"rank{r}.pt", weights_only=False) for r in range(RANKS)]


def assert_same_numbers(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for key, value in want.items():
        if not isinstance(value, list):
            assert got[key] == value
            continue
        # within 64 roundings of numbers of order ten to the fourth power
        for x, y in zip(got[key], value, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=64 * 1.2e-7)


@needs_gloo
def test_all_ranks_end_with_what_one_process_would_have(results):
    for rank in range(RANKS):
        assert_same_numbers(results[rank]["_plain"], _numbers(_statistics([0, 1])))
        assert results[rank]["_plain"]["power of two", 0]


@needs_gloo
def test_all_ranks_end_with_the_same_bits(results):
    for key, value in results[0]["_plain"].items():
        other = results[1]["_plain"][key]
        same = (
            value == other if not isinstance(value, list) else all(map(torch.equal, value, other))
        )
        assert same, key


@needs_gloo
def test_groups_are_reduced_group_by_group(results):
    whole = _statistics([0], groups=2)
    whole.merge(_statistics([1], groups=2))
    for rank in range(RANKS):
        assert_same_numbers(results[rank]["_groups"], _numbers(whole))


@needs_gloo
def test_a_rank_without_microbatches_takes_part(results):
    for rank in range(RANKS):
        assert_same_numbers(results[rank]["_idle"], _numbers(_statistics([0])))


@needs_gloo
def test_one_rank_that_is_not_finite_tells_all(results):
    assert [r["_not_finite"] for r in results] == [False, False]


@needs_gloo
def test_accumulation_under_ddp_is_left_alone_and_seen_before_reduction(results):
    for r in results:
        ddp = r["_ddp"]
        assert (ddp["equal"], ddp["aligned"], ddp["local_aligned"]) == (True, True, False)
        assert ddp["count"] == 6
    assert torch.equal(results[0]["_ddp"]["var"], results[1]["_ddp"]["var"])


@needs_gloo
def test_hooks_see_backward_and_nothing_else(results):
    assert all(r["_hooks_count_backward_only"] for r in results)


@needs_gloo
def test_shards_are_followed_where_they_are(results):
    assert all(r["_sharded"] for r in results)


def test_all_reduce_alone_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"call torch\.distributed\.init_process_group first"):
        _statistics([0, 1]).all_reduce()
