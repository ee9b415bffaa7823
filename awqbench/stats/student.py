"""Upper tails of Student's t and of the normal as plain floats; scipy.stats takes fifty times as long for one."""

from __future__ import annotations

import math

from scipy import special


def t_tail(t: float, df: float = math.inf) -> float:
    """P(T > t) with `df` degrees of freedom; the normal's where they are infinite."""
    return float(special.ndtr(-t) if math.isinf(df) else special.stdtr(df, -t))


def t_quantile(alpha: float, df: float = math.inf) -> float:
    """The t that T exceeds with probability `alpha`."""
    return float(-special.ndtri(alpha) if math.isinf(df) else -special.stdtrit(df, alpha))
