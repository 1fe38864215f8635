"""Matrix statistics: the sketch against exact enumeration, streams against lists, blocks."""

import copy
import io
import itertools
import math

import pytest
import torch
from tests.microbatch.matrix_cases import (
    F64,
    KEEPS,
    WEIGHTS,
    close,
    draws,
    filled,
    only,
    outer,
    truth,
)  # fmt: skip
from torch import nn

from deltabias.microbatch import MatrixStats, blocks, matrix_shape

# -- the sketch -----------------------------------------------------------------------------------


class Fixed:
    """In the place of the random signs: a given pattern."""

    def __init__(self, pattern):
        self._pattern, self.source = iter(pattern), ()

    def start(self, seed, source):
        pass

    def draw(self):
        return next(self._pattern)


def sketch_with(pattern, grads, weights, groups=1):
    stats = MatrixStats([nn.Parameter(torch.zeros_like(grads[0]))], groups=groups)
    fixed = Fixed(pattern)
    stats._signs = fixed
    stats.reset()
    for grad, weight in zip(grads, weights, strict=True):
        stats.add([grad], weight)
    return only(stats)[0]


@pytest.mark.parametrize("weights", [[1.0] * 4, WEIGHTS], ids=["equal", "tokens"])
def test_over_all_sign_patterns_the_sketch_has_exactly_the_covariance_of_the_deviations(weights):
    grads = draws(4)
    _, _, deviations = truth(grads, weights)
    patterns = list(itertools.product([1.0, -1.0], repeat=4))
    mean = sum(outer(sketch_with(p, grads, weights).deviations()) for p in patterns) / 2**4
    close(mean, outer(deviations))
    # negative controls: fewer patterns, and independent signs for L and M, do not give it
    some = sum(outer(sketch_with(p, grads, weights).deviations()) for p in patterns[:4]) / 4
    assert (some - outer(deviations)).abs().max() > 0.1
    first, second = (sketch_with(p, grads, weights).deviations() for p in patterns[1:3])
    mixed = outer([first[0], second[1], second[2]])
    assert (mixed - outer(second)).abs().max() > 0.1


def test_a_sketch_is_the_signed_sum_of_the_deviations():
    grads = draws(6, shape=(2, 5))
    weights = [*WEIGHTS, 5.0, 0.5]
    record = only(filled(grads, weights, seed=3))[0]
    _, means, deviations = truth(grads, weights)
    assert set(record.signs) == {1.0, -1.0}
    signs = torch.tensor(record.signs, dtype=F64)
    for got, expected in zip(record.sketch, deviations, strict=True):
        close(got, torch.einsum("r,rij->ij", signs, expected))
    for got, expected in zip((record.mean, record.left_mean, record.right_mean), means,
                             strict=True):  # fmt: skip
        close(got, expected)


def test_signs_repeat_with_the_seed_and_differ_between_steps_and_seeds():
    def run(seed, steps=3):
        stats = MatrixStats([nn.Parameter(torch.zeros(2, 2))], seed=seed)
        signs = []
        for _ in range(steps):
            for _ in range(32):
                stats.add([torch.ones(2, 2)])
            (record,) = stats.consume()
            signs.append(record[0].signs)
        return signs

    first = run(0)
    assert first == run(0)
    assert len({*first, *run(1)}) == 6
    # 192 fair signs: |sum| > 6 √192 has probability 2e-9
    assert abs(sum(map(sum, first + run(1)))) < 6 * math.sqrt(192)


def test_a_resumed_run_draws_the_signs_of_the_one_that_was_not_interrupted():
    grads = draws(8)
    whole, param = MatrixStats([nn.Parameter(torch.zeros(3, 2))]), nn.Parameter(torch.zeros(3, 2))
    state = None
    for _ in range(3):
        for grad in grads:
            whole.add([grad])
        record = whole.consume().blocks[0][0]
        previous, state = state, whole.state_dict()
    buffer = io.BytesIO()
    torch.save(previous, buffer)
    buffer.seek(0)
    resumed = MatrixStats([param], seed=99)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    for grad in grads:
        resumed.add([grad])
    assert only(resumed)[0].signs == record.signs


# -- streaming, lists, merging --------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1.0] * 4, WEIGHTS], ids=["equal", "tokens"])
def test_kept_gradients_give_the_deviations_of_the_definition(weights):
    grads = draws(4)
    record = only(filled(grads, weights, keep="gradients"))[0]
    w, means, deviations = truth(grads, weights)
    close(record.weights, torch.tensor(w, dtype=F64))
    close(record.root_weights.square().sum() * 3, torch.tensor(1.0, dtype=F64))
    close(record.gradients, torch.stack(grads))
    for got, expected in zip(record.deviations(), deviations, strict=True):
        close(got, expected)
    for got, expected in zip((record.mean, record.left_mean, record.right_mean), means,
                             strict=True):  # fmt: skip
        close(got, expected)


