"""Continuous laws of one microbatch's scalar statistic, with exact moments.

Frozen records of exact parameters; laws with finite support are in :mod:`.finite_laws`.

Sources of the moments: N. L. Johnson, S. Kotz, N. Balakrishnan, *Continuous Univariate
Distributions* 1 (normal, lognormal, gamma) and 2 (Laplace, t), 2nd ed., Wiley 1994-95.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
from mpmath import mp

from .base_law import Law, Shape, make_exact, shifted_moment
from .errors import MomentDoesNotExist
from .exact import Exact, Number, as_fraction, as_mpf, check_order

__all__ = [
    "Gamma",
    "Laplace",
    "LogNormal",
    "Normal",
    "ScaledChiSquare",
    "Shifted",
    "StudentT",
]


@dataclass(frozen=True)
class Normal(Law):
    """The normal law. ``sd`` = 0 is allowed and is a constant.

    >>> Normal(1, "1/2").moment(4)
    Fraction(43, 16)
    """

    mean: Number = 0
    sd: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, nonnegative=("sd",))

    def moment(self, n: int) -> Exact:
        # Stein: E Xⁿ = μ E Xⁿ⁻¹ + (n − 1) σ² E Xⁿ⁻²
        check_order(n)
        older, moment = Fraction(0), Fraction(1)
        for order in range(1, n + 1):
            older, moment = moment, self.mean * moment + (order - 1) * self.sd**2 * older
        return moment

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.normal(float(self.mean), float(self.sd), shape)

    @property
    def center_of_symmetry(self) -> Fraction:
        return self.mean


@dataclass(frozen=True)
class Gamma(Law):
    """The gamma law with density x^{shape−1} e^{−x/scale}; mean shape·scale.

    >>> Gamma(4, "1/4").mean, Gamma(4, "1/4").variance
    (Fraction(1, 1), Fraction(1, 4))
    """

    shape: Number
    scale: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, positive=("shape", "scale"))

    def moment(self, n: int) -> Exact:
        # θⁿ Γ(k + n)/Γ(k), a rising factorial: rational for every rational k.
        check_order(n)
        return self.scale**n * math.prod((self.shape + i for i in range(n)), start=Fraction(1))

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.gamma(float(self.shape), float(self.scale), shape)


@dataclass(frozen=True)
class ScaledChiSquare(Law):
    """``scale`` times a χ² variable with ``dof`` degrees of freedom (any positive real).

    The law of a squared gradient at zero mean: σ² χ²₁. Equal to ``Gamma(dof/2, 2*scale)``.
    """

    dof: Number
    scale: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, positive=("dof", "scale"))

    @property
    def as_gamma(self) -> Gamma:
        """The same law under its other name."""
        return Gamma(self.dof / 2, 2 * self.scale)

    def moment(self, n: int) -> Exact:
        return self.as_gamma.moment(n)

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return float(self.scale) * rng.chisquare(float(self.dof), shape)


@dataclass(frozen=True)
class LogNormal(Law):
    """exp of a normal variable with mean ``mu`` and standard deviation ``sigma``.

    Its moments are irrational: they are right at the ``mp.dps`` of the moment they are asked for.
    """

    mu: Number = 0
    sigma: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, nonnegative=("sigma",))

    def moment(self, n: int) -> Exact:
        check_order(n)
        return mp.exp(as_mpf(n * self.mu + Fraction(n * n, 2) * self.sigma**2))

    def cumulant(self, n: int) -> Exact:
        # κₙ is of order σ²⁽ⁿ⁻¹⁾ and comes out of terms of order 1: raise the precision until
        # the answer no longer moves at the precision that was asked for.
        if self.sigma == 0:
            return self.moment(1) if n == 1 else mp.mpf(0)
        guard, last = 2 * n + 10, None
        while True:
            with mpmath.extradps(guard):
                value = super().cumulant(n)
            if last is not None and abs(value - last) <= mp.eps * abs(value) / 4:
                return +value
            guard, last = 2 * guard, value

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.lognormal(float(self.mu), float(self.sigma), shape)


@dataclass(frozen=True)
class Laplace(Law):
    """The Laplace law with density e^{−|x−loc|/scale}/(2 scale); variance 2 scale²."""

    loc: Number = 0
    scale: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, positive=("scale",))

    def moment(self, n: int) -> Exact:
        check_order(n)
        central = [math.factorial(k) * self.scale**k * (k % 2 == 0) for k in range(n + 1)]
        return shifted_moment(n, self.loc, central)

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.laplace(float(self.loc), float(self.scale), shape)

    @property
    def center_of_symmetry(self) -> Fraction:
        return self.loc


@dataclass(frozen=True)
class StudentT(Law):
    """``loc`` + ``scale`` times a t variable; moments exist below order ``dof`` only.

    >>> StudentT(5).moment(4)
    Fraction(25, 1)
    >>> StudentT(5).moment(5)
    Traceback (most recent call last):
    ...
    deltabias.truth.errors.MomentDoesNotExist: moment 5 of a t law with dof=5 does not exist; \
orders below 5 do.
    """

    dof: Number
    loc: Number = 0
    scale: Number = 1

    def __post_init__(self) -> None:
        make_exact(self, positive=("dof", "scale"))

    def moment(self, n: int) -> Exact:
        check_order(n)
        if n >= self.dof:
            raise MomentDoesNotExist(
                f"moment {n} of a t law with dof={self.dof} does not exist; "
                f"orders below {self.dof} do."
            )
        return shifted_moment(n, self.loc, [self._central_moment(k) for k in range(n + 1)])

    def _central_moment(self, n: int) -> Fraction:
        # scaleⁿ Π_{i ≤ n/2} (2i − 1) ν/(ν − 2i) for even n
        if n % 2:
            return Fraction(0)
        ratios = ((2 * i - 1) * self.dof / (self.dof - 2 * i) for i in range(1, n // 2 + 1))
        return self.scale**n * math.prod(ratios, start=Fraction(1))

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return float(self.loc) + float(self.scale) * rng.standard_t(float(self.dof), shape)

    @property
    def center_of_symmetry(self) -> Fraction:
        return self.loc


@dataclass(frozen=True)
class Shifted(Law):
    """Another law moved by ``offset``.

    ``Shifted(Gamma(1, sd), mean - sd)`` is the shifted exponential: that mean, that sd,
    skewness 2, all of them exact.
    """

    law: Law
    offset: Number

    def __post_init__(self) -> None:
        if not isinstance(self.law, Law):
            raise TypeError(f"law={self.law!r} must be a Law, such as Gamma(1, 2).")
        object.__setattr__(self, "offset", as_fraction(self.offset, "offset"))

    def moment(self, n: int) -> Exact:
        check_order(n)
        return shifted_moment(n, self.offset, [self.law.moment(k) for k in range(n + 1)])

    def cumulant(self, n: int) -> Exact:
        # Only the first cumulant moves; asking the inner law avoids a cancellation.
        return self.mean if n == 1 else self.law.cumulant(n)

    def sample(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.law.sample(rng, shape) + float(self.offset)

    @property
    def center_of_symmetry(self) -> Fraction | None:
        inner = self.law.center_of_symmetry
        return None if inner is None else inner + self.offset
