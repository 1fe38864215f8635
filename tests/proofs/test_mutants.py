"""A theory that proves anything proves nothing: false statements are rejected by coqc."""

import pytest
from tests.proofs.conftest import PROOFS
from tests.proofs.mutants import MUTANTS, QUICK, Mutant

# complaints about a text that is no Coq at all; a mutant has to fail as mathematics
NOT_MATHEMATICS = (
    "Syntax error",
    "Lexer",
    "was not found in the current",
    "Cannot find a physical",
)


def source(mutant: Mutant) -> str:
    return (PROOFS / "theory" / f"{mutant.file}.v").read_text()


def rejected(mutant: Mutant, compiles) -> None:
    proved, words = compiles(source(mutant).replace(mutant.old, mutant.new))
    assert not proved, f"coqc accepts a false statement: {mutant.why}"
    assert "Error" in words
    assert not any(complaint in words for complaint in NOT_MATHEMATICS), words


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_changes_one_place(mutant):
    assert source(mutant).count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_there_are_forty_mutants_of_every_file():
    assert len(MUTANTS) >= 40
    files = {path.stem for path in (PROOFS / "theory").glob("*.v")}
    # exchange.v has no number in it, its statements are equalities of laws; plain_interval.v states
    # nothing
    assert {m.file for m in MUTANTS} == files - {"exchange", "plain_interval"}


@pytest.mark.slow
def test_unchanged_files_compile(compiles):
    """The control: what makes a mutant fail is its change."""
    assert compiles(source(MUTANTS[0]))[0]


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.why in QUICK], ids=lambda m: m.name)
def test_false_statement_is_rejected(mutant, compiles):
    rejected(mutant, compiles)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.why not in QUICK], ids=lambda m: m.name)
def test_every_false_statement_is_rejected(mutant, compiles):
    rejected(mutant, compiles)
