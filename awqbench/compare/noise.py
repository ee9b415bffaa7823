"""The noise floor beside a difference: how far does the reference lie from itself, and does the candidate lie further?

The reference is measured again, batched differently or just once more, often on a share of the items. A mean over
fewer items strays further by chance, so the two deltas cannot be held against each other as they are. Two questions are
asked instead: would a second rerun do this? A difference is within the floor when both answers are yes:

disturbance   On the items both measured, does the candidate move the single items no more than the rerun does? That is
              mean |change| (for right/wrong scores the share of flips), at most the rerun's plus t * se * sqrt(2).
              Flips that cancel in the mean are seen here.
reach         Is the candidate's delta, over its own n items, no larger than a second rerun's over as many may be?
              |delta| <= |delta of the rerun| + t * se * sqrt(1 + m / n) for a rerun over m items. A small loss in one
              direction, which the single items hide, is seen here.

se is the rerun's own standard error and t its 97.5 % quantile: the roots make them those of the difference of two
reruns. se is cluster-robust, and zero where nothing changed: beside a rerun that gave the same bits, only what gave the
same bits is within the floor. Of several reruns the one with the largest reach is taken. Ratios of medians have no
paired items: their reach is the far end of the rerun's own interval. A single figure's is the rerun's delta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from awqbench.compare.cell import Cell
from awqbench.compare.effect import Effect, measure_effect
from awqbench.compare.pairs import Pairs, group_items
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import Flips, Metric
from awqbench.stats.clustered import clustered_mean
from awqbench.stats.did import clustered_contrast_of_two
from awqbench.stats.inputs import Bools, Floats, cluster_codes

_TAIL = 0.025


@dataclass(frozen=True)
class Floor:
    """One rerun beside one difference, on the scale on which the metric is tested.

    delta: of the rerun. rate: the candidate's mean |change| on the shared items, rate_limit: how large it may be.
    """

    delta: float
    reach: float
    rate: float | None = None
    rate_limit: float | None = None
    flips: Flips | None = None

    def holds(self, delta: float) -> bool:
        """Whether a difference with this delta is within the floor."""
        calm = self.rate is None or self.rate_limit is None or self.rate <= self.rate_limit
        return calm and abs(delta) <= self.reach


class Reruns:
    """The cells of a run that are the reference again, and their effects, computed once."""

    def __init__(self, cells: Sequence[Cell], seed: int) -> None:
        self._cells = [cell for cell in cells if cell.ok and cell.result.role == "noise"]
        self._seed = seed
        self._effects: dict[tuple[str, str], list[Effect]] = {}

    def floor(self, baseline: Cell, metric: Metric, effect: Effect, suite: str) -> Floor | None:
        """The largest floor beside a metric's difference; None where no rerun measured it."""
        return _largest([_floor(effect, rerun) for rerun in self._of(baseline, metric, suite)])

    def group_floor(
        self, baseline: Cell, metric: Metric, pairs: Pairs, suite: str, attribute: str, group: str
    ) -> Floor | None:
        """The same beside a group's difference-in-differences: the group's items are what must not be disturbed."""
        reruns = [rerun.pairs for rerun in self._of(baseline, metric, suite) if rerun.pairs]
        return _largest([_group_floor(pairs, rerun, attribute, group) for rerun in reruns])

    def _of(self, baseline: Cell, metric: Metric, suite: str) -> list[Effect]:
        key = suite, metric.id
        if key not in self._effects:
            self._effects[key] = []
            for cell in self._cells:
                own = cell.metric(metric.id) if cell.result.suite == suite else None
                if own is None:
                    continue
                try:
                    self._effects[key].append(measure_effect(baseline, cell, own, seed=self._seed))
                except InvalidMeasurement:
                    continue  # a single figure of fewer items
        return self._effects[key]


def _largest(floors: Sequence[Floor | None]) -> Floor | None:
    return max((floor for floor in floors if floor is not None), key=lambda floor: floor.reach, default=None)


def _floor(effect: Effect, rerun: Effect) -> Floor | None:
    if rerun.pairs is None or effect.pairs is None:
        far = rerun.estimate
        if rerun.bounds:
            far = max(abs(rerun.bounds.lower(_TAIL)), abs(rerun.bounds.upper(_TAIL)))
        return Floor(rerun.estimate, abs(far))
    spread = _error(rerun.pairs.change(), rerun.pairs.clusters) * math.sqrt(1 + rerun.n / effect.n)
    everywhere = np.ones(rerun.n, dtype=np.bool_)
    rates = _rates(effect.pairs, rerun.pairs, everywhere)
    return None if rates is None else Floor(rerun.estimate, abs(rerun.estimate) + spread, *rates, rerun.flips)


def _group_floor(pairs: Pairs, rerun: Pairs, attribute: str, group: str) -> Floor | None:
    if attribute not in rerun.attributes():
        return None
    applies, member = group_items(rerun, attribute, group)
    try:
        codes = cluster_codes(
            [name for name, there in zip(rerun.clusters, applies, strict=True) if there], applies.sum()
        )
        bounds = clustered_contrast_of_two(rerun.change()[applies], member[applies], codes)
    except InvalidMeasurement:
        return None
    rates = _rates(pairs, rerun, member)
    if rates is None:
        return None
    sides = [group_items(one, attribute, group) for one in (pairs, rerun)]
    inverse = [1 / mine.sum() + 1 / (there & ~mine).sum() for there, mine in sides]
    spread = float(stats.t.isf(_TAIL, bounds.df)) * bounds.se * math.sqrt(1 + inverse[0] / inverse[1])
    return Floor(bounds.estimate, abs(bounds.estimate) + spread, *rates)


def _rates(pairs: Pairs, rerun: Pairs, wanted: Bools) -> tuple[float, float] | None:
    """Mean |change| of the candidate on the rerun's wanted items, and the largest that is still the rerun's."""
    candidate = pd.Series(np.abs(pairs.change()), index=pairs.items["item_id"])
    theirs = np.abs(rerun.change())[wanted]
    names = rerun.items["item_id"][wanted]
    there = np.asarray(names.isin(candidate.index), dtype=np.bool_)
    if not there.any():
        return None
    clusters = [name for name, kept in zip(rerun.clusters, wanted, strict=True) if kept]
    error = _error(theirs[there], [name for name, kept in zip(clusters, there, strict=True) if kept])
    limit = float(theirs[there].mean()) + math.sqrt(2) * error
    return float(candidate[names[there]].mean()), limit


def _error(values: Floats, clusters: Sequence[str]) -> float:
    """Half the width of the mean's 95 % interval; 0 where there is nothing to take one from."""
    try:
        bounds = clustered_mean(values, cluster_codes(list(clusters), values.size))
    except InvalidMeasurement:
        return 0.0
    return float(stats.t.isf(_TAIL, bounds.df)) * bounds.se
