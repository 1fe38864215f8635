"""Matrix statistics in use: scale, precision, backward passes, bad input, steps, ranks."""

import copy
import math
import pickle

import pytest
import torch
import torch.distributed as dist
from tests.microbatch.matrix_cases import (
    F64,
    KEEPS,
    WEIGHTS,
    close,
    draws,
    filled,
    interrupt,
    only,
    truth,
)  # fmt: skip
from torch import nn

from deltabias.microbatch import MatrixStats, MicrobatchStats
from deltabias.microbatch.matrix_moments import full_precision

# -- scale and alignment --------------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("factor", [0.25, -3.0, 65536.0])
def test_clipping_and_gradient_scalers_scale_gradients_by_c_and_squares_by_its_square(keep, factor):
    grads = draws(4, shape=(4, 6))
    record = only(filled(grads, keep=keep, block_size=4, groups=2))
    mean = sum(grads) / 4
    scaled, aligned = record.scaled_to(factor * mean)
    assert bool(aligned)
    for new, old in zip([*scaled, *scaled.groups[1]], [*record, *record.groups[1]], strict=True):
        close(new.mean, factor * old.mean, rtol=1e-10)
        close(new.left_mean, factor**2 * old.left_mean, rtol=1e-10)
        close(new.groups[0].mean if new.groups else new.mean,
              factor * (old.groups[0].mean if old.groups else old.mean), rtol=1e-10)  # fmt: skip
        for a, b, power in zip(new.deviations(), old.deviations(), (1, 2, 2), strict=True):
            close(a, factor**power * b, rtol=1e-10)
    if keep == "gradients":
        close(scaled[0].gradients, factor * record[0].gradients, rtol=1e-10)


def test_a_gradient_of_another_step_is_reported_and_one_rounded_to_bf16_is_not():
    grads = draws(4)
    record = only(filled(grads))
    mean = sum(grads) / 4
    assert bool(record.scaled_to(mean.to(torch.bfloat16))[1])
    others = [mean.flip(0), mean + 1, mean.clamp(max=float(mean.median())), mean * math.nan,
              mean * math.inf]  # fmt: skip
    assert [bool(record.scaled_to(other)[1]) for other in others] == [False] * 5
    with pytest.raises(ValueError, match=r"shape \(2, 3\), the statistics \(3, 2\)"):
        record.scaled_to(mean.T)


def test_a_gradient_of_zero_makes_all_statistics_zero():
    scaled, aligned = only(filled(draws(4))).scaled_to(torch.zeros(3, 2, dtype=F64))
    assert bool(aligned)
    assert not any(d.any() for d in (*scaled[0].deviations(), scaled[0].left_mean))


def test_gradients_that_cancel_keep_their_scale_and_are_aligned_with_zero_only():
    g = draws(1)[0]
    record = only(filled([g, -g]))
    scaled, aligned = record.scaled_to(torch.zeros_like(g))
    assert bool(aligned)
    close(scaled[0].left_mean, g @ g.T)
    assert not bool(record.scaled_to(g)[1])


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_gradients_are_squared_in_fp32(keep, dtype):
    grads = draws(4, shape=(6, 5), dtype=dtype)
    record = only(filled(grads, keep=keep))[0]
    _, means, _ = truth(grads, [1.0] * 4)
    assert record.left_mean.dtype == torch.float32
    close(record.left_mean.double(), means[1], rtol=1e-5, atol=1e-5)
    low = sum(g @ g.T for g in grads) / 4
    assert (low.double() - means[1]).abs().max() > 1e-4  # so the check can tell


def test_double_precision_stays_double():
    assert only(filled(draws(2)))[0].right_mean.dtype == F64


def test_full_precision_puts_back_what_the_process_had_set_also_after_an_error():
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    coarse, exact = ("tf32", "ieee") if name == "fp32_precision" else (True, False)
    try:
        setattr(matmul, name, coarse)
        with pytest.raises(KeyError), full_precision():
            interrupt(getattr(matmul, name) == exact)
        assert getattr(matmul, name) == coarse
    finally:
        setattr(matmul, name, before)


# -- backward passes ------------------------------------------------------------------------------


