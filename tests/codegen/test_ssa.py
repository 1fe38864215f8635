"""One intermediate form: an exhaustive table, every name assigned once, nothing computed twice."""

from fractions import Fraction

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from tests.codegen.expressions import EPS, LR, G, V, W, formulas

from deltabias.codegen.ssa import (
    TENSOR_OPERATIONS,
    UNARY,
    Assign,
    Lowering,
    Mutate,
    Number,
    Program,
    lower,
    symbols_of,
)
from deltabias.errors import GenerateError
from deltabias.parser import FUNCTIONS
from deltabias.safe_form import Definition

TENSORS, SCALARS = ("g", "v", "w"), ("eps", "lr")


def lowered(expression, name="out"):
    return lower("f", [Definition(name, expression)], TENSORS, SCALARS)


UNKNOWN = [
    sp.sin(G),
    sp.gamma(V),
    sp.Piecewise((G, V > 1), (W, True)),
    sp.Derivative(G**2, G, evaluate=False),
    sp.Heaviside(G),
    sp.Function("kappa")(2) * G,
    sp.Eq(G, V),
    sp.oo * V,
    sp.floor(G),
]


@pytest.mark.parametrize("node", UNKNOWN, ids=str)
def test_a_node_outside_the_table_is_an_error(node):
    with pytest.raises(GenerateError, match="has no torch operation in the table; known are sums"):
        lowered(node)


@pytest.mark.parametrize("node", [G**V, V**EPS, sp.exp(V) ** W + 2**G], ids=str)
def test_a_power_of_tensors_that_is_not_rational_is_an_error(node):
    with pytest.raises(GenerateError, match="is not a rational power"):
        lowered(node)


def test_a_name_that_nothing_defines_is_an_error():
    with pytest.raises(GenerateError, match="'missing' is used before it is defined"):
        lowered(G + sp.Symbol("missing"))


def test_definitions_are_in_scope_only_after_they_are_made():
    a, b = Definition("a", G + 1), Definition("b", Definition("a", G).symbol * V)
    lower("f", [a, b], TENSORS, SCALARS)
    with pytest.raises(GenerateError, match="'a' is used before it is defined"):
        lower("f", [b, a], TENSORS, SCALARS)


@given(formulas())
def test_every_formula_of_the_language_is_lowered_to_known_operations(expression):
    program = lowered(expression)
    assert all(isinstance(s, Assign) for s in program.statements)
    assert {s.operation for s in program.statements} <= TENSOR_OPERATIONS
    assert program.results == ("out",)


@given(formulas())
def test_every_name_is_assigned_once_and_before_it_is_read(expression):
    program = lowered(expression)
    known = {*TENSORS, *SCALARS}
    for s in program.statements:
        assert all(o in known for o in s.operands if isinstance(o, str))
        assert s.target not in known
        known.add(s.target)
    assert set(program.results) <= known


@given(formulas())
def test_nothing_is_computed_twice(expression):
    keys = [(s.operation, s.operands) for s in lowered(expression).statements
            if s.operation != "copy"]  # fmt: skip
    assert len(set(keys)) == len(keys)


def test_a_shared_part_is_computed_once_over_several_definitions():
    root = sp.sqrt(V)
    program = lower("f", [Definition("a", G / (root + EPS)), Definition("b", W / (root + EPS))],
                    TENSORS, SCALARS, ["a", "b"])  # fmt: skip
    assert [s.operation for s in program.statements] == ["sqrt", "add", "div", "div"]


@pytest.mark.parametrize(
    ("power", "operations"),
    [
        (sp.Rational(1, 2), ["sqrt"]),
        (sp.Rational(-1, 2), ["sqrt", "reciprocal"]),
        (sp.Rational(1, 4), ["sqrt", "sqrt"]),
        (sp.Rational(3, 2), ["sqrt", "mul"]),
        (sp.Integer(2), ["mul"]),
        (sp.Integer(3), ["mul", "mul"]),
        (sp.Integer(8), ["mul", "mul", "mul"]),
        (sp.Integer(-1), ["reciprocal"]),
        (sp.Rational(1, 3), ["root"]),
        (sp.Rational(1, 6), ["sqrt", "root"]),
    ],
)
def test_powers_are_roots_and_products(power, operations):
    assert [s.operation for s in lowered(V**power).statements] == operations


def test_a_sum_of_one_and_something_small_keeps_its_digits_in_a_logarithm():
    assert [s.operation for s in lowered(sp.log(1 + V)).statements] == ["log1p"]
    assert [s.operation for s in lowered(sp.log(2 + V)).statements] == ["add", "log"]


def test_operations_on_scalars_alone_are_marked_as_such():
    program = lowered(G * (EPS + 1) * LR)
    assert [s.scalar for s in program.statements if s.operation == "add"] == [True]
    assert not program.statements[-1].scalar


