r"""Monte Carlo for the bias of matrix preconditioners: paired, controlled, with stated errors.

Every estimator sees the same batches, and from each is subtracted the same control

.. math::
    C = J_M(\bar G - E\,G) + J_L(\bar L - E\,GG^T) + J_R(\bar R - E\,G^TG),

which has mean exactly zero for *any* fixed linear J. J is the derivative of the population map at
the population point, column by column along a basis, by central differences: it is linear by
construction, so an error of its entries costs variance and never brings a bias, whoever supplies
the map. The full basis is affordable (d = n = 32: 2080 directions, some seconds, once), so there
is no need of a pilot regression, whose coefficients are noisy where controls are many. What is
left after it is of second order, as the bias is.

Shares of squared norms are taken from products of *different* blocks of replicates only:
⟨b̄_k, b̄_p⟩ itself would exceed ⟨b_k, b_p⟩ by the trace of a covariance, and a noisy estimate would
look as if it removed nothing. The errors of the shares are delete-one-block jackknives.

Sources: P. Glasserman, *Monte Carlo Methods in Financial Engineering*, Springer 2003, §4.1;
B. Efron, C. Stein, "The jackknife estimate of variance", Ann. Statist. 9 (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .errors import NonFiniteSample, NotConverged
from .matrix_laws import MatrixLaw
from .monte_carlo import Estimate

__all__ = ["LinearControl", "MatrixBias", "Share", "estimate_matrix_bias"]

Array = np.ndarray
PopulationMap = Callable[[Array, Array, Array], Array]

CHUNK_NUMBERS = 2**21
"""Gradient entries held at a time (16 MB) if no chunk is given."""

DIRECTIONS_AT_A_TIME = 256


class Share(NamedTuple):
    """A share of the bias removed, 1 − what is left, with its standard error.

    Floats for the whole update, arrays [*out] for the entries. Below 0 the bias has grown.
    """

    removed: float | Array
    standard_error: float | Array


@dataclass(frozen=True)
class MatrixBias:
    """Biases of several estimators over the same batches.

    Attributes:
        names: the estimators, in the order of the blocks' first axis.
        target: u*, float64 [*out].
        blocks: means of value − u* − control over each block, [estimators, blocks, *out].
        replicates, seed: what makes it again.
    """

    names: tuple[str, ...]
    target: Array = field(repr=False)
    blocks: Array = field(repr=False)
    replicates: int
    seed: int

    def bias(self, name: str) -> Estimate:
        """Return E u − u* per entry, arrays [*out]; errors from the spread of the blocks."""
        return self._estimate(self._of(name))

    def difference(self, first: str, second: str) -> Estimate:
        """Return E u_first − E u_second per entry, with the smaller error of paired values."""
        return self._estimate(self._of(first) - self._of(second))

    def squared_norm(self, name: str) -> Estimate:
        """Return ‖E u − u*‖², unbiased (it can come out negative), with its jackknife error."""
        return self._jackknifed(self._product(name, name))

    def removed(self, name: str, reference: str = "plug_in") -> Share:
        """Return 1 − ⟨b, b_ref⟩/⟨b_ref, b_ref⟩: the share of the reference's bias removed.

        Raises:
            NotConverged: if the reference's bias is within three errors of zero.
        """
        norm, against = self._product(reference, reference), self._product(name, reference)
        found = self._jackknifed(norm)
        if found.mean <= 3 * found.standard_error:
            raise NotConverged(
                f"the squared bias of {reference!r} is {found.mean:.3g} ± "
                f"{found.standard_error:.2g} over {self.replicates} replicates: too near zero to "
                "take a share of. Take more replicates, or fewer microbatches."
            )
        ratio = self._jackknifed(1 - against / norm)
        return Share(ratio.mean, ratio.standard_error)

    def left_over(self, name: str, reference: str = "plug_in") -> Share:
        """Return ‖b‖²/‖b_ref‖², in any direction: what is left, squared, with its error.

        ``removed`` sees the component along the reference's bias only; an estimator that turned
        its bias by a right angle would look perfect there and shows here.
        """
        ratio = self._product(name, name) / self._product(reference, reference)
        found = self._jackknifed(ratio)
        return Share(found.mean, found.standard_error)

    def removed_per_entry(self, name: str, reference: str = "plug_in") -> Share:
        """Return 1 − b/b_ref per entry, [*out]; errors by the delta method, paired.

        Where the reference's bias is near zero the share means nothing and its error says so;
        see :meth:`carrying`.
        """
        values, against = self._of(name), self._of(reference)
        base = against.mean(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = values.mean(axis=0) / base
            spread = self._estimate(values - ratio * against).standard_error
            return Share(1 - ratio, spread / np.abs(base))

    def carrying(self, share: float = 0.01, reference: str = "plug_in") -> Array:
        """Return which entries have |b_ref| > ``share`` · ‖b_ref‖, bool [*out].

        ``share=0.1`` are the entries that carry more than 1 % of the *squared* bias.
        """
        bias = self._of(reference).mean(axis=0)
        norm = np.sqrt(max(0.0, self.squared_norm(reference).mean))
        return np.abs(bias) > share * norm

    def _of(self, name: str) -> Array:
        if name not in self.names:
            raise ValueError(f"estimator {name!r} is unknown; there are {', '.join(self.names)}.")
        return self.blocks[self.names.index(name)]

    def _estimate(self, blocks: Array) -> Estimate:
        error = blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
        return Estimate(blocks.mean(axis=0), error, self.replicates, self.seed)

    def _product(self, first: str, second: str) -> Array:
        """Return ⟨b_first, b_second⟩ from products of different blocks: [1 + blocks].

        The first entry uses all blocks, entry 1 + j all but block j.
        """
        left = self._of(first).reshape(self.blocks.shape[1], -1)
        right = self._of(second).reshape(self.blocks.shape[1], -1)
        products = left @ right.T
        np.fill_diagonal(products, 0.0)
        n, total = len(products), products.sum()
        without = total - products.sum(axis=0) - products.sum(axis=1)
        return np.concatenate([[total / (n * (n - 1))], without / ((n - 1) * (n - 2))])

    def _jackknifed(self, values: Array) -> Estimate:
        whole, left_out = float(values[0]), values[1:]
        n = len(left_out)
        error = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
        return Estimate(whole, float(error), self.replicates, self.seed)


def estimate_matrix_bias(
    estimators: Mapping[str, Callable[[Array], Array]],
    law: MatrixLaw,
    microbatches: int,
    replicates: int,
    seed: int,
    *,
    population_map: PopulationMap,
    target: Array | None = None,
    control: bool = True,
    blocks: int = 32,
    chunk: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MatrixBias:
    """Return the bias of every estimator of u* over the same ``replicates`` batches.

    Args:
        estimators: name -> function of gradients, float64 [N, m, d, n] to values [N, *out]. The
            uncorrected one is called ``plug_in`` where shares are taken of it.
        law: of one microbatch's gradient.
        microbatches: m.
        replicates: how many batches; fixed beforehand, a multiple of ``blocks``.
        seed: fixes every draw, one stream per block. The last digits depend on ``chunk``, and
            for laws that mix kinds of draws (the t law) the draws do too.
        population_map: u = T(M, L, R), from stacks [k, d, n], [k, d, d], [k, n, n] to [k, *out].
            It gives the control's derivative, where its errors cannot bias, and u* if no
            ``target`` is given.
        target: u*, [*out]; give it where ``population_map`` is itself under judgment.
        control: False leaves the control out: the slow, plain mean, to check with.
        blocks: groups of replicates from which the errors are taken; at least 8.
        chunk: batches held at a time; chosen for some 16 MB of gradients if None.
        progress: called as ``progress(done, replicates)`` after each chunk.

    Raises:
        ValueError: for arguments that contradict each other, or values of the wrong shape.
        NonFiniteSample: if a value is infinite or NaN.
    """
    _check_counts(microbatches, replicates, seed, blocks, chunk)
    if not estimators:
        raise ValueError("no estimators; pass a mapping with at least one, such as 'plug_in'.")
    target = _target(population_map, law, target)
    linear = LinearControl.of(population_map, law) if control else None
    size = replicates // blocks
    chunk = chunk or max(1, CHUNK_NUMBERS // (microbatches * law.mean.size))
    means = np.zeros((len(estimators), blocks, *target.shape))
    for block, stream in enumerate(np.random.SeedSequence(seed).spawn(blocks)):
        rng, done = np.random.default_rng(stream), 0
        while done < size:
            count = min(chunk, size - done)
            gradients = law.sample(rng, (count, microbatches))
            offset = target + (linear(gradients) if linear else 0.0)
            for k, (name, function) in enumerate(estimators.items()):
                values = _checked(function(gradients), (count, *target.shape), name)
                means[k, block] += (values - offset).sum(axis=0)
            done += count
            if progress is not None:
                progress(block * size + done, replicates)
    return MatrixBias(tuple(estimators), target, means / size, replicates, seed)


@dataclass(frozen=True)
class LinearControl:
    """A fixed linear map of the deviations of (Ḡ, L̄, R̄), whose expectation is exactly zero.

    ``jacobian`` [directions, outputs] has one row per entry of G, then per entry on or above the
    diagonal of G Gᵀ, then of Gᵀ G.
    """

    law: MatrixLaw
    jacobian: Array = field(repr=False)
    shape: tuple[int, ...]

    @classmethod
    def of(cls, population_map: PopulationMap, law: MatrixLaw) -> LinearControl:
        """Return the derivative of ``population_map`` at the law's moments, along a basis.

        The step is ∛ε times the smallest eigenvalue of a factor (of the scale of G for M), so a
        population point of condition up to 10⁵ keeps its neighbors positive definite.

        Raises:
            NonFiniteSample: if the map is infinite or NaN near the population point.
        """
        point = (law.mean, law.left_moment, law.right_moment)
        small = np.cbrt(np.finfo(float).eps)
        scale = np.sqrt(np.trace(law.left_moment) / law.mean.size)
        steps = [small * scale, *(small * _least(moment) for moment in point[1:])]
        rows = []
        for place, step in enumerate(steps):
            for directions in _basis(point[place].shape, symmetric=place > 0):
                sides = []
                for signed in (step, -step):
                    moved = [np.broadcast_to(a, (len(directions), *a.shape)) for a in point]
                    moved[place] = moved[place] + signed * directions
                    sides.append(np.asarray(population_map(*moved), dtype=float))
                rows.append((sides[0] - sides[1]) / (2 * step))
        jacobian = np.concatenate(rows)
        if not np.all(np.isfinite(jacobian)):
            raise NonFiniteSample("the population map is infinite or NaN near the population "
                                  "point; add damping, or pass control=False.")  # fmt: skip
        return cls(law, jacobian.reshape(len(jacobian), -1), jacobian.shape[1:])

    def __call__(self, gradients: Array) -> Array:
        """Return the control of batches [N, m, d, n], float64 [N, *out]."""
        microbatches = gradients.shape[1]
        transposed = np.swapaxes(gradients, -1, -2)
        mean = gradients.mean(axis=1) - self.law.mean
        left = _sum_of_products(gradients) / microbatches - self.law.left_moment
        right = _sum_of_products(transposed) / microbatches - self.law.right_moment
        upper = [a[:, *np.triu_indices(a.shape[-1])] for a in (left, right)]
        deviations = np.concatenate([mean.reshape(len(mean), -1), *upper], axis=1)
        return (deviations @ self.jacobian).reshape(len(mean), *self.shape)


def _sum_of_products(gradients: Array) -> Array:
    """Return Σ_r G_r G_rᵀ of [N, m, d, n] as one product of [d, m·n] matrices."""
    n, m, d, columns = gradients.shape
    wide = gradients.transpose(0, 2, 1, 3).reshape(n, d, m * columns)
    return wide @ wide.transpose(0, 2, 1)


def _basis(shape: tuple[int, int], *, symmetric: bool):
    """Yield stacks [k, *shape] of unit directions: E_ij, or E_ij + E_ji for i < j and E_ii."""
    rows, columns = np.triu_indices(shape[0]) if symmetric else np.indices(shape).reshape(2, -1)
    for start in range(0, len(rows), DIRECTIONS_AT_A_TIME):
        i, j = (a[start : start + DIRECTIONS_AT_A_TIME] for a in (rows, columns))
        directions = np.zeros((len(i), *shape))
        directions[np.arange(len(i)), i, j] = 1.0
        if symmetric:
            directions[np.arange(len(i)), j, i] = 1.0
        yield directions


def _least(moment: Array) -> float:
    """Return the smallest eigenvalue, or 1e−5 of the largest where it is smaller than that."""
    eigenvalues = np.linalg.eigvalsh(moment)
    return max(eigenvalues[0], 1e-5 * eigenvalues[-1]) or 1.0


def _target(population_map: PopulationMap, law: MatrixLaw, target: Array | None) -> Array:
    point = (law.mean[None], law.left_moment[None], law.right_moment[None])
    value = np.asarray(population_map(*point), dtype=float)[0]
    if target is not None:
        target = np.asarray(target, dtype=float)
        if target.shape != value.shape:
            raise ValueError(f"target has shape {target.shape}, the population map's value "
                             f"{value.shape}; they must agree.")  # fmt: skip
        value = target
    if not np.all(np.isfinite(value)):
        raise NonFiniteSample("the target is infinite or NaN; is the population point singular "
                              "without damping?")  # fmt: skip
    return value


def _checked(values: Array, shape: tuple[int, ...], name: str) -> Array:
    values = np.asarray(values, dtype=float)
    if values.shape != shape:
        raise ValueError(f"estimator {name!r} returned shape {values.shape}; return {shape}.")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise NonFiniteSample(f"estimator {name!r} returned {bad} values infinite or NaN.")
    return values


def _check_counts(
    microbatches: int, replicates: int, seed: int, blocks: int, chunk: int | None
) -> None:
    limits = {"microbatches": (microbatches, 1), "replicates": (replicates, 16),
              "seed": (seed, 0), "blocks": (blocks, 8), "chunk": (chunk or 1, 1)}  # fmt: skip
    for name, (number, lowest) in limits.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < lowest:
            raise ValueError(f"{name}={number!r} must be an int of at least {lowest}.")
    if replicates % blocks:
        raise ValueError(f"{replicates=} must be a multiple of {blocks=}, so that the blocks have "
                         "one size.")  # fmt: skip
