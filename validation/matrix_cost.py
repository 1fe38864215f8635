"""What the corrections cost beside ``torch.linalg.eigh``, which every refresh pays anyway.

In one run, on one machine: for each dimension the timings are interleaved, repeat by repeat, and
the ratio to eigh is the median of the pairs' ratios. What is timed is what a correction adds to an
inverse root that is at hand: deviations turned into the eigenbasis, the second order, the corrected
inverse root.

    full        m = 8 deviations        r d³ time, r d² numbers
    sketch      one signed sum of them      d³,        d²
    diagonal    m = 8 deviations        r d³ for the turning, d² after it; one at a time

Memory is the most bytes alive at once in storages made during one call, by a dispatch hook.
"""

import platform
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from deltabias.generated import inverse_root_2, inverse_root_4
from validation.figures import legend_below, panels, plain_log_ticks, save, styled
from validation.study import Findings, Progress, Row, Study, no_progress

DIMENSIONS = (128, 256, 512, 1024)
ROOTS = {4: inverse_root_4, 2: inverse_root_2}
MICROBATCHES = 8
REPEATS = 5
WORK = ("eigh", "full", "sketch", "diagonal")
SEED = 11
STEEPEST = 3.3
"""Of time's power in d: cubic, and small matrices run below a processor's full speed, or above."""


def device_name(device: torch.device) -> str:
    """The processor's name, as it calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def inputs(dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A factor of condition some hundreds [d, d], and m deviations [m, d, d]."""
    generator = torch.Generator().manual_seed(SEED)
    gradients = torch.randn(MICROBATCHES, dim, dim, generator=generator, dtype=torch.float64)
    samples = gradients @ gradients.mT / dim
    mean = samples.mean(0)
    scale = (MICROBATCHES * (MICROBATCHES - 1)) ** -0.5
    return mean.to(device, dtype), (scale * (samples - mean)).to(device, dtype)


def tasks(module, dim: int, device: torch.device, dtype: torch.dtype) -> dict[str, Callable]:
    """What is timed, by name."""
    mean, deviations = inputs(dim, device, dtype)
    eigenvalues, basis = torch.linalg.eigh(mean)
    root = module.roots(eigenvalues)
    sketched = deviations[:1].clone()  # the running signed sum is there already

    def corrected(directions: Tensor) -> Tensor:
        turned = basis.mT @ directions @ basis
        inner = module.corrected(root, module.second_order(root, turned))
        return basis @ inner @ basis.mT

    def diagonal() -> Tensor:
        squares = torch.zeros_like(mean)
        for deviation in deviations:  # one at a time: no list of d × d matrices
            squares += (basis.mT @ deviation @ basis).square()
        values = module.corrected_diagonal(root, module.diagonal(root, squares))
        return (basis * values) @ basis.mT

    return {
        "eigh": lambda: torch.linalg.eigh(mean),
        "full": lambda: corrected(deviations),
        "sketch": lambda: corrected(sketched),
        "diagonal": diagonal,
    }


