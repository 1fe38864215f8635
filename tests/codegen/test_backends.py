"""Backends for a rule of one's own: the same values, and refusals that name what is in the way."""

import ast
import importlib.util
from functools import cache

import pytest
import torch
from click.testing import CliRunner
from tests.fused.cases import needs_compiler

from deltabias.cli.generate_command import generate
from deltabias.codegen.backends import BACKENDS, TAKEN, TAKEN_PARTS, emit_backend
from deltabias.codegen.emit import emit
from deltabias.codegen.kernels import filling, rule_programs
from deltabias.codegen.sync import write_rule
from deltabias.errors import GenerateError
from deltabias.optim.compiled_step import run_one_pass
from deltabias.rule import (
    BETA1,
    BETA2,
    EPS,
    MEAN_GRADIENT,
    SQUARE_OF_MEAN,
    Ema,
    UpdateRule,
)
from deltabias.rules import MATRIX_CATALOGUE

TEXTS = {
    "third_root": "g/(v**(1/3)+eps)",
    "logarithm": "g/(log(1+v)+eps)",
    "bounded": "g*tanh(v)",
}
OWN = UpdateRule(
    "cube_root_adam",
    "exp_avg/(exp_avg_sq**(1/3)+eps)",
    (Ema("exp_avg", MEAN_GRADIENT, BETA1), Ema("exp_avg_sq", SQUARE_OF_MEAN, BETA2)),
    (EPS,),
)
BOUND = 32
"""What every element keeps within, in units in the last place of the largest value: the plain
function rounds as often."""

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@cache
def loaded(source):
    """A module from its source, as a user imports it."""
    namespace = {"__name__": "own"}
    exec(source, namespace)
    return type("Own", (), {n: staticmethod(v) if callable(v) else v for n, v in namespace.items()})


@cache
def own(name):
    return OWN if name == OWN.name else UpdateRule.parse(TEXTS[name], name=name)


@cache
def source_of(name, backend):
    return emit_backend(own(name), backend)


@cache
def forms(name):
    """The plain module and the compiled one."""
    return loaded(emit(own(name)).module), loaded(source_of(name, "compiled"))


def drawn(names, dtype=torch.float64, size=40_000):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in names:
        x = torch.rand(size, generator=generator, dtype=torch.float64) + 0.1
        tensors[name] = x.to(dtype)
    if "unit_of_c" in tensors:
        tensors["unit_of_c"] = torch.tensor(0.7, dtype=dtype)
    return tensors


def apart(ours, plain):
    """Units in the last place of the largest value, at the worst element."""
    return float((ours - plain).abs().max() / plain.abs().max() / torch.finfo(plain.dtype).eps)


def update_both_ways(name, function, dtype, compile_it, scale=1.0):
    plain, compiled = forms(name)
    tensors = drawn(compiled.STEPS[function]["tensors"], dtype)
    wanted = [n for n in own(name).all_hypers if n.name in TEXTS[name]]
    scalars = {h.name: 0.01 for h in wanted}
    expected = getattr(plain, function)(*list(tensors.values())[1:], **scalars) * scale
    columns = {n: [t] for n, t in tensors.items()}
    run_one_pass(compiled, function, columns, scalars, compile_it=compile_it)
    return tensors["update"], expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", ["plug_in_update", "corrected_update"])
@pytest.mark.parametrize("name", TEXTS)
def test_an_update_in_one_pass_is_the_plain_one(name, function, dtype):
    assert apart(*update_both_ways(name, function, dtype, False)) < BOUND
    wrong = update_both_ways(name, function, dtype, False, 1 + 64 * torch.finfo(dtype).eps)
    assert apart(*wrong) > BOUND


@needs_compiler
@pytest.mark.parametrize("name", TEXTS)
def test_a_compiled_update_is_the_plain_one(name):
    assert apart(*update_both_ways(name, "corrected_update", torch.float32, True)) < BOUND


STEP_SCALARS = {"eps": 1e-3, "beta1": 0.9, "beta2": 0.95, "lr": 0.01, "t": 3, "microbatches": 8.0}


def test_a_step_of_a_rule_of_one_s_own_in_one_pass_is_the_plain_one():
    plain, compiled = forms(OWN.name)
    scalars = {**STEP_SCALARS, **plain.scalars_delta(3, 0.9, 0.95)}
    before = drawn(compiled.STEPS["step_delta"]["tensors"])
    ours = {n: t.clone() for n, t in before.items()}
    theirs = {n: t.clone() for n, t in before.items()}
    run_one_pass(compiled, "step_delta", {n: [t] for n, t in ours.items()}, scalars,
                 compile_it=False)  # fmt: skip
    (step,) = [p for p in rule_programs(OWN).steps if p.name == "step_delta"]
    plain.step_delta(*theirs.values(), **{n: scalars[n] for n in step.scalars})
    for name, tensor in theirs.items():
        assert apart(ours[name], tensor) < BOUND
    assert {n for n in before if not torch.equal(before[n], ours[n])} == {
        *compiled.STEPS["step_delta"]["written"]
    }


def test_an_own_rule_has_the_steps_of_the_plain_module_and_the_spaced_ones():
    plain, compiled = forms(OWN.name)
    steps = {n for n in vars(plain) if n.startswith("step_") and not n.endswith("_foreach")}
    assert steps < set(compiled.STEPS)
    assert {n for n in compiled.STEPS if n.startswith("step_")} - steps == {
        f"step_{s}_{k}" for s in ("delta", "closed_form") for k in ("spaced", "held")
    }


