"""Items that became biased, and items that no longer are: flips of metrics that score bias."""

from __future__ import annotations

from awqbench.compare.pairs import Pairs
from awqbench.errors import InvalidMeasurement
from awqbench.record.schema import BiasFlips, Metric, Share
from awqbench.stats.inputs import Bools
from awqbench.stats.proportion import share_interval


def bias_flips(pairs: Pairs, metric: Metric, member: Bools | None = None) -> BiasFlips | None:
    """Shares of all items (or of those of `member`, bool [items]) that turned; None for metrics that score no bias.

    An item is biased where its score is 1: a question answered with the stereotype, a stereotyped sentence that is
    likelier than the other. A tie is not.
    """
    if not metric.scores_bias or pairs.reference is None:
        return None
    before, after = pairs.reference == 1.0, pairs.candidate == 1.0
    chosen = member if member is not None else before | True
    if not chosen.any():
        return None
    clusters = [name for name, there in zip(pairs.clusters, chosen, strict=True) if there]
    return BiasFlips(
        n=len(clusters),
        newly_biased=_share((~before & after)[chosen], clusters),
        newly_unbiased=_share((before & ~after)[chosen], clusters),
    )


def _share(hits: Bools, clusters: list[str]) -> Share:
    share = Share(count=int(hits.sum()), share=float(hits.mean()))
    try:
        low, high = share_interval(hits.astype(float), clusters)
    except InvalidMeasurement:
        return share
    return share.model_copy(update={"ci_low": low, "ci_high": high})
