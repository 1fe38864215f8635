"""What the documentation says of rounding: a section of a rule's page, a docstring's line."""

from dataclasses import replace
from fractions import Fraction

from deltabias.codegen.gappa import RoundingBound, rounding_bounds, rounding_line, units_text
from deltabias.codegen.gappa.formats import Range, power_of_two
from deltabias.codegen.kernels import RulePrograms
from deltabias.codegen.ssa import Program


def documented(programs: RulePrograms) -> tuple[Program, ...]:
    """The pure functions of a rule, with one line on rounding in their docstrings."""
    bounds = rounding_bounds(programs)
    out = []
    for program in programs.updates:
        line = rounding_line(tuple(b for b in bounds if b.function == program.name))
        out.append(replace(program, doc=f"{program.doc}\n\n{line}" if line else program.doc))
    return tuple(out)


def rounding_section(programs: RulePrograms) -> list[str]:
    """The section "Rounding" of a rule's page: bounds, domains, what is assumed or refused."""
    bounds = rounding_bounds(programs)
    lines = [
        "## Rounding",
        "",
        "How far the generated function can be from the exact formula of the same inputs, in units "
        "$u$ of roundoff ($2^{-53}$ or $2^{-24}$), proved by Gappa for IEEE arithmetic, each "
        "operation rounded to nearest (torch on a CPU). *Of its terms* means relative to the sum "
        "of their magnitudes, where terms of unlike sign are added and can cancel. No input is "
        "zero here; a zero only removes roundings.",
        "",
        "| function | format | at most | inputs |",
        "| --- | --- | --- | --- |",
        *map(_row, bounds),
        "",
    ]
    assumed = dict.fromkeys(a for b in bounds for a in b.assumptions)
    lines += [f"- assumed: {a}" for a in assumed] + ([""] if assumed else [])
    return lines


def _row(bound: RoundingBound) -> str:
    if bound.units is None:
        return f"| `{bound.function}` | {bound.dtype} | not certified | {bound.reason} |"
    of = "" if bound.kind == "relative" else " of its terms"
    inputs = ", ".join(f"`{name}` {_range(r)}" for name, r in bound.domain)
    amount = f"${units_text(bound.units)}\\,u${of}"
    return f"| `{bound.function}` | {bound.dtype} | {amount} | {inputs} |"


def _range(allowed: Range) -> str:
    sign = "\\pm" if allowed.signed else ""
    return f"${sign}[{_power(allowed.low)}, {_power(allowed.high)}]$"


def _power(value: Fraction) -> str:
    exponent = power_of_two(value, up=False)
    if exponent == 0 and value == 1:
        return "1"
    return f"2^{{{exponent}}}" if value == Fraction(2) ** exponent else f"{float(value):g}"
