"""Means, and differences of two groups' means, when items come in clusters.

Source: the bias-reduced (CR2) variance and its degrees of freedom are Bell & McCaffrey, Survey Methodology 28 (2002),
written out for group means; the skewness correction is Hall, JRSS B 54 (1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Bools, Codes, Floats


@dataclass(frozen=True)
class MeanBounds:
    """A mean or a difference of means: t interval, widened where the clusters' contributions are skewed.

    Each bound is the more cautious of Student's t and Hall's skewness-corrected t. KL divergences have long right
    tails: with 20 exponential items the plain t bound is exceeded 10 % of the time instead of 5 %.
    """

    estimate: float
    se: float
    df: float
    clusters: int
    skew: float = 0.0  # sum U^3 / (sum U^2)^1.5 of the clusters' contributions U

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""
        return self.estimate - self.se * self._reach(alpha, self.skew)

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""
        return self.estimate + self.se * self._reach(alpha, -self.skew)

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`'."""
        return self._p(self.estimate - value, self.skew)

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`'."""
        return self._p(value - self.estimate, -self.skew)

    def scaled(self, factor: float) -> MeanBounds:
        """The same spread on `factor` times as many clusters."""
        root = math.sqrt(factor)
        return replace(self, se=self.se / root, skew=self.skew / root, df=self.df * factor)

    def _reach(self, alpha: float, skew: float) -> float:
        critical = float(stats.t.isf(alpha, self.df))
        if abs(skew) < 1e-9:
            return critical
        inverse = (float(np.cbrt(1 + skew * (critical - skew / 6))) - 1) * 3 / skew
        return max(critical, inverse)

    def _p(self, excess: float, skew: float) -> float:
        if self.se == 0:
            return 0.0 if excess > 0 else 1.0
        t = excess / self.se
        hall = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
        return float(stats.t.sf(min(t, hall), self.df))


def clustered_mean(values: Floats, codes: Codes) -> MeanBounds:
    """The mean over items, with a standard error that is robust to correlation within clusters.

    With clusters of one item this is s / sqrt(n) and t with n - 1 degrees of freedom; with C equal clusters it has the
    finite-cluster correction C / (C - 1) and t with C - 1. Assumes that clusters are independent draws.
    """
    return clustered_contrast(values, np.ones(values.size, dtype=np.bool_), codes)


def clustered_contrast(values: Floats, in_group: Bools, codes: Codes) -> MeanBounds:
    """mean(values[in_group]) - mean(values[~in_group]); only the first when every item is in the group.

    Clusters may span both groups. Raises InvalidMeasurement when a group's items are all in one cluster.
    """
    count = int(codes.max()) + 1
    residuals, weights, sizes, totals = np.zeros(count), [], [], []
    estimate = 0.0
    for member, sign in ((in_group, 1.0), (~in_group, -1.0)):
        n = int(member.sum())
        if n == 0:
            continue
        size = np.bincount(codes[member], minlength=count).astype(np.float64)
        if size.max() == n:
            raise InvalidMeasurement(f"{n} items in one cluster: independent repetitions are needed for an interval")
        mean = float(values[member].mean())
        estimate += sign * mean
        inflate = 1 / np.sqrt(1 - size / n)  # undoes the shrinkage of residuals around a mean they helped to make
        residuals += sign / n * inflate * np.bincount(codes[member], weights=values[member] - mean, minlength=count)
        weights.append(sign / n * inflate)
        sizes.append(size)
        totals.append(n)
    squares = float((residuals**2).sum())
    return MeanBounds(
        estimate=estimate,
        se=math.sqrt(squares),
        df=_degrees_of_freedom(np.array(weights), np.array(sizes), np.array(totals, dtype=np.float64)),
        clusters=count,
        skew=float((residuals**3).sum() / squares**1.5) if squares > 0 else 0.0,
    )


def _degrees_of_freedom(weights: Floats, sizes: Floats, totals: Floats) -> float:
    """Satterthwaite's tr(G)^2 / tr(G^2) for the matrix G of the variance's quadratic form.

    Arrays are (group, cluster). For group means G = diag(sum_g n_cg w_cg^2) - sum_g u_g u_g' / n_g, u_g = n_cg w_cg:
    no C x C array is built.
    """
    diagonal = (sizes * weights**2).sum(axis=0)
    u = sizes * weights
    trace = diagonal.sum() - ((u**2).sum(axis=1) / totals).sum()
    cross = (u @ u.T) ** 2 / np.outer(totals, totals)
    trace_of_square = (diagonal**2).sum() - 2 * ((diagonal * u**2).sum(axis=1) / totals).sum() + cross.sum()
    return float(trace**2 / trace_of_square)
