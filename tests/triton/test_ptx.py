"""What the compiled kernels do to an element, counted in their PTX for sm_80, sm_90 and sm_100."""

import importlib
import inspect
import re
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest

if find_spec("triton") is None:
    pytest.skip("no triton", allow_module_level=True)

import triton.language as tl
from tests.triton.ptx import assembled, compile_kernel, count, scalar_ptx, step_ptx

from deltabias.optim.stepping import parameters_of
from deltabias.optim.triton_step import triton_module
from deltabias.optim.triton_tensors import REST, TURNS

APPROXIMATE = ("sqrt.approx", "rsqrt", "rcp", "div.full", "div.approx", "ex2", "lg2")
BF16 = {"param": tl.bfloat16, "grad": tl.bfloat16}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    """Nothing is taken from an earlier run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def eager(rule, step):
    return getattr(importlib.import_module(f"deltabias.generated.{rule}"), step)


def expected_bytes(rule, step):
    """From the eager function: each tensor once, and each tensor that changes once more."""
    function = eager(rule, step)
    arguments = parameters_of(function).items()
    read = [n for n, p in arguments if p.kind is not p.KEYWORD_ONLY and n != "unit_of_c"]
    written = set(re.findall(r"^    (\w+)\.\w+_\(", inspect.getsource(function), re.MULTILINE))
    return 4 * len(read), 4 * len(written)


def expected_fused(rule, step):
    """How often torch fuses a product and a sum in the eager function."""
    source = inspect.getsource(eager(rule, step))
    return len(re.findall(r"\.lerp_\(|\.addcmul_\(|\.add_\([^\n]*alpha=", source))


def check_exact(ptx, moved, fused):
    found = count(ptx)
    assert (found.read, found.written) == moved
    assert found.narrowest == 16
    assert not found.starting(*APPROXIMATE)
    assert found.each("fma.rn.f32") == fused


COUNTED = [
    # step, bytes read, bytes written, in fp32
    ("step_plug_in", 16, 12),
    ("step_closed_form", 24, 16),
    ("step_delta", 36, 24),
    ("step_inversion", 36, 24),
]


@pytest.mark.parametrize(("step", "read", "written"), COUNTED, ids=[c[0] for c in COUNTED])
def test_adamw_moves_each_tensor_once_in_sixteen_bytes_and_keeps_ieee(step, read, written):
    assert expected_bytes("adamw", step) == (read, written)
    fused = expected_fused("adamw", step)
    check_exact(step_ptx("adamw", step, EXACT=True), (read, written), fused)


KEPT = ("noise_kept", "skewness_kept", "inversion_kept")
HELD = [
    # step, types of what is remembered, bytes read: always 12 are written
    ("step_closed_form_held", {}, 20),
    ("step_delta_held", dict.fromkeys(KEPT, tl.bfloat16), 22),
    ("step_delta_held", {}, 28),
]


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("step", "kinds", "read"), HELD, ids=["closed_form", "bf16", "fp32"])
def test_a_step_between_statistics_reads_it_all_once_and_writes_12(step, kinds, read, capability):
    ptx = step_ptx("adamw", step, capability, kinds, EXACT=True)
    check_exact(ptx, (read, 12), fused=2)  # the averages' two; nothing is tracked
    assert assembled(ptx)[0] == 0


def test_codes_of_eight_bits_are_read_eight_at_a_time():
    kinds = {"noise_kept": tl.uint8, "skewness_kept": tl.int8, "inversion_kept": tl.uint8}
    found = count(step_ptx("adamw", "step_delta_held", kinds=kinds))
    assert (found.read, found.written, found.narrowest) == (19, 12, 8)


@pytest.mark.parametrize("capability", [80, 100])
@pytest.mark.parametrize("step", ["step_plug_in", "step_delta"])
def test_other_architectures_move_the_same(step, capability):
    ptx = step_ptx("adamw", step, capability, EXACT=True)
    check_exact(ptx, expected_bytes("adamw", step), expected_fused("adamw", step))


@pytest.mark.parametrize(
    "rule", ["adamw_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares", "sophia_g"]
)
def test_every_rule_moves_each_tensor_once(rule):
    # those with an eager function; spaced and held steps are counted for adamw, above
    plain = importlib.import_module(f"deltabias.generated.{rule}")
    for step in [s for s in triton_module(rule).STEPS if hasattr(plain, s)]:
        ptx = step_ptx(rule, step, EXACT=True)
        check_exact(ptx, expected_bytes(rule, step), expected_fused(rule, step))
        assert assembled(ptx)[0] == 0, step


def test_bf16_parameters_are_read_and_written_in_sixteen_bytes_too():
    found = count(step_ptx("adamw", "step_plug_in", kinds=BF16))
    assert (found.read, found.written, found.narrowest) == (12, 10, 16)


def test_rounding_at_random_moves_nothing_more():
    found = count(step_ptx("adamw", "step_plug_in", kinds=BF16, DITHER=True))
    assert (found.read, found.written, found.narrowest) == (12, 10, 16)


@pytest.mark.parametrize("step", ["step_delta", "step_delta_spaced"])
def test_scalars_of_a_step_count_are_worked_out_in_doubles(step):
    found = re.findall(r"\b(?:ex2|lg2|sqrt|div|mul|fma|add|sub)\.[\w.]*f\d\d\b", scalar_ptx(step))
    assert found
    assert all(operation.endswith("f64") for operation in found)


def test_roots_and_divisions_round_correctly_in_exact_mode_and_only_there():
    exact, fast = (count(step_ptx("adamw", "step_plug_in", EXACT=e)) for e in (True, False))
    assert (exact.each("sqrt.rn.f32"), exact.each("div.rn.f32")) == (1, 2)
    assert fast.starting("div.full", "sqrt.approx")
    assert not fast.starting("div.rn", "sqrt.rn")


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
def test_the_largest_kernel_as_it_is_launched_spills_nothing(capability, exact):
    for shape in ({"TURNS": TURNS}, {"RAGGED": True, "BLOCK": REST, "TURNS": 1}):
        ptx = step_ptx("adamw", "step_delta_spaced", capability, EXACT=exact, **shape)
        spilled, registers = assembled(ptx)
        assert spilled == 0
        # of 65 536: two programs of 128 threads and more, one computes while one waits
        assert registers <= 200


# -- the counter sees what it should --------------------------------------------------------------


def mutant(tmp_path, *replacements):
    """A generated kernel with something wrong, compiled in exact mode."""
    text = inspect.getsource(triton_module("adamw"))
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mutant.py"
    path.write_text(text)
    spec = spec_from_file_location("mutant", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    entry = module.STEPS["step_plug_in"]
    return count(compile_kernel(entry["kernel"], entry["tensors"], EXACT=True))


def test_a_load_too_many_is_counted(tmp_path):
    again = "param * keep + tl.load(exp_avg_at + offsets + 4 * BLOCK)"
    assert mutant(tmp_path, ("param * keep", again)).read == 20


def test_a_store_too_many_is_counted(tmp_path):
    line = "        _write(exp_avg_at, "
    extra = "        tl.store(grad_at + offsets, grad * 2)\n" + line
    assert mutant(tmp_path, (line, extra)).written == 16


def test_a_kernel_without_wide_loads_is_seen(tmp_path):
    assert mutant(tmp_path, ("tl.multiple_of(pointer, 16)", "pointer")).narrowest == 4
    assert count(step_ptx("adamw", "step_plug_in", RAGGED=True)).narrowest == 4


def test_an_approximate_division_is_seen(tmp_path):
    found = mutant(tmp_path, ("tl.div_rn(top, bottom)", "top / bottom"))
    assert found.starting(*APPROXIMATE)


def test_a_contracted_sum_is_seen():
    found = count(step_ptx("adamw", "step_delta", EXACT=True, options={"enable_fp_fusion": True}))
    assert found.each("fma.rn.f32") > expected_fused("adamw", "step_delta")


def test_a_spill_is_seen():
    ptx = step_ptx("adamw", "step_delta", EXACT=True, TURNS=TURNS, options={"maxnreg": 40})
    assert assembled(ptx)[0] > 0
