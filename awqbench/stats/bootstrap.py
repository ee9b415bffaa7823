"""Resampling whole clusters with replacement, and bounds read off the draws.

Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapters 13, 14 and 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from awqbench.stats.inputs import Clusters, Codes, Floats, Scores, as_scores, check_share, cluster_codes

DRAWS = 9999
_CHUNK = 4_000_000  # entries of an index array: bounds the memory at 32 MB


@dataclass(frozen=True)
class BootstrapBounds:
    """Bounds from sorted bootstrap draws: BCa with `bias` and `acceleration`, plain percentiles when both are 0.

    Its p-values count the observation itself, so they are never below 1 / (draws + 1).
    """

    estimate: float
    draws: Floats
    bias: float = 0.0
    acceleration: float = 0.0

    def lower(self, alpha: float) -> float:
        """The one-sided lower bound at confidence 1 - alpha."""
        return float(np.quantile(self.draws, self._position(float(stats.norm.ppf(alpha))), method="lower"))

    def upper(self, alpha: float) -> float:
        """The one-sided upper bound at confidence 1 - alpha."""
        return float(np.quantile(self.draws, self._position(float(stats.norm.isf(alpha))), method="higher"))

    def p_greater(self, value: float) -> float:
        """One-sided p of 'the truth is at most `value`'."""
        share = (np.searchsorted(self.draws, value, side="right") + 1) / (self.draws.size + 1)
        return float(stats.norm.cdf(self._level(share)))

    def p_less(self, value: float) -> float:
        """One-sided p of 'the truth is at least `value`'."""
        share = np.searchsorted(self.draws, value, side="left") / (self.draws.size + 1)
        return float(stats.norm.sf(self._level(share)))

    def scaled(self, factor: float) -> BootstrapBounds:
        """The same spread on `factor` times as many items."""
        root = math.sqrt(factor)
        shrunk = self.estimate + (self.draws - self.estimate) / root
        return replace(self, draws=shrunk, bias=self.bias / root, acceleration=self.acceleration / root)

    def _position(self, z: float) -> float:
        shifted = self.bias + z
        return float(stats.norm.cdf(self.bias + shifted / (1 - self.acceleration * shifted)))

    def _level(self, share: float) -> float:
        moved = float(stats.norm.ppf(share)) - self.bias
        if math.isinf(moved):
            return moved
        return moved / (1 + self.acceleration * moved) - self.bias


def bootstrap_mean(values: Scores, clusters: Clusters = None, *, draws: int = DRAWS, seed: int = 0) -> BootstrapBounds:
    """BCa bootstrap of the mean over items, resampling clusters (single items without clusters).

    For paired scores give the differences: resampling pairs is resampling their differences. Raises
    InvalidMeasurement for scores that are not finite, fewer than two items, or fewer than two clusters.
    """
    array = as_scores(values, "scores")
    codes = cluster_codes(clusters, array.size)
    sizes = np.bincount(codes).astype(np.float64)
    sums = np.bincount(codes, weights=array)
    means = np.concatenate([sums[index].sum(1) / sizes[index].sum(1) for index in resamples(sizes.size, draws, seed)])
    estimate = float(array.mean())
    means.sort()
    below = (np.searchsorted(means, estimate, "left") + np.searchsorted(means, estimate, "right")) / 2
    bias = float(stats.norm.ppf(np.clip(below / draws, 1 / (draws + 1), draws / (draws + 1))))
    left_out = (array.sum() - sums) / (array.size - sizes)
    pull = left_out.mean() - left_out
    spread = float((pull**2).sum())
    acceleration = float((pull**3).sum() / (6 * spread**1.5)) if spread > 0 else 0.0
    return BootstrapBounds(estimate, means, bias if spread > 0 else 0.0, acceleration)


def bootstrap_interval(
    values: Scores, clusters: Clusters = None, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The two-sided BCa interval of the mean; see `bootstrap_mean`."""
    tail = (1 - check_share(level, "level")) / 2
    bounds = bootstrap_mean(values, clusters, draws=draws, seed=seed)
    return bounds.lower(tail), bounds.upper(tail)


def resamples(size: int, draws: int, seed: int, width: int | None = None) -> Iterator[Codes]:
    """Index arrays (draws of one chunk, size) that sample 0..size-1 with replacement; the same for the same seed.

    width: entries that the caller makes of one draw, if more than `size`: the chunks are the smaller.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // (width or size))
    for start in range(0, draws, step):
        yield rng.integers(0, size, (min(step, draws - start), size), dtype=np.intp)


def resample_statistic(
    statistic: Callable[[Floats], Floats], values: Floats, codes: Codes, draws: int, seed: int
) -> Floats:
    """`statistic` (row-wise: (draws, n) -> (draws,)) of `draws` cluster resamples of `values`."""
    if codes.max() + 1 == codes.size:
        return np.concatenate([statistic(values[index]) for index in resamples(codes.size, draws, seed)])
    sizes = np.bincount(codes)
    if (sizes == sizes[0]).all():
        table = values[np.argsort(codes, kind="stable")].reshape(sizes.size, -1)
        indices = resamples(sizes.size, draws, seed, width=values.size)
        return np.concatenate([statistic(table[index].reshape(len(index), -1)) for index in indices])
    members = [values[codes == code] for code in range(int(codes.max()) + 1)]
    drawn = (row for index in resamples(len(members), draws, seed) for row in index)
    return np.array([statistic(np.concatenate([members[code] for code in row])[None, :])[0] for row in drawn])
