"""Bands of positions: how much context a token had, how frequent it is in the text, how sure the reference was.

Compression may spare the average and still cost rare tokens, late positions or open questions more: uncertain answers
change 3 to 11 times as often (arXiv:2602.06181). All bands are set by the text and the reference, never by a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from awqbench.record.schema import GROUP_PREFIX
from awqbench.stats.inputs import Floats
from awqbench.suites.means import cluster_interval

# Shares of a text's tokens that the frequent and, with them, the medium types cover.
COVERAGE = {"frequent": 0.5, "medium": 0.9, "rare": 1.0}
_CONFIDENCE = {"below 25 %": 0.25, "25 to 50 %": 0.5, "50 to 75 %": 0.75, "75 % or more": 1.0}
DEFINITIONS = {
    "position": "tokens before the predicted one in its window",
    "frequency": "of the predicted token's type in the whole text as tokenized: types by falling count, frequent until "
    "they cover 50 % of its tokens, medium until 90 %, then rare; types of one count are in one band",
    "confidence": "the reference's probability of its own likeliest token",
}

Labels = np.ndarray  # of str, a band for each position


def frequency_bands(text: np.ndarray) -> dict[int, str]:
    """The band of each token type, from the counts in `text`, int [tokens]; see `DEFINITIONS`."""
    types, counts = np.unique(text, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]]) / counts.sum()
    # What the first type of a count has before it holds for all types of that count.
    first = np.concatenate([[True], np.diff(counts[order]) != 0])
    before = before[first][np.cumsum(first) - 1]
    names, limits = list(COVERAGE), list(COVERAGE.values())
    places = np.searchsorted(limits[:-1], before, side="right")
    return {int(types[at]): names[place] for at, place in zip(order, places, strict=True)}


def position_bands(count: int) -> Labels:
    """Bands of `count` predicted tokens that have 1, 2, ... tokens before them: 1-15, 16-63, 64-255, times 4."""
    edges = [1]
    while edges[-1] <= count:
        edges.append(16 if edges[-1] == 1 else edges[-1] * 4)
    names = np.array([f"{low}-{high - 1}" for low, high in pairwise(edges)])
    return names[np.searchsorted(edges, np.arange(1, count + 1), side="right") - 1]


def confidence_bands(confidence: Floats) -> Labels:
    """Bands of the reference's probability of its likeliest token, float [positions]."""
    return np.array(list(_CONFIDENCE))[np.searchsorted([0.25, 0.5, 0.75], confidence, side="right")]


def order_of(attribute: str, bands: set[str]) -> list[str]:
    """The bands of an attribute in their own order: positions from the start, frequent first, unsure first."""
    if attribute == "position":
        return sorted(bands, key=lambda band: int(band.split("-")[0]))
    return [band for band in (COVERAGE if attribute == "frequency" else _CONFIDENCE) if band in bands]


def band_rows(
    metric: str, attribute: str, labels: Labels, values: Floats, item: str, cluster: str
) -> list[dict[str, Any]]:
    """A row for each band of one window: the mean of its positions' values, in the attribute's group column."""
    return [
        {
            "metric": metric, "item_id": f"{item}/{band}", "cluster": cluster,
            "score": float(values[labels == band].mean()), "tokens": int((labels == band).sum()),
            GROUP_PREFIX + attribute: band,
        }
        for band in order_of(attribute, set(labels.tolist()))
    ]  # fmt: skip


def band_table(attribute: str, windows: list[tuple[str, Labels, Mapping[str, Floats]]]) -> list[dict[str, Any]]:
    """For each band its positions, their share, and of each figure the mean over windows of the window's mean.

    `windows` are (cluster, labels, {figure: values}). The first figure, a distance, also gets a 95 % interval over the
    windows that have the band, which ends where distances do.
    """
    total = sum(len(labels) for _, labels, _ in windows)
    table = []
    for band in order_of(attribute, {str(name) for _, labels, _ in windows for name in np.unique(labels)}):
        within = [(cluster, labels == band, values) for cluster, labels, values in windows if (labels == band).any()]
        count = sum(int(there.sum()) for _, there, _ in within)
        row: dict[str, Any] = {"band": band, "tokens": count, "share": count / total}
        for place, figure in enumerate(windows[0][2]):
            means = np.array([values[figure][there].mean() for _, there, values in within])
            row[figure] = float(means.mean())
            if place == 0:
                low, high = cluster_interval(means, [cluster for cluster, *_ in within])
                row["low"] = None if low is None else max(low, 0.0)
                row["high"] = min(high, 1.0) if high is not None and figure == "top1-disagreement" else high
        table.append(row)
    return table
