"""The kernels' values, in Triton's interpreter, against the eager functions, bit for bit.

The eager function runs with each square root rounded correctly: torch's own is a unit off in a
fifth of cases, and a GPU's ``sqrt.rn`` is not.
"""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deltabias.generated import (
    adamw,
    adamw_mean_of_squares,
    rmsprop,
    rmsprop_mean_of_squares,
    sophia_g,
)

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no triton")

ROOT = Path(__file__).parents[2]
RULES = (adamw, adamw_mean_of_squares, rmsprop, rmsprop_mean_of_squares, sophia_g)
NAMES = [module.__name__.rsplit(".", 1)[1] for module in RULES]
STEPS = [
    f"{name}.{function}"
    for name, module in zip(NAMES, RULES, strict=True)
    for function in vars(module)
    if function.startswith("step_") and not function.endswith("_foreach")
]
STEPS += [
    f"{rule}.step_{strategy}_{kind}"
    for rule in ("adamw", "rmsprop")
    for strategy in ("delta", "closed_form")
    for kind in ("spaced", "held")
]


@pytest.fixture(scope="module")
def measured():
    """Everything at once, in a process of its own: see interpreted.py."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests/triton/interpreted.py"), *NAMES],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bits(measured):
    """Measurements in differing elements, which mean something where torch fuses as it does."""
    if not measured["torch_fuses"]:
        pytest.skip("torch on this CPU does not fuse products and sums")
    return measured


@pytest.mark.parametrize("step", STEPS)
def test_a_step_in_exact_mode_is_the_eager_step_bit_for_bit(bits, step):
    assert bits["steps"][step] == 0


@pytest.mark.parametrize("wrong", ["wrong_rate", "wrong_decay"])
def test_a_scalar_that_is_a_little_wrong_is_seen(bits, wrong):
    assert bits[wrong] > 1000


def test_shares_in_eight_bits_are_read_and_written_as_the_compiled_step_does(bits):
    assert bits["codes"] == 0


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "mixed"])
def test_low_precision_parameters_are_the_fp32_step_rounded_once(bits, dtype):
    assert bits[dtype] == 0


@pytest.mark.parametrize(
    "case", ["zero_gradients", "nan_everywhere", "nan_in_one", "infinite_in_one"]
)
def test_zeros_and_what_is_not_a_number_go_the_way_of_the_eager_step(bits, case):
    assert bits[case] == 0


@pytest.mark.parametrize("case", ["another_gradient", "unequal_weights"])
def test_statistics_are_cleaned_and_weighted_in_the_same_pass(bits, case):
    assert bits[case] == 0


def test_weight_decays_and_the_sign_are_in_the_same_pass(bits):
    assert bits["decayed_and_maximized"] == 0


@pytest.mark.parametrize("layout", ["channels_last", "gradient_transposed", "misaligned"])
def test_another_layout_gives_the_same_values(bits, layout):
    assert bits["layouts"][layout] == 0


@pytest.mark.parametrize("rule", NAMES)
def test_scalars_from_a_step_count_on_the_device_are_the_host_s(measured, rule):
    assert measured["device_rows"][rule] == 0


@pytest.mark.parametrize(
    "case",
    [
        "counted_on_the_device",
        "uncorrected_on_the_device",
        "not_warm_on_the_device",
        "tensor_rate",
    ],
)
def test_a_step_whose_scalars_stay_on_the_device_is_the_same(bits, case):
    assert bits[case] == 0


@pytest.mark.parametrize(
    "options",
    [
        "delta",
        "closed_form",
        "mean_of_squares",
        "delta_int8",
        "closed_form_bf16",
        "rmsprop",
        "rmsprop_int8",
    ],
)
def test_an_optimizer_takes_the_same_steps_through_triton(measured, options):
    # parameters near 1 after five steps of 0.01; the plain optimizer rounds a few times more
    assert measured["optimizer"][options] < 2e-6


@pytest.mark.parametrize("options", ["delta", "closed_form", "means", "rmsprop"])
def test_a_capturable_one_takes_them_from_counts_on_the_device(measured, options):
    assert measured["optimizer"][f"captured_{options}"] < 2e-6
    assert measured["counted"] == 5 * 5  # steps of the capturable ones, and of no other


@pytest.mark.parametrize("options", ["delta", "none", "means", "rmsprop", "captured"])
def test_an_exact_one_takes_them_bit_for_bit(bits, options):
    assert bits["optimizer"][f"exact_{options}"] == 0


def test_autograd_sees_that_a_step_changed_the_parameter(measured):
    assert "modified by an inplace operation" in measured["backward"]


def test_the_optimizers_went_through_triton(measured):
    corrected = {f"step_{s}{k}" for s in ("delta", "closed_form") for k in ("", "_held", "_spaced")}
    assert set(measured["sent"]) == {
        *corrected,
        "step_plug_in",
    }  # the exact one without a correction


def test_rounding_at_random_has_the_right_mean(measured):
    seen = measured["dithered"]
    assert seen["only_neighbors"]
    assert seen["nonfinite_kept"]
    # n = 40 000 and the seeds are fixed; five standard errors are 0.011, nearest would give 1
    error = math.sqrt(seen["expected_up"] * (1 - seen["expected_up"]) / 40_000)
    assert abs(seen["share_up"] - seen["expected_up"]) < 5 * error


def test_rounding_at_random_repeats_with_its_seed_and_step_and_not_without(measured):
    seen, up = measured["dithered"], measured["dithered"]["expected_up"]
    alike = up**2 + (1 - up) ** 2  # two independent roundings agree this often
    assert seen["repeats"]
    assert abs(seen["other_seed_agrees"] - alike) < 0.02
    assert abs(seen["other_step_agrees"] - alike) < 0.02


def test_an_optimizer_that_rounds_at_random_goes_where_exact_arithmetic_goes(measured):
    # bf16 next to 1 has steps of 2^-8 and 2^-7, and five updates of 0.001 make no half of one
    seen = measured["rounded_at_random"]
    assert seen["nearest"] == seen["move"] > 1e-3
    assert abs(seen["drift"]) < 5 * seen["deviation"] < 0.2 * seen["move"]


def test_its_seed_and_its_checkpoint_settle_every_bit_and_groups_differ(measured):
    seen = measured["rounded_at_random"]
    assert seen["repeats"]
    assert seen["resumes"]  # the seed too is the checkpoint's
    assert not seen["other_seed"]
    assert not seen["groups_alike"]


@pytest.mark.parametrize(
    ("case", "kind", "text"),
    [
        ("double", "TypeError", "param of parameter 0 is torch.float64"),
        ("strided", "ValueError", "writes dense tensors of one layout"),
        ("shape", "ValueError", "grad of parameter 0 has shape (16,)"),
        ("device", "ValueError", "grad of parameter 0 is on meta"),
        ("missing", "ValueError", "the step needs the scalar 'eps'"),
        ("dither", "ValueError", "stochastic_rounding is for bfloat16 parameters"),
        ("counts", "ValueError", "0 step counts for parameter 0"),
        ("count", "ValueError", "step counts are float32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_changed(measured, case, kind, text):
    found, message, unchanged = measured["refusals"][case]
    assert (found, unchanged) == (kind, True)
    assert text in message
