"""The rule language: what is read, what is refused and in which words. Nothing is ever run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from deltabias import parser
from deltabias.errors import DeltabiasError, ParseError
from deltabias.parser import ARITY, FUNCTIONS, MAX_DEPTH, MAX_LENGTH, clip, parse_expression

G, V, EPS = sp.Symbol("g", real=True), sp.Symbol("v", positive=True), sp.Symbol("eps")
KNOWN = {"g": G, "v": V, "eps": EPS}


def read(text):
    return parse_expression(text, lambda name: KNOWN.get(name) or sp.Symbol(name))


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("g/(sqrt(v)+eps)", G / (sp.sqrt(V) + EPS)),
        ("g*v**(-1/3)", G * V ** sp.Rational(-1, 3)),
        ("-g + +v", V - G),
        ("2*g - 3*v/4", 2 * G - sp.Rational(3, 4) * V),
        ("rsqrt(v)", 1 / sp.sqrt(V)),
        ("cbrt(v)", V ** sp.Rational(1, 3)),
        ("exp(-v)*log(v)", sp.exp(-V) * sp.log(V)),
        ("tanh(g) + atan(g) + erf(g)", sp.tanh(G) + sp.atan(G) + sp.erf(G)),
        ("abs(g)*sign(g)", sp.Abs(G) * sp.sign(G)),
        ("max(v, eps, 1)", sp.Max(V, EPS, 1)),
        ("min(g, 2)", sp.Min(G, 2)),
        ("clip(g/v, -1, 1)", clip(G / V, -1, 1)),
        ("  (g\n + v)  ", G + V),
        ("g**64 + v**(1/64)", G**64 + V ** sp.Rational(1, 64)),
        ("2**g", 2**G),
    ],
)
def test_mathematics_is_read_as_it_is_written(text, expression):
    assert sp.simplify(read(text) - expression) == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", (1, 10)), ("1e-8", (1, 10**8)), (".5", (1, 2)), ("1_000.25", (4001, 4)),
     ("3.", (3, 1)), ("0.3333333333333333333333", (3333333333333333333333, 10**22))],
)  # fmt: skip
def test_decimals_are_exact(text, value):
    assert read(text) == sp.Rational(*value)


@given(st.decimals(min_value=-1000, max_value=1000, places=6))
def test_every_decimal_is_read_to_its_last_digit(number):
    assert read(f"({number})*g") == sp.Rational(str(number)) * G


def test_a_float_would_not_have_been_exact():
    assert sp.Rational(0.1) != read("0.1")  # the control: the nearest double is not a tenth


ATTACKS = [
    "__import__('os').system('true')",
    "g.__class__",
    "().__class__.__bases__[0].__subclasses__()",
    "exec('1')",
    "eval(g)",
    "open(v)",
    "lambda: g",
    "[g for g in v]",
    "{g: v}",
    "g[0]",
    "(g := 1)",
    "f'{g}'",
    "'g'",
    "b'g'",
    "g if v else eps",
    "g and v",
    "not g",
    "~g",
    "g < v",
    "g // v",
    "g % v",
    "g @ v",
    "g << 2",
    "g, v",
    "sqrt(*g)",
    "sqrt(x=g)",
    "sqrt(**g)",
    "...",
    "None",
    "1j*g",
    "(sqrt)(g)(v)",
    "g(v)",
    "await g",
    "yield",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_what_is_not_mathematics_is_refused(text):
    with pytest.raises(ParseError, match=r"is not accepted in a rule|is not an expression"):
        read(text)


def test_a_refusal_names_the_piece_and_what_is_allowed():
    with pytest.raises(ParseError) as caught:
        read("g + v.real")
    text = str(caught.value)
    assert "'v.real' is not accepted in a rule" in text
    assert all(name in text for name in FUNCTIONS)


def called_names(source):
    """The names of everything a source calls, methods by their last part."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {getattr(f, "id", getattr(f, "attr", "")) for f in calls}


RUNS_CODE = {"eval", "exec", "compile", "__import__", "sympify", "parse_expr", "literal_eval"}


def test_the_parser_calls_nothing_that_runs_a_string():
    assert not called_names(Path(parser.__file__).read_text(encoding="utf-8")) & RUNS_CODE
    # the control: such a call would be seen
    assert called_names("x = sp.sympify(text)") & RUNS_CODE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"a rule has 1 to {MAX_LENGTH} characters, this one has 0"),
        ("   ", f"a rule has 1 to {MAX_LENGTH} characters, this one has 0"),
        ("g" * (MAX_LENGTH + 1), f"this one has {MAX_LENGTH + 1}"),
        ("g +", r"'g \+' is not an expression \(SyntaxError"),
        ("g\0", "is not an expression"),
        ("x = g", "is not an expression"),
        ("import os", "is not an expression"),
        ("g; v", "is not an expression"),
        ("-" * (MAX_DEPTH + 5) + "g", f"nested deeper than {MAX_DEPTH} levels"),
        ("True*g", "True is not a number"),
        ("sqrt", r"'sqrt' is a function; write sqrt\(…\)"),
        ("sqrt(g, v)", r"sqrt takes 1 argument\(s\), got 2 in 'sqrt\(g, v\)'"),
        ("max(g)", r"max takes 2 to 8 argument\(s\), got 1"),
        ("clip(g, 1)", r"clip takes 3 argument\(s\), got 2"),
        ("g/0", "'g/0' divides by zero"),
        ("g/(v - v)", "divides by zero"),
        ("g*0**-1", "divides by zero"),
        ("g*0**0", "divides by zero"),
        ("g**sqrt(2)", r"the exponent sqrt\(2\) in 'g\*\*sqrt\(2\)' is not a rational number"),
        ("g**65", "the exponent 65 in 'g\\*\\*65' is out of range: numerator and denominator go up "
         "to 64"),
        ("v**(1/65)", "the exponent 1/65 in .* is out of range"),
        ("2**(10**9)*g", "is out of range"),
        ("g*sqrt(-1)", "is not a finite real expression; it reads as I\\*g"),
        ("g*log(0)", "is not a finite real expression"),
        ("g*log(-2)", "is not a finite real expression"),
    ],
)  # fmt: skip
def test_each_error_says_what_was_passed_and_what_is_wrong(text, message):
    with pytest.raises(ParseError, match=message):
        read(text)


