"""The bias at m, 2m, 4m, …: exactly, by visiting every batch, or from nested random batches.

Nested: a super-batch of the largest size is cut into batches of the others, so that all sizes, the
update and the uncorrected update see the same gradients. How many super-batches there are is
fixed by a pilot with draws of its own, before the first of them is looked at; there is no
stopping rule.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deltabias.truth import FiniteMatrixLaw, multiset_count
from deltabias.verify.bias_controls import Controls, Fit
from deltabias.verify.bias_guard import Guarded
from deltabias.verify.bias_source import Source

Array = np.ndarray

BLOCKS = 256
CHUNK_NUMBERS = 1 << 20
PILOT_NUMBERS = 1 << 19
FEWEST_PILOT, MOST_PILOT = 512, 8192
MOST_ENUMERATED = 1 << 25
"""Gradients in all the batches of one size that are visited at most: some seconds."""
BUDGET = 1 << 24
"""Numbers drawn at most if nobody says how many."""


@dataclass(frozen=True)
class Measurement:
    """Biases of the update and of the uncorrected one, block by block.

    Attributes
    ----------
    sizes : m, 2m, …
    update, plug_in : E u − u*(size), float64 [blocks, sizes, out], one block where exact; the
        plug-in is None where it is not known. ``out`` is flat.
    spread : the standard deviation of the update at m, [out]
    target : u*(m), [out]
    guide : the plug-in's biases from the pilot alone, [sizes, out]: where to look, or None
    samples : gradients drawn, or batches visited
    """

    sizes: tuple[int, ...]
    update: Array = field(repr=False)
    plug_in: Array | None = field(repr=False)
    spread: Array = field(repr=False)
    target: Array = field(repr=False)
    guide: Array | None = field(repr=False)
    samples: int
    method: str

    @property
    def exact(self) -> bool:
        return len(self.update) == 1

    @property
    def freedom(self) -> int:
        return len(self.update) - 1

    def estimate(self, blocks: Array) -> tuple[Array, Array]:
        """The mean over blocks and its standard error; zero where exact."""
        if len(blocks) == 1:
            return blocks[0], np.zeros_like(blocks[0])
        return blocks.mean(axis=0), blocks.std(axis=0, ddof=1) / math.sqrt(len(blocks))


@dataclass(frozen=True)
class Subject:
    """What is measured: the update, the uncorrected update if known, and u* by size."""

    update: Guarded
    plug_in: Guarded | None
    target: Callable[[int], Array]
    source: Source
    sizes: tuple[int, ...]
    steps: int | None = None

    @property
    def goal(self) -> Array:
        return self.target(self.sizes[0]).reshape(-1)

    @property
    def functions(self) -> tuple[Guarded, ...]:
        return (self.update,) if self.plug_in is None else (self.update, self.plug_in)

    def values(self, batches: Array, size: int) -> Array:
        """u − u*, [rows, functions, out]."""
        target = self.target(size).reshape(-1)
        each = [f(batches).reshape(len(batches), -1) - target for f in self.functions]
        return np.stack(each, axis=1)

    def nested(self, gradients: Array) -> tuple[Array, Array]:
        """Averages over the batches of each size, [N, functions, sizes, out]; squares at m."""
        out = []
        for size in self.sizes:
            rows = self.values(_cut(gradients, size, self.steps), size)
            rows = rows.reshape(len(gradients), -1, *rows.shape[1:])
            if size == self.sizes[0]:
                square = rows[:, :, 0].var(axis=(0, 1))
            out.append(rows.mean(axis=1))
        return np.stack(out, axis=2), square


def _cut(gradients: Array, size: int, steps: int | None) -> Array:
    """Batches [N · count, (steps,) size, *dims] of [N, (steps,) count · size, *dims]."""
    n = len(gradients)
    if steps is None:
        return gradients.reshape(-1, size, *gradients.shape[2:])
    dims = gradients.shape[3:]
    apart = gradients.reshape(n, steps, -1, size, *dims).swapaxes(1, 2)
    return np.ascontiguousarray(apart).reshape(-1, steps, size, *dims)


# -- Monte Carlo ----------------------------------------------------------------------------------

PILOT_BLOCK = 4


@dataclass(frozen=True)
class Pilot:
    """What is learned before the measurement, from draws of its own: the control's coefficients."""

    subject: Subject
    controls: Controls
    fit: Fit
    found: Measurement
    numbers: int
    seed: int

    @classmethod
    def of(cls, subject: Subject, weights: Array, seed: int) -> "Pilot":
        """A pilot for the contrast ``weights`` over the sizes; see `Controls`."""
        source = subject.source
        numbers = subject.sizes[-1] * (subject.steps or 1) * math.prod(source.dims)
        controls = Controls(source, subject.sizes, tuple(weights), subject.steps)
        controls = _screened(subject, controls, numbers, seed)
        rows = int(np.clip(PILOT_NUMBERS // numbers, FEWEST_PILOT, MOST_PILOT))
        rows = max(rows, 4 * controls.count)
        stream = _stream(subject, seed, 0)
        parts = list(_draws(subject, controls, rows, numbers, np.random.default_rng(stream)))
        values = np.concatenate([v for v, _, _ in parts])
        known = np.concatenate([c for _, c, _ in parts])
        spread = np.sqrt(np.mean([s for _, _, s in parts], axis=0))
        fit = Fit.of(values.reshape(rows, -1), known)
        left = fit(values.reshape(rows, -1), known).reshape(values.shape)
        return cls(subject, controls, fit, _in_blocks(subject, left, spread), numbers, seed)

    @property
    def rows(self) -> int:
        return len(self.found.update) * PILOT_BLOCK

    def measure(self, rows: int, budget: int) -> Measurement:
        """The biases from ``rows`` super-batches, or as many as ``budget`` numbers are."""
        most = (budget - self.rows * self.numbers) // self.numbers
        rows = max(4, math.ceil(min(rows, most) / BLOCKS)) * BLOCKS
        functions = len(self.subject.functions)
        sums = np.zeros((BLOCKS, functions, *self.found.update.shape[1:]))
        rng, done = np.random.default_rng(_stream(self.subject, self.seed, 1)), 0
        for values, known, _ in _draws(self.subject, self.controls, rows, self.numbers, rng):
            n = len(values)
            left = self.fit(values.reshape(n, -1), known).reshape(values.shape)
            np.add.at(sums, (done + np.arange(n)) // (rows // BLOCKS), left)
            done += n
        means = sums / (rows // BLOCKS)
        drawn = (rows + self.rows) * self.numbers // math.prod(self.subject.source.dims)
        return replace(
            self.found, update=means[:, 0], plug_in=means[:, 1] if functions > 1 else None,
            samples=drawn, method="Monte Carlo",
        )  # fmt: skip


def _screened(subject: Subject, controls: Controls, numbers: int, seed: int) -> Controls:
    if not subject.source.dims:
        return controls
    shape = (*([subject.steps] if subject.steps else []), subject.sizes[-1])
    rows = max(256, min(1024, PILOT_NUMBERS // numbers))
    rng = np.random.default_rng(_stream(subject, seed, 2))
    gradients = subject.source.draw(rng, (rows, *shape))
    values, _ = subject.nested(gradients)
    return controls.screened(values[:, 0, -1], gradients)


def _stream(subject: Subject, seed: int, part: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, subject.sizes[-1], part])


def _in_blocks(subject: Subject, left: Array, spread: Array) -> Measurement:
    count, two = len(left) // PILOT_BLOCK, left.shape[1] > 1
    blocks = left[: PILOT_BLOCK * count].reshape(count, PILOT_BLOCK, *left.shape[1:]).mean(axis=1)
    return Measurement(
        subject.sizes, blocks[:, 0], blocks[:, 1] if two else None, spread, subject.goal,
        left[:, 1].mean(axis=0) if two else None, len(left), "pilot",
    )  # fmt: skip


def _draws(
    subject: Subject, controls: Controls, rows: int, numbers: int, rng: np.random.Generator
) -> Iterator[tuple[Array, Array, Any]]:
    chunk, source = max(1, CHUNK_NUMBERS // numbers), subject.source
    shape = (*([subject.steps] if subject.steps else []), subject.sizes[-1])
    for start in range(0, rows, chunk):
        gradients = source.draw(rng, (min(chunk, rows - start), *shape))
        # the controls first: an update that changed its input could not reach them
        known = controls(gradients)
        values, square = subject.nested(gradients)
        yield values, known, square


# -- exactly --------------------------------------------------------------------------------------


def countable(source: Source, sizes: tuple[int, ...], steps: int | None) -> bool:
    """Whether all batches of every size can be visited."""
    if source.finite is None or steps is not None:
        return False
    kinds, numbers = len(_atoms(source)[1]), math.prod(source.dims)
    return all(multiset_count(kinds, m) * m * numbers <= MOST_ENUMERATED for m in sizes)


def enumerate_every(subject: Subject) -> Measurement:
    """The biases as finite sums over all multisets of the law's points; only rounding is left."""
    weights, atoms = _atoms(subject.source)
    biases, visited = [], 0
    for size in subject.sizes:
        total, second = 0.0, 0.0
        counts = _compositions(size, len(atoms))
        probability = _multinomial(counts, weights)
        chunk = max(1, CHUNK_NUMBERS // (size * max(1, math.prod(subject.source.dims))))
        for start in range(0, len(counts), chunk):
            part = slice(start, start + chunk)
            places = np.repeat(
                np.tile(np.arange(len(atoms)), len(counts[part])), counts[part].reshape(-1)
            ).reshape(-1, size)
            rows = subject.values(atoms[places], size)
            total = total + np.tensordot(probability[part], rows, axes=1)
            second = second + np.tensordot(probability[part], rows[:, 0] ** 2, axes=1)
        if size == subject.sizes[0]:
            spread = np.sqrt(np.maximum(second - total[0] ** 2, 0.0))
        biases.append(total)
        visited += len(counts)
    every = np.stack(biases, axis=1)[:, None]
    return Measurement(
        subject.sizes, every[0], every[1] if len(every) > 1 else None, spread,
        subject.goal, every[1][0] if len(every) > 1 else None, visited, "exact enumeration",
    )  # fmt: skip


def _atoms(source: Source) -> tuple[Array, Array]:
    law = source.finite
    if isinstance(law, FiniteMatrixLaw):
        return (
            np.array([float(p) for p in law.probabilities]),
            np.array([a.astype(float) for a in law.arrays]),
        )
    return np.array([float(w) for w in law.weights]), np.array([float(x) for x in law.points])


def _compositions(total: int, parts: int) -> Array:
    """Every way to write ``total`` as a sum of ``parts`` counts, int [N, parts]."""
    table = np.arange(total + 1)[:, None]
    for _ in range(parts - 2):
        left = total - table.sum(axis=1)
        repeated = np.repeat(table, left + 1, axis=0)
        last = np.concatenate([np.arange(n + 1) for n in left])
        table = np.concatenate([repeated, last[:, None]], axis=1)
    if parts == 1:
        return np.array([[total]])
    return np.concatenate([table, (total - table.sum(axis=1))[:, None]], axis=1)


def _multinomial(counts: Array, weights: Array) -> Array:
    """m!/∏c! ∏pᶜ through logarithms of factorials: right to about 1e-13."""
    size = int(counts[0].sum())
    factorials = np.array([math.lgamma(c + 1) for c in range(size + 1)])
    logs = factorials[size] - factorials[counts].sum(axis=1) + counts @ np.log(weights)
    found = np.exp(logs)
    return found / found.sum()
