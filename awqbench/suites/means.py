"""A metric that is a mean over items, with an interval that knows which items belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Metric, Pairing
from awqbench.stats import clustered_mean
from awqbench.stats.inputs import Floats, cluster_codes


def mean_metric(
    id: str,
    scores: Sequence[float],
    clusters: Sequence[str],
    *,
    unit: str,
    protocol: str,
    higher_is_better: bool | None,
    pairing: Pairing = "difference",
    signed: bool = False,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    detail: dict[str, Any] | None = None,
) -> Metric:
    """The mean of the scores as a Metric; `log-ratio` metrics show exp(mean).

    `bounds` are the smallest and largest possible score, where there are such. Of scores `to-reference` the interval
    ends where distances do unless they are `signed`, and is the mean itself where clusters do not differ: two models
    that are the same to the last bit are no guess. Raises InvalidMeasurement for no items, scores that are not finite,
    or a mean whose exponential is not.
    """
    values = np.asarray(scores, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise InvalidMeasurement(f"{id}: {'no items' if not len(values) else 'a score is not finite'}")
    mean = float(values.mean())
    low, high = cluster_interval(values, clusters, level, bounds)
    different = len(set(clusters))
    if pairing == "to-reference" and low is None and different > 1:
        low = high = mean
    if pairing == "log-ratio":
        try:
            mean, low, high = math.exp(mean), *(None if x is None else math.exp(x) for x in (low, high))
        except OverflowError:
            raise InvalidMeasurement(f"{id}: a mean of {mean:g} nats has no finite exponential") from None
    metric = Metric(
        id=id, value=mean, unit=unit, n=len(values), ci_level=level, protocol=protocol,
        higher_is_better=higher_is_better, pairing=pairing, signed=signed,
        detail={"clusters": different, **(detail or {})},
    )  # fmt: skip
    if low is not None and high is not None:
        metric.ci_low, metric.ci_high = metric.cut(low, high)
    return metric


def cluster_interval(
    values: Floats,
    clusters: Sequence[str],
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> tuple[float | None, float | None]:
    """The cluster-robust interval of `awqbench.stats.clustered_mean`; (None, None) for fewer than two clusters.

    Where bounded scores are all at one bound the standard error is zero and says nothing: the exact binomial bound for
    C of C successes (Clopper-Pearson) takes its place. Any other lack of spread between clusters (say, a +1 and a -1 in
    each) leaves no interval either.
    """
    count = len(set(clusters))
    if count < 2:
        return None, None
    if bounds and np.ptp(values) == 0 and float(values[0]) in bounds:
        width = (bounds[1] - bounds[0]) * (1 - ((1 - level) / 2) ** (1 / count))
        return (bounds[0], bounds[0] + width) if values[0] == bounds[0] else (bounds[1] - width, bounds[1])
    mean = clustered_mean(values, cluster_codes(clusters, len(values)))
    if mean.se == 0:
        return None, None
    low, high = mean.lower((1 - level) / 2), mean.upper((1 - level) / 2)
    return (max(low, bounds[0]), min(high, bounds[1])) if bounds else (low, high)
