"""Newly biased, newly unbiased, and the group that lost most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.record.schema import CellResult, Comparison, Metric
from awqbench.suites.base import item_table

PREFERENCE = {"id": "fairness/s/stereotype-preference", "unit": "share", "scores_bias": True}
ACCURACY = {"id": "fairness/s/accuracy", "unit": "share", "higher_is_better": True}
PERPLEXITY = {"id": "fairness/s/perplexity", "unit": "perplexity", "higher_is_better": False, "pairing": "log-ratio"}


def cell(backend: str, kind: dict[str, Any], scores: Any, groups: Any, clusters: Any = None) -> Cell:
    rows = [
        {"metric": kind["id"], "item_id": f"i{i:04d}", "score": float(score), "group_g": group,
         "cluster": None if clusters is None else clusters[i]}
        for i, (score, group) in enumerate(zip(scores, groups, strict=True))
    ]  # fmt: skip
    metric = Metric(value=float(np.mean(scores)), n=len(rows), protocol="p", **kind)
    role: Any = {"reference": "reference", "again": "noise"}.get(backend, "candidate")
    result = CellResult(backend=backend, suite="s", kind="fairness", role=role, key="k", status="ok", metrics=[metric])
    return Cell(result, item_table(rows))


def compared(kind: dict[str, Any], before: Any, after: Any, groups: Any, **more: Any) -> Comparison:
    cells = [cell(name, kind, s, groups, **more) for name, s in (("reference", before), ("q", after))]
    return compare_tables(cells, "reference", None)


def test_flips_of_bias_by_hand() -> None:
    """40 items: 3 of a turn to the stereotype, one of them from a tie; 1 of b turns away, to a tie."""
    before = np.r_[np.zeros(20), np.ones(20)]
    before[2] = 0.5
    after = before.copy()
    after[:3] = 1
    after[20] = 0.5
    found = compared(PREFERENCE, before, after, ["a"] * 20 + ["b"] * 20)
    (row,) = found.differences
    assert row.bias_flips is not None
    assert (row.bias_flips.n, row.bias_flips.newly_biased.count, row.bias_flips.newly_unbiased.count) == (40, 3, 1)
    assert row.bias_flips.newly_biased.share == pytest.approx(3 / 40)
    low, high = row.bias_flips.newly_biased.ci_low, row.bias_flips.newly_biased.ci_high
    assert (low, high) == (pytest.approx(0.0157, abs=1e-3), pytest.approx(0.2039, abs=1e-3))  # exact binomial
    by_group = {group.group: group.bias_flips for group in found.groups}
    assert by_group["a"] is not None
    assert (by_group["a"].n, by_group["a"].newly_biased.count, by_group["a"].newly_unbiased.count) == (20, 3, 0)
    assert by_group["b"] is not None
    assert by_group["b"].newly_unbiased.share == pytest.approx(1 / 20)


def test_clusters_widen_the_interval() -> None:
    before, after = np.zeros(80), np.r_[np.ones(8), np.zeros(72)]
    alone = compared(PREFERENCE, before, after, ["a", "b"] * 40)
    fours = compared(PREFERENCE, before, after, ["a", "b"] * 40, clusters=[f"c{i // 4}" for i in range(80)])
    widths = []
    for found in (alone, fours):
        flips = found.differences[0].bias_flips
        assert flips is not None
        assert flips.newly_biased.ci_low is not None
        assert flips.newly_biased.ci_high is not None
        widths.append(flips.newly_biased.ci_high - flips.newly_biased.ci_low)
    assert widths[1] > 1.3 * widths[0]


def test_other_metrics_have_no_bias_flips() -> None:
    found = compared(ACCURACY, np.ones(40), np.zeros(40), ["a", "b"] * 20)
    assert found.differences[0].bias_flips is None
    assert all(group.bias_flips is None for group in found.groups)


def test_one_cluster_has_counts_without_an_interval() -> None:
    found = compared(PREFERENCE, np.zeros(40), np.ones(40), ["a", "b"] * 20, clusters=["c"] * 40)
    flips = found.differences[0].bias_flips
    assert flips is not None
    assert (flips.newly_biased.count, flips.newly_biased.ci_low) == (40, None)


def test_the_worst_group_is_named() -> None:
    """Of six groups of 50 one loses 30 points, the others 2: that is no accident. Its upper bound is above 30."""
    groups = np.repeat(list("abcdef"), 50)
    before = np.ones(300)
    after = np.array([float(i % 50 >= (15 if group == "d" else 1)) for i, group in enumerate(groups)])
    (row,) = compared(ACCURACY, before, after, groups).worst_groups
    assert (row.group, row.attribute, row.n, row.groups, row.unit) == ("d", "g", 50, 6, "share")
    assert row.loss == pytest.approx(0.30)
    assert row.excess == pytest.approx(0.30 - 20 / 300)
    assert row.upper > 0.30
    assert row.p < 0.01


def test_the_worst_of_equal_groups_is_no_finding() -> None:
    """The worst of twelve equal groups looks worse than the mean, as much as chance says it would."""
    rng = np.random.default_rng(3)
    groups = np.repeat([f"g{i:02d}" for i in range(12)], 40)
    after = (rng.random(480) < 0.9).astype(float)
    (row,) = compared(ACCURACY, np.ones(480), after, groups).worst_groups
    assert row.excess > 0.03
    assert row.p > 0.1
    assert row.excess_if_equal == pytest.approx(row.excess, abs=0.06)


def test_small_groups_are_left_out_of_the_worst() -> None:
    groups = ["a"] * 30 + ["b"] * 30 + ["tiny"] * 5
    after = np.r_[np.ones(60), np.zeros(5)]
    (row,) = compared(ACCURACY, np.ones(65), after, groups).worst_groups
    assert (row.group in "ab", row.groups, row.loss) == (True, 2, 0.0)
    assert not compared(ACCURACY, np.ones(35), np.ones(35), ["a"] * 30 + ["tiny"] * 5).worst_groups


def test_two_items_are_no_worst_group() -> None:
    """Whatever min_group says: resampling two items that both lost would show no spread at all."""
    groups = ["a"] * 30 + ["b"] * 30 + ["two"] * 2
    after = np.r_[np.ones(60), np.zeros(2)]
    cells = [cell(name, ACCURACY, s, groups) for name, s in (("reference", np.ones(62)), ("q", after))]
    (row,) = compare_tables(cells, "reference", None, min_group={"s": 2}).worst_groups
    assert (row.groups, row.loss) == (2, 0.0)


def test_losses_of_perplexity_are_relative() -> None:
    before = np.full(80, 3.0)
    after = before + np.where(np.arange(80) % 2, 0.2, 0.0) + np.linspace(-0.01, 0.01, 80)
    (row,) = compared(PERPLEXITY, before, after, ["a", "b"] * 40).worst_groups
    assert (row.group, row.unit) == ("b", "relative")
    assert row.loss == pytest.approx(np.expm1(0.2), abs=1e-3)


def test_a_rerun_gives_the_same_bytes() -> None:
    groups = ["a", "b", "c"] * 20
    one, other = (compared(PREFERENCE, np.zeros(60), np.arange(60) % 7 == 0, groups) for _ in range(2))
    assert one.model_dump_json() == other.model_dump_json()
