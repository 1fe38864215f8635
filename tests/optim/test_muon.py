"""Muon is torch's where it corrects nothing; what cannot be is refused by name."""

import copy

import pytest
import torch
from tests.optim.cases import draw, generator, parameter, quietly, same_bits, snapshot
from tests.optim.muon_cases import MODES, SHAPES, attached, both, pair, step
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.microbatch.matrix_stats import MatrixStats
from deltabias.optim import Muon


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_it_is_torchs_muon_bit_for_bit(shape, dtype, turned):
    optimizers, gen = pair(shape, dtype, turned, lr=0.1), generator()
    for _ in range(50):
        assert both(*optimizers, draw(shape, gen, dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"nesterov": False},
        {"momentum": 0.0},
        {"momentum": 1.0},
        {"weight_decay": 0.0},
        {"ns_steps": 3},
        {"ns_steps": 0},
        {"ns_coefficients": (2.0, -1.5, 0.5)},
        {"eps": 1.0},
        {"adjust_lr_fn": "original"},
        {"adjust_lr_fn": "match_rms_adamw"},
        {"lr": torch.tensor(0.1)},
        {"lr": torch.tensor([0.1])},
    ],
    ids=str,
)
def test_every_option_is_torchs_bit_for_bit(options):
    for shape in ((5, 3), (3, 5)):
        optimizers, gen = pair(shape, **options), generator()
        for _ in range(20):
            assert both(*optimizers, draw(shape, gen, torch.float32))


def test_a_gradient_of_another_layout_is_no_difference():
    optimizers, gen = pair((6, 4)), generator()
    for _ in range(20):
        assert both(*optimizers, draw((4, 6), gen, torch.float32).t())


def test_other_dtypes_of_the_iteration_are_not_torchs():
    optimizers = pair((4, 6), ours={"ns_dtype": torch.float32})
    assert not both(*optimizers, draw((4, 6), generator(), torch.float32))


def test_without_nesterov_a_bf16_momentum_buffer_is_not_overwritten_as_torchs_is():
    mine, theirs, ours, reference = pair((4, 6), torch.bfloat16, nesterov=False)
    gradient = 100 * draw((4, 6), generator(), torch.bfloat16)
    both(mine, theirs, ours, reference, gradient)
    assert reference.state[theirs]["momentum_buffer"].norm() < 1.1  # normalized in place
    expected = 0.05 * gradient.float()
    torch.testing.assert_close(
        ours.state[mine]["momentum_buffer"].float(), expected, rtol=0.01, atol=0.01
    )


