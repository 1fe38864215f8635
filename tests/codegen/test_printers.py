"""The plain and the foreach printer: values of the formula, the same bits, nothing reordered."""

import math

import mpmath
import pytest
import sympy as sp
import torch
from hypothesis import assume, given, settings
from tests.codegen.expressions import EPS, LR, G, V, W, formulas
from tests.codegen.printed import call_both, eager_of, foreach_of, load, same_bits

from deltabias.codegen import eager, foreach
from deltabias.codegen.eager import _Eager
from deltabias.codegen.kernels import rule_programs
from deltabias.codegen.ssa import TENSOR_OPERATIONS, Lowering, Number, Program, lower
from deltabias.errors import GenerateError
from deltabias.parser import clip
from deltabias.rule import UpdateRule
from deltabias.safe_form import Definition

TENSORS, SCALARS = ("g", "v", "w"), ("eps", "lr")
VALUES = {
    "g": torch.tensor([-1.75, -0.5, 0.375, 1.5], dtype=torch.float64),
    "v": torch.tensor([0.5, 0.75, 1.25, 2.0], dtype=torch.float64),
    "w": torch.tensor([1.5, 0.625, 1.0, 0.875], dtype=torch.float64),
}
NUMBERS = {"eps": 0.5, "lr": 1.25}


def program_of(expression):
    return lower("f", [Definition("out", expression)], TENSORS, SCALARS)


def clipped(expression):
    return expression.replace(clip, lambda x, low, high: sp.Max(low, sp.Min(high, x)))


def truth(expression):
    """The formula at each point, to thirty digits, and the size of its largest part."""
    expression = clipped(expression)
    for i in range(4):
        point = {s: sp.Rational(float(VALUES[s.name][i])) for s in (G, V, W)}
        point |= {s: sp.Rational(NUMBERS[s.name]) for s in (EPS, LR)}
        size = max((abs(sp.N(a.subs(point), 30)) for a in sp.Add.make_args(expression)), default=0)
        yield float(sp.N(expression.subs(point), 30)), float(size)


def disagreement(values, expression):
    """The largest error over the size of the terms."""
    worst = 0.0
    for value, (exact, size) in zip(values.tolist(), truth(expression), strict=True):
        worst = max(worst, abs(value - exact) / (1e-300 + max(size, abs(exact))))
    return worst


def run(expression):
    values = call_both(program_of(expression), list(VALUES.values()), NUMBERS)
    return [v if isinstance(v, torch.Tensor) else torch.full((4,), float(v)) for v in values]


@settings(max_examples=30)
@given(formulas(scalars=False))
def test_the_printed_function_has_the_value_of_the_formula(expression):
    assume(expression.has(G))
    plain, listed = run(expression)
    assert disagreement(plain, expression) < 1e-11
    assert same_bits(plain, listed)
    assert disagreement(plain * (1 + 1e-9), expression) > 1e-11 or not plain.any()


# torch._foreach has no operation for a host scalar less, or divided by, a list of tensors
@settings(max_examples=30)
@given(formulas())
def test_the_printed_function_has_the_value_of_a_formula_with_scalars(expression):
    assume(expression.has(G))
    plain, listed = run(expression)
    assert disagreement(plain, expression) < 1e-11
    assert same_bits(plain, listed)


TRICKY = [
    G - (V - W),
    G - V - W,
    G / (V * W),
    G / V / W,
    G / (V / W),
    -(G + V) * W,
    -G * V,
    -(G**2),
    (-G) ** 2,
    sp.Rational(2, 3) / (5 * V),
    sp.Rational(-2, 3) * V**2,
    1 - V,
    4 - 2 * V,
    G * (V + W) * (V - W),
    (V + 1) / (W - 3) - G / (V + 2),
    sp.sqrt(V + W) * sp.sqrt(V),
    1 / (sp.sqrt(V) + EPS) ** 3,
    V ** sp.Rational(-5, 4) * G**3,
    EPS * G - LR * V,
    (EPS + 1) * (LR + 2) * G,
    G / (EPS * LR),
    G * EPS**2 / LR,
    sp.Max(G, V, W, EPS),
    sp.Min(G, EPS) - sp.Max(-G, LR),
    clip(G, -EPS, EPS) * V,
    clip(G, -V, W),
    sp.log(1 + V) - sp.exp(-V) + sp.tanh(G) * sp.erf(G) + sp.atan(G) + sp.sign(G) + sp.Abs(G),
    sp.Rational(1, 3) * G,
    G * 10**20 / (V * 10**20 + 1),
]


