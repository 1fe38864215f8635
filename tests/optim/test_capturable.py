"""``capturable=True``: nothing is read from the device, and the steps are the plain ones.

On a machine without a device that has graphs the CPU plays one (`graphs_on_the_cpu`), so values can
be compared; what a step reads or copies is seen on a device of no numbers, in a process of its own
(graph_probe.py). Graphs themselves are captured in tests/triton/test_gpu.py.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.fused.cases import take_steps
from tests.optim.cases import generator, microbatches, parameter, quietly, snapshot
from torch.nn import Parameter

from deltabias.microbatch import MicrobatchStats
from deltabias.optim import AdamW, Muon, RMSprop, SophiaG, capturable

ROOT = Path(__file__).parents[2]
KINDS = {
    "delta": (AdamW, {}),
    "closed_form": (AdamW, {"correction": "closed_form", "weight_decay": 0.3}),
    "inversion": (AdamW, {"correction": "inversion", "maximize": True}),
    "means": (AdamW, {"second_moment": "mean_of_squares"}),
    "rmsprop": (RMSprop, {"alpha": 0.95, "weight_decay": 0.1}),
    "rmsprop_means": (RMSprop, {"second_moment": "mean_of_squares", "correction": "none"}),
}


@pytest.fixture
def graphs_on_the_cpu(monkeypatch):
    """The CPU counts as a device with graphs, here and in torch's own steps."""
    devices = "_get_capturable_supported_devices"
    monkeypatch.setattr(capturable, devices, lambda: ["cpu"])
    for name in ("adam", "rmsprop"):
        module = sys.modules[f"torch.optim.{name}"]
        monkeypatch.setattr(module, devices, lambda supports_xla=True: ["cpu"])


