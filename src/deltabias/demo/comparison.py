"""What may be said about two sets of paired runs, and what may not."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev

from scipy import stats

FEWEST_SEEDS = 3
STANDARD_ERRORS = 2.0
SETTLING_STEPS = 3
"""Steps before the clock counts: allocations and lazily built state."""


@dataclass(frozen=True)
class Comparison:
    """Paired differences second - first (negative: the second is better)."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.first or len(self.first) != len(self.second):
            raise ValueError(
                f"{len(self.first)} and {len(self.second)} losses cannot be paired; "
                "pass equally many, one per seed."
            )

    @property
    def differences(self) -> list[float]:
        return [b - a for a, b in zip(self.first, self.second, strict=True)]

    @property
    def mean_difference(self) -> float:
        return mean(self.differences)

    @property
    def standard_error(self) -> float | None:
        """Of the mean difference; None for a single seed, which has none."""
        return _spread(self.differences, len(self.differences) ** 0.5)

    @property
    def within_noise(self) -> bool:
        """Whether nothing can be said: too few seeds, or less than two standard errors."""
        if len(self.differences) < FEWEST_SEEDS or self.standard_error is None:
            return True
        return abs(self.mean_difference) < STANDARD_ERRORS * self.standard_error

    @property
    def verdict(self) -> str:
        """One honest sentence."""
        seeds, error = len(self.differences), self.standard_error
        size = f"{self.mean_difference:+.4f} nats/byte"
        if error is not None:
            size += f" ± {error:.4f}"
        if seeds < FEWEST_SEEDS:
            return f"{size}: within noise ({seeds} seed{'s' * (seeds > 1)} cannot tell)."
        if self.within_noise:
            return f"{size}: within noise (less than two standard errors over {seeds} seeds)."
        better = "lower" if self.mean_difference < 0 else "higher"
        return (
            f"{size}: the corrected run's loss is {better}, by more than two standard errors over "
            f"{seeds} seeds; where there is no difference, chance does this in "
            f"{100 * self.false_alarm:.0f} % of comparisons: a hint, not a result."
        )

    @property
    def false_alarm(self) -> float:
        """How often equal contenders would differ by two standard errors, if losses are normal."""
        return float(2 * stats.t.sf(STANDARD_ERRORS, len(self.differences) - 1))


def _spread(values: Sequence[float], divisor: float = 1.0) -> float | None:
    return stdev(values) / divisor if len(values) > 1 else None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for one value)."""
    return mean(values), _spread(values)


def step_times(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the pairwise ratios second / first.

    Pairs are close in time, so a busy moment of the machine slows both and leaves the ratio.
    """
    pairs = list(zip(first, second, strict=True))
    settled = pairs[SETTLING_STEPS:] or pairs
    ratios = [b / a for a, b in settled]
    return median(a for a, _ in settled), median(b for _, b in settled), median(ratios)
