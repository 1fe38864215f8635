"""Forward analysis of a program's rounding errors, writing the script that confirms it.

Every statement is read once: it adds the computed and the exact value to the script and gets an
error bound in exact rationals. Gappa then proves the last one of the whole function, through all
intermediate ones, so a mistake here makes a script that is rejected, never a wrong claim.

Source of the rules: N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., ch. 3.
"""

from dataclasses import replace
from fractions import Fraction

import sympy as sp

from deltabias.codegen.gappa import cancelling, clamps, library
from deltabias.codegen.gappa.formats import (
    FLOAT64,
    Domain,
    Format,
    RoundingError,
    grid_of,
    power_of_two,
)
from deltabias.codegen.gappa.script import Script, input_range, number
from deltabias.codegen.gappa.values import (
    Value,
    outward_error,
    product,
    product_range,
    quotient,
    quotient_range,
    root,
    sqrt_bound,
    sum_of_one_sign,
)
from deltabias.codegen.ssa import Assign, Number, Operand, Program

# words of Gappa's grammar, and what this module puts before a name
_TAKEN = ("in", "not", "sqrt", "float", "fixed", "int", "fma", "round", "round_host")
_PREFIXES = ("exact_", "size_", "raw_", "any_", "some_", "zero_", "null_", "of_")


