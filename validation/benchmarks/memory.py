"""Bytes a parameter, counted from the allocator.

Of a step alone: ``state`` is what the optimizer keeps between steps, ``step peak`` the most that
is allocated beyond parameters, gradients and state while the statistics take two microbatches and
during the step.

Of a whole training step (a transformer of 1 M parameters, 8 microbatches of one sequence, so that
activations are few): ``training peak`` is the most that is allocated at once by everything from
the model's making to the second step: parameters, gradients, states, statistics, activations.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import Parameter
from torch.profiler import ProfilerActivity, profile

from deltabias.microbatch import MicrobatchStats
from deltabias.one_pass import compiler_missing
from deltabias.optim import AdamW
from validation.benchmarks.training_step import MAKES, SHAPES, Run

CLAIM = "state of delta in int8 <= 14 bytes a parameter, AdamW's 8 included"
PACKAGES = ()
SIZE = 1_000_000
FORMS: dict[str, dict[str, Any]] = {
    "none": {"correction": "none"},
    "delta": {},
    "closed_form": {"correction": "closed_form"},
    "delta int8": {"storage": "int8"},
    "delta bf16": {"storage": "bfloat16"},
    "closed_form int8": {"correction": "closed_form", "storage": "int8"},
}


def missing() -> str | None:
    """Why this cannot run here."""
    return compiler_missing() or None


def _set_up(sizes: list[int], **options: Any) -> tuple[AdamW, MicrobatchStats, Callable[[], None]]:
    params = [Parameter(torch.randn(n)) for n in sizes]
    optimizer = AdamW(params, fused=True, nonfinite="ignore", **options)
    highest = 2 if options.get("correction") in ("closed_form", "none") else 3
    stats = MicrobatchStats(params, moments=highest)
    optimizer.attach(stats)
    for param in params:
        param.grad = torch.randn_like(param)
    noise = [torch.randn_like(p) for p in params]
    up = [p.grad + n for p, n in zip(params, noise, strict=True)]
    down = [p.grad - n for p, n in zip(params, noise, strict=True)]

    def step() -> None:
        if options.get("correction") != "none":
            stats.add(up)
            stats.add(down)
        optimizer.step()

    return optimizer, stats, step


def peak_of(call: Callable[[], Any]) -> int:
    """The most bytes that were allocated at once during a call, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    events = found.profiler.kineto_results.events()
    taken = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    now = most = 0
    for _, size in sorted(taken):
        now += size
        most = max(most, now)
    return most


def bytes_of_forms() -> Iterator[dict[str, Any]]:
    """State, sums and peak of every form, in bytes a parameter."""
    for name, options in FORMS.items():
        optimizer, stats, step = _set_up([SIZE], **options)
        step()
        step()
        kept = sum(
            t.numel() * t.element_size() for s in optimizer.state.values() for t in s.values()
        )
        stats.reset()  # or the sums of the last step would be freed within what is counted
        stats.release_memory()  # nor kept
        peak = peak_of(step)
        row = {"form": name, "state": kept / SIZE, "step peak": peak / SIZE}
        yield row | ({"passed": kept / SIZE < 14.1} if name == "delta int8" else {})


def peaks_of_training(model: str = "1 M") -> Iterator[dict[str, Any]]:
    """What training costs at most, correction by correction."""
    for name, make in MAKES.items():
        if name == "delta int8, between":
            continue  # its first step looks, and has the other's peak

        def two_steps(make: Callable = make) -> int:
            run = Run(SHAPES[model], sequences=1)
            step = make(run)
            step()
            step()
            return sum(p.numel() for p in run.params)

        size = two_steps()  # compiles what there is to compile
        yield {"form": name.removesuffix(", looking"), "training peak": peak_of(two_steps) / size}


def rows() -> Iterator[dict[str, Any]]:
    """Everything."""
    yield from bytes_of_forms()
    yield from peaks_of_training()
