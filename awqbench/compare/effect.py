"""One metric of two cells as an estimate with bounds, on the scale on which it is tested."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from awqbench.compare.cell import Cell, same_items
from awqbench.compare.pairs import Pairs, pair_items
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Flips, Metric
from awqbench.stats.bounds import Bounds, two_sided_p
from awqbench.stats.clustered import MeanBounds
from awqbench.stats.discordant import DiscordantBounds
from awqbench.stats.inputs import Floats, as_scores, cluster_codes
from awqbench.stats.mcnemar import mcnemar
from awqbench.stats.medians import MedianBounds, log_ratio_bounds
from awqbench.stats.paired import mean_bounds
from awqbench.stats.power import mde

_FARTHEST = 700.0  # the exponential of more is no float: a word of a text without spaces costs thousands of nats


@dataclass(frozen=True)
class Effect:
    """sign * (candidate - baseline); a difference of logarithms where `logarithmic`.

    bounds is None where there is nothing to take an interval from; `problem` then says why.
    """

    estimate: float
    logarithmic: bool
    n: int
    baseline_value: float | None
    candidate_value: float | None
    bounds: Bounds | None = None
    clusters: int | None = None
    test: str | None = None
    p: float | None = None
    mde: float | None = None
    flips: Flips | None = None
    problem: str | None = None
    pairs: Pairs | None = None


def measure_effect(
    baseline: Cell, candidate: Cell, metric: Metric, *, sign: float = 1.0, cluster: str = "cluster", seed: int = 0
) -> Effect:
    """How a metric changes from the baseline's cell to the candidate's, by the metric's `pairing`.

    sign: 1 for the change, -1 for the loss of a metric where higher is better. Raises InvalidMeasurement for scores
    that are not finite, items that cannot be paired, or single figures of other items.
    """
    if metric.pairing == "none":
        return _plain(baseline, candidate, metric, sign)
    if metric.pairing == "ratio-of-medians":
        return _medians(baseline, candidate, metric, sign, cluster, seed)
    return _paired(baseline, candidate, metric, sign, cluster)


def _plain(baseline: Cell, candidate: Cell, metric: Metric, sign: float) -> Effect:
    other = baseline.metric(metric.id)
    before, after = other.value if other else None, metric.value
    if before is None or after is None or not (math.isfinite(before) and math.isfinite(after)):
        raise InvalidMeasurement(f"{metric.id}: no figure to compare (baseline {before}, candidate {after})")
    if other and not same_items(baseline, candidate, metric.id):
        raise InvalidMeasurement(f"{metric.id}: {other.n} items against {metric.n}: not the same items")
    return Effect(sign * (after - before), False, 1, before, after, problem="a single figure, compared as it is")


def _medians(baseline: Cell, candidate: Cell, metric: Metric, sign: float, cluster: str, seed: int) -> Effect:
    sides = [pair_items(cell, cell, metric.id, distance=True, cluster=cluster) for cell in (candidate, baseline)]
    after, before = (float(np.median(side.candidate)) for side in sides)
    if min(before, after) <= 0:
        raise InvalidMeasurement(f"{metric.id}: medians {before:g} and {after:g} have no ratio")
    n = min(side.n for side in sides)
    effect = Effect(sign * math.log(after / before), True, n, before, after)
    if sign < 0:
        sides.reverse()
    try:
        bounds = log_ratio_bounds(
            sides[0].candidate, sides[1].candidate, seed, a_clusters=sides[0].clusters, b_clusters=sides[1].clusters
        )
    except InvalidMeasurement as error:
        return replace(effect, problem=str(error))
    return replace(
        effect,
        bounds=bounds,
        clusters=min(len(set(side.clusters)) for side in sides),
        test="bootstrap of the ratio of medians",
        p=two_sided_p(bounds),
        mde=_smallest(bounds),
    )


def _paired(baseline: Cell, candidate: Cell, metric: Metric, sign: float, cluster: str) -> Effect:
    logarithmic = metric.pairing == "log-ratio"
    distance = metric.pairing == "to-reference" and baseline.result.role == "reference"
    pairs = pair_items(baseline, candidate, metric.id, distance=distance, cluster=cluster)
    if pairs.n == 0:
        raise InvalidMeasurement(f"{candidate.result.backend}/{candidate.result.suite} {metric.id}: no items")
    change = pairs.change(sign)
    effect = Effect(
        float(change.mean()),
        logarithmic,
        pairs.n,
        None if pairs.reference is None else mean_value(pairs.reference, logarithmic),
        mean_value(pairs.candidate, logarithmic),
        flips=pairs.flips(),
        pairs=pairs,
    )
    try:
        as_scores(change, metric.id)
        codes = cluster_codes(pairs.clusters, pairs.n)
        bounds = mean_bounds(change, codes, binary=is_binary(pairs, metric))
    except InvalidMeasurement as error:
        return replace(effect, problem=str(error))
    clusters = int(codes.max()) + 1
    effect = replace(effect, bounds=bounds, clusters=clusters, mde=_smallest(bounds))
    if distance and not metric.signed:
        return effect  # that a distance is above zero needs no test
    alone = clusters == pairs.n
    if isinstance(bounds, DiscordantBounds) and alone:
        p, test = mcnemar(int(bounds.plus), int(bounds.minus)), "exact McNemar"
    elif isinstance(bounds, DiscordantBounds):
        p, test = two_sided_p(bounds), "score test with design effect"
    else:
        p, test = two_sided_p(bounds), "paired t" if alone else "cluster-robust t"
    return replace(effect, p=p, test=test)


def is_binary(pairs: Pairs, metric: Metric) -> bool:
    """Whether a zero change of the items is weak evidence: scores that are 0 or 1, or in [-1, 1] where all agree.

    Log-likelihoods and divergences are real numbers: equal to the last bit, they show the same model. Nor is a distance
    of 0 one draw: it is a window's mean over many positions.
    """
    if pairs.reference is None or metric.pairing in ("log-ratio", "to-reference") or "nats" in metric.unit:
        return False
    scores = np.concatenate([pairs.reference, pairs.candidate])
    if np.isin(scores, (0.0, 1.0)).all():
        return True
    return bool((pairs.change() == 0).all() and scores.min() >= -1 and scores.max() <= 1)


def mean_value(scores: Floats, logarithmic: bool) -> float:
    """The figure that people know of a side's scores: their mean, or its exponential for logarithms."""
    mean = float(scores.mean())
    return math.exp(min(mean, _FARTHEST)) if logarithmic else mean


def relative_change(logarithm: float) -> float:
    """A difference of logarithms as people read it: 0.05 is 5 % more. Ends where floats do."""
    return math.expm1(min(logarithm, _FARTHEST))


def _smallest(bounds: Bounds) -> float | None:
    """The smallest change these bounds would show with 80 % power; None where the items have no spread to plan with."""
    if isinstance(bounds, DiscordantBounds):
        # Without any flip the rate is not zero but unknown: two in n + 2 is the adjusted interval's guess.
        flips = min(1.0, max((bounds.plus + bounds.minus) / bounds.n, 2 / (bounds.n + 2)))
        return mde(bounds.n, flips=flips, df=bounds.df)
    spread = bounds.t if isinstance(bounds, MedianBounds) else bounds
    if isinstance(spread, MeanBounds) and spread.se > 0:
        return mde(1, sd=spread.se, df=spread.df)
    return None
