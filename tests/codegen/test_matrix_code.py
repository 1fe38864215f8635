"""Generated matrix rules: values on hand, shapes, bad matrices, and what cheap forms correct."""

import ast
from functools import cache
from types import ModuleType

import pytest
import torch

from deltabias.codegen.matrix_check import error_against_digits, error_against_jvp, inputs
from deltabias.codegen.matrix_emit import emit_matrix_rule, matrix_digest
from deltabias.errors import GenerateError
from deltabias.matrix_rule import MatrixRule

SHAMPOO = "inv_root(L + damping*I, 4)*M*inv_root(R + damping*I, 4)"
HEAT = 'spectral("exp(-eigenvalue)", L)*M'


@cache
def made(text):
    module = ModuleType("made")
    exec(emit_matrix_rule(MatrixRule.parse(text)).module, module.__dict__)
    return module


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def psd(d, *batch, seed=0):
    x = draw(*batch, d, d, seed=seed)
    return x @ x.mT / d + 0.1 * torch.eye(d, dtype=torch.float64)


def symmetric(*shape, seed=1):
    e = 0.01 * draw(*shape, seed=seed)
    return e + e.mT


def second_difference(f, points, along, h=1e-3):
    def at(t):
        return f(*(p + t * e for p, e in zip(points, along, strict=True)))

    return (at(h) + at(-h) - 2 * at(0.0)) / (2 * h * h)


OTHERS = [
    HEAT,
    'spectral("(eigenvalue+eps)**(-1/4)", L)*M',
    "inv_root(L + inv_sqrt(R), 2)*M",
    "(L*M).T*inv(L + I)",
]


@pytest.mark.parametrize("text", OTHERS)
def test_rules_outside_the_catalogue_pass_the_two_checks_of_those_in_it(text):
    rule = MatrixRule.parse(text)
    scalars = dict.fromkeys(rule.update.hypers, 0.01)
    for error in (error_against_digits, error_against_jvp):
        assert error(made(text), rule, "gap_1e-9", scalars) < 1e-11
        assert error(made(text), rule, "gap_1e-9", scalars, scale=1.001) > 1e-4


def test_newton_schulz_is_the_hand_written_quintic():
    module = made("newton_schulz(M, 5)")

    def by_hand(m):
        x = m / m.norm()
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        return x

    m, dm = draw(4, 3), 0.1 * draw(1, 4, 3, seed=2)
    torch.testing.assert_close(module.plug_in_update(m), by_hand(m), rtol=1e-13, atol=1e-14)
    (found,) = module.second_order(m, dm).values()
    exact = second_difference(by_hand, [m], [dm[0]])
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()


def test_the_polar_factor_has_orthonormal_columns():
    u = made("polar(M)").plug_in_update(draw(5, 3))
    torch.testing.assert_close(u.mT @ u, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (5, 2)])
@pytest.mark.parametrize("r", [0, 1, 4])
def test_any_shape_and_any_number_of_deviations(shape, r):
    d, n = shape
    points = psd(d), draw(d, n), psd(n, seed=5)
    along = symmetric(r, d, d), 0.01 * draw(r, d, n), symmetric(r, n, n, seed=7)
    module = made(SHAMPOO)
    terms = module.second_order(*points, *along, damping=0.01)
    total = sum(terms.values())
    exact = sum((second_difference(lambda *p: module.plug_in_update(*p, damping=0.01), points,
                                   [a[k] for a in along]) for k in range(r)),
                torch.zeros(d, n, dtype=torch.float64))  # fmt: skip
    assert (total - exact).abs().max() <= 1e-6 * points[1].abs().max()
    for name in ("", "_diagonal", "_eigenvalue_only"):
        corrected = getattr(module, f"corrected_update{name}")(*points, *along, damping=0.01)
        assert corrected.shape == (d, n)
        if r == 0:
            plug_in = module.plug_in_update(*points, damping=0.01)
            torch.testing.assert_close(corrected, plug_in, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", [SHAMPOO, HEAT])
def test_leading_dimensions_are_batches(text):
    module, two_sided = made(text), text == SHAMPOO
    points = [psd(3, 2), draw(2, 3, 4)] + [psd(4, 2, seed=3)] * two_sided
    along = [symmetric(2, 5, 3, 3), 0.01 * draw(2, 5, 3, 4)]
    along += [symmetric(2, 5, 4, 4, seed=4)] * two_sided
    given = {"damping": 0.01} if two_sided else {}
    whole = module.corrected_update(*points, *along, **given)
    for k in range(2):
        one = module.corrected_update(*(x[k] for x in (*points, *along)), **given)
        torch.testing.assert_close(whole[k], one, rtol=1e-11, atol=1e-12)


def test_an_empty_matrix_is_no_error():
    module = made("inv_root(L + damping*I, 2)*M")
    empty = torch.zeros(0, 0), torch.zeros(0, 3), torch.zeros(2, 0, 0), torch.zeros(2, 0, 3)
    assert module.corrected_update(*empty, damping=0.1).shape == (0, 3)


def test_single_precision_stays_single_and_close():
    points, along = inputs(MatrixRule.parse(SHAMPOO), "generic")
    full = made(SHAMPOO).corrected_update(*points, *along, damping=0.01)
    single = made(SHAMPOO).corrected_update(*(x.float() for x in (*points, *along)), damping=0.01)
    assert single.dtype == torch.float32
    assert (single.double() - full).abs().max() < 1e-5 * full.abs().max()


def test_singular_and_indefinite_matrices_are_named():
    module, m = made("inv_sqrt(L)*M"), draw(2, 2)
    with pytest.raises(ValueError, match="singular matrix has no inverse root; pass damping"):
        module.plug_in_update(torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), m)
    with pytest.raises(ValueError, match="indefinite"):
        module.plug_in_update(torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64)), m)
    with pytest.raises(ValueError, match="singular"):
        module.plug_in_update(torch.zeros(2, 2, dtype=torch.float64), m)


