"""What ``fused=True`` promises: torch's bits without a correction, checkpoints, named errors."""

import copy
import warnings

import pytest
import torch
from tests.fused.cases import apart, build, needs_compiler, parameters, quietly, take_steps
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG
from deltabias.optim.fused import LARGE, SlowStepWarning

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("correction", ["none", "delta", "closed_form"])
def test_without_a_correction_or_statistics_it_is_torch_fused_bit_for_bit(dtype, correction):
    ours = [Parameter(torch.randn(40, 3).to(dtype)), Parameter(torch.randn(()).to(dtype))]
    theirs = copy.deepcopy(ours)
    optimizer = AdamW(ours, lr=1e-2, fused=True, correction=correction)
    reference = torch.optim.AdamW(theirs, lr=1e-2, fused=True)
    with quietly():
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for a, b in zip(ours, theirs, strict=True):
                a.grad = torch.randn(a.shape, generator=generator).to(dtype)
                b.grad = a.grad.clone()
            optimizer.step()
            reference.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimizer.state[a]["exp_avg_sq"], reference.state[b]["exp_avg_sq"])
        assert float(optimizer.state[a]["step"]) == 5


def test_a_gradient_that_lies_otherwise_than_its_parameter_gives_the_same_step():
    # torch's kernel walks through memory: it takes the transposed gradient's elements in turn
    results = []
    for fused in (True, None):
        param = Parameter(torch.arange(12.0).view(3, 4).t())
        param.grad = torch.arange(12.0).view(4, 3) - 5
        AdamW([param], fused=fused, correction="none").step()
        results.append(param.detach())
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)


@needs_compiler
@pytest.mark.parametrize(("before", "after"), [(True, None), (None, True)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {}),
        (AdamW, {"storage": "int8", "every": 3}),
        (RMSprop, {"storage": "int8", "every": 3}),
    ],
    ids=["delta", "int8", "rmsprop_int8"],
)
def test_a_checkpoint_resumes_with_and_without_fused(kind, before, after, options):
    params = parameters(large=False)
    optimizer, stats = build(kind, params, fused=before, **options)
    take_steps(optimizer, stats, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in params]
    second, second_stats = build(kind, resumed, fused=after, **options)
    second.load_state_dict(saved)
    assert second.param_groups[0]["fused"] is after
    for p, q in zip(params, resumed, strict=True):
        assert all(
            torch.equal(optimizer.state[p][name], second.state[q][name])
            and optimizer.state[p][name].dtype == second.state[q][name].dtype
            for name in optimizer.state.get(p, {})
        )
    take_steps(optimizer, stats, params, 3, first=3)
    take_steps(second, second_stats, resumed, 3, first=3)
    assert float(apart(params, resumed).quantile(0.99)) < 512


def test_a_parameter_that_left_its_state_is_refused_by_name():
    param = Parameter(torch.randn(4))
    optimizer = AdamW([param], fused=True, correction="none")
    param.data = torch.randn(5)
    param.grad = torch.randn(5)
    with pytest.raises(
        RuntimeError, match=r"exp_avg has shape \(4,\) on cpu, its parameter \(5,\)"
    ):
        optimizer.step()


