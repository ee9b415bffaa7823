"""Difference-in-differences: did compression cost this group more than the rest?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from awqbench.errors import InvalidMeasurement, UserError
from awqbench.stats.bounds import two_sided_p
from awqbench.stats.clustered import MeanBounds, clustered_contrast
from awqbench.stats.discordant import is_binary
from awqbench.stats.inputs import Bools, Clusters, Codes, Floats, Scores, as_scores, check_share, cluster_codes


@dataclass(frozen=True)
class GroupEffect:
    """Mean delta of a group minus that of the rest, in the score's unit; p is two-sided, of 'no difference'."""

    estimate: float
    low: float
    high: float
    se: float
    p: float
    group_delta: float
    rest_delta: float
    n_group: int
    n_rest: int
    clusters: int


def difference_in_differences(
    delta: Scores,
    in_group: npt.ArrayLike,
    clusters: Clusters = None,
    level: float = 0.95,
    seed: int = 0,
    *,
    binary: bool | None = None,
) -> GroupEffect:
    """mean(delta in the group) - mean(delta in the rest), with its two-sided interval.

    delta: float array (n,), candidate minus reference per item. in_group: bool array (n,). clusters: (n,) names; one
    template asked about every group is one cluster, and what hits all groups alike then cancels. Bounds as in
    `contrast_bounds`: nothing is drawn, `seed` is accepted so that all paired tests are called alike. Assumes that
    clusters are independent; for one attribute with many groups see `simultaneous_differences`.
    Raises InvalidMeasurement when the group or the rest has fewer than two items or two clusters.
    """
    array = as_scores(delta, "delta")
    member = np.asarray(in_group)
    if member.shape != array.shape or member.dtype != np.bool_:
        raise UserError(f"in_group must be {array.size} booleans, got {member.dtype} of shape {member.shape}")
    codes = cluster_codes(clusters, array.size)
    return group_effect(array, member, codes, level, is_binary(array) if binary is None else binary)


def group_effect(array: Floats, member: Bools, codes: Codes, level: float, binary: bool) -> GroupEffect:
    """`difference_in_differences` of checked arrays."""
    tail = (1 - check_share(level, "level")) / 2
    plain = clustered_contrast_of_two(array, member, codes)
    bounds = contrast_bounds(array, member, codes, binary=binary)
    return GroupEffect(
        estimate=plain.estimate,
        low=bounds.lower(tail),
        high=bounds.upper(tail),
        se=plain.se,
        p=two_sided_p(bounds),
        group_delta=float(array[member].mean()),
        rest_delta=float(array[~member].mean()),
        n_group=int(member.sum()),
        n_rest=int((~member).sum()),
        clusters=plain.clusters,
    )


def contrast_bounds(delta: Floats, in_group: Bools, codes: Codes, *, binary: bool) -> MeanBounds:
    """Bounds for the difference of two groups' mean deltas: the cluster-robust t, corrected for skewness.

    binary: each side first gets two items of its own, one +1 and one -1, so that groups without a flip keep an interval
    (Bonett & Price, J. Educ. Behav. Stat. 37 (2012)). As in `discordant_bounds` this takes flips to be independent
    until some are seen: where whole clusters would flip at once and none has yet, the interval is too narrow.
    """
    if binary:
        first = int(codes.max()) + 1
        delta = np.concatenate([delta, [1.0, -1.0, 1.0, -1.0]])
        in_group = np.concatenate([in_group, [True, True, False, False]])
        codes = np.concatenate([codes, np.arange(first, first + 4)])
    return clustered_contrast_of_two(delta, in_group, codes)


def clustered_contrast_of_two(values: Floats, in_group: Bools, codes: Codes) -> MeanBounds:
    """`clustered_contrast` that insists on both groups. Raises InvalidMeasurement when one has fewer than two items."""
    for name, count in (("the group", int(in_group.sum())), ("the rest", int((~in_group).sum()))):
        if count < 2:
            raise InvalidMeasurement(f"{name} has {count} items; at least 2 are needed")
    return clustered_contrast(values, in_group, codes)
