"""The fused steps on a GPU against torch's fused AdamW and the bandwidth of a copy.

In turn with torch's, several steps a call, so that the host runs ahead as it does in training.
The bandwidth is that of the bytes an element has to move (counted from the compiled kernels in
tests/triton) over the time; beside it that of a device-to-device copy in the same round.

And the full correction of a matrix root, with its deviations turned into the eigenbasis, beside
the eigensolver that every refresh of a root calls anyway.

    python -m validation.benchmarks gpu_step
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from deltabias.generated import adamw
from deltabias.optim.stepping import parameters_of
from deltabias.optim.triton_step import run_triton, triton_module
from validation.benchmarks.pairs import interleaved, ratio
from validation.matrix_cost import ROOTS, tasks

MOST_RATIO, LEAST_BANDWIDTH, MOST_OF_EIGH = 1.20, 0.85, 0.5
CLAIM = (
    f"a corrected step between statistics takes at most {MOST_RATIO} times torch's fused AdamW "
    f"and moves its bytes at {LEAST_BANDWIDTH} of a copy's bandwidth or more; the full correction "
    f"of a matrix root, 1024 x 1024 with 8 deviations, at most {MOST_OF_EIGH} of eigh's time"
)
PACKAGES = ("triton",)
DEVICE = "cuda"
SIZES = (100_000_000, 500_000_000)
KINDS = (
    # parameters, states; torch's states have the parameter's dtype
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
)
STEPS = ("plug_in", "closed_form_held", "delta_held", "closed_form", "delta")
CLAIMED = ("closed_form_held", "delta_held")
DIMENSION = 1024
STEPS_A_CALL = 10
COPIED = 2**30
"""Bytes of the copy that the bandwidth is compared with."""

HYPERS = {"eps": 1e-8, "beta1": 0.9, "beta2": 0.95, "lr": 1e-3, "microbatches": 8.0, "t": 1000.0}
HYPERS |= {"every": 4.0, "observed": 250.0, "weight_decay": 0.1}


def missing() -> str | None:
    """What this machine lacks."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    return None if find_spec("triton") else "no triton"


def shapes(size: int) -> list[tuple[int, ...]]:
    """Matrices of 4096 x 4096, a thousandth of it in vectors, and what is left."""
    vectors = [(4096,)] * max(1, size // 1000 // 4096)
    rest = size - 4096 * len(vectors)
    matrices = [(4096, 4096)] * (rest // 4096**2)
    return [*matrices, *vectors, (rest % 4096**2,)]


def dtype_of(step: str, name: str, dtype: torch.dtype, states: torch.dtype) -> torch.dtype:
    """Estimates are fp32; what is remembered between statistics is 4 bytes, or 2 with bf16."""
    if name in ("param", "grad"):
        return dtype
    if name in ("exp_avg", "exp_avg_sq"):
        return states
    pair = step == "delta_held" and name.endswith("_kept")
    small = name == "factor_kept" and states == torch.bfloat16
    return torch.bfloat16 if pair or small else torch.float32


def tensors_of(
    step: str, size: int, dtype: torch.dtype, states: torch.dtype
) -> dict[str, list[Tensor]]:
    """What a step reads and writes."""
    found: dict[str, list[Tensor]] = {}
    for name in triton_module("adamw").STEPS[f"step_{step}"]["tensors"]:
        if name == "unit_of_c":
            found[name] = [torch.ones((), device="cuda") for _ in shapes(size)]
            continue
        kind = dtype_of(step, name, dtype, states)
        found[name] = [torch.rand(s, device="cuda").mul_(0.01).to(kind) for s in shapes(size)]
    return found


def bytes_moved(step: str, tensors: dict[str, list[Tensor]]) -> int:
    """Each tensor once, and each one that is written once more."""
    entry = triton_module("adamw").STEPS[f"step_{step}"]
    columns = [*entry["tensors"], *entry["written"]]
    return sum(t.numel() * t.element_size() for n in columns for t in tensors[n])


def our_step(
    step: str, size: int, dtype: torch.dtype, states: torch.dtype
) -> tuple[Callable[[], None], int]:
    """A step of ours and the bytes it moves."""
    tensors = tensors_of(step, size, dtype, states)
    entry = triton_module("adamw").STEPS[f"step_{step}"]
    function = getattr(adamw, f"scalars_{step}")
    known = HYPERS | function(*(HYPERS[n] for n in parameters_of(function)))
    scalars = {n: known[n] for n in (*entry["scalars"], "t") if n in known}
    name = f"step_{step}"
    return lambda: run_triton("adamw", name, tensors, scalars), bytes_moved(step, tensors)


def torch_step(size: int, dtype: torch.dtype) -> Callable[[], None]:
    """torch.optim.AdamW(fused=True): its states have the parameter's dtype."""
    params = [torch.nn.Parameter(torch.rand(s, device="cuda").to(dtype)) for s in shapes(size)]
    for param in params:
        param.grad = torch.rand_like(param).mul_(0.01)
    optimizer = torch.optim.AdamW(params, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return optimizer.step


def several(step: Callable[[], Any]) -> Callable[[], None]:
    """Steps after one another, which the host need not wait for."""

    def call() -> None:
        for _ in range(STEPS_A_CALL):
            step()

    return call


def copying() -> Callable[[], Any]:
    """A device-to-device copy."""
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def rows(sizes: tuple[int, ...] = SIZES) -> Iterator[dict[str, Any]]:
    """One line for each size, pair of dtypes and step, and for each root of a matrix."""
    yield from of_matrices()
    copy = several(copying())
    for size in sizes:
        for dtype, states in KINDS:
            other = several(torch_step(size, dtype))
            for step in STEPS:
                ours, moved = our_step(step, size, dtype, states)
                times = interleaved({"ours": several(ours), "torch": other, "copy": copy})
                yield {
                    "step": step,
                    "parameters": size,
                    "dtype": str(dtype).removeprefix("torch."),
                    "states": str(states).removeprefix("torch."),
                    **judged(times, step, dtype == states, moved),
                }
                del ours
                torch.cuda.empty_cache()


def of_matrices(dim: int = DIMENSION, device: str = DEVICE) -> Iterator[dict[str, Any]]:
    """The full correction beside eigh in fp32, for the roots of one- and two-sided rules."""
    for root, module in ROOTS.items():
        calls = tasks(module, dim, torch.device(device), torch.float32)
        times = interleaved({work: calls[work] for work in ("full", "eigh")})
        found = ratio(times, "full", "eigh")
        passed = found["ratio"] <= MOST_OF_EIGH
        yield {"step": f"full over eigh, root {root}", "d": dim, **found, "passed": passed}


def judged(times: dict, step: str, alike: bool, moved: int) -> dict[str, Any]:
    """Ratio and bandwidth, and whether the claim held where it is made: with torch's dtypes."""
    found = ratio(times, "ours", "torch")
    found["milliseconds"] = round(found["milliseconds"] / STEPS_A_CALL, 4)
    # time of the copy over ours, and bytes of ours over the copy's, which reads and writes
    found["of_a_copy"] = round(moved / (2 * COPIED) * ratio(times, "copy", "ours")["ratio"], 4)
    if alike and step in CLAIMED:
        found["passed"] = found["ratio"] <= MOST_RATIO and found["of_a_copy"] >= LEAST_BANDWIDTH
    return found
