"""Shampoo with bad input: named errors, nothing poisoned, nothing silent."""

from fractions import Fraction

import pytest
import torch
from tests.optim.cases import draw, generator, parameter, quietly, same_bits, snapshot

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Shampoo
from deltabias.optim.eigen import EigensolverFailed, MatrixError, SingularPreconditioner
from deltabias.optim.kronecker import Side
from deltabias.optim.tracked_spread import bounded

MODES = ["plug_in", "full", "diagonal", "eigenvalue_only"]


def steps(optimizer, count, gen=None, scale=1.0):
    gen = gen or generator()
    for _ in range(count):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = (scale * draw(p.shape, gen)).to(p.dtype)
        optimizer.step()


def finite(optimizer) -> bool:
    return all(torch.isfinite(t).all() for t in snapshot(optimizer))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr=-1.0 is outside"),
        ({"damping": -1e-3}, "damping=-0.001 is outside"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]=1.0 is outside"),
        ({"correction": "none"}, "correction='none' is not known; use one of 'full'"),
        ({"second_moment": "squares"}, "second_moment='squares' is not known"),
        ({"spread": "none"}, "spread='none' is not known"),
        ({"memory": "mean"}, "memory='mean' is not known"),
        ({"root": 5}, "root='5' is not generated; use one of 1, 4/3, 2"),
        ({"root": "x"}, "root='x' is not generated"),
        ({"root": -4}, "root='-4' is not generated"),
        ({"sides": "top"}, "sides='top' is not known"),
        ({"grafting": "adagrad"}, "grafting='adagrad' is not known"),
        ({"refresh": 0}, "refresh=0 must be an integer >= 1"),
        ({"refresh": True}, "refresh=True must be an integer >= 1"),
        ({"block_size": 2.5}, "block_size=2.5 must be an integer >= 1"),
        ({"nonfinite": "warn"}, "nonfinite='warn' is not known"),
        ({"correction": "sketch"}, "correction='sketch' with spread='history'"),
        ({"spread": "microbatches"}, "needs second_moment='mean_of_squares'"),
    ],
)
def test_a_bad_option_is_refused_with_what_is_allowed(options, text):
    with pytest.raises(ValueError, match=text):
        Shampoo([parameter(2, 2)], **options)
    optimizer = Shampoo([parameter(2, 2)])
    with pytest.raises(ValueError, match=text):
        optimizer.add_param_group({"params": [parameter(3, 3)], **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("flag", ["capturable", "differentiable", "fused"])
def test_flags_of_torch_that_are_not_supported_are_refused(flag):
    with pytest.raises(NotImplementedError, match=flag):
        Shampoo([{"params": [parameter(2, 2)], flag: True}])


def test_complex_and_sparse_are_refused_by_name_before_any_state_is_touched():
    with pytest.raises(RuntimeError, match="complex"):
        Shampoo([torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))])
    param = parameter(3, 2)
    optimizer = Shampoo([param])
    before = snapshot(optimizer)
    param.grad = torch.ones(3, 2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))


@pytest.mark.parametrize(
    ("options", "statistics", "text"),
    [
        ({}, {"block_size": 8}, "needs block_size=1024, the statistics have block_size=8"),
        ({"correction": "cross_fit"}, {}, "needs groups=2, the statistics have groups=1"),
        ({"sides": "left"}, {"factors": "right"}, "needs factors='left'"),
        ({"second_moment": "mean_of_squares", "spread": "microbatches"}, {}, "keep='gradients'"),
    ],
)
def test_statistics_that_lack_what_is_needed_are_refused(options, statistics, text):
    param = parameter(2, 3)
    with pytest.raises(ValueError, match=text):
        Shampoo([param], **options).attach(MatrixStats([param], **statistics))


def test_elementwise_statistics_are_refused():
    param = parameter(2, 3)
    with pytest.raises(TypeError, match="takes a MatrixStats, got MicrobatchStats"):
        Shampoo([param]).attach(MicrobatchStats([param]))


