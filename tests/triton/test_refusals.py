"""What cannot run on Triton is refused by name, before anything is changed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from deltabias.optim.triton_step import run_triton, triton_module
from deltabias.optim.triton_tensors import chunk_map

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no triton")
NAMES = ("param", "grad", "exp_avg", "exp_avg_sq")
SCALARS = {"eps": 1e-8, "beta1": 0.9, "beta2": 0.999, "lr": 0.1,
           "debias_numerator": 0.1, "debias_preconditioner": 0.001}  # fmt: skip


def tensors():
    return {name: [torch.ones(5)] for name in NAMES}


def test_a_machine_without_triton_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "deltabias.generated.triton.adamw", raising=False)
    with pytest.raises(RuntimeError, match="triton is not installed, and fused=True on a CUDA"):
        run_triton("adamw", "step_plug_in", tensors(), SCALARS)


@needs_triton
def test_a_rule_without_kernels_is_named():
    with pytest.raises(ValueError, match="'shampoo' has no generated Triton module"):
        triton_module("shampoo")


@needs_triton
def test_tensors_on_a_cpu_are_named():
    given = tensors()
    with pytest.raises(RuntimeError, match="runs on CUDA devices, the tensors are on cpu"):
        run_triton("adamw", "step_plug_in", given, SCALARS)
    assert all(torch.equal(column[0], torch.ones(5)) for column in given.values())


@needs_triton
def test_a_step_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="adamw has no Triton step 'step_jackknife'; it has step"):
        run_triton("adamw", "step_jackknife", tensors(), SCALARS)


@needs_triton
def test_tensors_of_another_step_are_named():
    with pytest.raises(ValueError, match="step_plug_in takes the tensors param, grad, exp_avg"):
        run_triton("adamw", "step_plug_in", {**tensors(), "noise": [torch.ones(5)]}, SCALARS)


@needs_triton
def test_lists_of_different_lengths_are_named():
    with pytest.raises(ValueError, match="takes lists of one length"):
        run_triton("adamw", "step_plug_in", {**tensors(), "grad": []}, SCALARS)


def test_importing_the_optimizers_does_not_import_triton():
    code = (
        "import sys, deltabias.optim, deltabias.optim.triton_step; print('triton' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("sizes", [[0], [1], [4096], [4097, 0, 1023, 12_288], [5] * 40])
@pytest.mark.parametrize("fits", [True, False])
def test_chunks_cover_every_element_once(sizes, fits):
    whole, rest = chunk_map(sizes, [fits] * len(sizes))
    seen = [[0] * size for size in sizes]
    for chunks, length in ((whole, 4096), (rest, 256)):
        for tensor, first in chunks.tolist():
            for i in range(first, min(first + length, sizes[tensor])):
                seen[tensor][i] += 1
    assert all(set(counts) <= {1} for counts in seen)
    # a whole chunk has no mask, so it must not reach beyond the end
    assert all(first + 4096 <= sizes[tensor] for tensor, first in whole.tolist())
    assert not len(whole) or fits
