"""The interval of a share of items that come in clusters, for shares as small as those of flips."""

from __future__ import annotations

import math

import numpy.typing as npt
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.inputs import Clusters, as_scores, check_share, cluster_codes


def share_interval(hits: npt.ArrayLike, clusters: Clusters = None, level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of mean(hits): Clopper-Pearson on the effective number of items.

    hits: (n,) booleans or 0 and 1. With the cluster-robust variance v of their mean p, the design effect is
    d = v / (p (1 - p) / (n - 1)), at least 1, and the effective number

        n* = n / d * (t(n - 1) / t(C - 1))^2          t(k): the quantile of Student's t with k degrees of freedom

    takes the place of n, for C clusters; for items that are all alone n* = n, the exact binomial interval. Never of
    zero width, and never below 0. Where all items agree nothing shows a design effect: it is taken as 1. Assumes that
    clusters are independent draws. Raises InvalidMeasurement for other values, or fewer than two items or clusters.
    Source: Korn & Graubard, Survey Methodology 24 (1998).
    """
    array = as_scores(hits, "hits")
    if not ((array == 0) | (array == 1)).all():
        raise InvalidMeasurement("hits are 0 or 1")
    n, share = array.size, float(array.mean())
    robust = clustered_mean(array, cluster_codes(clusters, n))
    naive = share * (1 - share) / (n - 1)
    effect = max(1.0, robust.se**2 / naive) if naive > 0 else 1.0
    tail = (1 - check_share(level, "level")) / 2
    ratio = stats.t.isf(tail, n - 1) / stats.t.isf(tail, robust.clusters - 1)
    size = n / effect * ratio**2
    count = share * size
    low = 0.0 if count == 0 else float(stats.beta.ppf(tail, count, size - count + 1))
    high = 1.0 if math.isclose(share, 1.0) else float(stats.beta.ppf(1 - tail, count + 1, size - count))
    return low, high