def test_a_device_without_a_step_is_refused_by_name():
    param = Parameter(torch.randn(4, device="meta"))
    optimizer = AdamW([param], fused=True, correction="none", nonfinite="ignore")
    param.grad = torch.zeros_like(param)
    with pytest.raises(RuntimeError, match=r"fused=True has no step for .* on meta"):
        optimizer.step()


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
def test_fp64_on_a_gpu_is_refused_before_the_first_step(kind):
    # a tensor of no numbers stands for one on a GPU; nothing is computed with it
    with FakeTensorMode():
        param = Parameter(torch.zeros(3, dtype=torch.float64, device="cuda"))
    text = r"no step for a parameter of dtype torch.float64 on cuda:0; .*torch.float64.* on cpu and"
    with pytest.raises(RuntimeError, match=text):
        kind([param], fused=True)
    optimizer = kind([Parameter(torch.zeros(2))], fused=True)
    with pytest.raises(RuntimeError, match=text):
        optimizer.add_param_group({"params": [param]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("exact", "exact=True is for CUDA devices, and a parameter is on cpu, .* leave fused and"),
        ("stochastic_rounding", "for torch.bfloat16 on CUDA devices, and a parameter is .* on cpu"),
    ],
)
def test_options_of_the_triton_step_are_refused_on_a_cpu_by_name(kind, option, text):
    param = Parameter(torch.zeros(2, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match=text):
        kind([param], fused=True, **{option: True})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rounding_at_random_is_refused_for_other_dtypes_by_name(dtype):
    with FakeTensorMode():
        param = Parameter(torch.zeros(3, dtype=dtype, device="cuda"))
    with pytest.raises(RuntimeError, match=rf"a parameter is {dtype} on cuda:0; leave it out"):
        AdamW([param], fused=True, stochastic_rounding=True)


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
def test_fused_and_foreach_exclude_each_other_as_in_torch(kind):
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        kind([Parameter(torch.zeros(2))], fused=True, foreach=True)


def test_fused_cross_fitting_is_refused_by_name():
    with pytest.raises(NotImplementedError, match="no one-pass step for correction='cross_fit'"):
        AdamW([Parameter(torch.zeros(2))], fused=True, correction="cross_fit")


@pytest.mark.parametrize("kind", [AdamW, RMSprop])
@pytest.mark.parametrize(
    "options", [{"correction": "inversion"}, {"second_moment": "mean_of_squares"}]
)
def test_what_has_no_shares_refuses_to_store_them(kind, options):
    with pytest.raises(ValueError, match=rf"storage='int8' remembers shares.* {kind.__name__}\("):
        kind([Parameter(torch.zeros(2))], storage="int8", **options)


def test_a_rule_without_shares_refuses_them_for_a_single_group_too():
    group = {"params": [Parameter(torch.zeros(2))], "storage": "int8"}
    with pytest.raises(ValueError, match=r"storage='int8' remembers shares.* SophiaG\("):
        SophiaG([group])


def test_statistics_now_and_then_need_a_step_that_remembers():
    param = Parameter(torch.zeros(2))
    stats = MicrobatchStats([param], every=4)
    for optimizer in (AdamW([param]), RMSprop([param]), SophiaG([param])):
        with pytest.raises(ValueError, match="every=4 are for a step that remembers"):
            optimizer.attach(stats)
    for kind in (AdamW, RMSprop):
        kind([param], storage="bfloat16").attach(stats)


def advice_in_two_steps(size, **options):
    """The warnings of two steps of an optimizer with so many elements."""
    param = Parameter(torch.zeros(size))
    optimizer = AdamW([param], **{"correction": "closed_form", **options})
    stats = MicrobatchStats([param])
    optimizer.attach(stats)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SlowStepWarning)
        for _ in range(2):
            stats.add([torch.ones(size)])
            stats.add([torch.ones(size)])
            param.grad = torch.ones(size)
            optimizer.step()
    return [str(w.message) for w in said]


@needs_compiler
def test_a_large_corrected_step_that_is_not_fused_says_so_once():
    (said,) = advice_in_two_steps(LARGE + 1)
    assert said.startswith("AdamW: a corrected step of 1,000,001 parameters on a CPU")
    assert "fused=True compiles it" in said
    assert issubclass(SlowStepWarning, RuntimeWarning)


@needs_compiler
@pytest.mark.parametrize(
    ("size", "options"),
    [(LARGE, {}), (LARGE + 1, {"fused": False}), (LARGE + 1, {"correction": "none"})],
    ids=["small", "declined", "plain"],
)
def test_it_is_not_said_where_there_is_little_to_gain_or_it_was_declined(size, options):
    assert advice_in_two_steps(size, **options) == []


def test_it_is_not_said_where_nothing_can_be_compiled(monkeypatch):
    monkeypatch.setattr("deltabias.optim.fused.compiler_missing", lambda: "no C++ compiler")
    assert advice_in_two_steps(LARGE + 1) == []


def test_a_step_reads_no_number_back_from_a_tensor_of_the_model(monkeypatch):
    # counted in the uncompiled step; a compiled one (one graph) has no place for it
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        read = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._local_scalar_dense.default:
                self.read += not args[0].is_cpu or args[0].numel() != 1 or id(args[0]) not in steps
            return function(*args, **(kwargs or {}))

    monkeypatch.setattr("deltabias.optim.fused.compiler_missing", lambda: "not here")
    params = parameters(large=False)
    optimizer, stats = build(AdamW, params, nonfinite="ignore")
    with quietly():
        take_steps(optimizer, stats, params, 2)
    stats.add([p.grad for p in params])
    stats.add([p.grad for p in params])
    steps = {id(s["step"]) for s in optimizer.state.values()}  # host numbers, as torch's
    with quietly(), Counting() as counted:
        optimizer.step()
    assert counted.read == 0
    with Counting() as counted:
        float(params[0].detach().sum())
    assert counted.read == 1
