"""Typed matrix rules: what is read, and that nothing else is, let alone evaluated."""

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from deltabias.calculus.matrix import MatrixExpr, Spectral
from deltabias.errors import ParseError
from deltabias.matrix_derivation import describe
from deltabias.matrix_parser import FUNCTIONS, mentions_matrices, parse_matrix

READ = [
    "L",
    "-L + 2*M@R",
    "inv_root(L + damping*I, 4)*M*inv_root(R + damping*I, 4/3)",
    "L**(-1/4)*M",
    "L ** -0.25 * M",
    "polar(M)",
    "newton_schulz(M)",
    "M*inv_sqrt(M.T*M)",
    'spectral("exp(-eigenvalue)", L)*M',
    'spectral("(eigenvalue+eps)**(-1/4)", L)',
    'spectral("log(1+eigenvalue) + tanh(eigenvalue)", L + damping*I)',
    'elementwise("m/(sqrt(v)+eps)", m=M, v=V)',
    "(2**3)**2*M/3",
]


@pytest.mark.parametrize("text", READ)
def test_a_rule_is_read_and_what_it_is_described_as_reads_the_same(text):
    value = parse_matrix(text)
    assert isinstance(value, MatrixExpr)
    if "newton" not in text:  # its steps have names, which stand for what was computed before
        assert parse_matrix(describe(value)) == value
    assert parse_matrix(f"2*({text})") != value


def test_two_ways_to_write_a_root_are_one():
    assert parse_matrix("L**(-1/4)") == parse_matrix("inv_root(L, 4)")
    assert parse_matrix("polar(M)") == parse_matrix("M*(M.T*M)**(-1/2)")
    assert parse_matrix("M.T.T") == parse_matrix("M")


def test_decimals_are_exact():
    assert parse_matrix("inv_root(L, 0.1)").map.expression == sp.Symbol(
        "eigenvalue", positive=True
    ) ** (-10)