def test_every_function_of_the_rule_language_has_an_operation():
    others = {"sqrt", "rsqrt", "cbrt", "max", "min", "clip"}
    assert set(FUNCTIONS) - others == {UNARY[f] for f in UNARY}
    for name in set(FUNCTIONS) - {"max", "min", "clip"}:
        lowered(FUNCTIONS[name](V))
    lowered(sp.Max(G, V) + sp.Min(G, 1) + FUNCTIONS["clip"](G, -1, 1))


# -- numbers --------------------------------------------------------------------------------------


@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**9))
def test_a_rational_prints_as_the_nearest_double(value):
    printed = str(Number(sp.Rational(value.numerator, value.denominator)))
    assert eval(printed) == float(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(sp.Rational(1, 2), "0.5"), (sp.Integer(3), "3"), (sp.Rational(1, 3), "1 / 3"),
     (sp.Integer(10**18), "1e+18"), (sp.Rational(1, 2**126), "1.1754943508222875e-38"),
     (sp.Rational(-3, 8), "-0.375")],
)  # fmt: skip
def test_numbers_are_readable(value, text):
    assert str(Number(value)) == text


def test_a_tenth_is_not_printed_as_a_rounded_decimal_of_less():
    assert Fraction(eval(str(Number(sp.Rational(1, 10))))) == Fraction(0.1)
    assert Fraction(eval("0.1000001")) != Fraction(0.1)


# -- updates in place -----------------------------------------------------------------------------


def mutable():
    program = Program("f", ("a", "b"), ("s",))
    return program, Lowering(program)


def test_an_update_in_place_makes_what_was_computed_from_it_stale():
    _, code = mutable()
    before = code.emit("sqrt", "a")
    unrelated = code.emit("sqrt", "b")
    assert code.emit("sqrt", "a") == before
    code.mutate("a", "mul", "b")
    assert code.emit("sqrt", "a") != before
    assert code.emit("sqrt", "b") == unrelated


def test_an_update_in_place_remembers_its_keyword():
    program, code = mutable()
    code.mutate("a", "addcmul", "b", "b", value="s")
    assert program.statements == [Mutate("a", "addcmul", ("b", "b"), "value", "s")]


def test_reads_are_counted_in_updates_and_results_too():
    program, code = mutable()
    root = code.emit("sqrt", "a")
    code.mutate("b", "add", root, alpha="s")
    program.results = ("b",)
    assert program.uses() == {"a": 1, root: 1, "b": 2, "s": 1}


def test_pruning_drops_what_nothing_reads_and_keeps_every_update():
    program, code = mutable()
    code.bind(code.emit("exp", code.emit("sqrt", "a")), "unread")
    code.mutate("b", "mul", "s")
    assert [type(s) for s in program.prune().statements] == [Mutate]


def test_binding_a_fresh_value_names_it_and_binding_an_argument_copies_it():
    program, code = mutable()
    code.bind(code.emit("sqrt", "a"), "root")
    code.bind("b", "alias")
    code.bind(Number(sp.Integer(2)), "two")
    assert [(s.target, s.operation) for s in program.statements] == [
        ("root", "sqrt"), ("alias", "copy"), ("two", "copy")
    ]  # fmt: skip
    assert code.emit("sqrt", "a") == "root"


def test_a_scalar_argument_is_declared_once():
    program, code = mutable()
    for _ in range(2):
        code.scalar_argument("beta")
    code.scalar_argument("a")  # a tensor already
    assert program.scalars == ("s", "beta")
    assert code.declares("beta")
    assert not code.declares("gamma")


def test_free_symbols_are_those_that_definitions_do_not_make_themselves():
    share = Definition("share", sp.sqrt(V) / (sp.sqrt(V) + EPS))
    update = Definition("update", G * share.symbol)
    assert list(symbols_of([share, update])) == ["eps", "v", "g"]


def test_a_float_is_not_an_exact_number():
    with pytest.raises(GenerateError):
        lowered(sp.Float(0.5) * G)


# (G + 1) W would otherwise be read from the second a
def test_a_name_is_not_defined_twice():
    twice = [Definition("a", G + 1), Definition("a", V + 1), Definition("b", (G + 1) * W)]
    with pytest.raises(GenerateError, match="'a'"):
        lower("f", twice, TENSORS, SCALARS)
    with pytest.raises(GenerateError, match="'v'"):
        lower("f", [Definition("v", G + 1), Definition("b", V * W)], TENSORS, SCALARS)


def test_an_argument_whose_old_value_nobody_wants_is_known():
    program = Program("f", ("out", "both", "after", "x"), ())
    code = Lowering(program)
    code.mutate("both", "add", "x")
    for name in ("out", "both", "after"):
        code.mutate(name, "copy", "x")
    code.mutate("after", "add", "x")  # reads what was copied, not what was there
    assert program.unread() == {"out", "after"}
    swapped = Program("f", ("out",), ())
    Lowering(swapped).mutate("out", "copy", "out")
    assert swapped.unread() == set()
