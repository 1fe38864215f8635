"""The command line: the contracts that scripts rely on, exit codes, and clear refusals."""

import json
import subprocess
import sys

import pytest
import sympy as sp
from click.testing import CliRunner

import deltabias
from deltabias import __main__ as door
from deltabias.cli import main
from deltabias.cli.derivation_text import as_record
from deltabias.derivation import derive
from deltabias.rules import CATALOGUE, get_rule

STRING_RULE = "g/(sqrt(v)+eps)"
SMALL = ["--noise-shares", "1", "--steps", "1", "--replicates", "200"]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


# -- derive ---------------------------------------------------------------------------------------


def test_derive_prints_the_terms_that_scripts_rely_on():
    record = json.loads(run("derive", STRING_RULE, "--json").stdout)
    assert record["rule"] == STRING_RULE
    assert record["order"] == 1
    coupling, inversion = record["terms"]
    assert (coupling["name"], coupling["moment"], coupling["order"]) == ("coupling", "cov(g, v)", 1)
    assert (inversion["name"], inversion["moment"]) == ("inversion", "var(v)")
    v, eps, g = sp.symbols("v eps g", positive=True)
    s = sp.sqrt(v)
    plain = {str(x): x for x in (v, eps, g)}
    expected = {"coupling": -1 / (2 * s * (s + eps) ** 2),
                "inversion": g * (eps + 3 * s) / (8 * s**3 * (s + eps) ** 3)}  # fmt: skip
    for term in record["terms"]:
        read = sp.sympify(term["coefficient"], locals=plain)
        assert sp.simplify(read - expected[term["name"]]) == 0
    assert record["domain"] == ["v > 0"]


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("order", [1, 2])
def test_every_coefficient_is_read_back_by_sympify(name, order):
    rule = get_rule(name)
    derivation = derive(rule, order)
    record = as_record(derivation)
    assert len(record["terms"]) == len(derivation.terms)
    values = {s.symbol.name: sp.Rational(7, 3 + i) for i, s in enumerate(rule.states)}
    values |= {h.name: sp.Rational(1, 5) for h in rule.all_hypers}

    def number(expression):
        return sp.N(expression.subs({s: values[s.name] for s in expression.free_symbols}))

    for said, term in zip(record["terms"], derivation.terms, strict=True):
        assert number(sp.sympify(said["coefficient"])) == pytest.approx(number(term.coefficient))
        assert said["moment"] == str(term.moment)


def test_lower_case_symbols_are_statistics_unless_they_are_declared():
    moments = [t["moment"] for t in _terms("g/(v + eps + c)")]
    assert "var(c)" in moments
    moments = [t["moment"] for t in _terms("g/(v + eps + c)", "--hyper", "c")]
    assert moments == ["cov(g, v)", "var(v)"]
    record = json.loads(run("derive", "g/(v+c)", "--hyper", "c=0.5", "--json").stdout)
    assert record["hypers"] == {"c": 0.5}


def _terms(*arguments):
    return json.loads(run("derive", *arguments, "--json").stdout)["terms"]


def test_the_order_decides_how_many_terms_there_are():
    orders = [{t["order"] for t in _terms("g*v**(-1/3)", "--order", k)} for k in (1, 2, 3)]
    assert orders == [{1}, {1, 2}, {1, 2, 3}]


@pytest.mark.parametrize("style", ["text", "latex"])
def test_people_get_the_terms_the_safe_form_and_the_claim(style):
    said = run("derive", "adamw", "--format", style).stdout
    for word in ("coupling", "inversion", "denominator", "update", "order 2 over the trajectory"):
        assert word in said
    longer = run("derive", "adamw", "--format", style, "--steps").stdout
    assert "The update as a map of its states" in longer
    assert len(longer) > 1.5 * len(said)


def test_text_is_drawn_in_unicode_and_latex_names_the_greek():
    assert "√v" in run("derive", STRING_RULE).stdout
    said = run("derive", STRING_RULE, "--format", "latex").stdout
    assert r"\epsilon + \sqrt{v}" in said
    assert r"\operatorname{var}{\left(v \right)}" in said


def test_a_linear_rule_has_no_bias_and_says_so():
    said = run("derive", "2*g + h").stdout
    assert "none: the update is linear in its statistics" in said
    assert json.loads(run("derive", "2*g + h", "--json").stdout)["terms"] == []


def test_a_rule_file_is_derived_like_any_other(tmp_path):
    file = tmp_path / "rule.toml"
    file.write_text('name="mine"\nupdate="g/v"\n[states.g]\nkind="fresh"\n'
                    '[states.v]\nkind="fresh"\nsample="x**2"\n')  # fmt: skip
    record = json.loads(run("derive", file, "--json").stdout)
    assert record["name"] == "mine"
    assert [t["coefficient"] for t in record["terms"]] == ["-1/v**2", "g/v**3"]