@pytest.mark.parametrize("size", [1, 3, 4, 99])
def test_chunks_of_deviations_are_the_whole_cut_up(size):
    record = only(filled(draws(4), WEIGHTS, keep="gradients"))[0]
    chunks = list(record.deviation_chunks(size))
    assert max(len(chunk[0]) for chunk in chunks) == min(size, 4)
    for parts, whole in zip(zip(*chunks, strict=True), record.deviations(), strict=True):
        assert torch.equal(torch.cat(parts), whole)


def test_streaming_agrees_with_the_list():
    grads, weights = draws(5), [*WEIGHTS, 4.0]
    streamed = only(filled(grads, weights))[0]
    listed = only(filled(grads, weights, keep="gradients"))[0]
    for name in ("mean", "left_mean", "right_mean", "root_weights"):
        close(getattr(streamed, name), getattr(listed, name))
    signs = torch.tensor(streamed.signs, dtype=F64)
    for sketch, deviations in zip(streamed.sketch, listed.deviations(), strict=True):
        close(sketch, torch.einsum("r,rij->ij", signs, deviations))
    assert streamed.gradients is None
    assert listed.sketch is None


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("split", [0, 1, 2, 4])
def test_merging_is_adding_everything_in_one_place(keep, split):
    grads = draws(4)
    grads[1], grads[3] = grads[1] * 1e4, grads[3] * 1e-3  # other units on either side
    first = filled(grads[:split] or [torch.zeros(3, 2, dtype=F64)],
                   WEIGHTS[:split] or [1.0], keep=keep)  # fmt: skip
    if not split:
        first.reset()
    second = MatrixStats([nn.Parameter(torch.zeros(3, 2, dtype=F64))], keep=keep, seed=1)
    for grad, weight in zip(grads[split:], WEIGHTS[split:], strict=True):
        second.add([grad], weight)
    before = None if split == 4 else only(second)[0].left_mean.clone()
    first.merge(second)
    record = only(first)[0]
    _, means, deviations = truth(grads, WEIGHTS)
    scale = means[1].abs().max()
    close(record.left_mean / scale, means[1] / scale)
    close(record.right_mean / scale, means[2] / scale)
    if keep == "sketch":
        signs = torch.tensor(record.signs, dtype=F64)
        deviations = [torch.einsum("r,rij->ij", signs, d)[None] for d in deviations]
    for got, expected in zip(record.deviations(), deviations, strict=True):
        close(got / scale, expected / scale)
    if before is not None:
        assert torch.equal(only(second)[0].left_mean, before)


def test_merging_sketches_with_the_same_signs_is_refused_because_it_would_be_biased():
    first, second = filled(draws(2), seed=4), filled(draws(2, seed=1), seed=4)
    with pytest.raises(ValueError, match=r"signs from seed=4.*pass another seed"):
        first.merge(second)
    with pytest.raises(ValueError, match="biased"):  # also where the equal signs are still to come
        MatrixStats([nn.Parameter(torch.zeros(3, 2, dtype=F64))], seed=4).merge(second)
    with pytest.raises(ValueError, match="biased"):
        first.merge(copy.deepcopy(first))
    assert first.count == 2
    lists = [filled(draws(2), keep="gradients") for _ in range(2)]
    lists[0].merge(lists[1])  # no signs, no harm
    assert lists[0].count == 4


@pytest.mark.parametrize("keep", KEEPS)
def test_a_large_common_mean_does_not_cancel_the_spread(keep):
    grads = [1e5 + g for g in draws(8)]
    _, _, expected = truth(grads, [1.0] * 8)
    record = only(filled(grads, keep=keep))[0]
    deviations = record.deviations()
    if keep == "sketch":
        signs = torch.tensor(record.signs, dtype=F64)
        expected = [torch.einsum("r,rij->ij", signs, d)[None] for d in expected]
    close(deviations[0], expected[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e18])
def test_squares_of_tiny_and_huge_gradients_stay_in_the_range_of_fp32(keep, size):
    base = draws(4, dtype=torch.float32)
    grads = [torch.zeros_like(base[0]), *(g * size for g in base)]
    record = only(filled(grads, keep=keep))[0].relative_to(size)
    _, means, _ = truth([torch.zeros_like(base[0]), *base], [1.0] * 5)
    close(record.left_mean.double(), means[1], rtol=1e-5, atol=1e-6)
    assert all(torch.isfinite(d).all() for d in record.deviations())
    assert record.deviations()[1].abs().max() > 0.1


@pytest.mark.parametrize("keep", KEEPS)
def test_records_do_not_change_when_more_is_added(keep):
    stats = filled(draws(3), keep=keep)
    record = only(stats)[0]
    before = [t.clone() for t in (record.mean, record.left_mean, *record.deviations())]
    stats.add([1e6 * torch.ones(3, 2, dtype=F64)])
    after = (record.mean, record.left_mean, *record.deviations())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (record.count, only(stats)[0].count) == (3, 4)


