"""The report: what it predicts, what it simulates, that they can disagree, and what it concludes.

Simulations use the report's own default seed, 0, and as many replicates as it takes by default.
A prediction must be within three standard errors of its simulation, as the project demands: over
the 45 rows of the main table a right prediction fails that by chance in 11 of 100 seeds.
"""

import json
from math import erf, pi, sqrt

import mpmath
import pytest

from deltabias.errors import DeltabiasError, RuleError
from deltabias.report import Report, report
from deltabias.report.prediction import Predictor
from deltabias.report.rows import Row
from deltabias.report.scenario import observe, scenario
from deltabias.report.simulation import simulate
from deltabias.report.verdict import percent, verdict
from deltabias.rule import GRADIENT, UpdateRule
from deltabias.rules import get_rule
from deltabias.truth import expectation, relative_bias_adam
from deltabias.truth.exact import as_mpf

SHARES = (0.1, 0.5, 1.0)
BETAS = ((0.9, 0.95), (0.9, 0.999), (0.8, 0.9))
STEPS = (1, 2, 5, 20)
ADAMW, RMSPROP = get_rule("adamw"), get_rule("rmsprop")


def at(rows, **wanted) -> Row:
    (row,) = (r for r in rows if all(getattr(r, k) == v for k, v in wanted.items()))
    return row


@pytest.fixture(scope="module", params=BETAS, ids=str)
def adamw(request) -> Report:
    return report(ADAMW, betas=request.param, steps=STEPS)


# -- the main table -------------------------------------------------------------------------------


def test_predictions_are_within_three_standard_errors_of_simulation(adamw):
    rows = adamw.steady_state + adamw.by_step
    assert len(rows) == 15
    assert {r.method for r in rows} == {"exact"}
    assert max(abs(r.z) for r in rows) < 3


def test_simulation_is_sharp_enough_to_judge(adamw):
    for row in adamw.steady_state:
        assert row.standard_error < 0.02 * abs(row.predicted)


def test_simulation_rejects_the_leading_order_where_it_is_not_enough(adamw):
    first = at(adamw.by_step, step=1, noise_share=1.0)
    assert abs(first.simulated - first.leading_order) > 100 * first.standard_error
    beta2 = adamw.settings["hypers"]["beta2"]
    if beta2 < 0.99:
        steady = at(adamw.steady_state, noise_share=1.0)
        assert abs(steady.simulated - steady.leading_order) > 5 * steady.standard_error


def test_the_series_is_closer_than_its_leading_order_in_the_steady_state(adamw):
    for row in adamw.steady_state:
        assert abs(row.series - row.exact) < 0.05 * abs(row.leading_order - row.exact)


# -- predictions against formulas that are not the package's --------------------------------------


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("q", SHARES)
def test_leading_order_is_the_known_steady_state_formula(betas, q):
    found = Predictor(scenario(ADAMW, betas=betas, hypers={"eps": 0.0}))(q, None)
    b1, b2 = betas
    a, b = (1 - b1) * (1 - b2) / (1 - b1 * b2), (1 - b2) / (1 + b2)
    assert found.leading_order == pytest.approx(-a * q + 1.5 * b * q - 0.75 * b * q**2, rel=1e-12)


@pytest.mark.parametrize("q", SHARES)
def test_the_first_step_is_the_sign_of_a_normal_gradient(q):
    found = Predictor(scenario(ADAMW, hypers={"eps": 0.0}))(q, 1)
    assert found.leading_order == pytest.approx(-q * (3 * q - 2) / 4, rel=1e-12)
    if q == 1:
        expected = sqrt(2 / pi) - 1
    else:
        expected = erf(sqrt((1 - q) / (2 * q))) / sqrt(1 - q) - 1
    assert found.exact == pytest.approx(expected, rel=1e-10)


