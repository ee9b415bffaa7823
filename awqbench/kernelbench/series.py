"""Timings of one contender on one problem, what may be said of two of them, and averages of ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median, quantiles


@dataclass(frozen=True)
class Series:
    """`runs`: each run's median, in microseconds per launch; `spread`: the widest 10th to 90th percentile of a run."""

    runs: tuple[float, ...]
    spread: float

    @property
    def best(self) -> float:
        """The fastest run."""
        return min(self.runs)

    @property
    def worst(self) -> float:
        """The slowest run."""
        return max(self.runs)

    @property
    def typical(self) -> float:
        """The median of the runs."""
        return median(self.runs)


def series(runs: Iterable[Sequence[float]]) -> Series:
    """Replays of each run, in microseconds -> a Series. ValueError where a run has no replay."""
    kept = [tuple(run) for run in runs]
    if not kept or not all(kept):
        raise ValueError("a run without replays")
    return Series(tuple(median(run) for run in kept), max(map(_spread, kept)))


def faster(ours: Series, other: Series) -> bool:
    """Whether "faster" may be said: our worst run beats the other's best by more than the spread of either."""
    return ours.worst + max(ours.spread, other.spread) < other.best


def claim(ours: Series, other: Series) -> str:
    """`faster`, `slower`, or `no claim` where the runs overlap."""
    return "faster" if faster(ours, other) else "slower" if faster(other, ours) else "no claim"


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; ValueError for none."""
    logs = [log(value) for value in values]
    if not logs:
        raise ValueError("the mean of nothing")
    return exp(sum(logs) / len(logs))


BUCKETS = ((1, 16), (17, 64), (65, 256), (257, 10**9))


def bucket(m: int) -> str:
    """The range of batch sizes that m is averaged in."""
    low, high = next(pair for pair in BUCKETS if pair[0] <= m <= pair[1])
    return f"{low}-{high}" if high < 10**9 else f"{low}+"


def _spread(run: Sequence[float]) -> float:
    if len(run) < 3:
        return max(run) - min(run)
    tenths = quantiles(run, n=10, method="inclusive")
    return tenths[-1] - tenths[0]
