"""The reference evaluation, against slower twins written from the formulas alone."""

from functools import cache, partial

import mpmath
import numpy as np
import pytest
import sympy as sp
from tests.reference import adamw as twin
from tests.reference import folds

from deltabias.correction import STRATEGIES, correct
from deltabias.errors import RuleError, StrategyError
from deltabias.evaluate import Evaluator, Microbatches, step_statistic
from deltabias.rule import GRADIENT, MEAN, Fresh, Statistic, UpdateRule
from deltabias.rules import CATALOGUE, get_rule

STEPS, SIZE = 8, 6
HISTORY = np.random.default_rng(11).gamma(0.7, 1.0, size=(STEPS, SIZE)) - 0.4  # skewed


@cache
def correction(name, strategy, groups=2):
    return correct(get_rule(name), strategy, groups=groups)


def batch(row, backend="numpy"):
    if backend == "mpmath":
        row = np.array([mpmath.mpf(float(x)) for x in row], dtype=object)
    return Microbatches({"x": row}, np.ones(len(row), dtype=int))


def updates(name, strategy, history=HISTORY, *, hypers=None, groups=2, backend="numpy"):
    evaluator = Evaluator(correction(name, strategy, groups), hypers or {}, backend)
    found = []
    for row in history:
        parts = [row]
        if strategy.startswith("cross_fit"):
            parts = np.split(row, groups)
        found.append(float(evaluator(*(batch(p, backend) for p in parts))))
    return found


ADAM = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
RMSPROP = {"alpha": 0.9, "eps": 1e-3}


def setting(name):
    """Hyperparameters for the package and the twin's own record of them."""
    if name.startswith("rmsprop"):
        return RMSPROP, twin.Rule(0.0, 0.9, 1e-3, debias=False), name.endswith("squares")
    return ADAM, twin.Rule(0.8, 0.9, 1e-3), name.endswith("squares")


def by_twin(update):
    return [update(HISTORY[: t + 1].tolist()) for t in range(STEPS)]


# adam has the map and the states of adamw
NAMES = [n for n in CATALOGUE if n.startswith(("adamw", "rmsprop"))]


@pytest.mark.parametrize("name", NAMES)
def test_the_plug_in_update_is_the_one_of_the_twin(name):
    hypers, rule, squares = setting(name)
    expected = by_twin(partial(twin.plug_in, rule=rule, squares=squares))
    assert updates(name, "plug_in", hypers=hypers) == pytest.approx(expected, rel=1e-12)
    other = by_twin(partial(twin.plug_in, rule=rule, squares=not squares))
    assert other != pytest.approx(expected, rel=1e-3)  # the control: the other statistic


@pytest.mark.parametrize("name", NAMES)
def test_the_tracked_correction_is_the_one_of_the_twin(name):
    hypers, rule, squares = setting(name)
    if squares:
        expected = by_twin(partial(twin.mean_of_squares_update, rule=rule))
    else:
        expected = by_twin(partial(twin.square_of_mean_update, rule=rule))
    found = updates(name, "delta", hypers=hypers)
    assert found == pytest.approx(expected, rel=1e-12)
    plain = by_twin(partial(twin.plug_in, rule=rule, squares=squares))
    assert found[1:] != pytest.approx(plain[1:], rel=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if "squares" not in n])
def test_the_closed_form_is_the_one_of_the_twin(name):
    hypers, rule, _ = setting(name)
    expected = by_twin(partial(twin.square_of_mean_update, rule=rule, skewness=False))
    found = updates(name, "closed_form", hypers=hypers)
    assert found == pytest.approx(expected, rel=1e-12)
    with_skewness = by_twin(partial(twin.square_of_mean_update, rule=rule))
    assert found[1:] != pytest.approx(with_skewness[1:], rel=1e-5)


PLANTED = {
    "eps inside the root": lambda r: twin.Rule(r.beta1, r.beta2, 0.0, r.debias),
    "betas exchanged": lambda r: twin.Rule(r.beta2, r.beta1, r.eps, r.debias),
    "debias lost": lambda r: twin.Rule(r.beta1, r.beta2, r.eps, not r.debias),
}


@pytest.mark.parametrize("mistake", PLANTED)
@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares"])
def test_a_planted_mistake_in_the_twin_is_seen(name, mistake):
    hypers, rule, squares = setting(name)
    update = twin.mean_of_squares_update if squares else twin.square_of_mean_update
    wrong = by_twin(partial(update, rule=PLANTED[mistake](rule)))
    assert updates(name, "delta", hypers=hypers) != pytest.approx(wrong, rel=1e-4)


