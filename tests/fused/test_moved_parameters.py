"""Parameters that change between steps: refused with nothing touched, or stepped rightly."""

import pytest
import torch
from tests.fused.cases import build, needs_compiler, quietly
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop, SophiaG

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

FORMS = {
    "adamw": (AdamW, {}),
    "plain": (AdamW, {"correction": "none"}),
    "foreach": (AdamW, {"correction": "none", "foreach": True}),
    "shares": (AdamW, {"storage": "int8"}),
    "rmsprop": (RMSprop, {}),
    "sophia": (SophiaG, {}),
}


def step(params, optimizer, stats, seed: int) -> None:
    """Three microbatches, drawn in fp32 for whatever the parameters are by now."""
    generator = torch.Generator().manual_seed(seed)
    rows = [[torch.randn(p.shape, generator=generator) for p in params] for _ in range(3)]
    for row in rows:
        stats.add([g.to(p.dtype) for g, p in zip(row, params, strict=True)])
    for param, *grads in zip(params, *rows, strict=True):
        param.grad = torch.stack(grads).mean(0).to(param.dtype)
    with quietly():
        optimizer.step()


def everything(optimizer) -> list[torch.Tensor]:
    """Parameters, states and step counts, copied."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [v for p in params for v in optimizer.state[p].values()]
    return [t.detach().clone() for t in (*params, *states)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float64])
def test_a_parameter_cast_between_steps_is_refused_before_any_group_is_touched(form, to):
    kind, options = FORMS[form]
    first, second = Parameter(torch.ones(3)), Parameter(torch.ones(4))
    optimizer = kind([{"params": [first]}, {"params": [second]}], lr=0.1, **options)
    stats = MicrobatchStats([first, second])
    optimizer.attach(stats)
    step([first, second], optimizer, stats, 0)
    second.data = second.data.to(to)
    before = everything(optimizer)
    with pytest.raises(RuntimeError, match=r"has dtype torch.float32, its parameter of shape"):
        step([first, second], optimizer, stats, 1)
    assert all(map(torch.equal, before, everything(optimizer)))


def test_a_gradient_of_the_old_dtype_is_refused_by_name():
    param = Parameter(torch.ones(3))
    optimizer = AdamW([param], correction="none")
    param.grad = torch.ones(3)
    param.data = param.data.double()
    with pytest.raises(RuntimeError, match=r"grad has dtype torch.float32, its .* torch.float64"):
        optimizer.step()
    assert bool((param == 1).all())


@needs_compiler
@pytest.mark.parametrize("correction", ["none", "delta"])
@pytest.mark.parametrize("to", [torch.bfloat16, torch.float64])
def test_a_fused_step_goes_on_with_states_of_the_old_dtype(correction, to):
    """It computes in the states' dtype or wider, and rounds what it writes once."""
    results = []
    for cast in (True, False):
        params = [Parameter(torch.linspace(0.5, 1.5, 50).bfloat16().float())]
        optimizer, stats = build(AdamW, params, correction=correction)
        step(params, optimizer, stats, 0)
        with torch.no_grad():
            params[0].copy_(params[0].bfloat16())
        if cast:
            params[0].data = params[0].data.to(to)
        step(params, optimizer, stats, 1)
        assert float(optimizer.state[params[0]]["step"]) == 2
        results.append(params[0].detach().double())
    # half an ulp of a number below 2, and what bf16 gradients make of a step of 0.01; fp32's
    rounding = 2**-8 + 1e-4 if to is torch.bfloat16 else 1e-6
    assert (results[0] - results[1]).abs().max() <= rounding


@pytest.mark.parametrize("fused", [True, None])
def test_a_state_that_is_elsewhere_is_refused_before_any_group_is_touched(fused):
    first, second = Parameter(torch.ones(3)), Parameter(torch.ones(4))
    groups = [{"params": [first]}, {"params": [second]}]
    optimizer = AdamW(groups, fused=fused, correction="none")
    first.grad, second.grad = torch.ones(3), torch.ones(4)
    optimizer.state[second]["exp_avg"] = torch.zeros(4, device="meta")
    with pytest.raises(RuntimeError, match=r"exp_avg has shape \(4,\) on meta, its .* on cpu"):
        optimizer.step()
    assert bool((first == 1).all())
    assert float(optimizer.state[first]["step"]) == 0


def test_dtypes_without_moments_are_refused_by_name():
    param = Parameter(torch.ones(4).to(torch.float8_e4m3fn))
    with pytest.raises(RuntimeError, match=r"fused=True has no step for .*float8_e4m3fn on cpu"):
        AdamW([param], fused=True)
    with pytest.raises(TypeError, match=r"parameter 0 has dtype torch.float8_e4m3fn; allowed are"):
        MicrobatchStats([param])
    with pytest.raises(RuntimeError, match=r"complex parameter .*view_as_real"):
        AdamW([Parameter(torch.ones(2, dtype=torch.complex64))], fused=True)


def test_a_model_without_numbers_takes_no_step():
    param = Parameter(torch.ones(3, device="meta"))
    optimizer = AdamW([param], correction="none")
    param.grad = torch.ones(3, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        optimizer.step()
    assert float(optimizer.state[param]["step"]) == 0
