"""Minimum, maximum and clamps: they add no error, and the script proves it case by case.

Gappa knows no maximum. Its value is a variable in the script, of which is assumed that it carries
no more error than what goes into it; that assumption is a goal of the same script, for both cases
in which the computed and the exact value lie on different sides of the bound.
"""

from dataclasses import replace
from fractions import Fraction

from deltabias.codegen.gappa.cancelling import any_like
from deltabias.codegen.gappa.formats import RoundingError, outward
from deltabias.codegen.gappa.script import number, outer, within
from deltabias.codegen.gappa.values import Value

OPERATIONS = frozenset({"clamp_min", "clamp_max", "maximum", "minimum"})


def clamp(analysis, operation: str, name: str, x: Value, bound: Value) -> Value:
    """The larger or smaller of two values.

    Raises
    ------
    RoundingError
        where the result could change its sign, so that no relative error is left to speak of.
    """
    upward = operation in ("clamp_min", "maximum")
    if x.sized or bound.sized:
        return _sized(analysis, upward, name, x, bound)
    if x.sign and x.sign == -bound.sign:  # the bound is never reached, or always
        return x if (x.sign == 1) == upward else bound
    if bound.sign == 0 or (x.sign == 0 and upward == (bound.sign == 1)):
        raise RoundingError(
            f"the {'larger' if upward else 'smaller'} of {x.name} and {bound.name} may have "
            "either sign; bound it by a number of the sign that it cannot cross."
        )
    grows = upward == (bound.sign == 1)  # whether the magnitude grows
    return _relative(analysis, grows, name, x, bound)


def _relative(analysis, grows: bool, name: str, x: Value, bound: Value) -> Value:
    error = max(x.error, bound.error)
    pick = max if grows else min
    low = pick(x.low, bound.low)
    high = pick(x.high, bound.high) if x.sign else x.high
    script, exact = analysis.script, f"exact_{name}"
    script.define(name, f"round(raw_{name})")
    script.hypotheses.append(within(exact, low, high, x.sign))
    script.hypotheses.append(f"{name} -/ {exact} in [-{number(error)},{number(error)}]")
    analysis.away_from_zero(name, exact)
    _crossings(script, grows, f"of_{name}", x.error, bound.error)
    grid = None if None in (x.grid, bound.grid) else min(x.grid, bound.grid)
    return Value(name, exact, low, high, x.sign, error, grid=grid)


def _crossings(script, grows: bool, tag: str, error_x: Fraction, error_c: Fraction) -> None:
    """c against X where only x crossed, x against C where only X did; in the ratios of the four.

    r = x/X, q = c/C and t = X/C, so x/c = r t/q: the first case has c/X = q/t, the other x/C = r t.
    """
    limit = number(max(error_x, error_c))
    for case, beyond in (("a", grows), ("b", not grows)):
        r, q, t = (f"{letter}{case}_{tag}" for letter in "rqt")
        script.hypotheses += [
            f"{r} in [{number(1 - error_x)},{number(1 + error_x)}]",
            f"{q} in [{number(1 - error_c)},{number(1 + error_c)}]",
            f"{t} in [1,1b4000]" if beyond else f"{t} in [1b-4000,1]",
            f"{r} * {t} / {q} {'<=' if beyond else '>='} 1",
        ]
        if case == "a":
            script.goals.append(f"{q} / {t} - 1 in [-{limit},{limit}]")
            script.hint(f"{q} / {t}", f"{r} / ({r} * {t} / {q})", q, t, r)
        else:
            script.goals.append(f"{r} * {t} - 1 in [-{limit},{limit}]")
            script.hint(f"{r} * {t}", f"{q} * ({r} * {t} / {q})", q)


def _sized(analysis, upward: bool, name: str, x: Value, bound: Value) -> Value:
    """A bound on the far side of zero: |clamp(x) - clamp(X)| <= |x - X|, and no magnitude grows."""
    if bound.sized or bound.rounded or x.sign != 1 or bound.sign != (-1 if upward else 1):
        raise RoundingError(
            f"a bound {bound.name} on {x.name}, a sum that may cancel, must be an exact number "
            f"{'below' if upward else 'above'} zero."
        )
    x = any_like(analysis, x)
    script, size, exact = analysis.script, x.size, f"exact_{name}"
    limit = number(x.error)
    script.define(name, f"round(raw_{name})")
    script.hypotheses.append(f"|{exact} / {size}| <= 1")
    script.hypotheses.append(f"|({name} - {exact}) / {size}| <= {limit}")
    # a = (X - c)/S and d = (x - X)/S, so (x - c)/S = a + d; c - X where only x crossed, or x - c
    wide = outer(outward((x.high + bound.high) / x.size_low, up=True), up=True)
    for case, a_sign, sum_sign in (("a", "<=", ">="), ("b", ">=", "<=")):
        a, d = f"a{case}_of_{name}", f"d{case}_of_{name}"
        script.hypotheses += [
            f"|{d}| <= {limit}",
            f"|{a}| <= {wide}",
            f"{a} {a_sign} 0",
            f"{a} + {d} {sum_sign} 0",
        ]
        script.goals.append(f"|{a if case == 'a' else f'{a} + {d}'}| <= {limit}")
        script.hint(a, f"({a} + {d}) - {d}")
    high = outward(max(x.high, x.size_low), up=True)
    return replace(x, name=name, exact=exact, high=high, grid=None)
