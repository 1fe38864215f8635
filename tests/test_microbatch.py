"""The streamed statistics: against the twin, at the edges of the floating-point range, merged."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import microbatch_statistics as twin

from deltabias.microbatch import MicrobatchStats, Moments

# name -> power of the gradient it is measured in
STATISTICS = {
    "var_of_mean": 2,
    "mean_of_squares": 2,
    "third_cumulant_of_mean": 3,
    "cov_of_mean_and_mean_of_squares": 3,
    "var_of_mean_of_squares": 4,
}
SHAPES = [(), (0,), (5,), (3, 4), (2, 0, 3)]


def gradients(shapes, m, dtype, seed=0, scale=1.0):
    """m lists of gradients around 0.5, skewed, the last one of each list not contiguous."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (scale * (0.5 + noise + 0.3 * noise**2)).to(dtype)

    def draw_strided():
        return draw((7, 6)).t()[::2]

    return [[draw(shape) for shape in shapes] + [draw_strided()] for _ in range(m)]


def collected(batches, weights=None, **options) -> MicrobatchStats:
    stats = MicrobatchStats([torch.zeros_like(g) for g in batches[0]], **options)
    for r, grads in enumerate(batches):
        stats.add(grads, 1.0 if weights is None else weights[r])
    return stats


def assert_like_twin(moments: Moments, g, w, ulps: float = 64.0) -> None:
    """Every statistic within `ulps` roundings of the largest |g_r|^k, element by element."""
    peak = torch.stack([x.abs() for x in g]).amax(0)
    eps = torch.finfo(moments.mean.dtype).eps
    expected = {"mean": (moments.mean, twin.mean(g, w), 1)}
    for k in moments.scaled_central:
        expected[f"central {k}"] = (moments.central[k], twin.central(g, w, k), k)
    for name, power in STATISTICS.items():
        expected[name] = (getattr(moments, name)(), getattr(twin, name)(g, w), power)
    for name, (got, want, power) in expected.items():
        assert got.shape == want.shape, name
        excess = (got.double() - want).abs() - ulps * eps * peak**power
        assert (excess <= 0).all(), (name, excess.max())