def seconds_of(function: Callable, device: torch.device) -> float:
    """Wall-clock seconds of one call, the device's queue emptied before and after."""
    _wait(device)
    started = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakBytes(TorchDispatchMode):
    """The most bytes alive at once among storages made while this is on."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor):
                self._count(tensor, args)
        return result

    def _count(self, tensor: Tensor, args) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, Tensor)}
        if key in self.alive or key in given:
            return
        self.alive[key] = size
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self.now -= self.alive.pop(key, 0)

        weakref.finalize(storage, gone)


def peak_numbers(function: Callable, dtype: torch.dtype) -> float:
    """Numbers alive at once in one call beside its inputs."""
    mode = PeakBytes()
    with mode:
        function()
    return mode.peak / dtype.itemsize


def lines_of(
    root: int, dim: int, repeats: int, device: torch.device, dtype: torch.dtype
) -> list[dict]:
    """Seconds and the paired ratio to eigh of everything timed, at one dimension."""
    work = tasks(ROOTS[root], dim, device, dtype)
    for function in work.values():
        function()  # the first call allocates and chooses algorithms
    seconds = {name: [] for name in WORK}
    for _ in range(repeats):
        for name in WORK:
            seconds[name].append(seconds_of(work[name], device))
    return [
        {
            "device": device.type, "dtype": str(dtype).removeprefix("torch."), "root": root,
            "dim": dim, "work": name, "seconds": statistics.median(seconds[name]),
            "over_eigh": statistics.median(
                a / b for a, b in zip(seconds[name], seconds["eigh"], strict=True)
            ),
        }
        for name in WORK
    ]  # fmt: skip


def memory_lines(dimensions: tuple[int, ...]) -> list[dict]:
    """Numbers alive at once, over d², in each mode of root 4; on the CPU."""
    device, found = torch.device("cpu"), []
    for dim in dimensions:
        work = tasks(inverse_root_4, dim, device, torch.float32)
        for name in WORK[1:]:
            numbers = peak_numbers(work[name], torch.float32)
            found.append(
                {"dim": dim, "work": name, "numbers": numbers, "over_d2": numbers / dim**2}
            )
    return found


def exponent(dims: list[int], values: list[float]) -> float:
    """The power in d between the first and the last."""
    return float(np.log(values[-1] / values[0]) / np.log(dims[-1] / dims[0]))


def study(
    *,
    workers: int = 1,
    progress: Progress = no_progress,
    dimensions: tuple[int, ...] = DIMENSIONS,
    repeats: int = REPEATS,
) -> Findings:
    """Times on the CPU, and on a GPU where there is one; one at a time, whatever `workers` is."""
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    settings = [(d, r, n) for d in devices for r in ROOTS for n in dimensions]
    lines = []
    for done, (device, root, dim) in enumerate(settings, start=1):
        lines += lines_of(root, dim, repeats, device, torch.float32)
        progress(done, len(settings))
    memory = memory_lines(tuple(n for n in dimensions if n <= 512))
    machine = {"threads": torch.get_num_threads(), **{d.type: device_name(d) for d in devices}}
    return Findings(
        [*time_rows(lines, machine), *memory_rows(memory)],
        {"seconds": lines, "memory": memory, "machine": [machine]},
        {"repeats": repeats, "microbatches": MICROBATCHES},
        {"inputs": SEED},
    )


def time_rows(lines: list[dict], machine: dict) -> list[Row]:
    """Ratios are reported; claimed is how they grow, and on a GPU that full ≤ 0.5 × eigh."""
    rows = []
    for device, root in dict.fromkeys((x["device"], x["root"]) for x in lines):
        where = f"{device}, root {root}"
        note = f"{machine[device]}, {machine['threads']} CPU thread(s), float32"
        for work in WORK[1:]:
            chosen = [x for x in lines if (x["device"], x["root"], x["work"])
                      == (device, root, work)]  # fmt: skip
            rows += [_ratio_row(x, where, note) for x in chosen]
            if len(chosen) > 1:
                dims = [x["dim"] for x in chosen]
                power = exponent(dims, [x["seconds"] for x in chosen])
                rows.append(Row(f"time of {work} grows like d³, not worse: {where}", power, 3,
                                passed=bool(power < STEEPEST), note=f"d = {dims}"))  # fmt: skip
    return rows


def _ratio_row(line: dict, where: str, note: str) -> Row:
    aim = line["device"] == "cuda" and line["work"] == "full"
    said = f"{line['work']} over eigh, d = {line['dim']}: {where}"
    passed = bool(line["over_eigh"] <= 0.5) if aim else None
    return Row(said, line["over_eigh"], 0.5 if aim else None, passed=passed, note=note)


def memory_rows(lines: list[dict]) -> list[Row]:
    """d² numbers, times the deviations held: none more than one in sketch and diagonal."""
    rows = []
    for work in WORK[1:]:
        chosen = [x for x in lines if x["work"] == work]
        last = chosen[-1]
        if len(chosen) > 1:
            power = exponent([x["dim"] for x in chosen], [x["numbers"] for x in chosen])
            passed = bool(abs(power - 2) < 0.1)
            rows.append(Row(f"memory of {work} grows like d²", power, 2, passed=passed))
        note = f"beside the {MICROBATCHES} deviations given; d = {last['dim']}"
        rows.append(Row(f"numbers alive at once over d², {work}", last["over_d2"], note=note))
    return rows


@styled
def draw(findings: Findings, path: Path) -> None:
    """Ratios to eigh by dimension, a panel a root and device."""
    lines = findings.tables["seconds"]
    groups = list(dict.fromkeys((x["device"], x["root"]) for x in lines))
    figure, axes = panels(1, len(groups))
    for axis, (device, root) in zip(axes[0], groups, strict=True):
        for work in WORK[1:]:
            chosen = [x for x in lines if (x["device"], x["root"], x["work"])
                      == (device, root, work)]  # fmt: skip
            axis.plot(
                [x["dim"] for x in chosen], [x["over_eigh"] for x in chosen], "o-", label=work
            )
        axis.axhline(1, color="0.6", linewidth=0.8)
        axis.set(title=f"{device}, root {root}", xscale="log", yscale="log", xlabel="d",
                 ylabel="time over eigh")  # fmt: skip
        plain_log_ticks(axis)
        dims = sorted({x["dim"] for x in lines})
        axis.set_xticks(dims, [str(d) for d in dims])
    legend_below(figure, axes[0][0])
    save(figure, path)


STUDY = Study(
    "matrix_cost",
    "what full, sketch and diagonal cost beside torch.linalg.eigh: d³ in time and d² in memory, "
    "not worse",
    study,
    draw,
)
