"""The order of what is left over, read off as a log-log slope."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import mpmath


@dataclass(frozen=True)
class Slope:
    """Remainders at small parameters that shrink by a constant factor.

    With remainder c h^p (1 + b h + …) the slope between neighbours is p + O(h). ``last`` is the
    one at the smallest pair; ``extrapolated`` removes its O(h) by Richardson's rule from the last
    two, so it is p + O(h²).
    """

    small: tuple[float, ...]
    remainders: tuple[mpmath.mpf, ...]

    @property
    def local(self) -> list[float]:
        """Slopes between neighbours, the smallest parameters last."""
        found = []
        for i in range(len(self.small) - 1):
            step = math.log(self.small[i + 1] / self.small[i])
            ratio = abs(self.remainders[i + 1] / self.remainders[i])
            found.append(float(mpmath.log(ratio)) / step if ratio else math.inf)
        return found

    @property
    def last(self) -> float:
        return self.local[-1]

    @property
    def extrapolated(self) -> float:
        factor = self.small[-2] / self.small[-1]
        before, last = self.local[-2:]
        return last + (last - before) / (factor - 1)


def slope(small: Sequence[float], remainders: Sequence[mpmath.mpf]) -> Slope:
    """The slope of at least three remainders.

    Raises
    ------
    ValueError
        for too few points, parameters that do not shrink by one factor, or a remainder of zero,
        which has no order.
    """
    if len(small) != len(remainders) or len(small) < 3:
        raise ValueError(f"{len(small)} parameters, {len(remainders)} remainders; pass 3 or more.")
    ratios = [a / b for a, b in pairwise(small)]
    if min(ratios) <= 1 or max(ratios) / min(ratios) > 1.001:
        raise ValueError(f"parameters {list(small)} must shrink by one constant factor.")
    if any(r == 0 for r in remainders):
        raise ValueError("a remainder is exactly zero and has no order; this law is degenerate.")
    return Slope(tuple(map(float, small)), tuple(map(mpmath.mpf, remainders)))
