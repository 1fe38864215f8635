"""Certificates of rounding errors: a bound for each generated function, and Gappa's proof of it.

For every pure function of a rule (the plug-in and the corrected update), in binary64 and
binary32, :func:`rounding_bounds` states by how much the function's value can differ from the
exact formula of the same inputs, and :func:`rounding_scripts` prints the Gappa script that proves
it for the whole function, from the program that also prints the torch code.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from deltabias.codegen.gappa.analysis import Analysis, spell
from deltabias.codegen.gappa.cancelling import claim
from deltabias.codegen.gappa.formats import (
    FLOAT32,
    FLOAT64,
    FORMATS,
    Domain,
    Format,
    Range,
    RoundingBound,
    RoundingError,
    default_domain,
)
from deltabias.codegen.kernels import RulePrograms, rule_programs
from deltabias.codegen.ssa import Program
from deltabias.rule import UpdateRule

__all__ = [
    "FLOAT32",
    "FLOAT64",
    "FORMATS",
    "Format",
    "Range",
    "RoundingBound",
    "RoundingError",
    "certify_rounding",
    "default_domain",
    "rounding_bounds",
    "rounding_line",
    "rounding_scripts",
    "spell",
    "units_text",
]

# claims are rounded up to this fraction of a unit roundoff
STEP = 64


def certify_rounding(
    program: Program, form: Format, domain: Domain, *, header: str = ""
) -> tuple[RoundingBound, str]:
    """The claim for one function in one format, and the script that proves it.

    Parameters
    ----------
    program : straight-line code without updates in place
    form : `FLOAT64` or `FLOAT32`
    domain : the range of every argument, by name
    header : a first line for the script

    Raises
    ------
    RoundingError
        by name, for an operation without a rule, a division by or a root of what may cancel to
        zero, a range that reaches zero, or a value that may under- or overflow.
    """
    analysis = Analysis(program, form, domain)
    value, script = analysis.value, analysis.script
    units = Fraction(ceil(value.error / form.unit * STEP), STEP)
    script.goals += claim(value, units * form.unit)
    kind = "size" if value.sized else "relative"
    names = (*program.tensors, *program.scalars)
    bound = RoundingBound(
        program.name, form.dtype, kind, units, tuple((n, domain[n]) for n in names),
        tuple(dict.fromkeys(analysis.assumptions)),
    )  # fmt: skip
    what = "the exact value" if kind == "relative" else "the sum of its terms' magnitudes"
    script.header = [
        *([header] if header else []),
        f"{program.name} in {form.dtype}: its rounding error is at most {units_text(units)} u of",
        f"{what}, u = 2^-{form.digits}. Names as in the generated function;",
        "exact_… is the value without rounding, raw_… any real number.",
        *(["size_… is any number that is at least the sum of the terms' magnitudes."]
          if kind == "size" else []),
        *(f"Assumed: {a}." for a in bound.assumptions),
    ]  # fmt: skip
    return bound, script.text()


def rounding_bounds(
    rule: UpdateRule | RulePrograms, domain: Domain | None = None
) -> tuple[RoundingBound, ...]:
    """What is claimed of each pure function of a rule, in binary64 and binary32.

    A function that cannot be certified is there too, with ``kind="refused"`` and the reason.

    >>> rule = UpdateRule.parse("g/(sqrt(v)+eps)")
    >>> for bound in rounding_bounds(rule)[:2]:
    ...     print(bound.function, bound.dtype, bound.kind, float(bound.units))
    plug_in_update float64 relative 3.015625
    plug_in_update float32 relative 3.015625
    """
    return tuple(bound for bound, _ in _certified(rule, domain, ""))


def rounding_scripts(
    rule: UpdateRule | RulePrograms, domain: Domain | None = None, *, header: str = ""
) -> dict[str, str]:
    """Gappa scripts by file name, ``RULE.FUNCTION.DTYPE.g``; none for what is refused."""
    name = (rule.rule if isinstance(rule, RulePrograms) else rule).name
    return {
        f"{name}.{bound.function}.{bound.dtype}.g": text
        for bound, text in _certified(rule, domain, header)
        if bound.kind != "refused"
    }


def _certified(
    rule: UpdateRule | RulePrograms, domain: Domain | None, header: str
) -> list[tuple[RoundingBound, str]]:
    programs = rule if isinstance(rule, RulePrograms) else rule_programs(rule)
    found = []
    for program in programs.updates:
        for form in FORMATS:
            ranges = default_domain(programs.rule, programs.kernel, form) | dict(domain or {})
            try:
                found.append(certify_rounding(program, form, ranges, header=header))
            except RoundingError as error:
                refused = RoundingBound(program.name, form.dtype, "refused", reason=str(error))
                found.append((refused, ""))
    return found


def units_text(units: Fraction) -> str:
    """A number of units with two digits after the point, rounded up.

    >>> units_text(Fraction(3) + Fraction(1, 64)), units_text(Fraction(4))
    ('3.02', '4')
    """
    hundredths = ceil(units * 100)
    return f"{hundredths / 100:.2f}".rstrip("0").rstrip(".")


def rounding_line(bounds: Mapping[str, RoundingBound] | tuple[RoundingBound, ...]) -> str:
    """One line for a docstring, from the bounds of one function; empty if all are refused."""
    records = bounds.values() if isinstance(bounds, Mapping) else bounds
    known = [b for b in records if b.units is not None]
    if not known:
        return ""
    worst = max(known, key=lambda b: b.units)
    of = "of the result" if worst.kind == "relative" else "of the sum of its terms' magnitudes"
    dtypes = " and ".join(b.dtype for b in known)
    return f"Rounding: at most {units_text(worst.units)} u {of} in {dtypes} (Gappa)."
