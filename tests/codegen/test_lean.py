"""The program that a compiled loop runs is the plain one in other words."""

import math

import pytest
import torch

from deltabias.codegen.compiled import CODE_HELPERS
from deltabias.codegen.lean import lean
from deltabias.codegen.ssa import Assign, Mutate, Number, Program
from deltabias.codegen.step import step_program
from deltabias.correction import correct
from deltabias.rules import get_rule

CODES: dict = {"torch": torch, "Tensor": torch.Tensor}
exec(CODE_HELPERS, CODES)

_ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "copy": lambda a: a,
    "clone": lambda a: a,
    "to_dtype_of": lambda a, b: a,
    "sqrt": math.sqrt,
    "reciprocal": lambda a: 1 / a,
    "relu": lambda a: max(a, 0.0),
    "clamp_min": max,
    "clamp_max": min,
}
_UPDATES = {
    "mul": lambda t, a, value: t * a,
    "add": lambda t, a, value: t + a * (1 if value is None else value),
    "lerp": lambda t, a, w: t + (a - t) * w,
    "copy": lambda t, a, value: a,
    "addcmul": lambda t, a, b, value: t + value * a * b,
    "addcdiv": lambda t, a, b, value: t + value * a / b,
}

HYPERS = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "lr": 1e-3, "microbatches": 4.0}
STATES = {"param": 0.3, "grad": 0.02, "exp_avg": 0.01, "exp_avg_sq": 3e-4, "noise": 0.2}
STATES |= {"third": 0.05, "third_mean": -0.1, "c2": 0.3, "c3": -0.04, "unit_of_c": 0.015}


def run(program: Program, values: dict[str, float]) -> dict[str, float]:
    """One element in doubles; numbers of the step count that are not given are 0.5."""
    known = dict.fromkeys(program.scalars, 0.5) | HYPERS | values
    for s in program.statements:
        operands = [float(o.value) if isinstance(o, Number) else known[o] for o in s.operands]
        if isinstance(s, Assign):
            known[s.target] = _ARITHMETIC[s.operation](*operands)
            continue
        value = known[s.value] if isinstance(s.value, str) else s.value
        value = float(value.value) if isinstance(value, Number) else value
        extra = () if s.operation == "lerp" else (value,)
        known[s.target] = _UPDATES[s.operation](known[s.target], *operands, *extra)
    return {name: known[name] for name in program.tensors}


def plain(strategy: str = "delta") -> Program:
    return step_program(correct(get_rule("adamw"), strategy))


def count(program: Program, *operations: str) -> int:
    tensors = [s for s in program.statements if isinstance(s, Mutate) or not s.scalar]
    return sum(s.operation in operations for s in tensors)


@pytest.mark.parametrize("strategy", ["delta", "inversion", "closed_form"])
@pytest.mark.parametrize("size", [1.0, 1e-9, 1e9])
def test_a_leaner_program_has_the_same_values(strategy, size):
    powers = {"exp_avg_sq": 2} | dict.fromkeys(("grad", "exp_avg", "unit_of_c"), 1)
    values = {name: x * size ** powers.get(name, 0) for name, x in STATES.items()}
    ours, theirs = run(lean(plain(strategy)), values), run(plain(strategy), values)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-12), name


def test_an_estimate_that_is_cut_is_cut_alike():
    # a gradient a millionth of the spread: the third moment is 1e18 and more in its units
    values = STATES | {"grad": 2e-8, "exp_avg": 1e-9, "exp_avg_sq": 0.0, "c3": 1.0}
    ours, theirs = run(lean(plain()), values), run(plain(), values)
    assert theirs["third"] > 1e16
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize("grad", [0.0, 1e-30, -1e-22])
def test_where_the_second_moment_has_vanished_nothing_overflows(grad):
    values = STATES | {"grad": grad, "exp_avg": 0.0, "exp_avg_sq": 0.0, "unit_of_c": 1.0}
    found = run(lean(plain()), values)
    largest = torch.finfo(torch.float32).max
    assert all(abs(value) < largest for value in found.values())
    assert found["param"] == pytest.approx(0.3)


def test_statistics_that_do_not_belong_leave_no_trace():
    values = STATES | {"unit_of_c": 0.0}
    other = values | {"c2": 7.0, "c3": 5.0}
    first, second = run(lean(plain()), values), run(lean(plain()), other)
    assert first | {"c2": 7.0, "c3": 5.0} == second


def test_a_look_at_statistics_divides_thrice_and_takes_two_roots():
    program = lean(plain())
    assert count(program, "div", "reciprocal", "addcdiv") == 3
    assert count(program, "sqrt") == 2
    assert count(program, "clamp_min", "clamp_max") == 0  # four instructions each
    assert count(plain(), "div", "addcdiv") > 3  # the plain one has more


def test_products_take_first_what_is_ready_first():
    program = Program("p", ("a", "b", "out"), ("k",))
    program.statements = [
        Assign("late", "sqrt", ("a",)),
        Assign("_1", "mul", ("late", "b")),
        Assign("_2", "mul", ("_1", "b")),
        Mutate("out", "copy", ("_2",)),
    ]
    made = [s for s in lean(program).statements if isinstance(s, Assign)]
    assert [s.operands for s in made if s.operation == "mul"] == [("b", "b"), ("_2_p0", "late")]


def test_a_product_of_what_changes_afterwards_is_not_moved():
    program = Program("p", ("a", "b", "out"), ())
    program.statements = [
        Assign("_1", "mul", ("a", "b")),
        Mutate("a", "copy", ("b",)),
        Assign("_2", "mul", ("_1", "b")),
        Mutate("out", "copy", ("_2",)),
    ]
    assert run(lean(program), {"a": 2.0, "b": 3.0, "out": 0.0})["out"] == 18


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8])
def test_a_code_is_the_nearest_and_cut_at_the_range(kind):
    most, full = torch.iinfo(kind).max, 4.0
    low = 0 if kind == torch.uint8 else -most
    codes = torch.arange(low, most + 1, dtype=torch.float64)
    for offset in (-0.49, 0.0, 0.49):
        values = ((codes + offset) * full / most).float()
        found = CODES["_encoded"](values, full, torch.empty(0, dtype=kind)).to(kind)
        assert torch.equal(found.double(), codes)
    far = torch.tensor([-1e30, -5.0, 5.0, 1e30])
    found = CODES["_encoded"](far, full, torch.empty(0, dtype=kind)).to(kind)
    assert found.tolist() == [low, low, most, most]


def test_a_code_is_read_as_what_was_written_within_half_a_step():
    values = torch.linspace(-4, 4, 1001)
    code = CODES["_encoded"](values, 4.0, torch.empty(0, dtype=torch.int8)).to(torch.int8)
    back = CODES["_decoded"](code, 4.0, torch.float32)
    assert (back - values).abs().max() <= 4 / 254 + 1e-6
