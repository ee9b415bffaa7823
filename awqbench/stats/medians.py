"""Medians of times, which nothing pairs: the interval of one, and of the ratio of two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.bootstrap import DRAWS, BootstrapBounds, resampled_medians
from awqbench.stats.bounds import two_sided_p
from awqbench.stats.clustered import MeanBounds, clustered_mean
from awqbench.stats.inputs import Clusters, Floats, Scores, as_scores, check_share, cluster_codes


@dataclass(frozen=True)
class MedianBounds:
    """The more cautious of two: percentiles of resamples, and t with the standard error of the same.

    Percentiles alone end at the smallest and the largest value, which hold the median of C independent values between
    them with probability 1 - 2 * 0.5^C only: 75 % for 3.
    """

    percentiles: BootstrapBounds
    t: MeanBounds

    @property
    def estimate(self) -> float:
        """The median's logarithm, or that of the ratio of two."""
        return self.t.estimate

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""
        return min(self.percentiles.lower(alpha), self.t.lower(alpha))

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""
        return max(self.percentiles.upper(alpha), self.t.upper(alpha))

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`'."""
        return max(self.percentiles.p_greater(value), self.t.p_greater(value))

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`'."""
        return max(self.percentiles.p_less(value), self.t.p_less(value))

    def scaled(self, factor: float) -> MedianBounds:
        """The same spread on `factor` times as many items."""
        return MedianBounds(self.percentiles.scaled(factor), self.t.scaled(factor))


@dataclass(frozen=True)
class MedianRatio:
    """median(a) / median(b) with its two-sided interval; p is two-sided, of 'the ratio is 1'."""

    ratio: float
    low: float
    high: float
    se_log: float
    p: float
    n: int


def ratio_of_medians(
    a: Scores,
    b: Scores,
    level: float = 0.95,
    seed: int = 0,
    *,
    a_clusters: Clusters = None,
    b_clusters: Clusters = None,
) -> MedianRatio:
    """median(a) / median(b) of positive values, with a bootstrap interval of its logarithm.

    a, b: float (n_a,), (n_b,), in one unit; nothing pairs them. level: of the two-sided interval. See
    `log_ratio_bounds` for how it is drawn, what it assumes and what it refuses.
    """
    bounds = log_ratio_bounds(a, b, seed, a_clusters=a_clusters, b_clusters=b_clusters)
    tail = (1 - check_share(level, "level")) / 2
    return MedianRatio(
        ratio=math.exp(bounds.estimate),
        low=math.exp(bounds.lower(tail)),
        high=math.exp(bounds.upper(tail)),
        se_log=float(bounds.percentiles.draws.std(ddof=1)),
        p=two_sided_p(bounds),
        n=min(np.size(a), np.size(b)),
    )


def log_ratio_bounds(
    a: Scores,
    b: Scores,
    seed: int = 0,
    *,
    a_clusters: Clusters = None,
    b_clusters: Clusters = None,
    draws: int = DRAWS,
) -> MedianBounds:
    """Bounds of ln(median(a) / median(b)): each side is resampled by itself, by cluster where clusters are given.

    a, b: float (n,), positive, in one unit. Gaps of one request drift together, so a request is a cluster of its gaps.
    Few clusters spread too little: the percentiles are read with Welch's degrees of freedom and the widening of the
    median's linearization, the share of values above it; see `MedianBounds` for what else bounds them. Assumes that
    clusters are independent draws and that the values near the median have a density: times rounded to a few steps give
    whole steps. Raises InvalidMeasurement for values that are not finite and positive, or fewer than two items or
    clusters on a side.
    Source: Efron & Tibshirani (1993), chapter 13; Hesterberg, The American Statistician 69 (2015), section 5.3; David &
    Nagaraja, Order Statistics (2003), section 7.1, for the limit of percentiles.
    """
    # Two different seeds: the same one would move both sides together.
    one = _resampled(a, "a", a_clusters, draws, 2 * seed)
    other = _resampled(b, "b", b_clusters, draws, 2 * seed + 1)
    drawn = one.variance + other.variance
    wide = [side.widen**2 * side.variance for side in (one, other)]
    spare = wide[0] ** 2 / one.df + wide[1] ** 2 / other.df
    return _bounds(
        one.log - other.log,
        one.logs - other.logs,
        variance=sum(wide),
        widen=math.sqrt(sum(wide) / drawn) if drawn > 0 else 1.0,
        df=sum(wide) ** 2 / spare if spare > 0 else math.inf,
        clusters=min(one.clusters, other.clusters),
    )


def median_interval(
    values: Scores, clusters: Clusters = None, level: float = 0.95, seed: int = 0, *, draws: int = DRAWS
) -> tuple[float, float]:
    """The two-sided interval of the median of positive values, in their unit.

    values: float (n,), positive. clusters: (n,) names; the gaps of one request drift together. Its ends are
    `MedianBounds` on the scale of logarithms. Assumes and refuses what `log_ratio_bounds` does; docs/statistics.md has
    measured rates.
    """
    tail = (1 - check_share(level, "level")) / 2
    found = _resampled(values, "values", clusters, draws, seed)
    variance = found.widen**2 * found.variance
    bounds = _bounds(found.log, found.logs, variance, found.widen, found.df, found.clusters)
    # Rounding on the way through the logarithm may leave the median outside where all values are equal.
    median = float(np.median(as_scores(values, "values")))
    return min(median, math.exp(bounds.lower(tail))), max(median, math.exp(bounds.upper(tail)))


def _bounds(log: float, logs: Floats, variance: float, widen: float, df: float, clusters: int) -> MedianBounds:
    """`variance`: of the logarithm, in which `widen` is."""
    return MedianBounds(
        BootstrapBounds(log, np.sort(logs), widen=widen, df=df),
        MeanBounds(log, math.sqrt(variance), df, clusters),
    )


@dataclass(frozen=True)
class _Resampled:
    """The logarithm of a median, those of its draws (draws,), how much wider these ought to be, degrees of freedom."""

    log: float
    logs: Floats
    widen: float
    df: float
    clusters: int

    @property
    def variance(self) -> float:
        return float(self.logs.var())


def _resampled(values: Scores, name: str, clusters: Clusters, draws: int, seed: int) -> _Resampled:
    array = as_scores(values, name)
    if array.min() <= 0:
        raise InvalidMeasurement(f"{name} has values that are not above 0: a median of times needs positive ones")
    codes = cluster_codes(clusters, array.size)
    median = float(np.median(array))
    above = np.sign(array - median)
    robust = clustered_mean(above, codes)
    own = float((np.bincount(codes, weights=above - above.mean()) ** 2).sum()) / array.size**2
    widen = robust.se / math.sqrt(own) if own > 0 else 1.0
    logs = np.log(resampled_medians(array, codes, draws, seed))
    return _Resampled(math.log(median), logs, widen, robust.df, robust.clusters)