@pytest.mark.parametrize("weighted", [False, True], ids=["equal_weights", "token_weights"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("m", [2, 3, 5, 16])
def test_every_statistic_agrees_with_the_float64_twin(m, dtype, weighted):
    batches = gradients(SHAPES, m, dtype, seed=m)
    weights = [float(1 + 37 * r % 11) for r in range(m)] if weighted else [1.0] * m
    stats = collected(batches, weights)
    step = stats.result()
    for i, param in enumerate(stats.params):
        assert step[param].mean.dtype == (dtype if dtype == torch.float64 else torch.float32)
        assert_like_twin(step[param], [grads[i].double() for grads in batches], weights)
    assert (step.count, step.weight) == (m, sum(weights))


def test_the_comparison_with_the_twin_rejects_the_divisor_m():
    batches = gradients([(5,)], 16, torch.float32)
    moments = collected(batches).result().moments[0]
    wrong = copy.copy(moments)
    object.__setattr__(wrong, "count", 17)  # divides by m instead of m − 1
    with pytest.raises(AssertionError, match="var_of_mean"):
        assert_like_twin(wrong, [grads[0].double() for grads in batches], [1.0] * 16)


# fp32 spaces numbers around 1e6 by 0.06: noise of 1e-2 needs a mean of 1e3 there.
@pytest.mark.parametrize(
    ("dtype", "mean"), [(torch.float64, 1e6), (torch.float32, 1e3)], ids=["fp64", "fp32"]
)
def test_a_mean_a_million_times_the_noise_leaves_the_variance_where_raw_sums_lose_it(dtype, mean):
    noise = torch.randn(16, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    g = [(mean + 1e-2 * x).to(dtype) for x in noise]
    stats = MicrobatchStats([torch.zeros(50, dtype=dtype)])
    for x in g:
        stats.add([x])
    want = twin.var_of_mean([x.double() - mean for x in g], [1.0] * 16)
    got = stats.result().moments[0].var_of_mean().double()
    # the running mean is rounded to `spacing`, which is this part of the noise
    spacing = torch.finfo(dtype).eps * mean / 1e-2
    assert ((got - want) / want).abs().max() < 4 * spacing
    raw = torch.stack(g).square().mean(0) - torch.stack(g).mean(0).square()
    assert ((raw.double() / 15 - want) / want).abs().median() > 0.5


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e10, 1e30])
def test_statistics_relative_to_a_unit_do_not_know_the_scale_of_the_gradient(scale):
    batches = gradients([(40,)], 5, torch.float32, scale=scale)
    moments = collected(batches).result().moments[0]
    g = [grads[0].double() / scale for grads in batches]
    assert_like_twin(moments.relative_to(scale), g, [1.0] * 5, ulps=128)
    assert_like_twin(moments.relative_to(torch.full((40,), scale)), g, [1.0] * 5, ulps=128)


def test_fourth_powers_of_gradients_of_1e_13_would_vanish_without_the_scale():
    batches = gradients([(40,)], 5, torch.float32, scale=1e-13)
    moments = collected(batches).result().moments[0]
    assert (torch.stack([grads[0] for grads in batches]) ** 4 == 0).all()
    assert (moments.var_of_mean_of_squares() == 0).all()  # in gradient units it has to
    assert (moments.relative_to(1e-13).var_of_mean_of_squares() > 0).all()


def test_subnormal_gradients_are_measured_in_the_smallest_normal_unit():
    unit = 2.0**-149  # the smallest number of fp32
    g = [torch.tensor([x * unit, -x * unit]) for x in (1.0, 3.0, 5.0)]
    moments = collected([[x] for x in g]).result().moments[0]
    assert_like_twin(moments.relative_to(unit), [x.double() / unit for x in g], [1.0] * 3)


def test_squares_that_do_not_vary_have_no_negative_variance():
    generator = torch.Generator().manual_seed(1)
    size = torch.rand(1000, generator=generator)
    batches = [
        [size * (2 * torch.randint(0, 2, (1000,), generator=generator) - 1)] for _ in range(5)
    ]
    moments = collected(batches).result().moments[0]
    var = moments.var_of_mean_of_squares()
    assert (var >= 0).all()
    assert (var <= 8 * torch.finfo(torch.float32).eps * size**4).all()
    c = moments.central
    bracket = c[4] - c[2] ** 2 + 4 * moments.mean * (c[3] + moments.mean * c[2])
    assert (bracket < 0).any(), "rounding alone would go below zero"


@pytest.mark.parametrize("first", [0.0, 1e-30, 1e-12, 1e-3])
def test_a_later_gradient_of_another_size_changes_the_scale_and_not_the_answer(first):
    g = [torch.tensor([x, -2 * x]) for x in (first, 1e4, -3e4, 2e-5)]
    stats = MicrobatchStats([torch.zeros(2)])
    for x in g:
        stats.add([x])
    moments = stats.result().moments[0]
    mantissa, _ = torch.frexp(moments.scale)
    assert mantissa == 0.5, "a power of two"
    assert_like_twin(moments.relative_to(1e4), [x.double() / 1e4 for x in g], [1.0] * 4)


def test_gradients_that_are_zero_throughout_have_zero_statistics():
    moments = collected([[torch.zeros(3)] for _ in range(3)]).result().moments[0]
    for name in STATISTICS:
        assert torch.equal(getattr(moments, name)(), torch.zeros(3))


def test_no_gradient_counts_as_zero_if_another_microbatch_has_one():
    params = [torch.zeros(3), torch.zeros(3), torch.zeros(3)]
    stats = MicrobatchStats(params)
    g = torch.tensor([1.0, -2.0, 3.0])
    stats.add([g, None, None], 2.0)
    stats.add([None, g, None], 1.0)
    stats.add([g, g, None], 3.0)
    step = stats.result()
    zero, g = torch.zeros(3).double(), g.double()
    assert_like_twin(step[params[0]], [g, zero, g], [2.0, 1.0, 3.0])
    assert_like_twin(step[params[1]], [zero, g, g], [2.0, 1.0, 3.0])
    assert step[params[2]] is None


def test_one_microbatch_gives_a_mean_and_no_variance():
    stats = collected([[torch.tensor([2.0])]])
    moments = stats.result().moments[0]
    assert (moments.count, moments.mean.item(), moments.mean_of_squares().item()) == (1, 2.0, 4.0)
    text = r"microbatches=1 gives no variance estimate; need at least 2, or pass correction='none'"
    for name in set(STATISTICS) - {"mean_of_squares"}:
        with pytest.raises(ValueError, match=text):
            getattr(moments, name)()


def test_two_microbatches_answer_zero_for_the_third_cumulant():
    moments = collected([[torch.tensor([1.0])], [torch.tensor([5.0])]], [1.0, 3.0]).result()
    assert moments.moments[0].third_cumulant_of_mean().item() == 0.0


@pytest.mark.parametrize(
    ("kept", "name", "needed"),
    [(2, "third_cumulant_of_mean", 3), (2, "cov_of_mean_and_mean_of_squares", 3),
     (3, "var_of_mean_of_squares", 4)],
)  # fmt: skip
def test_a_moment_that_was_not_kept_is_asked_for(kept, name, needed):
    moments = collected(gradients([(3,)], 3, torch.float32), moments=kept).result().moments[0]
    assert moments.var_of_mean().shape == (3,)
    with pytest.raises(ValueError, match=rf"moments={kept} were kept.*pass moments={needed}"):
        getattr(moments, name)()


def test_fewer_moments_are_the_same_numbers():
    batches = gradients([(5,)], 4, torch.float32)
    full = collected(batches).result().moments[0]
    for kept in (2, 3):
        fewer = collected(batches, moments=kept).result().moments[0]
        for k in range(2, kept + 1):
            assert torch.equal(fewer.central[k], full.central[k])


def test_groups_are_dealt_in_turn_and_their_merge_is_the_whole():
    batches = gradients([(5,)], 7, torch.float32)
    weights = [1.0, 2.0, 5.0, 3.0, 1.0, 4.0, 2.0]
    step = collected(batches, weights, groups=3).result()
    g = [grads[0].double() for grads in batches]
    assert_like_twin(step.moments[0], g, weights)
    for k, group in enumerate(step.moments[0].groups):
        assert_like_twin(group, g[k::3], weights[k::3])
        assert torch.equal(step.group_means[0][k], group.mean)


def test_one_group_is_the_whole_and_an_empty_group_has_no_mean():
    batches = gradients([(5,)], 2, torch.float32)
    moments = collected(batches).result().moments[0]
    assert torch.equal(moments.group_means[0], moments.mean)
    with pytest.raises(ValueError, match=r"microbatches=2 leave one of groups=3 empty"):
        _ = collected(batches, groups=3).result().group_means


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    data=st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.integers(1, 4096)), min_size=2, max_size=12
    ),
    cuts=st.lists(st.integers(0, 12), min_size=2, max_size=2),
    exponents=st.lists(st.integers(-30, 30), min_size=3, max_size=3),
)
def test_merging_in_any_association_is_adding_everything(dtype, data, cuts, exponents):
    param = torch.zeros(1, dtype=dtype)
    first, second = sorted(cuts)
    parts = [data[:first], data[first:second], data[second:]]
    # parts of different sizes, so that merges meet different units
    parts = [[(x * 2.0**e, float(w)) for x, w in p] for p, e in zip(parts, exponents, strict=True)]

    def stats(values):
        out = MicrobatchStats([param])
        for x, w in values:
            out.add([torch.tensor([x], dtype=dtype)], w)
        return out

    left, inner = stats(parts[0]), stats(parts[1])
    left.merge(stats(parts[1]))
    left.merge(stats(parts[2]))
    inner.merge(stats(parts[2]))
    right = stats(parts[0])
    right.merge(inner)
    flat = [*parts[0], *parts[1], *parts[2]]
    g = [torch.tensor([x], dtype=torch.float64) for x, _ in flat]
    largest = max(abs(x) for x, _ in flat) or 1.0
    for merged in (left, right, stats(flat)):
        # in units of the largest, so that the range of fp32 is not what is tested
        moments = merged.result().moments[0].relative_to(largest)
        assert_like_twin(moments, [x / largest for x in g], [w for _, w in flat], ulps=256)