def test_a_history_one_step_short_is_seen():
    _, rule, _ = setting("adamw")
    short = [0.0, *by_twin(partial(twin.square_of_mean_update, rule=rule))[:-1]]
    assert updates("adamw", "delta", hypers=ADAM)[1:] != pytest.approx(short[1:], rel=1e-3)


# -- splitting and resampling ---------------------------------------------------------------------

SPLIT_NAMES = ["adamw", "adamw_mean_of_squares", "rmsprop", "rmsprop_mean_of_squares"]


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize("groups", [2, 3])
def test_cross_fitting_is_the_one_of_the_twin(name, delta, groups):
    hypers, rule, squares = setting(name)
    strategy = "cross_fit+delta" if delta else "cross_fit"
    expected = by_twin(partial(folds.cross_fit, groups=groups, rule=rule, squares=squares,
                               delta=delta))  # fmt: skip
    found = updates(name, strategy, hypers=hypers, groups=groups)
    assert found == pytest.approx(expected, rel=1e-10)
    swapped = by_twin(partial(folds.cross_fit, groups=groups, rule=rule, squares=squares,
                              delta=not delta))  # fmt: skip
    assert found != pytest.approx(swapped, rel=1e-6)


@pytest.mark.parametrize("name", SPLIT_NAMES)
@pytest.mark.parametrize("delta", [False, True])
def test_leaving_one_out_is_the_one_of_the_twin(name, delta):
    hypers, rule, squares = setting(name)
    strategy = "leave_one_out+delta" if delta else "leave_one_out"
    expected = by_twin(partial(folds.leave_one_out, rule=rule, squares=squares, delta=delta))
    found = updates(name, strategy, hypers=hypers)
    assert found == pytest.approx(expected, rel=1e-10)
    halves = by_twin(partial(folds.cross_fit, groups=2, rule=rule, squares=squares, delta=delta))
    assert found != pytest.approx(halves, rel=1e-3)


@pytest.mark.parametrize("name", ["adamw_mean_of_squares", "rmsprop_mean_of_squares"])
def test_the_jackknife_is_the_one_of_the_twin(name):
    hypers, rule, squares = setting(name)
    plain = partial(twin.plug_in, rule=rule, squares=squares)
    found = updates(name, "jackknife", hypers=hypers)
    assert found == pytest.approx(by_twin(partial(folds.jackknife, update=plain)), rel=1e-10)
    assert found != pytest.approx(by_twin(plain), rel=1e-4)