# text, a piece of it that the error names, or of what is said
REFUSED = [
    ('__import__("os").system("x")', "__import__"),
    ("L.T.__class__", "__class__"),
    ("L.mT", "L.mT"),
    ("L.T()", "L.T()"),
    ("(lambda: L)()", "lambda"),
    ("[L for L in L]", "for L in L"),
    ("{L: M}", "L: M"),
    ('f"{L}"*L', "{L}"),
    ("L if M else R", "if M"),
    ("L[0]", "L[0]"),
    ("L < M", "L < M"),
    ("not L", "not L"),
    ("L and M", "L and M"),
    ("await L", "await L"),
    ("inv(*L)", "*L"),
    ("inv(L, **M)", "inv"),
    ("inv_root(L, p=4)", "inv_root"),
    ("inv_root(L,4)(M)", "inv_root(L,4)(M)"),
    ("inv_root", "is a function"),
    ("_L*M", "_L"),
    ("__dunder__*M", "__dunder__"),
    ("mixedCase*M", "mixedCase"),
    ("L := M", "L := M"),
    ("L; M", "L; M"),
    ("import os", "import os"),
    ("L # x", "comment"),
    ("", "characters"),
    ("L" * 3000, "characters"),
    ("(" * 500 + "L" + ")" * 500, "not an expression"),
    ("-" * 100 + "L", "nested deeper"),
    ("+".join(["L"] * 200), "nested deeper"),
    ("L*\\\nM\nR", "not an expression"),
    ("L + 1", "L + 1"),
    ("L/M", "L/M"),
    ("M/0", "M/0"),
    ("M/(a-a)", "divides by zero"),
    ("0**(-1)*M", "divides by zero"),
    ("L**M", "L**M"),
    ("2**L", "2**L"),
    ("L**a", "L**a"),
    ("L**13", "from 1 to 12"),
    ("L**0", "from 1 to 12"),
    ("L**(10**10**10)", "10**10**10"),
    ("10**10**10*M", "10**10**10"),
    ("a**(10**9)*M", "out of range"),
    ("(-1)**(1/2)*M", "not a finite real"),
    ("(-a)**(1/2)*M", "not a finite real"),
    ("L**1e400", "L**1e400"),
    ("1j*L", "1j"),
    ("True*L", "True"),
    ("None*L", "None"),
    ('"L"', '"L"'),
    ("3", "is a scalar"),
    ("a", "is a scalar"),
    ("a.T", "a is a scalar"),
    ("polar(3)", "polar takes a matrix"),
    ('inv("L")', "inv takes a matrix"),
    ("inv_root(L, 0)", "not positive"),
    ("inv_root(L, -4)", "not positive"),
    ("inv_root(L, a)", "needs a number"),
    ('inv_root(L, "4")', "needs a number"),
    ("inv_root(L, 1e-3)", "out of range"),
    ("inv_root(L, 65)", "out of range"),
    ("newton_schulz(M, 13)", "1 to 12"),
    ("newton_schulz(M, 2.5)", "1 to 12"),
    ("newton_schulz(M, M)", "1 to 12"),
    ("((L + R)**12)**12", "multiplies out"),
    ("((M**12)**12)**12", "multiplies out"),
    ("spectral(L, L)", "takes a string"),
    ('spectral("1/(L+eigenvalue)", L)', "'L'"),
    ('spectral("1/(_0+eigenvalue)", L)', "'_0'"),
    ('spectral("eigenvalue.real", L)', "eigenvalue.real"),
    ('spectral("abs(eigenvalue-1)", L)', "Abs"),
    ('spectral("sign(eigenvalue-1)", L)', "sign"),
    ('spectral("max(eigenvalue, 1)", L)', "Max"),
    ('spectral("clip(eigenvalue, 0, 1)", L)', "clip"),
    ('spectral("sqrt(eigenvalue-1)", L)', "zero or negative"),
    ('spectral("eigenvalue**p", L)', "rational"),
    ('spectral("3", L)', "does not depend"),
    ('elementwise("x", x=A, x=B)', "x"),
    ('elementwise("__x__", __x__=L)', "__x__"),
    ('elementwise("X", X=L)', "X"),
    ('elementwise("x", x=3)', "x is a scalar"),
    ('elementwise("x", x=L, y=M)', "y does not occur"),
    ('elementwise("x", **L)', "write elementwise"),
    ("elementwise(L, x=L)", "write elementwise"),
    ('elementwise("x**(9**9**9)", x=M)', "out of range"),
]


@pytest.mark.parametrize(("text", "piece"), REFUSED, ids=[t[:30] for t, _ in REFUSED])
def test_everything_else_is_a_parse_error_that_names_the_piece(text, piece):
    with pytest.raises(ParseError) as caught:
        parse_matrix(text)
    assert piece in str(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"L", ["L"], sp.Symbol("L")])
def test_only_strings_are_read(value):
    with pytest.raises(ParseError, match="expected a string"):
        parse_matrix(value)
    assert not mentions_matrices(value)


PIECES = st.sampled_from(
    [*FUNCTIONS, "L", "M", "I", "eps", "4", "-1/4", "1e9", "(", ")", "(", ")", "*", "+", "-", "/",
     "**", "@", ".T", ".", ",", '"', "eigenvalue", "x=", "[", "]", "lambda", ":", "__class__", "π",
     "ℒ", "\x00", "\n", "{", "}", "0", "True", " "]
)  # fmt: skip


def is_read_or_refused(text):
    """Any exception but the parser's own goes through."""
    try:
        return isinstance(parse_matrix(text), MatrixExpr)
    except ParseError as error:
        return len(str(error)) > 10


@given(st.lists(PIECES, max_size=14).map("".join))
def test_any_string_is_a_matrix_or_a_clear_refusal(text):
    assert is_read_or_refused(text)


@given(st.text(max_size=40))
def test_unicode_and_control_characters_do_no_harm(text):
    assert is_read_or_refused(text)


def test_a_string_is_data(monkeypatch):
    import builtins

    def never(*_):
        raise AssertionError("a rule was evaluated")

    monkeypatch.setattr(builtins, "eval", never)
    monkeypatch.setattr(sp, "sympify", never)
    assert isinstance(parse_matrix("inv_root(L + damping*I, 4)*M").factors[0], Spectral)
