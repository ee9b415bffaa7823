"""Resampling whole clusters with replacement, and bounds read off the draws.

Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13, 14 and 16; the expansion for few
clusters is Hesterberg, The American Statistician 69 (2015), section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from awqbench.stats.clustered import clustered_mean
from awqbench.stats.inputs import Clusters, Codes, Floats, Scores, as_scores, check_share, cluster_codes
from awqbench.stats.student import t_quantile, t_tail

DRAWS = 9999
_CHUNK = 4_000_000  # entries of an array of draws: bounds the memory at 32 MB
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BootstrapBounds:
    """Bounds from sorted bootstrap draws: BCa with `bias` and `acceleration`, plain percentiles when both are 0.

    Draws from C clusters spread too little, by sqrt((C - 1) / C), and know nothing of Student's t: percentiles are read
    at `widen` times the t quantile with `df` degrees of freedom in the place of the normal one.
    Its p-values count the observation itself, so they are never below those of a share of 1 / (draws + 1).
    """

    estimate: float
    draws: Floats
    bias: float = 0.0
    acceleration: float = 0.0
    widen: float = 1.0
    df: float = math.inf

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""
        return float(np.quantile(self.draws, self._position(-self._reach(alpha)), method="lower"))

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""
        return float(np.quantile(self.draws, self._position(self._reach(alpha)), method="higher"))

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`'."""
        share = (np.searchsorted(self.draws, value, side="right") + 1) / (self.draws.size + 1)
        return t_tail(-self._level(share) / self.widen, self.df)

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`'."""
        share = np.searchsorted(self.draws, value, side="left") / (self.draws.size + 1)
        return t_tail(self._level(share) / self.widen, self.df)

    def scaled(self, factor: float) -> BootstrapBounds:
        """The same spread on `factor` times as many items."""
        root = math.sqrt(factor)
        return replace(
            self,
            draws=self.estimate + (self.draws - self.estimate) / root,
            bias=self.bias / root,
            acceleration=self.acceleration / root,
            widen=math.sqrt(1 + (self.widen**2 - 1) / factor),
            df=self.df * factor,
        )

    def _reach(self, alpha: float) -> float:
        return self.widen * t_quantile(alpha, self.df)

    def _position(self, z: float) -> float:
        shifted = self.bias + z
        if abs(self.acceleration * shifted) >= 1:  # beyond where the correction is defined: the outermost draw
            return float(z > 0)
        return t_tail(-self.bias - shifted / (1 - self.acceleration * shifted))

    def _level(self, share: float) -> float:
        moved = -t_quantile(share) - self.bias
        if math.isinf(moved):
            return moved
        return moved / (1 + self.acceleration * moved) - self.bias


def bootstrap_mean(values: Scores, clusters: Clusters = None, *, draws: int = DRAWS, seed: int = 0) -> BootstrapBounds:
    """BCa bootstrap of the mean over items, resampling clusters (single items without clusters).

    values: float (n,), any unit. For paired scores give the differences: resampling pairs is resampling their
    differences. The bias correction is the normal quantile of the share of draws below the mean, the acceleration the
    skewness of the jackknife over clusters; `widen` is the bias-reduced standard error of `clustered_mean` over the
    draws' own, with its degrees of freedom. Assumes that clusters are independent draws of one population. Raises
    InvalidMeasurement for scores that are not finite, fewer than two items, or fewer than two clusters.
    """
    array = as_scores(values, "scores")
    codes = cluster_codes(clusters, array.size)
    sizes = np.bincount(codes).astype(np.float64)
    sums = np.bincount(codes, weights=array)
    estimate = float(array.mean())
    deviations = sums - sizes * estimate  # drawn instead of the sums: equal values then give equal means
    errors = np.concatenate([(c @ deviations) / (c @ sizes) for c in resamples(sizes.size, draws, seed)])
    errors.sort()
    left_out = (array.sum() - sums) / (array.size - sizes)
    pull = left_out.mean() - left_out
    spread, width = float((pull**2).sum()), float((deviations**2).sum())
    if min(spread, width) <= 1e-24 * max(1.0, estimate**2):  # nothing but rounding
        return BootstrapBounds(estimate, np.full(draws, estimate))
    tie = 1e-12 * float(np.abs(errors).max())
    below = (np.searchsorted(errors, -tie) + np.searchsorted(errors, tie)) / 2
    robust = clustered_mean(array, codes)
    return BootstrapBounds(
        estimate,
        estimate + errors,
        bias=-t_quantile(float(np.clip(below / draws, 1 / (draws + 1), draws / (draws + 1)))),
        acceleration=float((pull**3).sum() / (6 * spread**1.5)),
        widen=robust.se * array.size / math.sqrt(width),
        df=robust.df,
    )


def bootstrap_interval(
    values: Scores, clusters: Clusters = None, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The two-sided BCa interval of the mean, in the unit of `values`; see `bootstrap_mean`."""
    tail = (1 - check_share(level, "level")) / 2
    bounds = bootstrap_mean(values, clusters, draws=draws, seed=seed)
    return bounds.lower(tail), bounds.upper(tail)


def resamples(size: int, draws: int, seed: int, width: int | None = None) -> Iterator[Counts]:
    """How often each of `size` clusters is drawn, int64 (draws of one chunk, size); the same for the same seed.

    width: entries that the caller makes of one draw, if more than `size`: the chunks are the smaller.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(width or size, size))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)


def resampled_medians(values: Floats, codes: Codes, draws: int, seed: int) -> Floats:
    """Medians, float64 (draws,), of cluster resamples of `values`; clusters may have any sizes.

    The sorted values are counted off by how often their cluster was drawn; of an even number the two in the middle are
    averaged, as numpy.median does.
    """
    order = np.argsort(values, kind="stable")
    ordered, owners = values[order], codes[order]
    medians = []
    for counts in resamples(int(codes.max()) + 1, draws, seed, width=values.size):
        reached = counts[:, owners].cumsum(axis=1)
        items = reached[:, -1:]
        low, high = ((reached <= middle).sum(axis=1) for middle in ((items - 1) // 2, items // 2))
        medians.append((ordered[low] + ordered[high]) / 2)
    return np.concatenate(medians)
