"""From bounds and a margin to pass, fail or inconclusive, and the items that would decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from awqbench.stats.bounds import Bounds
from awqbench.stats.student import t_quantile, t_tail

VerdictName = Literal["pass", "fail", "inconclusive"]
FEW_CLUSTERS = 25  # with fewer, a number of items that is planned from them is a lower bound (docs/statistics.md)
_MOST = 1e6  # more than a million times the items in hand is not a plan


@dataclass(frozen=True)
class Decision:
    """A margin against bounds. p_worse: of 'the loss is within the margin'; p_noninferior: of 'it is beyond'."""

    verdict: VerdictName
    lower: float
    upper: float
    p_worse: float
    p_noninferior: float


def decide(
    bounds: Bounds, margin: float, alpha: float, sided: Literal["one", "two"] = "one", gain: float | None = None
) -> Decision:
    """Pass when the loss is shown to be within the margin, fail when it is shown to be beyond it.

    one: non-inferiority, only a loss counts. two: equivalence, a change of either sign counts (two one-sided tests,
    Schuirmann 1987; failing looks at both tails, so its p is doubled); `gain` is how far it may go the other way, by
    default as far.
    """
    gain = margin if gain is None else gain
    lower, upper = bounds.lower(alpha), bounds.upper(alpha)
    p_worse, p_noninferior = bounds.p_greater(margin), bounds.p_less(margin)
    # Only a loss known without any uncertainty (identical outputs) can sit exactly on its bound.
    within = upper <= margin
    if sided == "two":
        p_worse = min(1.0, 2 * min(p_worse, bounds.p_less(-gain)))
        p_noninferior = max(p_noninferior, bounds.p_greater(-gain))
        within = within and lower >= -gain
    verdict: VerdictName = "fail" if p_worse < alpha else "pass" if within else "inconclusive"
    return Decision(verdict, lower, upper, p_worse, p_noninferior)


def items_needed(
    bounds: Bounds,
    n: int,
    margin: float,
    alpha: float,
    power: float = 0.8,
    sided: Literal["one", "two"] = "one",
    gain: float | None = None,
) -> int | None:
    """Items that would decide an inconclusive margin with the given power, if the rates seen so far are the truth.

    Found by scaling the data until the bound at z_alpha + z_power clears the margin. With two sides, `gain` as in
    `decide`, a failure looks at both tails, which halves alpha; and to pass neither side may be missed, so that the
    chances of missing either are added (each with the normal's tail beyond z_alpha, as for one side). None when the
    estimate sits on the margin, or when no realistic number of items would do. From fewer than `FEW_CLUSTERS`
    independent clusters it is a lower bound: so few tell too little of the spread that it is planned with.
    """
    gain = margin if gain is None else gain
    beyond = bounds.estimate > margin or (sided == "two" and bounds.estimate < -gain)
    critical = t_quantile(alpha / 2 if beyond and sided == "two" else alpha)
    stricter = t_tail(critical + t_quantile(1 - power))

    def decided(factor: float) -> bool:
        more = bounds.scaled(factor)
        if beyond:
            return more.lower(stricter) > margin or (sided == "two" and more.upper(stricter) < -gain)
        if sided == "one":
            return more.upper(stricter) < margin
        return sum(t_tail(t_quantile(p) - critical) for p in (more.p_less(margin), more.p_greater(-gain))) < 1 - power

    low, high = 1.0, 2.0
    while not decided(high):
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return max(n + 1, math.ceil(n * high))
