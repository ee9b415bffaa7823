"""How often answers flip, overall and by how sure the reference was of them.

Answers that the reference gave by a hair flip several times as often as its sure ones (arXiv 2602.06181): flips that
lie there alone are what any small change does, flips among sure answers are damage.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from awqbench.errors import InvalidMeasurement
from awqbench.stats.inputs import Bools
from awqbench.stats.proportion import share_interval
from awqbench.suites.slices import quantile_bands

BANDS = 4
# Below so many items in a band, its rate says nothing.
BAND_ITEMS = 20


@dataclass(frozen=True)
class Share:
    """`count` of `n` items, with the cluster-robust 95 % interval of their share; None where there is none."""

    count: int
    n: int
    low: float | None
    high: float | None

    @property
    def rate(self) -> float | None:
        """The share itself; None of no items."""
        return self.count / self.n if self.n else None


@dataclass(frozen=True)
class FlipRates:
    """Flips of some items: all, to wrong, to right; and other wrong answers among the items that stayed wrong."""

    label: str
    flipped: Share
    turned_wrong: Share
    turned_right: Share
    other_wrong: Share


def flip_rates(joined: pd.DataFrame) -> list[FlipRates]:
    """Rates of all items, then of the quarters of the reference's margin (`margin_base`), the least sure first.

    Needs the columns correct, correct_base, prediction, prediction_base and cluster of items that both graded. No
    quarters without margins, or with fewer than `BAND_ITEMS` items in one.
    """
    found = [_rates("all items", joined)]
    if "margin_base" not in joined or joined["margin_base"].isna().any():
        return found
    margins = joined["margin_base"].astype("float64")
    names = pd.Series(quantile_bands(margins.tolist(), BANDS, " nats"), index=joined.index, dtype="string")
    counts = names.value_counts()
    if len(counts) < BANDS or counts.min() < BAND_ITEMS:
        return found
    for place, name in zip(("least sure", "second", "third", "surest"), sorted(counts.index), strict=True):
        own = margins[names == name]
        found.append(_rates(f"{place} quarter: lead of {own.min():.2f} to {own.max():.2f} nats", joined[names == name]))
    return found


def _rates(label: str, rows: pd.DataFrame) -> FlipRates:
    before, after = (rows[name].to_numpy(np.bool_) for name in ("correct_base", "correct"))
    answers = rows[["prediction_base", "prediction"]].fillna("")
    other = (answers["prediction_base"] != answers["prediction"]).to_numpy(np.bool_)
    clusters = rows["cluster"].astype(str).to_numpy()
    everywhere = np.ones(len(rows), np.bool_)
    return FlipRates(
        label,
        _share(before != after, everywhere, clusters),
        _share(before & ~after, everywhere, clusters),
        _share(~before & after, everywhere, clusters),
        _share(other, ~before & ~after, clusters),
    )


def _share(hits: Bools, among: Bools, clusters: np.ndarray) -> Share:
    chosen = hits[among]
    low = high = None
    with suppress(InvalidMeasurement):  # fewer than two items, or all in one cluster
        low, high = share_interval(chosen, clusters[among])
    return Share(int(chosen.sum()), len(chosen), low, high)
