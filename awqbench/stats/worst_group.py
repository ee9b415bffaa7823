"""The worst of several groups, with the bias of having picked the worst taken into account."""

from __future__ import annotations

from dataclasses import dataclass

from awqbench.stats.bootstrap import DRAWS
from awqbench.stats.did import contrast_bounds
from awqbench.stats.discordant import is_binary
from awqbench.stats.inputs import Clusters, Scores, as_scores, check_share, cluster_codes
from awqbench.stats.paired import mean_bounds
from awqbench.stats.simultaneous import maximum, normal_draws, split_groups


@dataclass(frozen=True)
class WorstGroup:
    """The group with the largest mean loss, beside what the worst of equal groups would have shown.

    estimate: its mean loss, in the unit of the loss. lower, upper: one-sided bounds of the largest true mean loss, of
    whichever group. excess: estimate minus the mean over all items; excess_if_equal: that excess expected by chance
    alone; p: one-sided, of 'this group loses no more than the rest', corrected for all groups.
    """

    group: str
    estimate: float
    upper: float
    excess: float
    excess_if_equal: float
    p: float
    groups: int
    lower: float


def worst_group(
    loss: Scores,
    groups: Clusters,
    clusters: Clusters = None,
    level: float = 0.95,
    seed: int = 0,
    *,
    draws: int = DRAWS,
    binary: bool | None = None,
) -> WorstGroup:
    """The largest mean loss over groups, by a multiplier bootstrap of the maximum over clusters.

    loss: float array (n,), higher is worse; groups, clusters: (n,) names; level: of each one-sided bound.
    The worst of k equal groups looks worse than the average: p is that of the group's difference-in-differences,
    corrected by the bootstrap of the largest of all. `upper` is the largest of the groups' own upper bounds, which
    needs no correction: the group with the largest true loss is under its own bound with confidence `level`, whichever
    it is (Berger's intersection-union). `lower` is the largest of the lower bounds, corrected. Bounds are those of
    `paired_delta`, so that a group without a flip keeps an upper bound.
    Raises InvalidMeasurement for a group with fewer than two items or clusters, or fewer than two groups.
    Source: see `awqbench.stats.simultaneous`; Berger, Technometrics 24 (1982).
    """
    array = as_scores(loss, "loss")
    alpha = 1 - check_share(level, "level")
    codes = cluster_codes(clusters, array.size)
    split = split_groups(array, groups, codes)
    if binary is None:
        binary = is_binary(array)
    bounds = [
        mean_bounds(array[member], cluster_codes(codes[member], int(member.sum())), binary=binary)
        for member in split.members
    ]
    joint = maximum(split.of_means(), draws, seed, sides=1).alpha(alpha)
    worst = int(split.means.argmax())
    differences = maximum(split.of_differences(), draws, seed, sides=1)
    alone = contrast_bounds(array, split.members[worst], codes, binary=binary).p_greater(0.0)
    excesses = split.of_excesses()
    return WorstGroup(
        group=split.labels[worst],
        estimate=float(split.means[worst]),
        upper=max(bound.upper(alpha) for bound in bounds),
        excess=float(split.means[worst] - array.mean()),
        excess_if_equal=float(normal_draws(excesses.T @ excesses, draws, seed).max(axis=1).mean()),
        p=differences.adjusted(alone),
        groups=len(split.labels),
        lower=max(bound.lower(joint) for bound in bounds),
    )
