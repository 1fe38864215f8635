"""Compiles a kernel ahead of time and counts what its PTX does to an element. No GPU needed."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from deltabias.optim.triton_step import WARPS, triton_module
from deltabias.optim.triton_tensors import BLOCK

PER_THREAD = BLOCK // (32 * WARPS)
MANY = 1000
"""Turns of the loop where it is counted: so many that it stays one loop."""

FLAGS = ("RAGGED", "EXACT", "NEGATE", "COUPLED", "DITHER")
_WIDTHS = {"b8": 1, "b16": 2, "b32": 4, "b64": 8}


@dataclass(frozen=True)
class Count:
    """What one turn of the loop does: bytes an element, bytes an access, operations."""

    read: float
    written: float
    narrowest: int
    operations: Counter

    def each(self, operation: str) -> float:
        """How often an element meets an operation; packed ones count twice."""
        packed = 2 * self.operations[f"{operation}x2"]
        return (self.operations[operation] + packed) / PER_THREAD

    def starting(self, *prefixes: str) -> dict[str, int]:
        """Operations whose name starts with one of these."""
        return {o: n for o, n in self.operations.items() if o.startswith(prefixes)}


def compile_kernel(kernel, tensors, capability=90, kinds=None, options=None, **flags) -> str:
    """The PTX of a kernel for an architecture, as `run_triton` would launch it."""
    constants = {name: flags.get(name, False) for name in FLAGS}
    constants |= {"BLOCK": flags.get("BLOCK", BLOCK), "TURNS": flags.get("TURNS", MANY)}
    constants |= {t.upper(): (kinds or {}).get(t, tl.float32) for t in tensors}
    signature = {"table": "*i64", "chunks": "*i64", "rows": "*fp32", "stride": "i32", "seed": "i64"}
    signature |= dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i in range(3)}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    chosen = {"num_warps": WARPS, "enable_fp_fusion": not constants["EXACT"], **(options or {})}
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=chosen).asm["ptx"]


def step_ptx(rule, step, capability=90, kinds=None, options=None, **flags) -> str:
    """The PTX of a generated step."""
    entry = triton_module(rule).STEPS[step]
    return compile_kernel(entry["kernel"], entry["tensors"], capability, kinds, options, **flags)


def scalar_ptx(step, rule="adamw") -> str:
    """The PTX of what works out a step's scalars on the device."""
    entry = triton_module(rule).STEPS[step]
    signature = {"counts": "*i64", "given": "*fp64", "rows": "*fp32", "WIDTH": "constexpr"}
    source = ASTSource(
        fn=entry["prepare"], signature=signature, constexprs={"WIDTH": entry["width"]}
    )
    options = {"num_warps": 1, "enable_fp_fusion": False}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]


def count(ptx: str) -> Count:
    """Counts the one loop of a kernel; what stands before it is paid once for every chunk."""
    branches = re.finditer(r"bra(?:\.uni)?\s+(\$L\w+);", ptx)
    starts = [(ptx.find(f"{b[1]}:"), b.start()) for b in branches]
    ((start, end),) = [(s, e) for s, e in starts if 0 <= s < e]  # the one that goes back
    body = ptx[start:end]
    moved, narrowest = {"ld": 0, "st": 0}, 16
    for kind, access in re.findall(r"\b(ld|st)\.global([\w.:]*)\s", body):
        moved[kind] += _access_bytes(access)
        narrowest = min(narrowest, _access_bytes(access))
    operations = Counter(re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z][\w.]*)", body, re.MULTILINE))
    return Count(moved["ld"] / PER_THREAD, moved["st"] / PER_THREAD, narrowest, operations)


def _access_bytes(access: str) -> int:
    """``.v4.b32`` is sixteen bytes."""
    vector = re.search(r"\.v(\d)", access)
    return (int(vector[1]) if vector else 1) * _WIDTHS[access.rsplit(".", 1)[1]]


def assembled(ptx: str) -> tuple[int, int]:
    """(bytes spilled, registers a thread) by NVIDIA's assembler, which comes with Triton."""
    architecture = re.search(r"\.target (\w+)", ptx)[1]
    tool = get_ptxas(int(re.search(r"\d+", architecture)[0])).path
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(ptx)
        # the options that Triton gives it
        options = ["-v", "--regAllocOptLevel=2", f"--gpu-name={architecture}"]
        done = subprocess.run(
            [tool, *options, file, "-o", f"{folder}/cubin"],
            capture_output=True,
            text=True,
            check=True,
        )
    spills = map(int, re.findall(r"(\d+) bytes spill", done.stderr))
    return sum(spills), int(re.search(r"Used (\d+) registers", done.stderr)[1])
