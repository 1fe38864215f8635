"""Sums that may cancel: their errors are measured by the size of their terms.

What follows such a value uses no more than its error, so the script continues with any value of
that error (``any_…``): each piece of the proof stays small, and together they prove the whole.
"""

from dataclasses import replace
from fractions import Fraction

from deltabias.codegen.gappa.formats import RoundingError, grid_of, outward
from deltabias.codegen.gappa.script import number, outer
from deltabias.codegen.gappa.values import (
    Value,
    outward_error,
    product,
    product_range,
    quotient,
    quotient_range,
)


def cancelling_sum(analysis, name: str, operation: str, a: Value, b: Value) -> Value:
    """|a ± b - (A ± B)| <= (eₐ + e_b)S and a rounding, for every S >= |A| + |B|.

    S stands in the script as a variable of which no more is assumed than follows from that.
    """
    script, size, exact = analysis.script, f"size_{name}", f"exact_{name}"
    terms = f"{a.name} {operation} {b.name}"
    script.define(name, f"round({terms})")
    script.define(exact, f"{a.exact} {operation} {b.exact}")
    low = max(v.size_low if v.sized else v.low for v in (a, b))
    high = outward(a.high + b.high, up=True)
    script.hypotheses.append(f"{size} in [{outer(low, up=False)},{outer(high, up=True)}]")
    for v in (a, b):
        script.hypotheses.append(f"|{v.size or v.exact} / {size}| <= 1")
    script.hypotheses.append(f"|{exact} / {size}| <= 1")
    signs = ("+", operation)
    moved = "".join(
        f" {sign} {_share_of_error(analysis, v, size)}"
        for sign, v in zip(signs, (a, b), strict=True)
        if v.rounded
    )
    script.hint(
        f"({name} - {exact}) / {size}",
        f"({name} / {size} - ({terms}) / {size}){moved}",
        size,
    )
    if moved:
        script.hint(f"({terms}) / {size}", f"{exact} / {size}{moved}", size)
    carried = a.error + b.error
    grid = None if None in (a.grid, b.grid) else min(a.grid, b.grid)
    value = Value(
        name, exact, low, high, 1, outward_error(product(carried, analysis.form.unit)), size, low,
        grid,
    )  # fmt: skip
    analysis.in_range(value, "a sum")
    return value


def _share_of_error(analysis, v: Value, size: str) -> str:
    """(a - A)/S, with the identity that leads it back to what is known of a."""
    text = f"({v.name} - {v.exact}) / {size}"
    own = v.size or v.exact
    factor = f"(({v.name} - {v.exact}) / {own})"
    analysis.script.hint(text, f"({own} / {size}) * {factor}", size, own)
    if v.sized:
        analysis.script.hint(f"{v.exact} / {size}", f"({v.exact} / {own}) * ({own} / {size})", own)
    return text


def sized_product(analysis, name: str, operation: str, a: Value, b: Value) -> Value:
    """A sum that may cancel, times or over a value that cannot: the size goes along.

    A computed sum is zero or at least a step of its grid, so what is not zero does not
    underflow. The two cases are two values in the script.
    """
    if b.sized:
        raise RoundingError("a product of two sums that may cancel is not in the table.")
    if a.grid is None:
        raise RoundingError(f"{a.name} may cancel twice; its smallest value is not known.")
    top = outer(2 * a.high, up=True)
    zero = any_like(analysis, a, "zero", "{} in [0,0]")
    a = any_like(analysis, a, "any", f"|{{}}| in [1b{a.grid},{top}]")
    value = _sized_case(analysis, name, operation, a, b)
    analysis.in_range(value, "a value")
    return replace(value, twin=_sized_case(analysis, f"null_{name}", operation, zero, b))