def test_merge_leaves_the_other_as_it_was_and_deals_group_by_group():
    batches = gradients([(5,)], 8, torch.float32)
    mine, other = collected(batches[:4], groups=2), collected(batches[4:], groups=2)
    before = other.result().moments[0]
    mine.merge(other)
    after = other.result().moments[0]
    assert other.is_fresh
    assert torch.equal(before.mean, after.mean)
    g = [grads[0].double() for grads in batches]
    even, odd = mine.result().moments[0].groups
    assert_like_twin(even, g[0::2], [1.0] * 4)
    assert_like_twin(odd, g[1::2], [1.0] * 4)


def test_merge_takes_parameters_that_only_one_side_has_seen():
    params = [torch.zeros(1), torch.zeros(1)]
    mine, other = MicrobatchStats(params), MicrobatchStats(params)
    mine.add([torch.ones(1), None])
    other.add([None, 3 * torch.ones(1)], 2.0)
    mine.merge(other)
    assert [m.mean.item() for m in mine.result()] == pytest.approx([1 / 3, 2.0])


def test_merge_with_nothing_changes_nothing():
    batches = gradients([(5,)], 3, torch.float32)
    mine = collected(batches)
    before = mine.result().moments[0]
    mine.merge(MicrobatchStats(mine.params))
    assert torch.equal(mine.result().moments[0].central[4], before.central[4])
    empty = MicrobatchStats(mine.params)
    empty.merge(mine)
    assert torch.equal(empty.result().moments[0].central[4], before.central[4])


def test_tensors_beyond_one_bucket_are_all_followed(monkeypatch):
    monkeypatch.setattr("deltabias.microbatch.layout._CPU_BUCKET_ELEMENTS", 4)
    batches = gradients([(3,), (3,), (), (9,)], 3, torch.float32)
    batches[0].append(torch.ones(2, dtype=torch.float64))
    for grads in batches[1:]:
        grads.append(torch.zeros(2, dtype=torch.float64))
    stats = collected(batches)
    assert len(stats._layout.buckets) == 5
    for i, moments in enumerate(stats.result()):
        assert_like_twin(moments, [grads[i].double() for grads in batches], [1.0] * 3)


def test_a_large_tensor_is_updated_in_pieces_and_the_same(monkeypatch):
    batches = gradients([(5, 7), (3,)], 5, torch.bfloat16)
    whole = collected(batches).result()
    monkeypatch.setattr("deltabias.microbatch.layout._CPU_BUCKET_ELEMENTS", 4)
    monkeypatch.setattr("deltabias.microbatch.block._CACHE_ELEMENTS", 4)
    for moments, same in zip(collected(batches).result(), whole, strict=True):
        for name in STATISTICS:
            torch.testing.assert_close(getattr(moments, name)(), getattr(same, name)())