def test_a_rule_that_cannot_be_corrected_is_still_derived():
    record = json.loads(run("derive", "2*g + h", "--json").stdout)
    assert record["correction"]["strategy"] is None
    assert "linear in its statistics" in record["correction"]["why"]
    assert "nothing to correct" in run("derive", "2*g + h").stdout


# -- generate -------------------------------------------------------------------------------------


def test_generate_writes_a_rule_and_check_sees_a_hand_edit(tmp_path):
    common = ["generate", STRING_RULE, "--name", "mine", "--out", tmp_path]
    run(*common)
    names = {"mine.py", "test_mine.py", "mine.md", "mine.v"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert "4 generated files match" in run(*common, "--check").stdout
    module = tmp_path / "mine.py"
    good = module.read_text()
    module.write_text(good + "# by hand\n")
    checked = run(*common, "--check", code=1)
    assert f"changed: {module}" in checked.stdout
    assert "-# by hand" in checked.stdout
    assert f"deltabias generate '{STRING_RULE}' --out {tmp_path} --name mine" in checked.stderr
    assert module.read_text() == good + "# by hand\n", "a check writes nothing"
    module.unlink()
    record = json.loads(run(*common, "--check", "--json", code=1).stdout)
    assert [d["kind"] for d in record["drift"]] == ["missing"]
    run(*common)
    assert module.read_text() == good


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one rule, and a folder inside it as the current directory."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "deltabias"\n')
    inside = tmp_path / "docs" / "deep"
    inside.mkdir(parents=True)
    (inside / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.chdir(inside)
    monkeypatch.setattr("deltabias.rules.SUBJECTS", (get_rule("inverse"),))
    return tmp_path


def test_generate_alone_writes_the_catalogue_into_the_project(project):
    missing = run("generate", "--check", code=1)
    lines = [line for line in missing.stdout.splitlines() if line.startswith("missing: ")]
    assert len([line for line in lines if "proofs/rounding/" not in line]) == 4
    assert missing.stderr.endswith("To mend: deltabias generate\n")
    assert not (project / "src").exists()
    run("generate")
    module = project / "src/deltabias/generated/inverse.py"
    assert module.exists()
    run("generate", "--check")
    module.with_name("orphan.py").write_text(module.read_text())
    assert "orphan: src/deltabias/generated/orphan.py" in run("generate", "--check", code=1).stdout
    run("generate")
    assert not module.with_name("orphan.py").exists()


def test_the_catalogue_needs_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused = run("generate", code=2)
    assert "is not inside the deltabias project" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_leaves_nothing_half_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    refused = run("generate", STRING_RULE, "--out", file / "below", code=2)
    assert "Not a directory" in refused.stderr
    (tmp_path / "custom.py").write_text("my own\n")
    refused = run("generate", STRING_RULE, "--out", tmp_path, code=2)
    assert "was not generated; move it" in refused.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["custom.py", "file"]
    assert (tmp_path / "custom.py").read_text() == "my own\n"


def test_a_finished_rule_keeps_its_name():
    assert "is named 'adamw'" in run("generate", "adamw", "--name", "other", code=2).stderr


# -- report ---------------------------------------------------------------------------------------


def test_report_prints_the_json_that_scripts_rely_on():
    record = json.loads(run("report", "adamw", "--betas", 0.8, 0.9, *SMALL, "--json").stdout)
    steady = record["steady_state"][0]
    assert {"noise_share", "predicted", "simulated", "standard_error"} <= set(steady)
    assert record["settings"]["hypers"] == {"eps": 1e-8, "beta1": 0.8, "beta2": 0.9}
    assert record["by_step"][0]["step"] == 1
    assert record["verdict"]


def test_report_prints_a_table_and_a_verdict_and_draws(tmp_path):
    figure = tmp_path / "bias.svg"
    said = run("report", "adagrad", *SMALL, "--figure", figure, "--eps", 0).stdout
    assert "predicted" in said
    assert "-20.21" in said
    assert "Worth correcting" in said
    assert figure.read_text().startswith("<?xml")


def test_numbers_may_be_apart_or_with_commas():
    arguments = ["report", "adagrad", "--replicates", 200, "--json"]
    apart = run(*arguments, "--steps", 1, 3, "--noise-shares", 0.5, 1.0).stdout
    commas = run(*arguments, "--noise-shares", "0.5,1.0", "--steps", "1,3").stdout
    assert apart == commas
    assert [r["step"] for r in json.loads(apart)["by_step"]] == [1, 1, 3, 3]


def test_report_takes_any_hyperparameter_of_the_rule():
    record = json.loads(run("report", "rmsprop", "--hyper", "alpha=0.5", *SMALL, "--json").stdout)
    assert record["settings"]["hypers"]["alpha"] == 0.5
    typed = json.loads(run("report", "g/(sqrt(v)+c)", "--hyper", "c=0.1", *SMALL, "--json").stdout)
    assert typed["settings"]["hypers"] == {"c": 0.1}
    assert len(typed["settings"]["assumptions"]) == 2


# -- demo -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_demo_runs_the_story_and_fails_with_its_test(monkeypatch, tmp_path, passed, code):
    told = {}

    def story(**arguments):
        told.update(arguments)
        return {"passed": passed, "ratio": float("nan"), "seconds": (1.5,)}

    monkeypatch.setattr("deltabias.demo.run_demo", story)
    result = run("demo", "--seeds", 2, "--steps", 7, "--out", tmp_path, "--json", code=code)
    assert json.loads(result.stdout) == {"passed": passed, "ratio": None, "seconds": [1.5]}
    assert (told["seeds"], told["steps"], told["directory"]) == ((0, 1), 7, tmp_path)
    assert told["console"].stderr, "with --json standard output is for the record"


# -- bad input ------------------------------------------------------------------------------------

BAD_INPUT = [
    (["derive", "__import__('os')"], "is not accepted in a rule"),
    (["derive", "g.__class__"], "is not accepted in a rule"),
    (["derive", "lambda: 0"], "is not accepted in a rule"),
    (["derive", "[g for g in v]"], "is not accepted in a rule"),
    (["derive", "2**10**9"], "in '2**10**9' is out of range"),
    (["derive", "g+" * 5000 + "g"], "a rule has 1 to 2000 characters, this one has 10001"),
    (["derive", "g/("], "is not an expression"),
    (["derive", "inv_root(L)*M"], "inv_root takes 2 argument(s), got 1"),
    (["derive", "eps+1"], "depends on no statistic"),
    (["derive", "max(g, v)"], "not differentiable where they meet"),
    (["derive", "adamx"], "Did you mean 'adam'?"),
    (["derive", "missing.toml"], "missing.toml: cannot be read"),
    (["derive", STRING_RULE, "--hyper", "q"], "hyperparameter q does not occur"),
    (["derive", STRING_RULE, "--hyper", "eps=x"], "'x' is no number"),
    (["derive", "adamw", "--hyper", "q"], "only a rule typed as a string"),
    (["derive", STRING_RULE, "--order", "4"], "4 is not in the range"),
    (["generate", "--out", "build"], "--out needs a RULE"),
    (["generate", STRING_RULE, "--name", "My Rule"], "rule name 'My Rule' is not allowed"),
    (["report", "adamw", "--eps", "-1"], "eps=-1.0 is outside [0, inf)"),
    (["report", "adamw", "--eps", "nan"], "eps=nan must be a finite number"),
    (["report", "adamw", "--betas", "0.9", "1"], "beta2=1.0 is outside [0, 1)"),
    (["report", "adamw", "--betas", "nan", "0.9"], "beta1=nan must be a finite number"),
    (["report", "rmsprop", "--betas", "0.9", "0.9"], "it has eps, alpha"),
    (["report", "adamw", "--microbatches", "1"], "one microbatch gives no variance estimate"),
    (["report", "adamw", "--law", "cauchy"], "law 'cauchy' is unknown; choose one of normal"),
    (["report", "adamw", "--noise-shares", "0", "1"], "must be numbers in (0, 1]"),
    (["report", "adamw", "--noise-shares", "-1"], "must be numbers in (0, 1]"),
    (["report", "adamw", "--steps", "1.5"], "'1.5' must be integers"),
    (["report", "adamw", "--steps", "0"], "step=0 must be an integer from 1"),
    (["report", "adamw", "--replicates", "1"], "replicates=1 must be an integer"),
    (["report", "adamw", "--figure", "bias.png"], "must end in .svg"),
    (["report", "adamw", "--hyper", "eps"], "--hyper eps needs a value here"),
    (["report", "adamw", "--hyper", "seed=1"], "is the name of an option"),
    (["report", "g*h"], "nothing says what statistic 'h' is made of"),
    (["demo", "--seeds", "0"], "0 is not in the range"),
    (["guess"], "No such command 'guess'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT)
def test_bad_input_is_exit_code_2_with_a_message_and_nothing_else(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused = run(*arguments, code=2)
    assert refused.stdout == ""
    assert message in " ".join(refused.stderr.split())
    assert list(tmp_path.iterdir()) == []


# -- the door -------------------------------------------------------------------------------------


def test_the_version_is_the_packages():
    assert deltabias.__version__ in run("--version").stdout


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "deltabias", "derive", STRING_RULE, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == run("derive", STRING_RULE, "--json").stdout


def test_the_door_opens_without_sympy_torch_or_matplotlib():
    code = (
        "import sys, deltabias.cli\n"
        "print({'sympy', 'torch', 'matplotlib', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_is_missing_is_named_with_the_extra_that_has_it(monkeypatch, capsys):
    monkeypatch.setattr(door, "find_spec", lambda name: None if name == "click" else object())
    with pytest.raises(SystemExit) as stopped:
        door.main()
    assert stopped.value.code == 2
    assert "needs click; pip install 'deltabias[cli]'" in capsys.readouterr().err