@pytest.mark.parametrize("expression", TRICKY, ids=str)
def test_precedence_and_signs_survive_printing(expression):
    plain, listed = run(expression)
    assert disagreement(plain, expression) < 1e-14
    assert same_bits(plain, listed)


@pytest.mark.parametrize(
    "expression",
    [EPS / V + G, EPS * LR / (V * W), 2 * EPS / V, EPS - LR - V, G * sp.log(1 + EPS)],
    ids=str,
)
def test_a_scalar_on_the_left_survives_printing(expression):
    plain, listed = run(expression)
    assert disagreement(plain, expression) < 1e-14
    assert same_bits(plain, listed)


# Python reads a ** b ** c from the right
def test_a_power_of_a_power_of_scalars_keeps_its_brackets():
    program = Program("f", ("g",), ("eps", "lr"))
    code = Lowering(program)
    inner = code.emit("pow", "eps", "lr")
    code.bind(code.emit("mul", "g", code.emit("pow", inner, Number(sp.Rational(1, 2)))), "out")
    program.results = ("out",)
    plain, listed = call_both(program, [torch.ones(1, dtype=torch.float64)], NUMBERS)
    assert float(listed) == pytest.approx((0.5**1.25) ** 0.5, rel=1e-14)
    assert float(plain) == pytest.approx((0.5**1.25) ** 0.5, rel=1e-14)


# the derivative of erf has 2/√π in it
@pytest.mark.parametrize("text", ["erf(g)*v", "exp(1)*g/v", "g*exp(v-1)"])
def test_a_rule_with_an_irrational_constant_is_printed(text):
    assert rule_programs(UpdateRule.parse(text)).updates


# -- every operation of the table -----------------------------------------------------------------

TRUTH = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "neg": torch.neg,
    "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "exp": torch.exp,
    "log": torch.log,
    "log1p": torch.log1p,
    "tanh": torch.tanh,
    "abs": torch.abs,
    "sign": torch.sign,
    "atan": torch.atan,
    "erf": torch.erf,
    "clone": torch.clone,
    "copy": lambda a: a,
}


@pytest.mark.parametrize("operation", TRUTH)
def test_every_operation_on_tensors_is_printed_by_both(operation):
    arity = 2 if operation in ("add", "sub", "mul", "div", "maximum", "minimum") else 1
    program = Program("f", TENSORS[1:], ())
    code = Lowering(program)
    code.bind(code.emit(operation, *TENSORS[1 : 1 + arity]), "out")
    program.results = ("out",)
    tensors = [VALUES["v"], VALUES["w"]]
    plain, listed = call_both(program, tensors)
    assert same_bits(plain, TRUTH[operation](*tensors[:arity]))
    assert same_bits(plain, listed)


def test_every_operation_is_covered_here():
    elsewhere = {"clamp_min", "clamp_max", "root", "to_dtype_of", "pow"}
    assert set(TRUTH) | elsewhere == TENSOR_OPERATIONS


def test_clamps_take_numbers_and_scalars():
    program = Program("f", ("g",), ("eps",))
    code = Lowering(program)
    low = code.emit("clamp_min", "g", Number(sp.Rational(-1, 2)))
    code.bind(code.emit("clamp_max", low, "eps"), "out")
    program.results = ("out",)
    plain, listed = call_both(program, [VALUES["g"]], {"eps": 0.4})
    assert plain.tolist() == [-0.5, -0.5, 0.375, 0.4]
    assert same_bits(plain, listed)


def test_a_cube_root_is_within_one_unit_in_the_last_place():
    x = torch.logspace(-30, 10, 400, dtype=torch.float64)
    program = lower("f", [Definition("out", V ** sp.Rational(1, 3))], ("v",), ())
    plain, listed = call_both(program, [x])
    assert same_bits(plain, listed)

    def worst(values):
        with mpmath.workdps(50):
            exact = [mpmath.cbrt(mpmath.mpf(value)) for value in x.tolist()]
            return max(
                float(abs(mpmath.mpf(y) - e)) / math.ulp(float(e))
                for y, e in zip(values.tolist(), exact, strict=True)
            )

    assert worst(plain) <= 1.0
    assert worst(plain * (1 + 2**-51)) > 1.0  # the control
    zero = eager_of(program)(torch.zeros(1, dtype=torch.float64))
    assert zero.item() == 0.0


def test_a_working_precision_is_taken_from_another_tensor():
    program = Program("f", ("g", "v"), ())
    code = Lowering(program)
    code.bind(code.emit("to_dtype_of", "g", "v"), "out")
    program.results = ("out",)
    plain, listed = call_both(program, [VALUES["g"].bfloat16(), VALUES["v"]])
    assert plain.dtype == listed.dtype == torch.float64


