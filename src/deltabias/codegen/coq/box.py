"""Maps on a stated box: ranges and bounds as numbers, for Coq's interval tactic to prove.

The numbers are found by sampling and rounded outward; that they hold is proved by Coq or rejected,
so nothing rests on the sampling. A denominator that changes sign or an argument of a root or a
logarithm that is not positive somewhere in the box is refused here, by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import isfinite

import mpmath
import sympy as sp

from deltabias.codegen.coq.atoms import Field
from deltabias.errors import CertifyError

POINTS = 400
MARGIN = Fraction(1, 20)
SMALL = 1e-9
"""A denominator that comes this near to zero, relative to its size in the box, may be zero."""


@dataclass(frozen=True)
class Box:
    """Exact ends for the statistic and the hyperparameters, ranges of atoms, bounds by order."""

    ends: Mapping[sp.Symbol, tuple[sp.Rational, sp.Rational]]
    ranges: Mapping[sp.Symbol, tuple[sp.Rational, sp.Rational]]
    bounds: Mapping[int, sp.Rational]


def exact_ends(boxes: Mapping[str, tuple[str, str]]) -> dict[str, tuple[sp.Rational, sp.Rational]]:
    """Decimal texts as rationals."""
    return {n: (sp.Rational(low), sp.Rational(high)) for n, (low, high) in boxes.items()}


def box(
    place: Field,
    tower: Sequence[sp.Expr],
    orders: Sequence[int],
    ends: Mapping[str, tuple[sp.Rational, sp.Rational]],
    what: str,
) -> Box:
    """The numbers of a map on a box.

    Raises
    ------
    CertifyError
        for a name without a box, a singular point in it, or a bound that is not finite.
    """
    named = _named(place, ends, what)
    for part in _must_not_vanish(place, tower):
        _check_away_from_zero(place, part, named, what)
    for atom in place.atoms:
        if atom.head in ("sqrt", "root", "ln"):
            _check_positive(place, atom.inner, named, what)
    ranges = {a.symbol: _widened(_values(place, a.symbol, named)) for a in place.atoms}
    bounds = {k: _upper(_values(place, tower[k], named), what) for k in orders}
    return Box(named, ranges, bounds)


def _named(place: Field, ends, what: str) -> dict[sp.Symbol, tuple[sp.Rational, sp.Rational]]:
    wanted = (place.statistic, *place.hypers)
    if missing := [s.name for s in wanted if s.name not in ends]:
        raise CertifyError(
            f"{what}: its bounds need a box for {', '.join(missing)} as well; add "
            + " ".join(f"--box {name}=LOW:HIGH" for name in missing)
            + "."
        )
    if unknown := sorted(set(ends) - {s.name for s in wanted}):
        raise CertifyError(
            f"{what}: --box {unknown[0]} is neither its preconditioner's statistic nor a "
            f"hyperparameter of the smooth part ({', '.join(s.name for s in wanted)})."
        )
    return {s: ends[s.name] for s in wanted}


def _must_not_vanish(place: Field, tower: Sequence[sp.Expr]) -> list[sp.Expr]:
    found: dict[sp.Expr, None] = {}
    for expression in (*tower, *(a.derivative for a in place.atoms)):
        _, factors = sp.factor_list(sp.denom(place.tidy(expression)))
        found |= dict.fromkeys(f for f, _ in factors)
    return list(found)


def _in_originals(place: Field, expression: sp.Expr) -> sp.Expr:
    for atom in reversed(place.atoms):
        expression = expression.subs(atom.symbol, atom.original)
    return expression


def _values(place: Field, expression: sp.Expr, ends) -> list[float]:
    """Values on a grid over the statistic and at the corners of the hyperparameters."""
    symbols = list(ends)
    function = sp.lambdify(symbols, _in_originals(place, expression), "mpmath")
    low, high = ends[place.statistic]
    line = [low + (high - low) * sp.Rational(i, POINTS) for i in range(POINTS + 1)]
    corners = product(*(ends[s] for s in symbols[1:]))
    values = []
    for corner in corners:
        for point in line:
            try:
                value = function(*(mpmath.mpf(c.p) / c.q for c in (point, *corner)))
                values.append(float(value) if mpmath.im(value) == 0 else float("nan"))
            except (ZeroDivisionError, ValueError):
                values.append(float("nan"))
    return values


def _check_away_from_zero(place: Field, part: sp.Expr, ends, what: str) -> None:
    values = _values(place, part, ends)
    size = max((abs(v) for v in values if isfinite(v)), default=0.0)
    bad = [v for v in values if not isfinite(v) or abs(v) <= SMALL * size]
    if bad or min(values) < 0 < max(values):
        shown = _in_originals(place, part)
        raise CertifyError(
            f"{what}: there is a singular point inside the box, where {shown} = 0. Give a box "
            "without it."
        )


def _check_positive(place: Field, inner: sp.Expr, ends, what: str) -> None:
    if not all(v > 0 for v in _values(place, inner, ends)):
        shown = _in_originals(place, inner)
        raise CertifyError(f"{what}: the box leaves the domain, {shown} has to be positive in it.")


def _widened(values: Sequence[float]) -> tuple[sp.Rational, sp.Rational]:
    """A range that surely holds the values, and keeps their sign if they have one."""
    low, high = Fraction(min(values)), Fraction(max(values))
    gap = (high - low) * MARGIN + max(abs(low), abs(high)) / 1000
    below = low - min(gap, low / 2) if low > 0 else low - gap
    above = high + min(gap, -high / 2) if high < 0 else high + gap
    return _short(below, up=False), _short(above, up=True)


def _upper(values: Sequence[float], what: str) -> sp.Rational:
    if not all(map(isfinite, values)):
        raise CertifyError(f"{what}: a derivative is not bounded on the box; give a smaller one.")
    return _short(max(Fraction(max(map(abs, values))) * (1 + MARGIN), Fraction(1, 10**6)), up=True)


def _short(value: Fraction, *, up: bool) -> sp.Rational:
    """Four significant digits, rounded outward."""
    if value == 0:
        return sp.Integer(0)
    scale = Fraction(10) ** (3 - _decade(abs(value)))
    scaled = value * scale
    whole = -((-scaled.numerator) // scaled.denominator) if up else scaled.__floor__()
    short = Fraction(whole) / scale
    return sp.Rational(short.numerator, short.denominator)


def _decade(value: Fraction) -> int:
    decade = 0
    while value >= 10:
        value, decade = value / 10, decade + 1
    while value < 1:
        value, decade = value * 10, decade - 1
    return decade
