"""Samples of n clusters, drawn with replacement from what was really measured: the measured items are the population.

Drawing with replacement makes the full sample's effect the truth, and lets n exceed the clusters at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from awqbench.compare.cell import Cell

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Items:
    """Per-item losses in equally large clusters, [clusters, items]; `member` marks the judged group's items alike."""

    loss: Floats
    member: npt.NDArray[np.bool_] | None = None
    binary: bool = False

    def drawn(self, n: int, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
        """Losses, membership and cluster numbers of `n` clusters, flat."""
        which = rng.integers(0, len(self.loss), n)
        width = self.loss.shape[1]
        member = np.ones((n, width), dtype=np.bool_) if self.member is None else self.member[which]
        return self.loss[which].ravel(), member.ravel(), np.repeat(np.arange(n), width)


def paired(reference: Cell, candidate: Cell, metric: str, group: tuple[str, str] | None = None) -> Items:
    """A metric's per-item losses by cluster; a distance is its own loss. `group`: attribute and value, items that have
    the attribute only."""
    after = candidate.rows(metric)
    if group is not None:
        after = after[after[f"group_{group[0]}"].notna()]
    score = after["score"].to_numpy(np.float64)
    if reference.items.empty:
        loss = score
    else:
        before = reference.rows(metric).set_index("item_id")["score"].loc[after["item_id"]].to_numpy(np.float64)
        found = candidate.metric(metric)
        loss = (before - score) if found is not None and found.higher_is_better else (score - before)
    order = np.argsort(after["cluster"].to_numpy(str), kind="stable")
    clusters = after["cluster"].nunique()
    member = None
    if group is not None:
        member = (after[f"group_{group[0]}"] == group[1]).to_numpy(np.bool_)[order].reshape(clusters, -1)
    binary = bool(np.isin(loss, (-1.0, 0.0, 1.0)).all())
    return Items(loss[order].reshape(clusters, -1), member, binary)


def resampled(
    cells: Sequence[Cell], n: int, draws: int, seed: int, strata: dict[str, str] | None = None
) -> Iterator[list[Cell]]:
    """The cells of one suite on the same `n` clusters, `draws` times; copies of a cluster are clusters of their own.

    `strata` names each cluster's stratum: the n clusters are then spread evenly over the strata, as a budget is.
    """
    rng = np.random.default_rng(seed)
    parts = [dict(iter(cell.items.groupby("cluster"))) if len(cell.items) else {} for cell in cells]
    names = sorted(next(part for part in parts if part))
    pools = [
        [c for c in names if (strata or {}).get(c) == s] for s in sorted({(strata or {}).get(c, "") for c in names})
    ]
    pools = pools if strata else [names]
    for _ in range(draws):
        taken = [pool[i] for k, pool in enumerate(pools) for i in rng.integers(0, len(pool), (n + k) // len(pools))]
        yield [
            cell if not part else replace(cell, items=_renamed([part[c] for c in taken]))
            for cell, part in zip(cells, parts, strict=True)
        ]


def _renamed(pieces: list[pd.DataFrame]) -> pd.DataFrame:
    copy = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces]).astype(str)
    table = pd.concat(pieces, ignore_index=True)
    for column in ("item_id", "cluster"):
        table[column] = table[column] + "#" + copy
    return table
