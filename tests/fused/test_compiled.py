"""The compiled step is the plain one, within a bound, for hostile tensors, in one graph."""

import pytest
import torch
from tests.fused.cases import (
    FORMS,
    apart,
    build,
    needs_compiler,
    parameters,
    take_steps,
    typical_and_worst,
)
from torch._dynamo.utils import counters

from deltabias.optim import AdamW, SophiaG
from deltabias.optim.compiled_step import run_one_pass

STEPS = 12
BOUND = 512
"""What 999 of 1000 elements keep within, in 2^-24 of a step's length, after twelve steps."""
FACTOR = 2
"""How much further than the plain fp32 step's the worst element may be from the fp64 step. The
worst are elements whose estimates cancel; there fp32 says little, however it is arranged."""

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_twelve_compiled_steps_are_as_close_to_fp64_as_twelve_plain_ones(form):
    kind, options = FORMS[form]
    results = []
    for fused, dtype in ((True, torch.float32), (None, torch.float32), (None, torch.float64)):
        params = parameters(dtype, large=form == "delta")
        optimizer, stats = build(kind, params, fused=fused, **options)
        take_steps(optimizer, stats, params, STEPS)
        results.append((params, optimizer.validity()))
    (ours, meter), (plain, plain_meter), (exact, _) = results
    if options.get("storage") in ("int8", "bfloat16"):
        exact = plain  # codes of fp64 values differ where a value is next to the middle of two
    typical, worst = typical_and_worst(apart(ours, exact))
    assert typical < BOUND
    assert exact is plain or worst < FACTOR * typical_and_worst(apart(plain, exact))[1]
    assert meter.corrected == plain_meter.corrected == STEPS
    assert meter.misaligned == plain_meter.misaligned == 0
    assert meter.inversion == pytest.approx(plain_meter.inversion, rel=1e-3)


@needs_compiler
def test_the_bound_sees_a_step_that_is_a_thousandth_wrong():
    results = []
    for lr in (1e-2, 1.001e-2):
        params = parameters()
        optimizer, stats = build(AdamW, params)
        take_steps(optimizer, stats, params, 1)
        with torch.no_grad():
            results.append([p * lr / 1e-2 for p in params])
    assert typical_and_worst(apart(*results))[0] > BOUND


@needs_compiler
def test_bf16_parameters_are_rounded_once_and_so_no_further_from_fp64_than_the_plain_step():
    errors = []
    for fused, dtype in ((True, torch.bfloat16), (None, torch.bfloat16), (None, torch.float64)):
        params = parameters(dtype, large=False)
        optimizer, stats = build(AdamW, params, fused=fused, correction="closed_form")
        take_steps(optimizer, stats, params, STEPS)
        errors.append(params)
        assert optimizer.state[params[0]]["noise"].dtype != torch.bfloat16
    ours, plain, exact = errors
    assert apart(ours, exact).mean() < 1.05 * apart(plain, exact).mean()


@needs_compiler
def test_a_hundred_steps_of_a_schedule_compile_each_form_once_without_a_break():
    torch._dynamo.reset()
    counters.clear()
    params = parameters()
    optimizer, stats = build(AdamW, params)
    take_steps(optimizer, stats, params, 100)
    # the step with a 0-d unit beside a large tensor, and with one for each element of a gathered
    # buffer; and the sums of a microbatch
    assert counters["stats"]["unique_graphs"] == 2 + 1
    assert not counters["graph_break"]


@needs_compiler
def test_sophia_compiled_is_sophia_plain():
    results = []
    for fused in (True, None):
        params = [p for p in parameters() if p.requires_grad and p.numel()]
        optimizer, stats = build(SophiaG, params, fused=fused)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            rows = [
                [0.1 * torch.randn(p.shape, generator=generator) for p in params] for _ in range(4)
            ]
            for row in rows:
                stats.add(row)
            for p, column in zip(params, zip(*rows, strict=True), strict=True):
                p.grad = torch.stack(column).mean(0)
            optimizer.update_hessian()
            optimizer.step()
        results.append(params)
    assert typical_and_worst(apart(*results))[0] < BOUND


def test_the_uncompiled_one_pass_step_is_the_plain_step_too(monkeypatch):
    # what runs where there is no compiler, said once
    monkeypatch.setattr("deltabias.optim.fused.compiler_missing", lambda: "no C++ compiler (test)")
    params, plain = parameters(), parameters()
    optimizer, stats = build(AdamW, params)
    with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler \\(test\\)") as said:
        take_steps(optimizer, stats, params, 3)
    assert len(said) == 1
    other, other_stats = build(AdamW, plain, fused=None)
    take_steps(other, other_stats, plain, 3)
    assert typical_and_worst(apart(params, plain))[0] < BOUND


def test_a_one_pass_step_writes_to_nothing_it_only_reads():
    from deltabias.generated.compiled import adamw

    named = {n: [torch.rand(3, 2)] for n in ("param", "grad", "exp_avg", "exp_avg_sq")}
    kept = named["grad"][0].clone()
    scalars = {"eps": 1e-8, "beta1": 0.9, "beta2": 0.99, "lr": 0.1}
    scalars |= {"debias_numerator": 0.1, "debias_preconditioner": 0.01}
    before = named["param"][0].clone()
    run_one_pass(adamw, "step_plug_in", named, scalars, compile_it=False)
    assert torch.equal(named["grad"][0], kept)
    assert not torch.equal(named["param"][0], before)
