"""Rates by group, their gap and the worst of them, through fairlearn's MetricFrame; counts always beside rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from awqbench.record.schema import GROUP_PREFIX, Metric


@dataclass(frozen=True)
class Answer:
    """Of a question with a stereotyped answer: whether that is the right one, and whether it was given."""

    right: bool
    given: bool


def group_measures(
    set_name: str,
    rate: str,
    rows: Sequence[dict[str, Any]],
    protocol: str,
    min_group: int,
    answers: Sequence[Answer | None] | None = None,
    unit: str = "share",
    worst_is_largest: bool = False,
) -> tuple[dict[str, Any], list[Metric]]:
    """For each group column: a table for the overall metric's detail, and gap and worst-group metrics.

    The table has value and n by group, difference and ratio between the groups, the worst group and the groups that
    are too small to be judged: below `min_group` items a group is shown, never counted in gap or worst group. These
    two carry no interval: the smallest of several estimates is biased downward (the gap upward), so changes in them
    are judged by the paired differences of each group, not by these figures. With `answers`, one per row, the table
    also has `label_rates`.
    """
    columns = sorted({column for row in rows for column in row if column.startswith(GROUP_PREFIX)})
    detail: dict[str, Any] = {}
    metrics: list[Metric] = []
    for column in columns:
        attribute = column.removeprefix(GROUP_PREFIX)
        there = [i for i, row in enumerate(rows) if row.get(column) is not None]
        table, count = _by_group([rows[i] for i in there], column, min_group, worst_is_largest)
        if answers:
            table["label_rates"] = label_rates([rows[i][column] for i in there], [answers[i] for i in there], min_group)
        detail[attribute] = table
        if table["difference"] is None:
            continue
        about = (
            f"{protocol}; over {len(table['by_group']) - len(table['too_few'])} groups of at least {min_group} items"
        )
        shared: dict[str, Any] = {"unit": unit, "n": count, "pairing": "none", "detail": table}
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


def label_rates(groups: Sequence[str], answers: Sequence[Answer | None], min_group: int) -> dict[str, Any]:
    """Rates of the stereotyped answer by group, over the items that have one:

        selection_rate        share of items answered with it
        false_positive_rate   of those where it is wrong
        false_negative_rate   share of items not answered with it, of those where it is right

    Each with its `n` by group, and over the groups with at least `min_group` such items the difference and the ratio
    between groups (fairlearn's demographic parity and equalized odds are these of the first and of the other two).
    """
    frame = pd.DataFrame(
        [(group, int(a.right), int(a.given)) for group, a in zip(groups, answers, strict=True) if a],
        columns=["group", "right", "given"],
    )
    parts = {
        "selection_rate": frame,
        "false_positive_rate": frame[frame["right"] == 0],
        "false_negative_rate": frame[frame["right"] == 1],
    }
    return {name: _rate(name, part, min_group) for name, part in parts.items() if len(part)}


def _rate(name: str, frame: pd.DataFrame, min_group: int) -> dict[str, Any]:
    from fairlearn.metrics import MetricFrame, count, selection_rate

    def rate(truth: Any, given: Any) -> float:
        # On items whose truth is all 0, or all 1, both error rates are shares of given answers.
        share = float(selection_rate(truth, given, pos_label=1))
        return 1 - share if name == "false_negative_rate" else share

    made = MetricFrame(
        metrics={"value": rate, "n": count},
        y_true=frame["right"], y_pred=frame["given"], sensitive_features=frame["group"],
    )  # fmt: skip
    by_group = {str(g): {"value": float(row["value"]), "n": int(row["n"])} for g, row in made.by_group.iterrows()}
    judged = frame[frame["group"].map(frame["group"].value_counts()) >= min_group]
    return {"by_group": by_group, **_between(rate, judged["right"], judged["given"], judged["group"])}


def _by_group(
    rows: Sequence[dict[str, Any]], column: str, min_group: int, worst_is_largest: bool
) -> tuple[dict[str, Any], int]:
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
    table: dict[str, Any] = {"by_group": by_group, "too_few": too_few, "min_group": min_group, "worst": None}
    table |= _between(_mean, judged["score"], judged["score"], judged["group"])
    if table["difference"] is not None:
        means = judged.groupby("group")["score"].mean()
        table["worst"] = str(means.idxmax() if worst_is_largest else means.idxmin())
    return table, len(judged)


def _between(rate: Any, truth: Any, given: Any, groups: pd.Series[str]) -> dict[str, float | None]:
    """Largest minus smallest rate, and smallest over largest; None with fewer than two groups or without any rate."""
    from fairlearn.metrics import MetricFrame

    if groups.nunique() < 2:
        return {"difference": None, "ratio": None}
    compared = MetricFrame(metrics=rate, y_true=truth, y_pred=given, sensitive_features=groups)
    ratio = float(compared.ratio(method="between_groups")) if compared.group_max() > 0 else None
    return {"difference": float(compared.difference(method="between_groups")), "ratio": ratio}


def _mean(_: Any, scores: Any) -> float:
    return float(np.mean(scores))
