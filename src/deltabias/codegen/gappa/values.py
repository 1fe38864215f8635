"""What is known of one value of a program: its size, its sign, and the error it carries.

A value is *relative* when it cannot cancel: computed = exact · (1 + d), |d| <= error. Where terms
of unlike sign are added it is *sized*: |computed - exact| <= error · size, with a size that is at
least the sum of the terms' magnitudes. Products and quotients of a sized value are sized again.
All bounds are exact rationals, rounded outward to 80 bits.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from deltabias.codegen.gappa.formats import outward


@dataclass(frozen=True)
class Value:
    """One value, by its names in the script.

    Parameters
    ----------
    name, exact : the computed and the exact value; equal where nothing was rounded
    low, high : bounds of the exact magnitude; of a sized value, ``high`` bounds its size
    sign : +1, -1, or 0 for either
    error : bound on the error, relative or over the size
    size : the size's name, None for a relative value
    size_low : lower bound of the size
    grid : g, when the computed value is a multiple of 2**g; None if that is not known
    twin : the same value where what went into it is zero, for the goals
    host : a Python float (binary64), not yet in the tensors' format
    share_of : the names (part, other) when this is part + other, both of one sign
    """

    name: str
    exact: str
    low: Fraction
    high: Fraction
    sign: int = 0
    error: Fraction = Fraction(0)
    size: str | None = None
    size_low: Fraction = Fraction(0)
    grid: int | None = None
    twin: "Value | None" = None
    host: bool = False
    share_of: tuple["Value", "Value"] | None = None

    @property
    def sized(self) -> bool:
        return self.size is not None

    @property
    def rounded(self) -> bool:
        """Whether computed and exact differ."""
        return self.name != self.exact


def product(a: Fraction, b: Fraction) -> Fraction:
    """Two relative errors in a product, or an error and a rounding: (1 + a)(1 + b) - 1."""
    return a + b + a * b


def quotient(a: Fraction, b: Fraction) -> Fraction:
    """Two relative errors in a quotient: (1 + a)/(1 - b) - 1."""
    return (a + b) / (1 - b)


def root(a: Fraction) -> Fraction:
    """A relative error under a square root; 1 - √(1 - a) = a/(1 + √(1 - a)) <= a/(2 - a)."""
    return a / (2 - a)


def sum_of_one_sign(a: Value, b: Value) -> Fraction:
    """Terms of one sign: the errors' mean with weights A/(A + B) and B/(A + B).

    It is linear in the weight, so its maximum is at an end of the weight's range.
    """
    weights = (1 / (1 + b.high / a.low), 1 / (1 + b.low / a.high))
    return max(w * a.error + (1 - w) * b.error for w in weights)


def sqrt_bound(number: Fraction, *, up: bool) -> Fraction:
    """A bound of the square root, 60 bits sharp."""
    scale = 2 ** max(0, 120 - number.numerator.bit_length() + number.denominator.bit_length())
    whole = number * scale * scale
    below = isqrt(whole.numerator // whole.denominator)
    return outward(Fraction(below + up, scale), up=up)


def product_range(a: Value, b: Value) -> tuple[Fraction, Fraction]:
    return outward(a.low * b.low, up=False), outward(a.high * b.high, up=True)


def quotient_range(a: Value, b: Value) -> tuple[Fraction, Fraction]:
    """Bounds of |A/B|; a part of a sum over that sum is A/(A + C) = 1/(1 + C/A), below 1."""
    if b.share_of is not None:
        for part, other in (b.share_of, b.share_of[::-1]):
            if part.exact == a.exact:
                low = 1 / (1 + other.high / part.low)
                high = 1 / (1 + other.low / part.high)
                return outward(low, up=False), min(outward(high, up=True), Fraction(1))
    return outward(a.low / b.high, up=False), outward(a.high / b.low, up=True)


def outward_error(error: Fraction) -> Fraction:
    """An error bound with few digits."""
    return outward(error, up=True) if error else error
