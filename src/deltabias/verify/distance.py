"""How far an optimizer is from its rule, in units in the last place of the parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from deltabias.verify.histories import History

ULP = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}

Values = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class Distance:
    """The entry that is furthest off, held against its own bound.

    Parameters
    ----------
    ratio : distance over bound; above 1 is a failure
    ulps, bound : of that entry, in ulps of the largest value that its parameter takes
    step, parameter, entry : where; steps from 1
    got, expected : the values there
    compared : entries that could be compared
    """

    ratio: float = 0.0
    ulps: float = 0.0
    bound: float = 0.0
    step: int = 0
    parameter: int = 0
    entry: int = 0
    got: float = 0.0
    expected: float = 0.0
    compared: int = 0

    @property
    def agrees(self) -> bool:
        return self.ratio <= 1

    def as_data(self) -> dict:
        """Where it is and what stands there."""
        return {
            "step": self.step,
            "parameter": self.parameter,
            "entry": self.entry,
            "got": self.got,
            "expected": self.expected,
            "ulps": self.ulps,
            "bound_ulps": self.bound,
        }


def distance(
    got: Values, expected: Values, bounds: Values, history: History, dtype: str = "float64"
) -> Distance:
    """The worst entry of a history.

    Entries whose bound is infinite are left out: rounding alone decides them.
    """
    worst, compared = Distance(), 0
    for p, start in enumerate(history.params):
        ulp = ULP[dtype] * _scale(start, [step[p] for step in expected])
        for s in range(len(got)):
            known = np.isfinite(bounds[s][p]) & np.isfinite(expected[s][p])
            compared += int(known.sum())
            if not known.any():
                continue
            ratio, off = _ratios(got[s][p], expected[s][p], bounds[s][p], known)
            k = int(np.argmax(ratio))
            if ratio[k] > worst.ratio:
                worst = Distance(
                    float(ratio[k]),
                    float(off[k] / ulp),
                    float(bounds[s][p][k] / ulp),
                    s + 1,
                    p,
                    k,
                    float(got[s][p][k]),
                    float(expected[s][p][k]),
                )
    return Distance(**{**worst.__dict__, "compared": compared})


def _ratios(got, expected, bounds, known) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(all="ignore"):
        off = np.abs(got - expected)
        off = np.where(np.isnan(off), inf, off)
        ratio = np.where(off == 0, 0.0, off / np.where(bounds > 0, bounds, 1e-320))
    return np.where(known, ratio, 0.0), off


def _scale(start: Sequence[float], path: Sequence[np.ndarray]) -> float:
    """The power of two below the largest finite value that a parameter takes."""
    every = np.abs(np.concatenate([np.asarray(start, dtype=float), *path, [1e-30]]))
    return float(2.0 ** np.floor(np.log2(np.max(every[np.isfinite(every)]))))


COARSE = 1e-7
"""Of a parameter's scale: what is further off than that differs by more than any rounding."""


def coarse_scales(history: History, values: Values) -> list[float]:
    """`COARSE` times the largest value of each parameter."""
    return [
        COARSE * _scale(start, [step[p] for step in values])
        for p, start in enumerate(history.params)
    ]


def coarsely_differs(got: Values, expected: Values, history: History) -> bool:
    """Whether two float64 runs differ by more than `COARSE`, or one is no number."""
    scales = coarse_scales(history, expected)
    return any(
        not np.all((np.abs(a - b) <= scale) | ~np.isfinite(b))
        for one, other in zip(got, expected, strict=True)
        for a, b, scale in zip(one, other, scales, strict=True)
    )
