"""The emitted files: a module that imports torch alone, a test that can fail, a page."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache

import pytest
import torch

from deltabias.codegen.coq.subject import certificate_text
from deltabias.codegen.emit import MARK, digest, emit, format_source
from deltabias.codegen.sync import write_rule
from deltabias.derivation import derive
from deltabias.errors import DeltabiasError, GenerateError
from deltabias.notation.printing import latex
from deltabias.rule import UpdateRule
from deltabias.rules import CATALOGUE, get_rule

TYPED = UpdateRule.parse("g*v**(-1/3)/(1+eps)", name="typed")


def rule_of(name):
    return TYPED if name == "typed" else get_rule(name)


@cache
def emitted(name):
    return emit(rule_of(name))


def imported(source):
    """Top-level names of everything that a source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def statements_outside(source):
    """Kinds of the module's own statements: a generated module only defines functions."""
    return {type(n).__name__ for n in ast.parse(source).body[1:]}  # after the docstring


NAMES = ["adamw", "sophia_g", "adamw_mean_of_squares", "typed"]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_defines_functions_and_imports_nothing_but_torch_and_math(name):
    source = emitted(name).module
    assert imported(source) <= {"torch", "math"}
    assert statements_outside(source) <= {"Import", "ImportFrom", "FunctionDef"}
    assert imported("import os\nfrom deltabias import rule") == {"os", "deltabias"}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_carries_the_mark_the_name_and_the_digest(name):
    files = emitted(name)
    for text in (files.module, files.test, files.docs, certificate_text(rule_of(name))):
        assert MARK in text
        assert digest(rule_of(name)) in text
    assert f"Rule {name}, digest" in files.module


def test_the_digest_is_that_of_what_the_rule_says():
    assert digest(get_rule("adam")) == digest(get_rule("adamw"))  # the same map, by another name
    assert len({digest(r) for r in CATALOGUE.values()}) == len(CATALOGUE) - 2
    other = UpdateRule.parse("g*v**(-1/4)/(1+eps)", name="typed")
    assert digest(other) != digest(TYPED)
    assert re.fullmatch("[0-9a-f]{12}", digest(TYPED))


def test_there_is_no_time_and_no_path_in_a_generated_file():
    text = "".join(vars(emitted("adamw"))[k] for k in ("module", "test", "docs"))
    text += certificate_text(get_rule("adamw"))
    assert not re.search(r"20\d\d-\d\d|/home|/root|/tmp|/work", text)


def test_the_bias_in_the_header_is_the_one_that_is_derived():
    for term in derive(get_rule("adamw")).terms:
        assert f"{term.coefficient} · {term.moment}" in emitted("adamw").module


def test_the_certificate_states_the_derived_coefficients():
    text = certificate_text(get_rule("adamw"))
    for term in derive(get_rule("adamw")).terms:
        assert f"{term.coefficient}, is" in " ".join(text.split())
        assert f"Theorem {term.name}_coefficient_is_derived" in text


def test_a_rule_that_no_certificate_covers_has_a_file_that_says_so_and_proves_nothing():
    text = certificate_text(UpdateRule.parse("g*tanh(v)", name="bounded"))
    assert "Not certified." in text
    assert "give a box" in " ".join(text.split())
    assert "Theorem" not in text


def test_the_page_has_the_update_the_bias_the_claim_and_the_sources():
    page = emitted("adamw").docs
    assert latex(get_rule("adamw").update, get_rule("adamw").notation) in page
    for part in ("**coupling**", "**inversion**", "## The safe form", "ratio without subtraction",
                 "| `delta` | 2 | trajectory | 1 | 3 | 12 |", "torch.optim.AdamW"):  # fmt: skip
        assert part in page
    assert "it can overshoot" in emit(UpdateRule.parse("g*v", name="product")).docs


