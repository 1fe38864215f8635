"""The test that is generated with a module: its values against 50 digits."""

import sympy as sp
from sympy.printing.pycode import PythonCodePrinter

from deltabias.codegen.kernels import RulePrograms
from deltabias.codegen.ssa import Program
from deltabias.parser import clip


class _Mpmath(PythonCodePrinter):
    """SymPy to Python on mpmath numbers, rationals exact."""

    def _print_Rational(self, expr):
        return f"(mpf({expr.p}) / {expr.q})"

    def _print_Pow(self, expr, rational=False):
        if expr.exp == sp.Rational(1, 2):
            return f"mpmath.sqrt({self._print(expr.base)})"
        return f"({self._print(expr.base)}) ** ({self._print(expr.exp)})"

    def _print_Function(self, expr):
        if isinstance(expr, clip):
            inner, low, high = map(self._print, expr.args)
            return f"max({low}, min({high}, {inner}))"
        return f"mpmath.{expr.func.__name__}({', '.join(map(self._print, expr.args))})"

    def _print_Pi(self, expr):
        return "mpmath.pi"

    def _print_Exp1(self, expr):
        return "mpmath.e"

    _print_exp = _print_log = _print_tanh = _print_atan = _print_erf = _print_Function

    def _print_Max(self, expr):
        return f"max({', '.join(map(self._print, expr.args))})"

    def _print_Min(self, expr):
        return f"min({', '.join(map(self._print, expr.args))})"

    def _print_Abs(self, expr):
        return f"abs({self._print(expr.args[0])})"

    def _print_sign(self, expr):
        return f"mpmath.sign({self._print(expr.args[0])})"


def reference(name: str, program: Program, expression: sp.Expr, terms: sp.Expr) -> str:
    """The formula on mpmath numbers: its value, and the size of its terms."""
    show = _Mpmath({"fully_qualified_modules": False}).doprint
    arguments = ", ".join([*program.tensors, *program.scalars])
    return (
        f"def {name}({arguments}):\n"
        f"    value = {show(expression)}\n    size = {show(terms)}\n    return value, size\n"
    )


def size(expression: sp.Expr) -> sp.Expr:
    """The sum of the absolute values of the terms of the numerator, over the denominator."""
    if isinstance(expression, clip):
        return sp.Min(size(expression.args[0]), 1)  # a clipped value is exact
    top, bottom = expression.as_numer_denom() if expression.is_Add else _fraction(expression)
    return sp.Add(*(sp.Abs(t) for t in sp.Add.make_args(sp.expand_mul(top)))) / sp.Abs(bottom)


def _fraction(expression: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    top, bottom = [], []
    for factor in sp.Mul.make_args(expression):
        exponent = factor.as_base_exp()[1]
        (bottom if exponent.could_extract_minus_sign() else top).append(factor)
    return sp.Mul(*top), sp.Mul(*(1 / b for b in bottom))


def ranges(programs: RulePrograms, program: Program) -> tuple[dict, dict]:
    """Where a function is tried: ranges of its tensors, values of its scalars."""
    rule, moments = programs.rule, {m.name: m for m in programs.kernel.moments}
    positive = {s.name for s in rule.states if s.symbol.is_positive}
    tensors = {}
    for name in program.tensors:
        if name in moments:
            variance = moments[name].moment.func.__name__ == "var"
            tensors[name] = (1e-12, 1.0) if variance else (-1.0, -1e-12, 1e-12, 1.0)
        else:
            tensors[name] = (1e-30, 1e10) if name in positive else (-1e5, -1e-5, 1e-5, 1e5)
    scalars = {h.name: h.default for h in rule.hypers if h.name in program.scalars}
    return tensors, scalars


def value_test(programs: RulePrograms, import_line: str, mark: str) -> str:
    """The test of a plain module. `import_line` is how it reaches the module."""
    rule = programs.rule
    plug_in, corrected = programs.updates
    written_out = programs.kernel.update
    cases = "".join(
        f'    ("{p.name}", {p.name}, {ranges(programs, p)[0]!r}, {ranges(programs, p)[1]!r}),\n'
        for p in programs.updates
    )
    return f'''"""Values of the generated functions of {rule.name} against 50 digits.

{mark}
"""

import mpmath
import pytest
import torch
from mpmath import mpf

from deltabias.codegen.ulps import grid, worst_ulps
{import_line}

ALLOWED_ULPS = 4


{reference(plug_in.name, plug_in, rule.update, size(rule.update))}

{reference(corrected.name, corrected, written_out, size(written_out))}

CASES = [
{cases}]
each_function = pytest.mark.parametrize(
    ("name", "reference", "ranges", "scalars"), CASES, ids=[case[0] for case in CASES]
)


@each_function
def test_float64_is_within_four_units_in_the_last_place(name, reference, ranges, scalars):
    tensors = grid(ranges, torch.float64)
    ulps, where = worst_ulps(getattr(module, name), reference, tensors, scalars)
    assert ulps <= ALLOWED_ULPS, f"{{ulps:.2f}} units in the last place at {{where}}"


@each_function
def test_a_wrong_value_is_seen(name, reference, ranges, scalars):
    def wrong(*tensors, **keywords):
        return getattr(module, name)(*tensors, **keywords) * (1 + 2**-48)

    tensors = grid(ranges, torch.float64, samples=50)
    assert worst_ulps(wrong, reference, tensors, scalars)[0] > ALLOWED_ULPS


@each_function
def test_foreach_is_the_same_bit_for_bit(name, reference, ranges, scalars):
    tensors = list(grid(ranges, torch.float32).values())
    plain = getattr(module, name)(*tensors, **scalars)
    (listed,) = getattr(module, name + "_foreach")(*([t] for t in tensors), **scalars)
    torch.testing.assert_close(plain, listed, rtol=0, atol=0, equal_nan=True)
'''
