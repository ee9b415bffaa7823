"""The ratio of two medians, for times whose items are not paired."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.bootstrap import DRAWS, BootstrapBounds, resample_statistic
from awqbench.stats.bounds import two_sided_p
from awqbench.stats.inputs import Clusters, Codes, Floats, Scores, as_scores, check_share, cluster_codes


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
    """median(a) / median(b) of positive values, with a percentile bootstrap interval (see `log_ratio_bounds`)."""
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

    Gaps of one request drift together, so a request is a cluster of its gaps. Raises InvalidMeasurement for values that
    are not finite and positive, or fewer than two items or clusters on a side.
    """
    sides = []
    for name, values, clusters, offset in (("a", a, a_clusters, 0), ("b", b, b_clusters, 1)):
        array = as_scores(values, name)
        if array.min() <= 0:
            raise InvalidMeasurement(f"{name} has values that are not above 0: a ratio of medians needs positive ones")
        codes = cluster_codes(clusters, array.size)
        # Two different seeds: the same one would move both sides together.
        sides.append(np.log([np.median(array), *_medians(array, codes, draws, 2 * seed + offset)]))
    difference = sides[0] - sides[1]
    return BootstrapBounds(float(difference[0]), np.sort(difference[1:]))


def _medians(array: Floats, codes: Codes, draws: int, seed: int) -> Floats:
    return resample_statistic(lambda rows: np.asarray(np.median(rows, axis=1)), array, codes, draws, seed)
