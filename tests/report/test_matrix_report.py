"""The report on matrix rules: against closed forms, exact enumeration and planted errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from deltabias.errors import DeltabiasError
from deltabias.matrix_rule import MatrixRule
from deltabias.report.matrix_modes import MODES, Modes, generated_module
from deltabias.report.matrix_record import matrix_report, simulate
from deltabias.report.matrix_scenario import matrix_scenario
from deltabias.rules import get_rule
from deltabias.truth import (
    FiniteMatrixLaw,
    every_batch,
    matrix_law,
    to_float64,
    wishart_inverse_mean,
)

ONE_SIDED = "inv_root(L + damping*I, 2)*M"
SIZE = {"dim": 3, "microbatches": 16, "replicates": 512}


def scene_of(text=ONE_SIDED, **settings):
    return matrix_scenario(MatrixRule.parse(text), **{"dim": 3, "columns": 2, **settings})


# -- the truth ------------------------------------------------------------------------------------


def test_the_bias_of_an_inverse_is_the_closed_form_of_wishart():
    scene = scene_of("inv_root(L, 1)", law="wishart", columns=1, microbatches=16)
    modes = Modes(scene, seed=1)
    found = simulate(scene, modes.estimators, 8192, seed=1)
    law = matrix_law("wishart", 3, 1)
    closed = to_float64(wishart_inverse_mean(law.left_moment, 16)) - np.linalg.inv(law.left_moment)
    z = found.bias("plug_in").z(closed)
    assert np.abs(z).max() < 5
    # the control: half of the bias is refused
    assert np.abs(found.bias("plug_in").z(0.5 * closed)).max() > 20


FINITE = FiniteMatrixLaw(
    [[[1.0, 0.25], [0.5, 1.5]], [[1.25, -0.5], [0.25, 0.75]], [[0.5, 0.5], [-1.0, 1.25]]],
    ["1/4", "1/4", "1/2"],
)


@pytest.mark.parametrize("rule", [ONE_SIDED, "inv_root(L+damping*I,4)*M*inv_root(R+damping*I,4)"])
def test_the_controls_move_no_expectation_exactly(rule):
    scene = replace(scene_of(rule, dim=2, hypers={"damping": 0.1}, microbatches=6), law=FINITE)
    weights, gradients = every_batch(FINITE, 6)
    order = np.random.default_rng(0).permutation(6)
    plain = Modes(scene, control=False).estimators["full"](gradients)
    controlled = Modes(scene).estimators["full"](gradients[:, order])
    exact = np.tensordot(weights, plain, 1)
    assert np.abs(plain - controlled).max() > 1e-3
    np.testing.assert_allclose(np.tensordot(weights, controlled, 1), exact, rtol=0, atol=1e-13)


def test_simulated_biases_are_those_of_exact_enumeration():
    scene = replace(scene_of(dim=2, hypers={"damping": 0.1}, microbatches=6), law=FINITE)
    modes = Modes(scene, seed=2)
    names = ("plug_in", "full", "diagonal", "eigenvalue_only", "cross_fit")
    found = simulate(scene, {n: modes.estimators[n] for n in names}, 2048, seed=2)
    target = scene.target
    weights, gradients = every_batch(FINITE, 6)
    for name in ("plug_in", "full", "diagonal", "eigenvalue_only"):  # cross_fit sees the order
        values = Modes(scene, control=False).estimators[name](gradients)
        exact = np.tensordot(weights, values, 1) - target
        assert np.abs(found.bias(name).z(exact)).max() < 5, name


def test_a_wrong_second_order_would_be_seen(monkeypatch):
    scene = scene_of(microbatches=32, hypers={"damping": 0.05})
    modes = Modes(scene, seed=3)
    module = generated_module(scene.rule)

    def half(*args, **kwargs):
        plain = module.plug_in_update(*args[:2], **kwargs)
        return 0.5 * (plain + module.corrected_update(*args, **kwargs))

    right = modes.estimators["full"]
    wrong = Modes(scene, seed=3)
    wrong.module = type("", (), {**vars(module), "corrected_update": staticmethod(half)})
    found = simulate(
        scene,
        {"plug_in": modes.estimators["plug_in"], "full": right, "half": wrong.estimators["full"]},
        1024,
        seed=3,
    )
    assert found.removed("full").removed > 0.9
    share = found.removed("half")
    assert abs(share.removed - 0.5 * found.removed("full").removed) < 1e-6


def test_a_control_that_is_not_quadratic_is_refused():
    scene, cubic = scene_of(), type("", (), {})()
    module = generated_module(scene.rule)

    def second_order(L, M, dL, dM, **hypers):
        coupling = module.second_order(L, M, dL, dM, **hypers)["coupling"]
        return {"coupling": coupling * (1 + dM.mean())}

    cubic.second_order = second_order
    modes = Modes(scene, control=False)
    modes.module = cubic
    with pytest.raises(RuntimeError, match="not quadratic"):
        modes._check_quadratic()


@pytest.mark.parametrize("name", ["shampoo", "muon", "muon_polar"])
def test_the_population_map_is_the_generated_plug_in(name):
    rule = get_rule(name)
    scene = matrix_scenario(rule, dim=4, columns=3)
    value = scene.target
    module = generated_module(rule)
    arguments = [torch.tensor(scene.population[scene.roles[n]]) for n in scene.names]
    np.testing.assert_allclose(module.plug_in_update(*arguments, **scene.hypers), value, atol=1e-12)


# -- the report -----------------------------------------------------------------------------------


def test_a_report_has_every_mode_with_its_error():
    found = matrix_report(get_rule("shampoo"), law="wishart", **SIZE)
    record = json.loads(found.to_json())
    assert tuple(record["modes"]) == MODES
    assert record["modes"]["plug_in"] == {"removed": 0.0, "standard_error": 0.0}
    assert record["modes"]["full"]["removed"] > 0.9
    assert 0 < record["modes"]["full"]["standard_error"] < 0.02
    assert record["modes"]["cross_fit"]["removed"] < -0.9
    assert (record["of"], record["object"]) == ("preconditioner", "inv_root(L + damping*I, 4)") or (
        "spectral" in record["object"]
    )
    assert record["statistic"] == "mean_of_squares"
    assert any("mean_of_squares" in note for note in record["notes"])
    assert set(record["terms"]) == {"inversion"}


def test_a_report_is_the_same_twice_and_another_with_another_seed():
    first, again, other = (
        matrix_report(get_rule("shampoo"), **SIZE, seed=s).to_json() for s in (4, 4, 5)
    )
    assert first == again != other


def test_the_terms_of_an_update_add_up_to_about_the_bias():
    found = matrix_report(get_rule("shampoo"), dim=3, microbatches=64, replicates=1024)
    assert set(found.terms) == {"inversion", "coupling", "cross"}
    assert abs(sum(t.removed for t in found.terms.values()) - 1) < 0.1
    assert found.of == "update"


def test_muon_has_no_eigenvalues_and_says_so():
    found = matrix_report(get_rule("muon"), dim=3, microbatches=8, replicates=2048)
    assert set(found.modes) == {"plug_in", "cross_fit", "sketch", "full"}
    assert "no eigenvalues" in found.not_applicable["diagonal"]


def test_halves_that_are_singular_leave_cross_fit_out():
    found = matrix_report(
        get_rule("full_matrix_adagrad"), dim=4, microbatches=7, damping=0.0, replicates=2048
    )
    assert "cross_fit" not in found.modes
    assert "half of the microbatches" in found.not_applicable["cross_fit"]


def test_a_typed_rule_is_printed_from_its_own_tree():
    found = matrix_report(MatrixRule.parse(ONE_SIDED), damping=0.1, **SIZE)
    assert found.settings["damping"] == 0.1
    assert "L is read as the mean over microbatches of G*G.T" in found.notes


def test_a_figure_is_written_whole(tmp_path):
    found = matrix_report(get_rule("shampoo"), law="wishart", dim=2, replicates=64)
    written = found.figure(tmp_path / "a.svg").read_bytes()
    assert written == found.figure(tmp_path / "b.svg").read_bytes()
    with pytest.raises(DeltabiasError, match=r"must end in \.svg"):
        found.figure(tmp_path / "a.png")


BAD = [
    ({"dim": 0}, "dim=0 must be an integer from 1 to 64"),
    ({"columns": -1}, "columns=-1 must be"),
    ({"microbatches": 1}, "one microbatch gives no variance estimate"),
    ({"law": "cauchy"}, "law 'cauchy' is unknown; choose one of wishart"),
    ({"condition": 0.5}, "condition=0.5 must be finite and at least 1"),
    ({"damping": -1.0}, "damping=-1.0 is outside"),
    ({"damping": float("nan")}, "must be a finite number"),
    ({"rho": 1.0}, "has no hyperparameter rho"),
    ({"of": "factor"}, "choose one of preconditioner, update"),
    ({"law": "wishart", "of": "update"}, "has zero mean"),
    ({"statistic": "square_of_mean"}, "no expansion in one step"),
    ({"statistic": "other"}, "is unknown; choose mean_of_squares"),
    ({"replicates": 100}, "must be a multiple of 32"),
    ({"seed": -1}, "seed=-1"),
    ({"damping": 0.0, "microbatches": 2, "columns": 1}, "singular matrix"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_what_cannot_be_reported_is_refused_with_the_reason(settings, message):
    with pytest.raises(DeltabiasError, match=message.replace("(", r"\(")):
        matrix_report(get_rule("shampoo"), **{"replicates": 64, **settings})


@pytest.mark.parametrize(
    ("text", "message"),
    [("inv_root(X, 2)*M", "nothing says what it is made of"), ("polar(M)", "no preconditioner")],
)
def test_a_rule_of_unknown_matrices_or_without_a_preconditioner_is_refused(text, message):
    with pytest.raises(DeltabiasError, match=message):
        matrix_report(MatrixRule.parse(text), law="wishart")


def test_an_entrywise_rule_is_sent_to_the_scalar_report():
    with pytest.raises(DeltabiasError, match="'adam'"):
        matrix_report(get_rule("soap"))
