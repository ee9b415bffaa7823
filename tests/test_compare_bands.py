"""Distances by band, changes that have a sign, and items of unequal weight, in the comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from awqbench.compare import Cell, compare_tables
from awqbench.record.schema import CellResult, Metric
from awqbench.suites.base import item_table

SHIFT = np.array([-0.03, 0.02, -0.01, 0.04, -0.02, 0.01, 0.03, -0.02])


def cell(suite: str, id: str, rows: list[dict[str, Any]], signed: bool = False) -> Cell:
    metric = Metric(
        id=id, value=0.0, unit="nats per token", n=len(rows), protocol="p", higher_is_better=False,
        pairing="to-reference", signed=signed,
    )  # fmt: skip
    result = CellResult(
        backend="awq", suite=suite, kind="divergence", role="candidate", key="k", status="ok", metrics=[metric]
    )
    return Cell(result, item_table([{"metric": id, **row} for row in rows]))


def windows(scores: np.ndarray) -> list[dict[str, Any]]:
    return [{"item_id": f"w{i}", "cluster": f"w{i}", "score": float(score)} for i, score in enumerate(scores)]


def bands(rare: float, count: int = 24) -> list[dict[str, Any]]:
    noise = np.sin(np.arange(count)) / 50
    return [
        {"item_id": f"w{i}/{band}", "cluster": f"w{i}", "score": level + noise[i] * level, "group_frequency": band}
        for i in range(count)
        for band, level in (("frequent", 0.1), ("rare", rare + i % 3 / 100))
    ]


def test_a_change_with_a_sign_may_be_a_gain_and_is_tested() -> None:
    (found,) = compare_tables([cell("s", "d/log-ppl-ratio", windows(SHIFT), signed=True)], "r", None).differences
    assert found.delta == pytest.approx(SHIFT.mean())
    assert found.ci_low < 0 < found.ci_high
    assert found.p > 0.5
    assert found.test == "paired t"
    # The same rows as a distance: never below zero, and no test.
    (plain,) = compare_tables([cell("s", "d/kl", windows(np.abs(SHIFT)))], "r", None).differences
    assert plain.ci_low >= 0
    assert plain.p is None


def test_bands_of_one_suite_do_not_change_anothers_p() -> None:
    alone = compare_tables([cell("b", "d/kl-by-frequency", bands(0.11))], "r", None)
    both = compare_tables(
        [cell("b", "d/kl-by-frequency", bands(0.11)), cell("a", "e/kl-by-frequency", bands(0.5))], "r", None
    )
    own = [group.p_adjusted for group in both.groups if group.suite == "b"]
    assert own == [group.p_adjusted for group in alone.groups]
    rare = next(group for group in alone.groups if group.group == "rare")
    assert (rare.n, rare.clusters, rare.too_few) == (24, 24, False)
    assert rare.did == pytest.approx(0.02, abs=0.002)
    assert rare.ci_low < rare.did < rare.ci_high


def test_a_mean_over_bands_is_no_test_of_its_own() -> None:
    (found,) = compare_tables(
        [cell("s", "d/log-ppl-ratio-by-frequency", bands(0.2), signed=True)], "r", None
    ).differences
    assert found.by_band
    assert found.p is not None
    assert found.p_adjusted is None


def documents(backend: str, role: Any, losses: np.ndarray, words: np.ndarray) -> Cell:
    rows = [
        {"metric": "p/word_perplexity", "item_id": f"d{i:02d}", "cluster": f"d{i:02d}", "score": loss, "weight": count}
        for i, (loss, count) in enumerate(zip((losses / words).tolist(), words.tolist(), strict=True))
    ]
    metric = Metric(
        id="p/word_perplexity", value=1.0, unit="perplexity", n=len(rows), protocol="p", higher_is_better=False,
        pairing="log-ratio",
    )  # fmt: skip
    result = CellResult(
        backend=backend, suite="s", kind="perplexity", role=role, key="k", status="ok", metrics=[metric]
    )
    return Cell(result, item_table(rows))


def test_weighted_items_pair_to_the_ratio_of_their_figures() -> None:
    rng = np.random.default_rng(0)
    words = np.exp(rng.normal(6, 0.8, 60))
    before = words * rng.normal(3, 0.3, 60)
    after = before + words * rng.normal(0.05, 0.02, 60)
    cells = [documents("r", "reference", before, words), documents("awq", "candidate", after, words)]
    (found,) = compare_tables(cells, "r", None).differences
    assert found.baseline_value == pytest.approx(np.exp(before.sum() / words.sum()))
    assert found.candidate_value == pytest.approx(np.exp(after.sum() / words.sum()))
    assert found.delta == pytest.approx(found.candidate_value / found.baseline_value - 1)
    # Lengths that differ by themselves make no interval wide: 0.02 / sqrt(60), and more for the unequal weights.
    assert found.ci_low < np.expm1(0.05) < found.ci_high
    assert found.ci_high - found.ci_low < 0.02
    # On a part of the documents the weights are those of the part.
    (part,) = compare_tables([cells[0], documents("awq", "candidate", after[:9], words[:9])], "r", None).differences
    assert part.delta == pytest.approx(np.expm1((after - before)[:9].sum() / words[:9].sum()))