def test_the_noise_share_is_that_of_the_mean_gradient_for_means_of_squares_too():
    q, m = 0.3, 8
    scene = scenario(get_rule("adamw_mean_of_squares"), microbatches=m, hypers={"eps": 0.0})
    share_of_squares = m * q / (1 - q + m * q)
    expected = relative_bias_adam(
        share_of_squares, [1], [1], statistic="mean_of_squares", microbatches=m
    )
    assert Predictor(scene)(q, 1).exact == pytest.approx(expected, rel=1e-9)


def test_eps_changes_the_bias_in_units_of_the_mean_gradient():
    plain, damped = (
        Predictor(scenario(ADAMW, betas=(0.9, 0.95), hypers={"eps": eps}))(1.0, None).exact
        for eps in (0.0, 1.0)
    )
    assert abs(damped) < 0.75 * abs(plain)


def test_a_typed_rule_agrees_with_an_enumeration_of_every_sample():
    rule, m, q = UpdateRule.parse("g*v**(-1/3)"), 4, 0.3
    scene = scenario(rule, microbatches=m, law_name="two_point")
    points = scene.gradient_law(q)

    def update(sample):
        g = sum(x * n for x, n in sample) / m
        v = sum(x * x * n for x, n in sample) / m
        return as_mpf(g) / mpmath.cbrt(as_mpf(v))

    population = sqrt(1 - q) * (1 - q + m * q) ** (-1 / 3)
    truth = float(expectation(update, points, m, 25)) / population - 1
    found = Predictor(scene)(q, 1)
    assert found.method == "exact"
    assert found.exact == pytest.approx(truth, rel=1e-9)
    simulated = simulate(scene, q, 1, replicates=40_000, seed=0)
    assert abs(simulated.value - truth) < 4 * simulated.standard_error
    assert abs(simulated.value) > 20 * simulated.standard_error


# -- other rules and laws -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "law_name"),
    [
        ("rmsprop", "normal"),
        ("rmsprop_mean_of_squares", "normal"),
        ("adam_mean_of_squares", "normal"),
        ("sophia", "normal"),
        ("adamw", "skewed"),
        ("adamw", "gamma"),
        ("adamw_mean_of_squares", "laplace"),
        ("inverse_sqrt", "student_t"),
    ],
)
def test_other_rules_and_laws_agree_with_their_simulation(name, law_name):
    scene = scenario(get_rule(name), law_name=law_name)
    predicted = Predictor(scene)(0.1, 20)
    simulated = simulate(scene, 0.1, 20, replicates=4000, seed=0)
    allowed = 4 * simulated.standard_error + (predicted.last_term or 0)
    assert abs(simulated.value - predicted.best) < allowed
    assert abs(simulated.value) > 4 * simulated.standard_error


def test_a_total_has_no_steady_state_and_says_so():
    found = report(get_rule("adagrad"), noise_shares=[1.0], steps=[1, 20], replicates=4000)
    assert found.steady_state == ()
    assert "never forgets" in found.settings["assumptions"][-1]
    assert found.settings["steady_state_steps"] is None
    assert found.verdict.startswith("At step 20 ")
    assert all(abs(r.z) < 4 for r in found.by_step)


def test_label_gradients_are_independent_and_a_mean_that_does_not_exist_is_not_given():
    found = report(get_rule("sophia_g"), noise_shares=[1.0], steps=[1, 100], replicates=1000)
    first, later = found.by_step
    assert first.predicted is None
    assert first.method == "none: E u is infinite"
    assert first.simulated is None
    assert "no finite variance" in first.note
    assert later.predicted > 0, "inversion without coupling makes the update too large"
    assert abs(later.z) < 4


def test_a_skewed_gradient_without_mean_has_no_relative_bias():
    found = report(RMSPROP, alpha=0.5, law="skewed", noise_shares=[1.0], steps=[2], replicates=500)
    row = found.by_step[0]
    assert (row.predicted, row.simulated, row.leading_order) == (None, None, None)
    assert "E u is not: the relative bias is infinite" in row.note
    gamma = report(RMSPROP, alpha=0.5, law="gamma", noise_shares=[1.0], steps=[1])
    assert "no zero mean" in gamma.by_step[0].note
    assert gamma.verdict.startswith("No relative bias can be given here")


