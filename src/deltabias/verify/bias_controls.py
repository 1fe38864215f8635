r"""Control variates: polynomials of the batch whose expectation is exactly known.

Each microbatch has features φ (powers of a scalar gradient; the entries of G, G Gᵀ, Gᵀ G), and a
batch of size :math:`m_j` their means S. For any law

.. math:: E\,S_a S_b = \sigma_a\sigma_b + C_{ab}/m_j

so differences of :math:`S_a S_b` between sizes that cancel 1 and 1/m have mean zero *though nothing
is known of C*; with φ centered exactly, those that cancel 1/m do. Where moments are known the
products themselves are controls, and their triples with E = M₃/m². An update is, within
:math:`m^{-3/2}`, a quadratic polynomial of such means: little noise is left.

Coefficients come from a pilot with its own draws: a fixed linear combination of variables of mean
zero cannot move an expectation.

Source: P. Glasserman, *Monte Carlo Methods in Financial Engineering*, Springer 2003, §4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

import numpy as np

from deltabias.verify.bias_source import Source

Array = np.ndarray

MOST_PAIRS_BY_SIZE = 60
"""With more products than this only what matters to the contrast is kept: one control for each."""
MOST_PAIRS = 600
MOST_SCREENED, CLEAR = 23, 5.0
POWERS = 4
STEPS_APART = 6
"""Longer histories are summed with a few decays instead of being kept step by step."""
DECAYS = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True)
class Controls:
    """Controls of super-batches [N, (steps,) sizes[-1], *dims], float64 [N, count].

    Attributes
    ----------
    sizes : m, 2m, …; a super-batch of the largest is cut into batches of the others
    weights : of the contrast over the sizes that the controls are for
    keep : the features of which products are taken; all if None
    centered : whether the features' means are exact, so that a mean is itself a control
    """

    source: Source
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    steps: int | None = None
    keep: tuple[int, ...] | None = None

    @property
    def centered(self) -> bool:
        return bool(self.source.raw) or self.source.matrix is not None

    def __call__(self, gradients: Array) -> Array:
        features, degrees = self._features(gradients)
        columns = [features.mean(axis=-1)] if self.centered else []
        kept = range(len(degrees)) if self.keep is None else self.keep
        pairs = _tuples(kept, degrees, 2, self._highest)
        if len(pairs) <= MOST_PAIRS:
            columns += self._quadratic(features, pairs)
            if self.source.raw:
                columns += self._cubic(features, _tuples(kept, degrees, 3, self._highest))
        if not columns:
            return np.zeros((len(gradients), 0))
        return np.concatenate(columns, axis=1)

    @property
    def count(self) -> int:
        """How many there are."""
        shape = (2, *([self.steps] if self.steps else []), self.sizes[-1])
        return self(self.source.draw(np.random.default_rng(0), shape)).shape[1]

    def screened(self, values: Array, gradients: Array) -> "Controls":
        """The same with products of those features only that values [n, k] clearly depend on.

        For laws of so many features that all products would be too many.
        """
        means = self._features(gradients)[0].mean(axis=-1)
        degrees = self._features(gradients[:1])[1]
        if len(_tuples(range(len(degrees)), degrees, 2, self._highest)) <= MOST_PAIRS:
            return self
        design = means - means.mean(axis=0)
        target = values - values.mean(axis=0)
        inverse = np.linalg.pinv(design.T @ design)
        slopes = inverse @ (design.T @ target)
        noise = (target - design @ slopes).std(axis=0)
        errors = np.sqrt(np.maximum(np.diag(inverse), 1e-300))[:, None] * noise
        clear = np.max(np.abs(slopes) / np.maximum(errors, 1e-300), axis=1)
        ranked = np.argsort(-clear)[:MOST_SCREENED]
        return replace(self, keep=tuple(sorted(int(i) for i in ranked if clear[i] > CLEAR)))

    # -- features: [N, kinds, microbatches] ---------------------------------------------------

    @property
    def _highest(self) -> int:
        """The highest degree whose square has an expectation."""
        return len(self.source.raw) // 2 if self.source.raw else 2 * POWERS

    def _powers(self) -> range:
        return range(1, min(POWERS, self._highest if self.source.raw else 2) + 1)

    def _features(self, gradients: Array) -> tuple[Array, list[int]]:
        x = gradients if self.steps else gradients[:, None]
        dims = self.source.dims
        z = (x - self.source.center) / self.source.scale
        if not dims:
            moments = self.source.standardized
            kinds = [z**k - (moments[k] if moments else 0.0) for k in self._powers()]
            degrees = list(self._powers())
        else:
            kinds, degrees = self._of_arrays(x, z)
        weights = self._over_steps(x.shape[1])
        mixed = [np.tensordot(k, weights, axes=([1], [1])) for k in kinds]
        # [N, m, decays] each: kinds and decays become one axis
        return np.concatenate([a.swapaxes(1, 2) for a in mixed], axis=1), [
            d for d in degrees for _ in range(len(weights))
        ]

    def _of_arrays(self, x: Array, z: Array) -> tuple[list[Array], list[int]]:
        flat = z.reshape(*z.shape[: z.ndim - len(self.source.dims)], -1)
        kinds, degrees = list(np.moveaxis(flat, -1, 0)), [1] * flat.shape[-1]
        if len(self.source.dims) == 2:
            law, unit = self.source.matrix, self.source.scale**2
            for side, product in enumerate((x @ x.swapaxes(-1, -2), x.swapaxes(-1, -2) @ x)):
                known = 0.0
                if law is not None:
                    known = np.asarray((law.left_moment, law.right_moment)[side], dtype=float)
                upper = np.triu_indices(product.shape[-1])
                entries = ((product - known) / unit)[..., upper[0], upper[1]]
                kinds += list(np.moveaxis(entries, -1, 0))
                degrees += [2] * len(upper[0])
        return kinds, degrees

    def _over_steps(self, steps: int) -> Array:
        """Weights over the steps, [kinds of sums, steps]."""
        if steps <= STEPS_APART:
            return np.eye(steps)
        ages = np.arange(steps)[::-1]
        return np.array([(1 - d if d < 1 else 1 / steps) * d**ages for d in DECAYS])

    # -- products of means ----------------------------------------------------------------------

    def _quadratic(self, features: Array, pairs: Sequence[tuple[int, int]]) -> list[Array]:
        if not pairs:
            return []
        first, second = (np.array(p) for p in zip(*pairs, strict=True))

        def at(size: int) -> Array:
            means = _means(features, size)
            _n, kinds, count = means.shape
            if len(pairs) > 2 * kinds:  # all products at once
                gram = means @ means.swapaxes(1, 2) / count
                return gram[:, first, second]
            return (means[:, first] * means[:, second]).mean(axis=-1)

        levels = [at(size) for size in self.sizes]
        if self.source.raw:
            known = self._known(first, second)
            return [size * q - known for size, q in zip(self.sizes, levels, strict=True)]
        single = at(1)
        if len(pairs) > MOST_PAIRS_BY_SIZE:
            return [self._of_contrast(levels, single)]
        if self.centered:
            return [size * q - single for size, q in zip(self.sizes, levels, strict=True)]
        # E S_a S_b = s + c/size: what the first two leave of the others
        (one, a), others = (1, self.sizes[0]), zip(self.sizes[1:], levels[1:], strict=True)
        return [q - _line(one, single, a, levels[0], size) for size, q in others]

    def _of_contrast(self, levels: list[Array], single: Array) -> Array:
        """The contrast of the products, less what single microbatches say of its mean."""
        total = sum(w * q for w, q in zip(self.weights, levels, strict=True))
        slope = sum(w / size for w, size in zip(self.weights, self.sizes, strict=True))
        if self.centered:
            return total - slope * single
        # E S_a S_b = s + c/size, c from the smallest sizes: Σ w s is in the contrast of s alone
        offset, size = sum(self.weights), self.sizes[-1]
        c = (single - levels[-1]) / (1 - 1 / size)
        return total - slope * c - offset * (single - c)

    def _cubic(self, features: Array, triples: Sequence[tuple[int, ...]]) -> list[Array]:
        if not triples:
            return []
        index = [np.array(i) for i in zip(*triples, strict=True)]
        known = self._known(*index)
        columns = []
        for size in self.sizes:
            means = _means(features, size)
            product = means[:, index[0]] * means[:, index[1]] * means[:, index[2]]
            columns.append(size**2 * product.mean(axis=-1) - known)
        return columns

    def _known(self, *index: Array) -> Array:
        """The joint central moment of the features of one microbatch, summed over the steps.

        For two and three it is a joint cumulant, which is what falls like 1/m and 1/m².
        """
        steps = self.steps or 1
        weights = self._over_steps(steps)
        powers = [k for k in self._powers() for _ in range(len(weights))]
        kinds = np.tile(np.arange(len(weights)), len(self._powers()))
        moments = self.source.standardized
        out = []
        for members in zip(*index, strict=True):
            shares = np.prod([weights[kinds[i]] for i in members], axis=0).sum()
            out.append(shares * _central([powers[i] for i in members], moments))
        return np.array(out)


def _central(powers: Sequence[int], moments: Sequence[float]) -> float:
    """E ∏ (z^k − E z^k)."""
    total = 0.0
    for mask in range(1 << len(powers)):
        inside = sum(k for i, k in enumerate(powers) if mask >> i & 1)
        outside = [moments[k] for i, k in enumerate(powers) if not mask >> i & 1]
        total += (-1.0) ** len(outside) * moments[inside] * float(np.prod(outside))
    return total


def _tuples(
    kept: Sequence[int], degrees: Sequence[int], size: int, highest: int
) -> list[tuple[int, ...]]:
    """Index tuples whose product has a finite variance; of the first two powers only."""
    low = [i for i in kept if degrees[i] <= 2]
    every = combinations_with_replacement(low, size)
    return [t for t in every if sum(degrees[i] for i in t) <= highest]


def _means(features: Array, size: int) -> Array:
    """[N, kinds, batches] from [N, kinds, microbatches]."""
    if size == 1:
        return features
    n, kinds, count = features.shape
    return features.reshape(n, kinds, count // size, size).mean(axis=-1)


def _line(m0: int, q0: Array, m1: int, q1: Array, m: int) -> Array:
    """s + c/m through two points."""
    share = (1 / m - 1 / m0) / (1 / m1 - 1 / m0)
    return q0 + share * (q1 - q0)


@dataclass(frozen=True)
class Fit:
    """``values − controls @ coefficients``, for coefficients fitted on a pilot."""

    coefficients: Array

    @classmethod
    def of(cls, values: Array, controls: Array) -> "Fit":
        """Least squares of [n, k] on [n, c]; controls in units of their spread."""
        if controls.shape[1] == 0 or len(controls) < 3 * controls.shape[1]:
            return cls(np.zeros((controls.shape[1], values.shape[1])))
        scale = controls.std(axis=0)
        scale[scale == 0] = 1.0
        centered = (controls - controls.mean(axis=0)) / scale
        found = np.linalg.lstsq(centered, values - values.mean(axis=0), rcond=1e-10)[0]
        return cls(found / scale[:, None])

    def __call__(self, values: Array, controls: Array) -> Array:
        return values - controls @ self.coefficients