def test_the_jackknife_is_exact_for_a_quadratic_map_of_a_mean():
    # E of m u - (m-1) mean u₋ᵣ of a squared mean is the square of the expectation: no bias left
    rule = UpdateRule("quadratic", "g**2", (Fresh("g", Statistic("g", GRADIENT)),))
    evaluator = Evaluator(correct(rule, "jackknife"))
    total = 0.0
    for i in range(27):
        row = np.array([[-1.0, 0.0, 4.0][i // 3**k % 3] for k in range(3)])
        total += float(evaluator(batch(row))) / 27
        evaluator.reset()
    assert total == pytest.approx(1.0, rel=1e-14)  # (E g)² with E g = 1


# -- counts, precision, shapes --------------------------------------------------------------------

COUNTED = [s for s in STRATEGIES if not s.startswith("cross_fit")]


@pytest.mark.parametrize("strategy", COUNTED)
@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares"])
def test_a_count_is_a_repeated_microbatch(name, strategy):
    if (name, strategy) in {("adamw", "jackknife"), ("adamw_mean_of_squares", "closed_form")}:
        with pytest.raises(StrategyError):
            correct(get_rule(name), strategy)
        return
    counts = np.array([3, 1, 2])
    counted, repeated = (Evaluator(correction(name, strategy), ADAM) for _ in range(2))
    ignored = Evaluator(correction(name, strategy), ADAM)
    for row in HISTORY[:, :3]:
        found = counted(Microbatches({"x": row}, counts))
        expected = repeated(batch(np.repeat(row, counts)))
        assert found == pytest.approx(expected, rel=1e-12)
        # the control: another multiplicity is another update
        assert ignored(batch(row)) != pytest.approx(expected, rel=1e-6)


def test_microbatches_know_their_size_and_leave_one_out_of_a_count():
    found = Microbatches({"x": np.array([1.0, 2.0, 5.0])}, np.array([2, 1, 1]))
    assert found.size == 4
    assert found.mean(found.values["x"]) == 2.25
    assert found.without(0).counts.tolist() == [1, 1, 1]
    assert found.without(1).values["x"].tolist() == [1.0, 5.0]
    assert (found.only(0).size, found.only(0).values["x"].tolist()) == (1, [1.0])


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "jackknife"])
def test_mpmath_and_numpy_agree_to_twelve_digits(strategy):
    with mpmath.workdps(40):
        found = updates("adamw", strategy, hypers=ADAM, backend="mpmath")
    assert found == pytest.approx(updates("adamw", strategy, hypers=ADAM), rel=1e-12)
    nearly = {**ADAM, "beta1": ADAM["beta1"] * (1 + 1e-9)}
    assert found[1:] != pytest.approx(updates("adamw", strategy, hypers=nearly)[1:], rel=1e-12)


@pytest.mark.parametrize("strategy", ["plug_in", "delta", "cross_fit", "jackknife"])
def test_means_of_squares_agree_in_both_precisions(strategy):
    name = "adamw_mean_of_squares"
    with mpmath.workdps(40):
        found = updates(name, strategy, hypers=ADAM, backend="mpmath")
    assert found == pytest.approx(updates(name, strategy, hypers=ADAM), rel=1e-12)


def test_leading_axes_are_evaluated_side_by_side():
    rows = HISTORY[:4]
    together = Evaluator(correction("adamw", "delta"), ADAM)
    for scale in (1.0, 0.5):
        found = together(Microbatches({"x": scale * rows}, np.ones(SIZE, dtype=int)))
    for i, row in enumerate(rows):
        alone = updates("adamw", "delta", [row, 0.5 * row], hypers=ADAM)
        assert found[i] == pytest.approx(alone[-1], rel=1e-13)


def test_resetting_forgets_the_history():
    evaluator = Evaluator(correction("adamw", "delta"), ADAM)
    first = [evaluator(batch(row)) for row in HISTORY]
    evaluator.reset()
    assert [evaluator(batch(row)) for row in HISTORY] == first
    assert first[1] != evaluator(batch(HISTORY[1]))


def test_a_statistic_is_what_a_step_contributes():
    row = batch(np.array([1.0, 2.0, 6.0]))
    assert step_statistic(Fresh("a", Statistic("a", GRADIENT)), row) == 3
    assert step_statistic(Fresh("a", Statistic("a", GRADIENT, MEAN**2)), row) == 9
    assert step_statistic(Fresh("a", Statistic("a", GRADIENT**2)), row) == pytest.approx(41 / 3)
    polynomial = 2 * GRADIENT**3 - GRADIENT / 2 + 1
    assert step_statistic(Fresh("a", Statistic("a", polynomial)), row) == pytest.approx(149.5)


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypers", "error", "message"),
    [
        ({"rho": 0.1}, StrategyError, "has no hyperparameter rho; it has eps, beta1, beta2"),
        ({"beta1": 1.0}, RuleError, r"beta1=1.0 is outside \[0, 1\)"),
        ({"eps": -1e-8}, RuleError, r"eps=-1e-08 is outside \[0, inf\)"),
    ],
)
def test_hyperparameters_are_checked(hypers, error, message):
    with pytest.raises(error, match=message):
        Evaluator(correction("adamw", "delta"), hypers)


def test_cross_fitting_one_group_is_refused():
    with pytest.raises(StrategyError, match="cross-fitting needs 2 groups, got 1"):
        Evaluator(correction("adamw", "cross_fit"))(batch(HISTORY[0]))


def test_cross_fitting_another_number_of_groups_is_refused():
    evaluator = Evaluator(correction("adamw", "cross_fit", 3))
    with pytest.raises(StrategyError, match="needs 3 groups, got 2"):
        evaluator(batch(HISTORY[0, :3]), batch(HISTORY[0, 3:]))


@pytest.mark.parametrize("name", ["adamw", "adamw_mean_of_squares", "inverse"])
def test_one_microbatch_gives_no_variance_and_is_refused(name):
    values = {"x": np.array([1.0]), "g": np.array([1.0]), "h": np.array([2.0])}
    with pytest.raises(StrategyError, match="at least 2"):
        Evaluator(correction(name, "delta"))(Microbatches(values, np.array([1])))