# -- files ----------------------------------------------------------------------------------------


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_backend_adds_a_module_and_a_test(tmp_path):
    before = write_rule(own("third_root"), tmp_path)
    after = write_rule(own("third_root"), tmp_path, BACKENDS)
    assert [p.name for p in after[len(before) :]] == [
        f"{kind}third_root_{backend}.py" for backend in BACKENDS for kind in ("", "test_")
    ]


def test_the_emitted_test_of_the_compiled_form_passes_and_can_fail(tmp_path, monkeypatch):
    # uncompiled, for time: the same function
    monkeypatch.setattr("deltabias.optim.compiled_step.compiler_missing", lambda: "for time")
    write_rule(own("bounded"), tmp_path, ["compiled"])
    module = load(tmp_path / "test_bounded_compiled.py")
    for case in module.CASES:
        module.test_a_value_is_within_16_units_in_the_last_place(*case)
        module.test_a_wrong_value_is_seen(*case)
    source = (tmp_path / "bounded_compiled.py").read_text()
    (tmp_path / "bounded_compiled.py").write_text(source.replace("torch.tanh", "torch.atan"))
    module = load(tmp_path / "test_bounded_compiled.py")
    with pytest.raises(AssertionError, match="units in the last place at"):
        module.test_a_value_is_within_16_units_in_the_last_place(*module.CASES[0])


def test_the_command_offers_the_backends_that_there_are():
    (option,) = [p for p in generate.params if p.name == "backends"]
    assert tuple(option.type.choices) == tuple(BACKENDS)


def test_the_command_writes_a_backend_and_checks_it_for_drift(tmp_path):
    def run(*more):
        return CliRunner().invoke(generate, [*common, *more])

    common = [TEXTS["third_root"], "--name", "own", "--out", str(tmp_path), "--backend", "triton"]
    assert run().exit_code == 0
    assert run("--check").output == "6 generated files match their rules.\n"
    module = tmp_path / "own_triton.py"
    module.write_text(module.read_text() + "\n")
    drifted = run("--check")
    assert drifted.exit_code == 1
    assert f"changed: {module}" in drifted.output
    assert "--name own --backend triton" in drifted.output  # the command that mends it


def test_the_catalogue_s_backends_are_not_chosen():
    refused = CliRunner().invoke(generate, ["--backend", "triton"])
    assert refused.exit_code == 2
    assert "--backend needs a RULE" in refused.output


# -- refusals -------------------------------------------------------------------------------------


def test_an_operation_that_a_backend_does_not_have_is_named():
    rule = UpdateRule.parse("g*atan(v)", name="angle")
    assert emit_backend(rule, "compiled")
    message = "rule 'angle' has no triton form: atan has no Triton operation in the table; known"
    with pytest.raises(GenerateError, match=message):
        emit_backend(rule, "triton")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(MATRIX_CATALOGUE))
def test_a_rule_of_matrices_is_refused_by_name(name, backend):
    with pytest.raises(GenerateError, match=f"rule '{name}' has no {backend} form: it works on"):
        emit_backend(MATRIX_CATALOGUE[name], backend)


def test_a_backend_that_is_not_known_is_refused():
    with pytest.raises(GenerateError, match="backend='cuda' is not known; use compiled or triton"):
        emit_backend(own("third_root"), "cuda")


def test_nothing_is_written_where_a_backend_refuses(tmp_path):
    with pytest.raises(GenerateError, match="no triton form"):
        write_rule(UpdateRule.parse("g*atan(v)"), tmp_path / "new", ["compiled", "triton"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "backend", "name"),
    [
        ("g/(size+eps)", "triton", "size"),
        ("g/(v_at+eps)", "triton", "v_at"),
        ("g/(scalars+eps)", "compiled", "scalars"),
        ("g/(into_v+eps)", "compiled", "into_v"),
    ],
)
def test_a_name_that_the_functions_use_themselves_is_refused(text, backend, name):
    with pytest.raises(GenerateError, match=f"use the name '{name}' themselves; call the statisti"):
        emit_backend(UpdateRule.parse(text), backend)


def bound_names(source):
    """Arguments and local names of every function, private ones apart."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "largest")):
            found |= {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
            found |= {
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
    return {n.lower() for n in found if not n.startswith("_")}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_name_that_a_backend_uses_itself_is_among_those_refused(backend):
    programs = rule_programs(OWN)
    functions = (*map(filling, programs.updates), *programs.steps, *programs.spaced)
    scalars = (*programs.scalars, *programs.spaced_scalars)
    theirs = {"keep", "skew", "lr", "weight_decay", "coupled_decay", "t"}
    for p in (*functions, *scalars):
        theirs |= {*p.tensors, *p.scalars, *(s.target for s in p.statements)}
    starts, ends = TAKEN_PARTS[backend]
    for name in bound_names(source_of(OWN.name, backend)) - theirs - TAKEN[backend]:
        # a name of the rule's with something behind it is the printer's own, too
        derived = any(name.startswith(f"{n}_") for n in theirs)
        taken = name.startswith(starts) or name.endswith(ends) or derived
        assert taken, f"{name} is a printer's own name: put it into TAKEN[{backend!r}]"