@pytest.mark.parametrize("value", [5, None, b"g", sp.Symbol("g"), ["g"]])
def test_something_else_than_a_string_is_refused(value):
    with pytest.raises(ParseError, match="expected a string such as"):
        read(value)


def test_a_parse_error_is_a_value_error_of_the_package():
    assert issubclass(ParseError, DeltabiasError)
    assert issubclass(DeltabiasError, ValueError)


def test_the_caller_may_refuse_a_symbol():
    def refuse(name):
        raise ParseError(f"no {name} here")

    with pytest.raises(ParseError, match="no g here"):
        parse_expression("1 + g", refuse)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_checks_its_number_of_arguments(name):
    low, high = ARITY.get(name, (1, 1))
    read(f"{name}({', '.join(['g', 'v', 'eps', 'a', 'b', 'c', 'd', 'e'][:low])})")
    for count in (low - 1, high + 1):
        with pytest.raises(ParseError, match=f"{name} takes"):
            read(f"{name}({', '.join(['v'] * count)})")


@given(st.text(alphabet="gv1 +-*/().,'\"#\\_e\n[]{}:=@", max_size=30))
def test_any_string_is_an_expression_or_a_parse_error(text):
    try:
        found = read(text)
    except ParseError:
        return
    assert isinstance(found, sp.Expr)


# -- what a string must not be able to smuggle in or to cost ------------------------------------


# Python's grammar drops comments, so a whitelist of nodes never sees them; `rule.text` would
@pytest.mark.parametrize("text", ["g/v # hello", "g/(v # a\n)", 'g/v # """; import os; """'])
def test_a_comment_is_not_mathematics(text):
    with pytest.raises(ParseError):
        read(text)


@pytest.mark.parametrize("text", ["0x10*g", "0b11*g", "0o17*g"])
def test_a_number_in_another_base_is_read_or_refused(text):
    try:
        found = read(text)
    except ParseError:
        return
    assert found == {"0x": 16, "0b": 3, "0o": 15}[text[:2]] * G


# SymPy keeps (-1)**(1/3), the complex principal root
@pytest.mark.parametrize("text", ["g*(-1)**(1/3)", "g*(-8)**(2/3)", "cbrt(-2)*g"])
def test_a_root_of_a_negative_number_is_not_real(text):
    with pytest.raises(ParseError, match="is not a finite real expression"):
        read(text)


# once a defect: SymPy raises its own ValueError, "The argument 'clip(2, -1, 1)' is not comparable"
@pytest.mark.parametrize("text", ["max(clip(2, -1, 1), v)", "min(clip(1/2, -1, 1), eps)*g"])
def test_a_clip_of_a_number_is_a_number_or_refused(text):
    try:
        found = read(text)
    except ParseError:
        return
    assert not found.has(clip)


# powers of powers add up
@pytest.mark.parametrize("text", ["((g**64)**64)**64", "((g+v)**64)**64", "sqrt(sqrt(sqrt(sqrt("
                                  "sqrt(sqrt(sqrt(v)))))))"])  # fmt: skip
def test_exponents_cannot_be_piled_up(text):
    with pytest.raises(ParseError, match="out of range"):
        read(text)


EXPENSIVE = [
    "1e999999999*g",
    "1e-999999999*g",
    "((((9**64)**64)**64)**64)*g",
    "g*(1/3)**64**2",
    "9" * 1900 + "**64*g",
    "g*exp(exp(exp(exp(exp(9)))))",
]

COUNT = """
import sys
import sympy as sp
from deltabias.errors import ParseError
from deltabias.parser import parse_expression
for text in sys.argv[1:]:
    try:
        str(parse_expression(text, sp.Symbol))
    except ParseError:
        pass
print("done")
"""


def test_every_string_that_is_read_is_read_and_printed_quickly():
    # a process of its own: the arithmetic of huge integers cannot be interrupted
    found = subprocess.run(
        [sys.executable, "-c", COUNT, *EXPENSIVE],
        capture_output=True, text=True, timeout=15, check=False,
    )  # fmt: skip
    assert found.stdout.strip() == "done", found.stderr
