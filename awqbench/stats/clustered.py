"""Means, and differences of two groups' means, when items come in clusters.

Source: the bias-reduced (CR2) variance and its degrees of freedom are Bell & McCaffrey, Survey Methodology 28 (2002),
written out for group means; degrees of freedom for correlated items are Imbens & Kolesar, Rev. Econ. Stat. 98 (2016);
the skewness correction is Hall, JRSS B 54 (1992).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Bools, Codes, Floats
from awqbench.stats.student import t_quantile, t_tail


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
        critical = t_quantile(alpha, self.df)
        if abs(skew) < 1e-9:
            return critical
        inverse = (float(np.cbrt(1 + skew * (critical - skew / 6))) - 1) * 3 / skew
        return max(critical, inverse)

    def _p(self, excess: float, skew: float) -> float:
        if self.se == 0:
            return 0.0 if excess > 0 else 1.0
        t = excess / self.se
        hall = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
        return t_tail(min(t, hall), self.df)


def clustered_mean(values: Floats, codes: Codes) -> MeanBounds:
    """The mean over items, with a standard error that is robust to correlation within clusters.

    values: float64 (n,), any unit; codes: intp (n,), 0..C-1. se^2 = sum over clusters of r_c^2 / (1 - n_c / n) / n^2,
    where r_c is the sum of a cluster's residuals and n_c its items. With clusters of one item this is s / sqrt(n) and t
    with n - 1 degrees of freedom; with C equal clusters it has the finite-cluster correction C / (C - 1) and t with
    C - 1. Assumes that clusters are independent draws. Skewed losses in few clusters are still passed too easily: the
    more so, the larger the skewness of a cluster's contribution is beside sqrt(C) (docs/statistics.md has rates).
    """
    return clustered_contrast(values, np.ones(values.size, dtype=np.bool_), codes)


def clustered_contrast(values: Floats, in_group: Bools, codes: Codes) -> MeanBounds:
    """mean(values[in_group]) - mean(values[~in_group]); only the first when every item is in the group.

    Clusters may span both groups: their contributions to the two means are added before they are squared, so that what
    a cluster's items have in common cancels. Raises InvalidMeasurement when a group's items are all in one cluster.
    """
    layout = _layout(np.ascontiguousarray(in_group).tobytes(), np.ascontiguousarray(codes).tobytes())
    estimate, residuals = 0.0, np.zeros(layout.clusters)
    for side in layout.sides:
        inside = values[side.items]
        mean = float(inside.mean())
        estimate += side.sign * mean
        residuals += side.scale * np.bincount(side.codes, weights=inside - mean, minlength=layout.clusters)
    squares = float((residuals**2).sum())
    return MeanBounds(
        estimate=estimate,
        se=math.sqrt(squares),
        df=layout.df,
        clusters=layout.clusters,
        skew=_skew(residuals, squares),
    )


@dataclass(frozen=True)
class _Side:
    """One group: its items, their clusters, and what a residual of each cluster (clusters,) weighs in the estimate."""

    sign: float
    items: Codes
    codes: Codes
    scale: Floats


@dataclass(frozen=True)
class _Layout:
    """What groups and clusters decide whatever the values are."""

    clusters: int
    sides: list[_Side]
    df: float


@lru_cache(maxsize=16)  # one set of items has many metrics
def _layout(in_group: bytes, codes: bytes) -> _Layout:
    member, owners = np.frombuffer(in_group, dtype=np.bool_), np.frombuffer(codes, dtype=np.intp)
    count = int(owners.max()) + 1
    sides, sizes, totals = [], [], []
    for items, sign in ((np.flatnonzero(member), 1.0), (np.flatnonzero(~member), -1.0)):
        n = items.size
        if n == 0:
            continue
        size = np.bincount(owners[items], minlength=count).astype(np.float64)
        if size.max() == n:
            raise InvalidMeasurement(f"{n} items in one cluster: independent repetitions are needed for an interval")
        inflate = 1 / np.sqrt(1 - size / n)  # undoes the shrinkage of residuals around a mean they helped to make
        sides.append(_Side(sign, items, owners[items], sign / n * inflate))
        sizes.append(size)
        totals.append(n)
    scales = np.array([side.scale for side in sides])
    return _Layout(count, sides, _degrees_of_freedom(scales, np.array(sizes), np.array(totals, dtype=np.float64)))


def _skew(residuals: Floats, squares: float) -> float:
    """sum U^3 / (sum U^2)^1.5, the third moment without the bias of residuals (Fisher's k-statistic)."""
    count = residuals.size
    if squares == 0 or count < 3:
        return 0.0
    return float((residuals**3).sum() / squares**1.5) * math.sqrt(count * (count - 1)) / (count - 2)


def _degrees_of_freedom(weights: Floats, sizes: Floats, totals: Floats) -> float:
    """Satterthwaite's tr(G)^2 / tr(G^2) for the matrix G of the variance's quadratic form, the smaller of two.

    Arrays are (group, cluster). The first takes items as independent, the second takes those of one cluster and group
    as always agreeing: where one cluster is most of a group, there is about one draw of it, however many its items.
    For group means G = diag(d) + B K B' with few columns in B, so that no C x C array is built.
    """
    u = sizes * weights
    shares = sizes / totals[:, None]
    apart = _effective((sizes * weights**2).sum(axis=0), u.T, -np.diag(1 / totals))
    kernel = np.block([[np.diag((shares**2).sum(axis=1)), -np.eye(len(u))], [-np.eye(len(u)), np.zeros((len(u),) * 2)]])
    together = _effective((u**2).sum(axis=0), np.vstack([u, u * shares]).T, kernel)
    return min(apart, together)


def _effective(diagonal: Floats, columns: Floats, kernel: Floats) -> float:
    """tr(G)^2 / tr(G^2) of G = diag(diagonal) + columns kernel columns'."""
    inner = kernel @ (columns.T @ columns)
    crossed = kernel @ (columns.T @ (diagonal[:, None] * columns))
    trace = diagonal.sum() + np.trace(inner)
    return float(trace**2 / ((diagonal**2).sum() + 2 * np.trace(crossed) + np.trace(inner @ inner)))
