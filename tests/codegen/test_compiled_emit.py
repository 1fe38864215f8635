"""The module of one-pass steps: for every rule with a step, torch alone, its scalars next door."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

from deltabias.codegen.compiled_emit import emit_compiled
from deltabias.codegen.emit import MARK
from deltabias.codegen.kernels import has_step
from deltabias.rules import CATALOGUE, get_rule

FOLDER = Path(__file__).parents[2] / "src/deltabias/generated/compiled"
WITH_STEPS = [rule.name for rule in CATALOGUE.values() if has_step(rule)]


def module_of(name, package="compiled."):
    return importlib.import_module(f"deltabias.generated.{package}{name}")


def functions(module, prefix):
    return {
        name.removeprefix(prefix): f for name, f in vars(module).items() if name.startswith(prefix)
    }


def arguments(function):
    return set(inspect.signature(function).parameters)


def test_every_rule_with_a_step_has_one_pass_steps_and_no_other():
    found = {p.stem for p in FOLDER.glob("*.py") if MARK in p.read_text(encoding="utf-8")}
    assert found == set(WITH_STEPS)
    assert "STEPS = {}" in emit_compiled(get_rule("inverse"))


@pytest.mark.parametrize("name", WITH_STEPS)
def test_a_module_imports_torch_and_nothing_of_ours(name):
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imports}
    assert names <= {"math", "torch"}


@pytest.mark.parametrize("name", WITH_STEPS)
def test_every_plain_step_has_a_one_pass_form_and_the_plain_module_has_none(name):
    plain, one_pass = module_of(name, ""), functions(module_of(name), "one_pass_")
    steps = {n for n in functions(plain, "step_") if not n.endswith("_foreach")}
    assert steps <= set(one_pass)
    assert {n.rpartition("_")[2] for n in set(one_pass) - steps} <= {"spaced", "held"}
    assert not functions(plain, "one_pass_")
    assert not functions(plain, "pack_")


@pytest.mark.parametrize("name", WITH_STEPS)
def test_the_table_of_steps_says_what_each_takes_and_writes(name):
    for step, entry in module_of(name).STEPS.items():
        base = step.removeprefix("step_")
        assert entry["one_pass"] is functions(module_of(name), "one_pass_")[base]
        assert entry["pack"] is functions(module_of(name), "pack_")[base]
        assert {*entry["tensors"], "scalars"} == arguments(entry["one_pass"])
        source = inspect.getsource(entry["one_pass"])
        assert re.findall(r"^    into_(\w+)\.copy_", source, re.MULTILINE) == [*entry["written"]]


@pytest.mark.parametrize("name", WITH_STEPS)
def test_what_a_step_packs_comes_from_its_scalars_its_hypers_or_the_optimizer(name):
    scalars = functions(module_of(name, ""), "scalars_")
    hypers = {h.name for h in get_rule(name).all_hypers} | {"microbatches", "lr", "keep", "skew"}
    for step, pack in functions(module_of(name), "pack_").items():
        strategy = step.removeprefix("observe_").removeprefix("apply_")
        source = inspect.getsource(scalars[strategy])
        given = {
            n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)
        }  # the keys of what it returns
        assert arguments(pack) <= hypers | given, step
