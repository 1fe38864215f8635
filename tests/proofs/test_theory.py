"""The theory by hand: compiled, without a hole, on the axioms of the reals and no other."""

import doctest
import importlib
from pathlib import Path

import pytest
from tests.proofs.conftest import PROOFS, run_check
from tests.proofs.coverage import EVALUATED

STATEMENTS = ("algebra", "expansion", "maps", "rules")

PROMISED = {
    "Taylor with Lagrange's remainder, any order, both directions": "taylor.taylor_lagrange",
    "the delta theorem at any order": "delta.delta_theorem",
    "numerator and preconditioner together": "joint_delta.joint_delta_theorem",
    "coupling inside the theorem": "delta.coupling_and_inversion",
    "coupling and inversion of a batch": "coupled_mean.both_biases_of_a_batch",
    "the expansion in 1/m with a third-order rest": "mean_delta.delta_of_mean",
    "the exact identity for 1/X": "inverse.E_inverse",
    "its any-order form": "inverse.E_inverse_any_order",
    "1/(sqrt v + eps) at fourth order": "sqrt_eps.delta_sqrt_eps_fourth_order",
    "powers at any order": "power.delta_power",
    "unbiasedness for unequal variances": "estimators.unbiased_equal_weights",
    "unbiasedness for weights": "estimators.unbiased_token_weights",
    "independence of the folds": "estimators.cross_fit_factors",
    "leave-one-out without coupling": "exchange.leave_one_out_factors",
    "the jackknife's order": "mean_delta.jackknife_of_mean",
    "the resolvent identity at any order in a ring": "resolvent.resolvent_any_order",
    "the same for matrices": "resolvent.matrix_resolvent_second_order",
    "divided differences of inverse roots": "divided.second_order_is_divided_difference",
    "the second order of A^(-1/p) for matrices": "matrix_root.inverse_root_to_second_order",
    "AdamW without decay is Adam": "rules.adamw_without_decay_is_adam",
    "RMSprop is Adam with b1 = 0": "rules.rmsprop_is_adam_without_momentum",
    "Shampoo at d = 1 is AdaGrad": "rules.shampoo_1d_is_adagrad",
    "foreach is single": "rules.foreach_is_single",
    "geometric sums": "ema.weight_products",
    "the safe ratio is the subtraction up to q²": "safe_ratio.ratio_minus_subtraction",
    "the safe ratio stays positive": "safe_ratio.ratio_positive",
}

# Theorems whose statement has no two sides to compute.
NOT_A_NUMBER: dict[str, str] = {}


@pytest.fixture(scope="module")
def check():
    """What proofs/check.py runs Coq with."""
    return importlib.import_module("deltabias.certify.coq")


def names(check) -> set[str]:
    files = sorted((PROOFS / "theory").glob("*.v"))
    return {f"{t.file}.{t.name}" for f in files for t in check.theorems_of(f.stem, f.read_text())}


@pytest.mark.slow
def test_theory_is_proved_and_coqchk_agrees(checked):
    assert checked.status == 0, checked.errors
    assert checked.report["coqchk_seconds"] is not None
    assert sum(checked.report["seconds"].values()) < 300


@pytest.mark.slow
def test_axioms_are_those_of_the_reals(checked, check):
    used = {axiom for axioms in checked.report["axioms"].values() for axiom in axioms}
    assert used <= set(check.ALLOWED_AXIOMS)
    assert checked.report["axioms"]["resolvent"] == []  # algebra needs none


def test_what_was_promised_is_there(check):
    assert set(PROMISED.values()) <= names(check)


def test_every_theorem_is_said_in_words(check):
    files = sorted((PROOFS / "theory").glob("*.v"))
    mute = [t.name for f in files for t in check.theorems_of(f.stem, f.read_text()) if not t.words]
    assert mute == []


def test_every_theorem_is_evaluated_by_a_test(check):
    for part in STATEMENTS:
        importlib.import_module(f"tests.proofs.test_statements_{part}")
    importlib.import_module("tests.certify_matrix.test_statements")
    covered = set(EVALUATED) | set(NOT_A_NUMBER)
    assert names(check) - covered == set()
    lemmas = {"finite_law.Cov_square", "finite_law.Var_square"}
    assert covered - names(check) <= lemmas


def test_names_are_read_out_of_an_answer(check):
    assert doctest.testmod(check).attempted > 0
    assert doctest.testmod(check).failed == 0


HOLES = {
    "admitted": "Lemma wrong : 1 = 2. Admitted.",
    "axiom": "Axiom wrong : 1 = 2.",
    "parameter": "Parameter n : nat.",
    "assumed outside a section": "Variable n : nat.",
    "assumed after a section": "Section S. End S.\nHypothesis wrong : 1 = 2.",
    "guard off": "Unset Guard Checking.",
}


@pytest.mark.parametrize("text", HOLES.values(), ids=HOLES)
def test_holes_are_found_with_their_place(check, text):
    with pytest.raises(check.Rejected, match=r"f\.v:\d+: \w+.* leaves something unproved"):
        check.look_for_holes(Path("f.v"), f"(* Admitted in a comment is none *)\n{text}\n")


def test_a_section_may_assume(check):
    check.look_for_holes(
        Path("f.v"), "Section S.\nVariable n : nat.\nHypothesis h : n = 0.\nEnd S."
    )


def test_an_axiom_off_the_list_is_named(check):
    report = check.Report("8", axioms={"f": ["Classical_Prop.classic", "wishful.thinking"]})
    with pytest.raises(check.Rejected, match=r"stands on wishful\.thinking; allowed are"):
        check.compare_with_whitelist(report)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("Lemma wrong : 1 = 2. Proof. reflexivity. Qed.", 1, "rejected: "),
        ("Lemma wrong : 1 = 2. Admitted.", 1, "leaves something unproved"),
        ("From deltabias Require Import nowhere.", 1, "which is not there"),
        ("From deltabias Require Import one.", 1, "imports itself"),
    ],
)
def test_bad_files_are_rejected(coq, tmp_path, text, status, message):
    (tmp_path / "one.v").write_text(text)
    done = run_check(tmp_path, "--build", tmp_path / "build")
    assert done.returncode == status
    assert message in done.stderr


def test_an_axiom_hidden_from_the_scan_is_found_by_print_assumptions(coq, tmp_path):
    text = "From Coq Require Import ProofIrrelevance.\nTheorem t (P : Prop) (a b : P) : a = b.\n"
    (tmp_path / "one.v").write_text(text + "Proof. apply proof_irrelevance. Qed.\n")
    done = run_check(tmp_path, "--build", tmp_path / "build", "--coqchk", "none")
    assert done.returncode == 1
    assert "stands on" in done.stderr
    assert "proof_irrelevance" in done.stderr


def test_what_cannot_be_checked_is_not_called_wrong(coq, tmp_path):
    missing = run_check(tmp_path / "nowhere", "--build", tmp_path / "build")
    assert (missing.returncode, "is not a folder" in missing.stderr) == (2, True)
    (tmp_path / "slow.v").write_text("Goal True. do 100000000 idtac. exact I. Qed.\n" * 50)
    slow = run_check(tmp_path, "--build", tmp_path / "build", "--limit", 3)
    assert (slow.returncode, "not finished within" in slow.stderr) == (2, True)
