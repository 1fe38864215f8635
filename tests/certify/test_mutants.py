"""A certificate that Coq would accept whatever it says certifies nothing."""

import pytest
from tests.certify.mutants import MUTANTS
from tests.certify.subjects import certificate
from tests.proofs.test_mutants import NOT_MATHEMATICS

RULES = sorted({(m.rule, m.order) for m in MUTANTS})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_mutant_changes_one_place(mutant):
    assert certificate(mutant.rule, mutant.order).text.count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_there_are_thirty_mutants_of_five_rules():
    assert len(MUTANTS) >= 30
    assert len({m.rule for m in MUTANTS}) >= 5


@pytest.mark.parametrize(("rule", "order"), RULES)
def test_unchanged_certificates_are_accepted(rule, order, accepts):
    """The control: what makes a mutant fail is its change."""
    accepted, words = accepts(certificate(rule, order).text)
    assert accepted, words


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_false_certificate_is_rejected(mutant, accepts):
    text = certificate(mutant.rule, mutant.order).text.replace(mutant.old, mutant.new)
    accepted, words = accepts(text)
    assert not accepted, f"Coq accepts a false statement: {mutant.why}"
    assert "Error" in words
    assert not any(complaint in words for complaint in NOT_MATHEMATICS), words
