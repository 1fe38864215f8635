r"""Monte Carlo with a stated error: n and seed are fixed beforehand, nothing is retried.

An :class:`Estimate` is a mean over ``replicates`` independent replicates with its standard error.
There is no stopping rule, for a mean that is looked at until it is right is not a mean.

Three ways to a smaller error, none of which moves the expectation:

* **Common random numbers.** A function may return several values per replicate; their covariance
  is kept, so the difference of two estimators is judged with its own, smaller error
  (:meth:`Estimate.difference`).
* **Control variates.** With controls c of known mean, E (f − B(c − E c)) = E f for every *fixed*
  B. B is fitted by least squares on a pilot drawn from its own stream and then kept: fitting it
  on the replicates that are averaged would make B depend on c and bring a bias of order 1/n.
* **Antithetic pairs.** For a law symmetric about c, x and 2c − x have the same law; the average
  of f over the pair is one replicate. Pairs are independent of each other, the two halves are
  not, so the standard error is that of the pair averages.

Source: P. Glasserman, *Monte Carlo Methods in Financial Engineering*, Springer 2003, §4.1-4.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .base_law import Law
from .errors import NonFiniteSample

__all__ = [
    "Estimate",
    "Part",
    "Sampler",
    "estimate",
]

Array = np.ndarray
Number = float | Array


@dataclass(frozen=True)
class Sampler:
    """Draw float64 arrays [n, *shape] of independent values of one law.

    ``Sampler(law, (steps, microbatches))`` gives a history of microbatch gradients per replicate.
    """

    law: Law
    shape: tuple[int, ...] = ()

    def __call__(self, rng: np.random.Generator, n: int) -> Array:
        return self.law.sample(rng, (n, *self.shape))


@dataclass(frozen=True)
class Part:
    """One of several processes that share an estimate.

    Chunk k of the replicates has a random stream of its own and is drawn by process k modulo
    ``parts``; ``gather(mine)`` returns what every process passed, in their order, on all of them
    (`torch.distributed.all_gather_object`, say). Chunks are merged in their order, so the estimate
    is the same on every process, bit for bit, and for any number of processes. It is another
    draw than that of one process without a part, whose chunks follow each other in one stream.
    """

    index: int
    parts: int
    gather: Callable[[object], list]

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.parts:
            raise ValueError(f"part {self.index} of {self.parts} is none; count from 0.")


class _Draw(Protocol):
    def __call__(self, rng: np.random.Generator, n: int) -> Array: ...


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean with its error.

    Attributes:
        mean, standard_error: floats, or float64 arrays [k] for a function with k values.
        replicates: the number of function evaluations behind it (twice the pairs, if antithetic).
        seed: the seed that makes it again.
        covariance: [k, k], of the k *means* (not of one replicate); None for a scalar.
    """

    mean: Number
    standard_error: Number
    replicates: int
    seed: int
    covariance: Array | None = field(default=None, repr=False)

    def z(self, reference: Number) -> Number:
        """Return (mean − reference) / standard error: standard normal if they agree."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.mean - np.asarray(reference, dtype=float)) / self.standard_error

    def difference(self, first: int, second: int) -> Estimate:
        """Return the estimate of E f_first − E f_second, paired on common random numbers."""
        if self.covariance is None:
            raise ValueError("this estimate is of one value; a difference needs at least two.")
        contrast = np.zeros(len(self.mean))
        contrast[first] += 1.0
        contrast[second] -= 1.0
        variance = max(0.0, float(contrast @ self.covariance @ contrast))
        mean = float(contrast @ self.mean)
        return Estimate(mean, math.sqrt(variance), self.replicates, self.seed)


def estimate(
    function: Callable[[Array], Array],
    sampler: _Draw,
    replicates: int,
    seed: int,
    *,
    control: Callable[[Array], Array] | None = None,
    control_mean: Number | None = None,
    antithetic: bool = False,
    center: float | None = None,
    pilot: int = 4096,
    chunk: int = 65536,
    progress: Callable[[int, int], None] | None = None,
    part: Part | None = None,
) -> Estimate:
    """Return the Monte Carlo estimate of E f.

    Args:
        function: maps a sample [n, …] to one float per replicate [n], or to k of them [n, k].
        sampler: ``sampler(rng, n)`` draws [n, …]; see :class:`Sampler`.
        replicates: how many evaluations of ``function`` to average; fixed beforehand.
        seed: fixes every draw. The result also depends, in the last digits, on ``chunk``.
        control: maps the sample to one control variate per replicate [n], or to c of them [n, c].
        control_mean: their exact means, a float or [c].
        antithetic: average f over x and its reflection 2·center − x; ``replicates`` must be even.
        center: the center of symmetry; taken from the law of a :class:`Sampler` if not given.
        pilot: replicates of the separate stream on which the control's coefficient is fitted.
        chunk: replicates held in memory at a time.
        progress: called as ``progress(done, replicates)`` after each chunk.
        part: which share of the chunks this process draws; every process must call with the same
            other arguments. Choose ``chunk`` for several chunks a process.

    Raises:
        ValueError: for arguments that contradict each other, or functions of the wrong shape.
        NonFiniteSample: if a replicate is infinite or NaN: its law has no mean to estimate here.

    >>> from deltabias.truth import Normal
    >>> found = estimate(np.square, Sampler(Normal()), 10_000, seed=1)
    >>> bool(abs(found.z(1.0)) < 4)
    True
    """
    _check_counts(replicates, seed, chunk, antithetic)
    pilot_stream, main_stream = np.random.SeedSequence(seed).spawn(2)
    if antithetic:
        function = _paired(function, _center(sampler, center))
        control = _paired(control, _center(sampler, center)) if control else None
    elif center is not None:
        raise ValueError(f"{center=} has no meaning without antithetic=True.")
    evaluations = 2 if antithetic else 1
    adjust = _control(function, sampler, control, control_mean, pilot, pilot_stream)
    total = replicates // evaluations
    sizes = [min(chunk, total - start) for start in range(0, total, chunk)]

    def drawn(rng: np.random.Generator, size: int) -> _Moments:
        sample = sampler(rng, size)
        values, is_scalar = _values(function, sample, "function")
        return _Moments.of(adjust(values, sample), is_scalar)

    if part is None:
        rng = np.random.default_rng(main_stream)
        chunks = (drawn(rng, size) for size in sizes)
    else:
        chunks = iter(_of_all_parts(drawn, sizes, main_stream, part))
    moments = _Moments()
    for found in chunks:
        moments.merge(found)
        if progress is not None:
            progress(evaluations * moments.count, replicates)
    covariance = moments.covariance / total
    errors = np.sqrt(np.diag(covariance))
    if moments.is_scalar:
        return Estimate(float(moments.mean[0]), float(errors[0]), replicates, seed)
    return Estimate(moments.mean, errors, replicates, seed, covariance)


class _Moments:
    """Mean and covariance of rows, merged chunk by chunk (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.scatter, self.is_scalar = 0, 0.0, 0.0, True

    @classmethod
    def of(cls, values: Array, is_scalar: bool) -> _Moments:
        """Two-pass within a chunk, and the exact merge between chunks: no cancellation."""
        moments = cls()
        moments.count, moments.mean = len(values), values.mean(axis=0)
        moments.is_scalar = is_scalar
        centered = values - moments.mean
        moments.scatter = centered.T @ centered
        return moments

    def merge(self, other: _Moments) -> None:
        n, shift = other.count, other.mean - self.mean
        total = self.count + n
        self.scatter = (
            self.scatter + other.scatter + np.outer(shift, shift) * (self.count * n / total)
        )
        self.mean = self.mean + shift * (n / total)
        self.count, self.is_scalar = total, other.is_scalar

    @property
    def covariance(self) -> Array:
        """Of one replicate, with n − 1."""
        return self.scatter / (self.count - 1)


def _of_all_parts(
    drawn: Callable[[np.random.Generator, int], _Moments],
    sizes: list[int],
    stream: np.random.SeedSequence,
    part: Part,
) -> list[_Moments]:
    """Every chunk's moments, this process's and the others'; an error of one is raised by all."""
    streams, mine, error = stream.spawn(len(sizes)), {}, None
    for k in range(part.index, len(sizes), part.parts):
        try:
            mine[k] = drawn(np.random.default_rng(streams[k]), sizes[k])
        except Exception as found:  # whatever it is, the others wait for this process
            error = found
            break
    everyone = part.gather((mine, error))
    for _, found in everyone:
        if found is not None:
            raise found
    whole = {k: value for chunks, _ in everyone for k, value in chunks.items()}
    return [whole[k] for k in range(len(sizes))]


def _control(function, sampler, control, control_mean, pilot, stream):
    """Return ``adjust(values, sample)``, which subtracts the fitted, centered controls."""
    if (control is None) != (control_mean is None):
        raise ValueError("control and control_mean go together: a control needs its exact mean.")
    if control is None:
        return lambda values, sample: values
    means = np.atleast_1d(np.asarray(control_mean, dtype=float))
    if pilot < 10 * len(means) + 10:
        raise ValueError(f"{pilot=} is too small for {len(means)} controls; take 4096.")
    sample = sampler(np.random.default_rng(stream), pilot)
    controls, _ = _values(control, sample, "control")
    if controls.shape[1] != len(means):
        raise ValueError(f"{controls.shape[1]} controls but {len(means)} control means.")
    values, _ = _values(function, sample, "function")
    # Least squares with the smallest coefficients: two equal controls share one coefficient.
    centered = controls - controls.mean(axis=0)
    coefficients = np.linalg.lstsq(centered, values - values.mean(axis=0), rcond=None)[0]

    def adjust(values: Array, sample: Array) -> Array:
        controls, _ = _values(control, sample, "control")
        return values - (controls - means) @ coefficients

    return adjust


def _paired(function: Callable[[Array], Array], center: float) -> Callable[[Array], Array]:
    return lambda x: 0.5 * (np.asarray(function(x)) + np.asarray(function(2 * center - x)))


def _center(sampler: _Draw, center: float | None) -> float:
    if center is not None:
        return center
    law = getattr(sampler, "law", None)
    if law is None or law.center_of_symmetry is None:
        raise ValueError(
            f"antithetic pairs need a symmetric law, and none is known of {sampler!r}; pass "
            "center=, or antithetic=False."
        )
    return float(law.center_of_symmetry)


def _values(function: Callable[[Array], Array], sample: Array, name: str) -> tuple[Array, bool]:
    """Return the function's values as [n, k] and whether it gave a plain [n]."""
    values = np.asarray(function(sample), dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) != len(sample):
        raise ValueError(
            f"the {name} returned shape {values.shape} for {len(sample)} replicates; return "
            f"[{len(sample)}] or [{len(sample)}, k]."
        )
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise NonFiniteSample(f"the {name} returned {bad} values that are infinite or NaN.")
    return (values[:, None], True) if values.ndim == 1 else (values, False)


def _check_counts(replicates: int, seed: int, chunk: int, antithetic: bool) -> None:
    for name, number, lowest in (
        ("replicates", replicates, 4),
        ("seed", seed, 0),
        ("chunk", chunk, 1),
    ):
        if isinstance(number, bool) or not isinstance(number, int) or number < lowest:
            raise ValueError(f"{name}={number!r} must be an int of at least {lowest}.")
    if antithetic and replicates % 2:
        raise ValueError(f"{replicates=} must be even for antithetic pairs.")