def test_moments_that_a_law_lacks_are_not_made_up():
    found = Predictor(scenario(ADAMW, law_name="student_t"))(0.5, 20)
    assert found.series is None
    assert found.leading_order is not None
    assert found.method == "series, order 1 (higher moments do not exist)"


def test_a_series_that_grows_is_cut_and_says_so():
    found = Predictor(scenario(ADAMW, law_name="laplace"))(1.0, 1)
    assert found.method.endswith("(higher terms grow)")
    assert found.last_term > 0


def test_opaque_statistics_are_read_as_gradients_and_squares():
    rule, notes = observe(get_rule("inverse_sqrt"))
    assert [s.statistic.sample for s in rule.states] == [GRADIENT, GRADIENT**2]
    assert len(notes) == 2
    with pytest.raises(RuleError, match="nothing says what statistic 'h' is made of"):
        observe(UpdateRule.parse("g*h"))


def test_a_seed_makes_the_same_report_and_another_seed_another():
    def made(seed):
        return report(
            RMSPROP, alpha=0.5, noise_shares=[0.5], steps=[1, 2], replicates=500, seed=seed
        )

    assert made(1).to_json() == made(1).to_json()
    first, second = made(1).by_step[0], made(2).by_step[0]
    assert first.simulated != second.simulated
    assert first.predicted == second.predicted


# -- what comes out -------------------------------------------------------------------------------


def test_json_has_what_scripts_rely_on():
    done = []
    found = report(
        ADAMW,
        betas=(0.9, 0.95),
        noise_shares=[1.0],
        steps=[1],
        replicates=500,
        progress=lambda i, n: done.append((i, n)),
    )
    record = json.loads(found.to_json())
    assert list(record) == ["rule", "settings", "steady_state", "by_step", "verdict"]
    steady, first = record["steady_state"][0], record["by_step"][0]
    assert {"noise_share", "predicted", "simulated", "standard_error"} <= set(steady)
    assert "step" not in steady
    assert first["step"] == 1
    assert {"leading_order", "series", "exact", "method"} <= set(first)
    assert record["settings"]["hypers"] == {"eps": 1e-8, "beta1": 0.9, "beta2": 0.95}
    assert done == [(1, 2), (2, 2)]


def test_a_missing_number_is_null_and_never_nan():
    found = report(RMSPROP, alpha=0.5, law="skewed", noise_shares=[1.0], steps=[1])
    assert json.loads(found.to_json())["by_step"][0]["predicted"] is None


def test_the_figure_is_an_svg_that_comes_out_the_same_twice(tmp_path):
    found = report(RMSPROP, alpha=0.5, noise_shares=[0.5, 1.0], steps=[1, 5], replicates=500)
    first, second = (found.figure(tmp_path / name) for name in ("a.svg", "b.svg"))
    assert first.read_bytes() == second.read_bytes()
    assert b"<svg" in first.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "b.svg"]


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    found = report(get_rule("adagrad"), noise_shares=[0.5], steps=[1], replicates=500)
    with pytest.raises(DeltabiasError, match=r"must end in \.svg"):
        found.figure(tmp_path / "a.png")
    with pytest.raises(DeltabiasError, match="cannot be written"):
        found.figure(tmp_path / "no" / "a.svg")
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(DeltabiasError, match="cannot be written"):
        found.figure(tmp_path / "taken.svg")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.svg"]


# -- the verdict ----------------------------------------------------------------------------------


def _verdict(*biases, steps=()):
    scene = scenario(ADAMW)
    steady = [Row(None, q, predicted=b) for q, b in zip(SHARES, biases, strict=False)]
    return "\n".join(verdict(ADAMW, scene, steady, [Row(t, 1.0, predicted=b) for t, b in steps]))


