"""May the candidate's loss be called tolerable?"""

from __future__ import annotations

from dataclasses import dataclass

from awqbench.errors import UserError
from awqbench.stats.discordant import is_binary
from awqbench.stats.inputs import Clusters, Scores, as_scores, check_share, cluster_codes
from awqbench.stats.paired import Method, mean_bounds
from awqbench.stats.verdict import VerdictName, decide, items_needed


@dataclass(frozen=True)
class NonInferiority:
    """The verdict and what it rests on; estimate, lower and upper are mean losses in the unit of `loss`."""

    verdict: VerdictName
    estimate: float
    lower: float
    upper: float
    n: int
    n_needed: int | None
    p_worse: float
    p_noninferior: float
    clusters: int


def noninferiority(
    loss: Scores,
    margin: float,
    alpha: float = 0.05,
    clusters: Clusters = None,
    seed: int = 0,
    *,
    method: Method = "analytic",
    binary: bool | None = None,
) -> NonInferiority:
    """Is the mean loss below `margin`? Three answers: pass, fail, inconclusive.

    loss: float array (n,), reference minus candidate per item (for a score where higher is better): higher is worse.
    margin: largest tolerable mean loss, in the same unit, at least 0. clusters: (n,) names of items that are not
    independent. Pass: the one-sided 1 - alpha upper bound is below the margin (p_noninferior < alpha). Fail: the lower
    bound is above it (p_worse < alpha). Otherwise inconclusive, with `n_needed`: the items that would decide with 80 %
    power if the loss seen is the true one; None when no number would. With fewer than 25 clusters it is a lower bound.
    "Not significant" is never "equal".

    With binary losses (-1, 0, 1; found by looking, unless `binary` says) the bounds are Tango's score bounds, so
    identical answers on a few items prove no small margin, and none prove a margin of 0. Other losses use the
    cluster-robust t, corrected for skewness, or with method="bootstrap" the BCa cluster bootstrap drawn with `seed`.
    Assumes that items (or clusters) are independent draws of what the verdict is about; docs/statistics.md has measured
    error rates, and the limits: skewed losses in few clusters, and whole clusters that flip at once.
    Raises InvalidMeasurement for losses that are not finite, fewer than two items or two clusters.
    Source: Tango 1998 (doi 10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B); ICH E9 and E10.
    """
    if not margin >= 0:
        raise UserError(f"margin must be at least 0, got {margin!r}")
    check_share(alpha, "alpha")
    array = as_scores(loss, "loss")
    codes = cluster_codes(clusters, array.size)
    bounds = mean_bounds(array, codes, binary=is_binary(array) if binary is None else binary, method=method, seed=seed)
    decision = decide(bounds, margin, alpha)
    undecided = decision.verdict == "inconclusive"
    return NonInferiority(
        verdict=decision.verdict,
        estimate=float(array.mean()),
        lower=decision.lower,
        upper=decision.upper,
        n=array.size,
        n_needed=items_needed(bounds, array.size, margin, alpha) if undecided else None,
        p_worse=decision.p_worse,
        p_noninferior=decision.p_noninferior,
        clusters=int(codes.max()) + 1,
    )