def test_means_of_squares_without_statistics_are_an_error_that_changes_nothing():
    param = parameter(2, 3)
    optimizer = Shampoo([param], second_moment="mean_of_squares")
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match="no MatrixStats to take them from; nothing was changed"):
        steps(optimizer, 1)
    assert same_bits(before, snapshot(optimizer))


def test_statistics_of_another_gradient_are_counted_and_not_used():
    params = [parameter(2, 3), parameter(2, 3)]
    options = {"second_moment": "mean_of_squares", "spread": "microbatches"}
    fed, alone = Shampoo(params[:1], **options), Shampoo(params[1:], correction="plug_in")
    stats = MatrixStats(params[:1], keep="gradients")
    fed.attach(stats)
    for seed in range(2):
        stats.add([draw((2, 3), generator(seed), torch.float32)])
    for optimizer in (fed, alone):
        steps(optimizer, 1, generator(9))
    assert fed.validity().misaligned == 1
    torch.testing.assert_close(params[0], params[1])


def test_one_layer_without_statistics_is_not_corrected_and_its_equal_is():
    # both share a launch; the second has a gradient that no microbatch had
    params = [parameter(2, 3, dtype=torch.float64), parameter(2, 3, dtype=torch.float64)]
    optimizer = Shampoo(params, second_moment="mean_of_squares", spread="microbatches")
    stats, gen = MatrixStats(params, keep="gradients"), generator()
    optimizer.attach(stats)
    for _ in range(3):
        batch = [draw((2, 3), gen) for _ in range(3)]
        for gradient in batch:
            stats.add([gradient, None])
        params[0].grad, params[1].grad = sum(batch) / 3, draw((2, 3), gen)
        optimizer.step()
    first, second = (optimizer.state[p] for p in params)
    assert optimizer.validity().misaligned == 3
    assert first["left_inversion.0"].any()
    assert not second["left_inversion.0"].any()
    assert not second["spread_seen.0"].any()


def test_steps_without_an_estimate_do_not_dilute_the_spread():
    # every step alike, two of them with a single microbatch: K over what was seen stays the same
    tracked = []
    for alone in (set(), {1, 3}):
        param = parameter(2, 3, dtype=torch.float64)
        optimizer = Shampoo([param], second_moment="mean_of_squares", spread="microbatches")
        stats = MatrixStats([param], keep="gradients")
        optimizer.attach(stats)
        square = torch.eye(2, 3, dtype=torch.float64)
        for step in range(5):
            # G and -G' with one square each: S is the same in every step
            for sign in (1.0,) if step in alone else (2.0**0.5, 0.0):
                stats.add([sign * square])
            param.grad = square if step in alone else square / 2**0.5
            with quietly():
                optimizer.step()
        state = optimizer.state[param]
        tracked.append(state["left_inversion.0"] / state["spread_seen.0"][:, :1, None])
    assert tracked[0].any()
    torch.testing.assert_close(*tracked, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("correction", ["full", "cross_fit"])
def test_a_single_microbatch_is_an_uncorrected_step_with_one_warning(correction):
    params = [parameter(2, 3), parameter(2, 3)]
    groups, moment = (2, "square_of_mean") if correction == "cross_fit" else (1, "mean_of_squares")
    optimizer = Shampoo(params[:1], correction=correction, second_moment=moment)
    plain = Shampoo(params[1:], correction="plug_in")
    stats = MatrixStats(params[:1], groups=groups)
    optimizer.attach(stats)
    gradient = draw((2, 3), generator(4), torch.float32)
    stats.add([gradient])
    params[0].grad, params[1].grad = gradient.clone(), gradient.clone()
    with pytest.warns(RuntimeWarning, match="microbatches=1 .* pass correction='plug_in'"):
        optimizer.step()
    plain.step()
    torch.testing.assert_close(params[0], params[1])


@pytest.mark.parametrize("refresh", [1, 3])
@pytest.mark.parametrize("correction", MODES)
def test_zero_gradients_move_nothing_and_leave_no_nan_behind(correction, refresh):
    param = parameter(3, 4)
    start = param.detach().clone()
    optimizer = Shampoo([param], correction=correction, refresh=refresh, grafting="adam")
    steps(optimizer, 4, scale=0.0)
    assert torch.equal(param, start)
    steps(optimizer, 6)
    assert finite(optimizer)
    assert not torch.equal(param, start)
    steps(optimizer, 4, scale=0.0)
    assert finite(optimizer)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (0, 3), (3, 0), (4,), (), (2, 1, 1, 3)])