class Analysis:
    """One program in one format; `value` and `script` after construction."""

    def __init__(self, program: Program, form: Format, domain: Domain):
        self.program, self.form = program, form
        self.script = Script(formats={"round": form.gappa})
        self.assumptions: list[str] = []
        self.values: dict[str, Value] = {}
        for name in (*program.tensors, *program.scalars):
            self._input(name, domain)
        for statement in program.statements:
            if not isinstance(statement, Assign):
                raise RoundingError(f"{program.name} updates {statement.target!r} in place.")
            self.values[statement.target] = self._assign(statement)
        self.value = self._in_format(self.values[program.results[-1]])

    # -- inputs -------------------------------------------------------------------------------

    def _input(self, name: str, domain: Domain) -> None:
        if name not in domain:
            raise RoundingError(f"no range for {name!r}; the domain has {', '.join(domain)}.")
        allowed, host = domain[name].check(name), name in self.program.scalars
        shown = spell(name)
        self.script.define(shown, f"{self._rounding(host)}(raw_{shown})")
        self.script.hypotheses.append(input_range(shown, allowed))
        form = FLOAT64 if host else self.form
        value = Value(
            shown, shown, allowed.low, allowed.high, 0 if allowed.signed else 1, host=host
        )
        self.in_range(value, "an input")
        self.values[name] = replace(value, grid=_grid(value, form))

    def _rounding(self, host: bool) -> str:
        """The rounding operator of Python floats, or of the tensors."""
        if not host or self.form is FLOAT64:
            return "round"
        self.script.formats["round_host"] = FLOAT64.gappa
        return "round_host"

    def in_range(self, value: Value, what: str) -> None:
        form = FLOAT64 if value.host else self.form
        slack = 1 + value.error
        if value.low / slack < Fraction(2) ** form.lowest or value.high * slack >= Fraction(2) ** (
            form.highest - 1
        ):
            raise RoundingError(
                f"{what} ({value.name}) may under- or overflow {form.dtype}: its magnitude is "
                f"between 2^{power_of_two(value.low, up=False)} and "
                f"2^{power_of_two(value.high, up=True)} on the domain; narrow the domain."
            )

    # -- operands -----------------------------------------------------------------------------

    def operand(self, operand: Operand) -> Value:
        """The value of an operand in the tensors' format."""
        return self._in_format(self._host(operand))

    def _host(self, operand: Operand) -> Value:
        if isinstance(operand, str):
            return self.values[operand]
        return self._constant(operand)

    def _constant(self, literal: Number) -> Value:
        """A literal: exact where it is a float; ``p / q`` is divided by Python otherwise."""
        if not isinstance(literal.value, sp.Rational):
            raise RoundingError(f"{literal} is no rational; a bound on its rounding is not known.")
        exact = Fraction(int(literal.value.p), int(literal.value.q))
        if exact == 0:
            raise RoundingError("a constant 0 has no relative error.")
        text, sign = number(exact), 1 if exact > 0 else -1
        value = Value(text, text, abs(exact), abs(exact), sign, host=True)
        if FLOAT64.holds(exact):
            return replace(value, grid=_grid(value, FLOAT64))
        name = f"literal{abs(exact.numerator)}_{exact.denominator}"
        name += "m" if sign < 0 else ""
        if name not in self.values:
            self.script.define(name, f"{self._rounding(True)}({text})")
            rounded = replace(value, name=name, error=FLOAT64.unit)
            self.values[name] = replace(rounded, grid=_grid(rounded, FLOAT64))
        return self.values[name]

    def _in_format(self, value: Value) -> Value:
        """A Python float as torch takes it into an operation with tensors: rounded once more."""
        if not value.host:
            return value
        if self.form is FLOAT64 or (value.low == value.high and self.form.holds(value.low)):
            return replace(value, host=False)
        name = f"of_{value.name}"
        if name not in self.values:
            self.script.define(name, f"round({value.name})")
            cast = replace(value, name=name, error=product(value.error, self.form.unit), host=False)
            self.in_range(cast, "a scalar")
            self.values[name] = replace(cast, grid=_grid(cast, self.form))
        return self.values[name]

    # -- the table ----------------------------------------------------------------------------

    def _assign(self, s: Assign) -> Value:
        if s.operation == "copy":
            return self._host(s.operands[0])
        operands = s.operands[:1] if s.operation == "root" else s.operands
        values = [self._host(o) if s.scalar else self.operand(o) for o in operands]
        name = spell(s.target)
        if s.operation in library.FUNCTIONS:
            return library.call(self, s, name, values[0])
        if s.operation in clamps.OPERATIONS:
            return clamps.clamp(self, s.operation, name, *values)
        if s.operation == "reciprocal":
            one = Value("1", "1", Fraction(1), Fraction(1), 1, host=s.scalar)
            return self._quotient(name, one, values[0], s.scalar)
        table = {
            "add": self._add, "sub": self._subtract, "mul": self._product,
            "div": self._quotient, "sqrt": self._sqrt, "neg": self._negate, "abs": self._abs,
        }  # fmt: skip
        if s.operation not in table:
            raise RoundingError(f"no rounding rule for the operation {s.operation!r}.")
        return table[s.operation](name, *values, s.scalar)

    def relative(
        self, name: str, text: tuple[str, str], value: Value, *, rounding: bool = True
    ) -> Value:
        """Define a value that cannot cancel from its expressions, computed and exact."""
        computed, exact = text
        form = FLOAT64 if value.host else self.form
        rounder = self._rounding(value.host)
        self.script.define(name, f"{rounder}({computed})" if rounding else computed)
        self.script.define(f"exact_{name}", exact)
        error = product(value.error, form.unit) if rounding else value.error
        if rounding and not value.sign:  # of either sign, and still not zero
            self.away_from_zero(name, f"({computed})")
        value = replace(value, name=name, exact=f"exact_{name}", error=outward_error(error))
        self.in_range(value, "a value")
        return replace(value, grid=_grid(value, form))

    def away_from_zero(self, name: str, near: str) -> None:
        """A value is its neighbor times 1 + d: so its magnitude has a lower bound too."""
        self.script.hint(name, f"{near} * (1 + ({name} - {near}) / {near})", near)

    def _negate(self, name: str, a: Value, host: bool) -> Value:
        self.script.define(name, f"-{a.name}")
        if a.rounded:
            self.script.define(f"exact_{name}", f"-{a.exact}")
        exact = f"exact_{name}" if a.rounded else name
        if a.sized:
            raise RoundingError("the negative of a sum that may cancel; write it as a difference.")
        return replace(a, name=name, exact=exact, sign=-a.sign, share_of=None)

    def _abs(self, name: str, a: Value, host: bool) -> Value:
        if a.sized:
            raise RoundingError("the modulus of a sum that may cancel is not in the table.")
        text = (f"|{a.name}|", f"|{a.exact}|")
        return self.relative(name, text, replace(a, sign=1, share_of=None), rounding=False)

    def _sqrt(self, name: str, a: Value, host: bool) -> Value:
        if a.sized or a.sign != 1:
            raise RoundingError(f"the square root of {a.name}, which may be zero or negative.")
        low, high = sqrt_bound(a.low, up=False), sqrt_bound(a.high, up=True)
        value = Value("", "", low, high, 1, root(a.error), host=host)
        return self.relative(name, (f"sqrt({a.name})", f"sqrt({a.exact})"), value)

    def _product(self, name: str, a: Value, b: Value, host: bool) -> Value:
        if a.sized or b.sized:
            return cancelling.sized_product(self, name, "*", *((a, b) if a.sized else (b, a)))
        low, high = product_range(a, b)
        value = Value("", "", low, high, a.sign * b.sign, product(a.error, b.error), host=host)
        text = (f"{a.name} * {b.name}", f"{a.exact} * {b.exact}")
        exact = any(_is_power_of_two(v) for v in (a, b))  # no rounding: only the exponent moves
        made = self.relative(name, text, value)
        return replace(made, error=value.error) if exact else made

    def _quotient(self, name: str, a: Value, b: Value, host: bool) -> Value:
        if b.sized:
            raise RoundingError(f"a division by {b.name}, a sum that may cancel to zero.")
        if a.sized:
            return cancelling.sized_product(self, name, "/", a, b)
        low, high = quotient_range(a, b)
        value = Value("", "", low, high, a.sign * b.sign, quotient(a.error, b.error), host=host)
        made = self.relative(name, (f"{a.name} / {b.name}", f"{a.exact} / {b.exact}"), value)
        if b.share_of is not None:  # Gappa sees that A/(A + B) <= 1, not that a/(a + b) is near
            self.away_from_zero(made.name, made.exact)
        return made

    def _subtract(self, name: str, a: Value, b: Value, host: bool) -> Value:
        return self._add(name, a, b, host, "-")

    def _add(self, name: str, a: Value, b: Value, host: bool, operation: str = "+") -> Value:
        text = tuple(f"{x} {operation} {y}" for x, y in ((a.name, b.name), (a.exact, b.exact)))
        other = b.sign if operation == "+" else -b.sign
        if not a.sized and not b.sized and a.sign == other and a.sign:
            value = Value(
                "", "", a.low + b.low, a.high + b.high, a.sign, sum_of_one_sign(a, b),
                host=host, share_of=(a, b),
            )  # fmt: skip
            return self.relative(name, text, value)
        if host:
            raise RoundingError(f"the scalars' sum {text[0]} may cancel.")
        a, b = (cancelling.any_like(self, v) if v.sized else v for v in (a, b))
        return cancelling.cancelling_sum(self, name, operation, a, b)


def spell(name: str) -> str:
    """A name of the program as Gappa can read it, and apart from those of the script."""
    if name.startswith("_"):
        return f"t{name}"
    return f"var_{name}" if name in _TAKEN or name.startswith(_PREFIXES) else name


def _grid(value: Value, form: Format) -> int:
    return grid_of(value.low * (1 - 2 * value.error), form)


def _is_power_of_two(value: Value) -> bool:
    n = value.low
    whole = n == value.high and not value.rounded
    return whole and n.numerator & (n.numerator - 1) == 0 and n.denominator.bit_count() == 1
