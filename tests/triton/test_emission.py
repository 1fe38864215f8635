"""What the Triton printer prints, and what it refuses to print."""

import ast
import re
from pathlib import Path

import pytest
import sympy as sp

from deltabias.codegen.emit import MARK
from deltabias.codegen.kernels import has_step
from deltabias.codegen.ssa import Lowering, Program
from deltabias.codegen.triton import emit_triton
from deltabias.codegen.triton_print import block_lines, double_lines, read_scalars
from deltabias.errors import GenerateError
from deltabias.rules import CATALOGUE, get_rule

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/deltabias/generated/triton"
WITH_STEPS = [rule.name for rule in CATALOGUE.values() if has_step(rule)]


def lowered(expression):
    """A program that returns the value of an expression in a tensor x and a scalar s."""
    program = Program("f", ("x",), ("s",))
    Lowering(program).lower(sp.sympify(expression))
    return program


def test_every_rule_with_a_step_has_kernels_and_no_other():
    found = {p.stem for p in FOLDER.glob("*.py") if MARK in p.read_text(encoding="utf-8")}
    assert found == set(WITH_STEPS)


@pytest.mark.parametrize("name", WITH_STEPS)
def test_a_module_imports_triton_and_nothing_of_ours(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {a.name for n in imports for a in n.names}
    assert names <= {"math", "triton", "triton.language"}


def test_adam_s_kernels_are_adamw_s():
    """They differ in where the decay goes, which is an argument."""
    bodies = []
    for name in ("adam", "adamw"):
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        bodies.append(text.split("import triton\n", 1)[1])
    assert bodies[0] == bodies[1]


def test_a_rule_without_a_step_has_kernels_of_its_updates_and_only_if_asked():
    assert "STEPS = {}" in emit_triton(get_rule("inverse"))
    asked = emit_triton(get_rule("inverse"), updates=True)
    assert re.findall(r"def (\w+)_kernel", asked) == ["plug_in_update", "corrected_update"]


def test_an_operation_without_an_instruction_has_no_place_in_the_table():
    with pytest.raises(GenerateError, match="atan has no Triton operation in the table; known"):
        block_lines(lowered("atan(x)"))
    with pytest.raises(GenerateError, match="atan of scalars has no Triton operation"):
        double_lines(lowered("atan(s)").statements)


def test_an_update_that_is_unknown_is_an_error():
    program = Program("f", ("x",), ())
    Lowering(program).mutate("x", "addmm", "x")
    with pytest.raises(GenerateError, match="addmm_ has no Triton update in the table; known are"):
        block_lines(program)


def test_scalar_arithmetic_is_done_once_a_step_and_not_once_an_element():
    program = lowered("x*(1 - s)/(1 + s**2)")
    # the two sums are worked out before, the kernel reads them
    assert len(read_scalars(program)) == 2
    assert "s" not in read_scalars(program)
    assert not any("s" in line.split() for line in block_lines(program))


def test_a_number_in_front_is_put_behind_where_triton_wants_a_value_first():
    program = Program("f", (), ("s",))
    code = Lowering(program)
    code.lower(sp.Max(1, sp.Symbol("s") - 2))
    assert double_lines(program.statements)[-1].endswith(("maximum(_x0, 1)", "maximum(_x1, 1)"))
