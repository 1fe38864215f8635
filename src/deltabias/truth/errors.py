"""The exceptions of the ground truth: each names something that cannot be answered.

Bad arguments raise plain ``ValueError`` or ``TypeError``. The classes below are for questions
that are well posed and still have no answer, so that a caller can tell the two apart.
"""

from __future__ import annotations

__all__ = [
    "DivergentExpectation",
    "MissingDependency",
    "MomentDoesNotExist",
    "NonFiniteSample",
    "NotConverged",
    "TooManySamples",
    "UnboundedRemainder",
]


class MomentDoesNotExist(ValueError):
    """The law has no moment of this order: the integral that would define it diverges."""


class DivergentExpectation(ValueError):
    """The expectation of this map under this law is infinite or undefined."""


class TooManySamples(ValueError):
    """An exact enumeration would visit more samples than the limit allows."""


class NotConverged(ArithmeticError):
    """A quadrature did not reach the accuracy that it was asked for; no number is returned."""


class NonFiniteSample(ArithmeticError):
    """A Monte Carlo replicate came out infinite or NaN, so the estimate has no meaning."""


class UnboundedRemainder(ValueError):
    """A remainder has no bound of the form that was asked for on this law's support."""


class MissingDependency(ImportError):
    """An optional library that this function needs is not installed."""
