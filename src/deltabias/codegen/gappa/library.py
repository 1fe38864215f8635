"""Library functions: a stated error of the library is a hypothesis, named in the claim.

torch's elementary functions are not correctly rounded. Their vector library (SLEEF) states one
unit in the last place for these; two are allowed here. The error holds for the argument as it
is, so the argument has to be exact, except where the map is known to shrink relative errors.

Source: N. Shibata, F. Petrogalli, "SLEEF: a portable vectorized library", IEEE TPDS 31 (2020).
"""

from fractions import Fraction

import mpmath

from deltabias.codegen.gappa.formats import RoundingError, grid_of, outward
from deltabias.codegen.gappa.script import number, within
from deltabias.codegen.gappa.values import Value
from deltabias.codegen.ssa import Assign

ULPS = 2
_INCREASING = {"log": "log", "log1p": "log1p", "exp": "exp", "tanh": "tanh", "atan": "atan"}
FUNCTIONS = frozenset({*_INCREASING, "erf", "sign", "pow", "root"})


def call(analysis, s: Assign, name: str, a: Value) -> Value:
    """A library function of one argument, as a variable of which its error is assumed.

    Raises
    ------
    RoundingError
        for one without a stated error, an argument that is not exact, or a result that can be
        zero.
    """
    if s.scalar or s.operation in ("sign", "pow"):
        raise RoundingError(f"no error is stated for the library's {s.operation!r} of {a.name}.")
    if s.operation == "root":
        return _root(analysis, int(s.operands[1].value), name, a)
    if a.rounded:
        raise RoundingError(
            f"{s.operation} of {a.name}: the library's error is stated for an exact argument, "
            "and this one is rounded."
        )
    low, high = _range(s.operation, a)
    sign = 1 if s.operation == "exp" else a.sign
    return _assumed(analysis, s.operation, name, Value("", "", low, high, sign), Fraction(0))


def _root(analysis, degree: int, name: str, a: Value) -> Value:
    """x**(1/n): relative errors shrink, |(1 + d)^(1/n) - 1| <= |d|: rounded x will do."""
    if a.sized or a.sign != 1:
        raise RoundingError(f"the root of {a.name}, which may be zero or negative.")
    with mpmath.workdps(40):
        low, high = (
            _rational(mpmath.root(mpmath.mpf(x.numerator) / x.denominator, degree), up=up)
            for x, up in ((a.low, False), (a.high, True))
        )
    return _assumed(analysis, f"x**(1/{degree})", name, Value("", "", low, high, 1), a.error)


def _assumed(analysis, what: str, name: str, value: Value, carried: Fraction) -> Value:
    form, script = analysis.form, analysis.script
    library = 2 * ULPS * form.unit  # a unit in the last place is at most 2u of the value
    error = carried + library + carried * library
    exact = f"exact_{name}"
    script.define(name, f"round(raw_{name})")
    script.hypotheses.append(within(exact, value.low, value.high, value.sign))
    script.hypotheses.append(f"{name} -/ {exact} in [-{number(error)},{number(error)}]")
    analysis.assumptions.append(f"torch's {what} within {ULPS} units in the last place")
    analysis.away_from_zero(name, exact)
    grid = grid_of(value.low * (1 - 2 * error), form)
    made = Value(name, exact, value.low, value.high, value.sign, error, grid=grid)
    analysis.in_range(made, f"the value of {what}")
    return made


def _range(operation: str, a: Value) -> tuple[Fraction, Fraction]:
    """Bounds of the magnitude of an increasing function over the argument's range."""
    if operation in ("tanh", "atan", "erf"):  # odd and increasing: |f(x)| = f(|x|)
        ends = (a.low, a.high)
    else:
        if a.sign == 0 and operation != "exp":
            raise RoundingError(f"{operation} of {a.name}, which may be negative.")
        below = -a.high if a.sign < 1 else a.low
        above = a.high if a.sign > -1 else -a.low
        ends = (below, above)
    function = getattr(mpmath, operation)
    with mpmath.workdps(40):
        if operation == "exp" and max(abs(x) for x in ends) > 1000:
            raise RoundingError(f"exp of {a.name} overflows on the domain; narrow it.")
        values = [function(mpmath.mpf(x.numerator) / x.denominator) for x in ends]
    if values[0] <= 0 <= values[1]:
        raise RoundingError(
            f"{operation} of {a.name} passes through zero on the domain, where it has no relative "
            "error; narrow the domain."
        )
    low, high = sorted(map(abs, values))
    return _rational(low, up=False), _rational(high, up=True)


def _rational(value: mpmath.mpf, *, up: bool) -> Fraction:
    """A bound on a value that is right to 40 digits."""
    exact = Fraction(*mpmath.libmp.to_rational(value._mpf_))
    margin = Fraction(1, 10**30)
    return outward(exact * (1 + margin if up else 1 - margin), up=up)
