"""``deltabias certify``: exit codes, what is printed, what is written and what is not."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tests.certify.subjects import certificate

from deltabias.certify import check, coq, theory
from deltabias.cli import main
from deltabias.codegen.coq import subject


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["certify", *map(str, arguments)])
    assert result.exit_code == code, result.output + result.stderr
    return result


def test_a_rule_is_certified_and_each_theorem_is_printed_with_its_sentence(compiled, tmp_path):
    result = run("g/h", "--name", "newton", "--out", tmp_path)
    stated = certificate("inverse").theorems
    for theorem in stated:
        assert theorem.name in result.stdout
    assert "at most bound_3" in result.stdout
    assert "Not certified:" in result.stdout
    assert "rounding" in result.stdout
    assert "ClassicalDedekindReals.sig_forall_dec" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["newton.v"]
    names = [t.name for t in coq.theorems_of("newton", (tmp_path / "newton.v").read_text())]
    assert names == [t.name for t in stated]


def test_json_says_the_same(compiled):
    record = json.loads(run("v**(-1/2)", "--order", "4", "--json").stdout)
    assert record["certified"] is True
    assert record["order"] == 4
    assert record["domain"] == ["v >= lo > 0"]
    kinds = {t["kind"] for t in record["theorems"]}
    assert kinds == {"derivative", "bound", "coefficient", "remainder", "bridge", "closed_form"}
    assert set(record["axioms"]) <= set(coq.ALLOWED_AXIOMS)
    assert record["file"] is None


@pytest.mark.parametrize("rule", ["g/(v**(1/3)+eps)", "g/log(1+v)", "inv_root(L+eps*I, 5)*M"])
def test_a_rule_of_no_catalogue_is_certified(compiled, rule):
    record = json.loads(run(rule, "--json").stdout)
    assert record["certified"] is True
    assert set(record["axioms"]) <= set(coq.ALLOWED_AXIOMS)


def test_other_functions_are_certified_on_a_box(compiled):
    result = run("g*tanh(v)", "--box", "v=-1:2")
    assert "certified at order 2 on -1 <= v <= 2" in result.stdout
    assert "anything outside the box" in result.stdout


def test_a_rejected_statement_is_exit_code_1_and_writes_nothing(compiled, tmp_path, monkeypatch):
    good = certificate("inverse")
    bad = replace(good, text=good.text.replace("6 * (/ (lo ^ 4))", "5 * (/ (lo ^ 4))"))
    monkeypatch.setattr(subject, "scalar_certificate", lambda *_, **__: bad)
    result = run("g/h", "--out", tmp_path, code=1)
    assert "rejected: " in result.stderr
    assert "certified" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_hole_or_an_axiom_is_rejected(compiled):
    good = certificate("inverse")
    hole = replace(good, text=good.text.replace("Qed.", "Admitted.", 1))
    with pytest.raises(coq.Rejected, match="Admitted leaves something unproved"):
        check.check(hole)
    opening = "Section Rule.\n"
    assumed = (
        "From Coq Require Import ProofIrrelevance.\n"
        + opening
        + ("Lemma all_one (P : Prop) (a b : P) : a = b. Proof. apply proof_irrelevance. Qed.\n")
    )
    used = good.text.replace(opening, assumed).replace(
        "Proof. intros Hv; unfold update, f_0;",
        "Proof. intros Hv; assert (z := all_one True I I); unfold update, f_0;",
    )
    with pytest.raises(coq.Rejected, match=r"stands on .*proof_irrelevance"):
        check.check(replace(good, text=used))


def test_a_time_limit_is_exit_code_2_and_writes_nothing(compiled, tmp_path):
    result = run("g/h", "--time-limit", "0.05", "--out", tmp_path, code=2)
    assert "not finished within 0.05 s" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_coqc_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run("g/h", "--out", tmp_path / "out", code=2)
    assert "coqc is not installed: sudo apt-get install coq" in result.stderr
    assert not (tmp_path / "out").exists()


BAD = {
    "singular point": (["g/h", "--box", "h=-1:1"], "singular point inside the box, where h = 0"),
    "leaves the domain": (["g*sqrt(v)", "--box", "v=-1:1"], "singular point|leaves the domain"),
    "no bound": (["g*tanh(v)"], "no bound of its derivatives .* --box v=0.1:10"),
    "no box for a hyperparameter": (["g*tanh(eps*v)", "--box", "v=0:1"], "--box eps=LOW:HIGH"),
    "unknown box": (["g/h", "--box", "w=1:2"], "--box w is neither"),
    "no box at all": (["g/h", "--box", "h"], "write NAME=LOW:HIGH"),
    "empty box": (["g/h", "--box", "h=2:1"], "LOW < HIGH"),
    "endless box": (["g/h", "--box", "h=1:inf"], "write NAME=LOW:HIGH"),
    "box twice": (["g/h", "--box", "h=1:2", "--box", "h=1:3"], "given twice"),
    "three statistics": (["g*h/(v+eps)"], "one statistic times a map of another"),
    "not proportional": (["g/sqrt(v+g*g)"], "proportional to none of them"),
    "no derivative in the theory": (["g/erf(v)"], "erf.* cannot be certified"),
    "kink": (["g/(1+abs(h))"], "Abs.* cannot be certified"),
    "independent at fourth": (["sophia_g", "--order", "4"], "independent by construction"),
    "no time": (["g/h", "--time-limit", "0"], "leaves no time"),
    "linear": (["2*g + h"], "linear in its statistics"),
    "no rule": (["Adamm"], "unknown symbol|no rule"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_exit_code_2_and_named(arguments, message, tmp_path):
    result = run(*arguments, "--out", tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []
    flat = " ".join(result.stderr.split())
    assert pytest.importorskip("re").search(message, flat), flat


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path):
    (tmp_path / "inverse.v").write_text("Goal True. exact I. Qed.\n")
    with pytest.raises(ValueError, match=r"inverse\.v exists and is no certificate"):
        check.write(certificate("inverse"), tmp_path)
    assert (tmp_path / "inverse.v").read_text() == "Goal True. exact I. Qed.\n"


def test_the_compiled_theory_is_named_by_its_text(tmp_path, monkeypatch):
    monkeypatch.setattr(coq, "version", lambda: "8.16.1")
    (tmp_path / "a.v").write_text("Lemma one : 1 = 1. Proof. reflexivity. Qed.\n")
    before = theory.digest(tmp_path)
    (tmp_path / "a.v").write_text("Lemma one : 1 = 1. Proof. auto. Qed.\n")
    assert theory.digest(tmp_path) != before
    monkeypatch.setattr(coq, "version", lambda: "8.17.0")
    assert theory.digest(tmp_path) != before
