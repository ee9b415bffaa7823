"""The mean paired difference of two backends on the same items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from awqbench.stats.bootstrap import bootstrap_mean
from awqbench.stats.bounds import Bounds, two_sided_p
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.discordant import discordant_bounds, is_binary
from awqbench.stats.inputs import Clusters, Codes, Floats, Scores, as_pair, check_share, cluster_codes

Method = Literal["analytic", "bootstrap"]


@dataclass(frozen=True)
class PairedDelta:
    """Mean of candidate minus reference, in the score's unit; p is two-sided, of 'the mean difference is 0'."""

    estimate: float
    low: float
    high: float
    se: float
    p: float
    n: int
    clusters: int


def paired_delta(
    reference: Scores,
    candidate: Scores,
    clusters: Clusters = None,
    level: float = 0.95,
    seed: int = 0,
    *,
    method: Method = "analytic",
    binary: bool | None = None,
) -> PairedDelta:
    """Mean of candidate - reference over items scored by both, with its two-sided interval.

    reference, candidate: float arrays (n,), same items in the same order. clusters: (n,) names; items that share one
    are not independent. method: "analytic" (see `mean_bounds`) or "bootstrap" (BCa over clusters, drawn with `seed`).
    `se` is the cluster-robust standard error. Raises InvalidMeasurement for scores that are not finite, fewer than two
    items or fewer than two clusters; UserError for arrays of different lengths.
    Source: Miller, arXiv 2411.00640 (paired differences, clustered errors).
    """
    before, after = as_pair(reference, candidate)
    codes = cluster_codes(clusters, before.size)
    differences = after - before
    if binary is None:
        binary = is_binary(differences)
    tail = (1 - check_share(level, "level")) / 2
    bounds = mean_bounds(differences, codes, binary=binary, method=method, seed=seed)
    robust = clustered_mean(differences, codes)
    return PairedDelta(
        estimate=robust.estimate,
        low=bounds.lower(tail),
        high=bounds.upper(tail),
        se=robust.se,
        p=two_sided_p(bounds),
        n=differences.size,
        clusters=robust.clusters,
    )


def mean_bounds(values: Floats, codes: Codes, *, binary: bool, method: Method = "analytic", seed: int = 0) -> Bounds:
    """The bounds for a mean of per-item values that fit their kind.

    binary (differences of right/wrong scores): Tango's score bounds, which stay honest when few or no items changed.
    Otherwise the cluster-robust t, corrected for skewness. A zero spread of values that are not binary gives an
    interval of zero width: identical outputs.
    """
    if method == "bootstrap":
        return bootstrap_mean(values, np.asarray(codes), seed=seed)
    return discordant_bounds(values, codes) if binary else clustered_mean(values, codes)
