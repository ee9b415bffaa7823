"""How small an effect a number of items can show, and how many items an effect needs."""

from __future__ import annotations

import math
from typing import Literal

from scipy import stats

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
) -> float:
    """The smallest mean paired difference that `n` independent items show with the given power, in the score's unit.

    (z_alpha + z_power) * sd / sqrt(n); 2.80 * sd / sqrt(n) by default. `sd` is that of the per-item differences;
    for right/wrong scores give `flips`, the share of items that change, whose sd is about its square root.
    Source: the usual normal approximation; Miller, arXiv 2411.00640, section 5.
    """
    if n < 1:
        raise UserError(f"n must be at least 1, got {n!r}")
    return _reach(power, alpha, sided) * _spread(sd, flips) / math.sqrt(n)


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

    For a gate whose true loss is zero, `effect` is the margin. Inverse of `mde`.
    """
    if not effect > 0:
        raise UserError(f"effect must be above 0, got {effect!r}")
    return max(2, math.ceil((_reach(power, alpha, sided) * _spread(sd, flips) / effect) ** 2))


def _reach(power: float, alpha: float, sided: Sided) -> float:
    tail = check_share(alpha, "alpha") / (2 if sided == "two" else 1)
    return float(stats.norm.isf(tail) - stats.norm.isf(check_share(power, "power")))


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
