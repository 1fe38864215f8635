"""What a law is: exact parameters, raw moments, cumulants, samples.

A law answers three questions: its raw moments (a rational where the moment is rational, else an
mpf at the current ``mp.dps``), its cumulants, and float64 samples from a
``numpy.random.Generator``. Everything else of the ground truth is built on these.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import fields
from fractions import Fraction

import mpmath
import numpy as np
from mpmath import mp

from .errors import MomentDoesNotExist
from .exact import Exact, as_fraction, as_mpf, check_order, cumulants_from_moments

__all__ = ["Law", "Shape", "make_exact", "shifted_moment"]

Shape = int | tuple[int, ...]


class Law(ABC):
    """The law of a real random variable, given by its moments and a sampler. Abstract.

    A subclass supplies :meth:`moment` and :meth:`sample`; it must keep every parameter exact.
    """

    @abstractmethod
    def moment(self, n: int) -> Exact:
        """Return the raw moment E Xⁿ, n ≥ 0: a rational, or an mpf at ``mp.dps``.

        Raises:
            MomentDoesNotExist: if E|X|ⁿ is infinite.
        """

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """Return independent float64 draws of the given shape."""

    def cumulant(self, n: int) -> Exact:
        """Return the cumulant κₙ, n ≥ 1, from the first n moments."""
        check_order(n, lowest=1)
        return cumulants_from_moments([self.moment(k) for k in range(1, n + 1)])[-1]

    @property
    def mean(self) -> Exact:
        """E X."""
        return self.moment(1)

    @property
    def variance(self) -> Exact:
        """Var X, of one microbatch: the ``sample_variance`` that an estimator aims at."""
        return self.cumulant(2)

    @property
    def sd(self) -> mpmath.mpf:
        """√Var X at the current ``mp.dps``."""
        return mp.sqrt(as_mpf(self.variance))

    @property
    def skewness(self) -> mpmath.mpf:
        """κ₃ / κ₂^{3/2} at the current ``mp.dps``; a constant has none and raises."""
        if self.variance == 0:
            raise MomentDoesNotExist(f"{self!r} is a constant and has no skewness.")
        return as_mpf(self.cumulant(3)) / mp.sqrt(as_mpf(self.variance)) ** 3

    @property
    def center_of_symmetry(self) -> Fraction | None:
        """The point c for which 2c − X has the law of X, or None."""
        return None


def make_exact(law: Law, *, positive: tuple[str, ...] = (), nonnegative: tuple[str, ...] = ()):
    """Replace a frozen law's fields by the rationals that they are, and check their signs."""
    for field in fields(law):
        number = as_fraction(getattr(law, field.name), field.name)
        if field.name in positive and number <= 0:
            raise ValueError(f"{field.name}={number} must be positive in {type(law).__name__}.")
        if field.name in nonnegative and number < 0:
            raise ValueError(f"{field.name}={number} must not be negative in {type(law).__name__}.")
        object.__setattr__(law, field.name, number)


def shifted_moment(n: int, offset: Fraction, moments: list[Exact]) -> Exact:
    """Return E (X + offset)ⁿ = Σₖ C(n, k) offsetⁿ⁻ᵏ E Xᵏ from E X⁰ … E Xⁿ."""
    exact = not any(isinstance(moment, mpmath.mpf) for moment in moments)
    shift = offset if exact else as_mpf(offset)
    # mpmath does not add Fractions to its own numbers, so all terms must be of one kind.
    terms = (m if exact else as_mpf(m) for m in moments)
    return sum(math.comb(n, k) * shift ** (n - k) * term for k, term in enumerate(terms))
