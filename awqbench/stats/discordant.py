"""The mean of paired right/wrong differences: Tango's score interval.

Source: Tango, Statistics in Medicine 17 (1998), with a continuity correction of 1/2 in the count; for clusters the
counts are divided by the design effect and t replaces the normal, as Korn & Graubard, Survey Methodology 24 (1998), do
for proportions. A score interval never has zero width: 30 items without a flip bound the loss at 11 %, not at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from awqbench.stats.clustered import clustered_mean
from awqbench.stats.inputs import Codes, Floats
from awqbench.stats.student import t_quantile, t_tail

_CORRECTION = 0.5


def is_binary(differences: Floats) -> bool:
    """Whether all differences are -1, 0 or 1, as paired right/wrong scores give."""
    return bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())


@dataclass(frozen=True)
class DiscordantBounds:
    """(plus - minus) / n with its score bounds. Counts are effective counts: fractions where items are clustered."""

    plus: float
    minus: float
    n: float
    df: float = math.inf

    @property
    def estimate(self) -> float:
        """(plus - minus) / n."""
        return (self.plus - self.minus) / self.n

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""
        critical = self._critical(alpha)
        return _root(lambda value: self._z(value, 1.0) - critical, self.estimate, -1.0)

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""
        critical = self._critical(alpha)
        return _root(lambda value: self._z(value, -1.0) - critical, self.estimate, 1.0)

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`'."""
        return self._p(self._z(value, 1.0))

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`'."""
        return self._p(self._z(value, -1.0))

    def scaled(self, factor: float) -> DiscordantBounds:
        """The same rates on `factor` times as many items."""
        return replace(self, plus=self.plus * factor, minus=self.minus * factor, n=self.n * factor, df=self.df * factor)

    def _critical(self, alpha: float) -> float:
        return t_quantile(alpha, self.df)

    def _p(self, z: float) -> float:
        return t_tail(z, self.df)

    def _z(self, value: float, side: float) -> float:
        """The score statistic for 'the truth is `value`', towards `side`; counts are whole, hence corrected."""
        excess = side * (self.plus - self.minus - self.n * value)
        corrected = max(abs(excess) - _CORRECTION, 0.0)
        if corrected == 0.0:
            return 0.0
        variance = self.n * (2 * self._constrained_minus(value) + value * (1 - value))
        z = corrected / math.sqrt(variance) if variance > 0 else math.inf
        return math.copysign(z, excess)

    def _constrained_minus(self, value: float) -> float:
        """The maximum-likelihood probability of a minus when the mean is `value`."""
        a = 2 * self.n
        b = -self.plus - self.minus + (2 * self.n - self.plus + self.minus) * value
        c = -self.minus * value * (1 - value)
        return (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)


def discordant_bounds(differences: Floats, codes: Codes) -> DiscordantBounds:
    """Bounds for the mean of differences in {-1, 0, 1}; `codes` names the clusters.

    Items are taken to be draws of one population, clusters to be independent. Counts are divided by the design effect,
    the cluster-robust variance over that of independent items (at least 1), and t has the clusters' degrees of freedom.
    Without any flip nothing shows how items of a cluster hang together, and the design effect is taken as 1. That is
    too narrow where whole clusters flip at once and few or none has yet: with 10 clusters of which 5 % are lost
    as a whole, a margin of 5 points is passed in 15 of 100 such comparisons (docs/statistics.md). Counting clusters
    instead of items, the other extreme, would make an unchanged rerun weaker evidence than one lost item.
    """
    n, plus, minus = differences.size, float((differences > 0).sum()), float((differences < 0).sum())
    robust = clustered_mean(differences, codes)
    if robust.clusters == n:
        return DiscordantBounds(plus, minus, float(n))
    naive = differences.var(ddof=1) / n
    effect = max(1.0, robust.se**2 / naive) if naive > 0 else 1.0
    return DiscordantBounds(plus / effect, minus / effect, n / effect, robust.df)


def _root(function: Callable[[float], float], inside: float, edge: float) -> float:
    """Where `function` crosses zero between the estimate and the edge of the range, or the edge."""
    return edge if function(edge) <= 0 else float(optimize.brentq(function, inside, edge, xtol=1e-12))
