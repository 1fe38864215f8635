"""The text of a Gappa script: definitions, hypotheses, goals, rewriting hints, in that order.

Source: G. Melquiond, *Gappa, a tool to verify floating-point programs*, user's guide 1.4.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from deltabias.codegen.gappa.formats import Range, power_of_two

# Gappa searches with rationals of this many bits; a bound of a few u = 2^-53 needs room
PRECISION = 150


@dataclass
class Script:
    """Collects the parts of one script; `text` puts them in order."""

    header: list[str] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    definitions: list[str] = field(default_factory=list)
    hypotheses: list[str] = field(default_factory=list)
    goals: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def define(self, name: str, expression: str) -> None:
        """``name = expression;``"""
        self.definitions.append(f"{name} = {expression};")

    def hint(self, left: str, right: str, *nonzero: str) -> None:
        """An identity that holds where the names given are not zero."""
        condition = " { " + ", ".join(f"{n} <> 0" for n in nonzero) + " }" if nonzero else ""
        line = f"{left} -> {right}{condition};"
        if line not in self.hints:
            self.hints.append(line)

    def text(self) -> str:
        """The script; the last goal is the claim, those before it are what it stands on."""
        goals = "\n  /\\ ".join(self.goals)
        hypotheses = "\n  /\\ ".join(self.hypotheses)
        return "\n".join(
            [
                *(f"# {line}".rstrip() for line in self.header),
                f"#@ -Eprecision={PRECISION} -Eno-auto-dichotomy",
                *(f"@{name} = {form};" for name, form in self.formats.items()),
                "",
                *self.definitions,
                "",
                f"{{ {hypotheses}\n  ->\n  {goals} }}",
                "",
                *self.hints,
                "",
            ]
        )


def number(value: Fraction) -> str:
    """A rational as Gappa writes it: exact.

    >>> number(Fraction(3, 8)), number(Fraction(-1, 3)), number(Fraction(2) ** 70)
    ('3b-3', '(-1 / 3)', '1b70')
    """
    top, bottom = value.numerator, value.denominator
    if bottom & (bottom - 1):
        return f"({top} / {bottom})"
    shift = -(bottom.bit_length() - 1)
    while top and top % 2 == 0:
        top, shift = top // 2, shift + 1
    return f"{top}b{shift}" if shift else str(top)


def outer(value: Fraction, *, up: bool) -> str:
    """A power of two at least or at most a positive number."""
    return f"1b{power_of_two(value, up=up)}"


def within(name: str, low: Fraction, high: Fraction, sign: int) -> str:
    """``name`` has that sign and a magnitude between powers of two around the bounds."""
    low_text, high_text = outer(low, up=False), outer(high, up=True)
    if sign < 0:
        return f"{name} in [-{high_text},-{low_text}]"
    return f"{name if sign else f'|{name}|'} in [{low_text},{high_text}]"


def input_range(name: str, allowed: Range) -> str:
    """The domain's range of an input, exactly."""
    shown = f"|{name}|" if allowed.signed else name
    return f"{shown} in [{number(allowed.low)},{number(allowed.high)}]"
