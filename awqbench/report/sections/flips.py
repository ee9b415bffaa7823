"""How often answers flip, and how sure the reference was where they did; and the items behind it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from awqbench.record.reader import Run
from awqbench.record.schema import GROUP_PREFIX
from awqbench.report import select
from awqbench.report.sections.flip_rates import FlipRates, flip_rates


@dataclass(frozen=True)
class FlippedItem:
    """One item whose correctness changed."""

    item_id: str
    gold: str | None
    reference: str | None
    candidate: str | None
    broke: bool
    groups: str


@dataclass(frozen=True)
class FlipTable:
    """Flipped items of one candidate on one metric; `total` of them, the first ones shown.

    `rates` are those of all items, then of the reference's quarters from its least to its most sure answers, where the
    record has its margins and there are items enough.
    """

    suite: str
    metric: str
    candidate: str
    total: int
    items: list[FlippedItem]
    rates: list[FlipRates]


def flips(run: Run, most: int = 20) -> list[FlipTable]:
    """Tables for every candidate and metric with flips; items that broke come first, then by id."""
    reference = {c.result.suite: c.items for c in run.cells if c.result.role == "reference"}
    tables = []
    for cell in select.ordered(run.cells):
        base = reference.get(cell.result.suite)
        if cell.result.role != "candidate" or base is None or base.empty or cell.items.empty:
            continue
        for metric in select.unique(cell.items["metric"].dropna()):
            joined = _joined(base, cell.items, metric)
            changed = joined[joined["correct_base"] != joined["correct"]]
            if len(changed):
                chosen = changed.sort_values(["correct", "item_id"]).head(most)
                shown = [_item(row) for row in chosen.to_dict("records")]
                tables.append(
                    FlipTable(cell.result.suite, metric, cell.result.backend, len(changed), shown, flip_rates(joined))
                )
    return tables


def _joined(base: pd.DataFrame, other: pd.DataFrame, metric: str) -> pd.DataFrame:
    columns = ["item_id", "correct", "prediction", *(["margin"] if "margin" in base else [])]
    left = base.loc[base["metric"] == metric, columns]
    right = other[other["metric"] == metric]
    joined = right.merge(left, on="item_id", suffixes=("", "_base"))
    return joined.dropna(subset=["correct", "correct_base"])


def _item(row: dict[Hashable, Any]) -> FlippedItem:
    groups = [
        f"{str(key).removeprefix(GROUP_PREFIX)} = {text}"
        for key, value in row.items()
        if str(key).startswith(GROUP_PREFIX) and (text := _text(value))
    ]
    return FlippedItem(
        str(row["item_id"]),
        _text(row["gold"]),
        _text(row["prediction_base"]),
        _text(row["prediction"]),
        not row["correct"],
        ", ".join(groups),
    )


def _text(value: object) -> str | None:
    return None if value is None or value is pd.NA or value != value else str(value)
