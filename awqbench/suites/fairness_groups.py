"""Rates by group, their gap and the worst of them, through fairlearn's MetricFrame; counts always beside rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from awqbench.record.schema import GROUP_PREFIX, Metric


def group_measures(
    set_name: str, rate: str, rows: Sequence[dict[str, Any]], protocol: str, min_group: int
) -> tuple[dict[str, Any], list[Metric]]:
    """For each group column: a table for the overall metric's detail, and gap and worst-group metrics.

    The table has value and n by group, difference and ratio between the groups, the worst group and the groups that
    are too small to be judged: below `min_group` items a group is shown, never counted in gap or worst group. These
    two carry no interval: the smallest of several estimates is biased downward (the gap upward), so changes in them
    are judged by the paired differences of each group, not by these figures.
    """
    columns = sorted({column for row in rows for column in row if column.startswith(GROUP_PREFIX)})
    detail: dict[str, Any] = {}
    metrics: list[Metric] = []
    for column in columns:
        attribute = column.removeprefix(GROUP_PREFIX)
        table, count = _by_group([row for row in rows if row.get(column) is not None], column, min_group)
        detail[attribute] = table
        if table["difference"] is None:
            continue
        about = (
            f"{protocol}; over {len(table['by_group']) - len(table['too_few'])} groups of at least {min_group} items"
        )
        shared: dict[str, Any] = {"unit": "share", "n": count, "pairing": "none", "detail": table}
        metrics.append(
            Metric(
                id=f"fairness/{set_name}/gap[{attribute}]", value=table["difference"], higher_is_better=False,
                protocol=f"largest minus smallest {rate} by {attribute}; {about}", **shared,
            )
        )  # fmt: skip
        if rate == "accuracy":
            metrics.append(
                Metric(
                    id=f"fairness/{set_name}/worst-group-accuracy[{attribute}]", higher_is_better=True,
                    value=table["by_group"][table["worst"]]["value"],
                    protocol=f"smallest accuracy by {attribute}; {about}", **shared,
                )
            )  # fmt: skip
    return detail, metrics


def _by_group(rows: Sequence[dict[str, Any]], column: str, min_group: int) -> tuple[dict[str, Any], int]:
    """The table of one attribute, and the items in groups large enough to be judged."""
    from fairlearn.metrics import MetricFrame, count

    frame = pd.DataFrame({"score": [row["score"] for row in rows], "group": [row[column] for row in rows]})
    # fairlearn's metrics take truth and prediction; a score is both here, since the rate is its mean.
    everyone = MetricFrame(
        metrics={"value": _mean, "n": count},
        y_true=frame["score"], y_pred=frame["score"], sensitive_features=frame["group"],
    )  # fmt: skip
    by_group = {
        str(group): {"value": float(row["value"]), "n": int(row["n"])} for group, row in everyone.by_group.iterrows()
    }
    too_few = [group for group, row in by_group.items() if row["n"] < min_group]
    judged = frame[~frame["group"].isin(too_few)]
    table: dict[str, Any] = {
        "by_group": by_group, "too_few": too_few, "min_group": min_group,
        "difference": None, "ratio": None, "worst": None,
    }  # fmt: skip
    if judged["group"].nunique() < 2:
        return table, len(judged)
    compared = MetricFrame(
        metrics=_mean, y_true=judged["score"], y_pred=judged["score"], sensitive_features=judged["group"]
    )
    ratio = float(compared.ratio(method="between_groups")) if compared.group_max() > 0 else None
    table |= {
        "difference": float(compared.difference(method="between_groups")),
        "ratio": ratio,
        "worst": str(compared.by_group.astype(float).idxmin()),
    }
    return table, len(judged)


def _mean(_: Any, scores: Any) -> float:
    return float(np.mean(scores))