@pytest.mark.parametrize("keep", KEEPS)
def test_a_microbatch_without_a_gradient_counts_as_zero(keep):
    grads = draws(4)
    zero = torch.zeros(3, 2, dtype=F64)
    for missing in (0, 2, 3):
        given = [None if r == missing else g for r, g in enumerate(grads)]
        explicit = [zero if g is None else g for g in given]
        a, b = only(filled(given, WEIGHTS, keep=keep)), only(filled(explicit, WEIGHTS, keep=keep))
        for got, expected in zip(a[0].deviations(), b[0].deviations(), strict=True):
            close(got, expected)
    stats = MatrixStats([nn.Parameter(torch.zeros(2, 2))], keep=keep)
    stats.add([None])
    assert only(stats) is None


@pytest.mark.parametrize("keep", KEEPS)
def test_groups_share_the_microbatches_in_turn_and_the_whole_is_their_merge(keep):
    grads = draws(6)
    weights = [*WEIGHTS, 4.0, 6.0]
    whole = only(filled(grads, weights, keep=keep, groups=2))
    for g, group in enumerate(whole.groups):
        _, means, deviations = truth(grads[g::2], weights[g::2])
        close(group[0].left_mean, means[1])
        close(whole[0].groups[g].mean, means[0])
        if keep == "gradients":
            close(group[0].deviations()[1], deviations[1])
    _, means, deviations = truth(grads[::2] + grads[1::2], weights[::2] + weights[1::2])
    close(whole[0].right_mean, means[2])
    expected = outer(deviations)
    if keep == "gradients":
        close(outer(whole[0].deviations()), expected)


def test_a_group_without_microbatches_has_no_mean():
    whole = only(filled(draws(1), groups=2))
    with pytest.raises(ValueError, match="a group has no microbatch"):
        _ = whole.groups[1][0].left_mean
    with pytest.raises(ValueError, match="a group has no microbatch"):
        _ = whole.groups[1][0].mean


# -- blocks and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (1025, 4), (5, 0), (4096, 1), (10, 10)])
@pytest.mark.parametrize("size", [1, 3, 1024])
def test_blocks_cover_every_entry_once(shape, size):
    if shape[0] * shape[1] // size**2 > 5000:
        return
    hits = torch.zeros(shape)
    for rows, columns in blocks(shape, size):
        block = hits[rows, columns]
        assert 1 <= block.shape[0] <= size
        assert 1 <= block.shape[1] <= size
        block += 1
    assert (hits == 1).all()


def test_a_dimension_just_over_the_limit_is_halved_and_not_left_with_a_crumb():
    assert [r.stop - r.start for r, _ in blocks((1025, 1), 1024)] == [513, 512]


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, None])
def test_a_block_size_that_is_no_size_is_refused(bad):
    with pytest.raises(ValueError, match=r"block_size=.*integer >= 1"):
        blocks((2, 2), bad)
    with pytest.raises(ValueError, match="block_size="):
        MatrixStats([torch.zeros(2, 2)], block_size=bad)


@pytest.mark.parametrize("keep", KEEPS)
def test_blocks_of_a_convolution_are_blocks_of_its_flattened_weight(keep):
    grads = draws(4, shape=(5, 2, 3, 1))
    record = only(filled(grads, WEIGHTS, keep=keep, block_size=4))
    flat = [g.reshape(5, 6) for g in grads]
    assert matrix_shape((5, 2, 3, 1)) == (5, 6)
    assert [(r.rows, r.columns) for r in record] == blocks((5, 6), 4)
    for block in record:
        _, means, deviations = truth([g[block.rows, block.columns] for g in flat], WEIGHTS)
        close(block.left_mean, means[1])
        close(block.right_mean, means[2])
        if keep == "gradients":
            close(block.deviations()[2], deviations[2])


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("factors", ["left", "right"])
def test_a_factor_that_is_not_wanted_is_not_computed(keep, factors):
    record = only(filled(draws(3), keep=keep, factors=factors))[0]
    both = only(filled(draws(3), keep=keep))[0]
    left, right = record.left_mean, record.right_mean
    assert (left is None, right is None) == (factors == "right", factors == "left")
    for got, expected in zip(record.deviations(), both.deviations(), strict=True):
        assert got is None or torch.equal(got, expected)
    assert sum(d is None for d in record.deviations()) == 1


def test_vectors_scalars_and_empty_tensors_are_known_and_have_no_factors():
    params = [torch.zeros(4), torch.zeros(()), torch.zeros(0, 3), torch.zeros(1, 1),
              torch.zeros(3, 1, 1)]  # fmt: skip
    stats = MatrixStats(params)
    for k in (1.0, 2.0):
        stats.add([torch.full_like(p, k) for p in params])
    step = stats.consume()
    assert [step[p] is None for p in params] == [True, True, True, False, False]
    assert step[params[4]][0].left_mean.shape == (3, 3)
    assert step[params[4]][0].right_mean.shape == (1, 1)
    with pytest.raises(KeyError, match="not one of the 5 parameters"):
        step[torch.zeros(3)]
