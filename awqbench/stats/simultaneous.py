"""Many groups at once: intervals that all hold together, and p-values corrected for having looked at every group.

Source: the single-step maximum of Westfall & Young, Resampling-Based Multiple Testing (1993), and Hothorn, Bretz &
Westfall, Biometrical Journal 50 (2008); the maximum is drawn by a Gaussian multiplier bootstrap over clusters
(Chernozhukov, Chetverikov & Kato, Ann. Statist. 41 (2013)).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from awqbench.errors import InvalidMeasurement
from awqbench.stats.bootstrap import DRAWS
from awqbench.stats.did import GroupEffect, group_effect
from awqbench.stats.discordant import is_binary
from awqbench.stats.inputs import Bools, Clusters, Codes, Floats, Scores, as_scores, check_share, cluster_codes
from awqbench.stats.student import t_quantile, t_tail


@dataclass(frozen=True)
class Maximum:
    """Sorted draws, float64 (draws,), of the largest of several correlated standard normal statistics."""

    draws: Floats
    sides: int  # 2: of their absolute values

    def alpha(self, family: float) -> float:
        """The level, at most `family`, of each single statistic at which the chance of any exceeding is `family`."""
        z = float(np.quantile(self.draws, 1 - family, method="higher"))
        return min(family, self.sides * t_tail(z))

    def adjusted(self, p: float) -> float:
        """A single statistic's p, corrected for all; never below p."""
        beyond = int((self.draws >= t_quantile(p / self.sides)).sum())
        return max(p, (1 + beyond) / (1 + self.draws.size))


@dataclass(frozen=True)
class Groups:
    """Items by cluster and group: sums of values and counts, each float64 (clusters, groups)."""

    labels: list[str]
    members: list[Bools]
    sums: Floats
    sizes: Floats

    @property
    def means(self) -> Floats:
        """Each group's mean."""
        return np.asarray(self.sums.sum(0) / self.sizes.sum(0))

    def of_means(self) -> Floats:
        """What each cluster adds to the error of each group's mean."""
        return np.asarray((self.sums - self.sizes * self.means) / self.sizes.sum(0), dtype=np.float64)

    def of_excesses(self) -> Floats:
        """What each cluster adds to the error of each group's mean minus the mean over all items."""
        residuals = self.sums.sum(1) - self.sizes.sum(1) * self.sums.sum() / self.sizes.sum()
        return np.asarray(self.of_means() - residuals[:, None] / self.sizes.sum(), dtype=np.float64)

    def of_differences(self) -> Floats:
        """What each cluster adds to the error of each group's mean minus that of the rest."""
        rest_sums = self.sums.sum(1)[:, None] - self.sums
        rest_sizes = self.sizes.sum(1)[:, None] - self.sizes
        rest = (rest_sums - rest_sizes * (rest_sums.sum(0) / rest_sizes.sum(0))) / rest_sizes.sum(0)
        return np.asarray(self.of_means() - rest)


def simultaneous_differences(
    delta: Scores,
    groups: Clusters,
    clusters: Clusters = None,
    level: float = 0.95,
    seed: int = 0,
    *,
    binary: bool | None = None,
    draws: int = DRAWS,
) -> dict[str, GroupEffect]:
    """`difference_in_differences` of every group against the rest, with intervals that all hold together at `level`.

    delta: float (n,), candidate minus reference per item, in the score's unit; groups, clusters: (n,) names. p is
    corrected for all groups (strong control of any false alarm). Two groups are one comparison and need no correction;
    many cost about what Bonferroni's would, less where groups share clusters. Assumes many clusters for the joint law
    of the groups; each single interval has its own degrees of freedom. Raises InvalidMeasurement as
    `difference_in_differences` does, or for fewer than two groups.
    """
    array = as_scores(delta, "delta")
    codes = cluster_codes(clusters, array.size)
    split = split_groups(array, groups, codes)
    if binary is None:
        binary = is_binary(array)
    largest = maximum(split.of_differences(), draws, seed, sides=2)
    each = 1 - largest.alpha(1 - check_share(level, "level"))
    found = {}
    for name, member in zip(split.labels, split.members, strict=True):
        effect = group_effect(array, member, codes, each, binary)
        found[name] = replace(effect, p=largest.adjusted(effect.p))
    return found


def split_groups(values: Floats, groups: Clusters, codes: Codes) -> Groups:
    """Items by cluster and group. Raises InvalidMeasurement for fewer than two groups, or a group of one item."""
    names = np.asarray([str(name) for name in (groups if groups is not None else [])])
    labels, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    if names.size != values.size or labels.size < 2 or counts.min() < 2:
        raise InvalidMeasurement("groups are compared only with a group for every item, and two of two items or more")
    shape = (int(codes.max()) + 1, labels.size)
    cell = codes * labels.size + which
    sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    sizes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    return Groups([str(name) for name in labels], [which == i for i in range(labels.size)], sums, sizes)


def maximum(contributions: Floats, draws: int, seed: int, sides: int) -> Maximum:
    """The largest standardized statistic, where each is the sum of its column of contributions (clusters, groups).

    Clusters are given independent standard normal weights; the weighted sums are normal with the columns' correlations.
    A column without any spread is taken as independent of the others.
    """
    lengths = np.sqrt((contributions**2).sum(0))
    flat = lengths <= 1e-12 * max(1.0, float(np.abs(contributions).max()))
    unit = np.where(flat, 0.0, contributions / np.where(flat, 1.0, lengths))
    correlation = unit.T @ unit
    np.fill_diagonal(correlation, 1.0)
    drawn = normal_draws(correlation, draws, seed)
    return Maximum(np.sort((np.abs(drawn) if sides == 2 else drawn).max(axis=1)), sides)


def normal_draws(covariance: Floats, draws: int, seed: int) -> Floats:
    """Centred normal draws, float64 (draws, k), with a covariance (k, k) that may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(np.random.default_rng(seed).standard_normal((draws, len(values))) @ root.T)