def test_the_module_computes_what_the_rule_says():
    namespace = {}
    exec(emitted("typed").module, namespace)
    g, v = torch.tensor([2.0, -1.0]).double(), torch.tensor([8.0, 27.0]).double()
    found = namespace["plug_in_update"](g, v, eps=0.25)
    torch.testing.assert_close(found, torch.tensor([1.0, -1 / 3]).double() / 1.25)
    rho = torch.tensor([0.1, 0.2]).double()
    corrected = namespace["corrected_update"](g, v, 0 * rho, rho, eps=0.25)
    # ½ (1/3)(4/3) = 2/9 of the relative variance divides
    torch.testing.assert_close(corrected, found / (1 + rho * 2 / 9))


# -- the emitted test can fail --------------------------------------------------------------------


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_emitted_test(path):
    """Every test of an emitted file, over all its cases."""
    module = load(path)
    names = [n for n in vars(module) if n.startswith("test_")]
    assert len(names) == 3
    for name in names:
        for case in module.CASES:
            getattr(module, name)(*case)


@pytest.mark.parametrize(
    "text", ["g*v**(-1/3)/(1+eps)", "1/(sqrt(v)+eps)", "g*exp(-v)", "clip(g/max(v, eps), -1, 1)"]
)
def test_the_emitted_test_of_a_typed_rule_passes(text, tmp_path):
    write_rule(UpdateRule.parse(text, name="typed"), tmp_path)
    run_emitted_test(tmp_path / "test_typed.py")


@pytest.mark.parametrize(
    ("wrong", "right"), [("* 0.125", "* 0.12500000001"), ("share * 2 + 1", "share + 2"),
                         ("x0 + eps", "x0 - eps")]
)  # fmt: skip
def test_the_emitted_test_fails_for_a_module_with_a_planted_mistake(wrong, right, tmp_path):
    write_rule(UpdateRule.parse("g/(sqrt(v)+eps)", name="typed"), tmp_path)
    path = tmp_path / "typed.py"
    source = path.read_text()
    assert wrong in source
    path.write_text(source.replace(wrong, right, 1))
    with pytest.raises(AssertionError):
        run_emitted_test(tmp_path / "test_typed.py")


# -- a user's string is data ----------------------------------------------------------------------

HOSTILE = ['"""', '"""\nimport os\n"""', "\\", '\\"""', "'''", "{os}", "\\N{DASH}", "a\nb", "\x00"]


def hostile_rule(field, text):
    plain = get_rule("inverse")
    value = (text,) if field == "sources" else text
    return UpdateRule("hostile", plain.update, plain.states, **{field: value})


# a title comes from a user's file and goes into the module's docstring
@pytest.mark.parametrize("field", ["title", "text", "sources"])
@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_words_for_people_cannot_become_code(field, text):
    try:
        source = emit(hostile_rule(field, text)).module
    except DeltabiasError:
        return
    assert imported(source) == {"torch"}
    assert statements_outside(source) <= {"Import", "ImportFrom", "FunctionDef"}


def test_a_typed_comment_does_not_become_code():
    with pytest.raises(DeltabiasError):
        emit(UpdateRule.parse('g/v # """;import os;os.system("true") ;"""'))


def test_code_that_cannot_be_formatted_is_an_error():
    with pytest.raises(GenerateError, match="generated code cannot be formatted: "):
        format_source("def f(:\n")
    assert format_source("x=1") == "x = 1\n"


def test_a_missing_formatter_is_an_error(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(GenerateError, match="ruff is not installed; pip install 'deltabias"):
        format_source("x = 1\n")


# -- the same text every time ---------------------------------------------------------------------

PRINT = """
import hashlib
from deltabias.codegen.coq.subject import certificate_text
from deltabias.codegen.emit import emit
from deltabias.rule import UpdateRule
from deltabias.rules import get_rule
for rule in (get_rule("rmsprop"), UpdateRule.parse("g/(v*w) + tanh(g)*v")):
    found = emit(rule)
    text = found.module + found.test + found.docs + certificate_text(rule)
    print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_generated_files_do_not_depend_on_the_hash_seed():
    said = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT], env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1
    assert len(set(said.pop().split())) == 2
