"""Triton kernels of rules that no catalogue has: values in the interpreter, and their PTX."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no triton")

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("root", "exp", "log", "log1p", "tanh", "erf", "sign")
CASES = [
    f"{rule}.{function}"
    for rule in ("third_root", "logarithm", "bounded", "error_function")
    for function in ("plug_in_update", "corrected_update")
]


@pytest.fixture(scope="module")
def measured():
    """Everything at once, in a process of its own: see own_rules.py."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests/triton/own_rules.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_rule_of_one_s_own_has_its_values_to_sixteen_units_in_the_last_place(measured, case):
    assert measured["emitted"][case] <= 16  # and the emitted test rejects a value 64 units off


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_rounded_once_from_doubles(measured, name):
    differing, by_more_than_one, odd_values_agree = measured["functions"][name]
    # of 20 000: a double is next to the middle of two floats that rarely
    assert differing <= 2
    assert by_more_than_one == 0
    assert odd_values_agree  # zeros, infinities, NaN


def test_a_corrected_step_of_one_s_own_is_the_eager_one(measured):
    # torch's cube root is a unit off, the kernel's is not
    assert measured["step"] < 2**-19
    assert measured["wrong_step"] > 2**-19


@pytest.mark.parametrize("text", ["g/(v**(1/3)+eps)", "g*tanh(log(1+v))", "g*erf(v)*sign(v)"])
def test_a_kernel_with_functions_compiles_and_reads_and_writes_each_tensor_once(text, tmp_path):
    from tests.triton.own_rules import load
    from tests.triton.ptx import assembled, compile_kernel

    from deltabias.codegen.backends import emit_backend
    from deltabias.rule import UpdateRule

    path = tmp_path / "own.py"
    path.write_text(emit_backend(UpdateRule.parse(text, name="own"), "triton"))
    entry = load(path).STEPS["corrected_update"]
    assert entry["tensors"] == ("update", "g", "v", "relative_cov_g_v", "relative_var_v")
    ptx = compile_kernel(entry["kernel"], entry["tensors"], EXACT=True)
    # a thread has eight elements: two accesses of sixteen bytes to each tensor
    assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) == 2 * 4
    assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == 2
    assert assembled(ptx)[0] == 0
