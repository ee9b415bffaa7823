"""How small an effect a number of items can show, and how many items an effect needs."""

from __future__ import annotations

import math
from typing import Literal

from scipy import optimize, stats

from awqbench.errors import UserError
from awqbench.stats.inputs import check_share

Sided = Literal["one", "two"]


def mde(
    n: float,
    *,
    sd: float | None = None,
    flips: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    sided: Sided = "two",
    df: float = math.inf,
) -> float:
    """The smallest mean paired difference that `n` independent items show with the given power, in the score's unit.

    (z_alpha + z_power) * sd / sqrt(n); 2.80 * sd / sqrt(n) by default. `sd` is that of the per-item differences. For
    items in clusters give n=1, the standard error as `sd` and its degrees of freedom `df`, which matter under 30
    clusters: the sum of z is then the noncentrality at which Student's t test has the power.
    For right/wrong scores give `flips`, the share of items that change: their sd is about its square root. An effect
    changes at least as many items as it is large, so that n items show none below (z_alpha + z_power)^2 / n.
    Assumes that the estimate is about normal: with fewer than ten changed items the power is rough. Under about 25
    clusters it is a lower bound, `df` or not, for the tests are cautious about skewness: an effect of that size is then
    found less often (71 % of the time with 10 clusters, 60 % with 5, in place of 80 %; docs/statistics.md).
    Source: Miller, arXiv 2411.00640, section 5; Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    if n < 1:
        raise UserError(f"n must be at least 1, got {n!r}")
    reach = _reach(power, alpha, sided, df)
    effect = reach * _spread(sd, flips) / math.sqrt(n)
    return effect if flips is None or effect < flips else min(1.0, reach**2 / n)


def required_n(
    effect: float,
    *,
    sd: float | None = None,
    flips: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    sided: Sided = "one",
) -> int:
    """Independent items that show a mean paired difference of `effect` with the given power (one-sided by default).

    ((z_alpha + z_power) * sd / effect)^2, rounded up: the inverse of `mde`, with its assumptions and source. For a gate
    whose true loss is zero, `effect` is the margin. Items in clusters need this times the design effect,
    1 + (items of a cluster - 1) * their correlation. Under about 25 independent items or clusters it is a lower bound:
    it takes the normal's quantiles where the tests take Student's t and are cautious about skewness (13 questions of a
    real model promised 81 % and delivered 45 %; docs/statistics.md).
    """
    if not effect > 0:
        raise UserError(f"effect must be above 0, got {effect!r}")
    spread = _spread(sd, flips)
    if flips is not None:
        spread = max(spread, math.sqrt(min(effect, 1.0)))
    return max(2, math.ceil((_reach(power, alpha, sided, math.inf) * spread / effect) ** 2))


def _reach(power: float, alpha: float, sided: Sided, df: float) -> float:
    tail = check_share(alpha, "alpha") / (2 if sided == "two" else 1)
    if not df > 0:
        raise UserError(f"df must be above 0, got {df!r}")
    wanted = check_share(power, "power")
    if math.isinf(df):
        return float(stats.norm.isf(tail) - stats.norm.isf(wanted))
    critical = float(stats.t.isf(tail, df))

    def excess(shift: float) -> float:
        return float(stats.nct.sf(critical, df, shift)) - wanted

    return float(optimize.brentq(excess, 0.0, 3 * critical + 10)) if excess(0.0) < 0 else 0.0


def _spread(sd: float | None, flips: float | None) -> float:
    if (sd is None) == (flips is None):
        raise UserError("give either sd or flips")
    if flips is not None:
        if not 0 <= flips <= 1:
            raise UserError(f"flips must be a share between 0 and 1, got {flips!r}")
        return math.sqrt(flips)
    assert sd is not None
    if not sd >= 0:
        raise UserError(f"sd must not be negative, got {sd!r}")
    return sd