def test_below_half_a_percent_it_is_not_worth_correcting():
    said = _verdict(0.001, -0.0049)
    assert "Not worth correcting: below 0.5 %" in said
    assert "tensors" not in said


def test_above_it_the_strategy_is_named_with_its_claim_and_cost():
    said = _verdict(0.001, -0.02)
    assert "Not worth" not in said
    assert "strategy 'delta' claims to leave a bias of order 2" in said
    assert "3 tensors kept (12 bytes a parameter)" in said
    assert "only a learning-rate factor" in said
    assert "here 2.1 % from the least to the most biased noise share" in said


def test_a_verdict_trusts_the_exact_value_then_the_simulation_then_the_series():
    assert Row(1, 1.0, predicted=0.1, exact=0.3, simulated=0.2).bias == 0.3
    assert Row(1, 1.0, predicted=0.1, simulated=0.2).bias == 0.2
    assert Row(1, 1.0, predicted=0.1).bias == 0.1
    assert Row(1, 1.0).bias is None


def test_a_large_start_is_told_even_if_nothing_lasts():
    said = _verdict(0.001, steps=[(1, -0.2), (20, 0.004), (100, 0.001)])
    assert "step 1 has the largest: -20 %; from step 20 on it is below 0.5 %" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (-0.0996, "-10 %"), (0.0123, "+1.2 %"), (2e-5, "+0.0020 %"), (2.0, "+200 %")],
)
def test_percentages_have_two_digits(value, text):
    assert percent(value) == text


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"microbatches": 1}, "microbatches=1 cannot be reported on"),
        ({"microbatches": 2.5}, "microbatches=2.5 cannot be reported on"),
        ({"law": "cauchy"}, "law 'cauchy' is unknown; choose one of normal"),
        ({"betas": (0.9, 1.0)}, r"beta2=1.0 is outside \[0, 1\)"),
        ({"betas": (-0.1, 0.9)}, r"beta1=-0.1 is outside \[0, 1\)"),
        ({"betas": (float("nan"), 0.9)}, "beta1=nan must be a finite number"),
        ({"eps": -1e-8}, "eps=-1e-08 is outside"),
        ({"eps": float("inf")}, "eps=inf must be a finite number"),
        ({"rho": 1.0}, "has no hyperparameter rho; it has eps, beta1, beta2"),
        ({"noise_shares": [0.0]}, r"noise_shares=\[0.0\] must be numbers in \(0, 1\]"),
        ({"noise_shares": [float("nan")]}, "noise_shares"),
        ({"noise_shares": []}, "noise_shares"),
        ({"steps": [0]}, "step=0 must be an integer from 1"),
        ({"steps": [1.0]}, "step=1.0 must be an integer"),
        ({"steps": []}, r"steps=\[\] leaves nothing"),
        ({"seed": -1}, "seed=-1 must be an integer"),
        ({"replicates": 10}, "replicates=10 must be an integer from 100"),
        ({"betas": (0.9, 0.99999)}, "use betas up to 0.9999"),
    ],
)
def test_bad_input_is_refused_with_what_is_allowed(arguments, message):
    with pytest.raises(DeltabiasError, match=message):
        report(ADAMW, **arguments)


def test_a_history_that_does_not_fit_is_refused_before_it_is_drawn():
    with pytest.raises(DeltabiasError, match="more than the 10000000 numbers"):
        report(get_rule("adam_mean_of_squares"), betas=(0.9, 0.9999), microbatches=4096, steps=[1])


def test_a_law_is_standardized_to_a_unit_second_moment():
    found = scenario(ADAMW, microbatches=8).gradient_law(0.25)
    assert float(found.mean) ** 2 + float(found.variance) / 8 == pytest.approx(1)
    assert float(found.variance) / 8 == pytest.approx(0.25)
