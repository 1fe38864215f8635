"""Arb's numbers: the library, if it is there, and the ball of a rational."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from .errors import MissingDependency

if TYPE_CHECKING:
    from flint import arb

__all__ = ["ball", "flint_module"]


def flint_module():
    """Return python-flint.

    Raises:
        MissingDependency: if it is not installed, with the command that installs it.
    """
    try:
        import flint
    except ImportError as error:
        raise MissingDependency(
            "rigorous enclosures need python-flint; install it with 'pip install python-flint'."
        ) from error
    return flint


def ball(number: Fraction) -> arb:
    """Return the ball of a rational at the current precision."""
    flint = flint_module()
    return flint.arb(flint.fmpq(number.numerator, number.denominator))