def test_an_operation_that_scalars_do_not_have_is_an_error_in_both():
    program = lower("f", [Definition("out", G * sp.sign(EPS))], ("g",), ("eps",))
    for printer in (eager.render, foreach.render):
        with pytest.raises(GenerateError, match="sign of scalars has no Python function"):
            printer(program)


# -- updates in place are not crossed -------------------------------------------------------------


def a_program_with_a_hazard():
    """root is read after `a`, which it was computed from, has changed."""
    program = Program("f", ("a", "b"), ("s",))
    code = Lowering(program)
    root = code.emit("sqrt", "a")
    code.mutate("a", "mul", "b")
    code.mutate("b", "add", root, alpha="s")
    code.mutate("a", "sub", code.emit("sqrt", "a"))
    return program


def by_hand(a, b, s):
    root = a.sqrt()
    a = a * b
    b = b + s * root
    return a - a.sqrt(), b


def run_in_place(function, *, listed):
    a, b = (torch.tensor([4.0, 9.0]), torch.tensor([3.0, 0.5]))
    function(*([[a], [b]] if listed else [a, b]), s=2.0)
    return a, b


def test_a_temporary_is_not_moved_across_an_update_of_what_it_was_computed_from():
    program = a_program_with_a_hazard()
    expected = by_hand(torch.tensor([4.0, 9.0]), torch.tensor([3.0, 0.5]), 2.0)
    for function, listed in ((eager_of(program), False), (foreach_of(program), True)):
        for found, exact in zip(run_in_place(function, listed=listed), expected, strict=True):
            assert same_bits(found, exact)


def test_a_printer_that_moves_every_single_use_is_caught_by_that_check(monkeypatch):
    program = a_program_with_a_hazard()

    def every_single_use(printer):
        return {n for n, c in printer.uses.items() if c == 1 and n.startswith("_")}

    monkeypatch.setattr(_Eager, "_find_inlined", every_single_use)
    found = run_in_place(eager_of(program), listed=False)
    expected = by_hand(torch.tensor([4.0, 9.0]), torch.tensor([3.0, 0.5]), 2.0)
    assert not same_bits(found[1], expected[1])


def test_a_chain_of_temporaries_is_inlined_up_to_an_update_and_not_beyond():
    program = Program("f", ("a", "b"), ())
    code = Lowering(program)
    chain = code.emit("add", code.emit("exp", code.emit("sqrt", "a")), "b")
    code.mutate("b", "mul", "b")
    code.mutate("a", "copy", chain)
    source = eager.render(program)
    assert "_x2 = a.sqrt().exp() + b" in source
    a, b = torch.tensor([4.0]), torch.tensor([3.0])
    load(source, "f")(a, b)
    assert same_bits(a, torch.tensor([4.0]).sqrt().exp() + torch.tensor([3.0]))


# -- what people read -----------------------------------------------------------------------------


def test_the_plain_version_reads_like_the_formula():
    text = eager.render(program_of(G / (sp.sqrt(V) + EPS)))
    assert text == (
        "def f(g: Tensor, v: Tensor, w: Tensor, *, eps: float, lr: float) -> Tensor:\n"
        "    return g / (v.sqrt() + eps)\n"
    )


def test_the_list_version_is_one_operation_a_line():
    text = foreach.render(program_of(G / (sp.sqrt(V) + EPS)))
    assert text.splitlines()[1:] == [
        "    _x0 = torch._foreach_sqrt(v)",
        "    _x1 = torch._foreach_add(_x0, eps)",
        "    return torch._foreach_div(g, _x1)",
    ]
    assert "def f_foreach(g: list[Tensor]" in text


def test_notes_and_docstrings_are_printed():
    half = Definition("half", G / 2, "one half of it")
    definitions = [half, Definition("out", half.symbol)]
    program = lower("f", definitions, TENSORS, SCALARS, doc="First line.\n\nMore.")
    for printer in (eager.render, foreach.render):
        text = printer(program)
        assert "# one half of it" in text
        assert '"""First line.\n\n    More.\n    """' in text


# a user may call a statistic x0
@pytest.mark.parametrize("names", [("x0", "x1"), ("x1", "x0"), ("x2", "x3")])
def test_a_temporary_does_not_overwrite_an_argument(names):
    first, second = (sp.Symbol(n, positive=True) for n in names)
    program = lower("f", [Definition("out", first / (sp.sqrt(second) + 1) + sp.sqrt(first))],
                    names, ())  # fmt: skip
    a, b = VALUES["v"], VALUES["w"]
    plain, listed = call_both(program, [a, b])
    assert same_bits(plain, a / (b.sqrt() + 1) + a.sqrt())
    assert same_bits(plain, listed)
