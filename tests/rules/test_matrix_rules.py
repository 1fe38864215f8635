"""The catalogue's matrix rules: what they compute, and what feeds them."""

import importlib

import pytest
import torch

from deltabias.matrix_derivation import derive_matrix
from deltabias.rules import MATRIX_CATALOGUE, SPECTRAL_MAPS

D, N, DAMPING = 4, 3, 0.01


def root(matrix, p):
    w, q = torch.linalg.eigh(matrix + DAMPING * torch.eye(len(matrix), dtype=matrix.dtype))
    return (q * w ** (-1 / p)) @ q.mT


def matrices():
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(6, D, N, generator=generator, dtype=torch.float64)
    return (g @ g.mT).mean(0), g.mean(0), (g.mT @ g).mean(0)


def by_hand(name, left, m, right):
    if name.startswith(("shampoo_one_sided", "full_matrix")):
        return root(left, 2) @ m
    if name.startswith("shampoo"):
        return root(left, 4) @ m @ root(right, 4)
    w, _, v = torch.linalg.svd(m, full_matrices=False)
    return w @ v


@pytest.mark.parametrize("name", [n for n in MATRIX_CATALOGUE if n not in ("soap", "muon")])
def test_a_rule_computes_the_update_it_is_named_after(name):
    module = importlib.import_module(f"deltabias.generated.{name}")
    rule, (left, m, right) = MATRIX_CATALOGUE[name], matrices()
    given = {"L": left, "M": m, "R": right}
    used = [given[s.name] for s in rule.states if s.name in rule.update.symbols]
    scalars = {h.name: DAMPING for h in rule.hypers}
    found, exact = module.plug_in_update(*used, **scalars), by_hand(name, left, m, right)
    torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-12)
    wrong = by_hand(name, left + 0.01 * torch.eye(D, dtype=m.dtype), 1.001 * m, right)
    if name != "muon_polar":
        assert (found - wrong).abs().max() > 1e-5


def test_both_statistics_are_there_and_are_different_rules():
    for name in ("shampoo", "shampoo_one_sided"):
        of_mean, of_squares = MATRIX_CATALOGUE[name], MATRIX_CATALOGUE[f"{name}_mean_of_squares"]
        assert of_mean != of_squares
        assert of_mean.update == of_squares.update
        factor = {r: next(s for s in r.states if s.name == "L") for r in (of_mean, of_squares)}
        assert [s.statistic.of_mean for s in factor.values()] == [True, False]


def test_sums_never_forget_and_averages_do():
    assert all(s.total for s in MATRIX_CATALOGUE["shampoo_sum"].states if s.name in "LR")
    assert all(s.beta for s in MATRIX_CATALOGUE["shampoo"].states)


def test_muon_and_its_polar_twin_have_one_statistic_and_inversion_in_their_bias():
    for name in ("muon", "muon_polar"):
        rule = MATRIX_CATALOGUE[name]
        assert rule.update.symbols == ("M",)
        assert "inversion" in {t.name for t in derive_matrix(rule).terms}


def test_soap_is_adam_entry_by_entry():
    terms = derive_matrix(MATRIX_CATALOGUE["soap"]).terms
    assert [t.name for t in terms] == ["coupling", "inversion"]


def test_the_catalogue_of_maps_says_which_are_dense_and_which_keep_positive():
    dense = {n for n, m in SPECTRAL_MAPS.items() if not m.separates}
    assert dense == {"heat_kernel", "shifted_root_4"}
    assert {n for n, m in SPECTRAL_MAPS.items() if not m.keeps_positive} == {"heat_kernel"}
    for name, spectral in SPECTRAL_MAPS.items():
        module = importlib.import_module(f"deltabias.generated.{name}")
        assert hasattr(module, "corrected") is spectral.keeps_positive
