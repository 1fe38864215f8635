"""The operations of a tape in two number systems, and what each does to a rounding error."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np

from deltabias.verify.tape import Op, Tape


@dataclass(frozen=True)
class Numbers:
    """A number system: how data, numbers and operations are made."""

    array: Callable[[Sequence[float]], np.ndarray]
    number: Callable[[float | Fraction], object]
    operations: Mapping[str, Callable]

    def run(self, tape: Tape, inputs: Mapping[str, object]) -> list:
        """Every value of the tape."""
        values: list = []
        for op in tape.ops:
            if op.kind == "input":
                values.append(inputs[op.payload])
            elif op.kind == "number":
                values.append(self.number(op.payload))
            elif op.kind == "powi":
                values.append(self.operations["powi"](values[op.arguments[0]], op.payload))
            else:
                values.append(self.operations[op.kind](*(values[a] for a in op.arguments)))
        return values


# -- 50 digits ------------------------------------------------------------------------------------


def _mp_number(value: float | Fraction) -> mpmath.mpf:
    if isinstance(value, Fraction):
        return mpmath.mpf(value.numerator) / value.denominator
    return mpmath.mpf(value)


def _mp_array(values: Sequence[float]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = [mpmath.mpf(v) for v in values]
    return array


def _mp_divide(a, b):
    return a / b if b else mpmath.nan


def _mp_sqrt(a):
    return mpmath.sqrt(a) if a >= 0 else mpmath.nan


def _mp_power(a, b):
    if a > 0:
        return a**b
    if a == 0:
        return mpmath.mpf(0) if b > 0 else mpmath.mpf(1) if b == 0 else mpmath.nan
    return a ** int(b) if b == int(b) else mpmath.nan


def _mp_log(a):
    return mpmath.log(a) if a > 0 else mpmath.nan


def _larger(a, b):
    return mpmath.nan if a != a or b != b else max(a, b)


def _smaller(a, b):
    return mpmath.nan if a != a or b != b else min(a, b)


def _lift(function: Callable, arity: int) -> Callable:
    lifted = np.frompyfunc(function, arity, 1)

    def apply(*arguments):
        # numbers stay numbers: most of a step's scalars are worked out once
        if any(isinstance(a, np.ndarray) for a in arguments):
            return lifted(*arguments)
        return function(*arguments)

    return apply


EXACT = Numbers(
    _mp_array,
    _mp_number,
    {
        "add": _lift(operator.add, 2),
        "sub": _lift(operator.sub, 2),
        "mul": _lift(operator.mul, 2),
        "powi": lambda a, n: a**n,
        "div": _lift(_mp_divide, 2),
        "sqrt": _lift(_mp_sqrt, 1),
        "pow": _lift(_mp_power, 2),
        "exp": _lift(mpmath.exp, 1),
        "log": _lift(_mp_log, 1),
        "tanh": _lift(mpmath.tanh, 1),
        "atan": _lift(mpmath.atan, 1),
        "erf": _lift(mpmath.erf, 1),
        "abs": _lift(abs, 1),
        "sign": _lift(mpmath.sign, 1),
        "max": _lift(_larger, 2),
        "min": _lift(_smaller, 2),
        "clip": _lift(lambda x, low, high: _larger(low, _smaller(high, x)), 3),
        "where": _lift(lambda c, a, b: a if c > 0 else b, 3),
        "mod": _lift(lambda a, b: a % b, 2),
    },
)


# -- float64 --------------------------------------------------------------------------------------


def _float_number(value: float | Fraction) -> np.float64:
    return np.float64(value)  # numpy's scalars divide by zero without an exception


FLOAT = Numbers(
    lambda values: np.array(values, dtype=float),
    _float_number,
    {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "powi": lambda a, n: a**n,
        "div": np.divide,
        "sqrt": np.sqrt,
        "pow": np.power,
        "exp": np.exp,
        "log": np.log,
        "tanh": np.tanh,
        "atan": np.arctan,
        "erf": np.vectorize(math.erf, otypes=[float]),
        "abs": np.abs,
        "sign": np.sign,
        "max": np.maximum,
        "min": np.minimum,
        "clip": lambda x, low, high: np.maximum(low, np.minimum(high, x)),
        "where": lambda c, a, b: np.where(c > 0, a, b),
        "mod": np.mod,
    },
)


# -- what an operation does to an error -----------------------------------------------------------


def _quotient(r, a, ea, b, eb):
    room = np.abs(b) - eb
    return np.where(room > 0, (ea + np.abs(r) * eb) / np.where(room > 0, room, 1), np.inf)


def _root(r, a, ea):
    # the root of an interval that stays positive; exact zero stays zero
    inside = ea / (r + np.sqrt(np.maximum(a - ea, 0)))
    return np.where(ea == 0, 0.0, np.where(a > ea, inside, np.inf))


def _general_power(r, a, ea, b, eb):
    low, high = np.maximum(a - ea, 0), a + ea
    ends = np.maximum(np.abs(high**b - r), np.abs(low**b - r))
    through_exponent = np.where(eb == 0, 0.0, np.abs(r * np.log(np.abs(a))) * eb * 2)
    return np.where(ea == 0, through_exponent, np.where(a > ea, ends + through_exponent, np.inf))


_SURE = 64.0
"""How many times its error a value must be away from 0 for its sign to be sure."""


def _branch(r, c, ec, a, ea, b, eb):
    sure = (np.abs(c) > _SURE * ec) | (ec == 0)
    return np.where(sure, np.where(c > 0, ea, eb), np.inf)


_SPREAD: dict[str, Callable] = {
    "add": lambda r, a, ea, b, eb: ea + eb,
    "sub": lambda r, a, ea, b, eb: ea + eb,
    "mul": lambda r, a, ea, b, eb: np.abs(a) * eb + np.abs(b) * ea + ea * eb,
    "div": _quotient,
    "sqrt": _root,
    "pow": _general_power,
    "exp": lambda r, a, ea: np.abs(r) * np.expm1(ea),
    "log": lambda r, a, ea: np.where(ea == 0, 0.0, np.where(a > ea, ea / (a - ea), np.inf)),
    "tanh": lambda r, a, ea: ea,
    "atan": lambda r, a, ea: ea,
    "erf": lambda r, a, ea: 1.13 * ea,
    "abs": lambda r, a, ea: ea,
    "sign": lambda r, a, ea: np.where((np.abs(a) > _SURE * ea) | (ea == 0), 0.0, 2.0),
    "max": lambda r, a, ea, b, eb: np.maximum(ea, eb),
    "min": lambda r, a, ea, b, eb: np.maximum(ea, eb),
    "clip": lambda r, x, ex, a, ea, b, eb: np.maximum(ex, np.maximum(ea, eb)),
    "where": _branch,
    "mod": lambda r, a, ea, b, eb: np.where((ea == 0) & (eb == 0), 0.0, np.inf),
}
# operations without a rounding of their own; the others' roundings, in units
_ROUNDINGS = {"abs": 0, "sign": 0, "max": 0, "min": 0, "clip": 0, "where": 0, "mod": 0, "pow": 4,
              "exp": 2, "log": 2, "tanh": 2, "atan": 2, "erf": 4}  # fmt: skip
_TINY = 1e-300


def propagate(
    tape: Tape,
    values: Sequence[np.ndarray],
    errors: Mapping[str, np.ndarray],
    unit: float,
    scalar_unit: float,
) -> list[np.ndarray]:
    """A bound of every value's rounding error.

    Parameters
    ----------
    values : what the tape computes, rounded to float64
    errors : of the inputs; those that are not named are exact
    unit, scalar_unit : the unit roundoff of data and of scalars
    """
    bounds: list[np.ndarray] = []
    for op, value in zip(tape.ops, values, strict=True):
        own = unit if op.array else scalar_unit
        if op.kind == "input":
            # scalars are exact unless they may be kept in single precision
            held = op.array or own <= 2.0**-53 or op.payload == "t"
            bound = errors.get(op.payload, np.zeros(())) + (0.0 if held else own * np.abs(value))
        elif op.kind == "number":
            held = op.payload.denominator & (op.payload.denominator - 1) == 0
            bound = np.zeros(()) if held else own * np.abs(value)
        else:
            bound = _bound(op, value, values, bounds) + _rounding(op, value, own)
        bounds.append(np.where(np.isnan(value) | np.isnan(bound), np.inf, bound))
    return bounds


def _bound(op: Op, value: np.ndarray, values: Sequence, bounds: Sequence) -> np.ndarray:
    if op.kind == "powi":
        (place,) = op.arguments
        size = np.abs(values[place])
        return (size + bounds[place]) ** op.payload - size**op.payload
    arguments = [x for a in op.arguments for x in (values[a], bounds[a])]
    return _SPREAD[op.kind](value, *arguments)


def _rounding(op: Op, value: np.ndarray, unit: float) -> np.ndarray:
    count = op.payload if op.kind == "powi" else _ROUNDINGS.get(op.kind, 1)
    size = np.abs(value)
    return count * unit * size + np.where(size > 0, _TINY, 0.0) * (count > 0)