def _sized_case(analysis, name: str, operation: str, a: Value, b: Value) -> Value:
    script, size, exact = analysis.script, f"size_{name}", f"exact_{name}"
    script.define(name, f"round({a.name} {operation} {b.name})")
    script.define(exact, f"{a.exact} {operation} {b.exact}")
    script.define(size, f"{a.size} {operation} {b.exact}")
    _hints_of_product(analysis, name, operation, a, b)
    pieces = product_range if operation == "*" else quotient_range
    plain = replace(b, share_of=None)
    size_low, high = pieces(replace(a, low=a.size_low), plain)
    low, _ = pieces(replace(a, low=Fraction(2) ** a.grid), plain)
    combine = product if operation == "*" else quotient
    error = outward_error(product(combine(a.error, b.error), analysis.form.unit))
    analysis.away_from_zero(name, f"({a.name} {operation} {b.name})")
    grid = grid_of(low / 2, analysis.form)
    return Value(name, exact, low, high, b.sign, error, size, size_low, grid)


def _hints_of_product(analysis, name: str, operation: str, a: Value, b: Value) -> None:
    """ab/(S B) - AB/(S B) through a/S - A/S and b/B, and the same for a quotient."""
    script, size, exact = analysis.script, f"size_{name}", f"exact_{name}"
    terms = f"({a.name} {operation} {b.name}) / {size}"
    error_a, known = f"(({a.name} - {a.exact}) / {a.size})", f"({a.exact} / {a.size})"
    script.hint(f"{a.name} / {a.size}", f"{known} + {error_a}", a.size)
    moved = error_a
    if b.rounded:
        error_b, ratio_b = f"(({b.name} - {b.exact}) / {b.exact})", f"({b.name} / {b.exact})"
        script.hint(ratio_b[1:-1], f"1 + {error_b}", b.exact)
        nonzero = (a.size, b.exact, b.name)
        script.hint(terms, f"({a.name} / {a.size}) {operation} {ratio_b}", *nonzero)
        if operation == "*":
            moved = f"{error_a} * {ratio_b} + {known} * {error_b}"
        else:
            moved = f"({error_a} - {known} * {error_b}) / {ratio_b}"
    else:
        script.hint(terms, f"{a.name} / {a.size}", a.size, b.exact)
    script.hint(f"{terms} - {exact} / {size}", moved, a.size, b.exact, b.name)
    script.hint(
        f"({name} - {exact}) / {size}",
        f"({name} / {size} - {terms}) + ({terms} - {exact} / {size})",
        size,
    )


def any_like(analysis, a: Value, prefix: str = "some", case: str = "") -> Value:
    """Any value with the error that is proved for this one: what follows uses no more."""
    name = f"{prefix}_{a.name}"
    exact, size = f"exact_{name}", f"size_{name}"
    made = replace(a, name=name, exact=exact, size=size, twin=None)
    if name not in analysis.values:
        analysis.values[name] = made
        script, low, high = analysis.script, outer(a.size_low, up=False), outer(a.high, up=True)
        script.define(name, f"round(raw_{name})")
        shown = size if a.sign == 1 else f"|{size}|"
        script.hypotheses += [
            f"{shown} in [{low},{high}]",
            f"|{exact} / {size}| <= 1",
            error_within(made, a.error),
            *([case.format(name)] if case else []),
        ]
        goals = claim(a, a.error)
        if case:
            goals.append(f"@FIX({a.name},{a.grid})")  # the twin is zero, on every grid
        script.goals += [g for g in goals if g not in script.goals]
    return made


def error_within(value: Value, limit: Fraction) -> str:
    """The error of a value, relative or over its size, is within a limit."""
    if not value.rounded:
        return f"{value.name} - {value.exact} in [0,0]"
    if value.sized:
        return f"|({value.name} - {value.exact}) / {value.size}| <= {number(limit)}"
    return f"{value.name} -/ {value.exact} in [-{number(limit)},{number(limit)}]"


def claim(value: Value, limit: Fraction) -> list[str]:
    """The goals that a value's error is within a limit."""
    return [error_within(v, limit) for v in (value.twin, value) if v is not None]
