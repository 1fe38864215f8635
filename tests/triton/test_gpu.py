"""The kernels on a CUDA device."""

from importlib.util import find_spec

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("no triton", allow_module_level=True)

from tests.optim.cases import quietly
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

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, RMSprop
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


CAPTURED = {
    "delta": (AdamW, {"fused": True}),
    "delta_not_fused": (AdamW, {}),
    "closed_form_exact": (AdamW, {"fused": True, "exact": True, "correction": "closed_form"}),
    "rmsprop": (RMSprop, {"fused": True, "weight_decay": 0.1}),
    "plain": (AdamW, {"correction": "none"}),
}


class Training:
    """An optimizer with statistics whose whole step reads one buffer of gradients."""

    def __init__(self, kind, options, **more):
        generator = torch.Generator().manual_seed(3)
        shapes = [(1025,), (64, 33), ()]
        self.params = [torch.nn.Parameter(torch.randn(s, generator=generator).cuda())
                       for s in shapes]  # fmt: skip
        self.batch = [[torch.zeros_like(p) for p in self.params] for _ in range(4)]
        for p in self.params:
            p.grad = torch.zeros_like(p)
        self.optimizer = kind(self.params, lr=1e-2, nonfinite="skip", **options, **more)
        self.stats = MicrobatchStats(self.params)
        if options.get("correction") != "none":
            self.optimizer.attach(self.stats)

    def draw(self, number):
        """New gradients in the old places."""
        generator = torch.Generator(device="cuda").manual_seed(number)
        for grads in self.batch:
            for p, g in zip(self.params, grads, strict=True):
                g.copy_(torch.randn(p.shape, generator=generator, device="cuda"))

    def step(self):
        for grads in self.batch:
            self.stats.add(grads)
        for i, p in enumerate(self.params):
            p.grad.copy_(sum(grads[i] for grads in self.batch) / 4)
        self.optimizer.step()


@pytest.mark.parametrize("name", CAPTURED)
def test_a_hundred_replays_are_the_hundred_steps_that_were_not_captured(name):
    kind, options = CAPTURED[name]
    captured = Training(kind, options, capturable=True)
    eager = Training(kind, options, capturable=True)
    plain = Training(kind, options)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    for number in range(3):  # states, statistics and compiled kernels are there before the graph
        for training in (captured, eager, plain):
            training.draw(number)
        with torch.cuda.stream(side):
            captured.step()
        eager.step()
        plain.step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for number in range(3, 103):
        for training in (captured, eager, plain):
            training.draw(number)
        if number == 50:  # skipped by all three, by the graph without knowing it
            for training in (captured, eager, plain):
                training.batch[0][0][0] = float("nan")
        graph.replay()
        eager.step()
        with quietly():  # it says that a step was skipped, which a graph cannot
            plain.step()
    for a, b, c in zip(captured.params, eager.params, plain.params, strict=True):
        assert torch.equal(a, b)
        # parameters near 1, which each of a hundred steps rounds by 6e-8
        torch.testing.assert_close(a, c, rtol=0, atol=1e-5)
    counts = [float(captured.optimizer.state[p]["step"]) for p in captured.params]
    assert counts == [102.0] * 3
    assert captured.optimizer.validity().skipped == 1


@pytest.mark.parametrize("name", CAPTURED)
def test_a_capturable_step_waits_for_nothing(name):
    kind, options = CAPTURED[name]
    training = Training(kind, options, capturable=True)
    for number in range(2):
        training.draw(number)
        training.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rounding_at_random_repeats_in_a_graph_with_the_count_of_each_step():
    options = {"fused": True, "stochastic_rounding": True, "seed": 5, "lr": 1e-4}
    params = [torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16, device="cuda"))
              for _ in range(2)]  # fmt: skip
    for param in params:
        param.grad = torch.ones_like(param)
    ours, theirs = (AdamW([p], correction="none", capturable=True, nonfinite="ignore", **options)
                    for p in params)  # fmt: skip
    ours.step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step()
    for _ in range(20):
        graph.replay()
    for _ in range(21):
        theirs.step()
    assert torch.equal(*params)
    drift = 1 - float(params[0].double().mean())
    # 21 steps of 1e-4 and their decay; the mean of 4096 such walks is known to 4.5e-5
    assert abs(drift - 21 * (1e-4 + 1e-6)) < 5 * 4.5e-5


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