@pytest.fixture(scope="module")
def seen():
    """What graph_probe.py measures."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/optim/graph_probe.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def attached(kind, params, **options):
    if options.get("capturable"):
        options.setdefault("nonfinite", "skip")
    optimizer = kind(params, lr=1e-2, **options)
    stats = MicrobatchStats(params)
    optimizer.attach(stats)
    return optimizer, stats


def pair(dtype=torch.float32):
    """Two equal lists of parameters: a matrix, a transposed one, a scalar, an empty one, and two
    that have no gradient always or sometimes (see `tests.fused.cases.take_steps`)."""
    shapes = [(30, 7), (6, 5), (), (0, 3), (4,), (3,), (2,)]
    first = [parameter(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)]
    first[1] = Parameter(first[1].detach().t())
    first[4].requires_grad_(False)
    return first, [Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in first]


def moved_apart(first, second, before) -> float:
    """The largest difference between two lists of parameters, in units of the largest move."""
    first, second, before = ([p.detach() for p in ps] for ps in (first, second, before))
    gaps = [(a - b).abs().max() for a, b in zip(first, second, strict=True) if a.numel()]
    moves = [(a - b).abs().max() for a, b in zip(second, before, strict=True) if a.numel()]
    return float(max(gaps) / max(moves))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_steps_are_those_without_it(graphs_on_the_cpu, name, dtype, bound):
    # fp32: parameters near 1 move by some 1e-2 in all, and each step rounds them by 6e-8
    kind, options = KINDS[name]
    ours, theirs = pair(dtype)
    before = [p.detach().clone() for p in ours]
    for params, flag in ((ours, True), (theirs, False)):
        optimizer, stats = attached(kind, params, capturable=flag, **options)
        take_steps(optimizer, stats, params, 6)
    assert moved_apart(ours, theirs, before) < bound


def test_a_count_that_stands_still_is_seen(graphs_on_the_cpu, monkeypatch):
    # the control of the test above: scalars of the first step for ever, as a careless graph's
    whole = capturable._rows
    first = {}

    def frozen(numbers, counts):
        return first.setdefault("rows", whole(numbers, counts))

    monkeypatch.setattr(capturable, "_rows", frozen)
    ours, theirs = [parameter(4)], [parameter(4)]
    for params, flag in ((ours, True), (theirs, False)):
        optimizer, stats = attached(AdamW, params, capturable=flag)
        take_steps(optimizer, stats, params, 3)
    assert moved_apart(ours, theirs, [parameter(4)]) > 1e-2


def test_parameters_that_began_later_have_their_own_scalars(graphs_on_the_cpu):
    results = []
    for flag in (True, False):
        params = [parameter(5, dtype=torch.float64, seed=s) for s in (1, 2)]
        optimizer, stats = attached(AdamW, params, capturable=flag)
        for step in range(5):
            batch = microbatches(params, 4, generator(step))
            for grads in batch:
                stats.add([grads[0], grads[1] if step > 1 else None])
            for i, p in enumerate(params):
                p.grad = sum(g[i] for g in batch) / 4 if i == 0 or step > 1 else None
            optimizer.step()
        counts = [float(optimizer.state[p]["step"]) for p in params]
        assert counts == [5.0, 3.0]
        results.append(torch.cat([p.detach() for p in params]))
    torch.testing.assert_close(*results, rtol=1e-13, atol=0)


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize(
    ("kind", "theirs"), [(AdamW, torch.optim.AdamW), (RMSprop, torch.optim.RMSprop)]
)
def test_without_statistics_it_is_torch_s_capturable_step_bit_for_bit(
    graphs_on_the_cpu, kind, theirs, foreach
):
    ours, others = pair()
    options = {"lr": 1e-2, "weight_decay": 0.1, "foreach": foreach, "capturable": True}
    with quietly():
        optimizer = kind(ours, nonfinite="ignore", **options)
        reference = theirs(others, **options)
        for step in range(4):
            for a, b in zip(ours, others, strict=True):
                if a.requires_grad:
                    a.grad = torch.randn(a.shape, generator=generator(step))
                    b.grad = a.grad.clone()
            optimizer.step()
            reference.step()
    assert all(map(torch.equal, ours, others))


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_no_bit_and_is_counted(graphs_on_the_cpu, kind, bad):
    params = [parameter(4), parameter(3, seed=2)]
    optimizer, stats = attached(kind, params, capturable=True)

    def step(number, spoil=1.0):
        batch = microbatches(params, 3, generator(number))
        for grads in batch:
            stats.add(grads)
        for i, p in enumerate(params):
            p.grad = sum(g[i] for g in batch) / 3
        params[1].grad[0] *= spoil
        if kind is SophiaG:
            optimizer.update_hessian()
        optimizer.step()

    step(1)
    before = snapshot(optimizer)
    step(2, bad)
    assert all(map(torch.equal, before, snapshot(optimizer)))
    skipped = optimizer.validity().skipped
    assert skipped == (2 if kind is SophiaG else 1)  # the curvature's and the step itself
    step(3)
    assert not any(torch.equal(a, p) for a, p in zip(before, params, strict=False))
    assert all(torch.isfinite(t).all() for t in snapshot(optimizer))
    assert optimizer.validity().skipped == skipped


def test_a_learning_rate_in_a_tensor_is_followed(graphs_on_the_cpu):
    results = []
    for rate in (torch.tensor(1e-2, dtype=torch.float64), 1e-2):
        param = parameter(4, dtype=torch.float64)
        optimizer, stats = attached(AdamW, [param], capturable=True, weight_decay=0.1)
        optimizer.param_groups[0]["lr"] = rate
        for step in range(3):
            for grads in microbatches([param], 2, generator(step)):
                stats.add(grads)
            param.grad = torch.ones_like(param)
            if isinstance(rate, torch.Tensor):
                rate.fill_(1e-2 / (1 + step))
            else:
                optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
            optimizer.step()
        results.append(param.detach())
    assert torch.equal(*results)


def test_counters_on_the_device_keep_their_address(graphs_on_the_cpu):
    param = parameter(4)
    optimizer, stats = attached(AdamW, [param], capturable=True)
    for step in range(4):
        for grads in microbatches([param], 2, generator(step)):
            stats.add(grads)
        param.grad = torch.arange(4.0)  # not their mean
        optimizer.step()
        if step == 0:
            addresses = optimizer._misaligned.data_ptr(), optimizer._skipped.data_ptr()
    assert (optimizer._misaligned.data_ptr(), optimizer._skipped.data_ptr()) == addresses
    assert optimizer.validity().misaligned == 4


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True)])
def test_a_checkpoint_resumes_with_and_without_it(graphs_on_the_cpu, before, after):
    params, resumed = pair(torch.float64)
    start = [p.detach().clone() for p in params]
    optimizer, stats = attached(AdamW, params, capturable=before)
    take_steps(optimizer, stats, params, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    with torch.no_grad():
        for p, q in zip(params, resumed, strict=True):
            q.copy_(p)
    second, second_stats = attached(AdamW, resumed, capturable=after)
    second.load_state_dict(saved)
    assert second.param_groups[0]["capturable"] is after
    take_steps(optimizer, stats, params, 3, first=3)
    take_steps(second, second_stats, resumed, 3, first=3)
    assert moved_apart(resumed, params, start) < 1e-12
    if before == after:
        assert all(map(torch.equal, params, resumed))


# -- what is read, what is copied ---------------------------------------------------------------


CASES = ("delta", "closed_form", "inversion", "means", "none", "loop", "rmsprop", "rmsprop_none",
         "sophia")  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_nothing_and_copies_nothing_between_devices(seen, case):
    assert seen["copies"][case] == {"skip": 0, "ignore": 0}


def test_nor_does_one_with_a_learning_rate_on_the_device(seen):
    assert seen["rate"] == 0


def test_the_same_look_sees_a_number_that_is_read_and_a_tensor_that_is_copied(seen):
    assert seen["reading"] == "DataDependentOutputException"
    assert seen["copying"] == 1


def test_step_counts_stand_on_the_device_of_a_capturable_optimizer_alone(seen):
    whole = [["graphs", True], ["cpu", False], ["graphs", True]]
    assert seen["counts"] == [*whole, *whole]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
def test_a_device_without_graphs_is_refused_with_torch_s_words(kind):
    text = "If capturable=True, params and state_steps must be on supported devices: .*'cuda'"
    with pytest.raises(RuntimeError, match=text):
        kind([parameter(2)], capturable=True, nonfinite="skip")


def test_a_parameter_that_was_moved_away_is_refused_in_the_step(graphs_on_the_cpu, monkeypatch):
    param = parameter(2)
    optimizer = AdamW([param], capturable=True, nonfinite="skip", correction="none")
    param.grad = torch.ones(2)
    monkeypatch.setattr(capturable, "_get_capturable_supported_devices", lambda: ["cuda"])
    with pytest.raises(RuntimeError, match=r"got a parameter on cpu"):
        optimizer.step()


@pytest.mark.parametrize("kind", [AdamW, RMSprop, SophiaG])
def test_raising_for_a_bad_gradient_is_refused_by_name(kind):
    with pytest.raises(ValueError, match="nonfinite='raise' would wait for the device"):
        kind([parameter(2)], capturable=True)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"storage": "int8"}, ValueError, "capturable=True with storage='int8'"),
        ({"correction": "cross_fit"}, NotImplementedError, "no step for correction='cross_fit'"),
        (
            {"betas": (torch.tensor(0.9), torch.tensor(0.95))},
            ValueError,
            "betas in tensors with capturable=True need fused=True",
        ),
    ],
)
def test_an_option_that_is_decided_on_the_host_is_refused_by_name(
    graphs_on_the_cpu, options, error, text
):
    with pytest.raises(error, match=text):
        AdamW([parameter(2)], capturable=True, nonfinite="skip", **options)


def test_a_single_group_cannot_have_it(graphs_on_the_cpu):
    groups = [{"params": [parameter(2)], "capturable": True}, {"params": [parameter(3)]}]
    with pytest.raises(
        ValueError, match=r"in one group and .* in another: a graph records a whole"
    ):
        AdamW(groups, nonfinite="skip")


@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_a_step_that_is_not_made_for_it_is_not_captured(kind, monkeypatch):
    param = parameter(2, 2)
    optimizer = kind([param], correction="none" if kind is AdamW else "plug_in")
    param.grad = torch.ones(2, 2)
    monkeypatch.setattr(capturable, "_is_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=f"instance of {kind.__name__} but param_groups' capt"):
        optimizer.step()
    with pytest.raises(RuntimeError, match=r"validity\(\) reads numbers back"):
        optimizer.validity()
    monkeypatch.undo()
    optimizer.step()
