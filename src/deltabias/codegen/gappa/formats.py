"""Floating-point formats, the domain a rounding bound is stated on, and the bound itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from deltabias.errors import GenerateError
from deltabias.rule import UpdateRule
from deltabias.safe_form import Kernel


class RoundingError(GenerateError):
    """No bound on the rounding error can be certified; the text names the operation and why."""


@dataclass(frozen=True)
class Format:
    """An IEEE binary format, rounding to nearest, ties to even.

    ``digits`` are binary, the hidden one included; normal numbers lie in
    ``[2**lowest, 2**highest)``.
    """

    dtype: str
    gappa: str
    digits: int
    lowest: int
    highest: int

    @property
    def unit(self) -> Fraction:
        """The unit roundoff u: a rounded result is its exact value times 1 + d, ``|d| <= u``."""
        return Fraction(1, 2**self.digits)

    def holds(self, number: Fraction) -> bool:
        """Whether a number of moderate size is in the format."""
        bottom = number.denominator
        return bottom & (bottom - 1) == 0 and abs(number.numerator) < 2**self.digits


FLOAT64 = Format("float64", "float<ieee_64,ne>", 53, -1022, 1024)
FLOAT32 = Format("float32", "float<ieee_32,ne>", 24, -126, 128)
FORMATS = (FLOAT64, FLOAT32)

# exponents (low, high) of the inputs: wide, and nothing under- or overflows on the way
_EXPONENTS = {
    "float64": {"positive": (-100, 100), "signed": (-100, 100), "variance": (-100, 0)},
    "float32": {"positive": (-50, 50), "signed": (-40, 40), "variance": (-40, 0)},
}


@dataclass(frozen=True)
class Range:
    """``low <= |x| <= high`` for one input; ``signed`` when it may be negative."""

    low: Fraction
    high: Fraction
    signed: bool = False

    def check(self, name: str) -> "Range":
        """The range itself.

        Raises
        ------
        RoundingError
            if it is empty or reaches zero, where relative errors mean nothing.
        """
        if not 0 < self.low <= self.high:
            raise RoundingError(
                f"the domain {float(self.low):g} <= |{name}| <= {float(self.high):g} must be "
                "non-empty and stay away from zero: rounding is relative there."
            )
        return self


Domain = Mapping[str, Range]


def default_domain(rule: UpdateRule, kernel: Kernel, form: Format) -> dict[str, Range]:
    """The inputs' ranges: powers of two, wide, all results normal numbers.

    States that are positive, states and covariances of either sign, relative variances at most
    1, hyperparameters up to 1 or the next power of two above their default.
    """
    exponents = _EXPONENTS[form.dtype]

    def of(kind: str) -> Range:
        low, high = exponents[kind]
        return Range(Fraction(2) ** low, Fraction(2) ** high, kind == "signed")

    domain = {s.name: of("positive" if s.symbol.is_positive else "signed") for s in rule.states}
    for moment in kernel.moments:
        symbols = moment.moment.args
        variance = moment.moment.func.__name__ == "var" or symbols[0] == symbols[-1]
        domain[moment.name] = of("variance" if variance else "signed")
    for hyper in rule.hypers:
        top = Fraction(1)
        while top < hyper.default:
            top *= 2
        domain[hyper.name] = Range(of("positive").low, top)
    return domain


@dataclass(frozen=True)
class RoundingBound:
    """What is claimed of one generated function in one format.

    Parameters
    ----------
    function, dtype : str
    kind : "relative" to the exact result, "size": relative to the sum of the magnitudes of its
        terms (the exact formula with every sum of terms of unlike sign replaced by the sum of
        their absolute values), or "refused"
    units : the bound in units u of roundoff (2^-53 or 2^-24), None if refused
    domain : the range of every input; an input that is exactly zero is not in it
    assumptions : what is taken for granted, by name: library functions
    reason : why it is refused
    """

    function: str
    dtype: str
    kind: str
    units: Fraction | None = None
    domain: tuple[tuple[str, Range], ...] = ()
    assumptions: tuple[str, ...] = ()
    reason: str = ""

    @property
    def bound(self) -> Fraction | None:
        """The bound as a number.

        >>> RoundingBound("f", "float64", "relative", Fraction(3)).bound * 2**53
        Fraction(3, 1)
        """
        unit = {f.dtype: f.unit for f in FORMATS}[self.dtype]
        return None if self.units is None else self.units * unit


def power_of_two(number: Fraction, *, up: bool) -> int:
    """The exponent of the nearest power of two at least (``up``) or at most a positive number.

    >>> power_of_two(Fraction(3), up=True), power_of_two(Fraction(3), up=False)
    (2, 1)
    """
    e = number.numerator.bit_length() - number.denominator.bit_length()
    while Fraction(2) ** e > number:
        e -= 1
    while Fraction(2) ** (e + 1) <= number:
        e += 1
    return e + (up and Fraction(2) ** e < number)


def outward(number: Fraction, *, up: bool, bits: int = 80) -> Fraction:
    """A number with few digits at least (``up``) or at most the one given, which is positive."""
    shift = bits - power_of_two(number, up=False)
    scaled = number * Fraction(2) ** shift
    whole = -(-scaled.numerator // scaled.denominator) if up else scaled.__floor__()
    return Fraction(whole) / Fraction(2) ** shift


def grid_of(low: Fraction, form: Format) -> int:
    """g, when floats of at least this magnitude, or a little less, are multiples of 2**g.

    A float of at least 2**k is a multiple of 2**(k - digits + 1). Four binades are given away:
    Gappa's own bound of the magnitude is a little below ours, and what is just below a power of
    two counts with the binade below.

    >>> grid_of(Fraction(1), FLOAT64)
    -56
    """
    return power_of_two(low, up=False) - form.digits - 3