class Tied(nn.Module):
    """A matrix used twice, one used by long inputs only, and a vector."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.expert = nn.Linear(6, 6)

    def forward(self, tokens):
        hidden = self.embed(tokens)
        if len(tokens) > 3:
            hidden = torch.tanh(self.expert(hidden))
        return hidden @ self.embed.weight.t()


def loss_of(net, tokens, reduction):
    return nn.functional.cross_entropy(net(tokens), tokens.flip(0), reduction=reduction)


BATCHES = [torch.arange(n) % 11 for n in (3, 7, 2, 12)]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("dtype", [F64, torch.bfloat16], ids=str)
def test_backward_passes_accumulate_as_ever_and_are_seen_one_by_one(keep, dtype):
    torch.manual_seed(0)
    plain = Tied().to(dtype)
    net = copy.deepcopy(plain)
    stats = MatrixStats(net.parameters(), keep=keep)
    own = []
    for tokens in BATCHES:
        loss_of(plain, tokens, "sum").backward()
        alone = copy.deepcopy(plain)
        alone.zero_grad()
        loss_of(alone, tokens, "mean").backward()
        own.append([p.grad for p in alone.parameters()])
        with stats.microbatch(weight=len(tokens)):
            loss_of(net, tokens, "sum").backward()
    step = stats.consume()
    assert step[net.expert.bias] is None
    rtol = 1e-10 if dtype == F64 else 0.05
    for i, (p, q) in enumerate(zip(plain.parameters(), net.parameters(), strict=True)):
        assert torch.equal(p.grad, q.grad)
        if q.ndim < 2:
            continue
        record, aligned = step[q].scaled_to(q.grad / 24)  # a sum over 24 tokens
        assert bool(aligned)
        grads = [torch.zeros_like(q) if g[i] is None else g[i] for g in own]
        _, means, deviations = truth(grads, [3.0, 7.0, 2.0, 12.0])
        if keep == "sketch":
            signs = torch.tensor(record[0].signs, dtype=F64)
            deviations = [torch.einsum("r,rij->ij", signs, d)[None] for d in deviations]
        size = means[1].abs().max().item()
        close(record[0].left_mean.double(), means[1], rtol=0, atol=rtol * size)
        for got, expected in zip(record[0].deviations(), deviations, strict=True):
            close(got.double(), expected, rtol=0, atol=rtol * expected.abs().max().item())


@pytest.mark.parametrize("keep", KEEPS)
def test_a_gradient_that_goes_on_accumulating_after_its_microbatch_is_not_seen_to_change(keep):
    weight = nn.Parameter(torch.zeros(2, 2, dtype=F64))
    stats = MatrixStats([weight], keep=keep)
    for k in (1.0, 3.0):  # weight 1 and the parameter's dtype: nothing else would make a copy
        with stats.microbatch():
            (k * weight).sum().backward()
    record = only(stats)[0]
    close(record.mean, torch.full((2, 2), 2.0, dtype=F64))
    close(record.left_mean, torch.full((2, 2), 10.0, dtype=F64))


@pytest.mark.parametrize("keep", KEEPS)
def test_an_exception_in_a_microbatch_adds_nothing(keep):
    net = nn.Linear(3, 2)
    stats = MatrixStats(net.parameters(), keep=keep)
    with pytest.raises(KeyError), stats.microbatch():
        interrupt(net(torch.ones(1, 3)).sum().backward() is None)
    assert not stats.is_fresh
    assert net.weight.grad is None


# -- bad input and life cycle ---------------------------------------------------------------------


@pytest.mark.parametrize("keep", KEEPS)
def test_one_microbatch_has_means_and_no_deviations(keep):
    (g,) = draws(1)
    record = only(filled([g], keep=keep))[0]
    close(record.left_mean, g @ g.T)
    for use in (record.deviations, lambda: record.deviation_chunks(1), lambda: record.root_weights):
        with pytest.raises(ValueError, match="microbatches=1 gives no variance estimate"):
            use()
    if keep == "sketch":
        with pytest.raises(ValueError, match="microbatches=1"):
            _ = record.sketch


@pytest.mark.parametrize("keep", KEEPS)
def test_non_finite_gradients_set_the_flag_for_this_step_only(keep):
    stats = filled([*draws(2), torch.full((3, 2), math.inf, dtype=F64)], keep=keep)
    step = stats.consume()
    assert not bool(step.finite)
    assert not bool(step.blocks[0].scaled_to(torch.ones(3, 2, dtype=F64))[1])
    for grad in draws(2):
        stats.add([grad])
    assert bool(stats.finite)
    assert torch.isfinite(only(stats)[0].left_mean).all()


def test_a_non_finite_vector_is_noticed_although_it_has_no_record():
    stats = MatrixStats([torch.zeros(2, 2), torch.zeros(2)])
    stats.add([torch.ones(2, 2), torch.tensor([1.0, math.nan])])
    assert not bool(stats.finite)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_that_are_not_positive_and_finite_are_refused(weight):
    stats = filled(draws(2))
    with pytest.raises(ValueError, match="not positive and finite"):
        stats.add([torch.ones(3, 2, dtype=F64)], weight)
    assert stats.count == 2


def test_gradients_that_do_not_fit_are_refused_and_nothing_is_added():
    stats = filled(draws(2))
    for bad, error, text in (
        ([torch.ones(2, 3)], ValueError, r"gradient 0 has shape \(2, 3\)"),
        ([], ValueError, "got 0 gradients for 1 parameters"),
        ([torch.ones(3, 2).to_sparse()], TypeError, "sparse"),
        ([torch.ones(3, 2, dtype=torch.complex64)], TypeError, "complex"),
        ([[1.0]], TypeError, "list"),
    ):
        with pytest.raises(error, match=text):
            stats.add(bad)
    assert stats.count == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keep": "list"}, "keep='list'"),
        ({"factors": "both"}, "factors='both'"),
        ({"groups": 0}, "groups=0"),
    ],
)
def test_options_that_are_not_known_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        MatrixStats([torch.zeros(2, 2)], **options)
    with pytest.raises(TypeError, match=r"seed=1\.5"):
        MatrixStats([torch.zeros(2, 2)], seed=1.5)


def test_merging_what_does_not_fit_is_refused():
    mine = filled(draws(2))
    for other in (filled(draws(2), seed=1, keep="gradients"), filled(draws(2), seed=1, groups=2),
                  filled(draws(2, shape=(2, 2)), seed=1), mine):  # fmt: skip
        with pytest.raises(ValueError, match="merge"):
            mine.merge(other)
    with pytest.raises(TypeError, match="MicrobatchStats"):
        mine.merge(MicrobatchStats([torch.zeros(3, 2, dtype=F64)]))
    stale = filled(draws(2), seed=1)
    stale.consume()
    with pytest.raises(RuntimeError, match="consumed already"):
        mine.merge(stale)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_chunk_sizes_that_are_none_are_refused(size):
    with pytest.raises(ValueError, match="size="):
        only(filled(draws(2))).blocks[0].deviation_chunks(size)


def test_steps_follow_each_other_as_with_elementwise_statistics():
    stats = filled(draws(3))
    assert stats.is_fresh
    assert stats.consume().count == 3
    assert not stats.is_fresh
    with pytest.raises(RuntimeError, match="consumed already"):
        stats.result()
    stats.add([draws(1)[0]])
    assert (stats.count, stats.generation) == (1, 2)
    stats.reset()
    with pytest.raises(RuntimeError, match="no microbatch yet"):
        stats.consume()


@pytest.mark.parametrize("keep", KEEPS)
def test_statistics_pickle_and_continue_as_if_nothing_had_happened(keep):
    stats = filled(draws(3), keep=keep)
    other = pickle.loads(pickle.dumps(stats))
    for each in (stats, other):
        each.add([torch.ones(3, 2, dtype=F64)])
    for a, b in zip(only(stats)[0].deviations(), only(other)[0].deviations(), strict=True):
        assert torch.equal(a, b)


def test_a_sketch_takes_no_more_memory_for_more_microbatches():
    def stored(m):
        stats = filled(draws(m))
        sums = stats._groups[0].sums[0]
        return sum(t.numel() for t in (*sums.mean, *sums.direction))

    assert stored(2) == stored(50) == 2 * (3 * 2 + 3 * 3 + 2 * 2)


# -- ranks ----------------------------------------------------------------------------------------

RANKS = 2


def _rank(rank, place):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=RANKS)
    grads, results = draws(5), {}
    for keep in KEEPS:
        stats = MatrixStats([torch.zeros(3, 2, dtype=F64), torch.zeros(2, 2)], keep=keep)
        for r, (grad, weight) in enumerate(zip(grads, [*WEIGHTS, 4.0], strict=True)):
            if (r < 3) == (rank == 0):  # the second tensor is seen by rank 1 only
                stats.add([grad, torch.eye(2) if rank else None], weight)
        stats.all_reduce()
        with pytest.raises(RuntimeError, match="speak for all ranks"):
            stats.add([None, None])
        first, second = stats.consume()
        results[keep] = (first[0].signs, first[0].left_mean, first[0].deviations(),
                         second[0].left_mean)  # fmt: skip
    torch.save(results, f"{place}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="no gloo")
def test_ranks_together_are_one_process_with_signs_of_their_own(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=RANKS)
    per_rank = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    _, means, deviations = truth(draws(5), [*WEIGHTS, 4.0])
    for keep in KEEPS:
        assert per_rank[0][keep][0] == per_rank[1][keep][0]
        for results in per_rank:
            signs, left, got, second = results[keep]
            close(left, means[1])
            close(second.double(), torch.eye(2, dtype=F64) * 6 / 17, rtol=1e-6, atol=1e-6)
            epsilon = torch.tensor(signs, dtype=F64)
            for a, b in zip(got, deviations, strict=True):
                close(a, b if keep == "gradients" else torch.einsum("r,rij->ij", epsilon, b)[None])


def test_reducing_without_ranks_is_refused():
    with pytest.raises(RuntimeError, match="init_process_group"):
        filled(draws(2)).all_reduce()