def test_two_microbatches_are_corrected_without_a_third_moment():
    for name in ("adamw", "adamw_mean_of_squares"):
        found = updates(name, "delta", HISTORY[:, :2], hypers=ADAM)
        assert np.all(np.isfinite(found))


# -- kinks ----------------------------------------------------------------------------------------

WIDE = {"x": np.array([4.0, 6.0]), "y": np.array([0.1, 0.2]),
        "exp_avg": np.array([4.0, 6.0]), "hessian": np.array([0.1, 0.2])}  # fmt: skip


def clipped_update(name, strategy, backend="numpy"):
    evaluator = Evaluator(correction(name, strategy), backend=backend)
    values = WIDE
    if backend == "mpmath":
        values = {k: np.array([mpmath.mpf(x) for x in v], dtype=object) for k, v in WIDE.items()}
    whole = Microbatches(values, np.ones(2, dtype=int))
    if strategy.startswith("cross_fit"):
        return float(evaluator(whole, whole))
    return float(evaluator(whole))


CLIPPED = ("delta", "inversion", "cross_fit+delta")


@pytest.mark.parametrize("name", ["sophia", "sophia_g"])
@pytest.mark.parametrize("strategy", CLIPPED)
def test_a_corrected_update_stays_inside_its_clip(name, strategy):
    assert clipped_update(name, strategy) == 1.0


# the smooth branch alone would give an update of 1000
@pytest.mark.parametrize("name", ["sophia", "sophia_g"])
@pytest.mark.parametrize("strategy", ["plug_in", "cross_fit", "leave_one_out"])
def test_an_uncorrected_update_stays_inside_its_clip(name, strategy):
    assert clipped_update(name, strategy) == 1.0


@pytest.mark.parametrize("strategy", CLIPPED)
def test_a_clip_is_evaluated_in_mpmath_too(strategy):
    assert clipped_update("sophia", strategy, "mpmath") == 1.0


def test_a_broken_coefficient_keeps_its_digits():
    third = Fresh("a", Statistic("a", GRADIENT**2 / 3))
    with mpmath.workdps(50):
        one = Microbatches({"x": np.array([mpmath.mpf(1)], dtype=object)}, np.array([1]))
        assert abs(3 * step_statistic(third, one) - 1) < mpmath.mpf(10) ** -45


# -- names are only names -------------------------------------------------------------------------


def renamed_update(first, second):
    """Two steps of the tracked correction of g/(sqrt(v)+eps), whatever g and v are called."""
    rule = UpdateRule.parse(f"{first}/(sqrt({second})+eps)")
    evaluator = Evaluator(correct(rule), {"eps": 0.5})
    values = {first: HISTORY[0], second: 1 + HISTORY[1] ** 2}
    for _ in range(2):
        found = evaluator(Microbatches(values, np.ones(SIZE, dtype=int)))
    return float(found)


@pytest.mark.parametrize("names", [("momentum", "second"), ("a", "b"), ("v", "g"), ("x", "y")])
def test_the_names_of_statistics_do_not_matter(names):
    assert renamed_update(*names) == pytest.approx(renamed_update("g", "v"), rel=1e-14)


# states, scalars and intermediate values share one namespace: m is Adam's own name for an average,
# and share is what the safe form calls its share
@pytest.mark.parametrize("names", [("m", "v"), ("g", "m"), ("ratio", "v"), ("share", "v"),
                                   ("denominator", "v"), ("g", "denominator")])  # fmt: skip
def test_a_name_that_the_correction_uses_itself_is_kept_apart_or_refused(names):
    try:
        found = renamed_update(*names)
    except RuleError:
        return
    assert found == pytest.approx(renamed_update("g", "v"), rel=1e-14)


def test_the_twin_of_the_safe_form_is_the_formula_of_the_design():
    # both forms of the docstring of the twin agree to second order in the moments
    first, v, eps, h = 0.3, 2.0, 0.1, 1e-5
    s = sp.sqrt(v)
    cov, var = 0.7, 1.9
    delta = -cov / (2 * s * (s + eps) ** 2) + first * var * (eps + 3 * s) / (
        8 * s**3 * (s + eps) ** 3
    )
    plain = twin.corrected(first, v, eps, 0.0, 0.0)
    slope = (twin.corrected(first, v, eps, h * cov, h * var) - plain) / h
    assert slope == pytest.approx(-float(delta), rel=1e-4)
