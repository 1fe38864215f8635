"""What ``fused=True`` promises: torch's bits without a correction, checkpoints, named errors."""

import copy

import pytest
import torch
from tests.fused.cases import apart, build, needs_compiler, parameters, quietly, take_steps
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG

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
@pytest.mark.parametrize("options", [{}, {"storage": "int8", "every": 3}], ids=["delta", "int8"])
def test_a_checkpoint_resumes_with_and_without_fused(before, after, options):
    params = parameters(large=False)
    optimizer, stats = build(AdamW, params, fused=before, **options)
    take_steps(optimizer, stats, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    resumed = [Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in params]
    second, second_stats = build(AdamW, resumed, fused=after, **options)
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
def test_fused_and_foreach_exclude_each_other_as_in_torch(kind):
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        kind([Parameter(torch.zeros(2))], fused=True, foreach=True)


def test_fused_cross_fitting_is_refused_by_name():
    with pytest.raises(NotImplementedError, match="no one-pass step for correction='cross_fit'"):
        AdamW([Parameter(torch.zeros(2))], fused=True, correction="cross_fit")


@pytest.mark.parametrize(
    "options", [{"correction": "inversion"}, {"second_moment": "mean_of_squares"}]
)
def test_what_has_no_shares_refuses_to_store_them(options):
    with pytest.raises(ValueError, match="storage='int8' remembers shares"):
        AdamW([Parameter(torch.zeros(2))], storage="int8", **options)


def test_statistics_now_and_then_need_a_step_that_remembers():
    param = Parameter(torch.zeros(2))
    stats = MicrobatchStats([param], every=4)
    for optimizer in (AdamW([param]), RMSprop([param]), SophiaG([param])):
        with pytest.raises(ValueError, match="every=4 are for a step that remembers"):
            optimizer.attach(stats)
    AdamW([param], storage="bfloat16").attach(stats)


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