@pytest.mark.parametrize("mode", ["full", "full-microbatches", "sketch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_microbatch_or_one_step_says_nothing_and_is_torchs(mode, dtype):
    options, needs = MODES[mode]
    mine, theirs, ours, reference = pair((4, 6), dtype, ours=options)
    if needs is not None:
        ours.attach(MatrixStats([mine], **needs))
    steps = 1 if needs is None else 10
    gen = generator()
    for _ in range(steps):
        gradient = draw((4, 6), gen, dtype)
        if needs is not None:
            ours._stats.add([gradient])
        with quietly():
            assert both(mine, theirs, ours, reference, gradient)


def test_torchs_checkpoint_loads_and_continues_bit_for_bit():
    mine, theirs, ours, reference = pair((4, 6))
    gen = generator()
    for _ in range(5):
        theirs.grad = draw((4, 6), gen, torch.float32)
        reference.step()
    mine.data.copy_(theirs.data)
    ours.load_state_dict(copy.deepcopy(reference.state_dict()))
    for _ in range(10):
        assert both(mine, theirs, ours, reference, draw((4, 6), gen, torch.float32))
    reference.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert both(mine, theirs, ours, reference, draw((4, 6), gen, torch.float32))


def test_torchs_checkpoint_counts_as_a_long_run_for_the_correction():
    mine, theirs, ours, reference = pair((4, 6), ours={"correction": "full"})
    gen = generator()
    for _ in range(40):
        theirs.grad = 1 + 0.01 * draw((4, 6), gen, torch.float32)
        reference.step()
    ours.load_state_dict(copy.deepcopy(reference.state_dict()))
    assert ours.param_groups[0]["correction"] == "full"
    assert ours.state[mine]["update_bias"].dtype == torch.float32
    step(ours, None, [mine], gen)
    assert mine.isfinite().all()
    assert ours.state[mine]["update_bias"].any()


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "lr=-1.0 is outside"),
        ({"momentum": -0.1}, "momentum=-0.1 is outside"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"ns_steps": 100}, "ns_steps=100 must be"),
        ({"ns_coefficients": (1.0, 2.0)}, "three numbers"),
        ({"adjust_lr_fn": "other"}, "adjust_lr_fn='other' is not known"),
        ({"correction": "delta"}, "correction='delta' is not known.*'plug_in'"),
        ({"polar": "svd"}, "polar='svd' is not known"),
        ({"trust": 0.0}, "trust=0.0 must be positive"),
        ({"correction": "diagonal"}, "polar='newton_schulz' takes none; use polar='exact'"),
        ({"correction": "eigenvalue_only"}, "use polar='exact'"),
        ({"correction": "cross_fit"}, "use polar='exact'"),
        ({"correction": "sketch"}, "one deviation, nothing to sketch"),
        ({"correction": "full", "momentum": 1.0}, "use momentum < 1"),
        ({"correction": "full", "ns_steps": 4}, "generated for ns_coeff.*got .* and 4"),
        ({"correction": "full", "ns_coefficients": (2, -1.5, 0.5)}, "generated for"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(options, text):
    with pytest.raises(ValueError, match=text):
        Muon([parameter(3, 4)], **options)
    optimizer = Muon([parameter(3, 4)])
    with pytest.raises(ValueError, match=text):
        optimizer.add_param_group({"params": [parameter(2, 2)], **options})
    assert len(optimizer.param_groups) == 1


def test_a_dtype_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"floating-point torch.dtype"):
        Muon([parameter(3, 4)], ns_dtype=torch.int32)


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)], ids=str)
def test_what_is_no_matrix_is_refused_before_it_is_taken(shape):
    with pytest.raises(ValueError, match=r"only supports 2D.*AdamW"):
        Muon([parameter(*shape)])
    optimizer = Muon(iter([parameter(2, 2)]))
    with pytest.raises(ValueError, match="only supports 2D"):
        optimizer.add_param_group({"params": [("name", parameter(*shape))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("flag", ["maximize", "foreach", "fused", "capturable", "differentiable"])
def test_flags_that_torchs_muon_has_not_are_refused(flag):
    with pytest.raises(TypeError, match=flag):
        Muon([parameter(3, 4)], **{flag: True})
    with pytest.raises(NotImplementedError, match=flag):
        Muon([{"params": [parameter(3, 4)], flag: True}])


def test_complex_and_sparse_are_refused_by_name():
    with pytest.raises(RuntimeError, match="complex parameter"):
        Muon([Parameter(torch.zeros(2, 2, dtype=torch.complex64))])
    param = parameter(3, 4)
    optimizer = Muon([param])
    param.grad = torch.eye(3, 4).to_sparse()
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match="sparse gradient"):
        optimizer.step()
    assert same_bits(before, snapshot(optimizer))


def test_statistics_of_the_wrong_kind_are_refused_by_name():
    param = parameter(3, 4)
    full = Muon([param], correction="full", spread="microbatches")
    with pytest.raises(TypeError, match="takes a MatrixStats, got MicrobatchStats"):
        full.attach(MicrobatchStats([param]))
    with pytest.raises(ValueError, match=r"needs keep='gradients'.*keep='sketch'"):
        full.attach(MatrixStats([param]))
    sketch = Muon([param], correction="sketch", spread="microbatches")
    with pytest.raises(ValueError, match="needs keep='sketch'"):
        sketch.attach(MatrixStats([param], keep="gradients"))
    crossed = Muon([param], correction="cross_fit", polar="exact")
    with pytest.raises(ValueError, match="needs groups=2"):
        crossed.attach(MatrixStats([param]))


def test_a_step_without_the_statistics_it_wants_is_said_once_and_counted():
    param = parameter(3, 4)
    optimizer, _ = attached([param], "sketch")
    param.grad = draw((3, 4), generator(), torch.float32)
    with pytest.warns(RuntimeWarning, match="uncorrected step"):
        optimizer.step()
    optimizer.step()
    assert optimizer.validity().uncorrected == 2
    assert optimizer.validity().corrected == 0
