"""The kernels on a CUDA device."""

from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("no triton", allow_module_level=True)

from tests.triton.twins import (
    GIVEN,
    HYPERS,
    SIZES,
    copies,
    differing,
    draw,
    listed,
    reference,
    scalars_of,
)

from deltabias.optim.triton_step import run_triton, triton_module

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

RULES = ("adamw", "adamw_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares", "sophia_g")


def drawn(rule, step, dtype=torch.float32):
    names = triton_module(rule).STEPS[step]["tensors"]
    return [draw(names, size, seed, dtype) for seed, size in enumerate(SIZES)]


def on_device(rows):
    return [{n: t.cuda() for n, t in row.items()} for row in rows]


def total_difference(rows, ours):
    torch.cuda.synchronize()
    back = [{n: t.cpu() for n, t in row.items()} for row in ours]
    return sum(differing(a, b) for a, b in zip(rows, back, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_exact_mode_is_the_eager_step_of_a_cpu_bit_for_bit(rule, dtype):
    for step in triton_module(rule).STEPS:
        rows = drawn(rule, step, dtype)
        ours = on_device(rows)
        for t in (1, 2, 7):
            scalars = scalars_of(rule, step, t)
            for row in rows:
                reference(rule, step, row, scalars)
            run_triton(rule, step, listed(ours), scalars, exact=True)
        assert total_difference(rows, ours) == 0, step


@pytest.mark.parametrize("step", list(triton_module("adamw").STEPS))
def test_the_fast_mode_is_within_1e_5_of_the_size_of_the_step(step):
    rows = drawn("adamw", step)
    ours, scalars = on_device(rows), scalars_of("adamw", step, 3)
    before = copies(rows)
    for row in rows:
        reference("adamw", step, row, scalars)
    run_triton("adamw", step, listed(ours), scalars)
    for old, row, mine in zip(before, rows, ours, strict=True):
        moved = (row["param"] - old["param"]).abs()
        error = (mine["param"].cpu() - row["param"]).abs()
        # divisions and roots are two units off, and so is the sum's last rounding
        assert bool((error <= 1e-5 * moved + 2**-22 * row["param"].abs()).all())


def test_a_step_waits_for_nothing():
    rows = on_device(drawn("adamw", "step_delta"))
    scalars = scalars_of("adamw", "step_delta", 3)
    run_triton("adamw", "step_delta", listed(rows), scalars)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_triton("adamw", "step_delta", listed(rows), scalars)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_counts_its_own_steps():
    rows = drawn("adamw", "step_delta")
    ours = on_device(rows)
    count = torch.zeros((), device="cuda")
    rate = torch.tensor(HYPERS["lr"], dtype=torch.float64, device="cuda")
    hypers = {**HYPERS, **GIVEN, "lr": rate}

    def step():
        count.add_(1)
        run_triton("adamw", "step_delta", listed(ours), hypers, steps=[count], exact=True)

    kept = copies(ours)
    with torch.cuda.stream(torch.cuda.Stream()):
        step()  # compiles outside the graph
    torch.cuda.synchronize()
    count.zero_()
    for row, first in zip(ours, kept, strict=True):
        for name in row:
            row[name].copy_(first[name])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for t in (1, 2, 3):
        graph.replay()
        for row in rows:
            reference("adamw", "step_delta", row, scalars_of("adamw", "step_delta", t))
    assert total_difference(rows, ours) == 0


def test_a_graph_with_a_count_on_the_host_is_refused():
    ours = on_device(drawn("adamw", "step_plug_in"))
    scalars = scalars_of("adamw", "step_plug_in", 1)
    run_triton("adamw", "step_plug_in", listed(ours), scalars)
    with (
        pytest.raises(ValueError, match="a CUDA graph would repeat this step's count"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        run_triton("adamw", "step_plug_in", listed(ours), scalars)


def test_tensors_on_two_devices_are_named():
    rows = listed(on_device(drawn("adamw", "step_plug_in")))
    rows["grad"][1] = rows["grad"][1].cpu()
    with pytest.raises(ValueError, match="grad of parameter 1 is on cpu, param on cuda:0"):
        run_triton("adamw", "step_plug_in", rows, scalars_of("adamw", "step_plug_in", 1))
