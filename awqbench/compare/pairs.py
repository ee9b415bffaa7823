"""The items that two cells both measured, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from awqbench.compare.cell import Cell
from awqbench.errors import InvalidMeasurement, UserError
from awqbench.record.schema import GROUP_PREFIX, Flips
from awqbench.stats.inputs import Bools, Floats, as_scores
from awqbench.stats.ratio import linearized

_BASE, _CANDIDATE = (
    {name: f"{name}_{side}" for name in ("score", "correct", "prediction")} for side in ("base", "cand")
)


@dataclass(frozen=True)
class Pairs:
    """Scores of the shared items in the order of item_id. `reference` is None for distances to the reference."""

    items: pd.DataFrame
    reference: Floats | None
    candidate: Floats
    clusters: list[str]
    only_baseline: int = 0
    only_candidate: int = 0

    @property
    def n(self) -> int:
        """Shared items."""
        return self.candidate.size

    def change(self, sign: float = 1.0) -> Floats:
        """sign * (candidate - baseline) per item; the candidate's score itself where it is a distance."""
        return sign * (self.candidate if self.reference is None else self.candidate - self.reference)

    @property
    def correct(self) -> tuple[Bools, Bools] | None:
        """Right or wrong in the baseline and in the candidate, where every item has both."""
        columns = [self.items.get(name) for name in ("correct_base", "correct_cand")]  # None where a side has none
        if self.reference is None or any(column is None or bool(column.isna().any()) for column in columns):
            return None
        before, after = (np.asarray(column, dtype=np.bool_) for column in columns)
        return before, after

    def flips(self) -> Flips | None:
        """Items whose correctness, or whose wrong answer, changed."""
        if self.correct is None:
            return None
        before, after = self.correct
        other = np.zeros(self.n, dtype=np.bool_)
        if {"prediction_base", "prediction_cand"} <= set(self.items):
            # A baseline file keeps no answers: another one cannot be told from the same.
            other = (self.items["prediction_base"] != self.items["prediction_cand"]).fillna(False).to_numpy(np.bool_)
        return Flips(
            n=self.n,
            correct_to_wrong=int((before & ~after).sum()),
            wrong_to_correct=int((~before & after).sum()),
            wrong_to_wrong=int((~before & ~after & other).sum()),
        )

    def attributes(self) -> list[str]:
        """Attributes that divide the items into at least two groups."""
        return sorted(
            str(column).removeprefix(GROUP_PREFIX)
            for column in self.items.columns
            if str(column).startswith(GROUP_PREFIX) and self.items[column].nunique() > 1
        )

    def groups(self, attribute: str) -> pd.Series[str]:
        """The items' group of one attribute; missing where the attribute does not apply to an item."""
        return self.items[GROUP_PREFIX + attribute].astype("string")


def group_items(pairs: Pairs, attribute: str, group: str) -> tuple[Bools, Bools]:
    """Items the attribute applies to, and items of the group."""
    names = pairs.groups(attribute)
    return np.asarray(names.notna(), dtype=np.bool_), np.asarray((names == group).fillna(False), dtype=np.bool_)


def pair_items(baseline: Cell, candidate: Cell, metric: str, *, distance: bool, cluster: str = "cluster") -> Pairs:
    """Join two cells' items of one metric on item_id.

    distance: the scores are distances to the reference, which therefore has no scores of its own. cluster: the column
    that names items which are not independent; items without a name are clusters of their own.
    Where items have a weight, scores are linearized: their mean is the weighted one, over the shared items.
    Raises InvalidMeasurement for scores that are not finite, items measured twice, or no shared item; UserError for a
    column that is not there.
    """
    after = candidate.rows(metric)
    if cluster not in after.columns:
        raise UserError(f"no column {cluster!r} to cluster by (allowed: {', '.join(map(str, after.columns))})")
    after["cluster"] = after[cluster].fillna("item " + after["item_id"])
    what = f"{candidate.result.backend}/{candidate.result.suite} {metric}"
    if distance:
        return Pairs(after, None, as_scores(_floats(after["score"]), what, 1), list(after["cluster"]))
    before = baseline.rows(metric)
    columns = ["item_id", "score", "correct", "prediction"]  # a stored baseline may have kept fewer
    before = before[[name for name in columns if name in before]]
    if before["item_id"].equals(after["item_id"]):  # the usual case; a join takes ten times as long
        shared = before.drop(columns="item_id").rename(columns=_BASE).join(after.rename(columns=_CANDIDATE))
    else:
        shared = before.rename(columns=_BASE).merge(
            after.rename(columns=_CANDIDATE), on="item_id", validate="one_to_one"
        )
    if shared.empty:
        raise InvalidMeasurement(f"{what}: no item in common with {baseline.result.backend}")
    weights = _floats(shared["weight"]) if "weight" in shared else np.full(len(shared), np.nan)

    def scores(column: str, name: str) -> Floats:
        found = as_scores(_floats(shared[column]), name, 1)
        return found if np.isnan(weights).all() else linearized(found, weights)

    return Pairs(
        shared,
        scores("score_base", f"{baseline.result.backend}/{baseline.result.suite} {metric}"),
        scores("score_cand", what),
        list(shared["cluster"]),
        only_baseline=len(before) - len(shared),
        only_candidate=len(after) - len(shared),
    )


def _floats(column: pd.Series[float]) -> Floats:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
