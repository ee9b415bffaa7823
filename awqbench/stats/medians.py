"""The ratio of two medians, for times whose items are not paired."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.bootstrap import DRAWS, BootstrapBounds, resampled_medians
from awqbench.stats.bounds import two_sided_p
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.inputs import Clusters, Scores, as_scores, check_share, cluster_codes


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
    """median(a) / median(b) of positive values, with a percentile bootstrap interval of its logarithm.

    a, b: float (n_a,), (n_b,), in one unit; nothing pairs them. level: of the two-sided interval. See
    `log_ratio_bounds` for how it is drawn, what it assumes and what it refuses.
    """
    bounds = log_ratio_bounds(a, b, seed, a_clusters=a_clusters, b_clusters=b_clusters)
    tail = (1 - check_share(level, "level")) / 2
    return MedianRatio(
        ratio=math.exp(bounds.estimate),
        low=math.exp(bounds.lower(tail)),
        high=math.exp(bounds.upper(tail)),
        se_log=float(bounds.draws.std(ddof=1)),
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
) -> BootstrapBounds:
    """Bounds of ln(median(a) / median(b)): each side is resampled by itself, by cluster where clusters are given.

    a, b: float (n,), positive, in one unit. Gaps of one request drift together, so a request is a cluster of its gaps.
    Few clusters spread too little: the percentiles are read with Welch's degrees of freedom and the widening of the
    median's linearization, the share of values above it. Assumes that clusters are independent draws and that the
    values near the median have a density: times rounded to a few steps give whole steps. Raises InvalidMeasurement for
    values that are not finite and positive, or fewer than two items or clusters on a side.
    Source: Efron & Tibshirani (1993), chapter 13; Hesterberg, The American Statistician 69 (2015), section 5.3.
    """
    sides, drawn, wide, spare = [], [], [], []
    for name, values, clusters, offset in (("a", a, a_clusters, 0), ("b", b, b_clusters, 1)):
        array = as_scores(values, name)
        if array.min() <= 0:
            raise InvalidMeasurement(f"{name} has values that are not above 0: a ratio of medians needs positive ones")
        codes = cluster_codes(clusters, array.size)
        median = np.median(array)
        # Two different seeds: the same one would move both sides together.
        logs = np.log([median, *resampled_medians(array, codes, draws, 2 * seed + offset)])
        above = np.sign(array - median)
        robust = clustered_mean(above, codes)
        own = float((np.bincount(codes, weights=above - above.mean()) ** 2).sum()) / array.size**2
        widen = robust.se**2 / own if own > 0 else 1.0
        sides.append(logs)
        drawn.append(float(logs[1:].var()))
        wide.append(widen * drawn[-1])
        spare.append(wide[-1] ** 2 / robust.df)
    difference = sides[0] - sides[1]
    return BootstrapBounds(
        float(difference[0]),
        np.sort(difference[1:]),
        widen=math.sqrt(sum(wide) / sum(drawn)) if sum(drawn) > 0 else 1.0,
        df=sum(wide) ** 2 / sum(spare) if sum(spare) > 0 else math.inf,
    )
