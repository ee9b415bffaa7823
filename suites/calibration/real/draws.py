"""Samples of n clusters, drawn with replacement from what was really measured: the measured items are the population.

Drawing with replacement makes the full sample's effect the truth, and lets n exceed the clusters at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from awqbench.compare.cell import Cell
from awqbench.record.schema import GROUP_PREFIX
from awqbench.stats.batches import batches

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """Per-item losses in equally large clusters, [clusters, items]; `member` marks the judged group's items alike.

    windows: of distances, each drawn by itself, and judged in batches as the gate takes neighbours of one text.
    """

    loss: Floats
    member: npt.NDArray[np.bool_] | None = None
    binary: bool = False
    windows: bool = False

    def drawn(self, n: int, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Losses, membership and cluster numbers of `n` clusters, flat."""
        which = rng.integers(0, len(self.loss), n)
        width = self.loss.shape[1]
        member = np.ones((n, width), dtype=np.bool_) if self.member is None else self.member[which]
        codes = batches(n) if self.windows else np.repeat(np.arange(n), width)
        return self.loss[which].ravel(), member.ravel(), codes


def paired(reference: Cell, candidate: Cell, metric: str, group: tuple[str, str] | None = None) -> Items:
    """A metric's per-item losses by cluster; a distance is its own loss. `group`: attribute and value, items that have
    the attribute only."""
    after, found = candidate.rows(metric), candidate.metric(metric)
    if group is not None:
        after = after[after[f"group_{group[0]}"].notna()]
    score = after["score"].to_numpy(np.float64)
    windows = reference.items.empty
    if windows:
        after = after.assign(cluster=after["item_id"])
        loss = score
    else:
        before = reference.rows(metric).set_index("item_id")["score"].loc[after["item_id"]].to_numpy(np.float64)
        loss = (before - score) if found is not None and found.higher_is_better else (score - before)
    order = np.argsort(after["cluster"].to_numpy(str), kind="stable")
    clusters = after["cluster"].nunique()
    member = None
    if group is not None:
        member = (after[f"group_{group[0]}"] == group[1]).to_numpy(np.bool_)[order].reshape(clusters, -1)
    # As in the gate: right or wrong answers are binary; log-likelihoods that are all equal are not.
    binary = not windows and found is not None and found.pairing == "difference"
    binary = binary and bool(np.isin(loss, (-1.0, 0.0, 1.0)).all())
    return Items(loss[order].reshape(clusters, -1), member, binary, windows)


def families(cell: Cell) -> list[list[str]]:
    """A fairness cell's clusters by the attributes their items have: a budget goes round these in turn."""
    columns = [name for name in cell.items.columns if str(name).startswith(GROUP_PREFIX)]
    found: dict[tuple[bool, ...], dict[str, None]] = {}
    for cluster, there in zip(cell.items["cluster"], cell.items[columns].notna().to_numpy(), strict=True):
        found.setdefault(tuple(there), {})[cluster] = None
    return [sorted(pool) for pool in found.values()]


def taken(pools: Sequence[Sequence[str]], n: int, rng: np.random.Generator) -> list[str]:
    """`n` clusters, drawn with replacement and evenly over the pools."""
    counts = [(n + k) // len(pools) for k in range(len(pools))]
    return [pool[i] for pool, count in zip(pools, counts, strict=True) for i in rng.integers(0, len(pool), count)]


def cells_on(cells: Sequence[Cell], clusters: Sequence[str]) -> list[Cell]:
    """The cells with the items of these clusters alone; copies of a cluster are clusters of their own."""
    return [replace(cell, items=_renamed([cell.items[cell.items["cluster"] == c] for c in clusters])) for cell in cells]


def _renamed(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    copy = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces]).astype(str)
    table = pd.concat(pieces, ignore_index=True)
    for column in ("item_id", "cluster"):
        table[column] = table[column] + "#" + copy
    return table
