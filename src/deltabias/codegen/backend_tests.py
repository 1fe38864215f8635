"""The tests that are generated with a backend's module: the same formulas, the same 50 digits.

A backend computes in another order than the plain module, or in fp32 alone, so its values are
held on inputs of ordinary size, where no intermediate value leaves the range of fp32.
"""

from deltabias.codegen.kernels import RulePrograms
from deltabias.codegen.ssa import Program
from deltabias.codegen.value_tests import ranges, reference, size

ORDINARY = 1e3
"""Arguments are between its inverse and it, moments relative to the statistic below 1."""

COMPILED = """
from deltabias.optim.compiled_step import compiler_missing, run_one_pass

DTYPE = torch.float64
DEVICE = "cpu"


def run(name, columns, scalars):
    run_one_pass(module, name, columns, scalars, compile_it=not compiler_missing())
"""

TRITON = """
triton = pytest.importorskip("triton")

from deltabias.optim.triton_step import run_triton

DTYPE = torch.float32
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(),
    reason="needs a CUDA device, or TRITON_INTERPRET=1 before triton is imported",
)


def run(name, columns, scalars):
    run_triton(module, name, columns, scalars, exact=True)
"""

RUNNERS = {"compiled": COMPILED, "triton": TRITON}
ALLOWED_ULPS = 16


def backend_test(programs: RulePrograms, backend: str, import_line: str, mark: str) -> str:
    """The test of a backend's module; `import_line` is how it reaches the module."""
    rule = programs.rule
    expressions = (rule.update, programs.kernel.update)
    references = "\n\n".join(
        reference(p.name, p, e, size(e)) for p, e in zip(programs.updates, expressions, strict=True)
    )
    cases = "".join(f"    {_case(programs, p)},\n" for p in programs.updates)
    system = "import os\n\n" if backend == "triton" else ""
    return f'''"""Values of the {backend} functions of {rule.name} against 50 digits.

{mark}
"""

{system}import mpmath
import pytest
import torch
from mpmath import mpf

from deltabias.codegen.ulps import grid, worst_ulps
{import_line}
{RUNNERS[backend]}

ALLOWED_ULPS = {ALLOWED_ULPS}


{references}

CASES = [
{cases}]
each_function = pytest.mark.parametrize(
    ("name", "reference", "ranges", "scalars"), CASES, ids=[case[0] for case in CASES]
)


def filled(name):
    """The function that fills its first argument, as one that returns it."""

    def function(*tensors, **scalars):
        tensors = [t.to(DEVICE) for t in tensors]
        columns = [torch.empty_like(tensors[0]), *tensors]
        named = zip(module.STEPS[name]["tensors"], columns, strict=True)
        run(name, {{n: [t] for n, t in named}}, scalars)
        return columns[0].cpu()

    return function


@each_function
def test_a_value_is_within_{ALLOWED_ULPS}_units_in_the_last_place(name, reference, ranges, scalars):
    ulps, where = worst_ulps(filled(name), reference, grid(ranges, DTYPE), scalars)
    assert ulps <= ALLOWED_ULPS, f"{{ulps:.2f}} units in the last place at {{where}}"


@each_function
def test_a_wrong_value_is_seen(name, reference, ranges, scalars):
    def wrong(*tensors, **keywords):
        return filled(name)(*tensors, **keywords) * (1 + 64 * torch.finfo(DTYPE).eps)

    assert worst_ulps(wrong, reference, grid(ranges, DTYPE), scalars)[0] > ALLOWED_ULPS
'''


def _case(programs: RulePrograms, program: Program) -> str:
    tensors, scalars = ranges(programs, program)
    ordinary = {name: tuple(map(_ordinary, values)) for name, values in tensors.items()}
    return f'("{program.name}", {program.name}, {ordinary!r}, {scalars!r})'


def _ordinary(end: float) -> float:
    """An end of a range, drawn in."""
    drawn = min(max(abs(end), 1 / ORDINARY), ORDINARY)
    return drawn if end > 0 else -drawn