@pytest.mark.parametrize("correction", MODES)
def test_every_shape_steps_and_stays_finite(shape, correction):
    optimizer = Shampoo([parameter(*shape)], correction=correction, refresh=2)
    steps(optimizer, 5)
    assert finite(optimizer)
    optimizer.validity()


def test_vectors_take_the_steps_of_adamw():
    ours, theirs = parameter(5), parameter(5)
    options = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
    optimizers = [Shampoo([ours], **options), torch.optim.AdamW([theirs], **options)]
    for optimizer in optimizers:
        steps(optimizer, 5)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_the_units_of_the_gradient_do_not_matter(scale):
    # p = 4 on both sides: the update has no unit, so neither has anything that is tracked
    params = [parameter(3, 4), parameter(3, 4)]
    for param, size in zip(params, (1.0, scale), strict=True):
        optimizer = Shampoo([param], lr=0.1, damping=1e-6 * size * size, betas=(0.9, 0.95))
        steps(optimizer, 20, scale=size)
    torch.testing.assert_close(params[0], params[1], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("refresh", [1, 3])
@pytest.mark.parametrize("correction", MODES)
def test_deficient_factors_with_damping_stay_finite(correction, refresh):
    # rank-one gradients in ever new directions: at a stale basis their spread is out of scale
    param = parameter(8, 6)
    optimizer = Shampoo([param], lr=1e-3, correction=correction, refresh=refresh)
    gen = generator()
    for _ in range(9):
        param.grad = draw((8, 1), gen, torch.float32) @ draw((1, 6), gen, torch.float32)
        optimizer.step()
        assert finite(optimizer)


def test_deficient_factors_without_damping_say_so_and_change_nothing():
    param = parameter(4, 2)
    optimizer = Shampoo([param], damping=0.0)
    before = snapshot(optimizer)
    with pytest.raises(SingularPreconditioner, match=r"the left factor.*is singular"):
        steps(optimizer, 1)
    assert same_bits(before, snapshot(optimizer))


@pytest.mark.parametrize("refresh", [1, 3])
def test_an_eigensolver_that_fails_changes_nothing_in_any_group(monkeypatch, refresh):
    first, vector, last = parameter(3, 4), parameter(3), parameter(5, 2)
    optimizer = Shampoo([{"params": [first, vector]}, {"params": [last]}], refresh=refresh)
    steps(optimizer, 3)
    before, gen = snapshot(optimizer), generator(8)
    solve = torch.linalg.eigh

    def failing(matrix):
        if matrix.shape[-1] in (5, 2):  # the last group only
            raise torch.linalg.LinAlgError("forced")
        return solve(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    with pytest.raises(EigensolverFailed, match="left factor"):
        steps(optimizer, 1, gen)
    assert same_bits(before, snapshot(optimizer))
    assert optimizer.validity().steps == 3
    monkeypatch.undo()
    steps(optimizer, 3, gen)
    assert finite(optimizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
    for policy, raised in (("raise", FloatingPointError), ("skip", None), ("ignore", MatrixError)):
        param = parameter(3, 2)
        optimizer = Shampoo([param], nonfinite=policy)
        steps(optimizer, 2)
        before = snapshot(optimizer)
        param.grad = torch.full((3, 2), value)
        if raised is None:
            with quietly():
                optimizer.step()
            assert optimizer.validity().skipped == 1
        else:
            with pytest.raises(raised):
                optimizer.step()
        assert same_bits(before, snapshot(optimizer))


def test_parameters_without_a_gradient_are_left_alone():
    params = [parameter(2, 3), parameter(2, 3)]
    optimizer = Shampoo(params, weight_decay=0.1)
    start = params[1].detach().clone()
    params[0].grad = torch.ones(2, 3)
    optimizer.step()
    assert torch.equal(params[1], start)
    assert optimizer.state[params[1]]["step"] == 0


def test_memory_layout_does_not_matter():
    results = []
    for strided in (False, True):
        values = draw((4, 3), generator(1), torch.float32)
        param = torch.nn.Parameter(values.t().contiguous().t() if strided else values)
        assert param.is_contiguous() != strided
        steps(Shampoo([param], lr=0.1), 4)
        results.append(param.detach().contiguous())
    torch.testing.assert_close(*results)
    images = torch.nn.Parameter(torch.ones(2, 3, 2, 2).to(memory_format=torch.channels_last))
    steps(Shampoo([images], lr=0.1), 3)
    assert torch.isfinite(images).all()
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_bf16_parameters_follow_fp32_ones_to_their_rounding():
    low, high = parameter(3, 4, dtype=torch.bfloat16), parameter(3, 4, dtype=torch.bfloat16)
    high = torch.nn.Parameter(high.detach().float())
    for param in (low, high):
        optimizer, gen = Shampoo([param], lr=0.1), generator()
        for _ in range(5):
            param.grad = draw((3, 4), gen, torch.bfloat16).to(param.dtype)
            optimizer.step()
    torch.testing.assert_close(low.float(), high, rtol=0.02, atol=0.02)


def test_maximize_is_minimizing_the_negative():
    params = [parameter(2, 3), parameter(2, 3)]
    for param, maximize in zip(params, (True, False), strict=True):
        optimizer = Shampoo([param], maximize=maximize)
        steps(optimizer, 4, scale=-1.0 if maximize else 1.0)
    assert torch.equal(*params)


def test_maximize_turns_the_microbatches_too():
    params = [parameter(2, 3), parameter(2, 3)]
    for param, sign in zip(params, (-1.0, 1.0), strict=True):
        optimizer = Shampoo([param], maximize=sign < 0, betas=(0.9, 0.95),
                            second_moment="mean_of_squares", spread="microbatches")  # fmt: skip
        stats, gen = MatrixStats([param], keep="gradients"), generator()
        optimizer.attach(stats)
        for _ in range(4):
            batch = [sign * draw((2, 3), gen, torch.float32) for _ in range(3)]
            for gradient in batch:
                stats.add([gradient])
            param.grad = sum(batch) / 3
            optimizer.step()
    torch.testing.assert_close(*params)


def test_a_closure_and_a_scheduler_work_as_with_torch():
    param = parameter(3, 3)
    optimizer = Shampoo([param], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def closure():
        optimizer.zero_grad()
        loss = (param - torch.eye(3)).square().sum()
        loss.backward()
        return loss

    losses = []
    for _ in range(60):
        losses.append(optimizer.step(closure).item())
        scheduler.step()
    assert losses[-1] < 1e-2 * losses[0]


def test_corrected_preconditioners_are_positive_definite_whatever_the_spread():
    gen = generator()
    factor = draw((6, 5, 5), gen)
    side = Side.decompose(factor @ factor.mT, 1e-6, Fraction(4), "the left factor")
    for size in (1e-3, 1.0, 1e3):
        deviations = size * draw((6, 3, 5, 5), gen)
        _, inversion = side.orders(side.rotate(deviations + deviations.mT))
        eigenvalues = torch.linalg.eigvalsh(side.corrected(inversion).inverse_root)
        assert (eigenvalues > 0).all()
        assert (eigenvalues <= torch.linalg.eigvalsh(side.plug_in()) * (1 + 1e-9)).all()


def test_terms_are_cut_to_size_per_block_and_counted():
    inf = float("inf")
    term = torch.tensor([[3.0, 4.0], [0.3, 0.4], [inf, 1.0], [0.0, 0.0]])
    cut, count = bounded(term, torch.ones(4))
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(cut, expected)
    assert int(count) == 2


def test_the_meter_shows_a_spread_where_there_is_one():
    param = parameter(3, 4, dtype=torch.float64)
    optimizer = Shampoo([param], betas=(0.9, 0.95))
    steps(optimizer, 30)
    noisy = optimizer.validity()
    assert 0 < noisy.inversion <= noisy.worst_inversion < 0.3
    assert noisy.coupling > 0
    assert noisy.steps == noisy.corrected == 30
    assert 25 < noisy.effective_steps < 39