def test_a_map_that_is_finite_at_zero_takes_a_singular_matrix():
    m = draw(2, 2)
    found = made(HEAT).plug_in_update(torch.zeros(2, 2, dtype=torch.float64), m)
    torch.testing.assert_close(found, m)
    with pytest.raises(ValueError, match="singular"):
        made('spectral("log(eigenvalue)", L)*M').plug_in_update(torch.zeros(2, 2), m.float())


def test_what_cannot_be_a_ratio_is_subtracted_in_every_form():
    module = made(HEAT)
    points, along = (psd(3), draw(3, 2)), (symmetric(2, 3, 3), 0.0 * draw(2, 3, 2))
    plug_in, full = module.plug_in_update(*points), module.corrected_update(*points, *along)
    bias = sum(module.second_order(*points, *along).values())
    torch.testing.assert_close(full, plug_in - bias, rtol=1e-10, atol=1e-14)
    for name in ("diagonal", "eigenvalue_only"):
        cheap = getattr(module, f"corrected_update_{name}")(*points, *along)
        assert (cheap - plug_in).abs().max() > 1e-3 * bias.abs().max()


def test_a_root_that_is_not_operator_convex_never_meets_a_failing_factorization():
    module = made("inv_root(L, 1/2)*M")  # L⁻²: its second order may be indefinite
    points = torch.diag(torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)), draw(3, 3)
    e = draw(1, 3, 1)
    along = e @ e.mT, torch.zeros(1, 3, 3, dtype=torch.float64)
    assert torch.isfinite(module.corrected_update(*points, *along)).all()


@pytest.mark.parametrize("text", ["dict*M", "root_1*M*inv(M*M.T)"])
def test_names_that_the_code_uses_are_refused(text):
    with pytest.raises((GenerateError, ValueError), match="rename it"):
        emit_matrix_rule(MatrixRule.parse(text))


def test_a_linear_rule_has_a_module_and_no_bias_in_it():
    module, m = made("2*M - N.T"), draw(2, 2)
    assert module.second_order(m, m, m[None], m[None]) == {}
    torch.testing.assert_close(module.corrected_update(m, m, m[None], m[None]), 2 * m - m.mT)


def test_a_hyperparameter_may_be_called_result():
    module, m = made('elementwise("m/(1 + result)", m=M)*result'), draw(2, 2)
    torch.testing.assert_close(module.plug_in_update(m, result=3.0), 3 * m / 4)


def test_a_module_defines_functions_and_imports_torch_and_math_alone():
    for text in (SHAMPOO, HEAT, 'spectral("erf(eigenvalue)", L)*M'):
        tree = ast.parse(emit_matrix_rule(MatrixRule.parse(text)).module)
        assert {type(n) for n in tree.body[1:]} <= {ast.Import, ast.ImportFrom, ast.FunctionDef}
        assert {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names} <= {
            "torch",
            "math",
        }


def test_the_digest_says_what_the_rule_says_and_is_there_for_deep_ones():
    one, other = (MatrixRule.parse(t) for t in ("inv(L+I)*M", "inv(L+2*I)*M"))
    assert matrix_digest(one) == matrix_digest(MatrixRule.parse("inv(L+I)*M"))
    assert matrix_digest(one) != matrix_digest(other)
    assert len(matrix_digest(MatrixRule.parse("newton_schulz(M, 12)"))) == 12


@pytest.mark.parametrize("text", ["polar(M)", "M*inv_root(M.T*M + damping*I, 4)"])
def test_a_function_of_a_product_is_corrected_by_subtraction_for_its_term_is_indefinite(text):
    # the argument's own second order, dMᵀdM, pushes the inverse root down: no ratio is safe there
    module, m = made(text), draw(5, 3)
    hypers = {"damping": 0.1} if "damping" in text else {}
    for size in (0.01, 10.0):
        d = size * draw(2, 5, 3)
        bias = sum(module.second_order(m, d, **hypers).values())
        corrected = module.corrected_update(m, d, **hypers)
        torch.testing.assert_close(corrected, module.plug_in_update(m, **hypers) - bias)
