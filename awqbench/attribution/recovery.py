"""How much of a damage is each part's, and how much came back: estimates with intervals. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.record.attribution import Amount, Recovery
from awqbench.stats.clustered import MeanBounds, clustered_contrast
from awqbench.stats.inputs import Bools, Codes, Floats, cluster_codes

TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Sample:
    """Units of one stage: which are in the group (all, where there is none), and which belong together."""

    in_group: Bools
    codes: Codes
    distance: bool = False

    @classmethod
    def of(cls, clusters: Sequence[str], in_group: Sequence[bool], distance: bool = False) -> Sample:
        """`distance`: the damage is never below zero. Raises InvalidMeasurement for fewer than two clusters."""
        return cls(np.array(in_group, dtype=np.bool_), cluster_codes(clusters, len(clusters)), distance)

    def shown(self, damage: Amount) -> bool:
        """Whether there is damage to speak of: a distance above zero, or an interval that leaves zero out."""
        return damage.value > 0 if self.distance else damage.ci_low > 0 or damage.ci_high < 0

    def amount(self, values: Floats) -> Amount:
        """The damage: the units' mean, or the group's mean less the others', with its 95 % interval."""
        bounds = self._bounds(values)
        return Amount(value=bounds.estimate, ci_low=bounds.lower(TAIL), ci_high=bounds.upper(TAIL))

    def recovery(self, before: Floats, after: Floats) -> Recovery:
        """How much of the damage `before` is gone in `after`, units paired; arrays (units,).

        With B and A the damage (a mean, or a difference of two means), the share is R = 1 - A / B. Its interval is the
        ratio estimator's: that of the mean of (before - after - R before) / B, around R, by clusters (Cochran, Sampling
        Techniques, 1977, 6.3). It is None where B is not `shown`: a share of nothing means nothing.
        """
        total, gone = self._bounds(before), self._bounds(before - after)
        share = low = high = None
        if self.shown(self.amount(before)):
            share = gone.estimate / total.estimate
            left = self._bounds((before - after - share * before) / total.estimate)
            low, high = share + left.lower(TAIL), share + left.upper(TAIL)
        return Recovery(
            value=gone.estimate,
            ci_low=gone.lower(TAIL),
            ci_high=gone.upper(TAIL),
            share=share,
            share_low=low,
            share_high=high,
        )

    def _bounds(self, values: Floats) -> MeanBounds:
        return clustered_contrast(values, self.in_group, self.codes)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's; None for fewer than three pairs, or where one of the two is constant."""
    from scipy import stats

    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(stats.spearmanr(one, other).statistic)


def worst_group(values: Floats, groups: Sequence[str], least: int) -> str:
    """The group whose damage exceeds the others' most, of those with at least `least` units.

    Raises InvalidMeasurement when there are not two such groups.
    """
    counts = {group: groups.count(group) for group in groups}
    known = [group for group, count in counts.items() if count >= least]
    if len(known) < 2:
        raise InvalidMeasurement(f"fewer than two groups have {least} items each (found {counts})")

    def excess(group: str) -> float:
        mine = np.array([each == group for each in groups])
        return float(values[mine].mean() - values[~mine].mean())

    return max(known, key=lambda group: (excess(group), group))
